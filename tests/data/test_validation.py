"""Validation: leaks block the verdict, the rest warns, and the queue holds no reference picture."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from anonymization.taxonomy import ClassSpec, Taxonomy
from data.coco import Annotation, Dataset, Image, mask_to_rle
from data.findings import box_iou, leaks, size_gaps, suspicious_labels, thin_classes
from data.validation import ValidationConfig, ValidationError, find, queue, report, sizes

TAXONOMY = Taxonomy({"plate": ClassSpec(geometry="box", shape="box", identifiable_px=12)})
NONE = ValidationConfig(objects_min={})


def sha(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def part(*names: str, heights: tuple[float, ...] = (20,), **fields: Any) -> Dataset:
    images = tuple(
        Image(i + 1, sha(n), f"{n}.png", 640, 480, ("plate",), (), False,
              {"source": "folder-a", "origin": n, **fields})
        for i, n in enumerate(names)
    )  # fmt: skip
    boxes = [
        Annotation(i.id * 1000 + n, i.id, "plate", (50.0 * n, 0, 50.0 * n + 40, h))
        for i in images
        for n, h in enumerate(heights)
    ]
    return Dataset(images, tuple(boxes))


def splits(**parts: Dataset) -> dict[str, Dataset]:
    return {"train": part("t"), "val": part("v"), "reference": part("r"), **parts}


def hashes_of(found: dict[str, Dataset]) -> dict[str, str]:
    return {i.sha256: sha(f"hash {i.sha256}") for d in found.values() for i in d.images}


def checked(found: dict[str, Dataset], config: ValidationConfig = NONE) -> dict[str, Any]:
    findings = find(found, hashes_of(found), TAXONOMY, config, distance_max=20)
    return report(findings, {"train": "a" * 64})


def test_a_clean_split_has_no_findings() -> None:
    assert checked(splits()) == {
        "schema_version": 1,
        "data_sha256": {"train": "a" * 64},
        "verdict_blocking": False,
        "counts": {},
        "leaks": [],
        "findings": [],
    }


@pytest.mark.parametrize(
    ("train", "what"),
    [
        (part("r"), "picture"),
        (part("t", sequence="drive"), "sequence"),
    ],
)
def test_what_stands_in_train_and_reference_blocks_the_verdict(train: Dataset, what: str) -> None:
    result = checked(splits(train=train, reference=part("r", sequence="drive")))
    assert result["verdict_blocking"]
    assert what in {f["evidence"]["what"] for f in result["findings"]}


def test_a_near_duplicate_on_both_sides_blocks_the_verdict() -> None:
    found = splits()
    hashes = hashes_of(found)
    hashes[sha("t")] = f"{int(hashes[sha('r')], 16) ^ 0xFFFFF:064x}"
    assert [f.evidence["what"] for f in leaks(found, hashes, distance_max=20)] == ["near-duplicate"]
    assert leaks(found, hashes, distance_max=19) == []


def test_a_leak_between_train_and_val_warns() -> None:
    result = checked(splits(val=part("t")))
    assert result["counts"] == {"leak": 1}
    assert not result["verdict_blocking"]


def test_only_identifiable_objects_count() -> None:
    found = splits(train=part("t", heights=(11, 12, 30)))
    assert thin_classes(found, TAXONOMY, {"train": 2}) == []
    (finding,) = thin_classes(found, TAXONOMY, {"train": 3})
    assert finding.evidence == {"split": "train", "class": "plate", "count": 2, "expected": 3}


@pytest.mark.parametrize(
    ("judged", "gap"),
    [((10, 20, 30, 40), False), ((10, 20, 30, 41), True), ((5, 6, 7, 8), True)],
)
def test_sizes_that_training_lacks_are_found(judged: tuple[float, ...], gap: bool) -> None:
    limits = {"outside_max": 0.2, "ks_max": 0.9}
    train = part("t", heights=(10, 20, 30, 40))
    found = size_gaps(train, part("r", heights=judged), TAXONOMY, **limits)
    assert bool(found) == gap
    if gap:
        assert found[0].evidence["outside"] in (0.25, 1.0)


def test_sizes_spread_otherwise_are_found_by_their_distance() -> None:
    train = part("t", heights=(10, *[50] * 40, 100))
    judged = part("r", heights=(10, *[90] * 40, 100))
    (finding,) = size_gaps(train, judged, TAXONOMY, outside_max=0.02, ks_max=0.2)
    assert finding.evidence["outside"] == 0
    assert finding.evidence["distance"] == pytest.approx(40 / 42)


def one(annotation: Annotation, *more: Annotation) -> list[str]:
    image = part("t").images[0]
    return suspicious_labels(Dataset((image,), (annotation, *more))).get(image.sha256, [])


def test_suspicious_labels_are_named() -> None:
    import numpy as np

    good = Annotation(7, 1, "plate", (10, 10, 60, 30))
    mask = np.zeros((480, 640), dtype=bool)
    mask[200:240, 300:400] = True
    assert one(good) == []
    assert one(replace(good, box_xyxy=(600, 10, 650, 30))) == [
        "plate at 98 % from the left, 4 % from the top, 50 x 20 px: reaches out of the picture"
    ]
    assert one(replace(good, box_xyxy=(10, 10, 11.5, 30))) == [
        "plate at 2 % from the left, 4 % from the top, 1.5 x 20 px: too small to show anything"
    ]
    where = "plate at 5 % from the left, 4 % from the top, 50 x 20 px"
    assert one(replace(good, segmentation=mask_to_rle(mask))) == [
        f"{where}: outline and box disagree"
    ]
    assert one(good, replace(good, id=8)) == [f"{where}: drawn twice, in nearly the same box"]
    assert one(good, replace(good, id=8, crowd=True)) == []


def test_a_doubt_says_where_the_object_is_and_never_its_number():
    doubts = one(Annotation(4711, 1, "plate", (-200, 100, -198, 101)))
    assert [d.split(":")[0] for d in doubts] == [
        "plate at 0 % from the left, 21 % from the top, 2 x 1 px"
    ] * 2
    assert "4711" not in str(doubts)


def test_the_queue_never_holds_a_reference_picture() -> None:
    bad = part("r", heights=(1,), label_problems=["annotation 3: box is empty"])
    found = splits(reference=bad, val=part("v", heights=(1,)))
    findings = find(found, hashes_of(found), TAXONOMY, NONE, distance_max=20)
    waiting = queue(found, findings, None, NONE)["reannotate"]
    assert [w["origin"] for w in waiting] == ["v"]


def test_the_queue_asks_for_classes_that_evaluation_found_weak() -> None:
    evaluation = {
        "classes": {"plate": {"detected": {"recall": 0.9}}, "face": {"detected": {"recall": None}}}
    }
    wanted = queue(splits(), [], evaluation, NONE)["collect"]
    assert wanted == [{"class": "plate", "reason": "recall 0.900 is below 0.95"}]


def test_histograms_hold_every_object() -> None:
    counts = sizes(splits(train=part("t", heights=(3, 12, 700))), TAXONOMY)["counts"]
    assert sum(counts["train"]["plate"]) == 3
    assert counts["train"]["plate"][2] == 1


def test_overlap_of_equal_and_distant_boxes() -> None:
    assert box_iou((0, 0, 2, 2), (0, 0, 2, 2)) == 1
    assert box_iou((0, 0, 2, 2), (2, 0, 4, 2)) == 0


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValidationError, match="test"):
        ValidationConfig(objects_min={"test": 3})
