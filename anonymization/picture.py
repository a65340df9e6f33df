"""Pictures: reading any file safely, and writing the anonymized one as its source was.

Detection sees upright RGB; obscuring works on `native`, the source's own channels and depth, so
that a grayscale, CMYK, RGBA or 16-bit picture comes out as such. Orientation: `native` and
`pixels` are upright; the file keeps its stored orientation and its EXIF tag, so that pixels stay
where a lossless editor or another program expects them. Palette and bilevel pictures are widened
(RGB, RGBA, gray): blurred pixels have colours that their palettes lack.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from anonymization.errors import BlurloopError
from anonymization.metadata import (
    PNG_SIGNATURE,
    clean_exif,
    clean_png_chunks,
    clean_xmp,
    exif_orientation,
    insert_png_chunks,
    iptc_segment,
    may_hold_picture,
    png_chunks,
)

Native = NDArray[Any]
Rgb = NDArray[np.uint8]

MAX_PIXELS = 16384 * 16384
"""Largest picture that is decoded: 268 megapixels, twice the largest panorama in use (16384x8192);
at three bytes a pixel it takes 0.8 GB."""

MAX_BYTES = 2**30
"""Largest file that is read."""

FORMATS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp"}
"""What is read and written, by Pillow's name, with its usual suffix."""

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp")
"""File name endings that are taken for pictures in a folder, in lower case."""

QUALITY = 95
"""For JPEG whose own quantization tables cannot be used again, and for lossy WebP, which does not
record how it was written."""

ICC_MAX_BYTES = 4 * 2**20
_IPTC = 0x0404

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_WIDENED = {"1": "L", "P": "RGB", "PA": "RGBA"}
_WITH_ALPHA = {"L": "LA", "RGB": "RGBA", "P": "RGBA", "1": "LA"}
_MODES = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "I;16": 1}

# Pillow's limit on pixels is one global; ours is an argument, so the global rests while we open.
_open_lock = threading.Lock()


class PictureError(BlurloopError):
    """A picture cannot be read whole, or is of a kind that is not handled."""


class PictureWriteError(BlurloopError):
    """A picture cannot be encoded as its source was."""


@dataclass(frozen=True)
class Encoding:
    """How a source was written, and the metadata that its copy gets; see `encode`.

    Attributes:
        format: Pillow's name of the format.
        mode: Pillow's name of `native`'s channels.
        orientation: EXIF orientation in which the file stores its pixels.
        options: Arguments for Pillow's writer.
        chunks: PNG chunks to insert.
    """

    format: str
    mode: str
    orientation: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    chunks: bytes = b""


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        pixels: uint8, shape (H, W, 3), RGB, upright; for detection.
        native: uint8 or uint16, shape (H, W) or (H, W, C), upright, the source's channels; the
            same array as `pixels` where the source is 8-bit RGB.
        encoding: How to write it.
    """

    pixels: Rgb
    native: Native
    encoding: Encoding

    @property
    def height(self) -> int:
        """Rows, upright."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns, upright."""
        return int(self.pixels.shape[1])


def read_picture(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a picture file.

    Args:
        path: A regular file, or a link to one.
        max_pixels: Pictures with more are refused before they are decoded.

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
    return decode(data, name=str(file), max_pixels=max_pixels)


def decode(data: bytes, *, name: str = "picture", max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode a picture from the bytes of its file.

    Args:
        data: The whole file.
        name: What to call it in errors.
        max_pixels: Pictures with more are refused before they are decoded.

    Raises:
        PictureError: As `read_picture`.
    """
    try:
        return _decode(data, name, max_pixels)
    except PictureError:
        raise
    except MemoryError as error:
        raise PictureError(f"{name} does not fit into memory") from error
    except Exception as error:  # damaged files make Pillow raise nearly anything
        reason = str(error) or type(error).__name__
        raise PictureError(f"{name} is damaged or cut off: {reason}") from error


def _decode(data: bytes, name: str, max_pixels: int) -> Picture:
    with _opened(data, name) as image:
        _refuse(image, name, max_pixels)
        if image.format == "MPO":
            image.seek(0)
        image.load()
        kind = "JPEG" if image.format == "MPO" else str(image.format)
        exif = clean_exif(image.info.get("exif") or b"")
        native, mode = _native(image, data, name)
        orientation = exif_orientation(exif) if kind != "BMP" else 1
        native = np.ascontiguousarray(_upright(native, orientation))
        encoding = Encoding(
            kind,
            mode,
            orientation,
            _options(image, kind, data, exif),
            clean_png_chunks(data) if kind == "PNG" else b"",
        )
        return Picture(_rgb(native, mode), native, encoding)


def _opened(data: bytes, name: str) -> Image.Image:
    with _open_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(data), formats=list(FORMATS))
        except UnidentifiedImageError as error:
            raise PictureError(
                f"{name} is not a picture that can be read; formats: {', '.join(FORMATS)}"
            ) from error
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _refuse(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise PictureError(
            f"{name} has {width}x{height} pixels; at most {max_pixels} are decoded. "
            "Raise the limit if the picture is to be trusted"
        )
    if width < 1 or height < 1:
        raise PictureError(f"{name} is {width}x{height} pixels")
    # Further pictures in an MPO are previews and gain maps, which are dropped with the trailer.
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise PictureError(
            f"{name} is animated ({frames} frames); only still pictures are anonymized here"
        )


def _native(image: Image.Image, data: bytes, name: str) -> tuple[Native, str]:
    """Return the pixels as stored and the mode that they are written in."""
    if image.format == "PNG" and _png_depth(data) == 16:
        return _sixteen_bit_png(data, name)
    if image.mode in _SIXTEEN_BIT:
        return np.asarray(image).astype(np.uint16), "I;16"
    mode = _WIDENED.get(image.mode, image.mode)
    if "transparency" in image.info:
        mode = _WITH_ALPHA.get(image.mode, mode)
    if mode not in _MODES:
        raise PictureError(f"{name} has pixels of mode {mode}; handled: {', '.join(_MODES)}")
    return np.asarray(image if mode == image.mode else image.convert(mode)), mode


def _png_depth(data: bytes) -> int:
    header = next(png_chunks(data), (b"", b""))[1]
    return header[8] if len(header) == 13 else 8


def _sixteen_bit_png(data: bytes, name: str) -> tuple[Native, str]:
    """Decode what Pillow would cut to 8 bits; Pillow has decoded it before, so it is whole."""
    import cv2

    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16:
        raise PictureError(f"{name}: its 16-bit pixels cannot be decoded")
    if decoded.ndim == 2:
        return np.asarray(decoded), "I;16"
    order = [2, 1, 0, 3][: decoded.shape[2]]
    return np.asarray(decoded[..., order]), f"{'RGBA'[: decoded.shape[2]]};16"


def _rgb(native: Native, mode: str) -> Rgb:
    """Return RGB for detection; alpha is ignored, as pixels under it are in the file too."""
    if mode == "RGB":
        return native
    if mode == "CMYK":
        return np.asarray(_to_image(native, mode).convert("RGB"))
    if native.dtype == np.uint16:
        native = (native >> 8).astype(np.uint8)
    if native.ndim == 2 or native.shape[2] < 3:
        gray = native if native.ndim == 2 else native[..., 0]
        return np.repeat(gray[..., None], 3, axis=2)
    return np.ascontiguousarray(native[..., :3])


def _upright(stored: Native, orientation: int) -> Native:
    """Turn stored pixels upright (EXIF 2.3, tag 0x0112, with stored row 0 and column 0)."""
    turned = {
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.swapaxes(0, 1),
        6: stored.swapaxes(0, 1)[:, ::-1],
        7: stored[::-1, ::-1].swapaxes(0, 1),
        8: stored.swapaxes(0, 1)[::-1],
    }
    return turned.get(orientation, stored)


def _stored(upright: Native, orientation: int) -> Native:
    """Undo `_upright`: a quarter turn to the right is undone by one to the left."""
    return _upright(upright, {6: 8, 8: 6}.get(orientation, orientation))


def _options(image: Image.Image, kind: str, data: bytes, exif: bytes) -> dict[str, Any]:
    """Return arguments for Pillow's writer that repeat how the source was written."""
    if kind == "PNG":
        return {}  # PNG metadata is copied chunk by chunk
    options: dict[str, Any] = {}
    if kind in ("JPEG", "WEBP"):
        icc = image.info.get("icc_profile") or b""
        xmp = clean_xmp(image.info.get("xmp") or b"")
        options |= {"exif": exif} if exif else {}
        options |= {"icc_profile": icc} if 0 < len(icc) <= ICC_MAX_BYTES else {}
        options |= {"xmp": xmp} if xmp else {}
    if kind == "JPEG":
        return options | _jpeg_options(image)
    if kind == "WEBP":
        return options | {"lossless": _webp_is_lossless(data), "quality": QUALITY, "exact": True}
    return options | ({"dpi": image.info["dpi"]} if "dpi" in image.info else {})


def _jpeg_options(image: Image.Image) -> dict[str, Any]:
    options: dict[str, Any] = {"progressive": bool(image.info.get("progressive"))}
    tables = getattr(image, "quantization", {})
    # Baseline JPEG holds tables of 8 bits only; Pillow writes no other.
    numbered = bool(tables) and sorted(tables) == list(range(len(tables)))
    if numbered and all(0 < value < 256 for table in tables.values() for value in table):
        options["qtables"] = [list(tables[key]) for key in sorted(tables)]
    else:
        options["quality"] = QUALITY
    sampling = JpegImagePlugin.get_sampling(image)
    options |= {"subsampling": sampling} if sampling != -1 else {}
    comment = image.info.get("comment") or b""
    options |= {"comment": comment} if comment and not may_hold_picture(comment) else {}
    # Without this unit the numbers are an aspect ratio, or Pillow's guess from EXIF.
    options |= {"dpi": image.info["dpi"]} if image.info.get("jfif_unit") == 1 else {}
    resources = image.info.get("photoshop")
    iptc = resources.get(_IPTC) if isinstance(resources, dict) else None
    extra = iptc_segment(iptc) if isinstance(iptc, bytes) else b""
    return options | ({"extra": extra} if extra else {})


def _webp_is_lossless(data: bytes) -> bool:
    at = 12
    while at + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        if name in (b"VP8L", b"VP8 "):
            return bool(name == b"VP8L")
        at += 8 + length + length % 2
    return False


def _to_image(native: Native, mode: str) -> Image.Image:
    height, width = native.shape[:2]
    values = native.astype("<u2") if native.dtype == np.uint16 else native
    return Image.frombuffer(mode, (width, height), values.tobytes(), "raw", mode, 0, 1)


def encode(picture: Picture, native: Native) -> bytes:
    """Return the bytes of a file like the picture's source, with other pixels.

    Same format, size, depth, colour model, orientation, and for JPEG the same quantization tables
    and chroma subsampling. Metadata is what `anonymization.metadata` lets through.

    Args:
        picture: What was read.
        native: Its new pixels, of the shape and type of `picture.native`.

    Raises:
        PictureWriteError: If shape or type differ, or the encoder fails.
    """
    if native.shape != picture.native.shape or native.dtype != picture.native.dtype:
        raise PictureWriteError(
            f"pixels are {native.dtype} {native.shape}; "
            f"the source has {picture.native.dtype} {picture.native.shape}"
        )
    how = picture.encoding
    stored = np.ascontiguousarray(_stored(native, how.orientation))
    try:
        if how.mode.endswith(";16") and how.mode != "I;16":
            content = _encode_sixteen_bit_png(stored)
        else:
            buffer = io.BytesIO()
            _to_image(stored, how.mode).save(buffer, format=how.format, **how.options)
            content = buffer.getvalue()
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise PictureWriteError(f"{how.format} cannot be encoded: {error}") from error
    return insert_png_chunks(content, how.chunks) if content.startswith(PNG_SIGNATURE) else content


def _encode_sixteen_bit_png(stored: Native) -> bytes:
    import cv2

    order = [2, 1, 0, 3][: stored.shape[2]]
    done, content = cv2.imencode(".png", np.ascontiguousarray(stored[..., order]))
    if not done:
        raise PictureWriteError("16-bit PNG cannot be encoded")
    return bytes(content)
