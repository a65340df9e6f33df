"""Single regions of Label Studio, in pixels: one dataclass per shape, both ways.

Label Studio stores lengths in per cent of the picture's width or height, angles in degrees
clockwise, an ellipse by centre and radii, and a rectangle by the corner about which it is turned.
Here everything is in pixels of the upright picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation.brush import mask_to_rle, rle_to_mask

DECIMALS = 4
"""Coordinates are rounded to a ten-thousandth of a pixel, which undoes what per cents add."""

Points = tuple[tuple[float, float], ...]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Size:
    """Pixels of a picture, after EXIF orientation."""

    width: int
    height: int


@dataclass(frozen=True)
class Brush:
    """Painted pixels; bool, shape (H, W)."""

    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Polygon:
    """A closed outline."""

    points: Points


@dataclass(frozen=True)
class Turned:
    """A rectangle or an ellipse, turned about its centre.

    Attributes:
        kind: `box` or `ellipse`.
        x, y: Centre.
        width, height: Full lengths before turning.
        degrees: Clockwise on the screen.
    """

    kind: str
    x: float
    y: float
    width: float
    height: float
    degrees: float = 0.0

    @property
    def is_turned(self) -> bool:
        """Whether its sides are not those of the picture."""
        return abs(math.remainder(self.degrees, 180.0)) > 1e-6

    def corners(self) -> Points:
        """Return the corners of the rectangle, the upper left one (before turning) first."""
        angle = math.radians(self.degrees)
        cos, sin = math.cos(angle), math.sin(angle)
        halves = [(sx * self.width / 2, sy * self.height / 2) for sx, sy in _SIGNS]
        return tuple((self.x + u * cos - v * sin, self.y + u * sin + v * cos) for u, v in halves)

    def box_xyxy(self) -> Box:
        """Return the smallest upright box around it."""
        angle = math.radians(self.degrees)
        cos, sin = math.cos(angle), math.sin(angle)
        if self.kind == "box":
            half_w = (abs(self.width * cos) + abs(self.height * sin)) / 2
            half_h = (abs(self.width * sin) + abs(self.height * cos)) / 2
        else:
            half_w = math.hypot(self.width * cos, self.height * sin) / 2
            half_h = math.hypot(self.width * sin, self.height * cos) / 2
        return (self.x - half_w, self.y - half_h, self.x + half_w, self.y + half_h)

    def outline(self, *, corners: int = 64) -> Points:
        """Return it as a polygon; an ellipse gets that many corners."""
        if self.kind == "box":
            return self.corners()
        turn = math.radians(self.degrees)
        found = []
        for i in range(corners):
            u = self.width / 2 * math.cos(2 * math.pi * i / corners)
            v = self.height / 2 * math.sin(2 * math.pi * i / corners)
            found.append(
                (
                    self.x + u * math.cos(turn) - v * math.sin(turn),
                    self.y + u * math.sin(turn) + v * math.cos(turn),
                )
            )
        return tuple(found)


@dataclass(frozen=True)
class Point:
    """One keypoint."""

    x: float
    y: float


Shape = Brush | Polygon | Turned | Point
_SIGNS = ((-1, -1), (1, -1), (1, 1), (-1, 1))


def rounded(value: float) -> float:
    """Round to DECIMALS."""
    return round(float(value), DECIMALS)


def clipped_points(points: Points, size: Size) -> Points:
    """Return the part of a closed outline that lies in the picture; empty where none does.

    Sutherland and Hodgman 1974: cut at one edge of the picture after the other. Moving corners to
    the edge instead would turn the sides that lead to them. An outline inside stays as it is.
    """
    found = list(points)
    for axis, limit, sign in ((0, 0.0, 1), (0, size.width, -1), (1, 0.0, 1), (1, size.height, -1)):
        ring, found = found, []
        for one, other in zip(ring[-1:] + ring[:-1], ring, strict=True):
            before, after = sign * (one[axis] - limit), sign * (other[axis] - limit)
            if (before < 0) != (after < 0):
                share = before / (before - after)
                cut = [o + share * (t - o) for o, t in zip(one, other, strict=True)]
                cut[axis] = float(limit)
                found.append((cut[0], cut[1]))
            if after >= 0:
                found.append(other)
    return tuple(found) if len(found) >= 3 else ()


def value_to_shape(kind: str, value: Mapping[str, Any], size: Size) -> Shape:
    """Read a region's value.

    Args:
        kind: Type of the region without its ending: `brush`, `polygon`, `rectangle`, `ellipse`
            or `keypoint`.
        value: Its `value` in Label Studio.
        size: The picture's size.

    Raises:
        KeyError, TypeError, ValueError: If the value lacks something or holds nonsense.
        BrushError: If a brush is damaged.
    """
    if kind == "brush":
        return Brush(rle_to_mask(value["rle"], height=size.height, width=size.width))
    if kind == "polygon":
        return Polygon(
            tuple(
                (rounded(_finite(x) * size.width / 100), rounded(_finite(y) * size.height / 100))
                for x, y in value["points"]
            )
        )
    x = _finite(value["x"]) * size.width / 100
    y = _finite(value["y"]) * size.height / 100
    if kind == "keypoint":
        return Point(rounded(x), rounded(y))
    degrees = _finite(value.get("rotation") or 0)
    if kind == "ellipse":
        width = 2 * _finite(value["radiusX"]) * size.width / 100
        height = 2 * _finite(value["radiusY"]) * size.height / 100
        return Turned("ellipse", x, y, width, height, degrees)
    if kind != "rectangle":
        raise ValueError(f"regions of type {kind!r} are not read")
    width = _finite(value["width"]) * size.width / 100
    height = _finite(value["height"]) * size.height / 100
    angle = math.radians(degrees)
    centre_x = x + width / 2 * math.cos(angle) - height / 2 * math.sin(angle)
    centre_y = y + width / 2 * math.sin(angle) + height / 2 * math.cos(angle)
    return Turned("box", centre_x, centre_y, width, height, degrees)


def _finite(number: Any) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number!r} is not a finite number")
    return value


def shape_to_value(shape: Shape, size: Size) -> tuple[str, dict[str, Any]]:
    """Return a region's type without its ending, and its value, for Label Studio."""
    if isinstance(shape, Brush):
        return "brush", {"format": "rle", "rle": mask_to_rle(shape.mask)}
    if isinstance(shape, Polygon):
        points = [[100 * x / size.width, 100 * y / size.height] for x, y in shape.points]
        return "polygon", {"points": points, "closed": True}
    if isinstance(shape, Point):
        return "keypoint", {
            "x": 100 * shape.x / size.width,
            "y": 100 * shape.y / size.height,
            "width": 0.4,
        }
    if shape.kind == "ellipse":
        return "ellipse", {
            "x": 100 * shape.x / size.width,
            "y": 100 * shape.y / size.height,
            "radiusX": 50 * shape.width / size.width,
            "radiusY": 50 * shape.height / size.height,
            "rotation": shape.degrees,
        }
    x, y = shape.corners()[0]
    return "rectangle", {
        "x": 100 * x / size.width,
        "y": 100 * y / size.height,
        "width": 100 * shape.width / size.width,
        "height": 100 * shape.height / size.height,
        "rotation": shape.degrees,
    }
