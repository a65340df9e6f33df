"""A picture counts by the memory that it takes."""

import io
import struct
import sys
import warnings

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from anonymization.job.room import room_of

HEIGHT, WIDTH = 60, 100


def saved(mode: str, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (WIDTH, HEIGHT)).save(buffer, kind)
    return buffer.getvalue()


def tiff(channels: int, kind: str, **said: object) -> bytes:
    buffer = io.BytesIO()
    meaning = "minisblack" if channels < 3 else "rgb"
    extra = ["unassalpha"] if channels in (2, 4) else None
    pixels = np.zeros((HEIGHT, WIDTH, channels), kind)
    tifffile.imwrite(buffer, pixels, photometric=meaning, extrasamples=extra, **said)
    return buffer.getvalue()


def jpeg2000(kind: str) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(np.zeros((HEIGHT, WIDTH, 3), kind), codecformat="JP2"))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (saved("L", "JPEG"), 6000),
        (saved("RGB", "JPEG"), 6000),
        (saved("P", "PNG"), 6000),
        (saved("CMYK", "JPEG"), 8000),
        (bytes(imagecodecs.png_encode(np.zeros((HEIGHT, WIDTH, 3), np.uint16))), 12000),
        (tiff(3, "u1"), 6000),
        (tiff(2, "u2"), 8000),
        (tiff(3, "f4"), 24000),
        (tiff(4, "f4"), 32000),
        (tiff(4, "f4", bigtiff=True, byteorder=">"), 32000),
        (jpeg2000("u1"), 24000),
        (jpeg2000("u2"), 24000),
    ],
)
def test_a_picture_counts_as_the_pixels_of_8_bit_rgb_that_take_as_much(
    data: bytes, expected: int
) -> None:
    assert room_of(data) == expected


def test_boxes_that_say_less_than_the_codestream_are_not_believed() -> None:
    data = bytearray(jpeg2000("u1"))
    at = data.index(b"ihdr") + 4
    data[at : at + 8] = struct.pack(">II", 1, 1)
    assert room_of(bytes(data)) == 24000


@pytest.mark.parametrize(
    "data",
    [b"", b"no picture", saved("RGB", "JPEG")[:20], tiff(4, "f4")[:8], jpeg2000("u1")[:90]],
)
def test_what_does_not_tell_its_size_goes_alone(data: bytes) -> None:
    assert room_of(data) == sys.maxsize


def test_the_size_is_told_without_a_warning_or_a_limit() -> None:
    """A filter of warnings that one thread takes back would be taken back for all."""
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "BMP")
    for side in (10_000, 20_000):  # Pillow warns of the one, and refuses the other
        data = bytearray(buffer.getvalue())
        struct.pack_into("<ii", data, 18, side, side)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert room_of(bytes(data)) == side**2
