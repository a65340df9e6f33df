"""Masks on the pixels of a picture: sampled to size, grown, and how far away they are.

What a mask covers is written as runs: stretches of pixels in a row. A large object has a few
hundred of them where it has a hundred thousand pixels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from anonymization.obscuring.figures import Grid
from anonymization.products import product

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Offsets = NDArray[np.signedinteger[Any]]


class Runs(NamedTuple):
    """Pixels of a crop, as stretches of its rows, in the order of reading; int64, shape (N,).

    Attributes:
        rows: Row of each.
        starts: Its first column.
        ends: The column behind its last; larger than the first.
    """

    rows: Ints
    starts: Ints
    ends: Ints

    def select(self, which: Bools) -> Runs:
        """Return some of them."""
        return Runs(self.rows[which], self.starts[which], self.ends[which])


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


_HAIR_PX = 1e-3
"""Rounding must not leave a pixel clear."""


def runs_of(mask: Floats, box_xyxy: Floats, grid: Grid, threshold: float) -> Runs:
    """Return the pixels of a crop at which a mask, as `paste_mask` samples it, reaches a threshold.

    Between the centres of two cells a row of the mask is a straight line, so where it crosses the
    threshold is worked out, and no pixel is sampled.

    Args:
        mask: float32, shape (M, M), probability per cell of the box.
        box_xyxy: float32, shape (4,), box that the mask spans, picture pixels.
        grid: The crop.
        threshold: Above 0.
    """
    x_low, y_low, x_high, y_high = (float(v) for v in box_xyxy)
    cells = mask.shape[1]
    height, width = grid.y1 - grid.y0, grid.x1 - grid.x0
    # A cell of nothing on each side, so that what starts in a row ends in it.
    nodes = np.zeros((height, cells + 2), np.float32)
    down = _sampling(y_low, y_high, mask.shape[0], first=grid.y0, count=height)
    nodes[:, 1:-1] = product(down, mask)
    line = nodes.reshape(-1)
    reached = line >= threshold
    before = np.flatnonzero(reached[1:] != reached[:-1])
    rows, column = np.divmod(before, cells + 2)
    low, high = line[before].astype(np.float64), line[before + 1].astype(np.float64)
    crossing = column - 0.5 + (threshold - low) / (high - low)  # in cells from the box's left
    centre = x_low + crossing * (max(x_high - x_low, 1e-6) / cells) - grid.x0 - 0.5
    starts = np.maximum(np.ceil(centre[0::2] - _HAIR_PX).astype(np.int64), 0)
    ends = np.minimum(np.floor(centre[1::2] + _HAIR_PX).astype(np.int64) + 1, width)
    return Runs(rows[0::2], starts, ends).select(starts < ends)


def runs_in(inside: Bools) -> Runs:
    """Return the pixels that are set of a crop; bool (H, W)."""
    height, width = inside.shape
    # A clear column between the rows, so that no run goes on into the next one.
    pitch = width + 1
    line = np.zeros(1 + height * pitch, np.bool_)
    line[1:].reshape(height, pitch)[:, :width] = inside
    edges = np.flatnonzero(line[1:] != line[:-1])
    rows, starts = np.divmod(edges[0::2], pitch)
    return Runs(rows, starts, edges[1::2] - rows * pitch)


def grown(runs: Runs, margin: float, *, height: int, width: int) -> Bools:
    """Return the pixels whose centre is at most the margin away from one of the runs.

    Between two runs of a row that both reach over what lies between them, that counts as theirs:
    a hollow narrower than the margins on both sides is hidden, not left as a speck.

    Args:
        runs: In a crop.
        margin: Pixels.
        height: Rows of the crop.
        width: Columns of it.

    Returns:
        bool, shape (height, width).

    >>> grown(runs_in(np.array([[0, 0, 1, 0, 0]], bool)), 1, height=1, width=5).astype(int).tolist()
    [[0, 1, 1, 1, 0]]
    """
    hidden = np.zeros((height, width), np.bool_)
    if not len(runs.rows):
        return hidden
    radius = float(np.float32(margin))
    around = int(radius)
    runs = _joined(runs, 2 * around)
    order, heads = _strands(runs)
    work = (2 * around + 1) * (len(order) + 2 * around * len(heads))
    if len(heads) > STRANDS_MAX or work > max(height * width, WORK_MIN):
        return np.asarray(distance_from(_drawn(runs, height, width)) <= np.float32(margin))
    # A hair more: rounding must not leave a pixel clear.
    kind = np.int16 if width + 4 * around < 2**15 else np.int32
    down = np.arange(-around, around + 1)
    across = np.sqrt(radius**2 - down**2 + 1e-6).astype(kind)
    rows, starts, ends = (each[order] for each in runs)
    right = np.clip(width - _furthest(width - ends, heads, across, width), 0, width)
    left = np.minimum(np.maximum(_furthest(starts, heads, across, width), 0), right)
    # Each strand goes on above its first row and below its last.
    tops = rows[heads] - around
    lengths = np.diff(heads, append=len(rows)) + 2 * around
    steps, first = _steps(width), 0
    for top, length in zip(tops.tolist(), lengths.tolist(), strict=True):
        low, high = max(top, 0), min(top + length, height)
        part = slice(first + low - top, first + high - top)
        hidden[low:high] |= steps[left[part]] ^ steps[right[part]]
        first += length
    return hidden


def _steps(width: int) -> Bools:
    """Return for each column the columns from it on; bool (width + 1, width), a view."""
    line = np.zeros(2 * width, np.bool_)
    line[width:] = True
    # Row i starts i places before the ones.
    return np.ndarray((width + 1, width), np.bool_, line, width, (-1, 1))


STRANDS_MAX = 64
"""A mask of more pieces is dust, for which a distance for every pixel is cheaper."""

WORK_MIN = 2**16
"""Rows times distances between rows that are compared at any size; more only where the crop has as
many pixels, as with a margin much wider than the object."""


def _joined(runs: Runs, gap: int) -> Runs:
    """Return runs of which those in a row that lie no further apart are one."""
    apart = np.ones(len(runs.rows) + 1, np.bool_)
    same = runs.rows[1:] == runs.rows[:-1]
    np.logical_not(same & (runs.starts[1:] - runs.ends[:-1] <= gap), out=apart[1:-1])
    if apart.all():
        return runs
    first, last = apart[:-1], apart[1:]
    return Runs(runs.rows[first], runs.starts[first], runs.ends[last])


def _strands(runs: Runs) -> tuple[Ints, Ints]:
    """Sort runs into strands: of rows that follow on each other, each run touching the next.

    Returns:
        The runs' positions, strand by strand; and where in them each strand starts.
    """
    rows = runs.rows
    in_row = np.arange(len(rows)) - np.searchsorted(rows, rows)  # how many are to the left of it
    order = np.argsort(in_row, kind="stable")
    in_row, rows = in_row[order], rows[order]
    starts, ends = runs.starts[order], runs.ends[order]
    follows = (in_row[1:] == in_row[:-1]) & (rows[1:] == rows[:-1] + 1)
    follows &= (starts[1:] <= ends[:-1]) & (ends[1:] >= starts[:-1])
    return order, np.concatenate([[0], np.flatnonzero(~follows) + 1])


def _furthest(ends: Ints, heads: Ints, across: Offsets, width: int) -> Offsets:
    """Return the leftmost column that each row in and around a strand reaches.

    Each run stands for itself in the rows above and below, longer or shorter as a disc is. As each
    touches the next, a row has no gap between the leftmost and the rightmost that is reached.

    Args:
        ends: Columns at which the rows of all strands start, shape (N,).
        heads: Where in them each of S strands starts, shape (S,).
        across: By how much a row reaches further, by the distance between rows, shape (2 R + 1,).
        width: Columns of the crop; a row that reaches nothing gets more.

    Returns:
        Of the type of `across`, shape (N + 2 R S,): R rows above each strand and R below it too.
    """
    wide = len(across) - 1
    line = np.full(len(ends) + wide * (len(heads) + 1), width + wide + 1, across.dtype)
    strand = np.zeros(len(ends), np.int64)
    strand[heads] = 1
    line[np.arange(len(ends)) + wide * np.cumsum(strand)] = ends
    # Row i holds the strands moved up by i rows; between them lie as many that reach nothing.
    moved: Offsets = np.ndarray((wide + 1, len(line) - wide), line.dtype, line, 0, line.strides * 2)
    return np.asarray(np.minimum.reduce(moved - across[:, None], axis=0))


def _drawn(runs: Runs, height: int, width: int) -> Bools:
    """Return the pixels of some runs, between any two of which one is clear; bool (H, W)."""
    pitch = width + 1
    changes = np.zeros(height * pitch, np.int8)
    changes[runs.rows * pitch + runs.starts] = 1
    changes[runs.rows * pitch + runs.ends] = -1
    inside = np.cumsum(changes, dtype=np.int8, out=changes).view(np.bool_)
    return inside.reshape(height, pitch)[:, :width]


def distance_from(inside: Bools) -> Floats:
    """Return the distance in pixels of each pixel's centre to the nearest one inside."""
    outside = np.logical_not(inside).view(np.uint8)
    return np.asarray(cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE))
