"""Pictures: reading any file safely, and writing the anonymized one as its source was.

Detection sees upright RGB; obscuring works on `native`, the source's own channels and depth, so
that a grayscale, CMYK, RGBA, 16-bit or float picture comes out as such. Orientation: `native` and
`pixels` are upright; the file keeps its stored orientation and its EXIF tag, so that pixels stay
where a lossless editor or another program expects them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from anonymization.formats import jpeg2000, pillow_formats, tiff, tiff_segments
from anonymization.formats.blocks import Part, blocks_of, blocks_that_differ
from anonymization.formats.metadata import MetadataPolicy
from anonymization.formats.pixels import (
    Encoding,
    Native,
    PictureError,
    PictureWriteError,
    Rgb,
    as_stored,
    thumbnail,
    to_rgb,
    upright,
)

__all__ = [
    "FORMATS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "SUFFIXES",
    "Encoding",
    "MetadataPolicy",
    "Picture",
    "PictureError",
    "PictureWriteError",
    "decode",
    "encode",
    "read_picture",
]

MAX_PIXELS = 16384 * 16384
"""Largest picture that is decoded: 268 megapixels, twice the largest panorama in use (16384x8192);
at three bytes a pixel it takes 0.8 GB."""

MAX_BYTES = 2**30
"""Largest file that is read."""

FORMATS = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "JPEG2000": ".jp2",
}
"""What is read and written, with its usual suffix."""

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp"),
    *(".tif", ".tiff", ".btf", ".tf8", ".jp2", ".j2k", ".jpc", ".j2c", ".jpf", ".jpx"),
)
"""File name endings that are taken for pictures in a folder, in lower case."""

_ALL = MetadataPolicy()
_WRITERS = {"TIFF": tiff.write, "JPEG2000": jpeg2000.write}


@dataclass(frozen=True)
class Picture:
    """A decoded picture. Its arrays cannot be written to, unless they are `taken`.

    Attributes:
        pixels: uint8, shape (H, W, 3), RGB, upright; for detection.
        native: uint8, uint16 or float32, shape (H, W) or (H, W, C), upright, the source's
            channels; the same array as `pixels` where the source is 8-bit RGB.
        encoding: How to write it.
        xmp: XMP as the source has it, at most 1 MB, untrusted; empty where there is none.
    """

    pixels: Rgb
    native: Native
    encoding: Encoding
    xmp: bytes = field(default=b"", repr=False)

    def taken(self) -> Native:
        """Return `native` to be worked on in place, which uses the picture's pixels up.

        `pixels`, where they are the same array, change with it. Where the memory belongs to
        another library, a copy.
        """
        try:
            self.native.flags.writeable = True
        except ValueError:
            return self.native.copy()
        return self.native

    @property
    def height(self) -> int:
        """Rows, upright."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns, upright."""
        return int(self.pixels.shape[1])


def read_picture(
    path: str | os.PathLike[str],
    *,
    max_pixels: int = MAX_PIXELS,
    metadata: MetadataPolicy = _ALL,
) -> Picture:
    """Read a picture file.

    Args:
        path: A regular file, or a link to one.
        max_pixels: Pictures with more are refused before they are decoded.
        metadata: Which groups of metadata the written picture keeps.

    Raises:
        PictureError: If it is missing, truncated, damaged, too large, animated, or of a format
            or mode that is not handled.
    """
    file = Path(path)
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise PictureError(f"{file} is not a regular file")
        if status.st_size > MAX_BYTES:
            raise PictureError(f"{file} has {status.st_size} bytes; at most {MAX_BYTES} are read")
        data = file.read_bytes()
    except OSError as error:
        raise PictureError(f"{file} cannot be read: {error.strerror or error}") from error
    return decode(data, name=str(file), max_pixels=max_pixels, metadata=metadata)


def decode(
    data: bytes,
    *,
    name: str = "picture",
    max_pixels: int = MAX_PIXELS,
    metadata: MetadataPolicy = _ALL,
) -> Picture:
    """Decode a picture from the bytes of its file.

    Args:
        data: The whole file.
        name: What to call it in errors.
        max_pixels: Pictures with more are refused before they are decoded.
        metadata: Which groups of metadata the written picture keeps.

    Raises:
        PictureError: As `read_picture`.
    """
    try:
        return _decode(data, name, max_pixels, metadata)
    except PictureError:
        raise
    except MemoryError as error:
        raise PictureError(f"{name} does not fit into memory") from error
    except Exception as error:  # damaged files make codecs raise nearly anything
        reason = str(error) or type(error).__name__
        raise PictureError(f"{name} is damaged or cut off: {reason}") from error


def _decode(data: bytes, name: str, max_pixels: int, policy: MetadataPolicy) -> Picture:
    if data.startswith(tiff.SIGNATURES):
        found = tiff.read(data, name, max_pixels, policy)
    elif data.startswith(jpeg2000.SIGNATURES):
        found = jpeg2000.read(data, name, max_pixels, policy)
    else:
        found = pillow_formats.read(data, name, max_pixels, policy)
    encoding = found.encoding
    native = np.ascontiguousarray(upright(found.stored, encoding.orientation))
    pixels = to_rgb(native, encoding.mode)
    native.flags.writeable = pixels.flags.writeable = False
    return Picture(pixels, native, encoding, found.xmp)


def is_lossy(encoding: Encoding) -> bool:
    """Tell whether a file is of a lossy format, so that `encode` can recompress it."""
    how = encoding.how
    if encoding.format == "TIFF":
        return bool(how.segments.compression == tiff_segments.JPEG)
    if encoding.format == "JPEG2000":
        return not how.reversible
    if encoding.format == "WEBP":
        return not how.options["lossless"]
    return encoding.format == "JPEG"


def encode(
    picture: Picture,
    native: Native,
    *,
    recompress: int | None = None,
    hidden: Iterable[Part] | None = None,
) -> bytes:
    """Return the bytes of a file like the picture's source, with other pixels.

    Same format, size, depth, colour model and orientation. A JPEG keeps every DCT block bit by
    bit outside of the units (MCUs) that hold a changed or hidden pixel, and is encoded with its own
    quantization tables inside of them. Metadata is what `formats.metadata` lets through.

    Args:
        picture: What was read.
        native: Its new pixels, of the shape and type of `picture.native`.
        recompress: Quality, 1 to 100, in which a lossy picture is encoded whole instead.
        hidden: First column, first row and pixels, bool (h, w), of each part that was hidden; all
            other pixels are taken to be what they were. A pixel that came out as it was (black in
            black) may stand for more than can be seen: a JPEG's blocks hold what is darker than
            black. None compares the pixels with those of the picture, which must be others.

    Raises:
        PictureWriteError: If shape or type differ, the quality is out of range, the encoder fails,
            or what was changed in the picture's own pixels is not told.
    """
    if native.shape != picture.native.shape or native.dtype != picture.native.dtype:
        raise PictureWriteError(
            f"pixels are {native.dtype} {native.shape}; "
            f"the source has {picture.native.dtype} {picture.native.shape}"
        )
    if hidden is None and native is picture.native and native.flags.writeable:
        raise PictureWriteError(
            "the picture's own pixels were changed; tell which parts were hidden"
        )
    if recompress is not None and not 1 <= recompress <= 100:
        raise PictureWriteError(f"quality is {recompress}; expected 1 to 100")
    how = picture.encoding
    after = as_stored(native, how.orientation)
    small = thumbnail(after, how.mode) if how.metadata.exif.had_thumbnail else b""
    if hidden is None:
        changed = blocks_that_differ(as_stored(picture.native, how.orientation), after)
    else:
        changed = blocks_of(hidden, (picture.height, picture.width), how.orientation)
    write = _WRITERS.get(how.format, pillow_formats.write)
    return write(how, after, changed, thumbnail=small, recompress=recompress)
