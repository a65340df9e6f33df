"""Masks on the pixels of a picture: sampled to size, grown, and how far away they are."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from anonymization.products import product

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


def paste_mask(
    mask: Floats, box_xyxy: Floats, *, x0: int, y0: int, height: int, width: int
) -> Floats:
    """Sample a small mask at the centres of picture pixels, bilinear, 0 outside of its box.

    As torchvision's `paste_masks_in_image`, without rounding the box to whole pixels first.

    Args:
        mask: float32, shape (M, M), probability per cell of the box.
        box_xyxy: float32, shape (4,), box that the mask spans, picture pixels.
        x0: First column to sample.
        y0: First row to sample.
        height: Rows to sample.
        width: Columns to sample.

    Returns:
        float32, shape (height, width).
    """
    x_low, y_low, x_high, y_high = (float(v) for v in box_xyxy)
    across = _sampling(x_low, x_high, mask.shape[1], first=x0, count=width)
    down = _sampling(y_low, y_high, mask.shape[0], first=y0, count=height)
    return product(product(down, mask), across.T)


def _sampling(low: float, high: float, cells: int, *, first: int, count: int) -> Floats:
    """Return bilinear weights of cells per pixel centre; float32 (count, cells)."""
    centres = np.arange(first, first + count) + 0.5
    position = np.asarray((centres - low) / max(high - low, 1e-6) * cells - 0.5, np.float32)
    weights = np.abs(position[:, None] - np.arange(cells, dtype=np.float32))
    return np.asarray(np.maximum(np.subtract(1, weights, out=weights), 0, out=weights))


def grown(inside: Bools, margin: float) -> Bools:
    """Return the pixels whose centre is at most the margin away from one inside.

    Each run of pixels in a row stands for itself in the rows above and below, longer or shorter
    as a disc is. That is cheaper than a distance for every pixel, unless there are many runs.

    Args:
        inside: bool, shape (H, W).
        margin: Pixels.

    Returns:
        bool, shape (H, W).

    >>> grown(np.array([[0, 0, 1, 0, 0]], bool), 1).astype(int).tolist()
    [[0, 1, 1, 1, 0]]
    """
    height, width = inside.shape
    # A clear column between the rows, so that no run goes on into the next one.
    pitch = width + 1
    line = np.zeros(1 + height * pitch, np.bool_)
    line[1:].reshape(height, pitch)[:, :width] = inside
    edges = np.flatnonzero(line[1:] != line[:-1])
    rows, starts = np.divmod(edges[0::2, None], pitch)
    ends = edges[1::2, None] - rows * pitch
    radius = float(np.float32(margin))
    down = np.arange(-int(radius), int(radius) + 1)
    # A hair more: rounding must not leave a pixel clear.
    across = np.sqrt(radius**2 - down**2 + 1e-6).astype(np.int64)
    if rows.size * down.size > inside.size:
        return np.asarray(distance_from(inside) <= np.float32(margin))
    reached = rows + down
    seen = (reached >= 0) & (reached < height)
    first = reached * pitch
    changes = np.zeros(height * pitch, np.int32)
    one = np.int32(1)  # of the array's own type, for which NumPy is forty times as fast
    np.add.at(changes, (first + np.maximum(starts - across, 0))[seen], one)
    np.subtract.at(changes, (first + np.minimum(ends + across, width))[seen], one)
    runs = np.cumsum(changes, dtype=np.int32, out=changes).reshape(height, pitch)
    return np.asarray(runs[:, :width] > 0)


def distance_from(inside: Bools) -> Floats:
    """Return the distance in pixels of each pixel's centre to the nearest one inside."""
    outside = np.logical_not(inside).view(np.uint8)
    return np.asarray(cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE))
