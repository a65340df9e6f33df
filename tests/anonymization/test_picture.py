"""Pictures are read whole or refused, and written as they were, without second pictures."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from anonymization.metadata import clean_exif, clean_xmp, exif_orientation
from anonymization.picture import PictureError, PictureWriteError, decode, encode, read_picture

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


def face_in_thumbnail() -> bytes:
    """A JPEG small enough for EXIF, with bytes that can be looked for."""
    return written(Image.new("RGB", (16, 16), (1, 2, 3)), "JPEG", comment=b"THE-FACE")


def exif_with_thumbnail(order: str = "<", orientation: int = 1) -> bytes:
    """EXIF with camera make, GPS latitude, a maker note, and a thumbnail in IFD1."""
    exif = Image.Exif()
    exif.endian = order
    exif[0x010F] = "Maker"
    exif[0x0112] = orientation
    exif[0x8769] = {0x9003: "2026:11:22 10:00:00", 0x927C: b"note " + face_in_thumbnail()}
    exif[0x8825] = {1: "N", 2: (48.0, 12.0, 30.5)}
    body = bytearray(exif.tobytes()[6:])
    import struct

    (first,) = struct.unpack_from(f"{order}I", body, 4)
    (count,) = struct.unpack_from(f"{order}H", body, first)
    struct.pack_into(f"{order}I", body, first + 2 + 12 * count, len(body))
    thumbnail = face_in_thumbnail()
    at = len(body) + 2 + 24 + 4
    body += struct.pack(f"{order}HHHIIHHIII", 2, 0x0201, 4, 1, at, 0x0202, 4, 1, len(thumbnail), 0)
    return b"Exif\x00\x00" + bytes(body) + thumbnail


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_thumbnail_and_maker_note_are_gone_and_the_rest_of_exif_stays(kind: str) -> None:
    exif = exif_with_thumbnail()
    source = written(gradient(), kind, exif=exif)
    assert b"THE-FACE" in source
    picture = decode(source)
    result = encode(picture, picture.native)
    assert b"THE-FACE" not in result
    found = reopened(result).getexif()
    assert found[0x010F] == "Maker"
    assert found.get_ifd(0x8769)[0x9003] == "2026:11:22 10:00:00"
    assert 0x927C not in found.get_ifd(0x8769)
    assert found.get_ifd(0x8825)[2] == (48.0, 12.0, 30.5)
    assert not found.get_ifd(1)


def test_clean_exif_keeps_both_byte_orders_and_is_stable() -> None:
    for order in "<>":
        once = clean_exif(exif_with_thumbnail(order, 6))
        assert clean_exif(once) == once
        assert exif_orientation(once) == 6


@pytest.mark.parametrize("exif", [b"", b"junk", b"Exif\0\0II*\0\xff\xff\xff\xff", b"MM\0*\0\0"])
def test_exif_that_cannot_be_parsed_is_dropped(exif: bytes) -> None:
    assert clean_exif(exif) == b""
    assert exif_orientation(exif) == 1


@pytest.mark.parametrize(
    ("xmp", "kept"),
    [
        (b"<x><GPano:ProjectionType>equirectangular</GPano:ProjectionType></x>", True),
        (b"<xmp:Thumbnails><xmpGImg:image>/9j/4AAQ</xmpGImg:image></xmp:Thumbnails>", False),
        (b"<rdf GCamera:MicroVideo='1'/>", False),
        (b"<rdf xmpNote:HasExtendedXMP='ABC'/>", False),
        (b"<other>" + b"QUJD" * 400 + b"</other>", False),
        (b"<x/>" + b" " * 2048 + b"<?xpacket end='w'?>", True),
    ],
)
def test_xmp_stays_unless_it_could_hold_a_picture(xmp: bytes, kept: bool) -> None:
    assert clean_xmp(xmp) == (xmp if kept else b"")


def test_trailers_and_further_pictures_of_a_jpeg_are_dropped() -> None:
    source = written(gradient(), "JPEG") + b"MotionPhoto" + face_in_thumbnail()
    picture = decode(source)
    assert b"THE-FACE" not in encode(picture, picture.native)
    several = written(
        gradient(), "MPO", save_all=True, append_images=[Image.new("RGB", SIZE, (9, 9, 9))]
    )
    picture = decode(several)
    assert picture.encoding.format == "JPEG"
    assert getattr(reopened(encode(picture, picture.native)), "n_frames", 1) == 1


def test_photoshop_thumbnails_go_and_iptc_stays() -> None:
    iptc = b"\x1c\x02\x69\x00\x05title"
    resources = b"8BIM\x04\x04\x00\x00" + len(iptc).to_bytes(4, "big") + iptc
    thumbnail = face_in_thumbnail()
    resources += b"8BIM\x04\x0c\x00\x00" + len(thumbnail).to_bytes(4, "big") + thumbnail
    content = b"Photoshop 3.0\x00" + resources
    segment = b"\xff\xed" + (len(content) + 2).to_bytes(2, "big") + content
    source = written(gradient(), "JPEG", extra=segment)
    assert b"THE-FACE" in source
    result = encode(decode(source), decode(source).native)
    assert b"THE-FACE" not in result
    assert reopened(result).info["photoshop"][0x0404] == iptc


def test_png_text_stays_unless_it_could_hold_a_picture() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "street")
    text.add_text("Raw profile type exif", "THE-FACE")
    text.add_text("Packed", "THE-FACE" * 50, zip=True)
    text.add_text("Preview", "/9j/THE-FACE")
    source = written(gradient(), "PNG", pnginfo=text, dpi=(300, 300))
    picture = decode(source)
    result = reopened(encode(picture, picture.native))
    assert result.info["Title"] == "street"
    assert set(result.info) == {"Title", "dpi"}


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
