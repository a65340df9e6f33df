"""ICC profiles: rewritten with the tags that colour management reads (ICC.1:2022, section 9)."""

from __future__ import annotations

import struct

MAX_BYTES = 4 * 2**20
"""CMYK profiles with their tables take one to two megabytes."""

_HEADER_BYTES = 128
_TAGS = frozenset(
    b"rXYZ gXYZ bXYZ rTRC gTRC bTRC kTRC wtpt bkpt chad lumi meas tech view vued cprt desc dmnd"
    b" dmdd A2B0 A2B1 A2B2 B2A0 B2A1 B2A2 D2B0 D2B1 D2B2 D2B3 B2D0 B2D1 B2D2 B2D3 gamt cicp chrm"
    b" targ clro clrt rig0 rig2".split()
)
_TYPES = frozenset(
    b"XYZ_ curv para sf32 text desc mluc sig_ view meas mft1 mft2 mAB_ mBA_ cicp chrm clro mpet"
    .split()
)  # fmt: skip
"""With an underscore for the space that fills four letters."""

_TABLES = (b"mft1", b"mft2", b"mAB_", b"mBA_", b"curv", b"mpet")
_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"WEBPVP8", b"ftypmp4", b"ftypheic")
_VALUE_MAX_BYTES = 16384
"""Of a tag that is no table; descriptions in many languages take a few thousand."""


def clean_icc(profile: bytes) -> bytes:
    """Return a profile without private tags, gaps and trailing bytes; empty where it is none."""
    if not _HEADER_BYTES + 4 <= len(profile) <= MAX_BYTES or profile[36:40] != b"acsp":
        return b""
    (count,) = struct.unpack_from(">I", profile, _HEADER_BYTES)
    if count > 100 or _HEADER_BYTES + 4 + 12 * count > len(profile):
        return b""
    kept: list[tuple[bytes, bytes]] = []
    for index in range(count):
        name, at, size = struct.unpack_from(">4sII", profile, _HEADER_BYTES + 4 + 12 * index)
        value = profile[at : at + size]
        if name in _TAGS and len(value) == size and _is_harmless(value):
            kept.append((name, value))
    return _written(profile[:_HEADER_BYTES], kept) if kept else b""


def _is_harmless(value: bytes) -> bool:
    kind = value[:4].replace(b" ", b"_")
    if len(value) < 8 or kind not in _TYPES or any(start in value for start in _STARTS):
        return False
    return kind in _TABLES or len(value) <= _VALUE_MAX_BYTES


def _written(header: bytes, tags: list[tuple[bytes, bytes]]) -> bytes:
    places: dict[bytes, int] = {}
    body = b""
    start = _HEADER_BYTES + 4 + 12 * len(tags)
    table = struct.pack(">I", len(tags))
    for name, value in tags:
        if value not in places:
            places[value] = start + len(body)
            body += value + bytes(-len(value) % 4)
        table += struct.pack(">4sII", name, places[value], len(value))
    # Bytes 100 to 127 are reserved; the digest in 84 to 99 was of the profile as it came.
    return struct.pack(">I", start + len(body)) + header[4:84] + bytes(44) + table + body
