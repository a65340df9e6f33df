"""What the written file keeps of everything that is no object: the worth of the picture to others.

Reported, not gated: the limit on the share of non-object pixels obscured is the gate's. That one
counts regions; this one reads the written file, and so sees what a feather, a margin or the coding
of a JPEG changes too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

WHITE = 255
ROWS = 256
"""Rows compared at a time: differences of a whole 8K panorama would take 400 MB."""


@dataclass(frozen=True)
class Kept:
    """How the pixels outside of all true objects came through.

    Attributes:
        pixels: How many there are.
        unchanged: Those of them whose three values are the source's.
        squared_error: Sum of the squared differences of all their values, in levels of 255.
    """

    pixels: int
    unchanged: int
    squared_error: float


def kept_outside(
    source: NDArray[np.uint8], written: NDArray[np.uint8], outside: NDArray[np.bool_]
) -> Kept:
    """Compare a written picture with its source where no object is.

    Args:
        source: uint8, shape (H, W, 3).
        written: Likewise.
        outside: Pixels to compare, bool, shape (H, W).

    >>> source = np.zeros((1, 4, 3), np.uint8)
    >>> written = source.copy()
    >>> written[0, 2:] = 2
    >>> kept_outside(source, written, np.array([[True, True, True, False]]))
    Kept(pixels=3, unchanged=2, squared_error=12.0)
    """
    unchanged, squared = 0, 0.0
    for start in range(0, len(source), ROWS):
        rows = slice(start, start + ROWS)
        there = outside[rows]
        difference = source[rows][there].astype(np.int32) - written[rows][there]
        unchanged += int(np.count_nonzero(~difference.any(axis=1)))
        squared += float(np.square(difference).sum())
    return Kept(int(np.count_nonzero(outside)), unchanged, squared)


def utility_kept(pictures: Iterable[Kept | None]) -> dict[str, Any]:
    """Return the share of pixels that stayed as they were, and the PSNR of all of them.

    Args:
        pictures: None for one that cannot tell.

    Returns:
        `unchanged`, None where no picture can tell; `psnr_db` over all pixels of all pictures, None
        also where nothing changed, as it has no bound then; `pictures`, those that can tell.

    >>> utility_kept([Kept(4, 3, 12.0), None])
    {'unchanged': 0.75, 'psnr_db': 48.13, 'pictures': 1}
    >>> utility_kept([Kept(4, 4, 0.0)])
    {'unchanged': 1.0, 'psnr_db': None, 'pictures': 1}
    """
    known = [kept for kept in pictures if kept is not None and kept.pixels]
    pixels = sum(kept.pixels for kept in known)
    error = sum(kept.squared_error for kept in known) / (3 * pixels) if known else 0.0
    return {
        "unchanged": sum(kept.unchanged for kept in known) / pixels if known else None,
        "psnr_db": round(10 * math.log10(WHITE**2 / error), 2) if error else None,
        "pictures": len(known),
    }
