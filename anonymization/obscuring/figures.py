"""Figures on the pixels of a crop: ellipses, boxes and rotated boxes, with a faded edge or without.

A pixel whose centre lies in a figure belongs to it, and of boxes each that they touch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Box = list[float]
"""x0, y0, x1, y1 in picture pixels; plain numbers, as an array of four costs more than all sums."""

FULL = 255
"""Weight of a pixel that is replaced."""


@dataclass(frozen=True)
class Grid:
    """Whole pixels of a crop, half-open."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def corner(self) -> tuple[int, int]:
        """First column and row."""
        return self.x0, self.y0

    @property
    def end(self) -> tuple[int, int]:
        """Column and row behind the last."""
        return self.x1, self.y1

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


def _draw_ellipse(weight: Bytes, box: Box, growth: float, grid: Grid) -> None:
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
