"""The camera's geometry: from metres in the street to pixels in the picture.

Street coordinates: x to the right, y up from the ground, z ahead, all in metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """A pinhole camera that looks along z, level with the ground.

    Attributes:
        width: Pixels of the picture.
        height: Pixels of the picture.
        focal: Focal length in pixels.
        horizon: Row of the horizon in pixels.
        eye_m: Height of the camera above the ground.
        z_m: How far the camera has moved ahead.
        x_m: Sideways place of the camera.
    """

    width: int
    height: int
    focal: float
    horizon: float
    eye_m: float
    z_m: float = 0.0
    x_m: float = 0.0

    def scale(self, z: float) -> float:
        """Return pixels per metre at street depth `z`."""
        return self.focal / max(z - self.z_m, 1e-3)

    def project(self, points: Points) -> Points:
        """Project street points of shape (N, 3) to pixels of shape (N, 2).

        >>> view = View(width=100, height=60, focal=50, horizon=30, eye_m=1.5)
        >>> view.project(np.array([[0.0, 0.0, 5.0]])).tolist()
        [[50.0, 45.0]]
        """
        scale = self.focal / np.maximum(points[:, 2] - self.z_m, 1e-3)
        x = self.width / 2 + (points[:, 0] - self.x_m) * scale
        y = self.horizon - (points[:, 1] - self.eye_m) * scale
        return np.stack([x, y], axis=1)

    def ground(self, x: float, z: float) -> tuple[float, float]:
        """Return the pixel of the ground point (x, z)."""
        point = self.project(np.array([[x, 0.0, z]]))[0]
        return float(point[0]), float(point[1])
