"""Scans of a JPEG: how many it has, and how many one of its kind may have.

Each scan is decoded over the whole picture, even where it is empty: a few bytes take a second.
"""

from __future__ import annotations

import re
import struct

from anonymization.formats.turbojpeg import SCANS_MAX

_SEQUENTIAL_MAX = 4
"""A sequential frame stores each component once (T.81, B.2.3), and has at most four here."""

_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")
"""Of a segment or the end; what stands between segments is skipped, as decoders do."""

_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE, _EOI, _SOS = {0xC2, 0xCA}, 0xD9, 0xDA


def count(data: bytes) -> tuple[int, int]:
    """Return how many scans a JPEG has up to its end, and the most that its frame allows."""
    scans, most = 0, 0
    at = 2
    while found := _MARKER.search(data, at):
        marker, at = found[1][0], found.end()
        if marker == _EOI or at + 2 > len(data):
            break
        if marker in _FRAMES and not most:
            most = SCANS_MAX if marker in _PROGRESSIVE else _SEQUENTIAL_MAX
        scans += marker == _SOS
        at += max(2, struct.unpack_from(">H", data, at)[0])
    return scans, most or _SEQUENTIAL_MAX
