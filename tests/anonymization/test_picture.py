"""Pictures are read whole or refused, and written as they were, without second pictures."""

import io
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anonymization.formats import png
from anonymization.formats.picture import (
    PictureError,
    PictureWriteError,
    decode,
    encode,
    read_picture,
)
from anonymization.formats.pixels import (
    bits_used,
    colours,
    has_alpha,
    to_eight_bits,
    to_rgb,
    tone_mapped,
)

SIZE = (48, 32)


def gradient(mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    width, height = size
    x = np.linspace(0, 255, width)[None, :].repeat(height, 0)
    y = np.linspace(0, 255, height)[:, None].repeat(width, 1)
    rgb = Image.fromarray(np.stack([x, y, 255 - x], 2).astype(np.uint8))
    image = rgb.convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(rgb.convert("L"))
    return image


def written(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def reopened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_are_upright_and_the_file_keeps_its_orientation(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    source = written(gradient(), "PNG", exif=exif)
    picture = decode(source)
    from PIL import ImageOps

    np.testing.assert_array_equal(
        picture.pixels, np.asarray(ImageOps.exif_transpose(reopened(source)))
    )
    result = reopened(encode(picture, picture.native))
    assert result.getexif()[0x0112] == orientation
    np.testing.assert_array_equal(np.asarray(result), np.asarray(gradient()))


@pytest.mark.parametrize(
    ("kind", "mode", "channels"),
    [
        ("PNG", "RGB", 3),
        ("PNG", "RGBA", 4),
        ("PNG", "L", None),
        ("PNG", "LA", 2),
        ("PNG", "I;16", None),
        ("JPEG", "L", None),
        ("JPEG", "CMYK", 4),
        ("JPEG", "RGB", 3),
        ("WEBP", "RGB", 3),
        ("WEBP", "RGBA", 4),
        ("BMP", "RGB", 3),
    ],
)
def test_format_mode_and_size_stay(kind: str, mode: str, channels: int | None) -> None:
    image = gradient("L").convert("I;16") if mode == "I;16" else gradient(mode)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    picture = decode(written(image, kind, **options))
    assert picture.pixels.shape == (32, 48, 3)
    assert picture.native.shape == ((32, 48) if channels is None else (32, 48, channels))
    result = reopened(encode(picture, picture.native))
    assert (result.format, result.mode, result.size) == (kind, mode, SIZE)
    if kind != "JPEG":
        np.testing.assert_array_equal(np.asarray(result), np.asarray(image))
    else:
        difference = np.asarray(result, int) - np.asarray(reopened(written(image, kind)), int)
        assert np.abs(difference).max() <= 6


def test_sixteen_bit_colour_keeps_its_depth() -> None:
    import cv2

    deep = np.random.default_rng(0).integers(0, 65536, (8, 9, 3), dtype=np.uint16)
    source = cv2.imencode(".png", deep)[1].tobytes()
    picture = decode(source)
    np.testing.assert_array_equal(picture.native, deep[..., ::-1])
    np.testing.assert_array_equal(picture.pixels, deep[..., ::-1] >> 8)
    result = encode(picture, picture.native)
    again = cv2.imdecode(np.frombuffer(result, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(again, deep)


def test_sixteen_bit_gray_with_alpha_stays_two_channels() -> None:
    import imagecodecs

    deep = np.random.default_rng(0).integers(0, 65536, (8, 9, 2), dtype=np.uint16)
    picture = decode(imagecodecs.png_encode(deep))
    np.testing.assert_array_equal(picture.native, deep)
    np.testing.assert_array_equal(picture.pixels, np.repeat(deep[..., :1] >> 8, 3, axis=2))
    again = imagecodecs.png_decode(encode(picture, picture.native))
    np.testing.assert_array_equal(again, deep)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_gray_that_a_png_does_not_show_stays_transparent(bits: int) -> None:
    most = 2**bits - 1
    grays = np.arange(16) % (most + 1)
    row = b"".join(int(gray).to_bytes(2, "big") for gray in grays)
    if bits < 16:
        code = "".join(format(gray, f"0{bits}b") for gray in grays)
        row = int(code, 2).to_bytes(2 * bits, "big")
    source = png.SIGNATURE + b"".join(
        png.chunk(name, content)
        for name, content in (
            (b"IHDR", struct.pack(">IIBBBBB", 16, 1, bits, 0, 0, 0, 0)),
            (b"tEXt", b"Comment\0IDAT"),
            (b"tRNS", struct.pack(">H", 1)),
            (b"IDAT", zlib.compress(b"\0" + row)),
            (b"IEND", b""),
        )
    )
    picture = decode(source)
    full = 65535 if bits == 16 else 255
    np.testing.assert_array_equal(picture.native[0, :, 0], grays * full // most)
    np.testing.assert_array_equal(picture.native[0, :, 1], np.where(grays == 1, 0, full))
    again = decode(encode(picture, picture.native))
    np.testing.assert_array_equal(again.native, picture.native)


@pytest.mark.parametrize("mode", ["P", "1"])
def test_palettes_are_widened(mode: str) -> None:
    picture = decode(written(gradient(mode), "PNG"))
    assert reopened(encode(picture, picture.native)).mode == {"P": "RGB", "1": "L"}[mode]


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("quality", [40, 92])
def test_jpeg_keeps_tables_subsampling_and_progression(subsampling: int, quality: int) -> None:
    from PIL import JpegImagePlugin

    source = written(gradient(), "JPEG", quality=quality, subsampling=subsampling, progressive=True)
    picture = decode(source)
    result = reopened(encode(picture, picture.native))
    assert result.quantization == reopened(source).quantization  # type: ignore[attr-defined]
    assert JpegImagePlugin.get_sampling(result) == subsampling
    assert result.info["progressive"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_picture_that_is_cut_off_is_refused(kind: str, share: float) -> None:
    data = written(gradient(size=(200, 200)), kind)
    with pytest.raises(PictureError, match=r"street: |street is"):
        decode(data[: int(len(data) * share)], name="street")


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(PictureError, match="48x32 pixels; at most 1000"):
        decode(written(gradient(), "PNG"), max_pixels=1000)
    before = Image.MAX_IMAGE_PIXELS
    decode(written(gradient(), "PNG"))
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_is_refused(kind: str) -> None:
    other = Image.new("RGB", SIZE, (200, 0, 0))
    data = written(gradient(), kind, save_all=True, append_images=[other])
    with pytest.raises(PictureError, match="animated"):
        decode(data)


@pytest.mark.parametrize("data", [b"", b"GIF89a" + bytes(50), b"no picture"])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(PictureError, match="not a picture that can be read"):
        decode(data)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="No such file"):
        read_picture(tmp_path / "none.jpg")
    with pytest.raises(PictureError, match="not a regular file"):
        read_picture(tmp_path)


def test_pixels_of_another_shape_are_not_written() -> None:
    picture = decode(written(gradient(), "PNG"))
    with pytest.raises(PictureWriteError, match=r"\(32, 48, 3\)"):
        encode(picture, picture.native[:-1])
    with pytest.raises(PictureWriteError, match="quality is 0; expected 1 to 100"):
        encode(picture, picture.native, recompress=0)


def test_what_was_read_cannot_be_changed_in_place() -> None:
    """`encode` finds what changed by comparing with it."""
    for kind in ("JPEG", "PNG", "TIFF"):
        picture = decode(written(gradient(), kind))
        with pytest.raises(ValueError, match="read-only"):
            picture.native[0, 0] = 0
        with pytest.raises(ValueError, match="read-only"):
            picture.pixels[0, 0] = 0


def test_a_name_says_nothing_of_the_format(tmp_path: Path) -> None:
    for kind in ("JPEG", "PNG", "TIFF", "JPEG2000"):
        path = tmp_path / "picture.bmp"
        path.write_bytes(written(gradient(), kind))
        assert read_picture(path).encoding.format == kind


def test_bombs_in_what_is_compressed_are_refused_in_bounded_time() -> None:
    packed = zlib.compress(bytes(2**26 + 2**20), 1)
    text = b"Title\0\0" + packed
    body = written(gradient(), "PNG")
    bomb = body[:33] + png.chunk(b"zTXt", text) + body[33:]
    profile = png.chunk(b"iCCP", b"icc\0\0" + packed)
    for data in (bomb, body[:33] + profile + body[33:]):
        before = time.monotonic()
        try:
            picture = decode(data)
            assert len(encode(picture, picture.native)) < 2 * len(body)
        except PictureError:
            pass
        assert time.monotonic() - before < 10


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_a_camera_of_fewer_bits_is_not_shown_to_the_network_in_the_dark(bits: int) -> None:
    levels = np.random.default_rng(bits).integers(0, 256, (40, 60), dtype=np.uint16)
    values = levels << (bits - 8)
    seen = to_eight_bits(values)
    np.testing.assert_array_equal(seen, levels)
    opaque = np.full_like(values, 65535)
    shown = to_rgb(np.dstack([values, values, values, opaque]), "RGBA")
    np.testing.assert_array_equal(shown[..., 0], levels)
    values[3, 4] = 65535  # a hot pixel
    np.testing.assert_array_equal(np.delete(to_eight_bits(values), 3, 0), np.delete(levels, 3, 0))


def test_alpha_says_nothing_of_how_bright_the_colours_are() -> None:
    deep = np.full((4, 5, 4), 1500, np.uint16)
    deep[..., 3] = 65535
    assert bits_used(colours(deep, alpha=True)) == 11
    assert bits_used(colours(deep[..., :3], alpha=False)) == 11
    light = np.random.default_rng(0).random((40, 60, 3), np.float32)
    for top in (1, 100):
        for alpha in (0, 1, 255):
            picture = np.dstack([light * top, np.full((40, 60), alpha, np.float32)])
            seen = to_rgb(picture, "RGBA;32F")
            np.testing.assert_array_equal(seen, tone_mapped(light * top))


@pytest.mark.parametrize("depth", ["", ";16", ";32F"])
def test_alpha_is_told_by_the_mode_at_every_depth(depth: str) -> None:
    modes = ("L", "LA", "RGB", "RGBA", "CMYK")
    assert [mode for mode in modes if has_alpha(mode + depth)] == ["LA", "RGBA"]
    assert not has_alpha("I;16")
