"""Pixels of every kind a file can hold: orientation, the RGB that detection sees, thumbnails.

Modes are Pillow's names of channels, with a depth behind where it is not 8 bits: `L;16`, `RGB;16`,
`RGBA;16`, `L;32F`, `RGB;32F`, ... Gray in 16 bits is `I;16`, as Pillow writes it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonymization.errors import BlurloopError
from anonymization.formats.metadata import Metadata

Native = NDArray[Any]
Rgb = NDArray[np.uint8]

THUMBNAIL_PX = 160
"""Longer side of a thumbnail that is made anew; EXIF's own size is 160x120."""

THUMBNAIL_QUALITY = 80
_HIGHLIGHT = 99.0
_GAMMA = 2.2
_SAMPLE_PIXELS = 2**20


class PictureError(BlurloopError):
    """A picture cannot be read whole, or is of a kind that is not handled."""


class TooLargeError(PictureError):
    """A picture is larger than the limit.

    Attributes:
        what: The same without the advice, for who calls the limit by another name.
    """

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"{self.what}. Raise the limit if the picture is to be trusted"


class PictureWriteError(BlurloopError):
    """A picture cannot be encoded as its source was."""


@dataclass(frozen=True)
class Encoding:
    """How a source was written, and the metadata that its copy gets.

    Attributes:
        format: Name of the format.
        mode: Name of the channels.
        metadata: What is kept of the metadata.
        orientation: EXIF orientation in which the file stores its pixels.
        how: What the format's writer needs to know besides.
    """

    format: str
    mode: str
    metadata: Metadata = field(default_factory=Metadata)
    orientation: int = 1
    how: Any = field(default=None, repr=False)


@dataclass(frozen=True)
class Decoded:
    """What a format's reader found.

    Attributes:
        stored: Pixels in the order of the file.
        encoding: How to write them.
        xmp: XMP as the source has it.
    """

    stored: Native
    encoding: Encoding
    xmp: bytes = b""


def refuse_size(width: int, height: int, name: str, max_pixels: int) -> None:
    """Refuse what is too large to decode, or empty.

    Raises:
        PictureError: If it is; `TooLargeError` where another limit would let it through.
    """
    if width < 1 or height < 1:
        raise PictureError(f"{name} is {width}x{height} pixels")
    if width * height > max_pixels:
        raise TooLargeError(f"{name} has {width}x{height} pixels; at most {max_pixels} are decoded")


def upright(stored: Native, orientation: int) -> Native:
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


def as_stored(turned: Native, orientation: int) -> Native:
    """Undo `upright`: a quarter turn to the right is undone by one to the left."""
    return upright(turned, {6: 8, 8: 6}.get(orientation, orientation))


def has_alpha(mode: str) -> bool:
    """Tell whether the last channel is alpha, at any depth.

    >>> has_alpha("RGBA;16"), has_alpha("CMYK")
    (True, False)
    """
    return mode.split(";")[0].endswith("A")


def colours(values: Native, *, alpha: bool) -> Native:
    """Return the channels of colour, as a view.

    Args:
        values: Shape (H, W) or (H, W, C).
        alpha: Whether the last channel is alpha.
    """
    return values[..., :-1] if alpha else values


def to_rgb(native: Native, mode: str) -> Rgb:
    """Return RGB for detection; alpha is ignored, as pixels under it are in the file too."""
    if mode == "RGB":
        return native
    native = colours(native, alpha=has_alpha(mode))
    if native.dtype == np.uint16:
        native = to_eight_bits(native)
    elif native.dtype == np.float32:
        native = tone_mapped(native)
    if mode.startswith("CMYK"):
        return np.asarray(to_image(native, "CMYK").convert("RGB"))
    if native.ndim == 2 or native.shape[2] < 3:
        gray = native if native.ndim == 2 else native[..., 0]
        return np.repeat(gray[..., None], 3, axis=2)
    return np.ascontiguousarray(native[..., :3])


def bits_used(values: NDArray[np.uint16]) -> int:
    """Return how many bits of 16-bit pixels hold the picture: 8 to 14, or 16.

    Cameras of 8 to 14 bits often leave the upper bits of 16 empty: where all but a thousandth of a
    sample lies in fewer than 15 bits, those are the whole range.

    Args:
        values: uint16, shape (H, W) or (H, W, C); without alpha (`colours`), which is full at any
            depth of the colours.
    """
    step = max(1, values.shape[0] * values.shape[1] // _SAMPLE_PIXELS)
    sample = values.reshape(-1, *values.shape[2:])[::step]
    bits = int(np.percentile(sample, 99.9, method="higher")).bit_length()
    return 16 if bits > 14 else max(bits, 8)


def to_eight_bits(values: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Map 16-bit pixels to 8 bits, for detection and thumbnails only.

    By `bits_used`: a picture of 12 bits would else be almost black.

    Args:
        values: uint16, shape (H, W) or (H, W, C), without alpha.
    """
    bits = bits_used(values)
    if bits == 16:
        return (values >> 8).astype(np.uint8)
    return (np.minimum(values, (1 << bits) - 1) >> (bits - 8)).astype(np.uint8)


def tone_mapped(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Map float pixels to 8 bits, for detection and thumbnails only.

    Values within 0 and 1 are taken as display values, times 255. Others are taken as light:
    divided by the 99th percentile of a sample, cut at 1, and brought to display by a gamma of 2.2.
    What is not finite counts as 0.

    Args:
        values: float32, shape (H, W) or (H, W, C), without alpha.
    """
    white = white_level(values)
    with np.errstate(all="ignore"):
        shown = np.nan_to_num(values, nan=0, posinf=0, neginf=0)
        if white != DISPLAY_WHITE:
            shown = np.clip(shown / np.float32(white), 0, 1) ** np.float32(1 / _GAMMA)
        return np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8)


DISPLAY_WHITE = 1.0
"""White of float pixels that are display values."""


def white_level(values: NDArray[np.float32]) -> float:
    """Return the value of white of float pixels: 1 of display values, else of light, above 0.

    Args:
        values: float32, shape (H, W) or (H, W, C).
    """
    step = max(1, values.shape[0] * values.shape[1] // _SAMPLE_PIXELS)
    sample = values.reshape(-1, *values.shape[2:])[::step]
    sample = sample[np.isfinite(sample)]
    if not sample.size or (sample.max() <= DISPLAY_WHITE and sample.min() >= 0):
        return DISPLAY_WHITE
    return max(float(np.percentile(sample, _HIGHLIGHT)), 1e-12)


def to_image(native: Native, mode: str) -> Any:
    """Return Pillow's picture of pixels."""
    from PIL import Image

    height, width = native.shape[:2]
    values = native.astype("<u2") if native.dtype == np.uint16 else native
    return Image.frombuffer(mode, (width, height), values.tobytes(), "raw", mode, 0, 1)


def thumbnail(stored: Native, mode: str) -> bytes:
    """Return a small JPEG of pixels, which are those of the anonymized picture."""
    import cv2
    from PIL import Image

    height, width = stored.shape[:2]
    share = THUMBNAIL_PX / max(height, width)
    size = (max(1, round(width * share)), max(1, round(height * share)))
    small = stored if share >= 1 else cv2.resize(stored, size, interpolation=cv2.INTER_AREA)
    buffer = io.BytesIO()
    pixels = to_rgb(small.reshape(*small.shape[:2], *stored.shape[2:]), mode)
    Image.fromarray(pixels).save(buffer, "JPEG", quality=THUMBNAIL_QUALITY)
    return buffer.getvalue()
