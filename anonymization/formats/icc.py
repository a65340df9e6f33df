"""ICC profiles: rewritten with the tags that colour management reads (ICC.1:2022, section 9).

A tag stays once, with a type that it may have, of no more bytes than that type needs; texts are
looked at as any other. Tables of several colours hold what they hold: nobody can tell colours from
pixels; curves of one rise or fall, as pixels do not.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

import numpy as np

from anonymization.formats.icc_text import texts_of, without_code
from anonymization.formats.text import is_cut_code

MAX_BYTES = 4 * 2**20
"""CMYK profiles with their tables take one to two megabytes."""

_HEADER_BYTES = 128
_KINDS = {
    "rXYZ gXYZ bXYZ wtpt bkpt lumi": "XYZ",
    "rTRC gTRC bTRC kTRC": "curv para",
    "A2B0 A2B1 A2B2 B2A0 B2A1 B2A2 gamt": "mft1 mft2 mAB mBA",
    "D2B0 D2B1 D2B2 D2B3 B2D0 B2D1 B2D2 B2D3": "mpet",
    "cprt desc dmnd dmdd vued targ": "text desc mluc",
    "tech rig0 rig2": "sig",
    **{name: name for name in ("view", "meas", "cicp", "chrm", "clro")},
    "chad": "sf32",
}
_ALLOWED = {
    name.encode(): frozenset(kind.ljust(4).encode() for kind in kinds.split())
    for names, kinds in _KINDS.items()
    for name in names.split()
}
"""Types that each tag may have, as four bytes."""

_MAX_BYTES = {
    **{b"XYZ ": 20, b"sig ": 12, b"view": 36, b"meas": 36, b"cicp": 12, b"sf32": 44, b"para": 40},
    **{b"chrm": 12 + 8 * 4, b"clro": 12 + 16, b"curv": 12 + 2 * 4096},
}
"""Bytes of the types that are numbers: of one colour, nine numbers, four primaries, ..."""

_TURNS_MAX = 1 / 16
"""Of a curve's way up, how much may go down again: what was measured is not quite even."""

_TEXT = (b"text", b"desc", b"mluc")
_TEXTS_MAX_BYTES = 16384
"""Of all texts of a profile: one in thirty languages takes a few thousand."""

_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"WEBPVP8", b"ftypmp4", b"ftypheic")


def clean_icc(profile: bytes) -> bytes:
    """Return a profile without private tags, gaps and trailing bytes; empty where it is none."""
    if not _HEADER_BYTES + 4 <= len(profile) <= MAX_BYTES or profile[36:40] != b"acsp":
        return b""
    (count,) = struct.unpack_from(">I", profile, _HEADER_BYTES)
    if count > 100 or _HEADER_BYTES + 4 + 12 * count > len(profile):
        return b""
    kept: dict[bytes, bytes] = {}
    for index in range(count):
        name, at, size = struct.unpack_from(">4sII", profile, _HEADER_BYTES + 4 + 12 * index)
        value = profile[at : at + size]
        if name not in kept and len(value) == size and _is_harmless(name, value):
            value = without_code(value) if value[:4] in _TEXT else value
            kept |= {name: value} if value else {}
    # Values that several tags share are written once, but in pieces could be anything.
    if sum(map(len, set(kept.values()))) > MAX_BYTES:
        return b""
    if _are_too_much(value for value in kept.values() if value[:4] in _TEXT):
        kept = {name: value for name, value in kept.items() if value[:4] not in _TEXT}
    return _written(profile[:_HEADER_BYTES], list(kept.items())) if kept else b""


def _is_harmless(name: bytes, value: bytes) -> bool:
    kind = value[:4]
    if len(value) < 8 or kind not in _ALLOWED.get(name, ()):
        return False
    if kind == b"curv" and not _is_curve(value):
        return False
    return len(value) <= _MAX_BYTES.get(kind, MAX_BYTES) and not any(s in value for s in _STARTS)


def _is_curve(value: bytes) -> bool:
    """Tell whether numbers of 16 bits rise, or fall, from the first to the last."""
    count = int.from_bytes(value[8:12], "big")
    if len(value) not in (12 + 2 * count, 12 + 2 * (count + count % 2)):
        return False
    steps = np.diff(np.frombuffer(value, ">u2", count, 12).astype(np.int64))
    ways = sorted((int(steps[steps > 0].sum()), -int(steps[steps < 0].sum())))
    return ways[0] <= _TURNS_MAX * ways[1]


def _are_too_much(values: Iterable[bytes]) -> bool:
    """Tell whether texts of a profile are long together, or code that was cut over them."""
    different = set(values)
    texts = (text for value in different for text in texts_of(value) or ())
    return sum(map(len, different)) > _TEXTS_MAX_BYTES or is_cut_code(texts)


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
