"""JPEG 2000, as JP2 file or bare codestream, of 8 to 16 bits (ISO/IEC 15444-1).

Reversible sources are written without loss. Others are encoded again whole, at a signal-to-noise
ratio of `PSNR_DB`: a codestream does not tell how it was quantized in a way that a writer could
repeat. All are written as one tile. Boxes are made anew: colour, and EXIF, XMP and IPTC as far as
they are kept.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from anonymization.formats.blocks import Bools
from anonymization.formats.metadata import Metadata, MetadataPolicy, bounded_xmp, clean
from anonymization.formats.pixels import (
    Decoded,
    Encoding,
    Native,
    PictureError,
    PictureWriteError,
    refuse_size,
)

SIGNATURES = (b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")

PSNR_MIN_DB = 28
"""Of the lowest quality: below, blocks are all that is left."""

PSNR_DB = 50
"""Peak signal-to-noise ratio of what is encoded with loss: about one level of 255 off."""

_SIZE, _STYLE = 0xFF51, 0xFF52
_TILES_MAX = 65535
_XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_EXIF = b"JpgTiffExif->JP2"
_IPTC = bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38")
_SRGB, _GRAY = 16, 17
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class How:
    """How a codestream was written.

    Attributes:
        boxed: Whether it stood in a JP2 file.
        bits: Of each channel.
        reversible: Whether it was written without loss.
        levels: Resolution levels.
        mixed: Whether RGB was transformed to brightness and colour.
    """

    boxed: bool
    bits: int
    reversible: bool
    levels: int
    mixed: bool


def read(data: bytes, name: str, max_pixels: int, policy: MetadataPolicy) -> Decoded:
    """Decode a file.

    Raises:
        PictureError: If it is too large, damaged, or of a kind that is not handled.
    """
    import imagecodecs

    boxed = data.startswith(SIGNATURES[0])
    found = _boxes_of_interest(data, name) if boxed else {b"jp2c": data}
    stream = found.get(b"jp2c", b"")
    how, shape = _described(stream, boxed, name, max_pixels)
    # The codestream alone is decoded: what other boxes claim about it cannot mislead.
    stored = np.asarray(imagecodecs.jpeg2k_decode(stream))
    if stored.shape != (shape if shape[2] > 1 else shape[:2]):
        raise PictureError(f"{name} decodes to {stored.shape}; its header says {shape}")
    if stored.dtype != (np.uint8 if how.bits <= 8 else np.uint16):
        raise PictureError(f"{name} has channels of {stored.dtype}; handled: 8 to 16 bits")
    stored = stored << (8 * stored.dtype.itemsize - how.bits)
    metadata = clean(
        policy,
        exif=found.get(_EXIF, b"").removeprefix(b"Exif\x00\x00"),
        xmp=found.get(_XMP, b""),
        icc=found.get(b"icc", b""),
        iptc=found.get(_IPTC, b""),
    )
    base = _MODES[shape[2]]
    deep = "I;16" if base == "L" else f"{base};16"
    mode = base if how.bits <= 8 else deep
    encoding = Encoding("JPEG2000", mode, metadata, metadata.exif.orientation, how)
    return Decoded(stored, encoding, bounded_xmp(found.get(_XMP, b"")))


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1 and at + 16 <= len(data):
            (size,) = struct.unpack_from(">Q", data, at + 8)
            head = 16
        end = len(data) if size == 0 else at + size
        if (size and size < head) or end > len(data):
            return
        yield name, data[at + head : end]
        at = end


def _in_order(definitions: bytes) -> bool:
    """Tell whether a channel definition box (`cdef`) has colours first, in order, and alpha last.

    ISO/IEC 15444-1, I.5.3.6: number, then for each channel its position, type and colour.
    """
    (count,) = struct.unpack_from(">H", definitions)
    if len(definitions) != 2 + 6 * count:
        return False
    return all(
        position == colour - 1 if kind == 0 else position == count - 1
        for position, kind, colour in struct.iter_unpack(">HHH", definitions[2:])
    )


def _boxes_of_interest(data: bytes, name: str) -> dict[bytes, bytes]:
    """Return codestream, profile and metadata of a JP2, the first of each."""
    found: dict[bytes, bytes] = {}
    for kind, content in _boxes(data):
        if kind == b"uuid":
            found.setdefault(content[:16], content[16:])
        elif kind == b"jp2c":
            found.setdefault(kind, content)
        elif kind == b"jp2h":
            for inner, value in _boxes(content):
                if inner == b"cdef" and not _in_order(value):
                    raise PictureError(
                        f"{name} is a JPEG 2000 whose channels are not in the order of their "
                        "colours, which is not handled"
                    )
                if inner in (b"pclr", b"cmap"):
                    raise PictureError(
                        f"{name} is a JPEG 2000 with a palette, which is not handled"
                    )
                if inner == b"colr" and value[:1] == b"\x02":
                    found.setdefault(b"icc", value[3:])
                elif inner == b"colr" and value[:1] == b"\x01" and len(value) >= 7:
                    _refuse_colours(struct.unpack_from(">I", value, 3)[0], name)
    return found


def _refuse_colours(space: int, name: str) -> None:
    if space not in (_SRGB, _GRAY):
        raise PictureError(f"{name} is a JPEG 2000 in colour space {space}; handled: sRGB, gray")


def _described(
    stream: bytes, boxed: bool, name: str, max_pixels: int
) -> tuple[How, tuple[int, int, int]]:
    markers = dict(_markers(stream))
    size, style = markers.get(_SIZE, b""), markers.get(_STYLE, b"")
    if len(size) < 39 or len(style) < 10:
        raise PictureError(f"{name} is damaged or cut off: its codestream has no header")
    x1, y1, x0, y0, tile_x, tile_y, tile_x0, tile_y0, channels = struct.unpack_from(">8IH", size, 2)
    width, height = x1 - x0, y1 - y0
    refuse_size(width, height, name, max_pixels)
    parts = [size[36 + 3 * i : 39 + 3 * i] for i in range(channels)]
    if channels not in _MODES or any(len(part) < 3 for part in parts):
        raise PictureError(f"{name} is a JPEG 2000 of {channels} channels; handled: 1 to 4")
    depths = {part[0] for part in parts}
    if len(depths) > 1 or any(part[1:] != b"\x01\x01" for part in parts):
        raise PictureError(f"{name} has channels of several depths or sizes, which is not handled")
    bits = depths.pop() + 1
    if not 1 <= bits <= 16 or not tile_x or not tile_y:
        raise PictureError(f"{name} has channels of {bits} bits; handled: 1 to 16, unsigned")
    tiles = -(-(x1 - tile_x0) // tile_x) * -(-(y1 - tile_y0) // tile_y)
    if not 0 < tiles <= _TILES_MAX or style[5] > 32:
        raise PictureError(
            f"{name} has {tiles} tiles and {style[5]} resolutions, which are too many"
        )
    if _tiles(stream) != set(range(tiles)):
        raise PictureError(f"{name} is damaged or cut off: tiles of its codestream are missing")
    how = How(
        boxed,
        bits,
        reversible=style[9] == 1,
        levels=style[5] + 1,
        mixed=style[4] == 1,
    )
    return how, (height, width, channels)


def _markers(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the segments of a codestream's main header."""
    at = 2
    while at + 4 <= len(stream):
        marker, length = struct.unpack_from(">HH", stream, at)
        if marker < 0xFF00 or marker == 0xFF90 or length < 2:
            return
        yield marker, stream[at + 4 : at + 2 + length]
        at += 2 + length


def _tiles(stream: bytes) -> set[int]:
    """Return the tiles of a codestream whose parts are all there; OpenJPEG forgives gaps."""
    at = 2
    for _, content in _markers(stream):
        at += 4 + len(content)
    found: set[int] = set()
    while stream[at : at + 4] == b"\xff\x90\x00\x0a" and at + 12 <= len(stream):
        number, length = struct.unpack_from(">HI", stream, at + 4)
        if length == 0:  # up to the end
            length = len(stream) - 2 - at
        at += length
        if length < 14 or at + 2 > len(stream):
            return set()
        found.add(number)
    return found if stream[at : at + 2] == b"\xff\xd9" else set()


def write(
    encoding: Encoding,
    after: Native,
    changed: Bools,
    *,
    thumbnail: bytes = b"",
    recompress: int | None = None,
) -> bytes:
    """Encode pixels as the source was.

    Args:
        encoding: From the source.
        after: The new pixels in the order of the file.
        changed: Not needed: nothing of the source's stream is kept.
        thumbnail: A JPEG of the new pixels for EXIF.
        recompress: Quality as JPEG's, taken as 28 to 50 decibels; not for reversible ones.

    Raises:
        PictureWriteError: If the encoder fails.
    """
    import imagecodecs

    del changed
    how: How = encoding.how
    values = np.ascontiguousarray(after) >> (8 * after.dtype.itemsize - how.bits)
    level = 0 if how.reversible else PSNR_DB
    if recompress is not None and not how.reversible:
        level = PSNR_MIN_DB + (PSNR_DB - PSNR_MIN_DB) * recompress // 100
    try:
        stream = imagecodecs.jpeg2k_encode(
            values,
            level=level,
            codecformat="J2K",
            bitspersample=how.bits,
            reversible=how.reversible,
            resolutions=min(how.levels, int(np.log2(max(1, min(values.shape[:2])))) + 1),
            mct=how.mixed,
        )
    except (RuntimeError, ValueError) as error:
        raise PictureWriteError(f"JPEG 2000 cannot be encoded: {error}") from error
    if not how.boxed:
        return bytes(stream)
    return _file(bytes(stream), how, after, encoding.metadata, thumbnail)


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), name) + content


def _file(stream: bytes, how: How, pixels: Native, metadata: Metadata, thumbnail: bytes) -> bytes:
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    header = _box(b"ihdr", struct.pack(">IIHBBBB", height, width, channels, how.bits - 1, 7, 0, 0))
    space = _GRAY if channels < 3 else _SRGB
    plain = struct.pack(">BBBI", 1, 0, 0, space)
    header += _box(b"colr", b"\x02\x00\x00" + metadata.icc if metadata.icc else plain)
    if channels in (2, 4):
        rows = [(i, 0, i + 1) for i in range(channels - 1)] + [(channels - 1, 1, 0)]
        header += _box(
            b"cdef", struct.pack(">H", channels) + b"".join(struct.pack(">HHH", *r) for r in rows)
        )
    exif = metadata.exif.to_bytes(thumbnail)
    content = SIGNATURES[0] + _box(b"ftyp", b"jp2 \x00\x00\x00\x00jp2 ") + _box(b"jp2h", header)
    content += _box(b"uuid", _EXIF + exif) if exif else b""
    content += _box(b"uuid", _XMP + metadata.xmp) if metadata.xmp else b""
    content += _box(b"uuid", _IPTC + metadata.iptc) if metadata.iptc else b""
    return content + struct.pack(">I4s", 0, b"jp2c") + stream
