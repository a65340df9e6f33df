"""The evaluation of drawn pictures, from finds to report, without a network."""

import base64
import io
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from anonymization.card import Card, GraphCard, GraphInput
from anonymization.detection.finds import Detections
from anonymization.files import read_json
from anonymization.formats.picture import read_picture
from anonymization.taxonomy import ClassSpec, Taxonomy
from data.coco import Annotation, Dataset, Image
from evaluation.config import EvaluationConfig, EvaluationConfigError
from evaluation.report.gallery import Album, obscure_boxes, published, worst_misses
from evaluation.report.page import ratio, ratio_up, write_report
from evaluation.report.pictures import PictureResult, judge_picture, rewritten_as, through_png
from evaluation.report.summary import metrics_to_log, summarize
from evaluation.truth import TruthError, check_reference, truth_of

TAXONOMY = Taxonomy(
    {
        "license_plate": ClassSpec("box", "box", margin=0.0, identifiable_px=12),
        "vehicle": ClassSpec("box", "box", margin=0.0, identifiable_px=12),
    }
)
CARD = Card(
    TAXONOMY,
    {"license_plate": 0.5, "vehicle": 0.5},
    {"mask_rcnn": GraphCard("mask_rcnn.onnx", "0" * 64, GraphInput(512), TAXONOMY.names)},
)
PLATES = [(10.0, 10.0, 50.0, 30.0), (10.0, 60.0, 50.0, 80.0)]
SIZE = (100, 100)


def dataset() -> Dataset:
    image = Image(1, "a" * 64, "a.png", *SIZE, TAXONOMY.names, fields={"sequence": "s"})
    annotations = [Annotation(i, 1, "license_plate", box) for i, box in enumerate(PLATES, 1)]
    return Dataset((image,), tuple(annotations))


def finds(boxes: list[Any], scores: list[float]) -> Detections:
    return Detections.from_boxes(boxes, class_ids=[0] * len(boxes), scores=scores)


def judged(detections: Detections) -> PictureResult:
    data = dataset()
    truth = truth_of(data.images[0], data.annotations, TAXONOMY)
    return judge_picture(truth, detections, CARD, TAXONOMY, rewrite=through_png, seed=1)


def summary(*results: PictureResult) -> dict[str, Any]:
    return summarize(results, TAXONOMY, size_edges=[0, 1, 2])


def test_a_perfect_model_recalls_everything_and_hides_nothing_else() -> None:
    found = summary(judged(finds(PLATES, [0.9, 0.8])))
    plate = found["classes"]["license_plate"]
    assert plate["detected"]["recalled"] == plate["covered"]["recalled"] == 2
    assert plate["precision"] == plate["ap50"] == plate["ap"] == 1.0
    assert found["false_finds_per_picture"]["value"] == 0
    assert found["non_object_share_obscured"] == {"value": 0.0, "pictures": 1}
    assert found["written_output_verified"] == {"pictures": 1, "failed": []}


def test_what_the_written_file_keeps_outside_of_true_objects_is_read_from_it() -> None:
    """Plates take 2 x 800 of 10,000 px; a false find paints 900 of the other 8,400 black."""
    data = dataset()
    truth = truth_of(data.images[0], data.annotations, TAXONOMY)
    painted = Taxonomy({n: replace(TAXONOMY[n], method="solid") for n in TAXONOMY.names})
    found = finds([*PLATES, (60.0, 60.0, 90.0, 90.0)], [0.9, 0.9, 0.9])
    how: dict[str, Any] = {"rewrite": through_png, "pixels": np.full((*SIZE, 3), 255, np.uint8)}
    card = replace(CARD, taxonomy=painted)
    measured = summary(judge_picture(truth, found, card, TAXONOMY, **how))
    # Of white and black the mean squared error is 255^2 x 900 / 8400: 10 log10(8400 / 900) dB.
    assert measured["utility_kept"] == {"unchanged": 7500 / 8400, "psnr_db": 9.7, "pictures": 1}
    assert metrics_to_log(measured)["utility_kept/psnr_db"] == 9.7
    perfect = summary(judge_picture(truth, finds(PLATES, [0.9, 0.9]), card, TAXONOMY, **how))
    assert perfect["utility_kept"] == {"unchanged": 1.0, "psnr_db": None, "pictures": 1}
    unknown = summary(judged(finds(PLATES, [0.9, 0.9])))["utility_kept"]
    assert unknown == {"unchanged": None, "psnr_db": None, "pictures": 0}


def test_a_jpeg_is_unchanged_outside_of_the_blocks_that_hold_a_find(tmp_path: Path) -> None:
    """Blocks of 16 x 16 px (4:2:0) around the plates: 64 x 32 and 64 x 48 of 96 x 96 px."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    shown = Pillow.fromarray(noise).resize((96, 96), Pillow.Resampling.BICUBIC)
    shown.save(tmp_path / "a.jpg", quality=90, subsampling=2)
    picture = read_picture(tmp_path / "a.jpg")
    image = Image(1, "a" * 64, "a.jpg", 96, 96, TAXONOMY.names)
    truth = truth_of(image, dataset().annotations, TAXONOMY)
    result = judge_picture(
        truth,
        finds(PLATES, [0.9, 0.9]),
        CARD,
        TAXONOMY,
        rewrite=rewritten_as(picture),
        pixels=picture.pixels,
    )
    kept = result.picture.kept
    assert kept is not None
    assert kept.pixels == 96 * 96 - 2 * 800
    # Smooth enlarging of colour reaches one pixel beyond a block.
    assert kept.unchanged >= 96 * 96 - 66 * 33 - 66 * 50
    assert kept.squared_error > 0


def test_a_model_that_finds_nothing_recalls_nothing() -> None:
    plate = summary(judged(Detections.empty()))["classes"]["license_plate"]
    assert plate["detected"]["recall"] == plate["covered"]["recall"] == 0.0
    assert plate["precision"] is None
    assert plate["ap"] == 0.0


def test_half_found_beside_one_stray_find_gives_the_values_worked_out_by_hand() -> None:
    stray = (60.0, 60.0, 80.0, 80.0)
    low = (60.0, 10.0, 90.0, 30.0)
    found = summary(judged(finds([PLATES[0], stray, low], [0.9, 0.7, 0.2])))
    plate = found["classes"]["license_plate"]
    assert plate["detected"]["recall"] == plate["covered"]["recall"] == 0.5
    assert plate["precision"] == 0.5
    assert plate["finds"] == 2
    assert plate["false_finds"] == 1
    assert found["false_finds_per_picture"]["by_class"] == {"license_plate": 1.0, "vehicle": 0.0}
    # 400 px of the stray find over the 10,000 of the picture less two plates of 800.
    assert found["non_object_share_obscured"]["value"] == pytest.approx(400 / 8400)
    assert plate["size_bins"][1] == {
        "from": 12, "to": 24, "total": 2, "detected": 1, "covered": 1, "below_line": False,
    }  # fmt: skip


def test_an_object_found_in_part_is_detected_but_not_covered() -> None:
    part = (10.0, 10.0, 40.0, 30.0)
    plate = summary(judged(finds([part, PLATES[1]], [0.9, 0.9])))["classes"]["license_plate"]
    assert plate["detected"]["recalled"] == 2
    assert plate["covered"]["recalled"] == 1


def test_a_writer_that_writes_the_picture_as_it_was_covers_nothing_and_is_named() -> None:
    data = dataset()
    truth = truth_of(data.images[0], data.annotations, TAXONOMY)
    calls = iter(_noise())
    result = judge_picture(
        truth, finds(PLATES, [0.9, 0.9]), CARD, TAXONOMY, rewrite=lambda _: next(calls), seed=1
    )
    assert [row.annotation_id for row in result.written_failed] == [1, 2]
    assert summary(result)["classes"]["license_plate"]["covered"]["recalled"] == 0


def _noise() -> tuple[np.ndarray, ...]:
    from evaluation.coverage import noise_pair

    return noise_pair(*SIZE, seed=1)


def test_metrics_for_mlflow_carry_class_and_sense() -> None:
    logged = metrics_to_log(summary(judged(finds(PLATES, [0.9, 0.8]))))
    assert logged["recall/license_plate/covered"] == 1.0
    assert logged["recall/vehicle/detected"] is None


def test_the_report_is_one_page_and_shows_no_true_pixel_of_a_miss(tmp_path: Path) -> None:
    pixels = np.full((*SIZE, 3), 128, np.uint8)
    pixels[60:80, 10:50] = (np.indices((20, 40)) // 5).sum(0)[..., None] % 2 * 255
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Pillow.fromarray(pixels).save(pictures / "a.png")
    result = judged(finds([PLATES[0]], [0.9]))
    about = {"split": "reference", "thresholds": CARD.thresholds, "bundle_digest": "b" * 64}
    about |= {"reference_digest": "r" * 64, "code_revision": "c", "run_id": None}
    folder = tmp_path / "evaluated"
    folder.mkdir()
    album = Album(dataset(), TAXONOMY, pictures)
    write_report(folder, summary(result) | about, result.objects, result.finds, album, most=5)
    page, local = ((folder / name).read_text() for name in ("report.html", "report_local.html"))
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    (shown,) = read_json(folder / "gallery.json")["pictures"]
    assert shown["data"] in page
    assert shown["data"] not in local
    assert "people as they are" not in page
    assert "people as they are" in local
    # The checkerboard of the missed plate has a spread of 127.
    assert spread(shown["data"]) < 60
    (raw,) = re.findall(r"data:image/jpeg;base64,([^\"]+)", local)
    assert spread(raw) > 90


def test_a_published_false_find_hides_whom_the_annotator_may_have_overlooked(
    tmp_path: Path,
) -> None:
    pixels = np.full((*SIZE, 3), 128, np.uint8)
    pixels[60:80, 10:50] = (np.indices((20, 40)) // 5).sum(0)[..., None] % 2 * 255
    Pillow.fromarray(pixels).save(tmp_path / "a.png")
    data = dataset()
    unlabelled = Dataset(data.images, data.annotations[:1])
    truth = truth_of(data.images[0], unlabelled.annotations, TAXONOMY)
    result = judge_picture(
        truth, finds(PLATES, [0.9, 0.9]), CARD, TAXONOMY, rewrite=through_png, seed=1
    )
    about = {"split": "reference", "thresholds": CARD.thresholds, "bundle_digest": "b" * 64}
    about |= {"reference_digest": "r" * 64, "code_revision": "c", "run_id": None}
    album = Album(unlabelled, TAXONOMY, tmp_path)
    write_report(tmp_path, summary(result) | about, result.objects, result.finds, album, most=5)
    (shown,) = read_json(tmp_path / "gallery.json")["pictures"]
    assert (shown["kind"], spread(shown["data"]) < 60) == ("false_find", True)


def test_a_large_face_in_a_partly_labelled_picture_keeps_no_more_cells_than_elsewhere() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    image = Image(1, "a" * 64, "a.png", 400, 400, ("license_plate",))
    plate = Annotation(1, 1, "license_plate", (100.0, 100.0, 300.0, 300.0))
    shown = published(noise, truth_of(image, [plate], TAXONOMY), [], labelled=False)
    assert len(np.unique(shown[100:300, 100:300].reshape(-1, 3), axis=0)) <= 16
    # The rest is veiled: cells of 13 px.
    assert len(np.unique(shown[:60].reshape(-1, 3), axis=0)) <= 5 * 31


def test_boxes_beyond_the_picture_and_across_a_seam_are_hidden_where_they_are() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 100, 3), dtype=np.uint8)
    hidden = obscure_boxes(pixels, [(90.0, -5.0, 110.0, 10.0), (30.0, 50.0, 40.0, 60.0)])
    changed = (hidden != pixels).any(axis=2)
    assert changed[:10, 90:].mean() > 0.9
    assert changed[:10, :10].mean() > 0.9
    assert not changed[15:].any()


def spread(data: str) -> float:
    """Of the pixels inside the plate's frame, in a tile of 240 pixels."""
    tile = np.asarray(Pillow.open(io.BytesIO(base64.b64decode(data))))
    return float(tile[140:180, 32:128].std())


def test_the_least_hidden_miss_comes_first() -> None:
    rows = judged(finds([(10.0, 10.0, 24.0, 30.0)], [0.9])).objects
    assert [row.annotation_id for row in worst_misses(rows, 5)] == [2, 1]


def test_a_recall_is_never_rounded_up() -> None:
    assert ratio(0.9499999) == "0.949"


def test_a_leak_is_never_rounded_down() -> None:
    assert ratio_up(0.0481) == "0.049"
    assert ratio_up(0.0) == "0.000"


def test_an_empty_reference_is_refused_by_name() -> None:
    with pytest.raises(TruthError, match="the reference set holds no pictures"):
        check_reference(Dataset((), ()), "reference")


def test_a_picture_held_twice_is_refused_by_name() -> None:
    one = dataset().images[0]
    with pytest.raises(TruthError, match=r"holds picture a+ twice"):
        check_reference(Dataset((one, one), ()), "reference")


def test_size_edges_without_the_identifiable_line_are_refused() -> None:
    with pytest.raises(EvaluationConfigError, match=r"must hold 1\.0"):
        EvaluationConfig(size_edges=[0.0, 2.0])


def test_a_turn_has_its_numbers_before_there_is_a_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An experiment that ends at evaluation is compared with others by its own run."""
    from data.tracking.runs import StageRun
    from evaluation import __main__ as stage

    logged: dict[str, list[str]] = {}
    client = SimpleNamespace(
        log_batch=lambda run, metrics: logged.setdefault(run, []).extend(m.key for m in metrics),
        log_artifact=lambda *_: None,
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(StageRun, "log_artifact", lambda *_, **__: None)
    sense = {"recalled": 9, "total": 10, "recall": 0.9, "lower_bound": {"bound": 0.6}}
    classes = {"face": {"detected": sense, "covered": sense}}
    summary = {"classes": classes, "taxonomy_gated": ["face"]}
    monkeypatch.setattr("evaluation.report.summary.metrics_to_log", lambda _: {"recall": 0.9})

    stage._log(StageRun(client, "evaluation", "turn"), summary, EvaluationConfig())
    assert logged["evaluation"] == ["recall"]
    assert {"recall/face/covered", "bound/lowest"} <= set(logged["turn"])
    stage._log(StageRun(None, None, None), summary, EvaluationConfig())
