"""Slices and their flags, tracks and their leaks, coverage at every share."""

from typing import Any

import numpy as np
import pytest

from anonymization.taxonomy import ClassSpec, Taxonomy
from data.coco import Annotation, Dataset, Image
from evaluation.config import EvaluationConfig, EvaluationConfigError
from evaluation.measures.slices import occlusion_name, slice_table, slice_values
from evaluation.measures.tracks import track_table, tracks_of
from evaluation.recall import coverage_curve
from evaluation.report.rows import ObjectRow

TAXONOMY = Taxonomy({"face": ClassSpec("box", "box", identifiable_side="width")})
EDGES = [0.0, 0.5, 1.0, 2.0]


def row(number: int, hit: bool, *, cluster: str = "", share: float = 1.0, **more: Any) -> ObjectRow:
    values: dict[str, Any] = {
        "sha256": f"{number:064d}", "class_name": "face", "annotation_id": number,
        "cluster": cluster or str(number), "box_xyxy": (0.0, 0.0, 30.0, 30.0), "counted": True,
        "crowd": False, "side_px": 30.0, "detected_at": 0.9 if hit else None, "detected": hit,
        "share": share, "written_share": None, "covered": hit,
    }  # fmt: skip
    return ObjectRow(**values | more)


def test_a_picture_gives_its_objects_the_slices_of_its_fields_size_occlusion_and_latitude() -> None:
    fields = {"camera": "left", "projection": "equirectangular", "weather": None}
    image = Image(1, "a" * 64, "a.png", 400, 200, ("face",), fields=fields)
    objects = (
        Annotation(1, 1, "face", (0, 90, 30, 110), attributes={"occluded": 0.4}),
        Annotation(2, 1, "face", (0, 0, 50, 10)),
    )
    values = slice_values(Dataset((image,), objects), TAXONOMY, ["camera", "weather"], EDGES)
    assert values == {
        1: {
            "camera": "left", "size": "20 to 40 px", "occlusion": "30 to 60 %",
            "latitude": "within 30° of the horizon",
        },
        2: {"camera": "left", "size": "40 px and more", "latitude": "beyond 60°"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("word", "name"),
    [(0, "free"), (0.05, "free"), (0.31, "30 to 60 %"), (0.9, "above 60 %"), ("yes", "unknown")],
)
def test_occlusion_has_a_name_for_every_word(word: Any, name: str) -> None:
    assert occlusion_name(word) == name


def table(rows: list[ObjectRow], nights: set[int]) -> dict[str, dict[str, Any]]:
    values = {
        r.annotation_id: {"light": "night" if r.annotation_id in nights else "day"} for r in rows
    }
    return {entry["slice"]: entry for entry in slice_table(rows, values)}


def test_a_slice_that_falls_short_is_flagged_and_the_others_are_not() -> None:
    rows = [row(n, n >= 12) for n in range(200)]
    found = table(rows, set(range(40)))
    assert found["night"]["flagged"] == ["detected", "covered"]
    assert found["night"]["detected"]["recalled"] == 28
    assert found["day"]["flagged"] == []


def test_misses_of_one_cluster_are_one_piece_of_bad_luck_and_no_flag() -> None:
    rows = [row(n, n >= 12, cluster="crash" if n < 12 else "") for n in range(200)]
    assert table(rows, set(range(40)))["night"]["flagged"] == []


def test_a_class_with_one_value_is_not_sliced() -> None:
    assert table([row(n, True) for n in range(5)], set()) == {}


def drawn(generator: np.random.Generator, night: float) -> tuple[list[ObjectRow], set[int]]:
    """120 clusters of three objects of correlation 0.3 and recall 0.95 by day; a third is night."""
    rows, nights = [], set()
    for cluster in range(120):
        recall = night if cluster % 3 == 0 else 0.95
        own = generator.beta(recall * 0.7 / 0.3, (1 - recall) * 0.7 / 0.3)
        for _ in range(3):
            number = len(rows)
            rows.append(row(number, bool(generator.random() < own), cluster=str(cluster)))
            if cluster % 3 == 0:
                nights.add(number)
    return rows, nights


@pytest.mark.slow
def test_simulated_slices_are_flagged_by_chance_seldom_and_when_much_worse_nearly_always() -> None:
    generator = np.random.default_rng(4)
    same = [any(e["flagged"] for e in table(*drawn(generator, 0.95)).values()) for _ in range(200)]
    worse = [table(*drawn(generator, 0.6))["night"]["flagged"] != [] for _ in range(60)]
    # 5 % of 200 are 10; 16 or more would come up once in thirty tries at a true rate of 5 %.
    assert sum(same) <= 15
    assert sum(worse) >= 54


def test_coverage_falls_with_the_share_that_is_asked_for() -> None:
    shares = [1.0, 0.92, 0.7, 0.4]
    curve = coverage_curve([row(n, True, share=share) for n, share in enumerate(shares)])
    recalls = {point["share"]: point["recall"] for point in curve}
    assert (recalls[0.5], recalls[0.7], recalls[0.9], recalls[1.0]) == (0.75, 0.75, 0.5, 0.25)


def test_what_the_written_file_does_not_hide_is_covered_at_no_share() -> None:
    (point, *_) = coverage_curve([row(1, True, written_share=0.2)])
    assert point == {"share": 0.5, "recall": 0.0}


def video(frames: list[bool], *, track: str = "p1") -> tuple[list[ObjectRow], Dataset]:
    images, objects, rows = [], [], []
    for n, hit in enumerate(frames, start=1):
        fields = {"source": "s", "camera": "c", "sequence": "drive", "frame": n}
        images.append(Image(n, f"{n:064d}", f"{n}.png", 64, 64, ("face",), fields=fields))
        objects.append(Annotation(n, n, "face", (0, 0, 30, 30), attributes={"track": track}))
        rows.append(row(n, hit))
    return rows, Dataset(tuple(images), tuple(objects))


def test_a_track_leaks_as_long_as_its_longest_run_of_bare_frames() -> None:
    rows, data = video([True, False, False, True, False, True])
    (found,) = track_table(tracks_of(rows, data))
    assert (found["tracks"], found["recalled"], found["longest_leak_frames"]) == (1, 0, 2)
    assert found["longest_leak_track"] == "s/c/drive/p1"


def test_a_track_covered_in_every_frame_is_recalled_and_nothing_found_is_not() -> None:
    assert track_table(tracks_of(*video([True] * 4)))[0]["recall"] == 1.0
    (bare,) = track_table(tracks_of(*video([False] * 4)))
    assert (bare["recall"], bare["longest_leak_frames"]) == (0.0, 4)


def test_objects_without_a_track_make_none() -> None:
    rows, data = video([True, True])
    plain = Dataset(data.images, tuple(Annotation(n, n, "face", (0, 0, 9, 9)) for n in (1, 2)))
    assert tracks_of(rows, plain) == []


def test_a_field_sliced_twice_is_refused() -> None:
    with pytest.raises(EvaluationConfigError, match="expected different names"):
        EvaluationConfig(slices=["camera", "camera"])
