"""Obscuring: which pixels of an object are hidden, and what replaces them.

Pure code over arrays. Each object is worked on inside the crop that its region needs, so that
cost and memory grow with the obscured area and not with the picture.

What replaces pixels holds less than they did: `blur` and `pixelate` first average the crop to a
coarse grid (a handful of cells across the object, whatever its size), add noise and quantize;
only then is the grid brought back to size, smoothly or in cells. A plain Gaussian blur, however
strong, keeps enough for 95.9 % re-identification after restoration (Revelio, arXiv 2506.12344);
argoverse-api issue 162 and PEERS name a grid of 5x5 as what practitioners trust.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anonymization.detection import Detections, ShapeError
from anonymization.taxonomy import ClassSpec, Taxonomy

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Pixels = NDArray[Any]

MASK_THRESHOLD = 0.4
"""Least probability inside an outline where a card says nothing else; see `Card`."""

CELL_MIN_PX = 4
"""Smallest mosaic cell: below it, plate characters of 8 px would keep more than two samples."""

STRENGTH_MIN = 0.2
"""Least strength: ten blur samples across the shorter side. A lower setting is raised to it, as
faces stay recognizable from 12x14 samples (Sinha; PEERS 3.2)."""

NOISE_SHARE = 0.02
"""Standard deviation of the noise on each cell, as a share of full scale: 5 levels of 255."""

QUANTUM_SHARE = 1 / 32
"""Step to which cells are rounded, as a share of full scale: 8 levels of 256."""


@dataclass(frozen=True)
class Region:
    """Where one object is obscured.

    Attributes:
        x0: Column of the picture at which the weights start.
        y0: Row of the picture at which they start.
        weight: float32, shape (h, w), in [0, 1]: 1 is fully replaced, 0 untouched.
    """

    x0: int
    y0: int
    weight: Floats

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of the picture that the weights cover."""
        rows, columns = self.weight.shape
        return slice(self.y0, self.y0 + rows), slice(self.x0, self.x0 + columns)


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
    return np.asarray(down @ mask @ across.T, np.float32)


def _sampling(low: float, high: float, cells: int, *, first: int, count: int) -> Floats:
    """Return bilinear weights of cells per pixel centre; float32 (count, cells)."""
    centres = np.arange(first, first + count) + 0.5
    position = (centres - low) / max(high - low, 1e-6) * cells - 0.5
    return np.clip(1 - np.abs(position[:, None] - np.arange(cells)), 0, None).astype(np.float32)


def region(
    detections: Detections,
    index: int,
    spec: ClassSpec,
    *,
    height: int,
    width: int,
    mask_threshold: float = MASK_THRESHOLD,
) -> Region:
    """Return where one find is obscured.

    The object and its margin weigh 1; the feather fades to 0 outside of that. Pixels that the
    region touches at all belong to it. An outline without a usable mask becomes its whole box.

    Args:
        detections: The finds.
        index: Which of them.
        spec: How its class is obscured.
        height: Rows of the picture.
        width: Columns of the picture.
        mask_threshold: Least probability of a pixel of an outline.

    Returns:
        The region, cut at the picture's edge; without pixels for a find outside of it.
    """
    boxes = [detections.boxes_xyxy[index]]
    if not np.isnan(detections.merged_xyxy[index, 0]):
        boxes.append(detections.merged_xyxy[index])
    side = float(max(min(min(b[2] - b[0], b[3] - b[1]) for b in boxes[:1]), 0))
    margin, feather = spec.margin * side, spec.feather * side
    x0, y0, x1, y1 = _crop(boxes, margin + feather, height=height, width=width)
    if x1 <= x0 or y1 <= y0:
        return Region(0, 0, np.zeros((0, 0), np.float32))
    grid = _Grid(x0, y0, x1, y1)
    mask = detections.masks[index] if spec.shape == "outline" else None
    distances = [
        _distance(box, spec.shape, margin, grid, mask if i == 0 else None, mask_threshold)
        for i, box in enumerate(boxes)
    ]
    return Region(x0, y0, _fade(np.minimum.reduce(distances), feather))


@dataclass(frozen=True)
class _Grid:
    """Whole pixels of a crop, half-open."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def columns(self) -> Floats:
        return np.arange(self.x0, self.x1, dtype=np.float32) + np.float32(0.5)

    @property
    def rows(self) -> Floats:
        return np.arange(self.y0, self.y1, dtype=np.float32) + np.float32(0.5)


def _crop(
    boxes: list[Floats], growth: float, *, height: int, width: int
) -> tuple[int, int, int, int]:
    stacked = np.stack(boxes).astype(np.float64)
    x0, y0 = np.floor(stacked[:, :2].min(axis=0) - growth - 1)
    x1, y1 = np.ceil(stacked[:, 2:].max(axis=0) + growth + 1)
    return (
        int(np.clip(x0, 0, width)),
        int(np.clip(y0, 0, height)),
        int(np.clip(x1, 0, width)),
        int(np.clip(y1, 0, height)),
    )


def _distance(
    box: Floats,
    shape: str,
    margin: float,
    grid: _Grid,
    mask: Floats | None,
    mask_threshold: float,
) -> Floats:
    """Return how far each pixel lies outside of the grown shape; <= 0 inside, in pixels."""
    if mask is not None and np.isfinite(mask).all():
        inside = (
            paste_mask(
                mask,
                box,
                x0=grid.x0,
                y0=grid.y0,
                height=grid.y1 - grid.y0,
                width=grid.x1 - grid.x0,
            )
            >= mask_threshold
        )
        if inside.any():
            return _distance_from(inside) - np.float32(margin)
    if shape == "ellipse":
        return _ellipse_distance(box, margin, grid)
    return _box_distance(box, margin, grid)


def _distance_from(inside: Bools) -> Floats:
    """Return the distance in pixels of each pixel's centre to the nearest one inside."""
    outside = np.where(inside, 0, 1).astype(np.uint8)
    return np.asarray(cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE))


def _box_distance(box: Floats, margin: float, grid: _Grid) -> Floats:
    # Rounded outward: a pixel that the grown box only touches is hidden whole.
    x0, y0 = np.floor(box[:2] - margin)
    x1, y1 = np.ceil(box[2:] + margin)
    dx = np.maximum(np.maximum(x0 + 0.5 - grid.columns, grid.columns - (x1 - 0.5)), 0)
    dy = np.maximum(np.maximum(y0 + 0.5 - grid.rows, grid.rows - (y1 - 0.5)), 0)
    return np.asarray(np.hypot(dy[:, None], dx[None, :]), np.float32)


def _ellipse_distance(box: Floats, margin: float, grid: _Grid) -> Floats:
    """Return the first-order distance to the ellipse in the grown box, half a pixel inward.

    With r the ellipse's implicit radius, the distance is (r - 1) over the length of r's gradient;
    half a pixel is taken off so that every pixel the ellipse cuts counts as inside.
    """
    a, b = (max(float(s) / 2 + margin, 0.5) for s in (box[2] - box[0], box[3] - box[1]))
    dx = (grid.columns - (box[0] + box[2]) / 2)[None, :]
    dy = (grid.rows - (box[1] + box[3]) / 2)[:, None]
    radius = np.sqrt((dx / a) ** 2 + (dy / b) ** 2)
    slope = np.sqrt((dx / a**2) ** 2 + (dy / b**2) ** 2)
    distance = (radius - 1) * radius / np.maximum(slope, 1e-9)
    return np.asarray(np.where(radius <= 1, 0, distance - 0.5), np.float32)


def _fade(distance: Floats, feather: float) -> Floats:
    """Return 1 where the distance is not positive, then a straight line to 0 over the feather."""
    if feather <= 0:
        return (distance <= 0).astype(np.float32)
    return np.clip(1 - distance / np.float32(feather), 0, 1).astype(np.float32)


def obscure(
    pixels: Pixels,
    detections: Detections,
    taxonomy: Taxonomy,
    *,
    mask_threshold: float = MASK_THRESHOLD,
    seed: int | None = None,
) -> Pixels:
    """Return the picture with every find obscured as its class says.

    Larger objects come first, and each works on what is already obscured: where objects overlap,
    nothing that one hid comes back with the next.

    Args:
        pixels: uint8 or uint16, shape (H, W) or (H, W, C), any colour model.
        detections: What to hide.
        taxonomy: How; classes with method `none` stay.
        mask_threshold: Least probability of a pixel of an outline.
        seed: Makes the noise repeatable, for tests and reports. None draws it from the system,
            so that nobody can subtract it.

    Raises:
        ShapeError: If the pixels are of another type or shape, or a class is not in the taxonomy.
    """
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim not in (2, 3):
        raise ShapeError(
            f"pixels are {pixels.dtype} {pixels.shape}; expected uint8 or uint16, (H, W[, C])"
        )
    done: Pixels = np.ascontiguousarray(pixels).copy()
    noise = np.random.default_rng(seed)
    height, width = pixels.shape[:2]
    for index in _largest_first(detections):
        spec = class_spec(detections, index, taxonomy)
        if spec.method == "none":
            continue
        where = region(
            detections, index, spec, height=height, width=width, mask_threshold=mask_threshold
        )
        if where.weight.size:
            side = _shorter_side(detections.boxes_xyxy[index])
            crop = done[where.slices]
            done[where.slices] = _blend(crop, replacement(crop, spec, side, noise), where.weight)
    return done


def obscured_mask(
    detections: Detections,
    taxonomy: Taxonomy,
    height: int,
    width: int,
    *,
    mask_threshold: float = MASK_THRESHOLD,
) -> Bools:
    """Return the pixels that `obscure` replaces fully, by whatever class; bool, shape (H, W)."""
    union = np.zeros((height, width), bool)
    for index in range(len(detections)):
        spec = class_spec(detections, index, taxonomy)
        if spec.method == "none":
            continue
        where = region(
            detections, index, spec, height=height, width=width, mask_threshold=mask_threshold
        )
        union[where.slices] |= where.weight >= 1
    return union


def class_spec(detections: Detections, index: int, taxonomy: Taxonomy) -> ClassSpec:
    """Return how the class of one find is obscured.

    Raises:
        ShapeError: If the taxonomy has no class of that position.
    """
    position = int(detections.class_ids[index])
    if position >= len(taxonomy.names):
        raise ShapeError(
            f"find {index} has class id {position}; the taxonomy has {len(taxonomy.names)} classes"
        )
    return taxonomy[taxonomy.names[position]]


def _shorter_side(box_xyxy: Floats) -> float:
    return float(min(box_xyxy[2] - box_xyxy[0], box_xyxy[3] - box_xyxy[1]))


def _largest_first(detections: Detections) -> list[int]:
    boxes = detections.boxes_xyxy
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return [int(i) for i in np.argsort(-areas, kind="stable")]


def _blend(crop: Pixels, hidden: Pixels, weight: Floats) -> Pixels:
    """Mix by weight; exactly `hidden` where the weight is 1."""
    full = weight >= 1
    # Ten times as fast as assigning through a bool index.
    mixed: Pixels = cv2.copyTo(hidden, full.astype(np.uint8), crop.copy()).reshape(crop.shape)
    edge = (weight > 0) & ~full
    if edge.any():
        share = weight[edge] if crop.ndim == 2 else weight[edge][:, None]
        mixed[edge] = np.rint(share * hidden[edge] + (1 - share) * crop[edge]).astype(crop.dtype)
    return mixed


def replacement(crop: Pixels, spec: ClassSpec, side: float, noise: np.random.Generator) -> Pixels:
    """Return what replaces a crop, of its shape and type.

    Args:
        crop: uint8 or uint16, shape (h, w) or (h, w, C).
        spec: Method and strength of the class.
        side: Shorter side of the object's box in pixels.
        noise: Where the cells' noise comes from.
    """
    if spec.method == "solid":
        return np.zeros_like(crop)
    strength = max(spec.strength, STRENGTH_MIN)
    if spec.method == "pixelate":
        grid = coarse_grid(crop, cell_px=strength * side, noise=noise)
        return _resized(grid, crop, cv2.INTER_NEAREST).astype(crop.dtype)
    # Linear interpolation spans two cells: a kernel of `strength` times the side.
    return _smooth(coarse_grid(crop, cell_px=strength * side / 2, noise=noise), crop)


def coarse_grid(crop: Pixels, *, cell_px: float, noise: np.random.Generator) -> Floats:
    """Average a crop into cells, add noise and quantize: from here on, detail is gone.

    Args:
        crop: Shape (h, w) or (h, w, C), uint8 or uint16.
        cell_px: Wanted side of a cell; raised to `CELL_MIN_PX`.
        noise: Where the noise comes from.

    Returns:
        float32, shape (rows, columns[, C]), in the crop's range.
    """
    height, width = crop.shape[:2]
    cell = max(cell_px, CELL_MIN_PX)
    columns, rows = max(1, int(width / cell)), max(1, int(height / cell))
    scale = float(np.iinfo(crop.dtype).max)
    means = _averaged(crop, rows, columns)
    means += noise.normal(0, NOISE_SHARE * scale, means.shape).astype(np.float32)
    step = np.float32((scale + 1) * QUANTUM_SHARE)
    return np.asarray(np.clip(np.rint(means / step) * step, 0, scale), np.float32)


def _averaged(crop: Pixels, rows: int, columns: int) -> Floats:
    small = cv2.resize(crop, (columns, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32).reshape((rows, columns, *crop.shape[2:]))


def _resized(grid: Pixels, crop: Pixels, how: int) -> Floats:
    height, width = crop.shape[:2]
    large = cv2.resize(grid, (width, height), interpolation=how)
    return np.asarray(large, np.float32).reshape(crop.shape)


SMOOTHING = 4
"""The grid is enlarged this many times and smoothed there, which hides its cells as a full-size
blur would, at a fraction of its cost."""


def _smooth(grid: Floats, crop: Pixels) -> Pixels:
    """Enlarge a grid without visible cells."""
    rows, columns = grid.shape[:2]
    finer = (
        min(columns * SMOOTHING, max(columns, crop.shape[1])),
        min(rows * SMOOTHING, max(rows, crop.shape[0])),
    )
    middle = cv2.resize(grid, finer, interpolation=cv2.INTER_LINEAR)
    middle = cv2.GaussianBlur(middle, (0, 0), SMOOTHING / 2, borderType=cv2.BORDER_REPLICATE)
    scale = np.iinfo(crop.dtype).max
    return np.rint(np.clip(_resized(middle, crop, cv2.INTER_LINEAR), 0, scale)).astype(crop.dtype)
