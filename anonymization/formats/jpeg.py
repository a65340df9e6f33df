"""JPEG without loss outside of what changed: only touched MCUs are encoded again.

A minimum coded unit (MCU) is the smallest square of a JPEG whose pixels depend on no other DCT
block: 8x8 pixels, 16x16 with 4:2:0. Units that hold a changed pixel are encoded from the new
pixels with the source's quantization tables and sampling; every other block keeps its
coefficients bit by bit. The source's markers, scans and trailing bytes are not copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonymization.formats import turbojpeg
from anonymization.formats.jpeg_frame import Frame
from anonymization.formats.turbojpeg import TurboJpegError
from anonymization.products import product

Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]

_UNITS_AT_ONCE = 2048
"""Units that are encoded together, which bounds memory to some 20 MB."""


def _cosines() -> Floats:
    """Return the orthonormal DCT-II of eight samples, float32 (8, 8): frequency, sample."""
    frequency, sample = np.mgrid[:8, :8]
    table = np.cos((2 * sample + 1) * frequency * np.pi / 16) / 2
    table[0] /= np.sqrt(2)
    return np.asarray(table, np.float32)


_DCT = np.kron(_cosines(), _cosines())
"""The same in two dimensions, float32 (64, 64): frequency, sample; both row by row."""


def rewrite(data: bytes, stored: NDArray[Any], touched: Bools, frame: Frame) -> bytes:
    """Return the JPEG with touched units encoded from new pixels, all other blocks as they were.

    Args:
        data: The source file.
        stored: New pixels as the file stores them, uint8, (H, W), (H, W, 3) RGB or (H, W, 4)
            CMYK as Pillow has it.
        touched: Units to encode, bool, (rows, columns) of MCUs; see `blocks.units_of`.
        frame: From `read_frame`.

    Returns:
        A JPEG without metadata.

    Raises:
        TurboJpegError: If the file cannot be transformed, or blocks were left out.
    """
    blocks = _Blocks.encode(stored, touched, frame)
    written = turbojpeg.rewrite(
        data,
        blocks.visit,
        progressive=frame.progressive,
        arithmetic=frame.arithmetic,
        optimize=frame.optimized,
    )
    blocks.check_all_used()
    return written


class _Blocks:
    """New coefficients, and where they go."""

    def __init__(self, coefficients: list[NDArray[np.int16]], touched: Bools, frame: Frame):
        """Take the coefficients of each component, int16 (down, units, across, 64)."""
        self._coefficients = coefficients
        self._components = frame.components
        self._columns = np.nonzero(touched)[1]
        counts = np.count_nonzero(touched, axis=1)
        self._ends = np.cumsum(counts)
        self._starts = self._ends - counts
        unit_rows = -(-frame.height // frame.unit[0])
        if touched.shape[0] != unit_rows:
            raise TurboJpegError(f"{touched.shape[0]} rows of units; the frame has {unit_rows}")
        rows = np.nonzero(counts)[0].tolist()
        self._due = [
            {row * c.down + i for row in rows for i in range(c.down)}
            & set(range(frame.block_rows(c)))
            for c in frame.components
        ]

    @classmethod
    def encode(cls, stored: Bytes, touched: Bools, frame: Frame) -> _Blocks:
        """Encode all touched units, in order of rows, then columns."""
        rows, columns = frame.unit
        parts: list[list[NDArray[np.int16]]] = [[] for _ in frame.components]
        waiting: list[Bytes] = []

        def flush() -> None:
            units = np.concatenate(waiting, axis=1)
            for part, coefficients in zip(parts, _encoded(units, frame), strict=True):
                part.append(coefficients)
            waiting.clear()

        for row in np.nonzero(touched.any(axis=1))[0]:
            waiting.append(_units(stored, int(row), touched[row], rows, columns))
            if sum(units.shape[1] for units in waiting) >= _UNITS_AT_ONCE * columns:
                flush()
        if waiting:
            flush()
        empty = np.empty((1, 0, 1, 64), np.int16)
        return cls([np.concatenate(p, axis=1) if p else empty for p in parts], touched, frame)

    def visit(self, component: int, row: int, blocks: NDArray[np.int16]) -> None:
        """Put the new blocks of one row in place."""
        if row not in self._due[component]:
            return
        shape = self._components[component]
        unit_row, inside = divmod(row, shape.down)
        part = slice(self._starts[unit_row], self._ends[unit_row])
        steps = np.arange(shape.across)
        target = (self._columns[part, None] * shape.across + steps).ravel()
        new = self._coefficients[component][inside, part].reshape(-1, 64)
        real = target < len(blocks)
        blocks[target[real]] = new if real.all() else new[real]
        self._due[component].discard(row)

    def check_all_used(self) -> None:
        """Raise where a row of blocks was never asked for."""
        left = sum(map(len, self._due))
        if left:
            raise TurboJpegError(f"{left} rows of blocks were not replaced")


def _units(stored: Bytes, row: int, wanted: Bools, rows: int, columns: int) -> Bytes:
    """Cut the wanted units out of one row of them, the picture's last pixels repeated outward.

    Returns:
        The units side by side, uint8, shape (rows, units * columns[, C]).
    """
    band = stored[row * rows : (row + 1) * rows]
    short, narrow = rows - band.shape[0], len(wanted) * columns - band.shape[1]
    if short or narrow:
        colours = [(0, 0)] * (band.ndim - 2)
        band = np.pad(band, [(0, short), (0, narrow), *colours], mode="edge")
    cut = band.reshape(rows, len(wanted), columns, *band.shape[2:])
    return np.ascontiguousarray(cut[:, wanted]).reshape(rows, -1, *band.shape[2:])


def _encoded(units: Bytes, frame: Frame) -> Iterator[NDArray[np.int16]]:
    """Yield the coefficients of each component, int16 (down, units, across, 64).

    Args:
        units: As `_units` returns them.
        frame: How the file stores them.
    """
    import cv2

    rows, columns = frame.unit
    count = units.shape[1] // columns
    for plane, component in zip(_planes(units, frame.colorspace), frame.components, strict=True):
        down, across = component.down, component.across
        samples = plane.astype(np.float32)
        if (8 * down, 8 * across) != (rows, columns):
            # Area averaging by whole factors is the mean of each square.
            size = (count * across * 8, down * 8)
            samples = np.asarray(cv2.resize(samples, size, interpolation=cv2.INTER_AREA))
        blocks = samples.reshape(down, 8, count * across, 8).swapaxes(1, 2).reshape(-1, 64)
        steps = product(blocks, (_DCT / component.table[:, None]).T)
        steps[:, 0] -= 8 * 128 / component.table[0]  # samples are stored about 0
        # Baseline codes hold 10 bits of AC and a DC of 11.
        np.clip(np.rint(steps, out=steps), -1023, 1023, out=steps)
        yield steps.astype(np.int16).reshape(down, count, across, 64)


def _planes(units: Bytes, colorspace: str) -> list[NDArray[np.uint8]]:
    """Return the planes of units as the file stores them, each uint8 (rows, columns)."""
    import cv2

    if units.ndim == 2:
        return [units]
    if colorspace in ("CMYK", "YCCK"):
        units = np.bitwise_not(units)  # Adobe stores ink as darkness; Pillow turns it
    black = [units[..., 3]] if units.shape[2] == 4 else []
    colours: Bytes = np.ascontiguousarray(units[..., :3])
    if colorspace == "YCCK":
        colours = np.bitwise_not(colours)
    order = (0, 1, 2)
    if colorspace in ("YCbCr", "YCCK"):
        colours = np.asarray(cv2.cvtColor(colours, cv2.COLOR_RGB2YCrCb), np.uint8)
        order = (0, 2, 1)
    return [*(np.asarray(cv2.extractChannel(colours, i), np.uint8) for i in order), *black]
