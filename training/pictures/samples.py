"""One training sample: a decoded picture and its objects, augmented together.

Boxes are xyxy and keypoints x, y, visibility, in pixels of the sample. Shapes: G objects.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonymization.taxonomy import KEYPOINT_NAMES, MIRRORED, Taxonomy
from data.coco import Annotation, Image
from training.config import KEYPOINT, MASK, AugmentationConfig, InputConfig

# Albumentations asks the package index for a newer version when it is imported; training must
# not wait for a network, nor tell anybody that it runs.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"


@dataclass(frozen=True)
class Sample:
    """A picture and what is known of it.

    Attributes:
        name: File name, for errors.
        pixels: uint8, shape (H, W, 3), RGB.
        base_size: (height, width) that the network sees without augmentation.
        boxes: float32, shape (G, 4).
        labels: int64, shape (G,), position in the network's classes.
        masks: For each object its mask as bool (H, W), or None where only the box is known.
        keypoints: float32, shape (G, 17, 3); visibility 0 where unlabelled.
        ignored: bool, shape (G,): neither positive nor negative.
        identifiable: bool, shape (G,): counts for recall.
        labelled: bool, shape (K,): classes of which every object is labelled.
    """

    name: str
    pixels: NDArray[np.uint8]
    base_size: tuple[int, int]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    masks: tuple[NDArray[np.bool_] | None, ...]
    keypoints: NDArray[np.float32]
    ignored: NDArray[np.bool_]
    identifiable: NDArray[np.bool_]
    labelled: NDArray[np.bool_]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pixels."""
        height, width = self.pixels.shape[:2]
        return height, width

    def select(self, index: NDArray[np.int64]) -> Sample:
        """Return the sample with only these objects, in this order."""
        return replace(
            self,
            boxes=self.boxes[index],
            labels=self.labels[index],
            masks=tuple(self.masks[i] for i in index),
            keypoints=self.keypoints[index],
            ignored=self.ignored[index],
            identifiable=self.identifiable[index],
        )


def base_scale(height: int, width: int, config: InputConfig) -> float:
    """Return the factor from source pixels to input pixels.

    >>> base_scale(600, 1024, InputConfig(long_side=512))
    0.5
    """
    return min(config.upscale_max, config.long_side / max(height, width))


def base_size(height: int, width: int, config: InputConfig) -> tuple[int, int]:
    """Return (height, width) that the network sees without augmentation.

    >>> base_size(600, 1024, InputConfig(long_side=512))
    (300, 512)
    """
    return _resized((height, width), base_scale(height, width, config))


def _resized(shape: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def resize_pixels(pixels: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resize to (height, width): by area where it shrinks, else bilinear."""
    import cv2

    if pixels.shape[:2] == size:
        return pixels
    shrinks = size[0] < pixels.shape[0]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(pixels, (size[1], size[0]), interpolation=method)


def make_sample(
    image: Image,
    annotations: tuple[Annotation, ...],
    pixels: NDArray[np.uint8],
    *,
    classes: tuple[str, ...],
    taxonomy: Taxonomy,
    config: InputConfig,
    headroom: float,
) -> Sample:
    """Resize a picture to what augmentation needs of it and bring its labels along.

    Args:
        image: Its record.
        annotations: Its objects; those of other classes than the network's are left out.
        pixels: As decoded, uint8 (H, W, 3).
        classes: The network's classes.
        taxonomy: Says which objects are identifiable and which have a mask.
        config: Input size.
        headroom: Most that augmentation enlarges the input; 1 where there is none.
    """
    base = base_scale(image.height, image.width, config)
    kept = min(1.0, base * headroom) if headroom > 1 else base
    size = _resized((image.height, image.width), kept)
    scale = np.array([size[1] / image.width, size[0] / image.height], dtype=np.float32)
    objects = [a for a in annotations if a.class_name in classes]
    points = np.zeros((len(objects), len(KEYPOINT_NAMES), 3), dtype=np.float32)
    for row, annotation in enumerate(objects):
        if annotation.keypoints is not None:
            points[row] = annotation.keypoints
    points[..., :2] *= scale
    boxes = np.array([a.box_xyxy for a in objects], dtype=np.float32).reshape(-1, 4)
    return Sample(
        name=image.file_name,
        pixels=resize_pixels(pixels, size),
        base_size=base_size(image.height, image.width, config),
        boxes=boxes * np.tile(scale, 2),
        labels=np.array([classes.index(a.class_name) for a in objects], dtype=np.int64),
        masks=tuple(_true_mask(a, image, taxonomy, size) for a in objects),
        keypoints=points,
        ignored=np.array([a.crowd for a in objects], dtype=bool),
        identifiable=np.array([_identifiable(a, taxonomy) for a in objects], dtype=bool),
        labelled=np.array([c in image.labelled for c in classes], dtype=bool),
    )


def _identifiable(annotation: Annotation, taxonomy: Taxonomy) -> bool:
    said = annotation.attributes.get("identifiable")
    if annotation.crowd:
        return False
    if said is not None:
        return bool(said)
    return taxonomy[annotation.class_name].is_identifiable(annotation.width, annotation.height)


def _true_mask(
    annotation: Annotation, image: Image, taxonomy: Taxonomy, size: tuple[int, int]
) -> NDArray[np.bool_] | None:
    """Return the drawn outline of a class that has one; boxes and ellipses are drawn later."""
    outlined = taxonomy[annotation.class_name].geometry == "mask"
    if not outlined or annotation.segmentation is None or annotation.crowd:
        return None
    mask = annotation.mask("mask", height=image.height, width=image.width)
    return resize_pixels(mask.astype(np.uint8) * 255, size) >= 128


@dataclass(frozen=True)
class View:
    """What augmentation shows of a picture.

    Attributes:
        window: x0, y0, x1, y1 cut out of the sample, whole pixels.
        size: (height, width) that it is resized to.
        mirrored: Whether left and right change places.
    """

    window: tuple[int, int, int, int]
    size: tuple[int, int]
    mirrored: bool


def draw_scale(
    config: AugmentationConfig, rng: np.random.Generator, *, grown: float = 1.0
) -> float:
    """Draw how large a picture is shown, relative to the input size.

    Args:
        config: Range of the scale.
        rng: Gives the draw.
        grown: Share of the epochs that have passed: from 0 in the first to 1 in the last.
    """
    drawn = np.exp(rng.uniform(np.log(config.scale_min), np.log(config.scale_max)))
    return float(growth(config, grown) * drawn)


def growth(config: AugmentationConfig, grown: float) -> float:
    """Return the factor on sizes after a share of the epochs.

    >>> growth(AugmentationConfig(scale_first=0.5), 0.5)
    0.75
    """
    return config.scale_first + (1 - config.scale_first) * grown


def shown_size(base_size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Return (height, width) of a picture shown at a scale: what exceeds the input is cut."""
    return _resized(base_size, min(1.0, scale))


def draw_view(
    sample: Sample, config: AugmentationConfig, rng: np.random.Generator, *, grown: float = 1.0
) -> View:
    """Draw a view: of another size, and cut where it would exceed the input.

    The scale is the first number drawn, so that a picture's size can be told before it is made.
    """
    height, width = sample.size
    scale = draw_scale(config, rng, grown=grown)
    cut = min(1.0, 1 / scale)
    window_height, window_width = round(height * cut), round(width * cut)
    y0 = int(rng.integers(0, height - window_height + 1))
    x0 = int(rng.integers(0, width - window_width + 1))
    return View(
        (x0, y0, x0 + window_width, y0 + window_height),
        shown_size(sample.base_size, scale),
        bool(rng.random() < config.flip),
    )


def show(sample: Sample, view: View, *, visible_min: float) -> Sample:
    """Cut, resize and mirror picture, boxes, masks and keypoints together.

    Objects outside the window are gone; those of which less than `visible_min` is left are
    ignored. A cut outline gets the box of what is left of it.
    """
    import albumentations as A
    import cv2

    x0, y0, x1, y1 = view.window
    visible = np.array([_visible(sample, i, view.window) for i in range(len(sample.boxes))])
    sample = sample.select(np.flatnonzero(visible > 0))
    visible = visible[visible > 0]
    shrinks = view.size[0] < y1 - y0
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    transform = A.Compose(
        [
            A.Crop(x0, y0, x1, y1),
            # Masks as pixels: OpenCV's nearest moves them, by up to half a pixel.
            A.Resize(*view.size, interpolation=method, mask_interpolation=method),
            *([A.HorizontalFlip(p=1.0)] if view.mirrored else []),
        ],
        bbox_params=A.BboxParams("pascal_voc", label_fields=["index"], clip=True),
        keypoint_params=A.KeypointParams("xy", remove_invisible=False),
    )
    outlined = [i for i, mask in enumerate(sample.masks) if mask is not None]
    result = transform(
        image=sample.pixels,
        bboxes=sample.boxes,
        index=np.arange(len(sample.boxes)),
        keypoints=sample.keypoints[..., :2].reshape(-1, 2),
        **({"masks": [_as_uint8(sample.masks[i]) for i in outlined]} if outlined else {}),
    )
    masks = dict(zip(outlined, result.get("masks", []), strict=True))
    index = np.array(result["index"], dtype=np.int64).reshape(-1)
    points = sample.keypoints.copy()
    points[..., :2] = np.asarray(result["keypoints"]).reshape(-1, len(KEYPOINT_NAMES), 2)
    if view.mirrored:
        # Albumentations mirrors pixel indices (x becomes W - 1 - x); ours are edges of pixels.
        points[..., 0] += 1
        points = points[:, MIRRORED]
    shown = replace(
        sample,
        pixels=result["image"],
        masks=tuple(masks[i] >= 128 if i in masks else None for i in range(len(sample.masks))),
        keypoints=hide_outside(points, view.size),
        ignored=sample.ignored | (visible < visible_min),
    ).select(index)
    boxes = np.asarray(result["bboxes"], dtype=np.float32).reshape(-1, 4)
    return _fit_boxes(replace(shown, boxes=boxes), visible[index])


def _as_uint8(mask: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
    return np.asarray(mask, dtype=np.uint8) * np.uint8(255)


def _visible(sample: Sample, row: int, window: tuple[int, int, int, int]) -> float:
    """Return the share of an object that lies in the window."""
    x0, y0, x1, y1 = window
    mask = sample.masks[row]
    if mask is not None:
        return float(mask[y0:y1, x0:x1].sum() / max(1, mask.sum()))
    bx0, by0, bx1, by1 = (float(v) for v in sample.boxes[row])
    inside = max(0.0, min(bx1, x1) - max(bx0, x0)) * max(0.0, min(by1, y1) - max(by0, y0))
    return inside / max(1e-6, (bx1 - bx0) * (by1 - by0))


def hide_outside(points: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Return keypoints of shape (..., 3), those outside of (height, width) with visibility 0."""
    x, y = points[..., 0], points[..., 1]
    outside = (x < 0) | (y < 0) | (x >= size[1]) | (y >= size[0])
    points[outside, 2] = 0
    return points


def _fit_boxes(sample: Sample, visible: NDArray[np.float64]) -> Sample:
    """Give cut outlines the box of what is left; leave out outlines that left no pixel."""
    boxes = sample.boxes.copy()
    kept = []
    for row, mask in enumerate(sample.masks):
        if mask is None or visible[row] >= 1:
            kept.append(row)
            continue
        if mask.any():
            boxes[row] = box_of_mask(mask)
            kept.append(row)
    return replace(sample, boxes=boxes).select(np.array(kept, dtype=np.int64))


def box_of_mask(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return the xyxy box, half-open, of a mask that is not empty.

    >>> box_of_mask(np.eye(3, 5, 1, dtype=bool))
    (1, 0, 4, 3)
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


class Photometry:
    """Changes of light and quality; seeded for each picture, so that any order gives the same."""

    def __init__(self, config: AugmentationConfig) -> None:
        import albumentations as A

        self.transforms = [
            # Darker reaches further than brighter: night is commoner than glare.
            A.RandomBrightnessContrast((-0.45, 0.25), (-0.3, 0.3), p=config.light),
            A.RandomGamma((60, 150), p=config.light / 2),
            A.HueSaturationValue(12, 30, 0, p=config.colour),
            A.ToGray(p=config.gray),
            A.OneOf([A.GaussianBlur(sigma_limit=(0.4, 1.4)), A.MotionBlur((3, 5))], p=config.blur),
            A.GaussNoise((0.01, 0.05), p=config.noise),
            A.ImageCompression(quality_range=(35, 90), p=config.compression),
        ]

    def __call__(self, pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return the changed picture, uint8 (H, W, 3)."""
        for transform in self.transforms:
            # One seed for all, as Compose would give, makes all draws the same.
            transform.set_random_seed(int(rng.integers(2**31)))
            pixels = transform(image=pixels)["image"]
        return pixels


def to_target(
    sample: Sample, *, geometries: tuple[str, ...], min_side_px: float, maps: tuple[str, ...]
) -> dict[str, Any]:
    """Turn a sample's labels into tensors for the network.

    Args:
        sample: At input size.
        geometries: Geometry of each class of the network.
        min_side_px: Objects with a smaller box side are ignored.
        maps: What the network draws of an object: `mask`, `keypoint`.

    Returns:
        `boxes` (G, 4), `labels` (G,), `ignored_boxes` (I, 4), `ignored_labels` (I,), `labelled`
        bool (K,); for `mask` also `masks` uint8 (G, H, W) and `has_mask` bool (G,); for `keypoint`
        also `keypoints` float32 (G, 17, 3) and `has_keypoint` bool (G,).
    """
    import torch

    sides = (sample.boxes[:, 2:] - sample.boxes[:, :2]).min(1, initial=np.inf)
    ignored = sample.ignored | (sides < min_side_px)
    known = sample.select(np.flatnonzero(~ignored))
    target = {
        "boxes": torch.from_numpy(known.boxes.astype(np.float32)),
        "labels": torch.from_numpy(known.labels),
        "ignored_boxes": torch.from_numpy(sample.boxes[ignored].astype(np.float32)),
        "ignored_labels": torch.from_numpy(sample.labels[ignored]),
        "labelled": torch.from_numpy(sample.labelled),
    }
    if KEYPOINT in maps:
        target["keypoints"] = torch.from_numpy(known.keypoints)
        target["has_keypoint"] = torch.from_numpy((known.keypoints[..., 2] > 0).any(1))
    if MASK in maps:
        drawn = [_drawn(known, row, geometries) for row in range(len(known.boxes))]
        blank = np.zeros(sample.size, dtype=bool)
        masks = np.stack([blank if m is None else m for m in drawn]) if drawn else blank[None][:0]
        target["masks"] = torch.from_numpy(masks.astype(np.uint8))
        target["has_mask"] = torch.tensor([m is not None for m in drawn], dtype=torch.bool)
    return target


def _drawn(sample: Sample, row: int, geometries: tuple[str, ...]) -> NDArray[np.bool_] | None:
    """Return an object's true mask, or None where there is none to teach.

    The outline of a box or an ellipse follows from its box, and nobody asks a network for it.
    """
    return sample.masks[row] if geometries[sample.labels[row]] == "mask" else None
