"""The painter: colours and an identity buffer, drawn by the same calls, back to front.

Shapes are drawn at twice the picture's size without anti-aliasing, into the colours and into the
identity buffer alike, so that a pixel's owner is exactly the object whose colour it shows;
halving afterwards gives the smooth edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from data.street.view import Points

Color = tuple[float, float, float]
Pixels = NDArray[np.uint8]
Clip = NDArray[np.uint8]

SUPERSAMPLING = 2
BACKGROUND = 0
"""Owner of what carries no label: street, buildings, look-alikes, shadows, umbrellas."""
_SHIFT = 4
_LIMIT = 30_000
"""Pixels; farther outside of the picture OpenCV's fixed-point coordinates could overflow."""


@dataclass
class Painted:
    """What the canvas knows of one labelled object while it draws.

    Attributes:
        class_name: Class of the taxonomy.
        parent: Owner number of the object that it is part of (a face of its person), or 0.
        extent: x0, y0, x1, y1 of everything drawn for it, picture edges ignored, in pixels.
        attributes: What the object says about itself.
        keypoints: (17, 3) x, y in pixels and 1 or 2, before occlusion by others; or None.
        area: Pixels of the enlarged buffer that it owned when it was complete.
    """

    class_name: str
    parent: int
    extent: list[float] = field(default_factory=lambda: [np.inf, np.inf, -np.inf, -np.inf])
    attributes: dict[str, Any] = field(default_factory=dict)
    keypoints: Points | None = None
    area: int = 0


class Canvas:
    """A picture in the making. Coordinates are picture pixels; pixel i spans [i, i + 1)."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        shape = (height * SUPERSAMPLING, width * SUPERSAMPLING)
        self.pixels: Pixels = np.zeros((*shape, 3), dtype=np.uint8)
        self.owners: NDArray[np.uint16] = np.zeros(shape, dtype=np.uint16)
        self.painted: list[Painted] = [Painted("background", 0)]
        self._clip: Clip | None = None

    def begin(self, class_name: str, *, parent: int = BACKGROUND, **attributes: Any) -> int:
        """Register a labelled object and return its owner number."""
        self.painted.append(Painted(class_name, parent, attributes=attributes))
        return len(self.painted) - 1

    def complete(self, first: int) -> None:
        """Count what the objects from number `first` on own, before others are drawn over them."""
        x0, y0, x1, y1 = self._window(first)
        counts = np.bincount(self.owners[y0:y1, x0:x1].ravel(), minlength=len(self.painted))
        for owner in range(first, len(self.painted)):
            self.painted[owner].area = int(counts[owner])

    def _window(self, first: int) -> tuple[int, int, int, int]:
        extents = np.array([p.extent for p in self.painted[first:]])
        low, high = extents[:, :2].min(axis=0), extents[:, 2:].max(axis=0)
        size = np.array([self.width, self.height])
        low = np.clip(np.nan_to_num(low, posinf=0), 0, size) * SUPERSAMPLING
        high = np.clip(np.nan_to_num(high, neginf=0) + 1, 0, size) * SUPERSAMPLING
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])

    def _fixed_point(self, points: Points) -> NDArray[np.int32]:
        enlarged = np.clip(points, -_LIMIT, _LIMIT) * SUPERSAMPLING - 0.5
        fixed: NDArray[np.int32] = np.rint(enlarged * (1 << _SHIFT)).astype(np.int32)
        return fixed

    def _extend(self, owner: int, points: Points) -> None:
        low, high = points.min(axis=0), points.max(axis=0)
        while owner:
            extent = self.painted[owner].extent
            extent[0], extent[1] = min(extent[0], low[0]), min(extent[1], low[1])
            extent[2], extent[3] = max(extent[2], high[0]), max(extent[3], high[1])
            owner = self.painted[owner].parent

    def fill(self, points: Points, color: Color, owner: int = BACKGROUND) -> None:
        """Fill a polygon of shape (N, 2) with a colour, for an owner."""
        fixed = [self._fixed_point(points)]
        if self._clip is not None:
            mask = np.zeros(self.owners.shape, dtype=np.uint8)
            cv2.fillPoly(mask, fixed, 1, cv2.LINE_8, _SHIFT)
            inside = (mask & self._clip).astype(bool)
            self.pixels[inside], self.owners[inside] = _uint8(color), owner
        else:
            cv2.fillPoly(self.pixels, fixed, _uint8(color), cv2.LINE_8, _SHIFT)
            cv2.fillPoly(self.owners, fixed, owner, cv2.LINE_8, _SHIFT)
        if owner:
            self._extend(owner, points)

    def ellipse(
        self,
        center: Sequence[float],
        radii: Sequence[float],
        color: Color,
        owner: int = BACKGROUND,
    ) -> None:
        """Fill an upright ellipse."""
        self.fill(ellipse_points(center, radii), color, owner)

    def limb(
        self,
        ends: tuple[Sequence[float], Sequence[float]],
        radii: tuple[float, float],
        color: Color,
        owner: int = BACKGROUND,
    ) -> None:
        """Fill a tapered capsule between two points."""
        self.fill(capsule_points(ends, radii), color, owner)

    def paste(self, texture: Pixels, corners: Points, owner: int = BACKGROUND) -> None:
        """Fill a quadrilateral (clockwise from top left) with a texture."""
        mask, (x0, y0, x1, y1) = self._polygon_mask(corners)
        if x1 <= x0 or y1 <= y0:
            return
        fitted = _shrink(texture, corners * SUPERSAMPLING)
        height, width = fitted.shape[:2]
        source = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float32)
        target = (corners * SUPERSAMPLING - np.array([x0, y0])).astype(np.float32)
        matrix = cv2.getPerspectiveTransform(source - 0.5, target - 0.5)
        warped = cv2.warpPerspective(
            fitted,
            matrix,
            (x1 - x0, y1 - y0),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        inside = mask.astype(bool)
        self.pixels[y0:y1, x0:x1][inside] = warped[inside]
        self.owners[y0:y1, x0:x1][inside] = owner
        if owner:
            self._extend(owner, corners)

    def _polygon_mask(self, points: Points) -> tuple[Clip, tuple[int, int, int, int]]:
        size = np.array([self.width, self.height]) * SUPERSAMPLING
        low = np.clip(np.floor(points.min(axis=0) * SUPERSAMPLING) - 1, 0, size).astype(int)
        high = np.clip(np.ceil(points.max(axis=0) * SUPERSAMPLING) + 1, 0, size).astype(int)
        mask = np.zeros((max(high[1] - low[1], 0), max(high[0] - low[0], 0)), dtype=np.uint8)
        if mask.size:
            moved = self._fixed_point(points) - (low << _SHIFT).astype(np.int32)
            cv2.fillPoly(mask, [moved], 1, cv2.LINE_8, _SHIFT)
        return mask, (int(low[0]), int(low[1]), int(high[0]), int(high[1]))

    def clip_to(self, points: Points | None) -> None:
        """Let later fills reach only the inside of a polygon; None lifts it."""
        if points is None:
            self._clip = None
            return
        self._clip = np.zeros(self.owners.shape, dtype=np.uint8)
        cv2.fillPoly(self._clip, [self._fixed_point(points)], 1, cv2.LINE_8, _SHIFT)

    def shade(self, first: int, texture: NDArray[np.float32], *, light: float) -> None:
        """Light the objects from number `first` on from one side, and roughen them.

        Args:
            first: First owner number that is shaded; it and its parts must be drawn last.
            texture: Gain around 1, at least as large as the enlarged picture.
            light: Relative brightness of the right edge less that of the left.
        """
        x0, y0, x1, y1 = self._window(first)
        if x1 - x0 < 2 or y1 - y0 < 2:
            return
        ramp = np.linspace(1 - light / 2, 1 + light / 2, x1 - x0, dtype=np.float32)
        gain = texture[y0:y1, x0:x1] * ramp
        gain[self.owners[y0:y1, x0:x1] < first] = 1
        window = self.pixels[y0:y1, x0:x1]
        self.pixels[y0:y1, x0:x1] = cv2.multiply(
            window, cv2.merge([gain, gain, gain]), dtype=cv2.CV_8U
        )

    def finished_pixels(self) -> Pixels:
        """Return the picture at its own size, smoothed by halving."""
        small = cv2.resize(self.pixels, (self.width, self.height), interpolation=cv2.INTER_AREA)
        return small  # type: ignore[return-value]

    def finished_owners(self) -> NDArray[np.uint16]:
        """Return who owns each pixel: the owner of most of its four samples."""
        a, b = self.owners[0::2, 0::2], self.owners[0::2, 1::2]
        c, d = self.owners[1::2, 0::2], self.owners[1::2, 1::2]
        first = (a == b) | (a == c) | (a == d)
        second = (b == c) | (b == d)
        rest: NDArray[np.uint16] = np.where(second, b, np.where(c == d, c, a))
        return np.where(first, a, rest)


def _uint8(color: Color) -> tuple[int, int, int]:
    r, g, b = (int(min(max(v, 0), 255)) for v in color)
    return r, g, b


def shaded(color: Color, gain: float) -> Color:
    """Return a colour made brighter or darker."""
    return color[0] * gain, color[1] * gain, color[2] * gain


_CIRCLE = np.stack([np.cos(np.linspace(0, 2 * np.pi, 24, endpoint=False)),
                    np.sin(np.linspace(0, 2 * np.pi, 24, endpoint=False))], axis=1)  # fmt: skip


def ellipse_points(center: Sequence[float], radii: Sequence[float]) -> Points:
    """Return a polygon of 24 corners, shape (24, 2), inscribed in an upright ellipse."""
    points: Points = _CIRCLE * np.asarray(radii) + np.asarray(center)
    return points


def capsule_points(
    ends: tuple[Sequence[float], Sequence[float]], radii: tuple[float, float]
) -> Points:
    """Return the outline of a tapered capsule, shape (N, 2)."""
    a, b = np.asarray(ends[0], dtype=float), np.asarray(ends[1], dtype=float)
    angle = np.arctan2(b[1] - a[1], b[0] - a[0])
    turn = np.linspace(np.pi / 2, 3 * np.pi / 2, 7) + angle
    start = a + radii[0] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    stop = b + radii[1] * np.stack([np.cos(turn + np.pi), np.sin(turn + np.pi)], axis=1)
    return np.concatenate([start, stop])


def _shrink(texture: Pixels, corners: Points) -> Pixels:
    """Bring a texture near its drawn size, so that warping does not alias."""
    sides = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1)
    width = int(np.clip(max(sides[0], sides[2]), 2, texture.shape[1]))
    height = int(np.clip(max(sides[1], sides[3]), 2, texture.shape[0]))
    resized = cv2.resize(texture, (width, height), interpolation=cv2.INTER_AREA)
    return resized  # type: ignore[return-value]
