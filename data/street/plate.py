"""Licence plates: formats of several countries, with text, as flat textures."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from data.street.canvas import Color, Pixels

_LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"
_DIGITS = "0123456789"


@dataclass(frozen=True)
class PlateFormat:
    """How plates of one kind look.

    Attributes:
        width_m, height_m: Size; larger than life, so that plates of legible size fit pictures
            of a few hundred pixels.
        pattern: `A` stands for a letter, `0` for a digit, `/` for a new line.
        ground: Colour of the background.
        ink: Colour of the text.
        strip: Whether the blue strip of the European Union stands at the left.
    """

    width_m: float
    height_m: float
    pattern: str
    ground: Color
    ink: Color
    strip: bool = False


_WHITE: Color = (236, 238, 236)
_YELLOW: Color = (240, 198, 60)
_INK: Color = (22, 22, 28)

CAR_FORMATS = (
    PlateFormat(0.82, 0.21, "AA AA 000", _WHITE, _INK, strip=True),
    PlateFormat(0.82, 0.21, "AA-000-AA", _WHITE, _INK, strip=True),
    PlateFormat(0.82, 0.21, "AA00 AAA", _YELLOW, _INK, strip=True),
    PlateFormat(0.80, 0.21, "00-AAA-0", _YELLOW, _INK),
    PlateFormat(0.62, 0.30, "AAA/0000", _WHITE, (30, 50, 130)),
    PlateFormat(0.60, 0.30, "000/AAA", _WHITE, (150, 30, 40)),
    PlateFormat(0.76, 0.22, "0000 AAA", _WHITE, _INK),
)
MOTORCYCLE_FORMATS = (
    PlateFormat(0.36, 0.30, "AA/000", _WHITE, _INK),
    PlateFormat(0.36, 0.30, "000/AA", _YELLOW, _INK),
)


@dataclass(frozen=True)
class Plate:
    """One plate: its format and its text, lines parted by `/`."""

    format: PlateFormat
    text: str


def draw_plate(rng: np.random.Generator, *, motorcycle: bool = False) -> Plate:
    """Draw a plate at random."""
    formats = MOTORCYCLE_FORMATS if motorcycle else CAR_FORMATS
    chosen = formats[int(rng.integers(len(formats)))]
    return Plate(chosen, "".join(_letter(rng, c) for c in chosen.pattern))


def _letter(rng: np.random.Generator, symbol: str) -> str:
    alphabet = {"A": _LETTERS, "0": _DIGITS}.get(symbol)
    return symbol if alphabet is None else alphabet[int(rng.integers(len(alphabet)))]


def plate_texture(plate: Plate) -> Pixels:
    """Render a plate as uint8 RGB, 240 pixels to the metre; a dark rim runs around it."""
    style = plate.format
    height, width = round(style.height_m * 240), round(style.width_m * 240)
    picture = np.full((height, width, 3), style.ground, dtype=np.uint8)
    left = 3
    if style.strip:
        left = round(0.09 * width)
        picture[:, :left] = (28, 62, 160)
        cv2.circle(picture, (left // 2, height // 3), left // 4, (235, 205, 60), 1)
    lines = plate.text.split("/")
    rows = height / len(lines)
    for i, line in enumerate(lines):
        box = (left + 4, round(i * rows) + 4, width - 6, round((i + 1) * rows) - 4)
        write_text(picture, line, box, style.ink)
    cv2.rectangle(picture, (0, 0), (width - 1, height - 1), (40, 40, 46), 2)
    return picture


def write_text(picture: Pixels, text: str, box: tuple[int, int, int, int], ink: Color) -> None:
    """Write a line of text so that it fills a box x0, y0, x1, y1; OpenCV's own font."""
    x0, y0, x1, y1 = box
    if x1 - x0 < 4 or y1 - y0 < 4 or not text:
        return
    font, scale, thickness = cv2.FONT_HERSHEY_SIMPLEX, 1.0, 3
    (width, height), base = cv2.getTextSize(text, font, scale, thickness)
    mask = np.zeros((height + base + 4, width + 4), dtype=np.uint8)
    cv2.putText(mask, text, (2, height + 2), font, scale, 255, thickness, cv2.LINE_AA)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    fitted = cv2.resize(cut, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    weight = fitted[..., None].astype(np.float32) / 255
    under = picture[y0:y1, x0:x1].astype(np.float32)
    blended = under * (1 - weight) + np.asarray(ink, dtype=np.float32) * weight
    picture[y0:y1, x0:x1] = blended.astype(np.uint8)
