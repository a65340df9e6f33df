"""Whether the thumbnail inside a written file shows the written picture, and not its source.

A drawn picture of coarse black and white cells is written in place of the source, as the
anonymizer writes it, and the thumbnail is read back from the bytes of that file. One made anew
shows the cells; one that was copied shows what the camera saw. Thumbnails are looked for by other
means than those of the code that writes them.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from anonymization.formats.picture import Picture

CELLS = 16
"""Cells along each side. Each is 6 px or more on a thumbnail of 160x96, so JPEG keeps it."""

LIKENESS_MIN = 0.8
"""Correlation of a thumbnail with the written picture from which on it shows that picture.

One made anew reaches 0.998 or more, measured for each format and for pictures of 24x32 to
3000x4000; a drawn street's own stayed below 0.14.
"""

JPEG_START = b"\xff\xd8\xff"
"""What every JPEG begins with. It is looked for anywhere in the EXIF block, whatever directories
say: a thumbnail that no reader finds is one that somebody can still cut out."""

JP2_EXIF = b"JpgTiffExif->JP2"
"""Identifier of the box that holds EXIF in JPEG 2000 files."""


def embedded_thumbnail(content: bytes) -> bytes:
    """Return the JPEG thumbnail of a file's EXIF; empty where it has none.

    Args:
        content: A whole picture file. TIFF files have no EXIF block of their own, none is read.
    """
    exif = _exif_block(content)
    start = exif.find(JPEG_START)
    return exif[start:] if start >= 0 else b""


def _exif_block(content: bytes) -> bytes:
    """Return the EXIF of a file; empty where there is none."""
    from PIL import Image

    at = content.find(JP2_EXIF) if content[4:8] == b"jP  " else -1
    if at >= 8:
        # A box: its length in four bytes, `uuid`, the identifier, what it holds.
        end = at - 8 + int.from_bytes(content[at - 8 : at - 4], "big")
        return content[at + len(JP2_EXIF) : end]
    # Only the header is read here; the anonymizer's own limit has let the picture through.
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(io.BytesIO(content)) as image:
            return b"" if image.format == "TIFF" else bytes(image.info.get("exif", b""))
    except OSError:
        return b""
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def shows_written(picture: Picture, source: bytes, *, seed: int) -> bool | None:
    """Return whether the thumbnail in the written file shows the written picture.

    Pictures without a thumbnail are not written for this.

    Args:
        picture: The picture as it was read.
        source: The bytes of its file.
        seed: Of the cells.

    Returns:
        None where the written file has no thumbnail. False also for a thumbnail that cannot be
        decoded: what it shows is not known.
    """
    if not (picture.encoding.metadata.exif.had_thumbnail or embedded_thumbnail(source)):
        return None
    from anonymization.formats.picture import decode, encode
    from anonymization.formats.pixels import as_stored

    content = encode(picture, cells(picture.native, seed=seed))
    small = embedded_thumbnail(content)
    if not small:
        return None
    written = decode(content, name="written cells")
    stored = as_stored(written.pixels, written.encoding.orientation)
    return bool(likeness(small, stored) >= LIKENESS_MIN)


def cells(native: NDArray[Any], *, seed: int) -> NDArray[Any]:
    """Return random black and white cells in the shape and type of a picture's own pixels.

    All channels are the same but a fourth, which stays as it is: black ink would hide the others,
    and a clear pixel shows none.
    """
    height, width = native.shape[:2]
    black = np.random.default_rng(seed).integers(0, 2, (CELLS, CELLS)).astype(bool)
    rows, columns = np.arange(height) * CELLS // height, np.arange(width) * CELLS // width
    full = np.iinfo(native.dtype).max if np.issubdtype(native.dtype, np.integer) else 1
    value = np.where(black[rows][:, columns], 0, full).astype(native.dtype)
    done = np.array(native)
    if native.ndim == 2:
        return value
    colours = 1 if native.shape[2] < 3 else 3
    done[..., :colours] = value[..., None]
    return done


def likeness(thumbnail: bytes, pixels: NDArray[np.uint8]) -> float:
    """Return the correlation of a thumbnail with a picture brought to its size.

    Args:
        thumbnail: A picture file.
        pixels: uint8, shape (H, W, 3), turned as the thumbnail is.

    Returns:
        -1 to 1; 0 where one of them is of one shade, or the thumbnail cannot be decoded.
    """
    import cv2
    from PIL import Image

    try:
        with Image.open(io.BytesIO(thumbnail)) as image:
            shown = np.asarray(image.convert("L"), dtype=np.float64)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0.0
    size = (shown.shape[1], shown.shape[0])
    expected = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).mean(axis=2)
    if shown.std() == 0 or expected.std() == 0:
        return 0.0
    return float(np.corrcoef(shown.ravel(), expected.ravel())[0, 1])
