"""What replaces the pixels of an object, given its crop of the picture.

Holds less than the crop did: `blur` and `pixelate` first average it to a coarse grid (a handful of
cells across the object, whatever its size), add noise and quantize; only then is the grid brought
back to size, smoothly or in cells. A plain Gaussian blur, however strong, keeps enough for 95.9 %
re-identification after restoration (Revelio, arXiv 2506.12344); argoverse-api issue 162 and PEERS
name a grid of 5x5 as what practitioners trust. `solid` and `synthetic` take nothing of the source.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anonymization.obscuring.shapes import Region
from anonymization.obscuring.synthetic import plate_for
from anonymization.taxonomy import STRENGTH_MIN, ClassSpec

Floats = NDArray[np.float32]
Pixels = NDArray[Any]

CELL_MIN_PX = 4
"""Smallest mosaic cell: below it, plate characters of 8 px would keep more than two samples."""

NOISE_SHARE = 0.02
"""Standard deviation of the noise on each cell, as a share of full scale: 5 levels of 255."""

QUANTUM_SHARE = 1 / 32
"""Step to which cells are rounded, as a share of full scale: 8 levels of 256."""


def full_scale(pixels: Pixels) -> float:
    """Return the value of white: of the type, or for floats 1 or the largest that is there."""
    if pixels.dtype != np.float32:
        return float(np.iinfo(pixels.dtype).max)
    finite = pixels[np.isfinite(pixels)]
    return max(1.0, float(finite.max(initial=0.0)))


def cell_px(spec: ClassSpec, side: float) -> float:
    """Return the side in pixels of the cells to which an object is averaged.

    Linear interpolation spans two cells, so that a blur kernel of `strength` times the object's
    shorter side has cells of half of that. `solid` and `synthetic` keep nothing: infinite.

    >>> cell_px(ClassSpec("box", "box", strength=1.0), 40.0)
    20.0
    """
    if spec.method in ("solid", "synthetic"):
        return float("inf")
    strength = max(spec.strength, STRENGTH_MIN)
    cell = strength * side if spec.method == "pixelate" else strength * side / 2
    return max(cell, CELL_MIN_PX)


def replacement(
    crop: Pixels,
    spec: ClassSpec,
    side: float,
    noise: np.random.Generator,
    *,
    scale: float | None = None,
) -> Pixels:
    """Return what replaces a crop, of its shape and type.

    Args:
        crop: uint8, uint16 or float32, shape (h, w) or (h, w, C).
        spec: Method and strength of the class.
        side: Shorter side of the object's box in pixels.
        noise: Where the cells' noise comes from.
        scale: Value of white; None takes it from the crop.
    """
    if spec.method == "solid":
        return np.zeros_like(crop)
    white = full_scale(crop) if scale is None else scale
    grid = coarse_grid(crop, cell_px=cell_px(spec, side), noise=noise, scale=white)
    # Whole numbers before enlarging: float pixels of full size would take most of the time.
    if spec.method == "pixelate":
        return _resized(grid, crop, cv2.INTER_NEAREST)
    return _resized(_smooth(grid, crop), crop, cv2.INTER_LINEAR)


def plate_on(where: Region, random: np.random.Generator) -> NDArray[np.uint8]:
    """Return a drawn plate for a region; uint8 (h, w, 3), RGB."""
    height, width = where.full.shape
    corners = where.corners_xy
    if corners is not None:
        corners = corners - np.array([where.x0, where.y0], np.float32)
    return plate_for(height, width, random, corners_xy=corners)


def drawn_on(crop: Pixels, picture: NDArray[np.uint8], scale: float, *, cmyk: bool) -> Pixels:
    """Return a drawn RGB picture in the crop's channels and type; takes nothing from its pixels."""
    rgb = picture.astype(np.float32) / 255
    gray = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    channels = 1 if crop.ndim == 2 else crop.shape[2]
    opaque = np.ones_like(gray)[..., None]
    if channels == 4 and cmyk:
        drawn = np.concatenate([np.zeros_like(rgb), 1 - gray[..., None]], axis=2)
    elif channels in (3, 4):
        drawn = np.concatenate([rgb, opaque][: channels - 2], axis=2)
    else:
        drawn = np.concatenate([gray[..., None]] + [opaque] * (channels - 1), axis=2)
    return as_type(drawn * np.float32(scale), crop).reshape(crop.shape)


def coarse_grid(
    crop: Pixels, *, cell_px: float, noise: np.random.Generator, scale: float
) -> Pixels:
    """Average a crop into cells, add noise and quantize: from here on, detail is gone.

    Args:
        crop: Shape (h, w) or (h, w, C), uint8, uint16 or float32.
        cell_px: Wanted side of a cell.
        noise: Where the noise comes from.
        scale: Value of white.

    Returns:
        Of the crop's type, shape (rows, columns[, C]), in the range from 0 to `scale`.
    """
    height, width = crop.shape[:2]
    columns, rows = max(1, int(width / cell_px)), max(1, int(height / cell_px))
    means = _averaged(crop, rows, columns)
    step = (scale if crop.dtype == np.float32 else scale + 1) * QUANTUM_SHARE
    added = noise.normal(step / 2, NOISE_SHARE * scale, means.shape)
    if crop.dtype == np.float32:
        return np.clip(np.floor((means + added) / step) * step, 0, scale).astype(np.float32)
    # Cut at both ends by OpenCV; then what is less than a step goes.
    kind = cv2.CV_8U if crop.dtype == np.uint8 else cv2.CV_16U
    grid: Pixels = cv2.add(means, added, dtype=kind).reshape(means.shape)
    grid &= crop.dtype.type(scale + 1 - step)
    return grid


SAMPLES = 8
"""A larger cell is averaged from so many samples each way, each of the four pixels around it: off
by less than the noise that is added, at a cost that does not grow with the object."""


def _averaged(crop: Pixels, rows: int, columns: int) -> Pixels:
    """Return the mean of each cell, of the crop's type, shape (rows, columns[, C])."""
    if crop.dtype == np.float32:
        crop = np.nan_to_num(crop, nan=0.0, posinf=0.0, neginf=0.0)
    height, width = crop.shape[:2]
    wanted = min(width, columns * SAMPLES), min(height, rows * SAMPLES)
    sampled = crop
    if wanted != (width, height):
        sampled = cv2.resize(crop, wanted, interpolation=cv2.INTER_LINEAR)
    small = cv2.resize(sampled, (columns, rows), interpolation=cv2.INTER_AREA)
    return small.reshape((rows, columns, *crop.shape[2:]))


def _resized(grid: Pixels, crop: Pixels, how: int) -> Pixels:
    height, width = crop.shape[:2]
    large: Pixels = cv2.resize(grid, (width, height), interpolation=how)
    return large.reshape(crop.shape)


SMOOTHING = 4
"""The grid is enlarged this many times and averaged there over a cell and more, which hides its
cells as a full-size blur would, at a fraction of its cost."""


def _smooth(grid: Pixels, crop: Pixels) -> Pixels:
    """Return a grid finer and without visible cells."""
    rows, columns = grid.shape[:2]
    finer = (
        min(columns * SMOOTHING, max(columns, crop.shape[1])),
        min(rows * SMOOTHING, max(rows, crop.shape[0])),
    )
    middle = cv2.resize(grid, finer, interpolation=cv2.INTER_LINEAR)
    smooth: Pixels = cv2.blur(middle, (SMOOTHING + 1,) * 2, borderType=cv2.BORDER_REPLICATE)
    return smooth


def as_type(values: Pixels, like: Pixels) -> Pixels:
    """Return values in the type of other pixels, rounded for whole ones; in range they must be."""
    if values.dtype == like.dtype:
        return values
    whole = values if like.dtype == np.float32 else np.rint(values)
    return np.asarray(whole.astype(like.dtype))
