"""Synthetic replacements: a drawn license plate that takes nothing from the picture.

The plate's colour, characters and layout come from random numbers and from the size of the
region alone; no function here is ever given a pixel of the source.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rgb = NDArray[np.uint8]

LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"
DIGITS = "0123456789"
GROUNDS_RGB = ((236, 236, 232), (240, 205, 60))
INK_RGB = (24, 24, 30)
FONT = cv2.FONT_HERSHEY_DUPLEX
TWO_LINES_BELOW = 2.2
"""Plates narrower than this many heights carry their text in two lines."""

TEXT_MIN_PX = 9
"""Lower plates get no characters: they would be smears."""


def draw_plate(height: int, width: int, random: np.random.Generator) -> Rgb:
    """Draw a plate that fills a rectangle.

    Args:
        height: Rows.
        width: Columns.
        random: Where the characters and the ground's colour come from.

    Returns:
        uint8, shape (height, width, 3), RGB.
    """
    plate = np.empty((height, width, 3), np.uint8)
    plate[:] = GROUNDS_RGB[int(random.integers(len(GROUNDS_RGB)))]
    border = max(1, round(height * 0.04))
    if min(height, width) > 4 * border:
        cv2.rectangle(plate, (0, 0), (width - 1, height - 1), INK_RGB, border)
    if height < TEXT_MIN_PX:
        return plate
    parts = _characters(random)
    lines = parts if width < TWO_LINES_BELOW * height else ["".join(parts)]
    band = (height - 2 * border) / len(lines)
    for number, line in enumerate(lines):
        _write(plate, line, top=border + number * band, band=band, margin=2 * border)
    return plate


def _characters(random: np.random.Generator) -> list[str]:
    letters = "".join(random.choice(list(LETTERS), 3))
    digits = "".join(random.choice(list(DIGITS), 4))
    return [letters, digits]


def _write(plate: Rgb, line: str, *, top: float, band: float, margin: float) -> None:
    """Write one line of text, as large as the band and the plate's width allow."""
    (text_width, text_height), _ = cv2.getTextSize(line, FONT, 1.0, 1)
    room = max(plate.shape[1] - 4 * margin, 1.0)
    scale = min(0.68 * band / text_height, room / text_width)
    thickness = max(1, round(scale * text_height * 0.12))
    x = (plate.shape[1] - text_width * scale) / 2
    y = top + (band + text_height * scale) / 2
    cv2.putText(plate, line, (round(x), round(y)), FONT, scale, INK_RGB, thickness, cv2.LINE_AA)


def plate_for(
    height: int, width: int, random: np.random.Generator, *, corners_xy: Floats | None = None
) -> Rgb:
    """Draw a plate for a region, turned as a rotated box is.

    Args:
        height: Rows of the region.
        width: Columns of the region.
        random: Where the plate comes from.
        corners_xy: Corners of the rotated box in the region's pixels, float32 (4, 2); None for
            an upright plate.

    Returns:
        uint8, shape (height, width, 3), RGB, filled to its edges.
    """
    if corners_xy is None:
        return draw_plate(height, width, random)
    ordered = _upright_first(corners_xy)
    across = max(2, round(float(np.hypot(*(ordered[1] - ordered[0])))))
    down = max(2, round(float(np.hypot(*(ordered[3] - ordered[0])))))
    flat = draw_plate(down, across, random)
    target = ordered[:3].astype(np.float32)
    source = np.array([[0, 0], [across, 0], [across, down]], np.float32)
    turned: Any = cv2.warpAffine(
        flat,
        cv2.getAffineTransform(source, target),
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(turned, np.uint8)


def _upright_first(corners: Floats) -> Floats:
    """Order corners so that text runs along the longer side, from left to right."""
    sides = [float(np.hypot(*(corners[(i + 1) % 4] - corners[i]))) for i in range(4)]
    start = 0 if sides[0] >= sides[1] else 1
    ordered = np.roll(corners, -start, axis=0)
    if ordered[1, 0] < ordered[0, 0]:
        ordered = np.roll(ordered, -2, axis=0)
    return np.asarray(ordered, np.float32)
