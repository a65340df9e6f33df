"""PNG chunks: which of them the anonymized file repeats (PNG specification, third edition)."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

from anonymization.formats.icc import MAX_BYTES as ICC_MAX_BYTES
from anonymization.formats.metadata import Metadata, MetadataPolicy, clean
from anonymization.formats.text import is_cut_code, is_text
from anonymization.formats.xmp import tells_place

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"cICP": 4, b"pHYs": 9, b"mDCV": 24, b"cLLI": 8}
"""Chunks that say how pixels look, and how long they are."""

_XMP = b"XML:com.adobe.xmp"
_OTHERS = re.compile(r"xml:|xmp|exif|icc|iptc|8bim|raw profile|photoshop", re.IGNORECASE)
"""Keywords of text that belongs to another group of metadata."""

_TEXT_MAX_BYTES = 16384
"""Bytes of text that are kept: more could hold a picture in pieces."""


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of each chunk of a PNG, up to where it breaks off."""
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if at + 12 + length > len(data):
            return
        yield name, data[at + 8 : at + 8 + length]
        at += 12 + length


def chunk(name: bytes, content: bytes) -> bytes:
    """Return one PNG chunk with length and check sum."""
    check = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)


def depth(data: bytes) -> int:
    """Return the bits of a channel; 8 where the header is missing."""
    header = next(chunks(data), (b"", b""))[1]
    return header[8] if len(header) == 13 else 8


def is_gray_with_alpha(data: bytes) -> bool:
    """Tell whether pixels are gray and alpha (colour type 4)."""
    return next(chunks(data), (b"", b""))[1][9:10] == b"\x04"


def transparent_gray(data: bytes) -> int | None:
    """Return the gray of pixels that are not shown (tRNS), in 8 or 16 bits; None where all are."""
    header = b""
    for name, content in chunks(data):
        if name == b"IDAT":
            break
        header = content if name == b"IHDR" else header
        if name == b"tRNS" and header[9:10] == b"\x00" and len(content) == 2:
            most = (1 << header[8]) - 1
            # Of fewer than 16 bits the lowest count; those of fewer than 8 are widened.
            value = int.from_bytes(content, "big") & most
            return value * 255 // most if most < 255 else value
    return None


def read_metadata(data: bytes, policy: MetadataPolicy) -> tuple[Metadata, bytes, bytes]:
    """Read what is kept of a PNG.

    Returns:
        Metadata, the source's XMP, and chunks of colour and text to be repeated as they are.
    """
    found: dict[bytes, bytes] = {}
    repeated, length = b"", 0
    texts: list[tuple[bytes, bytes]] = []
    for name, content in chunks(data):
        if name == b"IDAT":
            found.setdefault(name, b"")
        elif name in _COLOUR and len(content) == _COLOUR[name] and name not in found:
            found[name] = content
            repeated += chunk(name, content)
        elif name in (b"eXIf", b"iCCP"):
            found.setdefault(name, content)
        elif name == b"iTXt" and content.startswith(_XMP + b"\x00\x00"):
            found.setdefault(_XMP, content.split(b"\x00", 5)[-1])
        elif name == b"tIME" and "comment" in policy and len(content) == 7:
            repeated += b"" if name in found else chunk(name, content)
            found.setdefault(name, content)
        elif name in (b"tEXt", b"iTXt") and "comment" in policy:
            length += len(content)
            if length <= _TEXT_MAX_BYTES and _is_plain(name, content, policy):
                texts.append((name, content))
    if not is_cut_code(content.decode("latin-1") for _, content in texts):
        repeated += b"".join(chunk(name, content) for name, content in texts)
    xmp = found.get(_XMP, b"")
    icc = _inflated(found.get(b"iCCP", b""))
    metadata = clean(policy, exif=found.get(b"eXIf", b""), xmp=xmp, icc=icc)
    return metadata, xmp, repeated


def _is_plain(name: bytes, content: bytes, policy: MetadataPolicy) -> bool:
    """Tell whether text is readable; compressed text goes, it may be a bomb.

    What programs write there of another group (`exif:GPSLatitude`, a packet of XMP) goes: that
    group has a chunk of its own, which is looked at.
    """
    key, _, rest = content.partition(b"\x00")
    word = key.decode("latin-1")
    if _OTHERS.match(word) or ("gps" not in policy and tells_place(word)):
        return False
    if name == b"iTXt":
        parts = rest[2:].split(b"\x00", 2)
        if rest[:1] != b"\x00" or len(parts) != 3:
            return False
        rest = b" ".join(parts)
    return is_text(key, max_bytes=79) and is_text(rest)


def _inflated(profile: bytes) -> bytes:
    _, _, packed = profile.partition(b"\x00")
    try:
        return zlib.decompressobj().decompress(packed[1:], ICC_MAX_BYTES + 1)
    except zlib.error:
        return b""


def with_metadata(data: bytes, metadata: Metadata, repeated: bytes, thumbnail: bytes) -> bytes:
    """Insert chunks right after the header of a PNG, before its palette and pixels."""
    added = repeated
    if metadata.icc:
        added += chunk(b"iCCP", b"ICC\x00\x00" + zlib.compress(metadata.icc))
    if exif := metadata.exif.to_bytes(thumbnail):
        added += chunk(b"eXIf", exif)
    if metadata.xmp:
        added += chunk(b"iTXt", _XMP + b"\x00\x00\x00\x00\x00" + metadata.xmp)
    header = len(SIGNATURE) + 12 + 13
    return data[:header] + added + data[header:]
