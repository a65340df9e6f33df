"""Figures on the pixels of a crop: ellipses, boxes and rotated boxes, with a faded edge or without.

A pixel whose centre lies in a figure belongs to it, and of boxes each that they touch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from anonymization.obscuring.region import FULL

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Box = Sequence[float]
"""x0, y0, x1, y1 in picture pixels; plain numbers, as an array of four costs more than all sums."""


class Grid(NamedTuple):
    """Whole pixels of a crop, half-open."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def columns(self) -> Floats:
        """Centres of the columns; float32 (w,)."""
        return np.arange(self.x0, self.x1, dtype=np.float32) + np.float32(0.5)

    @property
    def rows(self) -> Floats:
        """Centres of the rows; float32 (h,)."""
        return np.arange(self.y0, self.y1, dtype=np.float32) + np.float32(0.5)


def box_distance(box: Box, margin: float, grid: Grid) -> Floats:
    """Return the distance of pixel centres to a grown box in whole pixels; float32 (h, w)."""
    x0, y0, x1, y1 = rounded_out(box, margin)
    dx = np.maximum(np.maximum(x0 + 0.5 - grid.columns, grid.columns - (x1 - 0.5)), 0)
    dy = np.maximum(np.maximum(y0 + 0.5 - grid.rows, grid.rows - (y1 - 0.5)), 0)
    return np.asarray(np.hypot(dy[:, None], dx[None, :]), np.float32)


def rounded_out(box: Box, margin: float) -> tuple[int, int, int, int]:
    """Return a grown box in whole pixels: one that it only touches is hidden whole."""
    left, top, right, bottom = box
    return (
        math.floor(left - margin),
        math.floor(top - margin),
        math.ceil(right + margin),
        math.ceil(bottom + margin),
    )


def ellipses(boxes: list[Box], margin: float, feather: float, grid: Grid) -> Bytes:
    """Return the weights of the ellipses in some grown boxes together; uint8 (h, w).

    Drawn larger, blurred over four fifths of the feather, and drawn once more: full inside, and
    nothing behind the feather, on the diagonals too, where a square blurs further.
    """
    weight: Bytes = np.zeros((grid.y1 - grid.y0, grid.x1 - grid.x0), np.uint8)
    if feather > 0:
        for box in boxes:
            _draw_ellipse(weight, box, margin + 0.4 * feather, grid)
        side = 2 * int(0.4 * feather) + 1
        weight = np.asarray(cv2.blur(weight, (side, side), borderType=cv2.BORDER_REPLICATE))
    for box in boxes:
        _draw_ellipse(weight, box, margin, grid)
    return weight


_BITS = 4
"""Of a pixel's fraction, in which OpenCV takes coordinates."""


def _longer(degrees: float) -> float:
    """Return the length of an axis in OpenCV's units for each pixel that the figure must have."""
    return float(2**_BITS / math.cos(math.radians(degrees / 2)))


_LONGER, _SMALL = _longer(5), 15
_LONGER_SMALL = ((3, _longer(90)), (10, _longer(30)), (_SMALL, _longer(18)))
"""OpenCV draws a polygon of 5 degrees a corner; of more where the longer half-axis is below so many
pixels (its ellipse2Poly)."""


def _draw_ellipse(weight: Bytes, box: Box, growth: float, grid: Grid) -> None:
    """Fill the ellipse in a grown box, in place: every pixel of which it cuts the inner half.

    OpenCV draws the polygon inside of the ellipse; the axes are made longer by as much as its
    sides fall short.
    """
    x0, y0, x1, y1 = box
    # Half a pixel for those that it cuts, a sixteenth for rounding.
    across = max((x1 - x0) / 2 + growth, 0.5) + 0.5625
    down = max((y1 - y0) / 2 + growth, 0.5) + 0.5625
    longest = max(across, down)
    longer = _LONGER
    if longest < _SMALL:
        longer = next(unit for below, unit in _LONGER_SMALL if longest < below)
    # OpenCV counts from the centre of the first pixel.
    centre = (
        round(((x0 + x1 - 1) / 2 - grid.x0) * 2**_BITS),
        round(((y0 + y1 - 1) / 2 - grid.y0) * 2**_BITS),
    )
    axes = round(across * longer), round(down * longer)
    cv2.ellipse(weight, centre, axes, 0, 0, 360, FULL, cv2.FILLED, cv2.LINE_8, _BITS)


def rotated_corners(inside: Bools | None, grid: Grid, margin: float) -> Floats | None:
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


def rotated_distance(corners: Floats, grid: Grid) -> Floats:
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


def fade(distance: Floats, feather: float) -> Bytes:
    """Return full weight where the distance is not positive, then a straight line to 0.

    Over the feather; without one, 0 at once. uint8, of the same shape.
    """
    if feather <= 0:
        return (distance <= 0).astype(np.uint8) * np.uint8(FULL)
    # Rounded, and cut at both ends.
    return np.asarray(
        cv2.addWeighted(distance, -FULL / feather, distance, 0, FULL, dtype=cv2.CV_8U), np.uint8
    )
