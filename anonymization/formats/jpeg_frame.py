"""A JPEG's frame: size, components and tables, as far as blocks are encoded by them."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonymization.formats import turbojpeg
from anonymization.formats.jpeg_markers import (
    ALL_FRAMES,
    ARITHMETIC,
    DHT,
    DQT,
    FRAMES,
    PROGRESSIVE,
    SOS,
    segments,
)
from anonymization.formats.turbojpeg import TurboJpegError

Floats = NDArray[np.float32]

_ZIGZAG = np.array(
    sorted(range(64), key=lambda i: (i // 8 + i % 8, (i // 8 if (i // 8 + i % 8) % 2 else i % 8)))
)
"""Natural position of each coefficient in the order of a file (ITU-T T.81, figure A.6)."""


# Of a standard Huffman table (T.81, annex K.3): class and number, then how many codes per length.
_STANDARD_TABLES = {
    bytes.fromhex(text)
    for text in (
        "0000010501010101010100000000000000",
        "0100030101010101010101010000000000",
        "100002010303020403050504040000017d",
        "1100020102040403040705040400010277",
    )
}


@dataclass(frozen=True)
class Component:
    """One colour plane.

    Attributes:
        across: Blocks of an MCU, horizontally.
        down: Blocks of an MCU, vertically.
        table: float32, shape (64,), quantization steps in natural order.
    """

    across: int
    down: int
    table: Floats


@dataclass(frozen=True)
class Frame:
    """What a JPEG's header says of its blocks.

    Attributes:
        width: Columns as stored.
        height: Rows as stored.
        components: Planes.
        colorspace: One of `turbojpeg.COLORSPACES`.
        progressive: Several scans refine each other.
        arithmetic: Arithmetic codes instead of Huffman's.
        optimized: Its Huffman tables are its own.
    """

    width: int
    height: int
    components: tuple[Component, ...]
    colorspace: str
    progressive: bool
    arithmetic: bool
    optimized: bool

    @property
    def unit(self) -> tuple[int, int]:
        """Rows and columns of pixels of an MCU."""
        down = max(component.down for component in self.components)
        across = max(component.across for component in self.components)
        return 8 * down, 8 * across

    def block_rows(self, component: Component) -> int:
        """Rows of blocks that hold a component's pixels."""
        finer = self.unit[0] // (8 * component.down)
        samples = -(-self.height // finer)
        return -(-samples // 8)


def read_frame(data: bytes) -> Frame:
    """Read what is needed to encode blocks as the source has them.

    Raises:
        TurboJpegError: If the file is of a kind whose blocks cannot be replaced one by one.
    """
    tables: dict[int, Floats] = {}
    found: tuple[int, bytes] | None = None
    standard, behind, scanned = True, 2, 0
    for marker, content in segments(data):
        behind += 4 + len(content)
        if marker == DQT:
            tables |= _quantization(content)
        elif marker == DHT:
            standard = standard and _is_standard(content)
        elif marker == SOS:
            scanned = content[0] if content else 0
        elif marker in ALL_FRAMES:
            found = (marker, content)
    if found is None or found[0] not in FRAMES or len(found[1]) < 6:
        raise TurboJpegError("the frame is missing, lossless or hierarchical")
    marker, content = found
    precision, height, width, count = struct.unpack_from(">BHHB", content)
    # A component keeps the table of its first scan; so none changes where one scan has them all.
    if scanned < count and data.find(bytes([0xFF, DQT]), behind) >= 0:
        raise TurboJpegError("quantization tables change between scans")
    if precision != 8 or len(content) < 6 + 3 * count or count not in (1, 3, 4):
        raise TurboJpegError(f"frames of {count} components of {precision} bits are not handled")
    rows = [content[6 + 3 * i : 9 + 3 * i] for i in range(count)]
    if any(row[2] not in tables for row in rows):
        raise TurboJpegError("a quantization table is missing")
    return Frame(
        width,
        height,
        _components(rows, tables),
        turbojpeg.colorspace(data),
        marker in PROGRESSIVE,
        marker in ARITHMETIC,
        not standard,
    )


def _quantization(content: bytes) -> dict[int, Floats]:
    tables: dict[int, Floats] = {}
    at = 0
    while at < len(content):
        wide, number = content[at] >> 4, content[at] & 15
        size = 128 if wide else 64
        steps = np.frombuffer(content[at + 1 : at + 1 + size], ">u2" if wide else np.uint8)
        if len(steps) != 64 or not steps.all():
            raise TurboJpegError("a quantization table is cut off or has a step of 0")
        natural = np.empty(64, np.float32)
        natural[_ZIGZAG] = steps
        tables[number] = natural
        at += 1 + size
    return tables


def _is_standard(content: bytes) -> bool:
    at = 0
    while at + 17 <= len(content):
        if content[at : at + 17] not in _STANDARD_TABLES:
            return False
        at += 17 + sum(content[at + 1 : at + 17])
    return True


def _components(rows: list[bytes], tables: dict[int, Floats]) -> tuple[Component, ...]:
    if len(rows) == 1:  # a single plane is stored block by block, whatever its sampling says
        return (Component(1, 1, tables[rows[0][2]]),)
    found = tuple(Component(row[1] >> 4, row[1] & 15, tables[row[2]]) for row in rows)
    most_across, most_down = max(c.across for c in found), max(c.down for c in found)
    for one in found:
        if not one.across or not one.down or most_across % one.across or most_down % one.down:
            raise TurboJpegError(f"sampling {one.across}x{one.down} divides no unit evenly")
    return found
