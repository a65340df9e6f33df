"""From the drawn street to what a sensor would record: night, lamps, blur and noise."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from data.street.canvas import Pixels
from data.street.config import StreetConfig

_CELL = 8
"""Light varies slowly: it is worked out on a grid of 8 x 8 pixels."""
_MOON = np.array([0.78, 0.88, 1.12], dtype=np.float32)
_SODIUM = np.array([1.1, 0.92, 0.66], dtype=np.float32)
_LAMPS = 4


@dataclass(frozen=True)
class Exposure:
    """How one picture was taken.

    Attributes:
        daylight: `day` or `night`.
        blur: `none`, `motion` or `defocus`.
        blur_px: Radius of the blur in pixels.
        noise: Standard deviation of the noise in grey levels.
    """

    daylight: str
    blur: str
    blur_px: float
    noise: float


def draw_exposure(rng: np.random.Generator, config: StreetConfig, *, night: bool) -> Exposure:
    """Draw how one frame is taken."""
    kinds = ("motion", "defocus")
    blurred = rng.random() < config.blur_share
    kind = kinds[int(rng.integers(2))]
    radius = float(rng.uniform(0.4, 1.0)) * config.blur_px * config.width / 512
    noise = config.noise * float(rng.uniform(0.5, 1.2)) * (1.6 if night else 1.0)
    return Exposure(
        "night" if night else "day", kind if blurred else "none", radius if blurred else 0.0, noise
    )


def expose(
    pixels: Pixels,
    exposure: Exposure,
    rng: np.random.Generator,
    *,
    darkness: float,
    headlamps: NDArray[np.float64],
) -> Pixels:
    """Return the picture that a camera takes of the drawn street.

    Args:
        pixels: Drawn street, uint8, shape (H, W, 3).
        exposure: How it is taken.
        rng: Places the street lamps and makes the noise.
        darkness: Share of the daylight that night takes away.
        headlamps: x, y and radius of lit lamps in pixels, shape (N, 3).

    Returns:
        uint8, shape (H, W, 3).
    """
    if exposure.daylight == "night":
        pixels = _darken(pixels, rng, darkness=darkness, headlamps=headlamps)
    else:
        gain = float(rng.uniform(0.86, 1.1))
        pixels = cv2.convertScaleAbs(pixels, alpha=gain)  # type: ignore[assignment]
    return _add_noise(_blur(pixels, exposure, rng), exposure.noise, rng)


def _darken(
    pixels: Pixels, rng: np.random.Generator, *, darkness: float, headlamps: NDArray[np.float64]
) -> Pixels:
    height, width = pixels.shape[:2]
    y, x = np.mgrid[0 : height // _CELL + 1, 0 : width // _CELL + 1].astype(np.float32) * _CELL
    light = np.ones((*y.shape, 1), dtype=np.float32) * _MOON * (1 - darkness)
    for _ in range(_LAMPS):
        cx, cy = rng.uniform(0, width), rng.uniform(0.3, 0.9) * height
        spread = rng.uniform(0.12, 0.3) * width
        pool = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * spread**2))
        light += pool[..., None] * _SODIUM * darkness * float(rng.uniform(0.4, 0.9))
    gain = cv2.resize(np.minimum(light, 1.05), (width, height))
    lit = cv2.multiply(pixels, gain, dtype=cv2.CV_8U)
    glow = np.zeros(y.shape, dtype=np.float32)
    for cx, cy, radius in headlamps:
        spread = max(2.2 * radius, _CELL)
        glow += np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * spread**2)).astype(np.float32)
    halo = cv2.resize(np.minimum(glow, 1) * 130 * darkness, (width, height))
    return cv2.add(lit, cv2.merge([halo, halo, halo * 0.8]), dtype=cv2.CV_8U)  # type: ignore[return-value]


def _blur(pixels: Pixels, exposure: Exposure, rng: np.random.Generator) -> Pixels:
    if exposure.blur == "defocus" and exposure.blur_px > 0.2:
        return cv2.GaussianBlur(pixels, (0, 0), exposure.blur_px)  # type: ignore[return-value]
    if exposure.blur == "motion" and exposure.blur_px > 0.2:
        length = 2 * int(np.ceil(exposure.blur_px)) + 1
        angle = float(rng.uniform(-0.5, 0.5))
        kernel = np.zeros((length, length), dtype=np.float32)
        steps = np.linspace(-exposure.blur_px, exposure.blur_px, 4 * length)
        columns = np.rint(length // 2 + steps * np.cos(angle)).astype(int)
        rows = np.rint(length // 2 + steps * np.sin(angle)).astype(int)
        np.add.at(kernel, (rows, columns), 1 / len(steps))
        return cv2.filter2D(pixels, -1, kernel, borderType=cv2.BORDER_REPLICATE)  # type: ignore[return-value]
    return pixels


def _add_noise(pixels: Pixels, deviation: float, rng: np.random.Generator) -> Pixels:
    if deviation <= 0:
        return pixels
    noise = rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(deviation)
    return cv2.add(pixels, noise, dtype=cv2.CV_8U)  # type: ignore[return-value]
