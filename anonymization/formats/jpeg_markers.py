"""What a JPEG's markers say besides its blocks: how many scans there are, which colours it has."""

from __future__ import annotations

import re
import struct

from anonymization.formats import jpeg
from anonymization.formats.turbojpeg import SCANS_MAX

_SEQUENTIAL_MAX = 4
"""A sequential frame stores each component once (T.81, B.2.3), and has at most four here."""

_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")
"""Of a segment or the end; what stands between segments is skipped, as decoders do."""

_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_EOI, _SOS = 0xD9, 0xDA


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
        if marker in _FRAMES and not most:
            most = SCANS_MAX if marker in jpeg.PROGRESSIVE else _SEQUENTIAL_MAX
        scans += marker == _SOS
        at += max(2, struct.unpack_from(">H", data, at)[0])
    return scans, most or _SEQUENTIAL_MAX


def needed_jfif(data: bytes) -> bytes:
    """Return the JFIF header of three components that without it are not taken for YCbCr.

    Decoders go by the components' names where no header tells: 1, 2 and 3, but some files that an
    Adobe marker calls YCbCr name them R, G and B.
    """
    found = dict(jpeg.segments(data))
    names = next((found[kind][6::3] for kind in _FRAMES & found.keys()), b"")
    jfif = found.get(jpeg.APP0, b"")
    return jfif if jfif.startswith(b"JFIF\x00") and len(names) == 3 and names != b"\1\2\3" else b""
