"""Which blocks of a picture changed: 8 x 8 pixels in the order of the file.

Every unit of a JPEG (MCU) is made of such blocks, whatever its sampling.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from anonymization.formats.pixels import Native, as_stored

Bools = NDArray[np.bool_]
Part = tuple[int, int, Bools]
"""First column, first row and pixels, bool (h, w), of a part of an upright picture."""

BLOCK = 8


def blocks_of(parts: Iterable[Part], shape: tuple[int, int], orientation: int) -> Bools:
    """Return the blocks that hold a pixel of some parts.

    Args:
        parts: Of the upright picture.
        shape: Its rows and columns.
        orientation: As for `upright`.

    Returns:
        bool, shape (rows, columns) of blocks; the last ones may stick out of the picture.
    """
    rows, columns = shape[::-1] if orientation in (5, 6, 7, 8) else shape
    blocks = np.zeros((-(-rows // BLOCK), -(-columns // BLOCK)), np.bool_)
    for x0, y0, mask in parts:
        height, width = mask.shape
        if not (height and width):
            continue
        left, right = x0, shape[1] - x0 - width  # columns beside it
        above, below = y0, shape[0] - y0 - height
        top, first = {
            2: (above, right),
            3: (below, right),
            4: (below, left),
            5: (left, above),
            6: (right, above),
            7: (right, below),
            8: (left, below),
        }.get(orientation, (above, left))
        _mark(blocks, np.asarray(as_stored(mask, orientation)), top, first)
    return blocks


def blocks_that_differ(before: Native, after: Native) -> Bools:
    """Return the blocks in which two pictures in the order of the file differ.

    Args:
        before: Shape (H, W) or (H, W, C).
        after: The same shape and type.

    Returns:
        As `blocks_of`.
    """
    differs = np.asarray(before != after)
    if differs.ndim == 3:
        differs = np.logical_or.reduce([differs[..., i] for i in range(differs.shape[2])])
    blocks = np.zeros(tuple(-(-side // BLOCK) for side in differs.shape), np.bool_)
    if differs.size:
        _mark(blocks, differs, 0, 0)
    return blocks


def _mark(blocks: Bools, mask: Bools, y0: int, x0: int) -> None:
    """Mark the blocks that hold a pixel of a mask whose first one lies at a place."""
    top, down = divmod(y0, BLOCK)
    left, across = divmod(x0, BLOCK)
    height, width = mask.shape
    rows, columns = -(-(down + height) // BLOCK), -(-(across + width) // BLOCK)
    padded = np.zeros((rows * BLOCK, columns * BLOCK), np.bool_)
    padded[down : down + height, across : across + width] = mask
    # Eight pixels of a row are one number.
    eights = padded.view(np.uint64).reshape(rows, BLOCK, columns)
    blocks[top : top + rows, left : left + columns] |= np.bitwise_or.reduce(eights, axis=1) != 0


def units_of(
    blocks: Bools, unit: tuple[int, int], shape: tuple[int, ...], *, at: tuple[int, int] = (0, 0)
) -> Bools:
    """Return the units of a part of a picture that hold a marked block.

    Args:
        blocks: Of the whole picture.
        unit: Rows and columns of pixels of a unit, multiples of `BLOCK`.
        shape: Rows and columns of the part.
        at: Its first row and column; where they are no multiples of `BLOCK`, a unit beside a marked
            block may count too.

    Returns:
        bool, shape (rows, columns) of units; the last ones may stick out of the picture.
    """
    if at[0] % BLOCK or at[1] % BLOCK:
        # A unit then reaches one block further down and to the right.
        wider = np.pad(blocks, ((0, 1), (0, 1)))
        wider[:-1] |= wider[1:]
        wider[:, :-1] |= wider[:, 1:]
        blocks = wider
    down, across = unit[0] // BLOCK, unit[1] // BLOCK
    rows, columns = -(-shape[0] // unit[0]), -(-shape[1] // unit[1])
    part = blocks[at[0] // BLOCK :, at[1] // BLOCK :][: rows * down, : columns * across]
    missing = rows * down - part.shape[0], columns * across - part.shape[1]
    if any(missing):
        part = np.pad(part, ((0, missing[0]), (0, missing[1])))
    return np.asarray(part.reshape(rows, down, columns, across).any(axis=(1, 3)))
