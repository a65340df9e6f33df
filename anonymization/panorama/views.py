"""Views: the pictures that the networks see of one picture, and where their pixels lie in it.

A view is the whole picture, a tile of it, or what a perspective camera would have seen of a
panorama or fisheye picture. Views are made when they are looked at, so that memory stays bounded.
Coordinates are continuous, the centre of the first pixel is (0.5, 0.5); points that a view does
not see are NaN in it.
"""

from __future__ import annotations

import functools
import math
import threading
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from anonymization.panorama.projection import Equirectangular, Projection

Pixels = NDArray[np.uint8]
Reals = NDArray[np.float64]
Floats = NDArray[np.float32]

REMAP_SIDE_MAX = 32000
"""OpenCV's `remap` takes pictures of fewer than 32768 pixels a side."""

NEARLY_NATIVE = 0.9
"""Pictures are not reduced before resampling where that would save less than this factor."""

CACHED_MAPS = 16
"""Rows of views whose directions are kept: all rows of a panorama. At 1333 px a side they take
14 MB each."""


class Pyramid:
    """A picture, and the last reduced copy of it that was asked for; for several threads at once.

    Resampling alone would alias where a view has fewer pixels than the picture.
    """

    def __init__(self, pixels: Pixels) -> None:
        """Hold a picture: uint8, shape (H, W, 3)."""
        self.pixels = pixels
        self._factor = 1.0
        self._reduced = pixels
        self._lock = threading.Lock()

    def reduced(self, factor: float) -> Pixels:
        """Return the picture reduced about that much, by area; never enlarged."""
        height, width = self.pixels.shape[:2]
        fitting = min(1.0, REMAP_SIDE_MAX / max(height, width))
        factor = fitting if factor > NEARLY_NATIVE else min(factor, fitting)
        if factor == 1:
            return self.pixels
        with self._lock:
            if factor != self._factor:
                size = (max(1, round(width * factor)), max(1, round(height * factor)))
                smaller = cv2.resize(self.pixels, size, interpolation=cv2.INTER_AREA)
                self._reduced = np.asarray(smaller, np.uint8)
                self._factor = factor
            return self._reduced


class View(Protocol):
    """One picture that the networks see.

    Attributes:
        width: Its columns.
        height: Its rows.
        inner: Whether its left, top, right and bottom borders cut through the picture.
    """

    @property
    def width(self) -> int: ...  # noqa: D102 - described above
    @property
    def height(self) -> int: ...  # noqa: D102
    @property
    def inner(self) -> tuple[bool, bool, bool, bool]: ...  # noqa: D102

    def render(self, pyramid: Pyramid) -> Pixels:
        """Return its pixels, uint8, shape (height, width, 3)."""

    def to_picture(self, xy: Reals) -> Reals:
        """Return where its points lie in the picture; shape (..., 2)."""

    def to_view(self, xy: Reals) -> Reals:
        """Return where points of the picture lie in it; NaN where it does not see them."""


@dataclass(frozen=True)
class Tile:
    """A rectangle of a picture, which may reach across the seam of a panorama.

    Attributes:
        x0: First column.
        y0: First row.
        width: Columns.
        height: Rows.
        picture_width: Columns of the picture.
        picture_height: Its rows.
        turn: Columns of a whole turn where the picture wraps, else None.
    """

    x0: int
    y0: int
    width: int
    height: int
    picture_width: int
    picture_height: int
    turn: float | None = None

    @property
    def inner(self) -> tuple[bool, bool, bool, bool]:
        """Borders that cut; the seam of a panorama is one, the picture's edge is none."""
        wraps = self.turn is not None
        return (
            wraps or self.x0 > 0,
            self.y0 > 0,
            wraps or self.x0 + self.width < self.picture_width,
            self.y0 + self.height < self.picture_height,
        )

    def render(self, pyramid: Pyramid) -> Pixels:
        """Cut it out."""
        rows = pyramid.pixels[self.y0 : self.y0 + self.height]
        beyond = self.x0 + self.width - self.picture_width
        if beyond <= 0:
            return rows[:, self.x0 : self.x0 + self.width]
        return np.concatenate([rows[:, self.x0 :], rows[:, :beyond]], axis=1)

    def to_picture(self, xy: Reals) -> Reals:
        """Shift by its corner."""
        return xy + np.array([self.x0, self.y0], np.float64)

    def to_view(self, xy: Reals) -> Reals:
        """Shift by its corner, and take the copy that it sees of a panorama's column."""
        shifted = xy - np.array([self.x0, self.y0], np.float64)
        if self.turn is not None:
            shifted[..., 0] = np.mod(shifted[..., 0], self.turn)
        return _seen(shifted, self.width, self.height)


def _seen(xy: Reals, width: int, height: int) -> Reals:
    with np.errstate(invalid="ignore"):
        inside = np.asarray((xy >= 0) & (xy <= (width, height))).all(axis=-1, keepdims=True)
    return np.where(inside, xy, np.nan)


@dataclass(frozen=True)
class Reprojection:
    """What a perspective camera sees of a panorama or fisheye picture; square.

    Attributes:
        projection: Of the picture.
        yaw: Radians that it looks to the right.
        pitch: Radians that it looks up.
        fov: Radians that it sees across, and down.
        side: Pixels across, and down.
    """

    projection: Projection
    yaw: float
    pitch: float
    fov: float
    side: int

    inner = (True, True, True, True)

    @property
    def width(self) -> int:
        """Columns."""
        return self.side

    @property
    def height(self) -> int:
        """Rows."""
        return self.side

    @property
    def _focal(self) -> float:
        return self.side / 2 / math.tan(self.fov / 2)

    @property
    def _rotation(self) -> Reals:
        """Return the matrix from the camera's directions to the picture's."""
        return _turned(self.yaw) @ _raised(self.pitch)

    def render(self, pyramid: Pyramid) -> Pixels:
        """Resample the picture, bilinear, from a copy of about the view's resolution."""
        source = pyramid.reduced(self._focal / self.projection.px_per_radian)
        if isinstance(self.projection, Equirectangular):
            return _rendered_panorama(source, self, self.projection)
        rays = _camera_rays(self.fov, self.side) @ self._rotation.T.astype(np.float32)
        points = self.projection.to_pixels(rays)
        points *= np.array(
            [source.shape[1] / self.projection.width, source.shape[0] / self.projection.height],
            np.float32,
        )
        points -= np.float32(0.5)
        across, down = np.ascontiguousarray(points[..., 0]), np.ascontiguousarray(points[..., 1])
        found = cv2.remap(source, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        return np.asarray(found, np.uint8)

    def to_picture(self, xy: Reals) -> Reals:
        """Return where its points lie in the picture; also points beyond its borders."""
        centred = (xy - self.side / 2) / self._focal
        rays = np.concatenate([centred, np.ones((*xy.shape[:-1], 1))], axis=-1)
        return np.asarray(self.projection.to_pixels(rays @ self._rotation.T))

    def to_view(self, xy: Reals) -> Reals:
        """Return where points of the picture lie in it; NaN where it does not see them."""
        return _seen(self.to_plane(self.projection.to_rays(xy)), self.side, self.side)

    def to_plane(self, rays: Reals) -> Reals:
        """Return where directions lie in its endless plane; NaN behind it."""
        turned = rays @ self._rotation
        depth = turned[..., 2:]
        ahead = np.where(depth > 1e-9, depth, np.nan)
        return np.asarray(turned[..., :2] / ahead * self._focal + self.side / 2)


def _turned(yaw: float) -> Reals:
    c, s = math.cos(yaw), math.sin(yaw)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _raised(pitch: float) -> Reals:
    c, s = math.cos(pitch), math.sin(pitch)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _camera_rays(fov: float, side: int) -> Floats:
    """Return the direction of each pixel in the camera's frame; float32 (side, side, 3)."""
    steps = ((np.arange(side) + 0.5) / side * 2 - 1) * math.tan(fov / 2)
    x, y = np.meshgrid(steps, steps)
    return np.stack([x, y, np.ones_like(x)], axis=-1).astype(np.float32)


@functools.lru_cache(maxsize=CACHED_MAPS)
def _angles(pitch: float, fov: float, side: int) -> tuple[Floats, Floats]:
    """Return longitude in turns from the view's own, and latitude in half turns from the top.

    All views of a row share them: another yaw only adds to the longitude.
    """
    rays = _camera_rays(fov, side) @ _raised(pitch).T.astype(np.float32)
    x, y, z = rays[..., 0], rays[..., 1], rays[..., 2]
    turns = np.arctan2(x, z) * np.float32(1 / math.tau)
    down = np.arctan2(y, np.hypot(x, z)) * np.float32(1 / math.pi) + np.float32(0.5)
    for array in (turns, down):
        array.setflags(write=False)
    return turns, down


def _rendered_panorama(source: Pixels, view: Reprojection, pano: Equirectangular) -> Pixels:
    turns, down = _angles(view.pitch, view.fov, view.side)
    height, width = source.shape[:2]
    x = turns + np.float32(view.yaw / math.tau + 0.5 - pano.left / pano.full_width)
    x -= np.floor(x)
    x *= np.float32(pano.full_width * width / pano.width)
    x -= np.float32(0.5)
    scale = height / pano.height
    y = down * np.float32(pano.full_height * scale)
    y -= np.float32(pano.top * scale + 0.5)
    # Only columns wrap: clipped rows keep the poles from mixing with each other.
    shown = (y >= -1) & (y <= height) & (x <= width)
    np.clip(y, 0, height - 1, out=y)
    how = cv2.BORDER_WRAP if pano.wraps else cv2.BORDER_REPLICATE
    found = cv2.remap(source, x, y, cv2.INTER_LINEAR, borderMode=how)
    if not shown.all():
        found[~shown] = 0
    return np.asarray(found, np.uint8)
