"""Finds come back in picture pixels, and two signals make one face."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from anonymization.bundle import Bundle
from anonymization.card import GraphCard, GraphInput
from anonymization.detection.applying import above_thresholds, apply_card, merge_heads
from anonymization.detection.detector import Detector
from anonymization.detection.finds import Detections, ShapeError, box_iou, nms
from anonymization.detection.mapping import heatmaps_to_keypoints
from anonymization.detection.preparing import prepare
from anonymization.detection.runtime import InferenceError, OnnxRuntime, RuntimeLoadError

Make = Callable[..., Bundle]


def finds(boxes: list[list[float]], scores: list[float], sources: list[str]) -> Detections:
    made = Detections.from_boxes(boxes, class_ids=np.zeros(len(boxes)), scores=scores)
    return Detections(
        made.boxes_xyxy, made.scores, made.class_ids, made.masks, made.keypoints, tuple(sources)
    )


def person(points: dict[int, tuple[int, int]], score: float = 0.8) -> dict[str, Any]:
    """Outputs of a keypoint network: a person in (0, 0)-(56, 112), points by heat-map cell."""
    heatmaps = np.full((1, 17, 56, 56), -10, np.float32)
    for k, (column, row) in points.items():
        heatmaps[0, k, row, column] = 10
    return {
        "boxes": np.array([[0, 0, 56, 112]], np.float32),
        "scores": np.array([score], np.float32),
        "labels": np.zeros(1, np.int64),
        "heatmaps": heatmaps,
    }


FRONTAL = {0: (28, 12), 1: (32, 9), 2: (24, 9), 3: (37, 11), 4: (19, 11)}


def test_a_box_is_found_where_the_graph_says(constant_bundle: Bundle) -> None:
    found = Detector.from_bundle(constant_bundle).detect(np.zeros((60, 100, 3), np.uint8))
    np.testing.assert_allclose(found.boxes_xyxy, [[10, 8, 30, 28]])
    assert found.sources == ("mask_rcnn",)


def test_boxes_of_a_reduced_picture_are_enlarged_per_axis(constant_bundle: Bundle) -> None:
    # 1024x601 becomes 512x300 (300.5 rounds to even): factors 2 and 601 / 300.
    found = Detector.from_bundle(constant_bundle).detect(np.zeros((601, 1024, 3), np.uint8))
    tall = 601 / 300
    np.testing.assert_allclose(found.boxes_xyxy, [[20, 8 * tall, 60, 28 * tall]], rtol=1e-5)


def test_a_small_picture_is_not_enlarged_beyond_the_cards_limit() -> None:
    graph = GraphCard("a.onnx", "", GraphInput(512, upscale_max=2.0), ("face",))
    prepared = prepare(np.full((20, 50, 3), 255, np.uint8), graph)
    assert prepared.scale_xy == (2.0, 2.0)
    assert prepared.image.shape == (1, 3, 64, 128)
    assert (prepared.image[0, :, :40, :100] == 1).all()
    assert (prepared.image[0, :, 40:] == 0).all()


def test_finds_outside_of_the_picture_are_left_out(make_bundle: Make) -> None:
    bundle = make_bundle([([200.0, 0.0, 220.0, 20.0], 0.9, 0), ([95.0, 0.0, 120.0, 9.0], 0.9, 0)])
    found = Detector.from_bundle(bundle).detect(np.zeros((60, 100, 3), np.uint8))
    np.testing.assert_allclose(found.boxes_xyxy, [[95, 0, 120, 9]])


def test_the_cards_thresholds_apply_unless_a_score_is_asked_for(make_bundle: Make) -> None:
    bundle = make_bundle([([0.0, 0.0, 9.0, 9.0], 0.3, 0), ([20.0, 0.0, 29.0, 9.0], 0.6, 0)])
    detector = Detector.from_bundle(bundle)
    pixels = np.zeros((60, 100, 3), np.uint8)
    np.testing.assert_allclose(detector.detect(pixels).scores, [0.6])
    everything = detector.detect(pixels, score_min=0.05)
    assert len(everything) == 2
    np.testing.assert_array_equal(
        apply_card(everything, bundle.card).boxes_xyxy, detector.detect(pixels).boxes_xyxy
    )


def test_a_person_who_shows_a_face_gives_a_head(make_bundle: Make) -> None:
    bundle = make_bundle([], person(FRONTAL))
    found = Detector.from_bundle(bundle).detect(np.zeros((120, 100, 3), np.uint8))
    assert found.sources == ("keypoint_rcnn",)
    assert found.class_ids.tolist() == [0]
    assert found.scores == pytest.approx([0.8])
    x0, y0, x1, y1 = found.boxes_xyxy[0]
    # Cells are 1 px wide and 2 px high: eyes 8 px apart, so the face is 17.8 px wide by the
    # eyes, 17.4 by the ears and at most 21 by nose and eye; it is centred on the nose's column.
    assert (x0 + x1) / 2 == pytest.approx(28.5, abs=1)
    assert 17 <= x1 - x0 <= 22
    assert y0 < 18 < 25 < y1


def test_a_head_seen_from_behind_gives_none(make_bundle: Make) -> None:
    bundle = make_bundle([], person({3: (37, 11), 4: (19, 11)}))
    assert not len(Detector.from_bundle(bundle).detect(np.zeros((120, 100, 3), np.uint8)))


def test_a_person_below_the_heads_threshold_gives_none(make_bundle: Make) -> None:
    bundle = make_bundle([], person(FRONTAL, score=0.4))
    detector = Detector.from_bundle(bundle)
    assert not len(detector.detect(np.zeros((120, 100, 3), np.uint8)))
    assert len(detector.detect(np.zeros((120, 100, 3), np.uint8), score_min=0.1)) == 1


def test_a_face_and_its_head_are_one_find_with_the_better_score() -> None:
    both = finds([[10, 10, 20, 20], [11, 10, 21, 20]], [0.6, 0.9], ["mask_rcnn", "keypoint_rcnn"])
    merged = merge_heads(both, iou=0.5)
    np.testing.assert_array_equal(merged.boxes_xyxy, [[10, 10, 20, 20]])
    np.testing.assert_array_equal(merged.merged_xyxy, [[11, 10, 21, 20]])
    assert merged.scores == pytest.approx([0.9])


def test_a_head_beside_a_face_stays_a_find() -> None:
    both = finds([[10, 10, 20, 20], [40, 10, 50, 20]], [0.6, 0.9], ["mask_rcnn", "keypoint_rcnn"])
    assert len(merge_heads(both, iou=0.5)) == 2


def test_a_find_below_its_threshold_takes_no_part_in_merging(constant_bundle: Bundle) -> None:
    both = finds([[10, 10, 20, 20], [11, 10, 21, 20]], [0.4, 0.9], ["mask_rcnn", "keypoint_rcnn"])
    assert apply_card(both, constant_bundle.card).sources == ("keypoint_rcnn",)
    assert len(above_thresholds(Detections.empty(), constant_bundle.card)) == 0


def test_heat_maps_are_decoded_as_torchvision_does() -> None:
    torch = pytest.importorskip("torch")
    from torchvision.models.detection.roi_heads import heatmaps_to_keypoints as reference

    maps = np.random.default_rng(0).normal(size=(4, 17, 56, 56)).astype(np.float32)
    boxes = np.array(
        [[3.2, 4.1, 60.7, 120.3], [10.5, 3, 11, 4], [5, 5, 61, 61], [4, 4, 200, 130]], np.float32
    )
    points, scores = reference(torch.tensor(maps), torch.tensor(boxes))
    found = heatmaps_to_keypoints(maps, boxes)
    np.testing.assert_allclose(found[..., :2], points[..., :2].numpy(), atol=1e-3)
    np.testing.assert_allclose(found[..., 2], scores.numpy(), atol=1e-4)


def test_nms_keeps_the_better_of_two_that_overlap() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]], np.float32)
    assert nms(boxes, np.array([0.5, 0.9, 0.1], np.float32), iou=0.5).tolist() == [1, 2]
    assert box_iou(boxes[:1], boxes)[0].tolist() == pytest.approx([1.0, 0.9, 0.0])


def test_arrays_of_wrong_shape_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"masks has shape \(1, 14, 14\)"):
        Detections.from_boxes([[0, 0, 1, 1]], class_ids=[0], masks=np.zeros((1, 14, 14)))
    with pytest.raises(ShapeError, match="not finite"):
        Detections.from_boxes([[0, 0, np.nan, 1]], class_ids=[0])


def test_detections_are_selected_and_joined() -> None:
    three = Detections.from_boxes(np.arange(12).reshape(3, 4), class_ids=[0, 1, 2])
    assert three.select([2, 0]).class_ids.tolist() == [2, 0]
    assert three.select(three.class_ids > 0).class_ids.tolist() == [1, 2]
    assert len(three.select([])) == 0
    assert len(Detections.concatenate([three, three])) == 6


def test_pixels_of_another_type_are_refused(constant_bundle: Bundle) -> None:
    with pytest.raises(ShapeError, match="expected uint8"):
        Detector.from_bundle(constant_bundle).detect(np.zeros((4, 4), np.uint8))


class Broken:
    """A runtime that answers with what it was given."""

    def __init__(self, **outputs: Any) -> None:
        self.outputs = outputs

    def run(self, feeds: Any) -> dict[str, Any]:
        return self.outputs


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({}, "lacks output"),
        ({"boxes": [[0, 0, 1, 1]], "labels": [0]}, "one row per find"),
        ({"boxes": [[0, 0, np.nan, 1]], "labels": [0], "scores": [1]}, "not finite"),
        ({"boxes": [[0, 0, 1, 1]], "labels": [9], "scores": [1]}, "label 9"),
    ],
)
def test_an_impossible_answer_fails_the_picture(
    constant_bundle: Bundle, outputs: dict[str, Any], message: str
) -> None:
    given = {"scores": [1, 2], "masks": np.ones((1, 28, 28))} | outputs if outputs else {}
    detector = Detector(constant_bundle.card, {"mask_rcnn": Broken(**given)})
    with pytest.raises(InferenceError, match=message):
        detector.detect(np.zeros((8, 8, 3), np.uint8))


def test_bytes_that_are_no_graph_are_refused() -> None:
    with pytest.raises(RuntimeLoadError, match="graph x cannot be loaded"):
        OnnxRuntime(b"no graph", name="graph x")
