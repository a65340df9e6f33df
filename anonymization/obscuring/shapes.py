"""Shapes: which pixels of an object are hidden.

Pure code over arrays. Each object's region is worked out inside the crop that it needs, so that
cost and memory grow with the obscured area and not with the picture. Pixels that a shape touches
at all belong to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from anonymization.detection.finds import Detections, ShapeError
from anonymization.products import product
from anonymization.taxonomy import ClassSpec

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Box = list[float]
"""x0, y0, x1, y1 in picture pixels; plain numbers, as an array of four costs more than all sums."""

FULL = 255
"""Weight of a pixel that is replaced."""

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


def paste_mask(
    mask: Floats, box_xyxy: Floats, *, x0: int, y0: int, height: int, width: int
) -> Floats:
    """Sample a small mask at the centres of picture pixels, bilinear, 0 outside of its box.

    As torchvision's `paste_masks_in_image`, without rounding the box to whole pixels first.

    Args:
        mask: float32, shape (M, M), probability per cell of the box.
        box_xyxy: float32, shape (4,), box that the mask spans, picture pixels.
        x0: First column to sample.
        y0: First row to sample.
        height: Rows to sample.
        width: Columns to sample.

    Returns:
        float32, shape (height, width).
    """
    x_low, y_low, x_high, y_high = (float(v) for v in box_xyxy)
    across = _sampling(x_low, x_high, mask.shape[1], first=x0, count=width)
    down = _sampling(y_low, y_high, mask.shape[0], first=y0, count=height)
    return product(product(down, mask), across.T)


def _sampling(low: float, high: float, cells: int, *, first: int, count: int) -> Floats:
    """Return bilinear weights of cells per pixel centre; float32 (count, cells)."""
    centres = np.arange(first, first + count) + 0.5
    position = np.asarray((centres - low) / max(high - low, 1e-6) * cells - 0.5, np.float32)
    weights = np.abs(position[:, None] - np.arange(cells, dtype=np.float32))
    return np.asarray(np.maximum(np.subtract(1, weights, out=weights), 0, out=weights))


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
    grid = _Grid(x0, y0, x1, y1)
    drawn = outline.on(x0, y0, x1, y1) if outline is not None else None
    if drawn is not None and not drawn.any():
        drawn = None
    if spec.shape == "ellipse":
        weight = _ellipses(boxes, margin, feather, grid)
        if drawn is not None:
            around = _fade(_distance_from(drawn) - np.float32(margin), feather)
            np.maximum(weight, around, out=weight)
        return Region(x0, y0, weight == FULL, weight if feather > 0 else None)
    inside = _inside(detections, index, spec, grid, mask_threshold, drawn)
    if inside is None and len(extent) == 1 and feather <= 0:
        return _plain_box(boxes[0], margin, grid.corner, grid.end)
    corners = _rotated_corners(inside, grid, margin) if spec.shape == "rotated_box" else None
    if feather <= 0 and corners is None and inside is not None and len(boxes) == 1:
        # What was drawn is what is inside, where anything was.
        return Region(x0, y0, grown(inside, margin))
    distances = [_first_distance(boxes[0], margin, grid, inside, corners)]
    distances += [_box_distance(box, margin, grid) for box in boxes[1:]]
    if drawn is not None:
        distances.append(_distance_from(drawn) - np.float32(margin))
    weight = _fade(distances[0] if len(distances) == 1 else np.minimum.reduce(distances), feather)
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


@dataclass(frozen=True)
class _Grid:
    """Whole pixels of a crop, half-open."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def corner(self) -> tuple[int, int]:
        return self.x0, self.y0

    @property
    def end(self) -> tuple[int, int]:
        return self.x1, self.y1

    @property
    def columns(self) -> Floats:
        return np.arange(self.x0, self.x1, dtype=np.float32) + np.float32(0.5)

    @property
    def rows(self) -> Floats:
        return np.arange(self.y0, self.y1, dtype=np.float32) + np.float32(0.5)


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
    grid: _Grid,
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
    box: Box, margin: float, grid: _Grid, inside: Bools | None, corners: Floats | None
) -> Floats:
    """Return how far each pixel lies outside of the grown shape; <= 0 inside, in pixels."""
    if corners is not None:
        return _rotated_distance(corners, grid)
    if inside is not None:
        return _distance_from(inside) - np.float32(margin)
    return _box_distance(box, margin, grid)


def _distance_from(inside: Bools) -> Floats:
    """Return the distance in pixels of each pixel's centre to the nearest one inside."""
    outside = np.logical_not(inside).view(np.uint8)
    return np.asarray(cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE))


def grown(inside: Bools, margin: float) -> Bools:
    """Return the pixels whose centre is at most the margin away from one inside.

    Each run of pixels in a row stands for itself in the rows above and below, longer or shorter
    as a disc is. That is cheaper than a distance for every pixel, unless there are many runs.

    Args:
        inside: bool, shape (H, W).
        margin: Pixels.

    Returns:
        bool, shape (H, W).

    >>> grown(np.array([[0, 0, 1, 0, 0]], bool), 1).astype(int).tolist()
    [[0, 1, 1, 1, 0]]
    """
    height, width = inside.shape
    # A clear column between the rows, so that no run goes on into the next one.
    pitch = width + 1
    line = np.zeros(1 + height * pitch, np.bool_)
    line[1:].reshape(height, pitch)[:, :width] = inside
    edges = np.flatnonzero(line[1:] != line[:-1])
    rows, starts = np.divmod(edges[0::2, None], pitch)
    ends = edges[1::2, None] - rows * pitch
    radius = float(np.float32(margin))
    down = np.arange(-int(radius), int(radius) + 1)
    # A hair more: rounding must not leave a pixel clear.
    across = np.sqrt(radius**2 - down**2 + 1e-6).astype(np.int64)
    if rows.size * down.size > inside.size:
        return np.asarray(_distance_from(inside) <= np.float32(margin))
    reached = rows + down
    seen = (reached >= 0) & (reached < height)
    first = reached * pitch
    changes = np.zeros(height * pitch, np.int32)
    one = np.int32(1)  # of the array's own type, for which NumPy is forty times as fast
    np.add.at(changes, (first + np.maximum(starts - across, 0))[seen], one)
    np.subtract.at(changes, (first + np.minimum(ends + across, width))[seen], one)
    runs = np.cumsum(changes, dtype=np.int32, out=changes).reshape(height, pitch)
    return np.asarray(runs[:, :width] > 0)


def _box_distance(box: Box, margin: float, grid: _Grid) -> Floats:
    x0, y0, x1, y1 = _rounded_out(box, margin)
    dx = np.maximum(np.maximum(x0 + 0.5 - grid.columns, grid.columns - (x1 - 0.5)), 0)
    dy = np.maximum(np.maximum(y0 + 0.5 - grid.rows, grid.rows - (y1 - 0.5)), 0)
    return np.asarray(np.hypot(dy[:, None], dx[None, :]), np.float32)


def _rounded_out(box: Box, margin: float) -> tuple[int, int, int, int]:
    """Return a grown box in whole pixels: one that it only touches is hidden whole."""
    left, top, right, bottom = box
    return (
        math.floor(left - margin),
        math.floor(top - margin),
        math.ceil(right + margin),
        math.ceil(bottom + margin),
    )


def _plain_box(box: Box, margin: float, corner: tuple[int, int], end: tuple[int, int]) -> Region:
    """Return the region of a box without a faded edge: all that `_box_distance` calls inside.

    Args:
        box: The object's own.
        margin: Pixels.
        corner: First column and row of the picture, or of a part that holds the region.
        end: Those behind its last.
    """
    x0, y0, x1, y1 = _rounded_out(box, margin)
    x0, y0, x1, y1 = max(x0, corner[0]), max(y0, corner[1]), min(x1, end[0]), min(y1, end[1])
    return (
        Region(x0, y0, np.ones((y1 - y0, x1 - x0), np.bool_)) if x0 < x1 and y0 < y1 else _NOWHERE
    )


def _ellipses(boxes: list[Box], margin: float, feather: float, grid: _Grid) -> Bytes:
    """Return the weights of the ellipses in some grown boxes together; uint8 (h, w).

    Drawn larger, blurred over four fifths of the feather, and drawn once more: full inside, and
    nothing behind the feather, on the diagonals too, where a square blurs further.
    """
    weight = np.zeros((grid.y1 - grid.y0, grid.x1 - grid.x0), np.uint8)
    if feather > 0:
        for box in boxes:
            _draw_ellipse(weight, box, margin + 0.4 * feather, grid)
        side = 2 * int(0.4 * feather) + 1
        weight[...] = cv2.blur(weight, (side, side), borderType=cv2.BORDER_REPLICATE)
    for box in boxes:
        _draw_ellipse(weight, box, margin, grid)
    return weight


_BITS = 4
"""Of a pixel's fraction, in which OpenCV takes coordinates."""

_STEPS = ((3, 90), (10, 30), (15, 18))
"""Longer half-axis in pixels below which OpenCV draws a polygon of so many degrees a corner (its
ellipse2Poly); 5 degrees above."""


def _draw_ellipse(weight: Bytes, box: Box, growth: float, grid: _Grid) -> None:
    """Fill the ellipse in a grown box, in place: every pixel of which it cuts the inner half.

    OpenCV draws the polygon inside of the ellipse; the axes are made longer by as much as its
    sides fall short.
    """
    x0, y0, x1, y1 = box
    # Half a pixel for those that it cuts, a sixteenth for rounding.
    half = [max(side / 2 + growth, 0.5) + 0.5625 for side in (x1 - x0, y1 - y0)]
    step = next((degrees for below, degrees in _STEPS if max(half) < below), 5)
    unit = 2**_BITS
    longer = unit / math.cos(math.radians(step / 2))
    # OpenCV counts from the centre of the first pixel.
    centre = (
        round(((x0 + x1 - 1) / 2 - grid.x0) * unit),
        round(((y0 + y1 - 1) / 2 - grid.y0) * unit),
    )
    axes = round(half[0] * longer), round(half[1] * longer)
    cv2.ellipse(weight, centre, axes, 0, 0, 360, FULL, cv2.FILLED, cv2.LINE_8, _BITS)


def _rotated_corners(inside: Bools | None, grid: _Grid, margin: float) -> Floats | None:
    """Return the corners of the smallest rotated box around some pixels, grown by the margin.

    `minAreaRect` encloses pixel centres; the sides are moved out by as much as a pixel's square
    reaches past its centre at that angle.
    """
    if inside is None:
        return None
    contours, _ = cv2.findContours(
        inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    centre, size, angle = cv2.minAreaRect(np.concatenate(contours))
    turn = np.deg2rad(angle)
    growth = 2 * margin + abs(np.cos(turn)) + abs(np.sin(turn))
    grown = (centre, (size[0] + growth, size[1] + growth), angle)
    shift = np.array([grid.x0 + 0.5, grid.y0 + 0.5])
    return np.asarray(cv2.boxPoints(grown) + shift, np.float32)


def _rotated_distance(corners: Floats, grid: _Grid) -> Floats:
    """Return the distance of pixel centres to a rotated box; 0 inside."""
    centre = corners.mean(axis=0)
    sides = [corners[1] - corners[0], corners[2] - corners[1]]
    out = []
    for side in sides:
        length = max(float(np.hypot(*side)), 1e-6)
        along = (grid.columns - centre[0])[None, :] * (side[0] / length)
        along = along + (grid.rows - centre[1])[:, None] * (side[1] / length)
        out.append(np.maximum(np.abs(along) - length / 2, 0))
    # Rounding of float32 corners must not leave an edge pixel clear.
    return np.asarray(np.hypot(*out) - 1e-3, np.float32)


def _fade(distance: Floats, feather: float) -> Bytes:
    """Return full weight where the distance is not positive, then a straight line to 0.

    Over the feather; without one, 0 at once. uint8, of the same shape.
    """
    if feather <= 0:
        return (distance <= 0).astype(np.uint8) * np.uint8(FULL)
    # Rounded, and cut at both ends.
    return np.asarray(
        cv2.addWeighted(distance, -FULL / feather, distance, 0, FULL, dtype=cv2.CV_8U), np.uint8
    )
