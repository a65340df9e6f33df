"""Things that resemble what is looked for and must not be found: signs, lamps, bins, posters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from data.street.background import WORDS
from data.street.canvas import Canvas, Color, ellipse_points, shaded
from data.street.plate import write_text
from data.street.view import Points, View

_STEEL: Color = (112, 116, 120)


@dataclass(frozen=True)
class Lookalike:
    """One thing on the ground point (x, z); `number` and `tint` vary its looks."""

    kind: str
    x: float
    z: float
    number: int
    tint: Color


def draw_lookalike(rng: np.random.Generator, *, x: float, z: float) -> Lookalike:
    """Draw a thing at random for a place."""
    kinds = tuple(_PAINTERS)
    tint = rng.integers(50, 220, 3)
    return Lookalike(
        kinds[int(rng.integers(len(kinds)))],
        x, z, int(rng.integers(10_000)), (float(tint[0]), float(tint[1]), float(tint[2])),
    )  # fmt: skip


def paint_lookalike(canvas: Canvas, view: View, thing: Lookalike) -> None:
    """Draw a thing; it is owned by the background, so it can hide objects but is none."""
    _PAINTERS[thing.kind](_Stand(canvas, view.ground(thing.x, thing.z), view.scale(thing.z)), thing)


@dataclass(frozen=True)
class _Stand:
    """Draws in metres upright on a ground point: x to the right, y up."""

    canvas: Canvas
    foot: tuple[float, float]
    scale: float

    def points(self, local: Points) -> Points:
        moved: Points = local * (self.scale, -self.scale) + np.array(self.foot)
        return moved

    def box(self, x0: float, y0: float, x1: float, y1: float, color: Color) -> None:
        self.canvas.fill(self._corners(x0, y0, x1, y1), color)

    def disc(self, x: float, y: float, radii: tuple[float, float], color: Color) -> None:
        self.canvas.fill(self.points(ellipse_points((x, y), radii)), color)

    def text(self, box: tuple[float, float, float, float], text: str, ground: Color,
             ink: Color) -> None:  # fmt: skip
        width = max(int(120 * (box[2] - box[0])), 16)
        height = max(int(120 * (box[3] - box[1])), 12)
        texture = np.full((height, width, 3), ground, dtype=np.uint8)
        cv2.rectangle(texture, (0, 0), (width - 1, height - 1), ink, 1)
        write_text(texture, text, (5, 4, width - 5, height - 4), ink)
        self.canvas.paste(texture, self._corners(*box))

    def _corners(self, x0: float, y0: float, x1: float, y1: float) -> Points:
        return self.points(np.array([[x0, y1], [x1, y1], [x1, y0], [x0, y0]]))


def _round_sign(stand: _Stand, thing: Lookalike) -> None:
    stand.box(-0.04, 0, 0.04, 2.5, _STEEL)
    stand.disc(0, 2.5, (0.36, 0.36), (190, 34, 38))
    stand.disc(0, 2.5, (0.28, 0.28), (240, 240, 236))
    number = str(30 + 10 * (thing.number % 5))
    stand.text((-0.17, 2.37, 0.17, 2.63), number, (240, 240, 236), (30, 30, 30))


def _warning_sign(stand: _Stand, _thing: Lookalike) -> None:
    stand.box(-0.04, 0, 0.04, 2.2, _STEEL)
    outer = np.array([[0, 2.85], [0.42, 2.15], [-0.42, 2.15]])
    stand.canvas.fill(stand.points(outer), (190, 34, 38))
    stand.canvas.fill(stand.points(outer * 0.6 + (0, 0.95)), (240, 240, 236))


def _direction_sign(stand: _Stand, thing: Lookalike) -> None:
    stand.box(-0.04, 0, 0.04, 2.9, _STEEL)
    ground: Color = (32, 74, 160) if thing.number % 2 else (222, 184, 52)
    ink: Color = (240, 240, 240) if thing.number % 2 else (26, 26, 26)
    stand.text((-0.75, 2.35, 0.75, 2.9), WORDS[thing.number % len(WORDS)], ground, ink)


def _lamp(stand: _Stand, _thing: Lookalike) -> None:
    stand.box(-0.05, 0, 0.05, 3.1, (54, 58, 60))
    stand.disc(0, 3.2, (0.24, 0.24), (232, 222, 188))


def _bin(stand: _Stand, thing: Lookalike) -> None:
    stand.box(-0.28, 0, 0.28, 0.95, shaded(thing.tint, 0.6))
    stand.box(-0.32, 0.95, 0.32, 1.08, shaded(thing.tint, 0.4))


def _bollard(stand: _Stand, _thing: Lookalike) -> None:
    stand.box(-0.09, 0, 0.09, 0.85, (84, 86, 90))
    stand.disc(0, 0.9, (0.13, 0.13), (198, 160, 60))
    stand.box(-0.09, 0.55, 0.09, 0.65, (220, 220, 216))


def _poster(stand: _Stand, thing: Lookalike) -> None:
    stand.box(-0.66, 0.3, 0.66, 2.3, (60, 62, 66))
    stand.box(-0.58, 0.42, 0.58, 2.2, thing.tint)
    stand.disc(0.15, 1.2, (0.32, 0.26), shaded(thing.tint, 1.5))
    stand.text(
        (-0.5, 1.75, 0.5, 2.1), WORDS[thing.number % len(WORDS)], thing.tint, (250, 250, 245)
    )
    stand.box(-0.5, 0.5, 0.4, 0.56, shaded(thing.tint, 0.5))


def _price_board(stand: _Stand, thing: Lookalike) -> None:
    stand.box(-0.05, 0, 0.05, 1.2, _STEEL)
    stand.text((-0.5, 1.2, 0.5, 1.75), f"{thing.number / 100:.2f}", (40, 60, 48), (236, 236, 226))


def _tree(stand: _Stand, thing: Lookalike) -> None:
    stand.box(-0.13, 0, 0.13, 2.6, (86, 66, 50))
    rng = np.random.default_rng(thing.number)
    for _ in range(9):
        x, y = rng.uniform(-0.9, 0.9), rng.uniform(2.6, 4.4)
        green = rng.uniform(0.6, 1.1)
        stand.disc(float(x), float(y), (0.75, 0.6), shaded((66, 112, 58), float(green)))


def _traffic_light(stand: _Stand, thing: Lookalike) -> None:
    stand.box(-0.05, 0, 0.05, 2.4, _STEEL)
    stand.box(-0.17, 2.2, 0.17, 3.15, (38, 40, 44))
    on = thing.number % 3
    for i, color in enumerate(((216, 48, 40), (226, 170, 40), (50, 190, 90))):
        stand.disc(0, 2.98 - 0.3 * i, (0.11, 0.11), shaded(color, 1.0 if on == i else 0.35))


_PAINTERS: dict[str, Callable[[_Stand, Lookalike], None]] = {
    "round_sign": _round_sign,
    "warning_sign": _warning_sign,
    "direction_sign": _direction_sign,
    "lamp": _lamp,
    "bin": _bin,
    "bollard": _bollard,
    "poster": _poster,
    "price_board": _price_board,
    "tree": _tree,
    "traffic_light": _traffic_light,
}
