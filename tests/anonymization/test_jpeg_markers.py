"""What a JPEG's markers say: how many scans it may have, and which colours its components are."""

import io
import struct
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anonymization.formats import jpeg_markers
from anonymization.formats.directories import LONG, SHORT, Layout
from anonymization.formats.picture import PictureError, decode, encode

ONE_CODE = bytes([1, *[0] * 15, 0])
"""A Huffman table of a single code, which stands for zero."""


def built(frame: int, side: int, scans: list[int], between: bytes = b"") -> bytes:
    """A picture of three components whose scans, each of one of them, hold zeros alone."""
    data = jpeg_markers.SOI + jpeg_markers.segment(0xDB, b"\0" + bytes([1] * 64))
    components = b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
    data += jpeg_markers.segment(frame, struct.pack(">BHHB", 8, side, side, 3) + components)
    if frame == 0xC0:
        data += jpeg_markers.segment(0xC4, b"\0" + ONE_CODE) + jpeg_markers.segment(
            0xC4, b"\x10" + ONE_CODE
        )
    for number in scans:
        data += between + jpeg_markers.segment(0xDA, bytes([1, number, 0, 0, 63, 0]))
        data += bytes(max(2, (side // 8) ** 2 // 4))
    return data + jpeg_markers.EOI


@pytest.mark.parametrize("frame", [0xC0, 0xC1, 0xC9])
@pytest.mark.parametrize(
    "between",
    [b"", b"junk\xff\x00\xff", jpeg_markers.segment(0xFE, b"\xff\xd9")],
    ids=["nothing", "junk", "comment"],
)
def test_a_bomb_of_scans_is_refused_before_it_is_decoded(frame: int, between: bytes) -> None:
    before = time.monotonic()
    with pytest.raises(PictureError, match="has 1000 scans; at most 4 of its kind"):
        decode(built(frame, 64, [1, 2, 3, 1] * 250, between))
    assert time.monotonic() - before < 1


def test_a_bomb_of_scans_in_a_strip_of_tiff_is_refused() -> None:
    def tiff(strip: bytes) -> bytes:
        layout = Layout("<")
        fields = {
            **{tag: layout.pack(SHORT, 64) for tag in (256, 257, 278)},
            **{258: layout.pack(SHORT, 8, 8, 8), 259: layout.pack(SHORT, 7)},
            **{262: layout.pack(SHORT, 6), 277: layout.pack(SHORT, 3)},
            **{273: layout.pack(LONG, 8), 279: layout.pack(LONG, len(strip))},
            530: layout.pack(SHORT, 1, 1),
        }
        strip += bytes(len(strip) % 2)
        at = 8 + len(strip)
        return b"II*\0" + struct.pack("<I", at) + strip + layout.write(fields, offset=at)

    assert decode(tiff(built(0xC0, 64, [1, 2, 3]))).native.shape == (64, 64, 3)
    with pytest.raises(PictureError, match="JPEG of 120 scans; at most 4"):
        decode(tiff(built(0xC0, 64, [1, 2, 3] * 40)))


@pytest.mark.parametrize("frame", [0xC0, 0xC9])
def test_a_scan_for_each_component_is_read(frame: int) -> None:
    assert decode(built(frame, 16, [1, 2, 3])).native.shape == (16, 16, 3)


def written(**options: Any) -> bytes:
    buffer = io.BytesIO()
    ramp = np.linspace(0, 255, 96, dtype=np.uint8)[None, :].repeat(64, 0)
    image = Image.fromarray(np.stack([ramp, ramp[:, ::-1], ramp // 2], 2))
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def test_scans_are_counted_up_to_the_end_of_the_picture() -> None:
    progressive = written(progressive=True)
    scans, most = jpeg_markers.count_scans(progressive)
    assert 6 <= scans <= 12
    assert most == 200
    thumbnail = jpeg_markers.segment(0xE1, b"own\0" + progressive)
    filled = progressive[:2] + thumbnail + progressive[2:] + b"\xff\xda\0\2" * 300
    assert jpeg_markers.count_scans(filled) == (scans, 200)
    assert decode(filled).native.shape == (64, 96, 3)
    assert jpeg_markers.count_scans(written()) == (1, 4)
    assert jpeg_markers.count_scans(b"\xff\xd8\xff\xda") == (0, 4)
    assert jpeg_markers.count_scans(b"\xff\xd8\xff\xda\0\0") == (1, 4)


def named(names: bytes, *, jfif: bool) -> bytes:
    """A JPEG whose Adobe marker calls it YCbCr, with names of its components."""
    source = bytearray(written(subsampling=0))
    frame, scan = source.index(b"\xff\xc0") + 10, source.index(b"\xff\xda") + 5
    source[frame : frame + 9 : 3] = source[scan : scan + 6 : 2] = names
    adobe = jpeg_markers.segment(0xEE, b"Adobe\0\x64" + bytes(4) + b"\1")
    return bytes(jpeg_markers.SOI + (source[2:20] if jfif else b"") + adobe + source[20:])


@pytest.mark.parametrize("jfif", [False, True])
@pytest.mark.parametrize("names", [b"\1\2\3", b"RGB", b"\0\1\2"])
def test_colours_stay_whatever_components_are_called(names: bytes, jfif: bool) -> None:
    source = named(names, jfif=jfif)
    picture = decode(source)
    changed = picture.native.copy()
    changed[32:48, 16:48] = 0
    result = encode(picture, changed)
    assert (b"JFIF" in result) is (jfif or names != b"\1\2\3")
    for shown in (decode(result).native, np.asarray(Image.open(io.BytesIO(result)))):
        np.testing.assert_array_equal(shown[48:], picture.native[48:])
        assert shown[34:46, 18:46].max() < 8
