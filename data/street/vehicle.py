"""Vehicles: boxes in the street's three dimensions, with windows, lights, plates and occupants."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.street.canvas import Canvas, Color, ellipse_points, shaded
from data.street.person import (
    PersonLook,
    draw_person_look,
    paint_occupant,
    paint_person,
)
from data.street.plate import Plate, draw_plate, plate_texture
from data.street.view import Points, View

PAINTS: tuple[Color, ...] = (
    (198, 40, 40), (36, 74, 150), (222, 222, 220), (52, 54, 60), (142, 146, 152), (30, 96, 70),
    (232, 178, 44), (120, 36, 56), (96, 140, 176), (176, 160, 132),
)  # fmt: skip
GLASS: Color = (44, 58, 72)
_TYRE: Color = (26, 26, 28)
_NEAREST_M = 1.0
"""A vehicle with a corner nearer than this is left out: its faces would wrap around the camera."""


@dataclass(frozen=True)
class Block:
    """A box of a vehicle whose top may be smaller than its foot, in the vehicle's own metres.

    Attributes:
        half: Half widths at foot and top.
        foot: z of the rear and of the front edge at the foot.
        top: z of the rear and of the front edge at the top.
        levels: y of foot and top.
        kind: `body`, `cabin` (all around glazed), `cargo`, `bus` or `cab`.
    """

    half: tuple[float, float]
    foot: tuple[float, float]
    top: tuple[float, float]
    levels: tuple[float, float]
    kind: str

    def panel(self, side: str) -> Points:
        """Return the corners of one side, shape (4, 3), clockwise from top left seen outside."""
        (h0, h1), (r0, f0), (r1, f1), (y0, y1) = self.half, self.foot, self.top, self.levels
        corners = {
            "front": [(h1, y1, f1), (-h1, y1, f1), (-h0, y0, f0), (h0, y0, f0)],
            "rear": [(-h1, y1, r1), (h1, y1, r1), (h0, y0, r0), (-h0, y0, r0)],
            "right": [(h1, y1, r1), (h1, y1, f1), (h0, y0, f0), (h0, y0, r0)],
            "left": [(-h1, y1, f1), (-h1, y1, r1), (-h0, y0, r0), (-h0, y0, f0)],
            "roof": [(-h1, y1, f1), (h1, y1, f1), (h1, y1, r1), (-h1, y1, r1)],
        }
        return np.array(corners[side])


def _car(half: float, length: float, height: float) -> tuple[Block, ...]:
    e, belt = length / 2, 0.62 * height
    return (
        Block((half, half * 0.97), (-e, e), (-e * 0.98, e * 0.96), (0.24, belt), "body"),
        Block((half * 0.94, half * 0.76), (-e * 0.86, e * 0.42), (-e * 0.6, e * 0.14),
              (belt, height), "cabin"),
    )  # fmt: skip


_BLOCKS: dict[str, tuple[Block, ...]] = {
    "car": _car(0.9, 4.2, 1.48),
    "small_car": _car(0.84, 3.5, 1.52),
    "suv": _car(0.97, 4.5, 1.74),
    "van": (
        Block((0.98, 0.97), (-2.4, 2.4), (-2.4, 2.3), (0.26, 1.12), "body"),
        Block((0.97, 0.86), (-2.38, 1.75), (-2.3, 1.2), (1.12, 2.1), "cabin"),
    ),
    "bus": (Block((1.2, 1.16), (-4.2, 4.2), (-4.2, 4.1), (0.3, 2.95), "bus"),),
    "truck": (
        Block((1.15, 1.15), (-3.6, 0.9), (-3.6, 0.9), (0.5, 3.0), "cargo"),
        Block((1.1, 1.04), (1.05, 2.9), (1.05, 2.7), (0.35, 2.5), "cab"),
    ),
}
KINDS = ("car", "small_car", "suv", "car", "small_car", "suv", "van", "bus", "truck")
HALF_WIDTH_M = {"motorcycle": 0.42, **{k: b[0].half[0] for k, b in _BLOCKS.items()}}
HALF_LENGTH_M = {"motorcycle": 1.0, **{k: -b[0].foot[0] for k, b in _BLOCKS.items()}}
_OCCUPANTS_M: dict[str, tuple[float, float, tuple[float, ...]]] = {
    # height of the heads' middle and their z ahead of the vehicle's middle, then their x
    "car": (1.16, 0.6, (-0.36, 0.36)),
    "small_car": (1.19, 0.5, (-0.33, 0.33)),
    "suv": (1.34, 0.6, (-0.38, 0.38)),
    "van": (1.6, 1.5, (-0.42, 0.42)),
    "bus": (1.75, 4.15, (-0.6,)),
    "truck": (1.85, 2.75, (-0.45, 0.45)),
}


@dataclass(frozen=True)
class VehicleLook:
    """What a vehicle looks like; `occupants` are its driver's and passenger's places or None."""

    kind: str
    paint: Color
    plate: Plate
    occupants: tuple[PersonLook | None, ...]


def draw_kind(rng: np.random.Generator, *, motorcycle_share: float) -> str:
    """Draw what kind of vehicle comes next."""
    if rng.random() < motorcycle_share:
        return "motorcycle"
    return KINDS[int(rng.integers(len(KINDS)))]


def draw_vehicle_look(
    rng: np.random.Generator, *, kind: str, occupied_share: float, hidden_share: float
) -> VehicleLook:
    """Draw a vehicle's look at random."""
    base = np.array(PAINTS[int(rng.integers(len(PAINTS)))]) + rng.normal(0, 8, 3)
    paint = (float(base[0]), float(base[1]), float(base[2]))
    seats = len(_OCCUPANTS_M[kind][2]) if kind in _OCCUPANTS_M else 1
    looks: list[PersonLook | None] = []
    for seat in range(seats):
        look = draw_person_look(rng, hidden_share=hidden_share)
        taken = rng.random() < occupied_share * (0.5 if seat else 1.0)
        looks.append(look if taken else None)
    plate = draw_plate(rng, motorcycle=kind == "motorcycle")
    return VehicleLook(kind, paint, plate, tuple(looks))


@dataclass(frozen=True)
class Stance:
    """Where a vehicle stands: ground point (x, z) of its middle, and its turn in radians.

    A turn of 0 shows the camera its rear, pi its front.
    """

    x: float
    z: float
    turn: float

    def to_street(self, points: Points) -> Points:
        """Turn and move the vehicle's own points, shape (N, 3), into the street."""
        c, s = np.cos(self.turn), np.sin(self.turn)
        x = self.x + points[:, 0] * c + points[:, 2] * s
        z = self.z - points[:, 0] * s + points[:, 2] * c
        return np.stack([x, points[:, 1], z], axis=1)

    @property
    def shows_front(self) -> bool:
        """Whether the camera sees its front rather than its rear."""
        return bool(np.cos(self.turn) < 0)


def _nearest_m(kind: str, stance: Stance) -> float:
    reach = HALF_LENGTH_M[kind] * abs(np.cos(stance.turn))
    return float(stance.z - reach - HALF_WIDTH_M[kind] * abs(np.sin(stance.turn)))


def is_ahead(kind: str, stance: Stance, view: View) -> bool:
    """Return whether the whole vehicle is in front of the camera, so that it can be drawn."""
    return bool(_nearest_m(kind, stance) - view.z_m > _NEAREST_M)


@dataclass(frozen=True)
class Panel:
    """One visible side of a block: `corners` in the street, clockwise from top left."""

    corners: Points
    view: View

    def pixels(self, shape: Points) -> Points:
        """Map points (u, v) of the unit square, shape (N, 2), to pixels; v runs downwards."""
        u, v = shape[:, :1], shape[:, 1:]
        a, b, c, d = self.corners
        return self.view.project((1 - v) * ((1 - u) * a + u * b) + v * ((1 - u) * d + u * c))

    def box(self, u0: float, v0: float, u1: float, v1: float) -> Points:
        """Return a rectangle of the unit square in pixels, shape (4, 2)."""
        return self.pixels(np.array([[u0, v0], [u1, v0], [u1, v1], [u0, v1]]))

    @property
    def is_seen(self) -> bool:
        """Whether its outside faces the camera."""
        x, y = self.view.project(self.corners).T
        return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) > 0


def paint_vehicle(canvas: Canvas, view: View, look: VehicleLook, stance: Stance) -> int:
    """Draw a vehicle with plate and occupants; return its owner number."""
    if look.kind == "motorcycle":
        return _paint_motorcycle(canvas, view, look, stance)
    vehicle = canvas.begin("vehicle", kind=look.kind, view=_vehicle_view(stance))
    blocks = _BLOCKS[look.kind]
    _paint_wheels(canvas, view, look, stance, vehicle)
    if look.kind == "truck" and not stance.shows_front:
        blocks = blocks[::-1]
    for block in blocks:
        _paint_block(canvas, view, look, stance, block, vehicle)
    return vehicle


def _vehicle_view(stance: Stance) -> str:
    if abs(np.sin(stance.turn)) > 0.7:
        return "side"
    return "front" if stance.shows_front else "rear"


def _paint_wheels(
    canvas: Canvas, view: View, look: VehicleLook, stance: Stance, vehicle: int
) -> None:
    """Draw the tyres as seen from the end, and the dark underside between them."""
    half, end = HALF_WIDTH_M[look.kind] * 0.95, HALF_LENGTH_M[look.kind] * 0.9
    far_end = end if np.cos(stance.turn) > 0 else -end
    for z in (far_end, -far_end):
        for x0, x1, y0 in ((-half, half, 0.16), (-half, -half + 0.24, 0), (half - 0.24, half, 0)):
            corners = np.array([[x0, 0.5, z], [x1, 0.5, z], [x1, y0, z], [x0, y0, z]])
            canvas.fill(view.project(stance.to_street(corners)), _TYRE, vehicle)


def _paint_block(
    canvas: Canvas, view: View, look: VehicleLook, stance: Stance, block: Block, vehicle: int
) -> None:
    gains = {"roof": 1.12, "front": 1.0, "rear": 1.0, "right": 0.78, "left": 0.84}
    paint = (206, 206, 200) if block.kind == "cargo" else look.paint
    for side, gain in gains.items():
        panel = Panel(stance.to_street(block.panel(side)), view)
        if not panel.is_seen:
            continue
        canvas.fill(view.project(panel.corners), shaded(paint, gain), vehicle)
        if side in ("right", "left"):
            _paint_flank(canvas, view, look, stance, block, panel, side, vehicle)
        elif side != "roof":
            _paint_end(canvas, look, stance, block, panel, side, vehicle)


def _paint_flank(
    canvas: Canvas, view: View, look: VehicleLook, stance: Stance, block: Block, panel: Panel,
    side: str, vehicle: int,
) -> None:  # fmt: skip
    if block.kind == "cabin":
        for u0, u1 in ((0.1, 0.48), (0.53, 0.9)):
            canvas.fill(panel.box(u0, 0.14, u1, 0.9), GLASS, vehicle)
        return
    if block.kind == "bus":
        for i in range(6):
            canvas.fill(panel.box(i / 6 + 0.02, 0.14, i / 6 + 0.15, 0.46), GLASS, vehicle)
    if block.kind == "cab":
        canvas.fill(panel.box(0.2, 0.1, 0.85, 0.42), GLASS, vehicle)
    if block.kind == "cargo":
        canvas.fill(panel.box(0, 0.7, 1, 0.74), shaded(look.paint, 0.8), vehicle)
    if block.kind == "body":
        canvas.fill(panel.box(0.5, 0.05, 0.507, 0.8), shaded(look.paint, 0.5), vehicle)
    sign = 1.0 if side == "right" else -1.0
    end = HALF_LENGTH_M[look.kind] * 0.62
    for z in (-end, end):
        if block.foot[0] < z < block.foot[1]:
            _paint_wheel(canvas, view, stance, (sign * block.half[0], 0.34, z), vehicle)


def _paint_wheel(
    canvas: Canvas, view: View, stance: Stance, hub: tuple[float, float, float], vehicle: int
) -> None:
    for radius, color in ((0.36, _TYRE), (0.21, (148, 150, 154)), (0.06, (60, 60, 64))):
        circle = ellipse_points((hub[2], hub[1]), (radius, radius))
        points = np.stack([np.full(len(circle), hub[0]), circle[:, 1], circle[:, 0]], axis=1)
        canvas.fill(view.project(stance.to_street(points)), color, vehicle)


def _paint_end(
    canvas: Canvas, look: VehicleLook, stance: Stance, block: Block, panel: Panel, side: str,
    vehicle: int,
) -> None:  # fmt: skip
    """Draw the front or the rear of a block: window, lamps, grille, bumper, plate."""
    front = side == "front"
    if block.kind == "cabin":
        _paint_window(canvas, look, stance, panel, (0.06, 0.1, 0.94, 0.94), vehicle, front=front)
        return
    if block.kind in ("bus", "cab") and (front or block.kind == "bus"):
        low = 0.52 if block.kind == "bus" else 0.5
        _paint_window(canvas, look, stance, panel, (0.05, 0.08, 0.95, low), vehicle, front=front)
    if block.kind == "cargo":
        if front:
            return
        canvas.fill(panel.box(0.494, 0.03, 0.506, 0.8), (120, 120, 118), vehicle)
    if block.kind == "cab" and not front:
        return
    top = 0.1 if block.kind == "body" else 0.66
    _paint_lamps(canvas, look, panel, top, vehicle, front=front)
    _paint_plate(canvas, look, panel, block, vehicle)


def _paint_lamps(
    canvas: Canvas, look: VehicleLook, panel: Panel, top: float, vehicle: int, *, front: bool
) -> None:
    span = 0.9 - top
    lamp: Color = (250, 246, 224) if front else (196, 28, 30)
    canvas.fill(panel.box(0.0, top + 0.5 * span, 1, 1), shaded(look.paint, 0.55), vehicle)
    if front:
        grille = panel.box(0.3, top + 0.08 * span, 0.7, top + 0.4 * span)
        canvas.fill(grille, (34, 36, 40), vehicle)
    for u in (0.03, 0.77):
        rim = panel.box(u, top + 0.05 * span, u + 0.2, top + 0.4 * span)
        glass = panel.box(u + 0.02, top + 0.09 * span, u + 0.18, top + 0.36 * span)
        canvas.fill(rim, (40, 40, 44), vehicle)
        canvas.fill(glass, lamp, vehicle)


def _paint_plate(
    canvas: Canvas, look: VehicleLook, panel: Panel, block: Block, vehicle: int
) -> None:
    style = look.plate.format
    tall = block.levels[1] - block.levels[0]
    half_u, half_v = style.width_m / (4 * block.half[0]), style.height_m / (2 * tall)
    v = 0.98 - half_v if block.kind != "body" else 0.74
    corners = panel.box(0.5 - half_u, v - half_v, 0.5 + half_u, v + half_v)
    plate = canvas.begin("license_plate", parent=vehicle, text=look.plate.text.replace("/", " "))
    canvas.paste(plate_texture(look.plate), corners, plate)


def _paint_window(
    canvas: Canvas, look: VehicleLook, stance: Stance, panel: Panel,
    box: tuple[float, float, float, float], vehicle: int, *, front: bool,
) -> None:  # fmt: skip
    window = panel.box(*box)
    canvas.fill(window, GLASS, vehicle)
    u0, v0, _, v1 = box
    gleam = np.array([[u0 + 0.12, v0], [u0 + 0.2, v0], [u0 + 0.1, v1], [u0 + 0.02, v1]])
    canvas.fill(panel.pixels(gleam), shaded(GLASS, 1.35), vehicle)
    if not front:
        return
    y, z, seats = _OCCUPANTS_M[look.kind]
    for x, person in zip(seats, look.occupants, strict=False):
        at = stance.to_street(np.array([[x, y, z]]))
        scale = panel.view.scale(float(at[0, 2]))
        if person is not None and scale > 12:
            head = panel.view.project(at)[0]
            paint_occupant(
                canvas, person, head_at=(float(head[0]), float(head[1])), scale=scale * 0.96,
                window=window, vehicle=vehicle,
            )  # fmt: skip


def _paint_motorcycle(canvas: Canvas, view: View, look: VehicleLook, stance: Stance) -> int:
    """Draw a motorcycle; its rider is a person of its own, in front of it or behind."""
    vehicle = canvas.begin("vehicle", kind="motorcycle", view=_vehicle_view(stance))
    rider = look.occupants[0]
    turn = stance.turn - np.pi  # a vehicle at 0 drives away, a person at 0 looks at the camera
    if abs(np.sin(stance.turn)) > 0.5:
        _paint_motorcycle_side(canvas, view, look, stance, vehicle)
    else:
        _paint_motorcycle_end(canvas, view, look, stance, vehicle)
    if rider is not None:
        paint_person(
            canvas, view, rider, place=(stance.x, stance.z), turn=-float(turn), phase=0, riding=True
        )
    return vehicle


def _paint_motorcycle_side(
    canvas: Canvas, view: View, look: VehicleLook, stance: Stance, vehicle: int
) -> None:
    def along(points: list[tuple[float, float]]) -> Points:
        z, y = np.array(points).T
        return view.project(stance.to_street(np.stack([np.zeros(len(z)), y, z], axis=1)))

    for z in (-0.7, 0.75):
        for radius, color in ((0.34, _TYRE), (0.22, (150, 150, 154)), (0.1, (70, 70, 74))):
            circle = ellipse_points((z, 0.34), (radius, radius))
            canvas.fill(along([(a, b) for a, b in circle]), color, vehicle)
    frame = [(-0.85, 0.86), (-0.1, 0.8), (0.25, 1.0), (0.62, 0.95), (0.72, 0.4), (0.2, 0.3),
             (-0.5, 0.35)]  # fmt: skip
    canvas.fill(along(frame), look.paint, vehicle)
    canvas.fill(along([(-0.35, 0.55), (0.3, 0.55), (0.2, 0.3), (-0.3, 0.3)]), (70, 70, 74), vehicle)
    canvas.fill(along([(-0.85, 0.92), (0.0, 0.86), (-0.1, 0.78), (-0.7, 0.78)]), _TYRE, vehicle)
    canvas.fill(along([(0.4, 1.15), (0.48, 1.15), (0.66, 0.9), (0.58, 0.9)]), _TYRE, vehicle)


def _paint_motorcycle_end(
    canvas: Canvas, view: View, look: VehicleLook, stance: Stance, vehicle: int
) -> None:
    s, (x, y) = view.scale(stance.z), view.ground(stance.x, stance.z)

    def local(points: list[tuple[float, float]]) -> Points:
        moved: Points = np.array(points) * (s, -s) + np.array([x, y])
        return moved

    canvas.limb(((x, y - 0.12 * s), (x, y - 0.58 * s)), (0.1 * s, 0.1 * s), _TYRE, vehicle)
    body = [(-0.2, 0.5), (0.2, 0.5), (0.3, 0.8), (0.2, 1.0), (-0.2, 1.0), (-0.3, 0.8)]
    canvas.fill(local(body), look.paint, vehicle)
    canvas.limb(((x - 0.36 * s, y - 1.04 * s), (x + 0.36 * s, y - 1.04 * s)),
                (0.035 * s, 0.035 * s), _TYRE, vehicle)  # fmt: skip
    if stance.shows_front:
        canvas.ellipse((x, y - 0.84 * s), (0.13 * s, 0.11 * s), (250, 246, 224), vehicle)
        return
    canvas.fill(local([(-0.13, 0.94), (0.13, 0.94), (0.13, 0.86), (-0.13, 0.86)]), (196, 28, 30),
                vehicle)  # fmt: skip
    style = look.plate.format
    half = style.width_m / 2
    corners = local([(-half, 0.78), (half, 0.78), (half, 0.78 - style.height_m),
                     (-half, 0.78 - style.height_m)])  # fmt: skip
    plate = canvas.begin("license_plate", parent=vehicle, text=look.plate.text.replace("/", " "))
    canvas.paste(plate_texture(look.plate), corners, plate)
