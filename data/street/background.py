"""The street itself: sky, buildings, pavements, road. Nothing here carries a label."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from data.street.canvas import SUPERSAMPLING, Canvas, Color, shaded
from data.street.plate import write_text
from data.street.view import Points, View

WORDS = ("BAKERY", "CAFE", "HOTEL", "BOOKS", "SHOES", "PIZZA", "BANK", "FLOWERS", "24H", "TAXI")
_WALLS: tuple[Color, ...] = (
    (188, 164, 136), (158, 116, 98), (176, 176, 172), (204, 190, 158), (136, 144, 152),
    (170, 134, 112), (210, 204, 196), (120, 108, 104),
)  # fmt: skip
_NEAR_M = 0.7


@dataclass(frozen=True)
class Building:
    """A front along the street from z0 to z1 on one side, or across its end."""

    side: float
    z0: float
    z1: float
    height_m: float
    wall: Color
    lit: tuple[bool, ...]
    sign: str | None


@dataclass(frozen=True)
class Street:
    """What does not move: two rows of buildings, colours, half widths of road and street."""

    buildings: tuple[Building, ...]
    sky: Color
    asphalt: Color
    pavement: Color
    road_m: float
    wall_m: float
    crossing_z: float
    texture_seed: int


def draw_street(rng: np.random.Generator, *, far_m: float) -> Street:
    """Draw a street at random."""
    buildings: list[Building] = []
    for side in (-1.0, 1.0):
        z = -6.0
        while z < far_m + 30:
            length = float(rng.uniform(6, 14))
            wall = np.array(_WALLS[int(rng.integers(len(_WALLS)))]) + rng.normal(0, 8, 3)
            buildings.append(Building(
                side, z, z + length, float(rng.uniform(7, 17)), (wall[0], wall[1], wall[2]),
                tuple(bool(b) for b in rng.random(16) < 0.25),
                WORDS[int(rng.integers(len(WORDS)))] if rng.random() < 0.6 else None,
            ))  # fmt: skip
            z += length + (float(rng.uniform(1, 4)) if rng.random() < 0.3 else 0.0)
    gray = float(rng.uniform(78, 122))
    return Street(
        buildings=tuple(buildings),
        sky=((150, 190, 228), (186, 194, 204), (206, 214, 222))[int(rng.integers(3))],
        asphalt=(gray, gray, gray * 1.04),
        pavement=(gray + 56, gray + 52, gray + 46),
        road_m=float(rng.uniform(3.6, 5.0)),
        wall_m=float(rng.uniform(6.4, 8.5)),
        crossing_z=float(rng.uniform(5, 30)),
        texture_seed=int(rng.integers(2**31)),
    )


def paint_background(canvas: Canvas, view: View, street: Street) -> None:
    """Draw the empty street over the whole canvas."""
    _paint_sky(canvas, street)
    _paint_end(canvas, view, street)
    for building in sorted(street.buildings, key=lambda b: -b.z0):
        if building.z1 - view.z_m > _NEAR_M + 0.5:
            _paint_building(canvas, view, street, building)
    _paint_ground(canvas, view, street)
    _roughen(canvas, street)


def _paint_sky(canvas: Canvas, street: Street) -> None:
    rows = canvas.pixels.shape[0]
    fade = np.linspace(0.82, 1.12, rows, dtype=np.float32)[:, None, None]
    canvas.pixels[:] = np.clip(fade * np.array(street.sky, dtype=np.float32), 0, 255)


def _paint_end(canvas: Canvas, view: View, street: Street) -> None:
    z = view.z_m + 90
    corners = np.array([[-30, 12, z], [30, 12, z], [30, 0, z], [-30, 0, z]], dtype=float)
    canvas.fill(view.project(corners), shaded(street.sky, 0.72))


def _wall(view: View, street: Street, building: Building, z: tuple[float, float],
          y: tuple[float, float]) -> Points:  # fmt: skip
    x = building.side * street.wall_m
    near = max(z[0], view.z_m + _NEAR_M)
    corners = [[x, y[1], near], [x, y[1], z[1]], [x, y[0], z[1]], [x, y[0], near]]
    return view.project(np.array(corners))


def _paint_building(canvas: Canvas, view: View, street: Street, building: Building) -> None:
    span = (building.z0, building.z1)
    gain = 0.86 if building.side > 0 else 1.0
    canvas.fill(_wall(view, street, building, span, (0, building.height_m)),
                shaded(building.wall, gain))  # fmt: skip
    canvas.fill(_wall(view, street, building, span, (0, 0.5)), shaded(building.wall, 0.65))
    canvas.fill(_wall(view, street, building, span, (3.2, 3.45)), shaded(building.wall, 0.75))
    if building.z0 - view.z_m < 45:
        _paint_windows(canvas, view, street, building)
    if building.sign is not None and view.z_m + 1.5 < building.z0 < view.z_m + 25:
        _paint_shop_sign(canvas, view, street, building)


def _paint_windows(canvas: Canvas, view: View, street: Street, building: Building) -> None:
    count = int((building.z1 - building.z0) / 2.6)
    step = (building.z1 - building.z0) / count
    for floor in range(min(int(building.height_m / 3.2), 4)):
        for i in range(count):
            z0 = building.z0 + (i + 0.25) * step
            z1 = z0 + 0.5 * step
            if z1 - view.z_m < _NEAR_M + 0.1:
                continue
            low = 3.2 * floor + (0.9 if floor else 0.4)
            lit = building.lit[(floor * 5 + i) % len(building.lit)]
            color: Color = (206, 184, 120) if lit else (72, 84, 98)
            frame = _wall(view, street, building, (z0 - 0.1, z1 + 0.1), (low - 0.1, low + 1.8))
            canvas.fill(frame, shaded(building.wall, 1.2))
            canvas.fill(_wall(view, street, building, (z0, z1), (low, low + 1.7)), color)


def _paint_shop_sign(canvas: Canvas, view: View, street: Street, building: Building) -> None:
    texture = np.full((36, 160, 3), shaded(building.wall, 0.35), dtype=np.uint8)
    write_text(texture, building.sign or "", (8, 6, 152, 30), (238, 226, 190))
    span = (building.z0 + 0.8, building.z0 + 4.6)
    corners = _wall(view, street, building, span, (2.45, 3.15))
    if building.side > 0:
        corners = corners[[1, 0, 3, 2]]
    canvas.paste(texture, corners)


def _strip(view: View, x: tuple[float, float], z: tuple[float, float]) -> Points:
    near, far = max(z[0], view.z_m + _NEAR_M), z[1]
    corners = [[x[0], 0, far], [x[1], 0, far], [x[1], 0, near], [x[0], 0, near]]
    return view.project(np.array(corners))


def _paint_ground(canvas: Canvas, view: View, street: Street) -> None:
    far = view.z_m + 90
    road, wall = street.road_m, street.wall_m
    canvas.fill(_strip(view, (-60, 60), (view.z_m, far)), shaded(street.pavement, 0.9))
    canvas.fill(_strip(view, (-wall, wall), (view.z_m, far)), street.pavement)
    curb = road + 0.2
    canvas.fill(_strip(view, (-curb, curb), (view.z_m, far)), shaded(street.pavement, 1.2))
    canvas.fill(_strip(view, (-road, road), (view.z_m, far)), street.asphalt)
    white: Color = (208, 208, 202)
    first = int(view.z_m // 6)
    for i in range(first, first + 10):
        if 6 * i + 3 > view.z_m + _NEAR_M:
            canvas.fill(_strip(view, (-0.08, 0.08), (6 * i, 6 * i + 3)), white)
    crossing = street.crossing_z
    if crossing > view.z_m + _NEAR_M:
        for x in np.arange(-road + 0.3, road - 0.5, 1.0):
            canvas.fill(_strip(view, (float(x), float(x) + 0.5), (crossing, crossing + 3)), white)


def _roughen(canvas: Canvas, street: Street) -> None:
    texture = gain_texture(street.texture_seed, canvas.pixels.shape[:2], strength=0.05)
    gain = cv2.merge([texture, texture, texture])
    canvas.pixels[:] = cv2.multiply(canvas.pixels, gain, dtype=cv2.CV_8U)


def gain_texture(seed: int, shape: tuple[int, ...], *, strength: float) -> NDArray[np.float32]:
    """Return smooth random gains around 1 of two grain sizes, float32, shape (H, W)."""
    rng = np.random.default_rng(seed)
    height, width = shape[0], shape[1]
    total = np.ones((height, width), dtype=np.float32)
    for cell, share in ((3 * SUPERSAMPLING, 0.6), (24 * SUPERSAMPLING, 1.0)):
        small = rng.standard_normal((height // cell + 2, width // cell + 2), dtype=np.float32)
        total += strength * share * cv2.resize(small, (width, height))
    return total
