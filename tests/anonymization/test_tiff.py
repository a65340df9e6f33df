"""TIFF comes out as it came in, with other pixels, and no page is left as it was."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from anonymization.detection.finds import Detections
from anonymization.formats.picture import PictureError, decode, encode
from anonymization.formats.pixels import tone_mapped
from anonymization.obscuring.obscure import obscure
from anonymization.taxonomy import ClassSpec, Taxonomy

HEIGHT, WIDTH = 70, 101


def scene(channels: int, kind: Any = np.uint8) -> NDArray[Any]:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    planes = [(x * (i + 1) + y * 2) % (HEIGHT + WIDTH) for i in range(channels)]
    share = np.stack(planes, 2) / (HEIGHT + WIDTH)
    top = 3.0 if kind == np.float32 else np.iinfo(kind).max
    result = (share * top).astype(kind)
    return result[..., 0] if channels == 1 else result


def written(pixels: NDArray[Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    photometric = "rgb" if pixels.ndim == 3 else "minisblack"
    settings = {"photometric": photometric, "metadata": None, "rowsperstrip": 16} | options
    if "tile" in settings:
        del settings["rowsperstrip"]
    if pixels.ndim == 3 and pixels.shape[2] == 4 and photometric == settings["photometric"]:
        settings["extrasamples"] = ["unassalpha"]
    tifffile.imwrite(buffer, pixels, **settings)
    return buffer.getvalue()


def changed(pixels: NDArray[Any]) -> NDArray[Any]:
    copy = pixels.copy()
    copy[10:20, 30:60] = 0
    return copy


SAME = (
    *("compression", "predictor", "is_tiled", "photometric", "bitspersample", "samplesperpixel"),
    *("sampleformat", "planarconfig", "extrasamples", "imagewidth", "imagelength"),
)
CODINGS = {
    "none": {},
    "LZW": {"compression": "lzw"},
    "LZW, differences": {"compression": "lzw", "predictor": True},
    "deflate": {"compression": "deflate"},
    "deflate, differences": {"compression": "deflate", "predictor": True},
    "PackBits": {"compression": "packbits"},
}


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_coding_layout_and_depth_stay_without_loss(channels: int, kind: Any, coding: str) -> None:
    for layout in (
        {},
        {"tile": (32, 48)},
        {"byteorder": ">"},
        {"bigtiff": True, "tile": (16, 64)},
        {"bigtiff": True, "byteorder": ">"},
    ):
        pixels = scene(channels, kind)
        source = written(pixels, **CODINGS[coding], **layout)
        picture = decode(source)
        np.testing.assert_array_equal(picture.native, pixels)
        assert picture.pixels.shape == (HEIGHT, WIDTH, 3)
        result = encode(picture, changed(pixels))
        was, now = (tifffile.TiffFile(io.BytesIO(data)) for data in (source, result))
        np.testing.assert_array_equal(now.asarray(), changed(pixels))
        assert [getattr(now.pages[0], n) for n in SAME] == [getattr(was.pages[0], n) for n in SAME]
        assert (now.byteorder, now.is_bigtiff) == (was.byteorder, was.is_bigtiff)
        assert now.pages[0].tile == was.pages[0].tile
        np.testing.assert_array_equal(decode(result).native, changed(pixels))


def with_predictor(pixels: NDArray[Any], predictor: int, **options: Any) -> bytes:
    """Pixels as they are, in a file that says they are differences."""
    data = bytearray(written(pixels, extratags=[(316, 3, 1, predictor, True)], **options))
    tag = tifffile.TiffFile(io.BytesIO(bytes(data))).pages[0].tags[316]
    struct.pack_into("<H", data, tag.offset, 317)
    return bytes(data)


@pytest.mark.parametrize("predictor", [2, 3])
@pytest.mark.parametrize("coding", ["none", "PackBits", "LZW", "deflate"])
def test_a_predictor_is_heeded_where_viewers_heed_it(coding: str, predictor: int) -> None:
    """What the network sees and what is written is what people see."""
    import cv2

    source = with_predictor(scene(1), predictor, **CODINGS[coding])
    shown = cv2.imdecode(np.frombuffer(source, np.uint8), cv2.IMREAD_UNCHANGED)
    if shown is None:
        with pytest.raises(PictureError, match="predictor 3 for uint8"):
            decode(source)
        return
    picture = decode(source)
    np.testing.assert_array_equal(picture.native, shown)
    assert (shown == scene(1)).all() == (coding in ("none", "PackBits"))
    result = encode(picture, changed(shown))
    again = cv2.imdecode(np.frombuffer(result, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(again, changed(shown))
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(result)), changed(shown))


def test_a_predictor_of_bilevel_pixels_is_refused() -> None:
    source = with_predictor(scene(1) > 100, 2, compression="lzw")
    with pytest.raises(PictureError, match="predictor 2 of bilevel pixels"):
        decode(source)


def test_planes_and_ink_stay() -> None:
    pixels = scene(3)
    source = written(np.moveaxis(pixels, 2, 0), photometric="rgb", planarconfig="separate")
    picture = decode(source)
    np.testing.assert_array_equal(picture.native, pixels)
    now = tifffile.TiffFile(io.BytesIO(encode(picture, changed(pixels))))
    assert now.pages[0].planarconfig == 2
    np.testing.assert_array_equal(np.moveaxis(now.asarray(), 0, 2), changed(pixels))

    ink = scene(4)
    picture = decode(written(ink, photometric="separated"))
    assert picture.encoding.mode == "CMYK"
    np.testing.assert_array_equal(decode(encode(picture, changed(ink))).native, changed(ink))


def test_a_negative_is_seen_upright_and_written_as_it_was() -> None:
    pixels = scene(1, np.uint16)
    picture = decode(written(pixels, photometric="miniswhite"))
    np.testing.assert_array_equal(picture.native, 65535 - pixels)
    now = tifffile.TiffFile(io.BytesIO(encode(picture, picture.native)))
    assert now.pages[0].photometric == 0
    np.testing.assert_array_equal(now.asarray(), pixels)


@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_what_is_hidden_in_a_negative_is_as_opaque_as_it_was(kind: Any, planes: bool) -> None:
    top = np.iinfo(kind).max
    pixels = scene(2, kind)
    pixels[..., 1] = top
    source = written(
        np.moveaxis(pixels, 2, 0) if planes else pixels,
        photometric="miniswhite",
        planarconfig="separate" if planes else "contig",
        extrasamples=["unassalpha"],
    )
    picture = decode(source)
    np.testing.assert_array_equal(picture.native[..., 0], top - pixels[..., 0])
    np.testing.assert_array_equal(picture.native[..., 1], pixels[..., 1])
    finds = Detections.from_boxes([[30, 10, 60, 20]], class_ids=[0])
    solid = Taxonomy({"thing": ClassSpec("box", "box", method="solid", margin=0.0)})
    result = encode(picture, obscure(picture.native, finds, solid, seed=0))
    now = tifffile.TiffFile(io.BytesIO(result))
    assert now.pages[0].photometric == 0
    shown = np.moveaxis(now.asarray(), 0, 2) if planes else now.asarray()
    expected = pixels.copy()
    expected[10:20, 30:60, 0] = top
    np.testing.assert_array_equal(shown, expected)


@pytest.mark.parametrize("wide", [1, 256, 257])
def test_palettes_and_bilevel_are_widened(wide: int) -> None:
    """Writers disagree on how bytes become a palette's 16 bits."""
    colours = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16) * wide
    index = scene(1)
    picture = decode(written(index, photometric="palette", colormap=colours))
    np.testing.assert_array_equal(picture.native, (colours // wide).T.astype(np.uint8)[index])
    assert tifffile.TiffFile(io.BytesIO(encode(picture, picture.native))).pages[0].photometric == 2
    black = scene(1) > 100
    picture = decode(written(black, photometric="minisblack"))
    np.testing.assert_array_equal(picture.native, black * np.uint8(255))


@pytest.mark.parametrize("layout", [{}, {"tile": (32, 48)}])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_in_tiff_keeps_what_did_not_change(channels: int, layout: dict[str, Any]) -> None:
    source = written(scene(channels), compression="jpeg", **layout)
    picture = decode(source)
    shown = tifffile.imread(io.BytesIO(source))
    assert np.abs(picture.native.astype(int) - shown).max() <= 3
    result = encode(picture, changed(picture.native))
    now = tifffile.TiffFile(io.BytesIO(result))
    assert now.pages[0].compression == 7
    again = now.asarray()
    assert np.abs(again[13:17, 34:56].astype(int)).max() <= 40
    np.testing.assert_array_equal(again[40:56, :60], shown[40:56, :60])
    assert len(encode(picture, picture.native, recompress=20)) < len(result)


def test_several_pages_are_refused_and_previews_dropped() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for _ in range(2):
            writer.write(scene(3), photometric="rgb", metadata=None)
    with pytest.raises(PictureError, match="several pages"):
        decode(buffer.getvalue())
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(scene(3), photometric="rgb", metadata=None)
        writer.write(scene(3)[::2, ::2].copy(), photometric="rgb", subfiletype=1, metadata=None)
    picture = decode(buffer.getvalue())
    assert len(tifffile.TiffFile(io.BytesIO(encode(picture, picture.native))).pages) == 1


@pytest.mark.parametrize(
    ("pixels", "options", "message"),
    [
        (np.zeros((16, 16), np.int16), {}, "handled: up to 4 of 8 or 16 bits"),
        (np.zeros((16, 16), np.float64), {}, "handled: up to 4 of 8 or 16 bits"),
        (np.zeros((16, 16), np.uint32), {}, "handled: up to 4 of 8 or 16 bits"),
        (
            np.zeros((16, 16, 6), np.uint8),
            {"photometric": "minisblack", "planarconfig": "contig"},
            "6 channels",
        ),
        (
            np.zeros((16, 16), np.uint8),
            {"compression": "zstd"},
            "TIFF compression 50000; handled: none, LZW, JPEG, deflate, PackBits$",
        ),
        (np.zeros((16, 16), np.uint8), {"subfiletype": 1}, "raw file"),
    ],
)
def test_other_tiffs_are_refused(
    pixels: NDArray[Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(PictureError, match=message):
        decode(written(pixels, **options))


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("share", [0.3, 0.95])
def test_a_tiff_that_is_cut_off_is_refused(share: float, coding: str) -> None:
    data = written(scene(3), **CODINGS[coding])
    with pytest.raises(PictureError, match=r"damaged|cut off|TIFF"):
        decode(data[: int(len(data) * share)])


def test_a_strip_that_inflates_without_end_takes_no_memory() -> None:
    data = bytearray(written(scene(1), compression="deflate", rowsperstrip=HEIGHT))
    bomb = zlib.compress(bytes(2**26), 1)
    page = tifffile.TiffFile(io.BytesIO(bytes(data))).pages[0]
    for name, value in (("StripOffsets", len(data)), ("StripByteCounts", len(bomb))):
        tag = page.tags[name]
        struct.pack_into("<HI", data, tag.offset + 2, 4, 1)
        struct.pack_into("<I", data, tag.offset + 8, value)
    picture = decode(bytes(data) + bomb)
    assert not picture.native.any()


def test_a_tile_larger_than_any_picture_is_refused() -> None:
    data = written(scene(1), tile=(32, 48))
    page = tifffile.TiffFile(io.BytesIO(data)).pages[0]
    broken = bytearray(data)
    for name in ("TileWidth", "TileLength"):
        tag = page.tags[name]
        struct.pack_into("<HII", broken, tag.offset + 2, 4, 1, 2**20)
    with pytest.raises(PictureError, match="tiles of 1048576x1048576"):
        decode(bytes(broken))


def test_float_pixels_are_mapped_to_what_a_detector_knows() -> None:
    display = np.array([[0.0, 0.5, 1.0]], np.float32)
    np.testing.assert_array_equal(tone_mapped(display), [[0, 128, 255]])
    light = np.linspace(0, 100, 10000, dtype=np.float32).reshape(100, 100)
    shown = tone_mapped(light)
    assert shown[0, 0] == 0
    assert shown[-1, -1] == 255
    assert abs(int(shown[50, 0]) - round(255 * (50 / 99) ** (1 / 2.2))) <= 2
    odd = np.array([[np.nan, np.inf, -np.inf, 0.5]], np.float32)
    np.testing.assert_array_equal(tone_mapped(odd), [[0, 0, 0, 128]])


def test_channels_and_depth_count_against_the_limit() -> None:
    data = written(scene(4, np.float32))
    with pytest.raises(PictureError, match="bytes of pixels; at most"):
        decode(data, max_pixels=HEIGHT * WIDTH)
    assert decode(data, max_pixels=2 * HEIGHT * WIDTH).native.dtype == np.float32


def test_geotiff_keeps_places_and_no_more_numbers_than_places_have() -> None:
    keys = (1, 1, 0, 2, 1024, 0, 1, 2, 2048, 0, 1, 4326)
    tags: dict[int, tuple[Any, ...]] = {
        33550: (33550, 12, 3, (0.5, 0.5, 0.0), True),
        34735: (34735, 3, len(keys), keys, True),
        34736: (34736, 12, 33, tuple(float(v) for v in range(33)), True),
    }
    jumbled = (34735, 3, len(keys), (*keys[:4], *keys[8:], *keys[4:8]), True)
    for second, stays in ((tags[34735], True), (jumbled, False)):
        buffer = io.BytesIO()
        extra = [tags[33550], second, tags[34736]]
        tifffile.imwrite(buffer, scene(3), photometric="rgb", extratags=extra)
        picture = decode(buffer.getvalue())
        with tifffile.TiffFile(io.BytesIO(encode(picture, picture.native))) as file:
            found = {tag.code for tag in file.pages[0].tags}
        assert 33550 in found
        assert (34735 in found) is stays
        assert 34736 not in found
