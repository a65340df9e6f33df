"""Brush regions: Label Studio's run lengths, read and written without unpacking four channels.

Label Studio stores a brush as the RGBA pixels of a canvas, row by row, packed as in
https://github.com/thi-ng/umbrella (package rle-pack): a header (number of values in 32 bits, word
size less one in 5, four widths of run lengths less one in 4 each), then records: one bit (1 a
run, 0 literals), two bits that choose the width, the length less one, and one value for a run or
each value of the literals. Only the alpha channel says where the brush was.

The label-studio-sdk ships `decode_rle` and `encode_rle`, which tests use as the oracle. They
unpack every channel of every pixel: 0.13 s to read a brush on a picture of 1920x1080, where this
takes 0.014 s, and a project holds tens of thousands. Shapes: H rows, W columns of the upright
picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from anonymization.errors import BlurloopError

WORD_BITS = 8
RUN_BITS = (3, 4, 8, 16)
"""Widths that Label Studio's editor and SDK write."""
_HEADER_BITS = 32 + 5 + 4 * 4
_BYTES = tuple(f"{value:08b}" for value in range(256))


class BrushError(BlurloopError):
    """A brush cannot be read."""


def rle_to_mask(rle: Sequence[int], *, height: int, width: int) -> NDArray[np.bool_]:
    """Draw a brush.

    Args:
        rle: Bytes as Label Studio stores them, 0 to 255 each.
        height: Rows of the picture.
        width: Columns of the picture.

    Returns:
        bool, shape (height, width): pixels with any opacity, as an edge that the browser faded
        belongs to the object.

    Raises:
        BrushError: If the bytes are cut off, or are those of a picture of another size.

    >>> rle_to_mask(mask_to_rle(np.eye(3, dtype=bool)), height=3, width=3).astype(int).tolist()
    [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    """
    try:
        bits = "".join(map(_BYTES.__getitem__, rle))
    except (IndexError, TypeError) as error:
        raise BrushError(f"a brush holds a value that is no byte: {error}") from error
    count, widths = _header(bits)
    if count != 4 * height * width:
        raise BrushError(
            f"a brush has {count} values; a picture of {width}x{height} has {4 * height * width}"
        )
    alpha = np.zeros(height * width, np.uint8)
    try:
        _fill(alpha, bits, widths)
    except ValueError as error:
        raise BrushError("a brush is cut off in the middle of a run") from error
    return (alpha > 0).reshape(height, width)


def _header(bits: str) -> tuple[int, tuple[int, ...]]:
    if len(bits) < _HEADER_BITS:
        raise BrushError(f"a brush of {len(bits)} bits has no header")
    word_bits = int(bits[32:37], 2) + 1
    if word_bits != WORD_BITS:
        raise BrushError(f"a brush has words of {word_bits} bits; expected {WORD_BITS}")
    widths = tuple(int(bits[at : at + 4], 2) + 1 for at in range(37, _HEADER_BITS, 4))
    return int(bits[:32], 2), widths


def _fill(alpha: NDArray[np.uint8], bits: str, widths: tuple[int, ...]) -> None:
    """Write the runs' alpha values: value i of the canvas is channel i % 4 of pixel i // 4."""
    at, start, count = _HEADER_BITS, 0, 4 * len(alpha)
    while start < count:
        is_run = bits[at] == "1" if at < len(bits) else int("", 2)
        size = widths[int(bits[at + 1 : at + 3], 2)]
        at += 3
        end = min(start + 1 + int(bits[at : at + size], 2), count)
        at += size
        if is_run:
            alpha[start // 4 : end // 4] = int(bits[at : at + WORD_BITS], 2)
            at += WORD_BITS
        else:
            length = (end - start) * WORD_BITS
            if at + length > len(bits):
                raise ValueError("cut off")
            values = bits[at : at + length]
            found = [
                int(values[i : i + WORD_BITS], 2)
                for i in range((3 - start) % 4 * WORD_BITS, length, 4 * WORD_BITS)
            ]
            alpha[start // 4 : start // 4 + len(found)] = found
            at += length
        start = end


def mask_to_rle(mask: NDArray[np.bool_]) -> list[int]:
    """Return the bytes that Label Studio stores for a brush over these pixels.

    Args:
        mask: bool, shape (H, W).
    """
    flat = np.ascontiguousarray(mask, dtype=bool).ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff(np.concatenate([[0], edges, [len(flat)]])) * 4
    records = [f"{4 * len(flat):032b}{WORD_BITS - 1:05b}"]
    records += [f"{size - 1:04b}" for size in RUN_BITS]
    inside = bool(flat[0])
    for length in lengths.tolist():
        records += _run(length, _BYTES[255 if inside else 0])
        inside = not inside
    bits = "".join(records)
    bits += "0" * (-len(bits) % 8)
    return list(int(bits, 2).to_bytes(len(bits) // 8, "big"))


def _run(length: int, value: str) -> list[str]:
    records = []
    longest = 1 << RUN_BITS[-1]
    while length > 0:
        part = min(length, longest)
        choice = next(i for i, size in enumerate(RUN_BITS) if part <= 1 << size)
        records.append(f"1{choice:02b}{part - 1:0{RUN_BITS[choice]}b}{value}")
        length -= part
    return records
