"""Picture, boxes, masks and keypoints are changed together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("albumentations")

from anonymization.taxonomy import KEYPOINT_NAMES
from training.config import AugmentationConfig, InputConfig
from training.pictures.samples import (
    Photometry,
    Sample,
    View,
    base_scale,
    draw_view,
    show,
    to_target,
)

HEIGHT, WIDTH = 60, 100
LEFT_EYE, RIGHT_EYE = KEYPOINT_NAMES.index("left_eye"), KEYPOINT_NAMES.index("right_eye")


def scene() -> Sample:
    """A white rectangle on black with its exact box and mask, and two eyes in it."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    pixels[20:40, 10:50] = 255
    points = np.zeros((1, 17, 3), dtype=np.float32)
    points[0, LEFT_EYE] = (20, 25, 2)
    points[0, RIGHT_EYE] = (40, 25, 2)
    return Sample(
        name="scene.png",
        pixels=pixels,
        base_size=(HEIGHT, WIDTH),
        boxes=np.array([[10, 20, 50, 40]], dtype=np.float32),
        labels=np.array([0]),
        masks=(pixels[..., 0] > 0,),
        keypoints=points,
        ignored=np.array([False]),
        identifiable=np.array([True]),
        labelled=np.array([True]),
    )


def test_mirroring_swaps_left_and_right() -> None:
    shown = show(scene(), View((0, 0, WIDTH, HEIGHT), (HEIGHT, WIDTH), True), visible_min=0.3)

    assert shown.boxes.tolist() == [[50, 20, 90, 40]]
    assert shown.keypoints[0, RIGHT_EYE].tolist() == [80, 25, 2]
    assert shown.keypoints[0, LEFT_EYE].tolist() == [60, 25, 2]
    assert shown.pixels[30, 70, 0] == 255
    assert shown.pixels[30, 30, 0] == 0


def test_a_cut_outline_gets_the_box_of_what_is_left() -> None:
    shown = show(scene(), View((30, 0, 100, 60), (60, 70), False), visible_min=0.3)

    assert shown.boxes.tolist() == [[0, 20, 20, 40]]
    assert shown.keypoints[0, LEFT_EYE, 2] == 0, "cut off"
    assert shown.keypoints[0, RIGHT_EYE].tolist() == [10, 25, 2]
    assert not shown.ignored[0], "half of it is left"


def test_an_object_of_which_little_is_left_is_ignored_and_one_outside_is_gone() -> None:
    little = show(scene(), View((45, 0, 100, 60), (60, 55), False), visible_min=0.3)
    gone = show(scene(), View((60, 0, 100, 60), (60, 40), False), visible_min=0.3)

    assert little.ignored.tolist() == [True]
    assert len(gone.boxes) == 0
    assert gone.masks == ()


@pytest.mark.parametrize("seed", range(12))
def test_any_drawn_view_keeps_picture_mask_and_box_together(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sample = scene()
    view = draw_view(sample, AugmentationConfig(scale_min=0.6, scale_max=1.6), rng)

    shown = show(sample, view, visible_min=0.0)

    bright = shown.pixels[..., 0] > 127
    assert shown.size[0] <= HEIGHT
    assert shown.size[1] <= WIDTH
    if len(shown.boxes) == 0:
        assert bright.sum() == 0
        return
    mask = shown.masks[0]
    assert mask is not None
    assert (mask & bright).sum() / (mask | bright).sum() > 0.85
    columns = np.flatnonzero(mask.any(0))
    assert shown.boxes[0, [0, 2]] == pytest.approx([columns[0], columns[-1] + 1], abs=1.5)


def test_light_and_noise_depend_on_the_seed_alone() -> None:
    every = AugmentationConfig(light=1, colour=1, blur=1, noise=1, compression=1)
    pixels = np.full((32, 32, 3), 120, dtype=np.uint8)
    change = Photometry(every)

    first = change(pixels, np.random.default_rng(3))
    other = change(pixels, np.random.default_rng(4))
    again = change(pixels, np.random.default_rng(3))

    assert (first == again).all()
    assert (first != other).any()
    assert first.shape == pixels.shape
    assert first.dtype == np.uint8


@pytest.mark.parametrize(
    ("geometry", "area"),
    [("mask", 800), ("box", 0), ("ellipse", 0)],
)
def test_only_classes_with_outlines_teach_them(geometry: str, area: int) -> None:
    target = to_target(scene(), geometries=(geometry,), min_side_px=4, maps=("mask",))

    assert target["has_mask"].tolist() == [area > 0]
    assert int(target["masks"].sum()) == pytest.approx(area, abs=4)
    assert len(target["boxes"]) == 1


def test_a_class_with_outlines_has_no_true_mask_where_only_a_box_is_labelled() -> None:
    boxed = replace(scene(), masks=(None,))

    target = to_target(boxed, geometries=("mask",), min_side_px=4, maps=("mask",))

    assert target["has_mask"].tolist() == [False]
    assert len(target["boxes"]) == 1


def test_crowds_and_specks_are_neither_positive_nor_negative() -> None:
    target = to_target(scene(), geometries=("mask",), min_side_px=21, maps=("keypoint",))

    assert len(target["boxes"]) == 0
    assert target["ignored_boxes"].tolist() == [[10, 20, 50, 40]]
    assert target["ignored_labels"].tolist() == [0]


def test_pictures_are_shrunk_to_the_input_but_not_enlarged() -> None:
    config = InputConfig(long_side=512, upscale_max=1.0)

    assert base_scale(1024, 768, config) == 0.5
    assert base_scale(100, 200, config) == 1.0
