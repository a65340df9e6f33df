"""Pixels of a picture that are hidden or known: a region, and an outline that a person drew."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonymization.detection.finds import ShapeError

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]

FULL = 255
"""Weight of a pixel that is replaced."""


@dataclass(frozen=True)
class Outline:
    """The exact pixels of one object, as a person drew them; checked when made.

    Attributes:
        x0: Column of the picture at which the mask starts.
        y0: Row of the picture at which it starts.
        mask: bool, shape (h, w), at least one pixel of it set.
    """

    x0: int
    y0: int
    mask: Bools

    def __post_init__(self) -> None:
        if self.mask.ndim != 2 or self.mask.dtype != np.bool_ or not self.mask.any():
            raise ShapeError(
                f"an outline is {self.mask.dtype} {self.mask.shape} with {int(self.mask.sum())} "
                "pixels set; expected bool (h, w) with at least one"
            )

    @property
    def box_xyxy(self) -> Floats:
        """The smallest box around the pixels; float32, shape (4,), half-open."""
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        low = np.array([self.x0 + columns[0], self.y0 + rows[0]])
        high = np.array([self.x0 + columns[-1] + 1, self.y0 + rows[-1] + 1])
        return np.asarray(np.concatenate([low, high]), np.float32)

    def trimmed(self) -> Outline:
        """Return the same pixels in the smallest mask that holds them."""
        x0, y0, x1, y1 = (int(v) for v in self.box_xyxy)
        part = self.mask[y0 - self.y0 : y1 - self.y0, x0 - self.x0 : x1 - self.x0]
        return Outline(x0, y0, part.copy())

    def on(self, x0: int, y0: int, x1: int, y1: int) -> Bools:
        """Return the pixels of a crop of the picture that belong to it; bool (y1-y0, x1-x0)."""
        crop = np.zeros((y1 - y0, x1 - x0), bool)
        rows, columns = self.mask.shape
        top, left = max(y0, self.y0), max(x0, self.x0)
        bottom, right = min(y1, self.y0 + rows), min(x1, self.x0 + columns)
        if top < bottom and left < right:
            part = self.mask[top - self.y0 : bottom - self.y0, left - self.x0 : right - self.x0]
            crop[top - y0 : bottom - y0, left - x0 : right - x0] = part
        return crop


class Region:
    """Where one object is obscured: a rectangle of the picture, and which of its pixels.

    Most are boxes and ellipses, of which nobody asks for the pixels one by one; so `full` is made
    when it is asked for.

    Attributes:
        x0: Column of the picture at which the region starts.
        y0: Row of the picture at which it starts.
        shape: Rows and columns of it, h and w.
        faded: Weight of every pixel, uint8, shape (h, w): 255, exactly where `full` is, replaces
            it, 0 leaves it; None where nothing fades.
        corners_xy: Corners of a rotated box in picture pixels, float32 (4, 2), in turn; None for
            other shapes.
        whole: Whether all of the rectangle is fully replaced.
    """

    __slots__ = ("_full", "corners_xy", "faded", "shape", "whole", "x0", "y0")

    def __init__(
        self,
        x0: int,
        y0: int,
        full: Bools | None,
        faded: Bytes | None = None,
        corners_xy: Floats | None = None,
        *,
        shape: tuple[int, int] | None = None,
    ) -> None:
        """Take the pixels, or for a region that is `whole` only its shape.

        Args:
            x0: Column of the picture at which it starts.
            y0: Row of the picture at which it starts.
            full: Pixels that are fully replaced, bool, shape (h, w). None takes those at which
                `faded` is full; without it, all.
            faded: As the attribute.
            corners_xy: As the attribute.
            shape: Rows and columns, where neither array says it.
        """
        self.x0, self.y0, self.faded, self.corners_xy = x0, y0, faded, corners_xy
        self._full = full
        self.whole = full is None and faded is None
        given = full if full is not None else faded
        if given is not None:
            shape = given.shape[0], given.shape[1]
        if shape is None:
            raise ShapeError("a region without pixels or weights needs a shape")
        self.shape = shape

    @property
    def full(self) -> Bools:
        """Pixels that are fully replaced, bool, shape (h, w)."""
        if self._full is None:
            self._full = np.ones(self.shape, np.bool_) if self.faded is None else self.faded == FULL
        return self._full

    @property
    def empty(self) -> bool:
        """Whether it is without pixels."""
        return not (self.shape[0] and self.shape[1])

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of the picture that the region covers."""
        rows, columns = self.shape
        return slice(self.y0, self.y0 + rows), slice(self.x0, self.x0 + columns)

    @property
    def touched(self) -> Bools:
        """Pixels that change at all; bool, shape (h, w)."""
        return self.full if self.faded is None else self.faded > 0

    @property
    def weight(self) -> Floats:
        """Weight of every pixel, float32, shape (h, w): 1 is fully replaced, 0 untouched."""
        whole = self.full if self.faded is None else self.faded / np.float32(FULL)
        return whole.astype(np.float32, copy=False)

    def holds(self, x0: int, y0: int, x1: int, y1: int) -> bool:
        """Tell whether all of a part of the picture is fully replaced; half-open."""
        left, top = x0 - self.x0, y0 - self.y0
        if left < 0 or top < 0:
            return False
        right, bottom = x1 - self.x0, y1 - self.y0
        if bottom > self.shape[0] or right > self.shape[1]:
            return False
        if self.whole:
            return True
        if self.faded is not None:
            return bool(self.faded[top:bottom, left:right].min(initial=FULL) == FULL)
        return bool(self.full[top:bottom, left:right].all())

    def without(self, others: Iterable[Region]) -> Region:
        """Return the region less the pixels that others replace fully."""
        full = self.full.copy()
        faded = None if self.faded is None else self.faded.copy()
        height, width = self.shape
        for other in others:
            x, y = other.x0 - self.x0, other.y0 - self.y0
            rows, columns = other.shape
            top, left = max(y, 0), max(x, 0)
            bottom, right = min(y + rows, height), min(x + columns, width)
            if top < bottom and left < right:
                hides = other.full[top - y : bottom - y, left - x : right - x]
                full[top:bottom, left:right][hides] = False
                if faded is not None:
                    faded[top:bottom, left:right][hides] = 0
        return Region(self.x0, self.y0, full, faded, self.corners_xy)

    def part(self, first: int, end: int, moved: int) -> Region:
        """Return what lies between two columns of the picture, moved by so many; half-open."""
        left, right = max(first, self.x0), min(end, self.x0 + self.shape[1])
        if left >= right:
            return NOWHERE
        cut = slice(left - self.x0, right - self.x0)
        faded = None if self.faded is None else self.faded[:, cut]
        return Region(left + moved, self.y0, self.full[:, cut], faded)

    def trimmed(self) -> Region:
        """Return the region without the rows and columns around it that it does not touch."""
        touched = self.touched
        rows, columns = np.flatnonzero(touched.any(1)), np.flatnonzero(touched.any(0))
        if not rows.size:
            return NOWHERE
        cut = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        return Region(
            self.x0 + int(columns[0]),
            self.y0 + int(rows[0]),
            np.ascontiguousarray(self.full[cut]),
            None if self.faded is None else np.ascontiguousarray(self.faded[cut]),
            self.corners_xy,
        )


NOWHERE = Region(0, 0, None, shape=(0, 0))
"""The region of what lies outside of the picture."""


def hidden_parts(regions: Iterable[Region]) -> list[tuple[int, int, Bools]]:
    """Return first column, first row and pixels of what regions change, as `formats.encode` asks.

    The pixels are bool, shape (h, w).
    """
    return [(where.x0, where.y0, where.touched) for where in regions]
