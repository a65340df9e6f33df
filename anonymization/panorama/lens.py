"""Lenses: what an operator says of a fisheye camera, and the projection that follows of a picture.

A fisheye picture states nothing about itself. The angle and the image circle decide which part of
it each view shows and how straight things look there; where a find lies follows from the same
numbers, so that what is found is hidden where it is, also where they are not quite the lens's.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from anonymization.panorama.projection import Fisheye, ProjectionError

INSCRIBED, DIAGONAL = "inscribed", "diagonal"
FOV_MIN, FOV_MAX = 60.0, 360.0
FOV_USUAL = 180.0

ASPECT_TOLERANCE = 0.02
"""A stated circle is scaled to pictures of its proportions up to this share, and to no other."""

RADIUS_MIN = 0.25
"""Share of a picture's shorter side below which a radius is taken for a mistake: all that lies
outside of the circle is not looked at."""

_NUMBER = r"(\d{1,6}(?:\.\d{1,9})?)"
_STATED = re.compile(rf"{_NUMBER},{_NUMBER},{_NUMBER}@(\d{{1,6}})x(\d{{1,6}})")


@dataclass(frozen=True)
class ImageCircle:
    """A fisheye's image circle, in pixels of upright pictures of one size; checked when made.

    Attributes:
        centre_x: Column at which the lens looks straight ahead.
        centre_y: Row at which it does.
        radius: Of the circle.
        width: Columns of the pictures.
        height: Their rows.
    """

    centre_x: float
    centre_y: float
    radius: float
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ProjectionError(
                f"the image circle is of pictures of {self.width}x{self.height}; expected a size"
            )
        if not (0 < self.centre_x < self.width and 0 < self.centre_y < self.height):
            raise ProjectionError(
                f"the image circle's centre ({self.centre_x:g}, {self.centre_y:g}) lies outside of "
                f"pictures of {self.width}x{self.height}"
            )
        low = RADIUS_MIN * min(self.width, self.height)
        high = math.hypot(self.width, self.height)
        if not low <= self.radius <= high:
            raise ProjectionError(
                f"the image circle's radius is {self.radius:g}; expected one from {low:g} to "
                f"{high:.0f} in pictures of {self.width}x{self.height}, as what lies outside of "
                "the circle is not looked at"
            )

    def __str__(self) -> str:
        """Return what `FisheyeLens.of` reads."""
        where = f"{self.centre_x:.10g},{self.centre_y:.10g},{self.radius:.10g}"
        return f"{where}@{self.width}x{self.height}"


@dataclass(frozen=True)
class FisheyeLens:
    """What is known of a fisheye camera; checked when made.

    Attributes:
        fov_deg: Angle that the image circle's diameter spans.
        circle: `diagonal` goes through the picture's corners, and all of the picture is looked at;
            `inscribed` touches its longer sides; or the circle itself.
    """

    fov_deg: float = FOV_USUAL
    circle: str | ImageCircle = DIAGONAL

    def __post_init__(self) -> None:
        if not FOV_MIN <= self.fov_deg <= FOV_MAX:
            raise ProjectionError(
                f"the fisheye's field of view is {self.fov_deg:g}; expected {FOV_MIN:g} to "
                f"{FOV_MAX:g} degrees across the image circle"
            )
        if not isinstance(self.circle, ImageCircle) and self.circle not in (DIAGONAL, INSCRIBED):
            raise ProjectionError(
                f"the image circle is {self.circle!r}; expected {DIAGONAL}, {INSCRIBED}, or its "
                "centre, radius and picture in pixels, as 960,540,820@1920x1080"
            )

    @classmethod
    def of(cls, fov_deg: float | None = None, circle: str | None = None) -> FisheyeLens:
        """Read what a command line says; None takes what is usual.

        >>> FisheyeLens.of(190, "960,540,820@1920x1080").circle.radius
        820.0

        Raises:
            ProjectionError: If it is no lens.
        """
        stated = _STATED.fullmatch(circle or "")
        drawn: str | ImageCircle = circle or DIAGONAL
        if stated:
            x, y, radius, width, height = stated.groups()
            drawn = ImageCircle(float(x), float(y), float(radius), int(width), int(height))
        return cls(FOV_USUAL if fov_deg is None else fov_deg, drawn)

    def of_size(self, width: int, height: int) -> Fisheye:
        """Return the projection of a picture.

        Args:
            width: Columns of the picture, upright.
            height: Its rows.

        Raises:
            ProjectionError: If the circle is one of pictures of other proportions.
        """
        circle = self.circle
        if not isinstance(circle, ImageCircle):
            diameter = math.hypot(width, height) if circle == DIAGONAL else min(width, height)
            return Fisheye(width, height, width / 2, height / 2, diameter / 2, self.fov_deg)
        if abs(circle.width / circle.height * height / width - 1) > ASPECT_TOLERANCE:
            raise ProjectionError(
                f"the fisheye's image circle is one of pictures of {circle.width}x{circle.height}, "
                f"which does not fit a picture of {width}x{height}"
            )
        across, down = width / circle.width, height / circle.height
        return Fisheye(
            width,
            height,
            circle.centre_x * across,
            circle.centre_y * down,
            circle.radius * max(across, down),
            self.fov_deg,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, for reports and digests."""
        return {"fov_deg": self.fov_deg, "circle": str(self.circle)}
