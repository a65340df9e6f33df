"""Where things stand: places for people, vehicles and look-alikes of one sequence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data.street.background import Street, draw_street
from data.street.config import StreetConfig
from data.street.lookalikes import Lookalike, draw_lookalike
from data.street.person import PersonLook, draw_person_look
from data.street.vehicle import (
    HALF_LENGTH_M,
    HALF_WIDTH_M,
    Stance,
    VehicleLook,
    draw_kind,
    draw_vehicle_look,
)
from data.street.view import View

Box = tuple[float, float, float, float]
_TRIES = 28
_HIDDEN_MAX = 0.25
"""Share of an object, and of its face or plate, that a careful placement lets another hide."""
FACE_NEAR_PX_PER_M = (96.0, 178.0)
"""Scales at which a face is 21 to 40 pixels wide."""
PLATE_NEAR_PX_PER_M = (68.0, 125.0)
"""Scales at which a plate is 14 to 26 pixels high."""


@dataclass(frozen=True)
class Walker:
    """A person on foot: place (x, z), turn in radians, metres walked per frame."""

    look: PersonLook
    x: float
    z: float
    turn: float
    phase: float
    speed: float

    def at(self, frame: int) -> tuple[float, float]:
        """Return the ground point at a frame."""
        way = self.speed * frame
        return self.x + way * float(np.sin(self.turn)), self.z - way * float(np.cos(self.turn))


@dataclass(frozen=True)
class Driven:
    """A vehicle: look, stance at frame 0, metres driven per frame."""

    look: VehicleLook
    stance: Stance
    speed: float

    def at(self, frame: int) -> Stance:
        """Return the stance at a frame."""
        way, turn = self.speed * frame, self.stance.turn
        return Stance(
            self.stance.x + way * float(np.sin(turn)),
            self.stance.z + way * float(np.cos(turn)),
            turn,
        )


@dataclass(frozen=True)
class World:
    """Everything in a sequence, and how fast the camera drives through it."""

    street: Street
    walkers: tuple[Walker, ...]
    vehicles: tuple[Driven, ...]
    lookalikes: tuple[Lookalike, ...]
    view: View
    step_m: float
    night: bool
    light: float


@dataclass(frozen=True)
class _Claim:
    """Picture space that a thing takes: its depth, its box, and its face or plate."""

    z: float
    box: Box
    precious: Box | None


class _Space:
    """Accepts places that hide little of what was placed before."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.claims: list[_Claim] = []

    def accepts(self, claim: _Claim) -> bool:
        """Return whether nothing precious and no object would be hidden too much."""
        for other in self.claims:
            near, far = (claim, other) if claim.z < other.z else (other, claim)
            if _share_hidden(far.box, near.box) > 2 * _HIDDEN_MAX:
                return False
            if far.precious and _share_hidden(far.precious, near.box) > _HIDDEN_MAX:
                return False
        return True

    def cut_share(self, box: Box) -> float:
        """Return the share of a box's width that lies outside of the picture."""
        inside = min(box[2], self.view.width) - max(box[0], 0)
        return 1 - max(inside, 0) / max(box[2] - box[0], 1e-6)


def _share_hidden(far: Box, near: Box) -> float:
    width = min(far[2], near[2]) - max(far[0], near[0])
    height = min(far[3], near[3]) - max(far[1], near[1])
    area = (far[2] - far[0]) * (far[3] - far[1])
    return max(width, 0) * max(height, 0) / max(area, 1e-6)


def draw_world(config: StreetConfig, rng: np.random.Generator) -> World:
    """Draw everything in a sequence at random."""
    view = View(
        config.width, config.height, focal=0.9 * config.width,
        horizon=float(rng.uniform(0.36, 0.46)) * config.height, eye_m=float(rng.uniform(1.4, 1.75)),
    )  # fmt: skip
    street = draw_street(rng, far_m=config.far_m)
    space = _Space(view)
    empty = rng.random() < config.empty_share
    walkers: list[Walker] = []
    vehicles: list[Driven] = []
    if not empty:
        for near in (True, False):
            vehicles += _draw_vehicles(config, rng, space, near=near)
            walkers += _draw_walkers(config, rng, space, near=near)
    things = _draw_lookalikes(config, rng, space, street)
    night = bool(rng.random() < config.night_share)
    step, light = float(rng.uniform(0.3, 0.8)), float(rng.uniform(-0.35, 0.35))
    return World(street, tuple(walkers), tuple(vehicles), things, view, step, night, light)


def _count(rng: np.random.Generator, mean: float) -> int:
    """Draw a count with this mean that varies by one or two only."""
    spread = mean + rng.uniform(-1.2, 1.2) * min(mean, 1.0)
    return max(int(np.floor(spread + rng.random())), 0)


def _scale(
    config: StreetConfig, rng: np.random.Generator, *, near: tuple[float, float] | None
) -> float:
    """Draw a scale in pixels per metre: near ones as given, far ones down to `far_m`."""
    size = float(np.sqrt(config.width / 512)) / config.near_scale
    if near is not None:
        return float(rng.uniform(*near)) * size
    smallest = 0.9 * config.width / config.far_m
    largest = max(60 * size, 1.5 * smallest)
    return float(np.exp(rng.uniform(np.log(smallest), np.log(largest))))


def _place(
    config: StreetConfig,
    rng: np.random.Generator,
    space: _Space,
    draw: Callable[[], tuple[_Claim, Walker | Driven]],
) -> Walker | Driven | None:
    """Try places until one is accepted; some are careless on purpose."""
    careless = rng.random() < config.occlusion
    cut_max = 0.6 if rng.random() < config.edge_cut_share else 0.08
    for _ in range(_TRIES):
        claim, thing = draw()
        if space.cut_share(claim.box) <= cut_max and (careless or space.accepts(claim)):
            space.claims.append(claim)
            return thing
    return None


def _across(rng: np.random.Generator, view: View, scale: float) -> float:
    column = float(rng.uniform(-0.04, 1.04)) * view.width
    return (column - view.width / 2) / scale


def _draw_walkers(
    config: StreetConfig, rng: np.random.Generator, space: _Space, *, near: bool
) -> list[Walker]:
    view = space.view

    def draw() -> tuple[_Claim, Walker]:
        look = draw_person_look(rng, hidden_share=config.hidden_face_share)
        scale = _scale(config, rng, near=FACE_NEAR_PX_PER_M if near else None)
        z = view.focal / scale
        x = _across(rng, view, scale)
        walker = Walker(look, x, z, _walker_turn(config, rng), float(rng.uniform(0, 6.28)),
                        float(rng.uniform(0, 0.3)))  # fmt: skip
        column, row = view.ground(x, z)
        tall = look.height_m * scale
        grown = scale * look.height_m / 1.75
        half = 0.26 * scale
        box = (column - half, row - tall, column + half, min(row, view.height))
        face = (column - 0.11 * grown, row - tall, column + 0.11 * grown, row - tall + 0.33 * grown)
        return _Claim(z, box, face), walker

    count = _count(rng, config.near_people if near else config.far_people)
    placed = [_place(config, rng, space, draw) for _ in range(count)]
    return [p for p in placed if isinstance(p, Walker)]


def _walker_turn(config: StreetConfig, rng: np.random.Generator) -> float:
    luck, sign = rng.random(), 1 if rng.random() < 0.5 else -1
    if luck < config.away_share:
        return float(np.pi + sign * rng.uniform(0, 0.8))
    if luck < config.away_share + config.profile_share:
        return float(sign * rng.uniform(0.95, 1.5))
    return float(sign * rng.uniform(0, 0.75))


def _draw_vehicles(
    config: StreetConfig, rng: np.random.Generator, space: _Space, *, near: bool
) -> list[Driven]:
    view = space.view

    def draw() -> tuple[_Claim, Driven]:
        kind = draw_kind(rng, motorcycle_share=config.motorcycle_share)
        look = draw_vehicle_look(
            rng, kind=kind, occupied_share=config.people_in_vehicles_share,
            hidden_share=config.hidden_face_share,
        )  # fmt: skip
        side_on = rng.random() < config.side_view_share
        turn = _vehicle_turn(rng, side_on=bool(side_on))
        scale = _scale(config, rng, near=PLATE_NEAR_PX_PER_M if near else None)
        scale *= 0.55 if side_on else 1.0
        reach = HALF_LENGTH_M[kind] * abs(np.cos(turn))
        z = view.focal / scale + float(reach)
        x = _across(rng, view, scale) * (1.0 if side_on else z / (z - reach))
        x -= float(np.sin(turn) * reach * np.sign(-np.cos(turn))) if not side_on else 0.0
        speed = float(rng.uniform(0.1, 0.5)) if rng.random() < 0.4 else 0.0
        driven = Driven(look, Stance(x, z, turn), speed)
        return _vehicle_claim(view, driven, scale), driven

    count = _count(rng, config.near_vehicles if near else config.far_vehicles)
    placed = [_place(config, rng, space, draw) for _ in range(count)]
    return [p for p in placed if isinstance(p, Driven)]


def _vehicle_turn(rng: np.random.Generator, *, side_on: bool) -> float:
    if side_on:
        return float((np.pi / 2) * (1 if rng.random() < 0.5 else -1) + rng.uniform(-0.2, 0.2))
    return float((np.pi if rng.random() < 0.5 else 0.0) + rng.normal(0, 0.16))


def _vehicle_claim(view: View, driven: Driven, scale: float) -> _Claim:
    kind, stance = driven.look.kind, driven.stance
    end = -1.0 if not stance.shows_front else 1.0
    tip = stance.to_street(np.array([[0.0, 0.5, end * HALF_LENGTH_M[kind]]]))
    if abs(np.sin(stance.turn)) > 0.7:
        tip = np.array([[stance.x, 0.5, stance.z]])
    column, row = (float(v) for v in view.project(tip)[0])
    half = HALF_WIDTH_M[kind] * abs(np.cos(stance.turn))
    half += HALF_LENGTH_M[kind] * 0.9 * abs(np.sin(stance.turn)) * (abs(np.sin(stance.turn)) > 0.7)
    tall = {"bus": 2.5, "truck": 2.5, "van": 1.6}.get(kind, 1.0) * scale
    box = (column - half * scale, row - tall, column + half * scale, row + 0.5 * scale)
    plate = (column - 0.42 * scale, row - 0.15 * scale, column + 0.42 * scale, row + 0.15 * scale)
    return _Claim(view.focal / scale, box, plate)


def _draw_lookalikes(
    config: StreetConfig, rng: np.random.Generator, space: _Space, street: Street
) -> tuple[Lookalike, ...]:
    """Put things on the pavements, where they hide nothing precious unless placed carelessly."""
    things: list[Lookalike] = []
    for _ in range(_count(rng, config.lookalikes)):
        careless = rng.random() < config.occlusion
        for _ in range(_TRIES):
            z = float(np.exp(rng.uniform(np.log(4.0), np.log(config.far_m))))
            side = 1 if rng.random() < 0.5 else -1
            x = side * float(rng.uniform(min(street.road_m, 0.5 * z) * 0.95, street.wall_m * 0.95))
            thing = draw_lookalike(rng, x=x, z=z)
            (column, row), scale = space.view.ground(x, z), space.view.scale(z)
            box = (column - 0.6 * scale, row - 2.6 * scale, column + 0.6 * scale, row)
            if careless or space.accepts(_Claim(z, box, None)):
                things.append(thing)
                break
    return tuple(things)
