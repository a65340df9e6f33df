"""Drawing: polygons, rotated boxes and run-length masks of known regions as pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anonymization.obscuring.region import Outline

Bools = NDArray[np.bool_]

COORDINATE_MAX = 1e6
_HAIR = 1e-3


def numbers(values: Any, count: int, what: str) -> list[float]:
    """Return so many finite numbers.

    Raises:
        ValueError: If the value is anything else.
    """
    if not isinstance(values, list | tuple) or len(values) != count:
        raise ValueError(f"{what} is {values!r}; expected {count} numbers")
    for value in values:
        good = isinstance(value, int | float) and not isinstance(value, bool)
        if not good or not math.isfinite(value) or abs(value) > COORDINATE_MAX:
            raise ValueError(f"{what} holds {value!r}; expected a finite number")
    return [float(value) for value in values]


def drawn_outline(
    value: Mapping[str, Any], width: int, height: int, *, wraps: bool = False
) -> Outline | None:
    """Return the union of everything drawn for one find; None where nothing is.

    Args:
        value: A find of a document.
        width: Columns of the picture.
        height: Rows of the picture.
        wraps: Whether the picture is a panorama: polygons are kept a picture's width beyond both
            of its sides.

    Raises:
        ValueError: If something drawn cannot be understood or lies outside of the picture.
    """
    rings = rings_of(value)
    columns = (-width, 2 * width) if wraps else (0, width)
    masks = [drawn for ring in rings if (drawn := _fill(ring, *columns, height)) is not None]
    if value.get("rle") is not None:
        full = rle_to_mask(value["rle"], width, height)
        if full.any():
            masks.append(Outline(0, 0, full).trimmed())  # or a find would hold a whole picture
    if not masks:
        if rings or value.get("rle") is not None:
            raise ValueError("what is drawn lies outside of the picture")
        return None
    return _union(masks)


def rings_of(value: Mapping[str, Any]) -> list[NDArray[np.float64]]:
    """Return the corners of the polygons and of the rotated box of a find; float64 (N, 2) each.

    Raises:
        ValueError: If one of them cannot be understood.
    """
    rings = []
    for ring in value.get("polygons") or ():
        if not isinstance(ring, list) or len(ring) < 3:
            raise ValueError(f"polygon {ring!r} has fewer than 3 corners")
        rings.append(np.array([numbers(corner, 2, "corner") for corner in ring]))
    if value.get("rotated_box") is not None:
        rings.append(_rotated_corners(value["rotated_box"]))
    return rings


def _rotated_corners(value: Any) -> NDArray[np.float64]:
    if not isinstance(value, Mapping) or set(value) != {"center", "size", "angle"}:
        raise ValueError(f"rotated_box is {value!r}; expected center, size and angle")
    centre, size = (numbers(value[key], 2, key) for key in ("center", "size"))
    (angle,) = numbers([value["angle"]], 1, "angle")
    if min(size) <= 0:
        raise ValueError(f"rotated_box has size {size}; expected two positive numbers")
    return np.asarray(cv2.boxPoints((centre, size, angle)), np.float64)


def _fill(ring: NDArray[np.float64], left: int, right: int, height: int) -> Outline | None:
    """Fill a polygon, its edge's pixels included; None where none lies within these columns.

    What it goes around at all is inside, however often: the middle of a star, and a ring drawn
    twice.
    """
    low, high = np.floor(ring.min(axis=0)) - 1, np.ceil(ring.max(axis=0)) + 2
    x0, y0 = (int(v) for v in np.clip(low, (left, 0), (right, height)))
    x1, y1 = (int(v) for v in np.clip(high, (left, 0), (right, height)))
    if x1 <= x0 or y1 <= y0:
        return None
    canvas = goes_around(ring - (x0, y0), y1 - y0, x1 - x0).view(np.uint8)
    # Its edge. OpenCV's whole numbers are pixel centres; 4 bits hold the fraction.
    points = np.rint((ring - (x0, y0) - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(canvas, [points], 1, shift=4)
    return Outline(x0, y0, canvas.view(np.bool_)) if canvas.any() else None


def goes_around(ring: NDArray[np.float64], height: int, width: int, *, odd: bool = False) -> Bools:
    """Return the pixels around whose centre a ring goes; bool (height, width).

    Args:
        ring: Corners x, y, float64 (N, 2), pixels.
        height: Rows.
        width: Columns.
        odd: Only where it does so an odd number of times.
    """
    turns = np.zeros((height, width + 1), np.int16)  # of a whole panorama it is a large array
    for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        ends = np.clip(np.ceil(np.sort([y0, y1]) - 0.5), 0, height).astype(int)
        rows = np.arange(*ends)
        if not rows.size:
            continue
        across = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
        # Counted from the first centre to the right of the edge.
        turns[rows, np.clip(np.ceil(across - 0.5), 0, width).astype(int)] += 1 if y1 > y0 else -1
    np.cumsum(turns, axis=1, dtype=turns.dtype, out=turns)
    around = turns[:, :width]
    return np.asarray((around & 1 if odd else around) != 0)


def lies_within(ring: NDArray[np.float64], height: int, width: int) -> Bools:
    """Return the pixels all of which a ring holds, by their corners; bool (height, width).

    What it goes around twice it does not hold.
    """
    sides = (_HAIR, 1 - _HAIR)  # on the edge is within
    inside = np.ones((height, width), np.bool_)
    for x in sides:
        for y in sides:
            inside &= goes_around(ring + np.array([0.5 - x, 0.5 - y]), height, width, odd=True)
    return inside


def _union(masks: Sequence[Outline]) -> Outline:
    if len(masks) == 1:
        return masks[0]
    boxes = np.stack([mask.box_xyxy for mask in masks]).astype(int)
    x0, y0 = (int(v) for v in boxes[:, :2].min(axis=0))
    x1, y1 = (int(v) for v in boxes[:, 2:].max(axis=0))
    return Outline(x0, y0, np.logical_or.reduce([mask.on(x0, y0, x1, y1) for mask in masks]))


def rle_to_mask(value: Any, width: int, height: int) -> Bools:
    """Decode a COCO run-length mask: `counts` as numbers or as COCO's text, column by column.

    Returns:
        bool, shape (height, width).

    Raises:
        ValueError: If the size is not the picture's, or the runs do not fill it.
    """
    if not isinstance(value, Mapping) or set(value) != {"size", "counts"}:
        raise ValueError(f"rle is {value!r}; expected size and counts")
    if list(value["size"]) != [height, width]:
        raise ValueError(f"rle has size {value['size']}; expected [{height}, {width}]")
    counts = value["counts"]
    runs = _text_to_runs(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
        raise ValueError("rle holds counts that are not whole numbers of 0 or more")
    if sum(runs) != width * height:
        raise ValueError(f"rle fills {sum(runs)} pixels; expected {width * height}")
    bits = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(bits.reshape(width, height).T)


def _text_to_runs(text: str) -> list[int]:
    """Decode COCO's text form: groups of 5 bits, and differences to two runs before."""
    runs: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 40:
            raise ValueError("rle holds text that is not COCO's")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value |= -1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value, shift = 0, 0
    return runs
