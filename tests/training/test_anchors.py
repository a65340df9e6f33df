"""Anchors are measured where they lie, and fitted ones are no worse."""

from __future__ import annotations

import numpy as np
import pytest

from anonymization.taxonomy import ClassSpec, Taxonomy
from data.coco import Annotation, Dataset, Image
from training.anchors import Objects, best_overlaps, fit, objects_of, report, shares
from training.config import InputConfig, NetworkConfig, ProposalConfig
from training.errors import TrainingDataError

STRIDES = (4, 8)
TAXONOMY = Taxonomy({"sign": ClassSpec(geometry="box", shape="box", identifiable_px=8)})


def objects(*boxes: tuple[float, float, float, float]) -> Objects:
    return Objects(
        np.array(boxes, dtype=np.float64),
        np.zeros(len(boxes), dtype=np.int64),
        np.full((len(boxes), 2), 320.0),
    )


@pytest.mark.parametrize(
    ("box", "expected", "reason"),
    [
        ((32, 32, 48, 48), 1.0, "middle on a place of stride 8: the anchor itself"),
        ((34, 32, 50, 48), 14 * 16 / (512 - 14 * 16), "2 px from the next place of stride 4"),
        ((32, 32, 48, 40), 0.5, "half as high"),
        ((0, 0, 16, 16), 1.0, "anchors lie at the picture's edge, too"),
        ((312, 32, 328, 48), 12 * 16 / (512 - 12 * 16), "the last place is 316"),
    ],
)
def test_the_best_overlap_is_that_of_the_nearest_anchor(
    box: tuple[float, float, float, float], expected: float, reason: str
) -> None:
    found = best_overlaps(objects(box), [16.0, 16.0], [1.0], STRIDES)
    assert found.tolist() == pytest.approx([expected]), reason


def test_torchvisions_anchors_overlap_as_much() -> None:
    torch = pytest.importorskip("torch")
    from torchvision.models.detection.image_list import ImageList
    from torchvision.ops import box_iou

    from training.network.proposals import StridedAnchors

    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 60, (50, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(4, 60, (50, 2))], axis=1)
    sizes, ratios = [14.0, 30.0], [0.5, 1.0, 2.0]
    maps = [torch.zeros(1, 1, 128 // s, 128 // s) for s in STRIDES]
    anchors = StridedAnchors(sizes, ratios, STRIDES)(
        ImageList(torch.zeros(1, 3, 128, 128), []), maps
    )
    expected = box_iou(torch.tensor(boxes), anchors[0].double()).amax(1)

    given = Objects(boxes, np.zeros(50, dtype=np.int64), np.full((50, 2), 128.0))
    found = best_overlaps(given, sizes, ratios, STRIDES)

    # torchvision rounds the sides of its anchors to whole pixels.
    np.testing.assert_allclose(found, expected.numpy(), atol=0.06)


def test_shares_count_objects_at_or_above_an_overlap() -> None:
    best, labels = np.array([0.5, 0.4, 0.9, 0.6]), np.array([0, 0, 1, 1])
    assert shares(best, labels, 0.5) == {0: 0.5, 1: 1.0}
    assert shares(best, labels, 0.7) == {0: 0.0, 1: 0.5}


def dataset(*boxes: tuple[float, float, float, float], crowd: bool = False) -> Dataset:
    image = Image(0, "0" * 64, "a.png", 640, 480, labelled=("sign",))
    return Dataset(
        (image,),
        tuple(Annotation(n, 0, "sign", box, crowd=crowd) for n, box in enumerate(boxes)),
    )


def test_objects_are_measured_at_input_size_without_crowds_and_specks() -> None:
    config = InputConfig(long_side=320, min_side_px=4)
    found = objects_of(dataset((10, 20, 110, 80), (0, 0, 7, 90)), ("sign",), config)
    assert found.boxes.tolist() == [[5, 10, 55, 40]]
    assert found.limits.tolist() == [[320, 240]]
    with pytest.raises(TrainingDataError, match="none of 1 pictures holds an object of sign"):
        objects_of(dataset((0, 0, 90, 90), crowd=True), ("sign",), config)


def test_fitted_anchors_suit_objects_of_one_form() -> None:
    rng = np.random.default_rng(1)
    corner = rng.uniform(0, 200, (60, 2))
    boxes = np.concatenate([corner, corner + np.array([60, 20])], axis=1)
    given = Objects(boxes, np.zeros(60, dtype=np.int64), np.full((60, 2), 320.0))
    config = ProposalConfig(anchor_sizes=[16.0, 64.0], anchor_ratios=[1.0])

    sizes, ratios = fit(given, config, STRIDES, seed=1)

    before = best_overlaps(given, config.anchor_sizes, config.anchor_ratios, STRIDES).mean()
    after = best_overlaps(given, sizes, ratios, STRIDES).mean()
    assert before < 0.45
    assert after > 0.8
    assert ratios == [pytest.approx(1 / 3, abs=0.05)]


def test_the_report_names_class_shares_and_lines_to_paste() -> None:
    text = report("mask_rcnn", NetworkConfig(), dataset((0, 0, 60, 30)), TAXONOMY, seed=1)
    assert "| class | objects | configured, IoU 0.5 | configured, IoU 0.6 | fitted, IoU" in text
    assert "| sign | 1 | " in text
    assert "      anchor_sizes: [" in text
