"""A JPEG's markers: its segments, what kind of frame it has, how many scans, which colours."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from anonymization.formats.turbojpeg import SCANS_MAX

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
APP0, APP1, APP2, APP13, APP14, COM = 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE
DHT, SOS, DQT = 0xC4, 0xDA, 0xDB
FRAMES = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}
"""Sequential and progressive, Huffman and arithmetic; not lossless, not hierarchical."""
ALL_FRAMES = {*range(0xC0, 0xD0)} - {DHT, 0xC8, 0xCC}
PROGRESSIVE, ARITHMETIC = {0xC2, 0xCA}, {0xC9, 0xCA}

_SEQUENTIAL_MAX = 4
"""A sequential frame stores each component once (T.81, B.2.3), and has at most four here."""

_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")
"""Of a segment or the end; what stands between segments is skipped, as decoders do."""

_EOI = 0xD9


def segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and content of each segment before the first scan; stop where it breaks off."""
    at = 2
    while at + 4 <= len(data) and data.startswith(SOI):
        if data[at] != 0xFF:
            return
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 2
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        if marker == 0xD9 or length < 2 or at + 2 + length > len(data):
            return
        yield marker, data[at + 4 : at + 2 + length]
        if marker == SOS:
            return
        at += 2 + length


def first_scan(data: bytes) -> int:
    """Return where the first scan's marker stands; -1 where there is none."""
    at = 2
    for marker, content in segments(data):
        at = data.find(bytes([0xFF, marker]), at)
        if marker == SOS:
            return at
        at += 4 + len(content)
    return -1


def segment(marker: int, content: bytes) -> bytes:
    """Return one segment; empty where the content is too long for it."""
    if len(content) > 0xFFFF - 2:
        return b""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def with_segments(data: bytes, added: bytes) -> bytes:
    """Put segments at the start of a JPEG, in place of its JFIF header where it has one."""
    at = 2
    if data[2:4] == bytes([0xFF, APP0]):
        at = 4 + int.from_bytes(data[4:6], "big")
    return b"".join([SOI, added, memoryview(data)[at:]])


def frame_kind(data: bytes) -> int | None:
    """Return the marker of the frame (T.81, table B.1); None where there is none."""
    return next((marker for marker, _ in segments(data) if marker in ALL_FRAMES), None)


def count_scans(data: bytes) -> tuple[int, int]:
    """Return how many scans a JPEG has up to its end, and the most that its frame allows.

    Each is decoded over the whole picture, even where it is empty: a few bytes take a second.
    """
    scans, most = 0, 0
    at = 2
    while found := _MARKER.search(data, at):
        marker, at = found[1][0], found.end()
        if marker == _EOI or at + 2 > len(data):
            break
        if marker in ALL_FRAMES and not most:
            most = SCANS_MAX if marker in PROGRESSIVE else _SEQUENTIAL_MAX
        scans += marker == SOS
        at += max(2, struct.unpack_from(">H", data, at)[0])
    return scans, most or _SEQUENTIAL_MAX


def needed_jfif(data: bytes) -> bytes:
    """Return the JFIF header of three components that without it are not taken for YCbCr.

    Decoders go by the components' names where no header tells: 1, 2 and 3, but some files that an
    Adobe marker calls YCbCr name them R, G and B.
    """
    found = dict(segments(data))
    names = next((found[kind][6::3] for kind in ALL_FRAMES & found.keys()), b"")
    jfif = found.get(APP0, b"")
    return jfif if jfif.startswith(b"JFIF\x00") and len(names) == 3 and names != b"\1\2\3" else b""
