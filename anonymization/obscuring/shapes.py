"""Shapes: which pixels of an object are hidden.

Pure code over arrays. Each object's region is worked out inside the crop that it needs, so that
cost and memory grow with the obscured area and not with the picture. A pixel whose centre lies in
a shape belongs to it, and of boxes each that they touch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonymization.detection.finds import Detections, ShapeError
from anonymization.obscuring.figures import (
    FULL,
    Box,
    Grid,
    box_distance,
    ellipses,
    fade,
    rotated_corners,
    rotated_distance,
    rounded_out,
)
from anonymization.obscuring.masks import distance_from, grown, paste_mask
from anonymization.taxonomy import ClassSpec

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]


MASK_THRESHOLD = 0.4
"""Least probability inside an outline where a card says nothing else; see `Card`."""


@dataclass(frozen=True)
class Outline:
    """The exact pixels of one object, as a person drew them; checked when made.

    Attributes:
        x0: Column of the picture at which the mask starts.
        y0: Row of the picture at which it starts.
        mask: bool, shape (h, w), at least one pixel of it set.
    """

    x0: int
    y0: int
    mask: Bools

    def __post_init__(self) -> None:
        if self.mask.ndim != 2 or self.mask.dtype != np.bool_ or not self.mask.any():
            raise ShapeError(
                f"an outline is {self.mask.dtype} {self.mask.shape} with {int(self.mask.sum())} "
                "pixels set; expected bool (h, w) with at least one"
            )

    @property
    def box_xyxy(self) -> Floats:
        """The smallest box around the pixels; float32, shape (4,), half-open."""
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        low = np.array([self.x0 + columns[0], self.y0 + rows[0]])
        high = np.array([self.x0 + columns[-1] + 1, self.y0 + rows[-1] + 1])
        return np.asarray(np.concatenate([low, high]), np.float32)

    def on(self, x0: int, y0: int, x1: int, y1: int) -> Bools:
        """Return the pixels of a crop of the picture that belong to it; bool (y1-y0, x1-x0)."""
        crop = np.zeros((y1 - y0, x1 - x0), bool)
        rows, columns = self.mask.shape
        top, left = max(y0, self.y0), max(x0, self.x0)
        bottom, right = min(y1, self.y0 + rows), min(x1, self.x0 + columns)
        if top < bottom and left < right:
            part = self.mask[top - self.y0 : bottom - self.y0, left - self.x0 : right - self.x0]
            crop[top - y0 : bottom - y0, left - x0 : right - x0] = part
        return crop


@dataclass(frozen=True)
class Region:
    """Where one object is obscured.

    Attributes:
        x0: Column of the picture at which the region starts.
        y0: Row of the picture at which it starts.
        full: Pixels that are fully replaced, bool, shape (h, w).
        faded: Weight of every pixel, uint8, shape (h, w): 255, exactly where `full` is, replaces
            it, 0 leaves it; None where nothing fades.
        corners_xy: Corners of a rotated box in picture pixels, float32 (4, 2), in turn; None for
            other shapes.
    """

    x0: int
    y0: int
    full: Bools
    faded: Bytes | None = None
    corners_xy: Floats | None = None

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of the picture that the region covers."""
        rows, columns = self.full.shape
        return slice(self.y0, self.y0 + rows), slice(self.x0, self.x0 + columns)

    @property
    def touched(self) -> Bools:
        """Pixels that change at all; bool, shape (h, w)."""
        return self.full if self.faded is None else self.faded > 0

    @property
    def weight(self) -> Floats:
        """Weight of every pixel, float32, shape (h, w): 1 is fully replaced, 0 untouched."""
        whole = self.full if self.faded is None else self.faded / np.float32(FULL)
        return whole.astype(np.float32, copy=False)


_NOWHERE = Region(0, 0, np.zeros((0, 0), np.bool_))


def hidden_parts(regions: Iterable[Region]) -> list[tuple[int, int, Bools]]:
    """Return first column, first row and pixels of what regions change, as `formats.encode` asks.

    The pixels are bool, shape (h, w).
    """
    return [(where.x0, where.y0, where.touched) for where in regions]


def region(
    detections: Detections,
    index: int,
    spec: ClassSpec,
    *,
    height: int,
    width: int,
    mask_threshold: float = MASK_THRESHOLD,
    outline: Outline | None = None,
    within: tuple[int, int, int, int] | None = None,
) -> Region:
    """Return where one find is obscured.

    The object and its margin weigh 1; the feather fades to 0 outside of that. An outline or
    rotated box without a usable mask becomes its whole box. What a person drew is hidden whatever
    the shape is: the region is the shape and the drawn outline together.

    Args:
        detections: The finds.
        index: Which of them.
        spec: How its class is obscured.
        height: Rows of the picture.
        width: Columns of the picture.
        mask_threshold: Least probability of a pixel of an outline.
        outline: Exact pixels of the object, where they are known.
        within: What `bounds` returns for the same find; None works it out.

    Returns:
        The region, cut at the picture's edge; without pixels for a find outside of it.
    """
    boxes, extent = _boxes(detections, index, outline)
    side = max(_shorter(boxes[0]), 0.0)
    margin, feather = spec.margin * side, spec.feather * side
    if spec.shape == "box" and len(extent) == 1 and feather <= 0:
        return _plain_box(boxes[0], margin, (0, 0), (width, height))
    x0, y0, x1, y1 = within or bounds(
        detections, index, spec, height=height, width=width, outline=outline
    )
    if x1 <= x0 or y1 <= y0:
        return _NOWHERE
    grid = Grid(x0, y0, x1, y1)
    drawn = outline.on(x0, y0, x1, y1) if outline is not None else None
    if drawn is not None and not drawn.any():
        drawn = None
    if spec.shape == "ellipse":
        weight = ellipses(boxes, margin, feather, grid)
        if drawn is not None:
            around = fade(distance_from(drawn) - np.float32(margin), feather)
            np.maximum(weight, around, out=weight)
        return Region(x0, y0, weight == FULL, weight if feather > 0 else None)
    inside = _inside(detections, index, spec, grid, mask_threshold, drawn)
    if inside is None and len(extent) == 1 and feather <= 0:
        return _plain_box(boxes[0], margin, grid.corner, grid.end)
    corners = rotated_corners(inside, grid, margin) if spec.shape == "rotated_box" else None
    if feather <= 0 and corners is None and inside is not None and len(boxes) == 1:
        # What was drawn is what is inside, where anything was.
        return Region(x0, y0, grown(inside, margin))
    distances = [_first_distance(boxes[0], margin, grid, inside, corners)]
    distances += [box_distance(box, margin, grid) for box in boxes[1:]]
    if drawn is not None:
        distances.append(distance_from(drawn) - np.float32(margin))
    weight = fade(distances[0] if len(distances) == 1 else np.minimum.reduce(distances), feather)
    found = Region(x0, y0, weight == FULL, weight if feather > 0 else None, corners)
    return _trimmed(found) if spec.shape == "rotated_box" else found


def bounds(
    detections: Detections,
    index: int,
    spec: ClassSpec,
    *,
    height: int,
    width: int,
    outline: Outline | None = None,
) -> tuple[int, int, int, int]:
    """Return a part of the picture that holds all that `region` can touch of one find.

    Args:
        detections: As for `region`, and so are all that follow.
        index: Which of the finds.
        spec: How its class is obscured.
        height: Rows of the picture.
        width: Columns of the picture.
        outline: Exact pixels of the object, where they are known.

    Returns:
        First column and row, then those behind the last; the first are not below the second for
        a find outside of the picture.
    """
    boxes, extent = _boxes(detections, index, outline)
    growth = (spec.margin + spec.feather) * max(_shorter(boxes[0]), 0.0)
    # A rotated box reaches out of the box around it by less than its own longer side.
    reach = _longer_side(extent) if spec.shape == "rotated_box" else 0.0
    return _crop(extent, growth + reach, height=height, width=width)


def _boxes(
    detections: Detections, index: int, outline: Outline | None
) -> tuple[list[Box], list[Box]]:
    """Return the boxes of one find, its own first; and those with what a person drew."""
    boxes = [detections.boxes_xyxy[index].tolist()]
    merged = detections.merged_xyxy[index].tolist()
    if not math.isnan(merged[0]):
        boxes.append(merged)
    return boxes, boxes if outline is None else [*boxes, outline.box_xyxy.tolist()]


def shorter_side(box_xyxy: Floats) -> float:
    """Return the length of a box's shorter side in pixels."""
    return _shorter(box_xyxy.tolist())


def _shorter(box: Box) -> float:
    return min(box[2] - box[0], box[3] - box[1])


def _longer_side(boxes: list[Box]) -> float:
    return max(max(box[2] - box[0], box[3] - box[1]) for box in boxes)


def _trimmed(found: Region) -> Region:
    """Cut away the rows and columns around a rotated box that it does not reach."""
    touched = found.touched
    rows, columns = np.flatnonzero(touched.any(1)), np.flatnonzero(touched.any(0))
    if not rows.size:
        return _NOWHERE
    cut = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return Region(
        found.x0 + int(columns[0]),
        found.y0 + int(rows[0]),
        np.ascontiguousarray(found.full[cut]),
        None if found.faded is None else np.ascontiguousarray(found.faded[cut]),
        found.corners_xy,
    )


def _crop(boxes: list[Box], growth: float, *, height: int, width: int) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = boxes[0]
    for left, top, right, bottom in boxes[1:]:
        x0, y0, x1, y1 = min(x0, left), min(y0, top), max(x1, right), max(y1, bottom)
    growth += 1
    return (
        min(max(math.floor(x0 - growth), 0), width),
        min(max(math.floor(y0 - growth), 0), height),
        min(max(math.ceil(x1 + growth), 0), width),
        min(max(math.ceil(y1 + growth), 0), height),
    )


def _inside(
    detections: Detections,
    index: int,
    spec: ClassSpec,
    grid: Grid,
    mask_threshold: float,
    drawn: Bools | None,
) -> Bools | None:
    """Return the object's own pixels for the shapes that ask for them; None where unknown."""
    if spec.shape not in ("outline", "rotated_box"):
        return None
    if drawn is not None:
        return drawn
    mask = detections.masks[index]
    if not np.isfinite(mask).all():
        return None
    probability = paste_mask(
        mask,
        detections.boxes_xyxy[index],
        x0=grid.x0,
        y0=grid.y0,
        height=grid.y1 - grid.y0,
        width=grid.x1 - grid.x0,
    )
    inside = probability >= mask_threshold
    return inside if inside.any() else None


def _first_distance(
    box: Box, margin: float, grid: Grid, inside: Bools | None, corners: Floats | None
) -> Floats:
    """Return how far each pixel lies outside of the grown shape; <= 0 inside, in pixels."""
    if corners is not None:
        return rotated_distance(corners, grid)
    if inside is not None:
        return distance_from(inside) - np.float32(margin)
    return box_distance(box, margin, grid)


def _plain_box(box: Box, margin: float, corner: tuple[int, int], end: tuple[int, int]) -> Region:
    """Return the region of a box without a faded edge: all that `box_distance` calls inside.

    Args:
        box: The object's own.
        margin: Pixels.
        corner: First column and row of the picture, or of a part that holds the region.
        end: Those behind its last.
    """
    x0, y0, x1, y1 = rounded_out(box, margin)
    x0, y0, x1, y1 = max(x0, corner[0]), max(y0, corner[1]), min(x1, end[0]), min(y1, end[1])
    return (
        Region(x0, y0, np.ones((y1 - y0, x1 - x0), np.bool_)) if x0 < x1 and y0 < y1 else _NOWHERE
    )
