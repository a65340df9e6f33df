"""Finds judged against the truth of one drawn picture, through the anonymizer's own regions."""

import dataclasses

import numpy as np
import pytest

from anonymization.detection.finds import Detections
from anonymization.obscuring.obscure import obscure
from anonymization.obscuring.shapes import MASK_THRESHOLD
from anonymization.taxonomy import ClassSpec, Taxonomy
from data.coco import Annotation, Image
from evaluation import coverage
from evaluation.coverage import coverage_shares, regions_of, written_coverage
from evaluation.judging import check_detections, covered_thresholds, judge
from evaluation.matching import NEITHER, RIGHT, WRONG, MatchingError
from evaluation.truth import truth_of

TAXONOMY = Taxonomy(
    {
        "face": ClassSpec("ellipse", "ellipse", identifiable_side="width", identifiable_px=20),
        "license_plate": ClassSpec("box", "box", margin=0.0, identifiable_px=12),
        "vehicle": ClassSpec(
            "mask", "outline", margin=0.0, identifiable_side="width", identifiable_px=40
        ),
    },
    head_class="face",
)
SQUARE = (100.0, 50.0, 140.0, 90.0)


def image(labelled: tuple[str, ...] = TAXONOMY.names, partial: tuple[str, ...] = ()) -> Image:
    return Image(1, "a" * 64, "a.png", 200, 120, labelled, partial)


def annotation(name: str, box: tuple[float, float, float, float], **more: object) -> Annotation:
    return Annotation(1, 1, name, box, **more)  # type: ignore[arg-type]


def finds(name: str, boxes: list[tuple[float, ...]], scores: list[float]) -> Detections:
    ids = [TAXONOMY.class_id(name)] * len(boxes)
    return Detections.from_boxes(boxes, class_ids=ids, scores=scores)


def test_a_plate_is_matched_by_its_box_and_a_stray_find_is_wrong() -> None:
    truth = truth_of(image(), [annotation("license_plate", SQUARE)], TAXONOMY)
    judged = judge(truth, finds("license_plate", [SQUARE, (0, 0, 20, 20)], [0.6, 0.9]), TAXONOMY)[
        "license_plate"
    ]
    assert judged.detected_at.tolist() == pytest.approx([0.6])
    assert judged.matching.find_state.tolist() == [RIGHT, WRONG]


def test_a_small_object_is_ignored_by_the_gate_but_its_own_bin_knows_that_it_was_found() -> None:
    small = (10.0, 10.0, 24.0, 26.0)
    truth = truth_of(image(), [annotation("face", small)], TAXONOMY)
    judged = judge(truth, finds("face", [small], [0.7]), TAXONOMY)["face"]
    assert not judged.counted.any()
    assert judged.matching.find_state.tolist() == [NEITHER]
    assert judged.detected_at.tolist() == pytest.approx([0.7])


def test_the_annotators_word_beats_the_size_rule() -> None:
    word = {"identifiable": True}
    truth = truth_of(image(), [annotation("face", (0, 0, 9, 9), attributes=word)], TAXONOMY)
    assert truth.objects[0].counted


def test_an_outline_is_compared_with_the_found_outline_not_with_its_box() -> None:
    left_half = [[100.0, 50.0, 120.0, 50.0, 120.0, 90.0, 100.0, 90.0]]
    wide = (60.0, 50.0, 140.0, 90.0)
    truth = truth_of(image(), [annotation("vehicle", wide, segmentation=left_half)], TAXONOMY)
    masks = np.zeros((1, 28, 28), np.float32)
    masks[0, :, 14:21] = 1
    found = dataclasses.replace(finds("vehicle", [wide], [0.9]), masks=masks)
    assert judge(truth, found, TAXONOMY)["vehicle"].detected_at.tolist() == pytest.approx([0.9])
    whole_box = finds("vehicle", [wide], [0.9])
    assert judge(truth, whole_box, TAXONOMY)["vehicle"].detected_at.tolist() == [-np.inf]


def test_finds_of_a_class_that_nobody_labelled_are_neither_right_nor_wrong() -> None:
    truth = truth_of(image(labelled=("vehicle",)), [], TAXONOMY)
    judged = judge(truth, finds("face", [SQUARE], [0.9]), TAXONOMY)["face"]
    assert judged.matching.find_state.tolist() == [NEITHER]


def test_a_truth_is_covered_down_to_the_score_of_the_find_that_completes_it() -> None:
    truth = truth_of(image(), [annotation("license_plate", SQUARE)], TAXONOMY)
    halves = finds("license_plate", [(100, 50, 120, 90), (120, 50, 140, 90)], [0.8, 0.3])
    assert covered_thresholds(truth, halves, TAXONOMY, "license_plate").tolist() == pytest.approx(
        [0.3]
    )


def test_a_truth_that_another_class_hides_is_covered_at_any_threshold() -> None:
    truth = truth_of(image(), [annotation("license_plate", SQUARE)], TAXONOMY)
    vehicle = finds("vehicle", [(90, 40, 190, 110)], [0.5])
    limits = dict.fromkeys(TAXONOMY.names, 0.4)
    reached = covered_thresholds(truth, vehicle, TAXONOMY, "license_plate", thresholds=limits)
    assert reached.tolist() == [np.inf]
    alone = covered_thresholds(truth, vehicle, TAXONOMY, "license_plate")
    assert alone.tolist() == [-np.inf]


@pytest.mark.parametrize("method", ["blur", "pixelate", "solid"])
@pytest.mark.parametrize("jpeg", [False, True], ids=["lossless", "jpeg"])
def test_the_written_noise_shows_what_the_regions_hid(method: str, jpeg: bool) -> None:
    taxonomy = with_method(method)
    truth = truth_of(image(), [annotation("license_plate", SQUARE)], taxonomy)
    patches = [truth.objects[0].patch]
    found = finds("license_plate", [SQUARE], [1.0])
    assert coverage_shares(patches, regions_of(found, taxonomy, height=120, width=200)) == [1.0]
    written = written_coverage(
        patches,
        height=120,
        width=200,
        obscure=lambda pixels: obscure(pixels, found, taxonomy, seed=1),
        rewrite=through_jpeg if jpeg else lambda pixels: pixels,
        seed=3,
    )
    assert written[0] > 0.97


@pytest.mark.parametrize("jpeg", [False, True], ids=["lossless", "jpeg"])
def test_a_strip_that_the_writer_forgot_shows_in_the_noise(jpeg: bool) -> None:
    taxonomy = with_method("blur")
    truth = truth_of(image(), [annotation("license_plate", SQUARE)], taxonomy)
    found = finds("license_plate", [SQUARE], [1.0])

    def sabotaged(pixels: np.ndarray) -> np.ndarray:
        done = obscure(pixels, found, taxonomy, seed=1)
        done[50:90, 130:136] = pixels[50:90, 130:136]
        return done

    written = written_coverage(
        [truth.objects[0].patch],
        height=120,
        width=200,
        obscure=sabotaged,
        rewrite=through_jpeg if jpeg else lambda pixels: pixels,
        seed=3,
    )
    assert written[0] == pytest.approx(1 - 6 / 40, abs=0.02)


def with_method(method: str) -> Taxonomy:
    classes = {n: dataclasses.replace(s, method=method) for n, s in TAXONOMY.classes.items()}
    return dataclasses.replace(TAXONOMY, classes=classes)


def through_jpeg(pixels: np.ndarray) -> np.ndarray:
    import io

    from PIL import Image as Pillow

    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "JPEG", quality=85)
    return np.asarray(Pillow.open(file))


def test_a_score_above_one_is_refused_by_name() -> None:
    with pytest.raises(MatchingError, match=r"find 1 in picture street-7 has score 2\.0"):
        check_detections(finds("face", [SQUARE, SQUARE], [0.5, 2.0]), "street-7")


def test_outlines_are_drawn_at_the_anonymizers_own_threshold() -> None:
    assert coverage.MASK_THRESHOLD == MASK_THRESHOLD
