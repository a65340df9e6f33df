"""JPEG 2000 comes out in the same depth, without loss where it came without."""

import io
import struct
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from anonymization.formats.picture import PictureError, decode, encode


def scene(channels: int, kind: Any) -> NDArray[Any]:
    y, x = np.mgrid[:70, :101]
    share = np.stack([(x * (i + 1) + y) % 171 for i in range(channels)], 2) / 171
    result = (share * np.iinfo(kind).max).astype(kind)
    return result[..., 0] if channels == 1 else result


def written(pixels: NDArray[Any], **options: Any) -> bytes:
    settings = {"level": 0, "codecformat": "JP2", "reversible": True} | options
    return bytes(imagecodecs.jpeg2k_encode(pixels, **settings))


@pytest.mark.parametrize("container", ["JP2", "J2K"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_reversible_pictures_keep_every_pixel(channels: int, kind: Any, container: str) -> None:
    pixels = scene(channels, kind)
    picture = decode(written(pixels, codecformat=container))
    np.testing.assert_array_equal(picture.native, pixels)
    changed = pixels.copy()
    changed[10:30, 20:50] = 0
    result = encode(picture, changed)
    assert result[:4] == (b"\0\0\0\x0c" if container == "JP2" else b"\xff\x4f\xff\x51")
    np.testing.assert_array_equal(decode(result).native, changed)
    np.testing.assert_array_equal(imagecodecs.jpeg2k_decode(result), changed)
    if kind == np.uint8:
        shown = Image.open(io.BytesIO(result))
        assert shown.mode == {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
        np.testing.assert_array_equal(np.asarray(shown), changed)


def test_twelve_bits_stay_twelve_bits() -> None:
    pixels = scene(3, np.uint16) >> 4
    picture = decode(written(pixels, bitspersample=12))
    assert picture.encoding.how.bits == 12
    np.testing.assert_array_equal(picture.native, pixels << 4)
    again = decode(encode(picture, picture.native))
    assert again.encoding.how.bits == 12
    np.testing.assert_array_equal(again.native, picture.native)


def test_lossy_pictures_stay_close() -> None:
    picture = decode(written(scene(3, np.uint8), level=45, reversible=False))
    again = decode(encode(picture, picture.native))
    assert not again.encoding.how.reversible
    assert np.abs(again.native.astype(int) - picture.native).mean() < 1
    assert len(encode(picture, picture.native, recompress=60)) < len(
        encode(picture, picture.native)
    )


def test_a_lower_quality_is_smaller_and_still_a_picture() -> None:
    picture = decode(written(scene(3, np.uint8), level=45, reversible=False))
    files = [encode(picture, picture.native, recompress=quality) for quality in (20, 50, 80, 100)]
    assert sorted(map(len, files)) == list(map(len, files))
    off = [np.square(decode(one).native.astype(float) - picture.native).mean() for one in files]
    decibels = [10 * np.log10(255**2 / value) for value in off]
    assert decibels == sorted(decibels)
    assert decibels[0] > 28
    assert decibels[1] > 35


def test_tiles_are_read() -> None:
    buffer = io.BytesIO()
    image = Image.fromarray(scene(3, np.uint8))
    image.save(buffer, "JPEG2000", tile_size=(32, 32), irreversible=False)
    np.testing.assert_array_equal(decode(buffer.getvalue()).native, scene(3, np.uint8))


@pytest.mark.parametrize("container", ["JP2", "J2K"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.999])
def test_a_file_that_is_cut_off_is_refused(share: float, container: str) -> None:
    data = written(scene(3, np.uint8), codecformat=container)
    with pytest.raises(PictureError, match=r"damaged|cut off"):
        decode(data[: int(len(data) * share)])


def test_a_header_that_claims_more_than_there_is_is_refused() -> None:
    data = bytearray(written(scene(3, np.uint8), codecformat="J2K"))
    at = data.index(b"\xff\x51")
    data[at + 6 : at + 10] = (2**15).to_bytes(4, "big")
    with pytest.raises(PictureError, match="tiles of its codestream are missing"):
        decode(bytes(data))
    data[at + 6 : at + 10] = (2**31).to_bytes(4, "big")
    with pytest.raises(PictureError, match="at most"):
        decode(bytes(data))


def test_channels_in_another_order_than_their_colours_are_refused() -> None:
    source = encode(decode(written(scene(4, np.uint8))), scene(4, np.uint8))
    at = source.index(b"cdef") + 4
    rows = [(0, 1, 0), (1, 0, 1), (2, 0, 2), (3, 0, 3)]  # alpha first
    moved = struct.pack(">H", 4) + b"".join(struct.pack(">HHH", *row) for row in rows)
    assert struct.unpack_from(">H", source, at) == (4,)
    with pytest.raises(PictureError, match="not in the order of their colours"):
        decode(source[:at] + moved + source[at + len(moved) :])
