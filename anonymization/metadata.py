"""Metadata: what of a picture's EXIF, XMP, IPTC and text goes into the anonymized file.

Position, time, camera and projection stay. Whatever may hold a second, un-anonymized picture goes:
thumbnails (IFD1), previews, maker notes, depth maps, motion-photo descriptions, Photoshop
resources, and any value large enough or encoded so that it could be one. In doubt it goes.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

EXIF_HEADER = b"Exif\x00\x00"
EXIF_MAX_BYTES = 65533
"""A JPEG marker holds no more."""

VALUE_MAX_BYTES = 4096
"""No text or number in EXIF, comments or PNG text needs more; a thumbnail does."""

XMP_MAX_BYTES = 65502
"""One JPEG marker less XMP's name; longer XMP is extended XMP, which carries pictures."""

ORIENTATION = 0x0112
_POINTERS = {0x8769: "Exif", 0x8825: "GPS", 0xA005: "Interoperability"}
_PICTURE_TAGS = {
    0x014A: "SubIFDs, where TIFF-like files keep previews",
    0x0111: "StripOffsets",
    0x0117: "StripByteCounts",
    0x0144: "TileOffsets",
    0x0145: "TileByteCounts",
    0x0201: "JPEGInterchangeFormat, the thumbnail's offset",
    0x0202: "JPEGInterchangeFormatLength",
    0x02BC: "XMP, kept by its own rule",
    0x501B: "ThumbnailData",
    0x8649: "Photoshop resources, which hold thumbnails",
    0x927C: "MakerNote, which holds previews and offsets that rewriting breaks",
    0xC4A5: "PrintImageMatching",
    0xC634: "DNGPrivateData",
}
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}

_PICTURE_STARTS = (
    b"\xff\xd8\xff",
    b"\x89PNG",
    b"RIFF",
    b"ftyp",
    b"/9j/",
    b"iVBORw0KGgo",
    b"UklGR",
)
"""JPEG, PNG, WebP and ISO media as bytes, then the first three in base64."""

_LONG_CODE = re.compile(rb"[A-Za-z0-9+/=\s]{1024,}|[0-9a-fA-F\s]{1024,}")
_XMP_PICTURES = re.compile(
    rb"humbnail|GImage|GDepth|GAudio|Depth:|GCamera:|Container:|HasExtendedXMP|xmpGImg|hdrgm"
)

Entry = tuple[int, int, bytes]
"""Type, count and raw value of one EXIF field."""


def may_hold_picture(value: bytes) -> bool:
    r"""Tell whether a metadata value could carry a picture.

    >>> may_hold_picture(b"Canon EOS"), may_hold_picture(b"..\xff\xd8\xff\xe0..")
    (False, True)
    """
    return len(value) > VALUE_MAX_BYTES or any(start in value for start in _PICTURE_STARTS)


def clean_exif(exif: bytes) -> bytes:
    """Return EXIF without anything that could hold a picture; empty where nothing is left.

    Values that stay keep their bytes and byte order. EXIF that cannot be parsed is dropped whole.

    Args:
        exif: With or without the EXIF header of JPEG.

    Returns:
        With the header, or empty.
    """
    data = _without_header(exif)
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(data[:4])
    if order is None or len(data) < 8:
        return b""
    (first,) = struct.unpack_from(f"{order}I", data, 4)
    fields = _read_ifd(data, first, order)
    if not fields:
        return b""
    nested = {
        tag: children
        for tag in _POINTERS
        if (children := _nested(data, fields.pop(tag, None), order))
    }
    body = _write_ifd(fields, nested, order, offset=8)
    cleaned = EXIF_HEADER + data[:4] + struct.pack(f"{order}I", 8) + body
    return cleaned if len(cleaned) <= EXIF_MAX_BYTES else b""


def exif_orientation(exif: bytes) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where there is none."""
    data = _without_header(exif)
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(data[:4])
    if order is None or len(data) < 8:
        return 1
    (first,) = struct.unpack_from(f"{order}I", data, 4)
    kind, count, value = _read_ifd(data, first, order).get(ORIENTATION, (0, 0, b""))
    if kind != 3 or count < 1:
        return 1
    (found,) = struct.unpack_from(f"{order}H", value)
    return int(found) if 1 <= found <= 8 else 1


def _without_header(exif: bytes) -> bytes:
    while exif.startswith(EXIF_HEADER):
        exif = exif[len(EXIF_HEADER) :]
    return exif


def _read_ifd(data: bytes, offset: int, order: str) -> dict[int, Entry]:
    """Read the fields of one directory that may stay; broken ones are left out."""
    if not 8 <= offset <= len(data) - 2:
        return {}
    (count,) = struct.unpack_from(f"{order}H", data, offset)
    fields: dict[int, Entry] = {}
    for start in range(offset + 2, min(offset + 2 + 12 * count, len(data) - 11), 12):
        tag, kind, number = struct.unpack_from(f"{order}HHI", data, start)
        size = _TYPE_BYTES.get(kind, 0) * number
        at = start + 8
        if size > 4:
            (at,) = struct.unpack_from(f"{order}I", data, at)
        value = data[at : at + size]
        if 0 < size == len(value) and tag not in _PICTURE_TAGS and not may_hold_picture(value):
            fields[tag] = (kind, number, value)
    return fields


def _nested(data: bytes, pointer: Entry | None, order: str) -> dict[int, Entry]:
    """Read the directory that a field points at, its own pointer to interoperability aside."""
    if pointer is None or pointer[0] not in (4, 9) or len(pointer[2]) != 4:
        return {}
    (offset,) = struct.unpack(f"{order}I", pointer[2])
    fields = _read_ifd(data, offset, order)
    for tag in _POINTERS:
        fields.pop(tag, None)
    return fields


def _write_ifd(
    fields: dict[int, Entry], nested: dict[int, dict[int, Entry]], order: str, *, offset: int
) -> bytes:
    """Write a directory that starts at `offset`, its values, then the nested directories."""
    tags = sorted({*fields, *nested})
    values_at = offset + 2 + 12 * len(tags) + 4
    table, values = struct.pack(f"{order}H", len(tags)), b""
    for tag in tags:
        if tag in nested:
            at = values_at + len(values)
            values += _even(_write_ifd(nested[tag], {}, order, offset=at))
            table += struct.pack(f"{order}HHII", tag, 4, 1, at)
            continue
        kind, count, value = fields[tag]
        table += struct.pack(f"{order}HHI", tag, kind, count)
        if len(value) <= 4:
            table += value.ljust(4, b"\x00")
        else:
            table += struct.pack(f"{order}I", values_at + len(values))
            values += _even(value)
    return table + bytes(4) + values


def _even(value: bytes) -> bytes:
    return value + b"\x00" * (len(value) % 2)


def clean_xmp(xmp: bytes) -> bytes:
    """Return XMP unchanged, or empty where any part of it could hold a picture.

    Projection (GPano) and camera poses stay. Thumbnails, depth maps, motion photos, gain maps and
    extended XMP are interwoven with the rest, so such XMP goes whole.
    """
    suspicious = (
        len(xmp) > XMP_MAX_BYTES
        or _XMP_PICTURES.search(xmp)
        or _LONG_CODE.search(re.sub(rb"\s{2,}", b"<>", xmp))
        or any(start in xmp for start in _PICTURE_STARTS)
    )
    return b"" if suspicious else xmp


def iptc_segment(iptc: bytes) -> bytes:
    """Wrap IPTC text as a JPEG APP13 marker; empty where it could hold a picture.

    Photoshop's other resources, thumbnails among them, are not copied.
    """
    if not iptc or may_hold_picture(iptc):
        return b""
    resource = b"8BIM\x04\x04\x00\x00" + struct.pack(">I", len(iptc)) + _even(iptc)
    content = b"Photoshop 3.0\x00" + resource
    return b"\xff\xed" + struct.pack(">H", len(content) + 2) + content


PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_COLOUR = (b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"pHYs", b"tIME")


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of each chunk of a PNG, up to where it breaks off."""
    at = len(PNG_SIGNATURE)
    while at + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if at + 12 + length > len(data):
            return
        yield name, data[at + 8 : at + 8 + length]
        at += 12 + length


def clean_png_chunks(data: bytes) -> bytes:
    """Return the colour, resolution, text and EXIF chunks of a PNG that may stay, as bytes.

    Compressed text goes: it cannot be looked into without inflating what may be a bomb.
    """
    kept = b""
    for name, content in png_chunks(data):
        cleaned = _clean_png_chunk(name, content)
        if cleaned:
            kept += png_chunk(name, cleaned)
    return kept


def _clean_png_chunk(name: bytes, content: bytes) -> bytes:
    if name in _PNG_COLOUR:
        return content
    if name == b"eXIf":
        return clean_exif(content)[len(EXIF_HEADER) :]
    if name == b"iTXt" and content.startswith(b"XML:com.adobe.xmp\x00\x00"):
        return clean_xmp(content)
    compressed = name == b"iTXt" and content.partition(b"\x00")[2][:1] != b"\x00"
    if name not in (b"tEXt", b"iTXt") or compressed or content.startswith(b"Raw profile type"):
        return b""
    return b"" if may_hold_picture(content) or _LONG_CODE.search(content) else content


def png_chunk(name: bytes, content: bytes) -> bytes:
    """Return one PNG chunk with length and check sum."""
    check = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)


def insert_png_chunks(data: bytes, chunks: bytes) -> bytes:
    """Insert chunks right after the header of a PNG, before its palette and pixels."""
    after_header = len(PNG_SIGNATURE) + 12 + 13
    return data[:after_header] + chunks + data[after_header:]
