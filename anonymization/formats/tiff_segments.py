"""Strips and tiles of TIFF: decoding and encoding each, with bounded memory."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from anonymization.formats import jpeg, jpeg_frame, jpeg_markers, turbojpeg
from anonymization.formats.blocks import Bools, units_of
from anonymization.formats.pixels import Native, PictureError, PictureWriteError

NONE, LZW, JPEG, DEFLATE, OLD_DEFLATE, PACKBITS = 1, 5, 7, 8, 32946, 32773
COMPRESSIONS = {
    NONE: "none",
    LZW: "LZW",
    JPEG: "JPEG",
    DEFLATE: "deflate",
    OLD_DEFLATE: "deflate",
    PACKBITS: "PackBits",
}
PREDICTED = (LZW, DEFLATE, OLD_DEFLATE)
"""Compressions of which libtiff, and so most viewers, heed the predictor; it passes over the field
in a file with another."""

_QUALITY = 95


@dataclass(frozen=True)
class Segment:
    """Where a segment lies in the file; one of size 0 is all zeros (GDAL's sparse files)."""

    at: int
    size: int


@dataclass(frozen=True)
class Segments:
    """How pixels are cut into strips or tiles, and how those are coded.

    Attributes:
        width: Columns of the picture.
        height: Its rows.
        samples: Its channels.
        kind: Type of a channel, in the machine's byte order.
        compression: One of `COMPRESSIONS`.
        predictor: 1 for none, 2 for differences, 3 for float; 1 unless `PREDICTED`.
        rows: Rows of a segment.
        columns: Columns of a segment.
        tiled: Tiles are whole at the picture's edges; strips are cut.
        planes: Each channel has segments of its own.
        order: Byte order of the file.
        bilevel: Eight pixels a byte; only read.
        ycbcr: JPEG's colours are YCbCr.
        sampling: How much finer brightness is sampled than JPEG's colours, across and down.
        tables: JPEG's tables, which segments share.
    """

    width: int
    height: int
    samples: int
    kind: np.dtype[Any]
    compression: int
    predictor: int
    rows: int
    columns: int
    tiled: bool
    planes: bool
    order: Literal["<", ">"]
    bilevel: bool = False
    ycbcr: bool = False
    sampling: tuple[int, ...] = ()
    tables: bytes = b""

    @property
    def channels(self) -> int:
        """Channels of one segment."""
        return 1 if self.planes else self.samples

    @property
    def count(self) -> int:
        """How many segments there are."""
        down, across = -(-self.height // self.rows), -(-self.width // self.columns)
        return down * across * (self.samples if self.planes else 1)

    def widened(self, kind: np.dtype[Any], samples: int) -> Segments:
        """Return it for pixels that a palette was taken off."""
        return replace(self, kind=kind, samples=samples, bilevel=False, predictor=1, planes=False)

    def places(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield plane, first row, first column and rows of each segment, in the file's order."""
        for plane in range(self.samples if self.planes else 1):
            for y in range(0, self.height, self.rows):
                rows = self.rows if self.tiled else min(self.rows, self.height - y)
                for x in range(0, self.width, self.columns):
                    yield plane, y, x, rows


def decode(data: bytes, listed: list[Segment], segments: Segments, name: str) -> Native:
    """Decode all segments into one picture, as stored.

    Raises:
        PictureError: If one is damaged or too short.
    """
    shape = (segments.height, segments.width, segments.samples)
    whole = np.zeros(shape, segments.kind)
    for number, (segment, place) in enumerate(zip(listed, segments.places(), strict=True)):
        plane, y, x, rows = place
        if segment.size == 0:
            continue
        content = data[segment.at : segment.at + segment.size]
        try:
            pixels = _decoded(content, rows, segments)
        except (ValueError, RuntimeError, zlib.error, turbojpeg.TurboJpegError, OSError) as error:
            raise PictureError(f"{name} is damaged: segment {number} of pixels: {error}") from error
        cut = pixels[: segments.height - y, : segments.width - x]
        target = whole[y : y + cut.shape[0], x : x + cut.shape[1]]
        if segments.planes:
            target[..., plane] = cut[..., 0]
        else:
            target[...] = cut
    return whole[..., 0] if segments.samples == 1 else whole


def _decoded(content: bytes, rows: int, segments: Segments) -> Native:
    shape = (rows, segments.columns, segments.channels)
    if segments.compression == JPEG:
        return _decoded_jpeg(content, shape, segments)
    stored = segments.kind.newbyteorder(segments.order)
    line = -(-segments.columns // 8) if segments.bilevel else segments.columns * segments.channels
    size = rows * line * stored.itemsize
    raw = _unpacked(content, size, segments.compression)
    if len(raw) < size:
        raise ValueError(f"{len(raw)} bytes; expected {size}")
    if segments.bilevel:
        bits = np.unpackbits(np.frombuffer(raw[:size], np.uint8).reshape(rows, line), axis=1)
        return bits[:, : segments.columns, None] * np.uint8(255)
    if segments.predictor == 3 and stored.kind == "f":
        return _undo_float_predictor(raw[:size], shape)
    values = np.frombuffer(raw[:size], stored).astype(segments.kind).reshape(shape)
    if segments.predictor == 2 and stored.kind == "u":
        return np.cumsum(values, axis=1, dtype=segments.kind)
    if segments.predictor != 1:
        raise ValueError(f"predictor {segments.predictor} for {segments.kind}")
    return values


def _unpacked(content: bytes, size: int, compression: int) -> bytes:
    """Decompress no more than is asked for."""
    if compression == NONE:
        return content
    if compression in (DEFLATE, OLD_DEFLATE):
        return zlib.decompressobj().decompress(content, size)
    import imagecodecs

    unpack = imagecodecs.lzw_decode if compression == LZW else imagecodecs.packbits_decode
    return bytes(unpack(content, out=size))


def _undo_float_predictor(raw: bytes, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Undo TIFF Technical Note 3: bytes by significance, then differences."""
    rows, columns, channels = shape
    lines = np.frombuffer(raw, np.uint8).reshape(rows, -1, channels)
    summed = np.cumsum(lines, axis=1, dtype=np.uint8).reshape(rows, 4, columns * channels)
    whole = np.ascontiguousarray(summed.transpose(0, 2, 1)).view(">f4")
    return whole.astype(np.float32).reshape(shape)


def _float_predictor(values: NDArray[np.float32]) -> bytes:
    rows, columns, channels = values.shape
    split = values.astype(">f4").view(np.uint8).reshape(rows, columns * channels, 4)
    lines = np.ascontiguousarray(split.transpose(0, 2, 1)).reshape(rows, -1, channels)
    return _differences(lines).tobytes()


def _differences(values: Native) -> Native:
    result = values.copy()
    result[:, 1:] -= values[:, :-1]
    return result


def encode(pixels: Native, segments: Segments) -> Iterator[bytes]:
    """Yield each segment's bytes; pixels beyond the picture repeat its edge."""
    whole = pixels if pixels.ndim == 3 else pixels[..., None]
    for plane, y, x, rows in segments.places():
        cut = _cut(whole, y, x, rows, segments)
        values = cut[..., plane : plane + 1] if segments.planes else cut
        yield _packed(values, segments)


def _cut(whole: Native, y: int, x: int, rows: int, segments: Segments) -> Native:
    cut = whole[y : y + rows, x : x + segments.columns]
    short, narrow = rows - cut.shape[0], segments.columns - cut.shape[1]
    return np.pad(cut, [(0, short), (0, narrow), (0, 0)], mode="edge") if short or narrow else cut


def _packed(values: Native, segments: Segments) -> bytes:
    if segments.predictor == 3:
        raw = _float_predictor(np.ascontiguousarray(values))
    else:
        if segments.predictor == 2:
            values = _differences(values)
        raw = values.astype(segments.kind.newbyteorder(segments.order)).tobytes()
    if segments.compression == NONE:
        return raw
    if segments.compression in (DEFLATE, OLD_DEFLATE):
        return zlib.compress(raw)
    import imagecodecs

    if segments.compression == LZW:
        return bytes(imagecodecs.lzw_encode(raw))
    line = len(raw) // values.shape[0]  # PackBits starts anew with every row
    rows = (raw[at : at + line] for at in range(0, len(raw), line))
    return b"".join(bytes(imagecodecs.packbits_encode(row)) for row in rows)


def _decoded_jpeg(content: bytes, shape: tuple[int, int, int], segments: Segments) -> Native:
    stream = _whole_jpeg(content, segments)
    scans, most = jpeg_markers.count_scans(stream)
    if scans > most:
        raise ValueError(f"JPEG of {scans} scans; at most {most} of its kind are decoded")
    frame = jpeg_frame.read_frame(stream)
    if (frame.height, frame.width, len(frame.components)) != shape:
        raise ValueError(f"JPEG of {frame.width}x{frame.height}; expected {shape[1]}x{shape[0]}")
    return turbojpeg.decode(stream).reshape(shape)


def _whole_jpeg(content: bytes, segments: Segments) -> bytes:
    """Join a segment with the shared tables, without what neither needs.

    The Adobe marker says how TIFF's own field has the colours coded.
    """
    needed = {0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD}
    adobe = jpeg_markers.segment(
        jpeg_markers.APP14, b"Adobe\x00\x64" + bytes(4) + bytes([segments.ycbcr])
    )
    stream = jpeg_markers.SOI + (adobe if segments.samples == 3 else b"")
    # Tables end without a scan; one without content lets them be walked to their end.
    for marker, found in jpeg_markers.segments(segments.tables):
        stream += jpeg_markers.segment(marker, found) if marker in needed else b""
    for marker, found in jpeg_markers.segments(content):
        stream += jpeg_markers.segment(marker, found) if marker in needed else b""
    scan = jpeg_markers.first_scan(content)
    if scan < 0:
        raise ValueError("a JPEG segment has no scan")
    return stream + content[scan:]


def encode_jpeg(
    data: bytes,
    listed: list[Segment],
    segments: Segments,
    after: Native,
    changed: Bools,
    *,
    recompress: int | None,
) -> Iterator[bytes]:
    """Yield each segment as a JPEG of its own that keeps the blocks that did not change."""
    new = after if after.ndim == 3 else after[..., None]
    for segment, (_, y, x, rows) in zip(listed, segments.places(), strict=True):
        cut = partial(_cut, y=y, x=x, rows=rows, segments=segments)
        pixels = np.squeeze(cut(new), axis=2) if segments.samples == 1 else cut(new)
        pixels = np.ascontiguousarray(pixels)
        if recompress is not None or segment.size == 0:
            yield _new_jpeg(pixels, segments, recompress or _QUALITY)
            continue
        stream = _whole_jpeg(data[segment.at : segment.at + segment.size], segments)
        try:
            frame = jpeg_frame.read_frame(stream)
            shape = rows, segments.columns
            touched = units_of(changed, frame.unit, shape, at=(y, x))
            # What lies beyond the picture was never looked at by the network.
            touched[(segments.height - y) // frame.unit[0] :] |= segments.height - y < rows
            touched[:, (segments.width - x) // frame.unit[1] :] |= (
                segments.width - x < segments.columns
            )
            yield jpeg_markers.with_segments(jpeg.rewrite(stream, pixels, touched, frame), b"")
        except turbojpeg.TurboJpegError as error:
            raise PictureWriteError(f"a JPEG segment cannot be written: {error}") from error


def _new_jpeg(pixels: NDArray[np.uint8], segments: Segments, quality: int) -> bytes:
    from PIL import Image

    names = {(): "4:4:4", (1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0"}
    options: dict[str, Any] = {"quality": quality}
    if segments.samples == 3:
        if segments.sampling not in names:
            raise PictureWriteError(f"JPEG in TIFF with colour sampling {segments.sampling}")
        options |= {"subsampling": names[segments.sampling], "keep_rgb": not segments.ycbcr}
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return jpeg_markers.with_segments(buffer.getvalue(), b"")
