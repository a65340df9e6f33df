"""What the champion's finds become on an annotator's screen."""

from __future__ import annotations

import numpy as np
import pytest

from annotation.predictions import (
    Champion,
    detections_to_annotations,
    open_champion,
    usefulness,
    with_keypoints,
)
from annotation.regions import Size
from anonymization.bundle import Bundle
from anonymization.card import KEYPOINT_NETWORK, MASK_NETWORK, Card, GraphCard, GraphInput
from anonymization.detection.finds import Detections
from anonymization.taxonomy import ClassSpec, Taxonomy

TAXONOMY = Taxonomy(
    {
        "face": ClassSpec(geometry="ellipse", shape="ellipse"),
        "person": ClassSpec(geometry="mask", shape="outline"),
    },
    keypoint_class="person",
    head_class="face",
)
GRAPH = GraphCard("mask.onnx", "", GraphInput(long_side=64), ("face", "person"))
CARD = Card(TAXONOMY, {"face": 0.5, "person": 0.4}, {MASK_NETWORK: GRAPH})
SIZE = Size(100, 80)
FACE, PERSON = 0, 1


def finds(boxes, classes, scores, *, masks=None):
    return Detections.from_boxes(boxes, class_ids=classes, scores=scores, masks=masks)


def heads(box, score, points):
    keypoints = np.full((1, 17, 3), -9, np.float32)
    for number, (x, y) in enumerate(points):
        keypoints[0, number] = (x, y, 5)
    return Detections.from_boxes(
        [box], class_ids=[FACE], scores=[score], keypoints=keypoints, source=KEYPOINT_NETWORK
    )


def test_outlines_become_masks_and_faces_stay_boxes_cut_at_the_edge():
    masks = np.ones((2, 28, 28), np.float32)
    found = finds([[-5, 10, 20, 30], [10, 10, 30, 70]], [FACE, PERSON], [0.9, 0.8], masks=masks)
    face, person = detections_to_annotations(found, CARD, TAXONOMY, SIZE)
    assert face.box_xyxy == (0, 10, 20, 30)
    assert face.segmentation is None
    mask = person.mask("mask", height=80, width=100)
    assert mask[15:65, 15:25].all()
    assert not mask[:, 35:].any()


def test_a_find_of_a_class_that_nobody_asks_for_is_left_out():
    only_faces = Taxonomy({"face": TAXONOMY["face"]})
    found = finds([[0, 0, 9, 9], [10, 10, 30, 70]], [FACE, PERSON], [0.9, 0.8])
    assert len(detections_to_annotations(found, CARD, only_faces, SIZE)) == 1


def test_keypoints_go_to_the_person_that_holds_most_of_them():
    persons = finds([[10, 10, 30, 70], [50, 10, 70, 70]], [PERSON, PERSON], [0.9, 0.8])
    objects = detections_to_annotations(persons, CARD, TAXONOMY, SIZE)
    head = heads([55, 10, 65, 22], 0.9, [(60, 15), (58, 13), (29, 14)])
    left, right = with_keypoints(objects, head, CARD, TAXONOMY)
    assert left.keypoints is None
    assert right.keypoints is not None
    assert right.keypoints[:3] == ((60, 15, 2), (58, 13, 2), (0, 0, 0))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (finds(np.zeros((0, 4)), [], []), 0.0),  # nothing to doubt
        (finds([[0, 0, 9, 9]], [FACE], [1.0]), 0.0),  # as sure as can be
        (finds([[0, 0, 9, 9]], [FACE], [0.5]), 0.5),  # on the threshold
        (finds([[0, 0, 9, 9]], [FACE], [0.75]), 0.25),  # half way to certainty
        (finds([[0, 0, 9, 9]], [PERSON], [0.2]), 0.25),  # half way to the threshold
    ],
)
def test_the_nearer_a_find_lies_to_its_threshold_the_more_its_picture_teaches(found, expected):
    assert usefulness(found, CARD) == pytest.approx(expected, abs=1e-3)


def test_faces_that_only_one_network_sees_make_a_picture_useful():
    sure = finds([[0, 0, 20, 20]], [FACE], [1.0])
    both = Detections.concatenate([sure, heads([0, 0, 20, 20], 1.0, [(9, 9)])])
    apart = Detections.concatenate([sure, heads([50, 0, 70, 20], 1.0, [(60, 9)])])
    assert usefulness(both, CARD) == 0
    assert usefulness(apart, CARD) == pytest.approx(0.5)


def test_without_a_registry_there_is_no_champion_and_it_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/none.db")
    assert open_champion("models:/anonymizer@champion", TAXONOMY, keypoints=True) is None
    assert "without predictions" in caplog.text
    assert not (tmp_path / "none.db").exists()
    assert open_champion(None, TAXONOMY, keypoints=True) is None


def test_answers_are_kept_per_bundle_and_classes(make_champion):
    one, other = make_champion("ellipse"), make_champion("box")
    assert one.version == other.version
    assert one._folder != other._folder
    assert make_champion("box", keypoints=True)._folder != other._folder


@pytest.fixture
def make_champion(tmp_path):
    def make(geometry: str, *, keypoints: bool = False) -> Champion:
        taxonomy = Taxonomy({"face": ClassSpec(geometry=geometry, shape="ellipse")})
        listed = {MASK_NETWORK: GraphCard("a.onnx", "", GraphInput(512), ("face",))}
        bundle = Bundle(tmp_path, Card(TAXONOMY, dict.fromkeys(TAXONOMY.names, 0.5), listed), {})
        return Champion(bundle, taxonomy, keypoints=keypoints)

    return make
