"""Matching and masks, by hand and against pycocotools."""

import contextlib
import io
from typing import Any

import numpy as np
import pytest

from data.coco import Annotation
from evaluation.average_precision import average_precision
from evaluation.matching import (
    NEITHER,
    PARTIAL,
    RIGHT,
    UNLABELLED,
    WRONG,
    MatchingError,
    box_iou,
    mask_iou,
    match,
    recall_at,
)
from evaluation.patch import Patch, PatchError, annotation_to_patch
from evaluation.report.rows import FindRow, ObjectRow, PictureRow


def random_boxes(generator: np.random.Generator, count: int) -> np.ndarray:
    corner = generator.uniform(0, 60, (count, 2))
    return np.hstack([corner, corner + generator.uniform(8, 40, (count, 2))])


@contextlib.contextmanager
def silent() -> Any:
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def coco_truth(boxes: np.ndarray, ignored: np.ndarray) -> dict[str, Any]:
    return {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": [
            {
                "id": i + 1, "image_id": 1, "category_id": 1, "iscrowd": int(ignored[i]),
                "bbox": [b[0], b[1], b[2] - b[0], b[3] - b[1]],
                "area": (b[2] - b[0]) * (b[3] - b[1]),
            }
            for i, b in enumerate(boxes.tolist())
        ],
    }  # fmt: skip


def coco_finds(boxes: np.ndarray, scores: np.ndarray) -> list[dict[str, Any]]:
    return [
        {"image_id": 1, "category_id": 1, "score": s,
         "bbox": [b[0], b[1], b[2] - b[0], b[3] - b[1]]}
        for b, s in zip(boxes.tolist(), scores.tolist(), strict=True)
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_matching_equals_pycocotools(seed: int) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    generator = np.random.default_rng(seed)
    truths, finds = random_boxes(generator, 8), random_boxes(generator, 20)
    finds[:8] = truths + generator.normal(0, 3, (8, 4))
    scores, ignored = generator.random(20).round(1), generator.random(8) < 0.3
    ours = match(box_iou(finds, truths, ignored), scores, ignored=ignored)
    with silent():
        coco = COCO()
        coco.dataset = coco_truth(truths, ignored)
        coco.createIndex()
        oracle = COCOeval(coco, coco.loadRes(coco_finds(finds, scores)), "bbox")
        oracle.evaluate()
    result = oracle.evalImgs[0]
    by_id = dict(zip(result["dtIds"], result["dtMatches"][0], strict=True))
    assert [int(by_id[i + 1]) - 1 for i in range(20)] == ours.find_truth.tolist()


@pytest.mark.parametrize("seed", range(20))
def test_recall_at_a_threshold_is_that_of_matching_again_at_it(seed: int) -> None:
    generator = np.random.default_rng(seed)
    truths, finds = random_boxes(generator, 10), random_boxes(generator, 40)
    scores = generator.random(40).round(2)
    ious = box_iou(finds, truths)
    detected_at = match(ious, scores, iou_min=0.3).detected_at
    for threshold in np.unique(scores):
        kept = scores >= threshold
        again = match(ious[kept], scores[kept], iou_min=0.3).detected_at
        assert np.isfinite(again).mean() == recall_at(detected_at, threshold)


def test_nothing_found_is_recall_zero_and_everything_found_recall_one() -> None:
    truths = np.array([[0, 0, 10, 10.0], [20, 0, 30, 10]])
    assert recall_at(match(np.zeros((0, 2)), np.zeros(0)).detected_at, 0.0) == 0.0
    assert recall_at(match(box_iou(truths, truths), np.ones(2)).detected_at, 1.0) == 1.0


def test_a_find_left_over_is_not_wrong_where_the_class_is_partly_labelled() -> None:
    matched = match(np.array([[0.9], [0.0]]), np.array([0.5, 0.9]), coverage=PARTIAL)
    assert matched.find_state.tolist() == [RIGHT, NEITHER]


def test_an_unlabelled_class_has_no_truth() -> None:
    with pytest.raises(MatchingError, match="1 truths of a class that is unlabelled"):
        match(np.array([[0.9]]), np.array([0.5]), coverage=UNLABELLED)


def test_a_second_signal_on_a_found_object_is_no_false_find_but_a_second_find_is() -> None:
    ious, scores = np.full((3, 1), 0.8), np.array([0.9, 0.8, 0.7])
    state = match(ious, scores, sources=["face", "head", "face"]).find_state
    assert state.tolist() == [RIGHT, NEITHER, WRONG]


def test_a_score_that_is_not_a_number_is_refused_by_name() -> None:
    with pytest.raises(MatchingError, match="score of find 1 is nan"):
        match(np.zeros((2, 0)), np.array([0.5, np.nan]))


@pytest.mark.parametrize("geometry", ["mask", "box", "ellipse"])
@pytest.mark.parametrize(
    "segmentation",
    [None, [[5.2, 3.1, 40.7, 8.9, 22.0, 30.3]], [[-6, 2, 12, 2, 12, 20, -6, 20.5]]],
    ids=["box only", "inside", "beyond the edge"],
)
def test_a_cropped_truth_equals_the_whole_one(geometry: str, segmentation: Any) -> None:
    annotation = Annotation(1, 1, "x", (-6.0, 2.0, 41.0, 31.0), segmentation)
    whole = annotation.mask(geometry, height=40, width=50)
    patch = annotation_to_patch(annotation, geometry, height=40, width=50)
    drawn = np.zeros((40, 50), bool)
    drawn[patch.y0 : patch.y1, patch.x0 : patch.x1] = patch.mask
    np.testing.assert_array_equal(drawn, whole)


def test_a_box_outside_the_picture_is_refused_by_name() -> None:
    with pytest.raises(
        PatchError, match=r"annotation 7 of image 3 .* outside the picture of 50x40"
    ):
        annotation_to_patch(Annotation(7, 3, "x", (60, 0, 70, 9)), "box", height=40, width=50)


def test_an_object_thinner_than_a_pixel_is_still_there() -> None:
    thin = annotation_to_patch(Annotation(1, 1, "x", (3.6, 0, 3.9, 4)), "box", height=9, width=9)
    assert thin.area == 4


def test_mask_iou_counts_shared_pixels_worked_out_by_hand() -> None:
    a = Patch(0, 0, np.ones((4, 4), dtype=bool))
    b = Patch(2, 2, np.ones((4, 4), dtype=bool))
    far = Patch(20, 0, np.ones((4, 4), dtype=bool))
    assert mask_iou([a], [b, far]).tolist() == [[4 / 28, 0.0]]
    assert mask_iou([a], [b], np.array([True])).tolist() == [[4 / 16]]


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_equals_pycocotools(seed: int) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    generator = np.random.default_rng(seed)
    truths, finds = random_boxes(generator, 12), random_boxes(generator, 30)
    finds[:12] = truths + generator.normal(0, 2, (12, 4))
    scores, ignored = generator.random(30), np.arange(12) % 4 == 0
    with silent():
        coco = COCO()
        coco.dataset = coco_truth(truths, ignored)
        coco.createIndex()
        oracle = COCOeval(coco, coco.loadRes(coco_finds(finds, scores)), "bbox")
        oracle.evaluate()
        oracle.accumulate()
        oracle.summarize()
    rows = [
        ObjectRow("a", "x", i, "a", tuple(b), not ignored[i], False, 9.0, None, False, 0, 0, False)
        for i, b in enumerate(truths.tolist())
    ]
    found = [
        FindRow("a", "x", float(s), tuple(b), "n", WRONG)
        for b, s in zip(finds.tolist(), scores, strict=True)
    ]
    ours = average_precision(rows, found, [PictureRow("a", frozenset("x"), None, None)], "x")
    expected = {"ap": oracle.stats[0], "ap50": oracle.stats[1], "ar": oracle.stats[8]}
    assert ours == pytest.approx(expected, abs=1e-9)
