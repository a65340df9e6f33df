"""Shapes: which pixels of an object are hidden.

Pure code over arrays. Each object's region is worked out inside the crop that it needs, so that
cost and memory grow with the obscured area and not with the picture. A pixel whose centre lies in
a shape belongs to it, and of boxes each that they touch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anonymization.detection.finds import Detections, ShapeError
from anonymization.obscuring.figures import (
    Box,
    Grid,
    box_distance,
    ellipses,
    fade,
    rotated_corners,
    rotated_distance,
    rounded_out,
)
from anonymization.obscuring.masks import distance_from, grown, paste_mask, runs_in, runs_of
from anonymization.obscuring.region import FULL, NOWHERE, Outline, Region
from anonymization.taxonomy import STRENGTH_MIN, ClassSpec, Taxonomy

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

NO_OUTLINES: Mapping[int, Outline] = MappingProxyType({})

CELL_MIN_PX = 4
"""Smallest mosaic cell: below it, plate characters of 8 px would keep more than two samples."""

MASK_THRESHOLD = 0.4
"""Least probability inside an outline where a card says nothing else; see `Card`."""


class Find(NamedTuple):
    """How one find is hidden, in plain numbers: as arrays of four they would take most of the time.

    Lengths are in pixels of the picture.

    Attributes:
        position: Of it among the finds.
        spec: How its class is obscured.
        boxes: Its own box, and the one merged with it; half-open.
        extent: Those, and the box around what a person drew.
        cell: Side of the cells to which it is averaged (`cell_px`).
        margin: How far what is hidden reaches beyond the object.
        feather: How far it fades beyond that.
        grid: A part of the picture that holds all that is touched of it; first column and row are
            not below the last for what lies outside.
        outline: Its exact pixels, where a person drew them.
    """

    position: int
    spec: ClassSpec
    boxes: list[Box]
    extent: list[Box]
    cell: float
    margin: float
    feather: float
    grid: Grid
    outline: Outline | None


def largest_first(
    detections: Detections,
    taxonomy: Taxonomy,
    height: int,
    width: int,
    *,
    outlines: Mapping[int, Outline] = NO_OUTLINES,
) -> list[Find]:
    """Return all finds that are obscured, by the area of their boxes; method `none` is left out.

    Raises:
        ShapeError: If the taxonomy has no class of a find's position.
    """
    specs = list(taxonomy.classes.values())
    classes = detections.class_ids.tolist()
    boxes, merged = detections.boxes_xyxy.tolist(), detections.merged_xyxy.tolist()
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes]
    found = []
    for index in sorted(range(len(areas)), key=areas.__getitem__, reverse=True):
        known = classes[index] < len(specs)
        spec = specs[classes[index]] if known else class_spec(detections, index, taxonomy)
        if spec.method != "none":
            outline = outlines.get(index) if outlines else None
            found.append(_find(index, spec, boxes[index], merged[index], outline, height, width))
    return found


def growths(detections: Detections, taxonomy: Taxonomy) -> Floats:
    """Return how far beyond its boxes each find is hidden at most, in pixels; float32 (N,).

    Raises:
        ShapeError: If the taxonomy has no class of a find's position.
    """
    out = []
    for index, box in enumerate(detections.boxes_xyxy.tolist()):
        spec = class_spec(detections, index, taxonomy)
        growth = (spec.margin + spec.feather) * max(_shorter(box), 0.0)
        growth += box[0] - _drawn_box(box, spec)[0]
        out.append(0.0 if spec.method == "none" else growth)
    return np.array(out, np.float32)


def cell_px(spec: ClassSpec, side: float) -> float:
    """Return the side in pixels of the cells to which an object is averaged.

    Linear interpolation spans two cells, so that a blur kernel of `strength` times the object's
    shorter side has cells of half of that. `solid` and `synthetic` keep nothing: infinite.

    >>> cell_px(ClassSpec("box", "box", strength=1.0), 40.0)
    20.0
    """
    if spec.method in ("solid", "synthetic"):
        return math.inf
    strength = max(spec.strength, STRENGTH_MIN)
    cell = strength * side if spec.method == "pixelate" else strength * side / 2
    return max(cell, CELL_MIN_PX)


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


def region(
    detections: Detections,
    index: int,
    spec: ClassSpec,
    *,
    height: int,
    width: int,
    mask_threshold: float = MASK_THRESHOLD,
    outline: Outline | None = None,
) -> Region:
    """Return where one find is obscured; see `region_of`.

    Args:
        detections: The finds.
        index: Which of them.
        spec: How its class is obscured.
        height: Rows of the picture.
        width: Columns of the picture.
        mask_threshold: Least probability of a pixel of an outline.
        outline: Exact pixels of the object, where they are known.
    """
    box, merged = detections.boxes_xyxy[index].tolist(), detections.merged_xyxy[index].tolist()
    find = _find(index, spec, box, merged, outline, height, width)
    return region_of(find, detections, mask_threshold=mask_threshold)


def region_of(find: Find, detections: Detections, *, mask_threshold: float) -> Region:
    """Return where one find is obscured.

    The object and its margin weigh 1; the feather fades to 0 outside of that. An outline or
    rotated box without a usable mask becomes its whole box. What a person drew is hidden whatever
    the shape is: the region is the shape and the drawn outline together.

    Args:
        find: The find.
        detections: Where it comes from; its mask is asked for where the shape needs it.
        mask_threshold: Least probability of a pixel of an outline.

    Returns:
        The region, cut at the picture's edge; without pixels for a find outside of it.
    """
    shape, grid, margin, feather = find.spec.shape, find.grid, find.margin, find.feather
    x0, y0, x1, y1 = grid
    if x1 <= x0 or y1 <= y0:
        return NOWHERE
    if _is_plain(shape, feather, find.extent):
        return Region(x0, y0, None, shape=(y1 - y0, x1 - x0))
    drawn = None if find.outline is None else find.outline.on(x0, y0, x1, y1)
    if drawn is not None and not drawn.any():
        drawn = None
    if shape == "ellipse":
        weight = ellipses(find.boxes, margin, feather, grid)
        if drawn is not None:
            around = fade(distance_from(drawn) - np.float32(margin), feather)
            np.maximum(weight, around, out=weight)
        return Region(x0, y0, weight == FULL) if feather <= 0 else Region(x0, y0, None, weight)
    whole = grid if drawn is not None else _with_margin_beyond(find)
    if shape == "outline" and feather <= 0 and len(find.boxes) == 1:
        sharp = _sharp_outline(find, detections, mask_threshold, drawn, whole)
        if sharp is not None:
            return sharp
    inside = _inside(find, detections, mask_threshold, drawn, whole)
    if inside is None and _is_plain("box", feather, find.extent):
        return _plain_box(find)
    if inside is not None and not inside.any() and len(find.boxes) == 1:
        return NOWHERE  # the object lies beyond the picture's edge
    turned = shape == "rotated_box" and inside is not None and bool(inside.any())
    corners = rotated_corners(inside, whole, margin) if turned else None
    distances = [_first_distance(find, inside, whole, corners)]
    distances += [box_distance(box, margin, grid) for box in find.boxes[1:]]
    if drawn is not None:
        distances.append(distance_from(drawn) - np.float32(margin))
    weight = fade(distances[0] if len(distances) == 1 else np.minimum.reduce(distances), feather)
    found = Region(x0, y0, weight == FULL, weight if feather > 0 else None, corners)
    return found.trimmed() if shape == "rotated_box" else found


def shorter_side(box_xyxy: Floats) -> float:
    """Return the length of a box's shorter side in pixels."""
    return _shorter(box_xyxy.tolist())


def _shorter(box: Box) -> float:
    return min(box[2] - box[0], box[3] - box[1])


def _is_plain(shape: str, feather: float, extent: list[Box]) -> bool:
    """Tell whether all of a grown box is hidden, and nothing else."""
    return shape == "box" and feather <= 0 and len(extent) == 1


def _find(
    position: int,
    spec: ClassSpec,
    box: Box,
    merged: Box,
    outline: Outline | None,
    height: int,
    width: int,
) -> Find:
    """Return one find in plain numbers; `merged` is not a number where nothing was merged."""
    x0, y0, x1, y1 = box
    # The strength is relative to the largest of all: a large face drawn around a small box would
    # else come out in cells for a small one.
    side = around = max(min(x1 - x0, y1 - y0), 0.0)
    boxes = extent = [box]
    if merged[0] == merged[0]:
        boxes = extent = [box, merged]
    if outline is not None:
        extent = [*boxes, outline.box_xyxy.tolist()]
    for other in extent[1:]:
        side = max(side, _shorter(other))
    if spec.shape == "ellipse":
        boxes = [_drawn_box(each, spec) for each in boxes]
        extent = boxes + extent[len(boxes) :]
    for left, top, right, bottom in extent:
        x0, y0, x1, y1 = min(x0, left), min(y0, top), max(x1, right), max(y1, bottom)
    margin, feather = spec.margin * around, spec.feather * around
    growth = margin + feather
    if not _is_plain(spec.shape, feather, extent):
        growth += 1
        if spec.shape == "rotated_box":
            # It reaches out of the box around it by less than its own longer side.
            growth += max(max(each[2] - each[0], each[3] - each[1]) for each in extent)
    grid = Grid(
        max(math.floor(x0 - growth), 0),
        max(math.floor(y0 - growth), 0),
        min(math.ceil(x1 + growth), width),
        min(math.ceil(y1 + growth), height),
    )
    return Find(position, spec, boxes, extent, cell_px(spec, side), margin, feather, grid, outline)


def _drawn_box(box: Box, spec: ClassSpec) -> Box:
    """Return the box in which a find is drawn: of an ellipse around all but heads, a larger one.

    A head is an ellipse in its box. What a plate or a person shows reaches into the box's corners,
    so there the ellipse goes through them.
    """
    if spec.shape != "ellipse" or spec.geometry == "ellipse":
        return box
    x0, y0, x1, y1 = box
    across, down = ((side / 2) * (math.sqrt(2) - 1) for side in (x1 - x0, y1 - y0))
    return x0 - across, y0 - down, x1 + across, y1 + down


def _with_margin_beyond(find: Find) -> Grid:
    """Return a find's grid, and what beyond the picture's edge has a margin inside of it."""
    grid, reach = find.grid, math.ceil(find.margin + find.feather)
    left, top, right, bottom = find.boxes[0]
    return Grid(
        min(grid.x0, max(math.floor(left), grid.x0 - reach)),
        min(grid.y0, max(math.floor(top), grid.y0 - reach)),
        max(grid.x1, min(math.ceil(right), grid.x1 + reach)),
        max(grid.y1, min(math.ceil(bottom), grid.y1 + reach)),
    )


def _in_grid(values: NDArray[Any], whole: Grid, grid: Grid) -> NDArray[Any]:
    """Return the part of an array over one grid that lies in another inside of it."""
    if whole == grid:
        return values
    rows = slice(grid.y0 - whole.y0, grid.y1 - whole.y0)
    return np.ascontiguousarray(values[rows, grid.x0 - whole.x0 : grid.x1 - whole.x0])


def _sharp_outline(
    find: Find,
    detections: Detections,
    mask_threshold: float,
    drawn: Bools | None,
    whole: Grid,
) -> Region | None:
    """Return where an outline without a faded edge is hidden; None where it is unknown."""
    grid, margin = find.grid, find.margin
    height, width = whole.y1 - whole.y0, whole.x1 - whole.x0
    if drawn is not None:  # it is what is inside
        hidden = grown(runs_in(drawn), margin, height=height, width=width)
        # A plate is drawn along what it replaces.
        turned = find.spec.method == "synthetic"
        corners = rotated_corners(drawn, grid, margin) if turned else None
        return Region(grid.x0, grid.y0, hidden, corners_xy=corners)
    mask = detections.masks[find.position]
    if mask_threshold <= 0 or not np.isfinite(mask).all():
        return None
    runs = runs_of(mask, detections.boxes_xyxy[find.position], whole, mask_threshold)
    if not len(runs.rows):
        return NOWHERE if _lies_beyond(find, mask, mask_threshold) else None
    hidden = grown(runs, margin, height=height, width=width)
    return Region(grid.x0, grid.y0, _in_grid(hidden, whole, grid))


def _lies_beyond(find: Find, mask: Floats, mask_threshold: float) -> bool:
    """Tell whether an object that is not seen in the picture is one beyond its edge.

    Most of its box must be there, too, or its mask is not to be trusted.
    """
    (left, top, right, bottom), grid = find.boxes[0], find.grid
    across = min(right, grid.x1) - max(left, grid.x0)
    down = min(bottom, grid.y1) - max(top, grid.y0)
    if 2 * max(across, 0) * max(down, 0) > (right - left) * (bottom - top):
        return False
    whole = Grid(math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom))
    return bool(len(runs_of(mask, np.array(find.boxes[0]), whole, mask_threshold).rows))


def _inside(
    find: Find,
    detections: Detections,
    mask_threshold: float,
    drawn: Bools | None,
    whole: Grid,
) -> Bools | None:
    """Return the object's own pixels for the shapes that ask for them; None where unknown."""
    if find.spec.shape not in ("outline", "rotated_box"):
        return None
    if drawn is not None:
        return drawn
    mask = detections.masks[find.position]
    if not np.isfinite(mask).all():
        return None
    x0, y0, x1, y1 = whole
    box = detections.boxes_xyxy[find.position]
    probability = paste_mask(mask, box, x0=x0, y0=y0, height=y1 - y0, width=x1 - x0)
    inside = probability >= mask_threshold
    if inside.any() or (mask_threshold > 0 and _lies_beyond(find, mask, mask_threshold)):
        return inside
    return None


def _first_distance(
    find: Find, inside: Bools | None, whole: Grid, corners: Floats | None
) -> Floats:
    """Return how far each pixel lies outside of the grown shape; <= 0 inside, in pixels."""
    if corners is not None:
        return rotated_distance(corners, find.grid)
    if inside is not None:
        return _in_grid(distance_from(inside) - np.float32(find.margin), whole, find.grid)
    return box_distance(find.boxes[0], find.margin, find.grid)


def _plain_box(find: Find) -> Region:
    """Return all of a grown box, whose grid reaches further."""
    grid = find.grid
    x0, y0, x1, y1 = rounded_out(find.boxes[0], find.margin)
    x0, y0, x1, y1 = max(x0, grid.x0), max(y0, grid.y0), min(x1, grid.x1), min(y1, grid.y1)
    return Region(x0, y0, None, shape=(y1 - y0, x1 - x0)) if x0 < x1 and y0 < y1 else NOWHERE
