"""A picture teaches only what it is labelled for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torchvision.models.detection._utils import Matcher  # noqa: E402

from training.config import BackboneConfig, NetworkConfig, ProposalConfig  # noqa: E402
from training.network.matching import NEGATIVE, POSITIVE, UNKNOWN, masked_bce, match  # noqa: E402
from training.network.rcnn import Network, build_network  # noqa: E402

CLASSES = ("face", "person", "license_plate", "vehicle")
FACE, PERSON = 0, 1
BOXES = [[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]]


def tiny_config() -> NetworkConfig:
    """The default with a thin pyramid and no pretrained weights."""
    return NetworkConfig(
        backbone=BackboneConfig(pretrained=False, norm="trained", channels=16),
        proposals=ProposalConfig(pre_nms_train=50, post_nms_train=50),
    )


def target(
    boxes: list[list[float]],
    labels: list[int],
    *,
    labelled: str = "1111",
    ignored: list[list[float]] | None = None,
    ignored_labels: list[int] | None = None,
    size: tuple[int, int] = (64, 96),
) -> dict[str, Any]:
    """Labels of one picture; `labelled` has a 1 per completely labelled class."""
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "labelled": torch.tensor([c == "1" for c in labelled]),
        "ignored_boxes": torch.tensor(ignored or []).reshape(-1, 4),
        "ignored_labels": torch.tensor(ignored_labels or [], dtype=torch.int64),
        "masks": torch.ones((len(boxes), *size), dtype=torch.uint8),
        "has_mask": torch.ones(len(boxes), dtype=torch.bool),
        "has_keypoint": torch.ones(len(boxes), dtype=torch.bool),
        "keypoints": torch.full((len(boxes), 17, 3), 30.0),
    }


def matcher() -> Matcher:
    return Matcher(0.5, 0.5, allow_low_quality_matches=False)


@pytest.mark.parametrize(
    ("labelled", "expected", "reason"),
    [
        ("1111", [POSITIVE, NEGATIVE, NEGATIVE, NEGATIVE], "all is known"),
        ("1011", [POSITIVE, UNKNOWN, NEGATIVE, NEGATIVE], "persons were never labelled"),
        ("0111", [POSITIVE, NEGATIVE, NEGATIVE, NEGATIVE], "a partial class's known face counts"),
    ],
)
def test_a_box_on_a_face_is_judged_for_each_class_by_itself(
    labelled: str, expected: list[int], reason: str
) -> None:
    found = match(torch.tensor(BOXES), target(BOXES[:1], [FACE], labelled=labelled), matcher())

    assert found.labels[0].tolist() == expected, reason


def test_a_box_beside_everything_is_no_negative_of_a_partial_class() -> None:
    found = match(torch.tensor(BOXES), target(BOXES[:1], [FACE], labelled="0111"), matcher())

    assert found.labels[1].tolist() == [UNKNOWN, NEGATIVE, NEGATIVE, NEGATIVE]


def test_a_box_inside_a_crowd_is_neither_positive_nor_negative_of_its_class() -> None:
    crowd = target([], [], ignored=[[45.0, 45.0, 99.0, 99.0]], ignored_labels=[PERSON])

    found = match(torch.tensor(BOXES), crowd, matcher())

    assert found.labels[1].tolist() == [NEGATIVE, UNKNOWN, NEGATIVE, NEGATIVE]
    assert found.labels[0].tolist() == [NEGATIVE] * 4


def test_a_box_may_be_a_positive_of_two_classes() -> None:
    both = target([BOXES[0], BOXES[0]], [FACE, PERSON])

    found = match(torch.tensor(BOXES), both, matcher())

    assert found.labels[0].tolist() == [POSITIVE, POSITIVE, NEGATIVE, NEGATIVE]


def test_unknown_pairs_add_nothing_to_the_loss() -> None:
    logits = torch.tensor([[0.0, 50.0]])
    labels = torch.tensor([[1, -1]], dtype=torch.int8)

    assert masked_bce(logits, labels).item() == pytest.approx(0.6931, abs=1e-4)


def face_gradients(network: Network) -> float:
    """Sum of absolute gradients that reach what scores faces."""
    anchors = network.proposals.num_anchors
    logits = network.proposals.head.cls_logits.weight.grad
    objectness = logits.reshape(anchors, len(CLASSES), -1)[:, FACE]
    scores = network.heads.box_predictor.scores.weight.grad[FACE]
    return float(objectness.abs().sum() + scores.abs().sum())


@pytest.fixture
def losses() -> Callable[[Network, dict[str, Any]], dict[str, Any]]:
    def run(network: Network, labels: dict[str, Any]) -> dict[str, Any]:
        torch.manual_seed(0)
        network.zero_grad()
        image = torch.rand((1, 3, 64, 96), generator=torch.Generator().manual_seed(1))
        found: dict[str, Any] = network(image, [labels])
        torch.stack(list(found.values())).sum().backward()
        return found

    return run


def test_a_picture_whose_faces_were_never_labelled_moves_nothing_that_scores_faces(
    losses: Any,
) -> None:
    network = build_network("mask_rcnn", tiny_config(), CLASSES).train()

    losses(network, target([[10.0, 10.0, 50.0, 60.0]], [PERSON], labelled="0111"))
    assert face_gradients(network) == 0

    losses(network, target([[10.0, 10.0, 50.0, 60.0]], [PERSON], labelled="1111"))
    assert face_gradients(network) > 0


@pytest.mark.parametrize("name", ["mask_rcnn", "keypoint_rcnn"])
def test_a_picture_with_nobody_teaches_without_breaking(losses: Any, name: str) -> None:
    classes = CLASSES if name == "mask_rcnn" else ("person",)
    network = build_network(name, tiny_config(), classes).train()

    found = losses(network, target([], [], labelled="1" * len(classes)))

    assert all(torch.isfinite(v) for v in found.values())
    assert float(found["rpn_box"]) == 0
    assert float(found["box_class"]) > 0


def test_an_object_without_a_true_mask_adds_nothing_to_the_mask_loss(losses: Any) -> None:
    network = build_network("mask_rcnn", tiny_config(), CLASSES).train()
    labels = target([[10.0, 10.0, 50.0, 60.0]], [PERSON])
    labels["has_mask"] = torch.tensor([False])

    assert float(losses(network, labels)["mask"]) == 0


def test_an_object_that_no_box_fits_has_the_box_nearest_to_it_and_nobody_elses_class() -> None:
    boxes = torch.tensor([[0.0, 0, 40, 80], [60, 0, 100, 80]])
    target = {
        # A face of its own in each of two persons, of which the second fits no box either.
        "boxes": torch.tensor([[0.0, 0, 40, 80], [60, 10, 70, 20], [60, 0, 80, 40]]),
        "labels": torch.tensor([0, 1, 0]),
        "labelled": torch.ones(2, dtype=torch.bool),
        "ignored_boxes": torch.zeros(0, 4),
        "ignored_labels": torch.zeros(0, dtype=torch.int64),
    }
    found = match(boxes, target, Matcher(0.6, 0.3, allow_low_quality_matches=True))
    # The second box is nearest to the face and to the second person: both classes ask for it.
    assert found.labels.tolist() == [[1, 0], [1, 1]]
    assert found.objects.tolist() == [0, 2]
    alone = {**target, "boxes": target["boxes"][:2], "labels": target["labels"][:2]}
    found = match(boxes, alone, Matcher(0.6, 0.3, allow_low_quality_matches=True))
    assert found.labels.tolist() == [[1, 0], [0, 1]]
    assert found.objects.tolist() == [0, 1]
    far = {**alone, "boxes": torch.tensor([[0.0, 0, 40, 80], [200, 200, 210, 210]])}
    found = match(boxes, far, Matcher(0.6, 0.3, allow_low_quality_matches=True))
    assert found.positive.tolist() == [True, False]


def test_a_box_near_two_objects_goes_to_the_nearer() -> None:
    boxes = torch.tensor([[0.0, 0, 40, 40], [100, 0, 140, 40]])
    target = {
        "boxes": torch.tensor([[0.0, 0, 30, 40], [0, 0, 40, 39]]),
        "labels": torch.tensor([0, 1]),
        "labelled": torch.ones(2, dtype=torch.bool),
        "ignored_boxes": torch.zeros(0, 4),
        "ignored_labels": torch.zeros(0, dtype=torch.int64),
    }
    found = match(boxes, target, Matcher(0.7, 0.3, allow_low_quality_matches=True))
    assert found.labels.tolist() == [[1, 1], [0, 0]]
    assert found.objects.tolist() == [1, 0]
