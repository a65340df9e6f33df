"""JPEG, PNG, WebP and BMP: read with Pillow's care, written as their sources were.

JPEG is decoded by TurboJPEG where its data are sound, which saves Pillow's copies; what has a
flaw that libjpeg forgives is left to Pillow. Palette and bilevel pictures are widened (RGB, RGBA,
gray): blurred pixels have colours that their palettes lack.
"""

from __future__ import annotations

import io
import logging
import struct
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from anonymization.formats import jpeg, jpeg_frame, jpeg_markers, png, turbojpeg
from anonymization.formats.blocks import Bools, units_of
from anonymization.formats.exif import HEADER as EXIF_HEADER
from anonymization.formats.icc import MAX_BYTES as ICC_MAX_BYTES
from anonymization.formats.metadata import (
    Metadata,
    MetadataPolicy,
    bounded_xmp,
    clean,
    iptc_of_photoshop,
    photoshop_resource,
)
from anonymization.formats.pixels import (
    Decoded,
    Encoding,
    Native,
    PictureError,
    PictureWriteError,
    refuse_size,
    to_image,
)

log = logging.getLogger(__name__)

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")

QUALITY = 95
"""For JPEG whose own quantization tables cannot be used again, and for lossy WebP, which does not
record how it was written."""

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_WIDENED = {"1": "L", "P": "RGB", "PA": "RGBA"}
_WITH_ALPHA = {"L": "LA", "RGB": "RGBA", "P": "RGBA", "1": "LA"}
_MODES = ("L", "LA", "RGB", "RGBA", "CMYK", "I;16")
_XMP = b"http://ns.adobe.com/xap/1.0/\x00"
_ICC = b"ICC_PROFILE\x00"
_PHOTOSHOP = b"Photoshop 3.0\x00"

# Pillow's limit on pixels is one global; ours is an argument, so the global rests while we open.
_open_lock = threading.Lock()


@dataclass(frozen=True)
class How:
    """How a source was written.

    Attributes:
        options: Arguments for Pillow's writer.
        source: The file, for JPEG whose blocks are kept.
        frame: Its blocks, for the same.
        jfif: Content of its JFIF header.
        chunks: PNG chunks that are repeated.
    """

    options: dict[str, Any] = field(default_factory=dict)
    source: bytes = b""
    frame: jpeg_frame.Frame | None = None
    jfif: bytes = b""
    chunks: bytes = b""


def read(data: bytes, name: str, max_pixels: int, policy: MetadataPolicy) -> Decoded:
    """Decode a file.

    Raises:
        PictureError: If it is no picture, too large, animated, or of a mode that is not handled.
    """
    with opened(data, name) as image:
        width, height = image.size
        refuse_size(width, height, name, max_pixels)
        # Further pictures in an MPO are previews and gain maps, which are dropped.
        if image.format in ("JPEG", "MPO"):
            return _read_jpeg(image, data, name, policy)
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            raise PictureError(
                f"{name} is animated ({frames} frames); only still pictures are anonymized here"
            )
        image.load()
        stored, mode = _native(image, data, name)
        if image.format == "PNG":
            metadata, xmp, repeated = png.read_metadata(data, policy)
            how = How(chunks=repeated)
            return _decoded(stored, mode, "PNG", metadata, bounded_xmp(xmp), how)
        if image.format == "WEBP":
            return _read_webp(stored, mode, data, policy)
        options = {"dpi": image.info["dpi"]} if "dpi" in image.info else {}
        return _decoded(stored, mode, "BMP", Metadata(), b"", How(options))


def _decoded(
    stored: Native, mode: str, kind: str, metadata: Metadata, xmp: bytes, how: How
) -> Decoded:
    # BMP has no EXIF to say it in.
    encoding = Encoding(kind, mode, metadata, metadata.exif.orientation, how)
    return Decoded(stored, encoding, xmp)


def opened(data: bytes, name: str) -> Image.Image:
    """Open a picture of any size; nothing of it is decoded yet.

    Raises:
        PictureError: If it is none of `FORMATS`.
    """
    with _open_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(data), formats=list(FORMATS))
        except UnidentifiedImageError as error:
            raise PictureError(
                f"{name} is not a picture that can be read; "
                f"formats: {', '.join((*FORMATS, 'TIFF', 'JPEG2000'))}"
            ) from error
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _read_jpeg(image: Image.Image, data: bytes, name: str, policy: MetadataPolicy) -> Decoded:
    kind = jpeg_markers.frame_kind(data)
    if kind is not None and kind not in jpeg_markers.FRAMES:
        raise PictureError(
            f"{name} is a lossless or hierarchical JPEG (frame {kind:#x}), which is not handled"
        )
    scans, most = jpeg_markers.count_scans(data)
    if scans > most:
        raise PictureError(f"{name} has {scans} scans; at most {most} of its kind are decoded")
    options = _jpeg_options(image)
    stored, mode = _jpeg_pixels(image, data, name)
    metadata, xmp, jfif = _jpeg_metadata(data, policy)
    try:
        frame = jpeg_frame.read_frame(data) if turbojpeg.available() else None
    except turbojpeg.TurboJpegError as error:
        log.info("%s will be encoded whole: %s", name, error)
        frame = None
    if frame and (frame.height, frame.width) != stored.shape[:2]:
        frame = None
    how = How(options, data if frame else b"", frame, jfif)
    return _decoded(stored, mode, "JPEG", metadata, xmp, how)


def _jpeg_pixels(image: Image.Image, data: bytes, name: str) -> tuple[Native, str]:
    if image.mode in ("L", "RGB") and turbojpeg.available():
        try:
            pixels = turbojpeg.decode(data)
        except turbojpeg.TurboJpegError:
            log.debug("%s is left to Pillow", name)
        else:
            if (pixels.shape[1], pixels.shape[0]) == image.size:
                return pixels, "L" if pixels.ndim == 2 else "RGB"
    image.seek(0)
    image.load()
    return _native(image, data, name)


def _jpeg_metadata(data: bytes, policy: MetadataPolicy) -> tuple[Metadata, bytes, bytes]:
    """Return what is kept of a JPEG's markers, its XMP, and its JFIF header less a thumbnail."""
    exif = xmp = iptc = comment = jfif = b""
    icc: dict[int, bytes] = {}
    for marker, content in jpeg_markers.segments(data):
        if marker == jpeg_markers.APP1 and content.startswith(EXIF_HEADER):
            exif = exif or content
        elif marker == jpeg_markers.APP1 and content.startswith(_XMP):
            xmp = xmp or content[len(_XMP) :]
        elif marker == jpeg_markers.APP2 and content.startswith(_ICC) and len(content) > 14:
            icc.setdefault(content[12], content[14:])
        elif marker == jpeg_markers.APP13 and content.startswith(_PHOTOSHOP):
            iptc = iptc or iptc_of_photoshop(content[len(_PHOTOSHOP) :])
        elif marker == jpeg_markers.COM:
            comment = comment or content
        elif marker == jpeg_markers.APP0 and content.startswith(b"JFIF\x00") and len(content) >= 12:
            jfif = jfif or content[:12] + bytes(2)
    profile = b"".join(icc[number] for number in sorted(icc))
    metadata = clean(policy, exif=exif, xmp=xmp, icc=profile, iptc=iptc, comment=comment)
    return metadata, xmp, jfif


def _jpeg_options(image: Image.Image) -> dict[str, Any]:
    """Return arguments for Pillow's writer that repeat how the source was written."""
    options: dict[str, Any] = {"progressive": bool(image.info.get("progressive"))}
    tables = getattr(image, "quantization", {})
    # Baseline JPEG holds tables of 8 bits only; Pillow writes no other.
    numbered = bool(tables) and sorted(tables) == list(range(len(tables)))
    if numbered and all(0 < value < 256 for table in tables.values() for value in table):
        options["qtables"] = [list(tables[key]) for key in sorted(tables)]
    else:
        options["quality"] = QUALITY
    sampling = JpegImagePlugin.get_sampling(image)
    return options | ({"subsampling": sampling} if sampling != -1 else {})


def _native(image: Image.Image, data: bytes, name: str) -> tuple[Native, str]:
    """Return the pixels as stored and the mode that they are written in."""
    if image.format == "PNG" and png.depth(data) == 16:
        return _sixteen_bit_png(data, name)
    if image.mode in _SIXTEEN_BIT:
        return np.asarray(image).astype(np.uint16), "I;16"
    if image.format == "PNG" and image.mode == "L":  # of 2 and 4 bits Pillow compares other values
        hidden = png.transparent_gray(data)
        if hidden is not None:
            return _with_transparent(np.asarray(image), hidden), "LA"
    mode = _WIDENED.get(image.mode, image.mode)
    if "transparency" in image.info:
        mode = _WITH_ALPHA.get(image.mode, mode)
    if mode not in _MODES:
        raise PictureError(f"{name} has pixels of mode {mode}; handled: {', '.join(_MODES)}")
    return np.asarray(image if mode == image.mode else image.convert(mode)), mode


def _with_transparent(gray: Native, hidden: int) -> Native:
    """Add an alpha channel in which pixels of one gray are not shown; (H, W, 2)."""
    alpha = np.where(gray == hidden, 0, np.iinfo(gray.dtype).max).astype(gray.dtype)
    return np.stack([gray, alpha], axis=2)


def _sixteen_bit_png(data: bytes, name: str) -> tuple[Native, str]:
    """Decode what Pillow would cut to 8 bits; Pillow has decoded it before, so it is whole."""
    import cv2
    import imagecodecs

    if (hidden := png.transparent_gray(data)) is not None:  # which OpenCV drops
        gray = np.asarray(imagecodecs.png_decode(data))
        return _with_transparent(gray[..., 0] if gray.ndim == 3 else gray, hidden), "LA;16"
    if png.is_gray_with_alpha(data):  # which OpenCV widens
        return np.asarray(imagecodecs.png_decode(data)), "LA;16"
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16:
        raise PictureError(f"{name}: its 16-bit pixels cannot be decoded")
    if decoded.ndim == 2:
        return np.asarray(decoded), "I;16"
    order = [2, 1, 0, 3][: decoded.shape[2]]
    return np.asarray(decoded[..., order]), f"{'RGBA'[: decoded.shape[2]]};16"


def _read_webp(stored: Native, mode: str, data: bytes, policy: MetadataPolicy) -> Decoded:
    found: dict[bytes, bytes] = {}
    at = 12
    while at + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        found.setdefault(name, data[at + 8 : at + 8 + length])
        at += 8 + length + length % 2
    icc = found.get(b"ICCP", b"")[: ICC_MAX_BYTES + 1]
    xmp = found.get(b"XMP ", b"")
    metadata = clean(policy, exif=found.get(b"EXIF", b""), xmp=xmp, icc=icc)
    lossless = b"VP8L" in found
    options = {"lossless": lossless, "quality": QUALITY, "exact": True}
    return _decoded(stored, mode, "WEBP", metadata, bounded_xmp(xmp), How(options))


def write(
    encoding: Encoding,
    after: Native,
    changed: Bools,
    *,
    thumbnail: bytes = b"",
    recompress: int | None = None,
) -> bytes:
    """Encode pixels as the source was; see `anonymization.formats.picture.encode`.

    Args:
        encoding: From the source.
        after: The new pixels in the order of the file.
        changed: Blocks that hold a changed pixel, as `blocks.blocks_of`.
        thumbnail: A JPEG of the new pixels for EXIF.
        recompress: Quality of a lossy format that is encoded whole.

    Raises:
        PictureWriteError: If the encoder fails.
    """
    metadata, how = encoding.metadata, encoding.how
    try:
        if encoding.format == "JPEG":
            content = _jpeg_body(encoding, after, changed, recompress)
            return _with_jpeg_metadata(content, metadata, how.jfif, thumbnail)
        if encoding.format == "PNG":
            content = _png_body(after, encoding.mode)
            return png.with_metadata(content, metadata, how.chunks, thumbnail)
        options = dict(how.options)
        if encoding.format == "WEBP":
            exif = metadata.exif.to_bytes(thumbnail)
            options |= {"exif": EXIF_HEADER + exif} if exif else {}
            options |= {"icc_profile": metadata.icc, "xmp": metadata.xmp}
            if recompress is not None and not options["lossless"]:
                options["quality"] = recompress
        return _saved(after, encoding.mode, encoding.format, options)
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise PictureWriteError(f"{encoding.format} cannot be encoded: {error}") from error


def _saved(stored: Native, mode: str, kind: str, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    to_image(np.ascontiguousarray(stored), mode).save(buffer, format=kind, **options)
    return buffer.getvalue()


def _jpeg_body(encoding: Encoding, after: Native, changed: Bools, recompress: int | None) -> bytes:
    """Keep every block that has not changed; encode anew where that cannot be done or is asked."""
    how: How = encoding.how
    if recompress is None and how.frame is not None:
        touched = units_of(changed, how.frame.unit, after.shape[:2])
        if not touched.all():
            try:
                return jpeg.rewrite(how.source, after, touched, how.frame)
            except turbojpeg.TurboJpegError as error:
                log.info("a JPEG is encoded whole: %s", error)
    options = dict(how.options)
    if recompress is not None:
        options.pop("qtables", None)
        options |= {"quality": recompress, "optimize": True}
    return _saved(after, encoding.mode, "JPEG", options)


def _with_jpeg_metadata(body: bytes, metadata: Metadata, jfif: bytes, thumbnail: bytes) -> bytes:
    exif = metadata.exif.to_bytes(thumbnail)
    jfif = jfif or jpeg_markers.needed_jfif(body)
    added = (
        jpeg_markers.segment(jpeg_markers.APP0, jfif)
        if jfif and b"Adobe\x00" not in body[:64]
        else b""
    )
    added += jpeg_markers.segment(jpeg_markers.APP1, EXIF_HEADER + exif) if exif else b""
    added += jpeg_markers.segment(jpeg_markers.APP1, _XMP + metadata.xmp) if metadata.xmp else b""
    if metadata.iptc:
        added += jpeg_markers.segment(
            jpeg_markers.APP13, _PHOTOSHOP + photoshop_resource(metadata.iptc)
        )
    size = 0xFFFF - 2 - len(_ICC) - 2
    parts = [metadata.icc[at : at + size] for at in range(0, len(metadata.icc), size)]
    for number, part in enumerate(parts, 1):
        added += jpeg_markers.segment(jpeg_markers.APP2, _ICC + bytes([number, len(parts)]) + part)
    added += jpeg_markers.segment(jpeg_markers.COM, metadata.comment) if metadata.comment else b""
    return jpeg_markers.with_segments(body, added)


def _png_body(stored: Native, mode: str) -> bytes:
    if not mode.endswith(";16") or mode == "I;16":
        return _saved(stored, mode, "PNG", {})
    import cv2
    import imagecodecs

    if mode == "LA;16":
        return bytes(imagecodecs.png_encode(np.ascontiguousarray(stored)))
    order = [2, 1, 0, 3][: stored.shape[2]]
    done, content = cv2.imencode(".png", np.ascontiguousarray(stored[..., order]))
    if not done:
        raise PictureWriteError("16-bit PNG cannot be encoded")
    return bytes(content)
