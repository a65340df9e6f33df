"""TIFF and BigTIFF: one picture of 8 or 16 bits or float, in strips or tiles, as it came.

Read from TIFF 6.0 and its supplements: gray, RGB, palette, CMYK, alpha; not compressed, or with
LZW, deflate, PackBits or JPEG; predictors; both byte orders and both plane layouts. Written with
the same. Reduced copies (pyramids, previews) are dropped; a file of several pictures is refused,
as no page may stay as it is. Pixels under tiles' edges beyond the picture are made anew.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from anonymization.formats import tiff_segments
from anonymization.formats.blocks import Bools
from anonymization.formats.directories import LONG, LONG8, SHORT, Directory, Entry, Layout
from anonymization.formats.exif import from_directories
from anonymization.formats.metadata import MetadataPolicy, bounded_xmp, clean
from anonymization.formats.pixels import (
    Decoded,
    Encoding,
    Native,
    PictureError,
    PictureWriteError,
    TooLargeError,
    colours,
    refuse_size,
)
from anonymization.formats.text import is_text
from anonymization.formats.tiff_segments import JPEG, Segment, Segments

SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIPS, _SAMPLES, _ROWS, _STRIP_BYTES, _PLANAR = 273, 277, 278, 279, 284
_PREDICTOR, _COLORMAP, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 317, 320, 322, 323, 324, 325
_EXTRA, _FORMAT, _YCBCR_SAMPLING, _SUBFILE, _FILL_ORDER = 338, 339, 530, 254, 266
_XMP, _IPTC, _ICC, _EXIF, _GPS, _DNG = 700, 33723, 34675, 34665, 34853, 50706
_WHITE_IS_ZERO, _GRAY, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_KEYS = 34735
_PLACES = {33550: 3, 33922: 6 * 16, 34264: 16, 34736: 32, _KEYS: 4 * 64, 34737: 0, 42113: 0}
"""GeoTIFF's scale, tie points, transformation, parameters, keys and their text; GDAL's no-data
value. Each with how many numbers it has at most: more could be a picture."""

_REDUCED, _MASK = 1, 4
_PAGES_MAX = 64
_SEGMENTS_MAX = 2**21
_PIXEL_MAX_BYTES = 8
"""RGBA of 16 bits; the limit on pixels stands for this many bytes of each."""

_MODES = {
    (_GRAY, 1): "L",
    (_GRAY, 2): "LA",
    (_RGB, 3): "RGB",
    (_RGB, 4): "RGBA",
    (_CMYK, 4): "CMYK",
}


@dataclass(frozen=True)
class How:
    """How a TIFF was written.

    Attributes:
        layout: Byte order and size of offsets.
        segments: How its strips or tiles are laid out and coded.
        photometric: What its numbers mean, as written.
        fields: Resolution, alpha and places, as they were.
        source: The file, where JPEG tiles keep their blocks.
    """

    layout: Layout
    segments: Segments
    photometric: int
    fields: Directory = field(default_factory=dict)
    source: bytes = b""


def read(data: bytes, name: str, max_pixels: int, policy: MetadataPolicy) -> Decoded:
    """Decode a file.

    Raises:
        PictureError: If it is too large, damaged, holds several pictures, or is of a kind that is
            not handled.
    """
    layout = Layout("<" if data[:2] == b"II" else ">", big=data[2:4] in (b"+\x00", b"\x00+"))
    page, following = _first(data, layout)
    _refuse_pages(data, page, following, layout, name)
    segments, photometric = _described(page, layout, name, max_pixels)
    listed = _listed(data, page, segments, layout, name)
    stored = tiff_segments.decode(data, listed, segments, name)
    if photometric == _PALETTE:
        stored = _from_palette(stored, page, layout, name)
        segments, photometric = segments.widened(np.dtype(np.uint8), 3), _RGB
    if photometric == _WHITE_IS_ZERO and stored.dtype != np.float32:
        stored = _inverted(stored)
    mode = _mode(photometric, segments, name)
    metadata = clean(
        policy,
        exif=from_directories(data, page, layout),
        xmp=_value(page, _XMP),
        icc=_value(page, _ICC),
        iptc=_value(page, _IPTC),
    )
    how = How(
        layout,
        segments,
        photometric,
        _kept(page, policy, layout),
        data if segments.compression == JPEG else b"",
    )
    encoding = Encoding("TIFF", mode, metadata, metadata.exif.orientation, how)
    return Decoded(stored, encoding, bounded_xmp(_value(page, _XMP)))


def _first(data: bytes, layout: Layout) -> tuple[Directory, int]:
    code, at = ("Q", 8) if layout.big else ("I", 4)
    return layout.read(data, struct.unpack_from(f"{layout.order}{code}", data, at)[0])


def _value(page: Directory, tag: int) -> bytes:
    return page.get(tag, (0, 0, b""))[2]


def _one(page: Directory, tag: int, layout: Layout, default: int) -> int:
    found = layout.numbers(page.get(tag))
    return int(found[0]) if found else default


def _refuse_pages(data: bytes, page: Directory, following: int, layout: Layout, name: str) -> None:
    if not page:
        raise PictureError(f"{name} is damaged or cut off: its directory cannot be read")
    if _DNG in page or _one(page, _SUBFILE, layout, 0) & _REDUCED:
        raise PictureError(f"{name} is a camera's raw file, which is not handled; develop it first")
    seen: set[int] = set()
    while following:
        if following in seen or len(seen) >= _PAGES_MAX:
            raise PictureError(f"{name} is damaged: its directories never end")
        seen.add(following)
        further, following = layout.read(data, following)
        if further and not _one(further, _SUBFILE, layout, 0) & (_REDUCED | _MASK):
            raise PictureError(
                f"{name} holds several pages; only single pictures are anonymized. Split it first"
            )


def _described(page: Directory, layout: Layout, name: str, max_pixels: int) -> tuple[Segments, int]:
    width, height = (_one(page, tag, layout, 0) for tag in (_WIDTH, _HEIGHT))
    refuse_size(width, height, name, max_pixels)
    samples = _one(page, _SAMPLES, layout, 1)
    bits = {int(b) for b in layout.numbers(page.get(_BITS))} or {1}
    kinds = {int(k) for k in layout.numbers(page.get(_FORMAT))} or {1}
    photometric = _one(page, _PHOTOMETRIC, layout, -1)
    compression = _one(page, _COMPRESSION, layout, 1)
    kind = {(1, 8): np.uint8, (1, 16): np.uint16, (3, 32): np.float32, (1, 1): np.uint8}
    key = (min(kinds), min(bits))
    bilevel = key == (1, 1)
    if len(bits) > 1 or len(kinds) > 1 or key not in kind or not 1 <= samples <= 4:
        raise PictureError(
            f"{name} has {samples} channels of {sorted(bits)} bits in format {sorted(kinds)}; "
            "handled: up to 4 of 8 or 16 bits, or of 32-bit float"
        )
    if (bilevel or photometric == _PALETTE) and (samples != 1 or key[1] > 8):
        raise PictureError(f"{name} has {samples} bilevel or palette channels; handled: one")
    if compression not in tiff_segments.COMPRESSIONS or _one(page, _FILL_ORDER, layout, 1) != 1:
        known = ", ".join(dict.fromkeys(tiff_segments.COMPRESSIONS.values()))
        raise PictureError(f"{name} has TIFF compression {compression}; handled: {known}")
    if (compression == JPEG) and (kind[key] != np.uint8 or bilevel or samples not in (1, 3)):
        raise PictureError(f"{name} has JPEG in TIFF of other than 1 or 3 channels of 8 bits")
    tiled = _TILES in page
    rows = _one(page, _TILE_HEIGHT if tiled else _ROWS, layout, height)
    segments = Segments(
        width,
        height,
        samples,
        np.dtype(kind[key]),
        compression,
        _one(page, _PREDICTOR, layout, 1) if compression in tiff_segments.PREDICTED else 1,
        min(rows, height) if not tiled else rows,
        _one(page, _TILE_WIDTH, layout, 0) if tiled else width,
        tiled=tiled,
        planes=_one(page, _PLANAR, layout, 1) == 2 and samples > 1,
        order=layout.order,
        bilevel=bilevel,
        ycbcr=photometric == _YCBCR,
        sampling=_sampling(page, layout) if photometric == _YCBCR else (),
        tables=_value(page, 347),
    )
    _refuse_segments(segments, name, max_pixels)
    return segments, photometric


def _sampling(page: Directory, layout: Layout) -> tuple[int, ...]:
    return tuple(int(v) for v in layout.numbers(page.get(_YCBCR_SAMPLING)))[:2] or (2, 2)


def _refuse_segments(segments: Segments, name: str, max_pixels: int) -> None:
    rows, columns = segments.rows, segments.columns
    if rows < 1 or columns < 1 or (segments.tiled and (rows % 16 or columns % 16)):
        raise PictureError(f"{name} has segments of {columns}x{rows} pixels")
    content = segments.width * segments.height * segments.samples * segments.kind.itemsize
    if content > _PIXEL_MAX_BYTES * max_pixels:
        raise TooLargeError(
            f"{name} has {content} bytes of pixels; at most {_PIXEL_MAX_BYTES * max_pixels} "
            "are decoded"
        )
    if segments.tiled and rows * columns > max_pixels + 2**20:
        raise PictureError(f"{name} has tiles of {columns}x{rows} pixels; at most {max_pixels}")
    if segments.count > _SEGMENTS_MAX:
        raise PictureError(f"{name} has {segments.count} segments; at most {_SEGMENTS_MAX}")
    if segments.predictor not in (1, 2, 3):
        raise PictureError(f"{name} has predictor {segments.predictor}; handled: 1, 2, 3")
    if segments.predictor > 1 and segments.bilevel:
        raise PictureError(f"{name} has predictor {segments.predictor} of bilevel pixels")
    if segments.planes and segments.compression == JPEG:
        raise PictureError(f"{name} has JPEG planes, which are not handled")


def _listed(
    data: bytes, page: Directory, segments: Segments, layout: Layout, name: str
) -> list[Segment]:
    tags = (_TILES, _TILE_BYTES) if segments.tiled else (_STRIPS, _STRIP_BYTES)
    offsets, sizes = (layout.numbers(page.get(tag)) for tag in tags)
    if len(offsets) != segments.count or len(sizes) != segments.count:
        raise PictureError(
            f"{name} lists {len(offsets)} segments of pixels; expected {segments.count}"
        )
    listed = [Segment(int(at), int(size)) for at, size in zip(offsets, sizes, strict=True)]
    if any(one.at < 0 or one.size < 0 or one.at + one.size > len(data) for one in listed):
        raise PictureError(f"{name} is cut off: pixels lie beyond its end")
    return listed


def _from_palette(stored: Native, page: Directory, layout: Layout, name: str) -> Native:
    palette = np.array(layout.numbers(page.get(_COLORMAP)), np.float64)
    if len(palette) < 6 or len(palette) % 3:
        raise PictureError(f"{name} has a palette of {len(palette)} numbers")
    table = palette.reshape(3, -1).T
    # Bytes are widened by 256 or 257: both come back by their upper half.
    bytes_ = np.asarray((table // (256 if table.max() > 255 else 1)).clip(0, 255), np.uint8)
    if int(stored.max(initial=0)) >= len(table):
        raise PictureError(f"{name} has pixels beyond its palette of {len(table)} colours")
    return np.asarray(bytes_[stored])


def _inverted(pixels: Native) -> Native:
    """Turn a gray negative over, or back; alpha beside it is none."""
    turned = pixels.copy()
    gray = colours(turned, alpha=pixels.ndim == 3)
    np.subtract(np.iinfo(pixels.dtype).max, gray, out=gray)
    return turned


def _mode(photometric: int, segments: Segments, name: str) -> str:
    plain = {_WHITE_IS_ZERO: _GRAY, _YCBCR: _RGB if segments.compression == JPEG else -1}
    mode = _MODES.get((plain.get(photometric, photometric), segments.samples))
    depth = {np.dtype(np.uint16): ";16", np.dtype(np.float32): ";32F"}.get(segments.kind, "")
    if mode is None or (photometric == _WHITE_IS_ZERO and segments.kind == np.float32):
        raise PictureError(
            f"{name} has {segments.samples} channels of photometric interpretation {photometric}; "
            "handled: gray, RGB, palette, CMYK, with alpha"
        )
    return "I;16" if mode + depth == "L;16" else mode + depth


def _kept(page: Directory, policy: MetadataPolicy, layout: Layout) -> Directory:
    """Return the fields that belong to the pixels, and those of places where they are kept."""
    kept = {tag: page[tag] for tag in (_EXTRA,) if tag in page and len(page[tag][2]) <= 8}
    if "gps" in policy:
        places = {tag: page[tag] for tag in _PLACES if tag in page}
        kept |= {tag: entry for tag, entry in places.items() if _is_place(tag, entry, layout)}
    return kept


def _is_place(tag: int, entry: Entry, layout: Layout) -> bool:
    """Tell whether a value is text, keys in order, or as few numbers as coordinates are."""
    if entry[0] == 2:
        return is_text(entry[2])
    if entry[1] > _PLACES[tag]:
        return False
    values = list(layout.numbers(entry))
    if tag == _KEYS:
        return entry[0] == SHORT and _are_keys(values)
    return entry[0] == 12 and all(v == 0 or 1e-15 < abs(v) < 1e12 for v in values)


def _are_keys(values: Sequence[float]) -> bool:
    """Tell whether numbers are a GeoKeyDirectory (OGC 19-008): a head, then keys that rise."""
    rows = [tuple(values[at : at + 4]) for at in range(0, len(values), 4)]
    if len(values) % 4 or not rows or rows[0][:2] != (1, 1) or rows[0][3] != len(rows) - 1:
        return False
    names = [row[0] for row in rows[1:]]
    return names == sorted(set(names)) and all(
        (place == 0 and count == 1) or place in (34736, 34737) for _, place, count, _ in rows[1:]
    )


def write(
    encoding: Encoding,
    after: Native,
    changed: Bools,
    *,
    thumbnail: bytes = b"",
    recompress: int | None = None,
) -> bytes:
    """Encode pixels as the source was; TIFF that holds no JPEG is the same at any quality.

    Args:
        encoding: From the source.
        after: The new pixels in the order of the file.
        changed: Blocks that hold a changed pixel, as `blocks.blocks_of`.
        thumbnail: Left out; TIFF has no place of its own for it.
        recompress: Quality in which JPEG segments are encoded whole.

    Raises:
        PictureWriteError: If a segment cannot be encoded, or offsets do not fit.
    """
    del thumbnail
    how: How = encoding.how
    layout = how.layout
    if how.photometric == _WHITE_IS_ZERO:
        after = _inverted(after)
    at = 16 if layout.big else 8
    offsets: list[int] = []
    sizes: list[int] = []
    parts: list[bytes] = []
    for content in _contents(how, after, changed, recompress):
        offsets.append(at)
        sizes.append(len(content))
        parts += [content, bytes(-len(content) % 8)]
        at += len(parts[-1]) + len(content)
    if not layout.big and at >= 2**32 - 2**20:
        raise PictureWriteError("TIFF with more than 4 GB needs BigTIFF; the source is none")
    directory = layout.write(_fields(encoding, how, offsets, sizes), offset=at)
    head = b"II" if layout.order == "<" else b"MM"
    if layout.big:
        head += struct.pack(f"{layout.order}HHHQ", 43, 8, 0, at)
    else:
        head += struct.pack(f"{layout.order}HI", 42, at)
    return b"".join([head, *parts, directory])


def _contents(how: How, after: Native, changed: Bools, recompress: int | None) -> Iterator[bytes]:
    if how.segments.compression != JPEG:
        yield from tiff_segments.encode(after, how.segments)
        return
    page, _ = _first(how.source, how.layout)
    listed = _listed(how.source, page, how.segments, how.layout, "TIFF")
    yield from tiff_segments.encode_jpeg(
        how.source, listed, how.segments, after, changed, recompress=recompress
    )


def _fields(encoding: Encoding, how: How, offsets: list[int], sizes: list[int]) -> dict[int, Any]:
    layout, segments, metadata = how.layout, how.segments, encoding.metadata
    kind = 3 if segments.kind == np.float32 else 1
    bits = [8 * segments.kind.itemsize] * segments.samples
    place = LONG8 if layout.big else LONG
    tags = (_TILES, _TILE_BYTES) if segments.tiled else (_STRIPS, _STRIP_BYTES)
    fields: dict[int, Any] = {
        **metadata.exif.first,
        **how.fields,
        _SUBFILE: layout.pack(LONG, 0),
        _WIDTH: layout.pack(LONG, segments.width),
        _HEIGHT: layout.pack(LONG, segments.height),
        _BITS: layout.pack(SHORT, *bits),
        _COMPRESSION: layout.pack(SHORT, segments.compression),
        _PHOTOMETRIC: layout.pack(SHORT, how.photometric),
        _SAMPLES: layout.pack(SHORT, segments.samples),
        _PLANAR: layout.pack(SHORT, 2 if segments.planes else 1),
        _FORMAT: layout.pack(SHORT, *[kind] * segments.samples),
        tags[0]: layout.pack(place, *offsets),
        tags[1]: layout.pack(place, *sizes),
        _XMP: (1, len(metadata.xmp), metadata.xmp) if metadata.xmp else {},
        _ICC: (7, len(metadata.icc), metadata.icc) if metadata.icc else {},
        _IPTC: (7, len(metadata.iptc), metadata.iptc) if metadata.iptc else {},
        _EXIF: metadata.exif.camera,
        _GPS: metadata.exif.position,
    }
    if segments.predictor > 1:
        fields[_PREDICTOR] = layout.pack(SHORT, segments.predictor)
    if segments.sampling:
        fields[_YCBCR_SAMPLING] = layout.pack(SHORT, *segments.sampling)
    if segments.tiled:
        fields[_TILE_WIDTH] = layout.pack(LONG, segments.columns)
        fields[_TILE_HEIGHT] = layout.pack(LONG, segments.rows)
    else:
        fields[_ROWS] = layout.pack(LONG, segments.rows)
    return fields
