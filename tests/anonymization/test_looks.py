"""A picture is looked at several times; finds come back where they are and are made one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import pytest

from anonymization.card import (
    KEYPOINT_NETWORK,
    MASK_NETWORK,
    BundleError,
    Card,
    GraphCard,
    GraphInput,
    LooksCard,
)
from anonymization.detection.detector import Detector
from anonymization.detection.finds import Detections
from anonymization.detection.floors import Floors
from anonymization.detection.looks import Look, merged, mirror, soft_scores
from anonymization.taxonomy import KEYPOINT_NAMES, ClassSpec, Taxonomy

TAXONOMY = Taxonomy(
    {
        "face": ClassSpec(geometry="ellipse", shape="ellipse", identifiable_px=8),
        "person": ClassSpec(geometry="mask", shape="outline", identifiable_px=8),
    },
    head_class="face",
    keypoint_class="person",
)
HEIGHT, WIDTH = 96, 160
LEFT_EYE, RIGHT_EYE = KEYPOINT_NAMES.index("left_eye"), KEYPOINT_NAMES.index("right_eye")


def card(looks: LooksCard, **changes: Any) -> Card:
    graphs = {
        name: GraphCard(f"{name}.onnx", "0" * 64, GraphInput(WIDTH), classes)
        for name, classes in ((MASK_NETWORK, ("face", "person")), (KEYPOINT_NETWORK, ("person",)))
    }
    return Card(TAXONOMY, {"face": 0.3, "person": 0.3}, graphs, test_time=looks, **changes)


class SeesRed:
    """Finds the red rectangle, its green part as the mask, and its blue spots as the eyes.

    As a network does, it takes the eye on the picture's left for the right eye.
    """

    def __init__(self, map_name: str) -> None:
        self.map_name = map_name
        self.widths: list[int] = []

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        image = feeds["image"][0]
        self.widths.append(image.shape[2])
        red = image[0] > 0.5
        rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
        if not len(rows):
            empty = {"masks": (0, 28, 28), "heatmaps": (0, 17, 56, 56)}[self.map_name]
            return self._answer(np.zeros((0, 4)), np.zeros(empty))
        y0, y1, x0, x1 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        if self.map_name == "masks":
            maps = cv2.resize(image[1, y0:y1, x0:x1], (28, 28), interpolation=cv2.INTER_AREA)
        else:
            maps = np.full((17, 56, 56), -9, np.float32)
            blue = cv2.resize(image[2, y0:y1, x0:x1], (56, 56), interpolation=cv2.INTER_AREA)
            for eye, part in ((RIGHT_EYE, slice(0, 28)), (LEFT_EYE, slice(28, 56))):
                own = np.zeros_like(blue)
                own[:, part] = blue[:, part]
                maps[eye] = own * 20 - 10
        return self._answer(np.array([[x0, y0, x1, y1]]), maps[None])

    def _answer(self, boxes: Any, maps: Any) -> dict[str, Any]:
        return {
            "boxes": boxes.astype(np.float32),
            "scores": np.full(len(boxes), 0.8, np.float32),
            "labels": np.zeros(len(boxes), np.int64),
            self.map_name: maps.astype(np.float32),
        }


def picture() -> Any:
    """A person off the middle: green on one side, eyes at different heights."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[16:72, 20:76, 0] = 255
    pixels[16:72, 20:40, 1] = 255
    pixels[22, 40, 2] = 255
    pixels[26, 56, 2] = 255
    return pixels


def detect(looks: LooksCard) -> tuple[Detections, dict[str, SeesRed]]:
    runtimes = {MASK_NETWORK: SeesRed("masks"), KEYPOINT_NETWORK: SeesRed("heatmaps")}
    return Detector(card(looks), runtimes).detect(picture(), score_min=0.1), runtimes


def test_what_a_mirrored_look_finds_comes_back_exactly() -> None:
    plain, _ = detect(LooksCard())
    runtimes = {MASK_NETWORK: SeesRed("masks"), KEYPOINT_NETWORK: SeesRed("heatmaps")}
    detector = Detector(card(LooksCard(flip=True)), runtimes)
    floors = Floors.of(card(LooksCard()), 0.1)
    look = Look(1.0, True)
    seen_by = [detector._look(picture(), look, name, runtimes, floors) for name in runtimes]
    flipped = Detections.concatenate(found for found, _ in seen_by)
    extents = np.concatenate([boxes for _, boxes in seen_by])

    assert plain.sources == flipped.sources == (MASK_NETWORK, KEYPOINT_NETWORK)
    assert plain.boxes_xyxy[0].tolist() == [20, 16, 76, 72]
    np.testing.assert_allclose(flipped.boxes_xyxy, plain.boxes_xyxy, atol=1e-3)
    np.testing.assert_array_equal(flipped.masks[0], plain.masks[0])
    assert plain.masks[0, 14, 2] == 1 > plain.masks[0, 14, 25], "green at the left alone"
    seen = plain.keypoints[1][:, 2] > 0
    assert np.flatnonzero(seen).tolist() == [LEFT_EYE, RIGHT_EYE]
    eyes = plain.keypoints[1][seen][:, :2]
    assert eyes[0, 0] > eyes[1, 0], "the left eye is on the picture's right"
    np.testing.assert_allclose(eyes, [[56.5, 26.5], [40.5, 22.5]], atol=1e-3)
    np.testing.assert_allclose(flipped.keypoints[1][seen][:, :2], eyes, atol=1e-3)
    assert extents.tolist() == [[20, 16, 76, 72]] * 2


def test_mirroring_twice_is_as_before() -> None:
    rng = np.random.default_rng(0)
    found = Detections.from_boxes(
        [[1, 2, 30, 40]],
        class_ids=[0],
        masks=rng.random((1, 28, 28)),
        keypoints=rng.random((1, 17, 3)) * 64,
    )
    again = mirror(mirror(found, 100), 100)
    assert again.boxes_xyxy.tolist() == found.boxes_xyxy.tolist()
    np.testing.assert_array_equal(again.masks, found.masks)
    np.testing.assert_allclose(again.keypoints, found.keypoints, atol=1e-5)
    once = mirror(found, 100)
    assert once.keypoints[0, LEFT_EYE, 1] == found.keypoints[0, RIGHT_EYE, 1]


def test_looks_agree_on_one_find_an_object_and_network() -> None:
    plain, _ = detect(LooksCard())
    found, runtimes = detect(LooksCard(flip=True, scales=(1.0, 2.0)))
    assert found.sources == plain.sources
    np.testing.assert_allclose(found.boxes_xyxy, plain.boxes_xyxy, atol=2)
    assert runtimes[MASK_NETWORK].widths == [160, 160, 320, 320]


def test_one_look_is_what_a_card_without_the_setting_means() -> None:
    _, runtimes = detect(LooksCard())
    assert runtimes[MASK_NETWORK].widths == [160]
    assert "test_time" not in card(LooksCard()).to_dict()


def test_a_card_keeps_the_setting() -> None:
    before = card(LooksCard(flip=True, scales=(1.0, 1.5), merge="soft"))
    after = Card.from_dict(before.to_dict())
    assert after == before
    assert after.digest == before.digest != card(LooksCard()).digest


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scales": []}, r"test_time.scales is \[\]; expected at least one"),
        ({"scales": [1.0, 1.0]}, "expected at least one, each once"),
        ({"scales": [9.0]}, "expected a number from 0.25 to 4"),
        ({"merge": "mean"}, "test_time.merge is 'mean'; expected best or soft"),
        ({"flip": 1}, "test_time.flip is 1; expected true or false"),
    ],
)
def test_an_impossible_setting_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        LooksCard(**values)


def two(boxes: list[list[int]], scores: list[float], classes: list[int]) -> Detections:
    return Detections.from_boxes(boxes, class_ids=classes, scores=scores)


def test_the_surest_of_overlapping_finds_stays_as_it_is() -> None:
    found = two([[0, 0, 10, 10], [0, 1, 10, 10], [0, 0, 10, 10]], [0.6, 0.9, 0.5], [0, 0, 1])
    kept, scores = merged(found, LooksCard(), iou=0.5, score_min=0.1)
    assert kept.tolist() == [1, 2], "another class is another object"
    assert scores.tolist() == pytest.approx([0.9, 0.5])


def test_soft_suppression_lowers_what_overlaps_and_drops_what_falls_too_low() -> None:
    # IoU 1/3: two people one behind the other; IoU 1: the same again.
    found = two([[0, 0, 10, 10], [5, 0, 15, 10], [0, 0, 10, 10]], [0.9, 0.8, 0.6], [0, 0, 0])
    kept, scores = merged(found, LooksCard(merge="soft"), iou=0.5, score_min=0.1)
    # The third: 0.6 exp(-2) = 0.081 after the first alone.
    assert kept.tolist() == [0, 1]
    assert scores.tolist() == pytest.approx([0.9, 0.8 * np.exp(-(1 / 9) / 0.5)], rel=1e-5)


def test_soft_suppression_takes_turns_by_the_lowered_scores() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [20, 0, 30, 10]], np.float32)
    assert soft_scores(boxes, np.array([0.9, 0.8, 0.7], np.float32)).tolist() == pytest.approx(
        [0.9, 0.8 * np.exp(-2), 0.7], rel=1e-5
    )
    assert soft_scores(boxes[:0], np.zeros(0, np.float32)).tolist() == []


def test_nothing_found_is_nothing_merged() -> None:
    kept, scores = merged(Detections.empty(), LooksCard(flip=True), iou=0.5, score_min=0.1)
    assert len(kept) == len(scores) == 0
