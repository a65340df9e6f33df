"""Projections: which direction each pixel of a panorama or fisheye picture looks in.

Coordinates are continuous and absolute: the centre of the first pixel is (0.5, 0.5). Directions
are vectors in the camera's frame: x to the right, y down, z ahead, of any length but 0. Longitude
grows to the right from straight ahead (the middle of a whole panorama), latitude grows upward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonymization.errors import BlurloopError

Reals = NDArray[np.float64]
Bools = NDArray[np.bool_]


class ProjectionError(BlurloopError):
    """A projection is described wrongly, or is not known."""


def _positive(what: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ProjectionError(f"{what} is {value}; expected a positive number")


@dataclass(frozen=True)
class Equirectangular:
    """A panorama: columns are longitudes, rows are latitudes.

    Attributes:
        width: Columns of the picture.
        height: Rows of the picture.
        full_width: Columns that a whole turn of 360 degrees would take.
        full_height: Rows from straight up to straight down, 180 degrees.
        left: Column of the whole panorama at which the picture starts.
        top: Row of the whole panorama at which the picture starts.
    """

    width: int
    height: int
    full_width: float
    full_height: float
    left: float = 0.0
    top: float = 0.0

    def __post_init__(self) -> None:
        for name in ("width", "height", "full_width", "full_height"):
            _positive(f"{name} of the panorama", getattr(self, name))
        fits_x = 0 <= self.left < self.full_width and self.width <= self.full_width + 0.5
        if not (fits_x and 0 <= self.top <= self.full_height - self.height + 0.5):
            raise ProjectionError(
                f"a part of {self.width}x{self.height} at ({self.left:g}, {self.top:g}) does not "
                f"fit into a panorama of {self.full_width:g}x{self.full_height:g}"
            )

    @classmethod
    def of_size(cls, width: int, height: int) -> Equirectangular:
        """Return the panorama that a picture is, where nothing but its size is known.

        It takes the whole turn, with the horizon in its middle; where it is wider than 2:1, rows
        are missing above and below.

        Raises:
            ProjectionError: If it is taller than half its width.
        """
        if height * 2 > width + 2:
            raise ProjectionError(
                f"a picture of {width}x{height} is no whole equirectangular panorama: it is "
                "taller than half its width. Say which part of the panorama it is, or use the "
                "projection perspective"
            )
        full_height = max(width / 2, height)
        return cls(width, height, width, full_height, top=(full_height - height) / 2)

    @property
    def turn(self) -> float:
        """Columns of a whole turn."""
        return self.full_width

    @property
    def wraps(self) -> bool:
        """Whether the last column borders on the first."""
        return abs(self.full_width - self.width) <= 0.5

    @property
    def px_per_radian(self) -> float:
        """Resolution at the horizon."""
        return self.full_width / math.tau

    @property
    def poles(self) -> tuple[float, float]:
        """Rows of the picture at which the upper and the lower pole lie, or would lie."""
        return -self.top, self.full_height - self.top

    def to_rays(self, xy: Reals) -> Reals:
        """Return the direction of each point; shape (..., 2) to (..., 3), of length 1.

        >>> (Equirectangular(8, 4, 8, 4).to_rays(np.array([4.0, 2.0])) + 0).tolist()
        [0.0, 0.0, 1.0]
        """
        longitude = (xy[..., 0] + self.left) * (math.tau / self.full_width) - math.pi
        latitude = math.pi / 2 - (xy[..., 1] + self.top) * (math.pi / self.full_height)
        across = np.cos(latitude)
        return np.stack(
            [across * np.sin(longitude), -np.sin(latitude), across * np.cos(longitude)], axis=-1
        )

    def to_pixels(self, rays: NDArray[Any]) -> NDArray[Any]:
        """Return where each direction lies; shape (..., 3) to (..., 2), x in [0, full_width).

        A direction that the picture does not show gets a point outside of it.
        """
        x, y, z = rays[..., 0], rays[..., 1], rays[..., 2]
        column = np.arctan2(x, z) * (self.full_width / math.tau) + self.full_width / 2 - self.left
        row = np.arctan2(y, np.hypot(x, z)) * (self.full_height / math.pi)
        return np.stack(
            [np.mod(column, self.full_width), row + (self.full_height / 2 - self.top)], axis=-1
        )

    def shows(self, xy: NDArray[Any]) -> Bools:
        """Tell which points lie in the picture."""
        x, y = xy[..., 0], xy[..., 1]
        return np.asarray((x >= 0) & (x <= self.width) & (y >= 0) & (y <= self.height))


@dataclass(frozen=True)
class Fisheye:
    """An equidistant fisheye picture: distance from the centre grows with the angle.

    Attributes:
        width: Columns of the picture.
        height: Rows of the picture.
        centre_x: Column at which the lens looks straight ahead.
        centre_y: Row at which it does.
        radius_px: Radius of the image circle.
        fov_deg: Angle that the circle's diameter spans, up to 360.
    """

    width: int
    height: int
    centre_x: float
    centre_y: float
    radius_px: float
    fov_deg: float

    turn = None
    wraps = False

    def __post_init__(self) -> None:
        for name in ("width", "height", "radius_px", "fov_deg"):
            _positive(f"{name} of the fisheye picture", getattr(self, name))
        if self.fov_deg > 360:
            raise ProjectionError(f"fov_deg of the fisheye is {self.fov_deg}; expected at most 360")
        if not (math.isfinite(self.centre_x) and math.isfinite(self.centre_y)):
            raise ProjectionError("the centre of the fisheye picture is not a number")

    @property
    def px_per_radian(self) -> float:
        """Resolution along a radius."""
        return self.radius_px / math.radians(self.fov_deg / 2)

    def to_rays(self, xy: Reals) -> Reals:
        """Return the direction of each point; shape (..., 2) to (..., 3), of length 1."""
        dx, dy = xy[..., 0] - self.centre_x, xy[..., 1] - self.centre_y
        angle = np.hypot(dx, dy) / self.px_per_radian
        # sin(a) / a, which is 1 in the middle, where a direction has no side.
        share = np.sinc(angle / math.pi) / self.px_per_radian
        return np.stack([dx * share, dy * share, np.cos(angle)], axis=-1)

    def to_pixels(self, rays: NDArray[Any]) -> NDArray[Any]:
        """Return where each direction lies; shape (..., 3) to (..., 2).

        A direction that the lens does not see gets a point outside of the circle.
        """
        x, y, z = rays[..., 0], rays[..., 1], rays[..., 2]
        across = np.hypot(x, y)
        tiny = np.finfo(rays.dtype).tiny
        share = np.arctan2(across, z) * self.px_per_radian / np.maximum(across, tiny)
        ahead = self.px_per_radian / np.maximum(np.abs(z), 1e-12)
        share = np.where(across > 0, share, ahead)
        return np.stack([x * share + self.centre_x, y * share + self.centre_y], axis=-1)

    def shows(self, xy: NDArray[Any]) -> Bools:
        """Tell which points lie in the picture and in the image circle."""
        x, y = xy[..., 0], xy[..., 1]
        inside = (x >= 0) & (x <= self.width) & (y >= 0) & (y <= self.height)
        circle = np.hypot(x - self.centre_x, y - self.centre_y) <= self.radius_px
        return np.asarray(inside & circle)


Projection = Equirectangular | Fisheye


def angles_of(boxes_xyxy: NDArray[Any], projection: Projection) -> Reals:
    """Return where the middle of each box lies on the sphere.

    Args:
        boxes_xyxy: Shape (N, 4), picture pixels; boxes across the seam have x1 > width.
        projection: Of the picture.

    Returns:
        float64, shape (N, 2): longitude in [-180, 180) and latitude in [-90, 90], degrees.

    >>> box = np.array([[1023, 0, 1025, 512]])
    >>> angles_of(box, Equirectangular(2048, 1024, 2048, 1024)).round(3).tolist()
    [[0.0, 45.0]]
    """
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    rays = projection.to_rays((boxes[:, :2] + boxes[:, 2:]) / 2)
    longitude = np.degrees(np.arctan2(rays[:, 0], rays[:, 2]))
    latitude = np.degrees(np.arctan2(-rays[:, 1], np.hypot(rays[:, 0], rays[:, 2])))
    return np.stack([np.mod(longitude + 180, 360) - 180, latitude], axis=-1)
