"""A JPEG changes only where its pixels do, and there nothing of the source is left."""

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from anonymization.detection.finds import Detections
from anonymization.formats import jpeg, jpeg_frame, jpeg_markers, turbojpeg
from anonymization.formats.blocks import BLOCK, blocks_of, blocks_that_differ, units_of
from anonymization.formats.picture import PictureError, decode, encode, read_picture
from anonymization.formats.pixels import as_stored, upright
from anonymization.obscuring.obscure import obscure
from anonymization.obscuring.region import Region, hidden_parts
from anonymization.taxonomy import ClassSpec, Taxonomy

WIDTH, HEIGHT = 151, 117
"""Odd on purpose: the last units stick out of the picture."""

CLOSE = 24
"""Levels that quantization moves a pixel at the edge of a painted box; the scene is 88 away."""

Blocks = dict[tuple[int, int], NDArray[np.int16]]


def street(mode: str, seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image.Image:
    """Smooth random colours, which every quality keeps well."""
    channels = {"L": 1, "RGB": 3, "CMYK": 4}[mode]
    small = np.random.default_rng(seed).integers(40, 216, (9, 11, channels), dtype=np.uint8)
    return Image.frombytes(mode, (11, 9), small.tobytes()).resize(size, Image.Resampling.BICUBIC)


def written(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **{"quality": 90} | options)
    return buffer.getvalue()


def blocks(data: bytes) -> Blocks:
    """Coefficients of each row of blocks of each component."""
    found: Blocks = {}

    def visit(component: int, row: int, values: NDArray[np.int16]) -> None:
        found[component, row] = values.copy()

    turbojpeg.rewrite(data, visit, progressive=False, arithmetic=False, optimize=False)
    return found


def with_object(picture: Any, box: tuple[int, int, int, int] = (40, 30, 90, 70)) -> Any:
    """Paint a box over it, as solid obscuring does."""
    x0, y0, x1, y1 = box
    changed = picture.native.copy()
    changed[y0:y1, x0:x1] = 128
    return changed


SOURCES = {
    f"{mode} {name} {'progressive' if progressive else 'baseline'}": (mode, sampling, progressive)
    for mode, samplings in {
        "L": {"": 0},
        "RGB": {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2},
        "CMYK": {"4:4:4": 0, "4:2:0": 2},
    }.items()
    for name, sampling in samplings.items()
    for progressive in (False, True)
}


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest) -> bytes:
    mode, sampling, progressive = SOURCES[request.param]
    return written(street(mode), subsampling=sampling, progressive=progressive)


def with_orientation(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def exif_segment(orientation: int) -> bytes:
    return jpeg_markers.segment(jpeg_markers.APP1, with_orientation(orientation).tobytes())


def grown_to_units(hidden: NDArray[Any]) -> NDArray[np.bool_]:
    """The units of 8 x 8 pixels that hold a hidden one."""
    units = hidden.reshape(hidden.shape[0] // 8, 8, -1, 8).any(axis=(1, 3))
    return np.asarray(units.repeat(8, axis=0).repeat(8, axis=1))


def unit_of(block: tuple[int, int], column: int, frame: jpeg_frame.Frame) -> tuple[int, int]:
    component = frame.components[block[0]]
    return block[1] // component.down, column // component.across


def test_the_library_is_there() -> None:
    """Without it JPEGs come out right, but not without loss: an update must not take it away."""
    assert turbojpeg.available()


def test_every_other_block_is_bit_identical(source: bytes) -> None:
    picture = decode(source)
    changed = with_object(picture)
    frame = jpeg_frame.read_frame(source)
    touched = units_of(blocks_that_differ(picture.native, changed), frame.unit, changed.shape[:2])
    rows, columns = frame.unit
    expected = np.zeros_like(touched)
    expected[30 // rows : -(-70 // rows), 40 // columns : -(-90 // columns)] = True
    np.testing.assert_array_equal(touched, expected)

    before, after = blocks(source), blocks(encode(picture, changed))
    assert before.keys() == after.keys()
    replaced = 0
    for key, values in before.items():
        for column in range(len(values)):
            row, across = unit_of(key, column, frame)
            if row < len(touched) and touched[row, across]:
                replaced += 1
            else:
                np.testing.assert_array_equal(values[column], after[key][column])
    assert replaced >= touched.sum() * len(frame.components)


def test_the_object_is_fully_gone(source: bytes) -> None:
    changed = encode(decode(source), with_object(decode(source)))
    shown = np.asarray(Image.open(io.BytesIO(changed)), int)
    assert np.abs(shown[33:67, 43:87] - 128).max() <= CLOSE
    frame = jpeg_frame.read_frame(changed)
    for key, values in blocks(changed).items():
        component = frame.components[key[0]]
        high, wide = (
            8 * u // c for u, c in zip(frame.unit, (component.down, component.across), strict=True)
        )
        for column, block in enumerate(values):
            y, x = key[1] * high, column * wide
            if y >= 30 and y + high <= 70 and x >= 40 and x + wide <= 90:
                assert not block[1:].any(), "a block of one colour has no detail"


def test_mode_sampling_tables_and_size_stay(source: bytes) -> None:
    picture = decode(source)
    result = encode(picture, with_object(picture))
    was, now = jpeg_frame.read_frame(source), jpeg_frame.read_frame(result)
    assert (was.progressive, was.colorspace, was.unit) == (
        now.progressive,
        now.colorspace,
        now.unit,
    )
    for a, b in zip(was.components, now.components, strict=True):
        np.testing.assert_array_equal(a.table, b.table)
    assert len(result) < 1.1 * len(source)


def test_nothing_changed_means_no_block_changed(source: bytes) -> None:
    picture = decode(source)
    before, after = blocks(source), blocks(encode(picture, picture.native))
    assert all((before[key] == after[key]).all() for key in before)


def test_pixels_decode_as_pillow_decodes_them(source: bytes) -> None:
    np.testing.assert_array_equal(decode(source).native, np.asarray(Image.open(io.BytesIO(source))))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("sampling", [0, 2])
def test_blocks_stay_in_every_orientation(orientation: int, sampling: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    source = written(street("RGB"), exif=exif, subsampling=sampling)
    picture = decode(source)
    changed = with_object(picture, (0, 0, 20, 12))
    result = encode(picture, changed)
    again = decode(result)
    assert again.encoding.orientation == orientation
    assert np.abs(again.native[1:11, 1:19].astype(int) - 128).max() <= CLOSE
    unit = 8 if sampling == 0 else 16
    far = (slice(3 * unit, None), slice(3 * unit, None))
    np.testing.assert_array_equal(again.native[far], picture.native[far])
    before, after = blocks(source), blocks(result)
    differing = sum(int((before[key] != after[key]).any(axis=1).sum()) for key in before)
    assert differing <= 3 * 15


def test_an_object_at_the_last_row_and_column_is_gone() -> None:
    source = written(street("RGB"), subsampling=2)
    picture = decode(source)
    changed = with_object(picture, (WIDTH - 20, HEIGHT - 15, WIDTH, HEIGHT))
    shown = decode(encode(picture, changed)).native
    assert np.abs(shown[HEIGHT - 13 :, WIDTH - 18 :].astype(int) - 128).max() <= CLOSE


def test_what_is_behind_the_picture_and_between_scans_is_dropped() -> None:
    source = written(street("RGB"), progressive=True) + b"TRAILER" + written(street("RGB", 1))
    picture = decode(source)
    result = encode(picture, with_object(picture))
    assert b"TRAILER" not in result
    assert result.endswith(jpeg_markers.EOI)
    assert result.count(b"\xff\xd8\xff") == 1


def test_restart_markers_are_read() -> None:
    source = written(street("RGB"), restart_marker_rows=1)
    assert b"\xff\xdd" in source
    picture = decode(source)
    before, after = blocks(source), blocks(encode(picture, with_object(picture, (0, 0, 8, 8))))
    assert sum((before[k] != after[k]).any(axis=1).sum() for k in before) <= 6


def rewritten_as(**how: bool) -> bytes:
    options = {"progressive": False, "arithmetic": False, "optimize": False} | how
    return turbojpeg.rewrite(written(street("RGB")), lambda *_: None, **options)


@pytest.mark.parametrize("progressive", [False, True])
def test_arithmetic_codes_stay(progressive: bool) -> None:
    source = rewritten_as(arithmetic=True, progressive=progressive)
    picture = decode(source)
    result = encode(picture, with_object(picture))
    assert (
        jpeg_markers.frame_kind(result)
        == jpeg_markers.frame_kind(source)
        == (0xCA if progressive else 0xC9)
    )
    assert np.abs(decode(result).native[33:67, 43:87].astype(int) - 128).max() <= CLOSE


def test_own_huffman_tables_stay_as_small() -> None:
    plain, own = written(street("RGB")), written(street("RGB"), optimize=True)
    for data in (plain, own):
        picture = decode(data)
        assert abs(len(encode(picture, picture.native)) - len(data)) < 0.02 * len(data) + 64


def test_rgb_without_colour_transform_keeps_its_blocks() -> None:
    source = written(street("RGB"), keep_rgb=True, subsampling=0)
    assert jpeg_frame.read_frame(source).colorspace == "RGB"
    picture = decode(source)
    result = encode(picture, with_object(picture))
    assert jpeg_frame.read_frame(result).colorspace == "RGB"
    np.testing.assert_array_equal(decode(result).native[80:], picture.native[80:])
    assert np.abs(decode(result).native[33:67, 43:87].astype(int) - 128).max() <= 4


def test_a_picture_that_changes_everywhere_is_encoded_whole() -> None:
    picture = decode(written(street("RGB")))
    other = np.asarray(street("RGB", 5))
    shown = decode(encode(picture, other)).native
    assert np.abs(shown.astype(int) - other).mean() < 3


def test_recompressing_changes_quality_and_size() -> None:
    picture = decode(written(street("RGB"), quality=95))
    sizes = [len(encode(picture, with_object(picture), recompress=q)) for q in (20, 60, 95)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2] / 2


def test_without_the_library_pictures_are_encoded_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    source = written(street("RGB"), subsampling=2)
    monkeypatch.setattr(turbojpeg, "_library", lambda: None)
    picture = decode(source)
    shown = decode(encode(picture, with_object(picture))).native
    assert np.abs(shown[33:67, 43:87].astype(int) - 128).max() <= CLOSE


def test_what_a_filter_raises_is_raised_and_nothing_is_written() -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        turbojpeg.rewrite(
            written(street("L")), fail, progressive=False, arithmetic=False, optimize=False
        )


def test_blocks_that_are_never_asked_for_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that skipped rows would let the source through."""
    source = written(street("RGB"))
    picture = decode(source)
    frame = jpeg_frame.read_frame(source)
    changed = with_object(picture)
    touched = units_of(blocks_that_differ(picture.native, changed), frame.unit, changed.shape[:2])
    monkeypatch.setattr(turbojpeg, "rewrite", lambda data, *_, **__: data)
    with pytest.raises(turbojpeg.TurboJpegError, match="rows of blocks were not replaced"):
        jpeg.rewrite(source, changed, touched, frame)
    shown = decode(encode(picture, changed)).native
    assert np.abs(shown[33:67, 43:87].astype(int) - 128).max() <= CLOSE


def test_lossless_and_endless_jpegs_are_refused() -> None:
    lossless = bytearray(written(street("L")))
    lossless[lossless.index(b"\xff\xc0") + 1] = 0xC3
    with pytest.raises(PictureError, match="lossless or hierarchical JPEG"):
        decode(bytes(lossless))
    progressive = written(street("L"), progressive=True)
    scan = progressive.rindex(b"\xff\xda")
    endless = progressive[:scan] + progressive[scan:-2] * 300 + jpeg_markers.EOI
    with pytest.raises(PictureError, match="scans; at most 200"):
        decode(endless)


def test_threads_do_not_meet() -> None:
    def turn(seed: int) -> bool:
        sampling, progressive = seed % 3, bool(seed % 2)
        image = street("RGB", seed, (300 + seed, 200 + seed))
        picture = decode(written(image, subsampling=sampling, progressive=progressive))
        result = decode(encode(picture, with_object(picture))).native
        alone = np.abs(result[33:67, 43:87].astype(int) - 128).max() <= CLOSE
        return bool(alone and (result[120:] == picture.native[120:]).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(turn, range(24)))


def far_from(box: tuple[int, int, int, int], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Pixels further than two units from a box."""
    far = np.ones(shape[:2], bool)
    far[max(0, box[1] - 32) : box[3] + 32, max(0, box[0] - 32) : box[2] + 32] = False
    return far


@pytest.mark.realdata
def test_real_photographs_keep_their_pixels_and_show_no_seam(realdata: Path) -> None:
    blur: Callable[[Image.Image], Image.Image] = lambda i: i.filter(ImageFilter.GaussianBlur(12))  # noqa: E731
    for folder in ("street_coco", "plates_openalpr", "faces"):
        paths = sorted((realdata / folder).rglob("*.jpg"))[:3]
        for path in paths:
            picture = read_picture(path)
            box = (
                picture.width // 3,
                picture.height // 3,
                picture.width // 2,
                picture.height // 2,
            )
            changed = picture.native.copy()
            x0, y0, x1, y1 = box
            crop = Image.fromarray(np.ascontiguousarray(changed[y0:y1, x0:x1]))
            changed[y0:y1, x0:x1] = np.asarray(blur(crop))
            shown = decode(encode(picture, changed)).native.astype(int)
            far = far_from(box, changed.shape)
            np.testing.assert_array_equal(shown[far], picture.native[far])
            assert np.abs(shown - changed)[~far].mean() < 3


@pytest.mark.parametrize("width", [64, 62, 61, 60])  # rows of 8, 2, 1 and 4 bytes' multiples
@pytest.mark.parametrize("turned", [False, True])
def test_a_single_changed_byte_touches_its_unit_alone(width: int, turned: bool) -> None:
    before = np.zeros((40, width, 3), np.uint8)
    for row, column, channel in ((0, 0, 0), (17, 31, 2), (16, 32, 0), (39, width - 1, 2)):
        after = before.copy()
        after[row, column, channel] = 1
        pair, at = (before, after), (row // 16, column // 16)
        if turned:
            pair, at = (before.swapaxes(0, 1), after.swapaxes(0, 1)), (at[1], at[0])
        touched = units_of(blocks_that_differ(*pair), (16, 16), pair[0].shape[:2])
        assert touched.sum() == 1
        assert touched[at]


THIN = [(1, 40), (40, 1), (1, 8), (16, 1), (1, 1)]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", THIN)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_changed_byte_of_one_row_or_column_touches_its_unit(
    channels: int, size: tuple[int, int], orientation: int
) -> None:
    """NumPy calls such views contiguous, whatever their strides are."""
    before = np.zeros((*size, channels), np.uint8)[..., slice(None) if channels > 1 else 0]
    for place in (0, max(size) - 1):
        after = before.copy()
        after.reshape(max(size), -1)[place, -1] = 1
        pair = as_stored(before, orientation), as_stored(after, orientation)
        row, column = np.argwhere((pair[0] != pair[1]).reshape(*pair[0].shape[:2], -1))[0, :2]
        touched = units_of(blocks_that_differ(*pair), (8, 16), pair[0].shape[:2])
        assert touched.shape == (-(-pair[0].shape[0] // 8), -(-pair[0].shape[1] // 16))
        assert touched.sum() == 1
        assert touched[row // 8, column // 16]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", THIN)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_picture_of_one_row_or_column_is_hidden_in_every_orientation(
    mode: str, size: tuple[int, int], orientation: int
) -> None:
    source = written(street(mode, size=size), exif=with_orientation(orientation), subsampling=0)
    picture = decode(source)
    assert sorted(picture.native.shape[:2]) == sorted(size)
    changed = picture.native.copy()
    line = changed.reshape(max(size), -1)
    line[: min(4, len(line))] = 128
    result = decode(encode(picture, changed)).native
    assert result.shape == changed.shape
    shown, before = (a.reshape(len(line), -1).astype(int) for a in (result, picture.native))
    assert np.abs(shown[: min(4, len(line)) - 1] - 128).max(initial=0) <= CLOSE
    np.testing.assert_array_equal(shown[8:], before[8:])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("method", ["solid", "blur"])
def test_what_is_darker_than_black_does_not_stay_behind_black(
    orientation: int, method: str
) -> None:
    scene = street("L", size=(96, 64))
    source = written(scene, exif=with_orientation(orientation))
    light = int(8 * 300 / jpeg_frame.read_frame(source).components[0].table[0])

    def moved(data: bytes, by: int) -> bytes:
        def visit(component: int, row: int, values: NDArray[np.int16]) -> None:
            values[:, 0] = np.clip(values[:, 0] + by, -1023, 1023)

        return turbojpeg.rewrite(data, visit, progressive=False, arithmetic=False, optimize=True)

    dark = jpeg_markers.with_segments(moved(source, -light), exif_segment(orientation))
    picture = decode(dark)
    assert picture.native.max() == 0
    spec = ClassSpec("box", "box", method=method, margin=0.0)
    box = [8, 16, 56, 48]
    finds = Detections.from_boxes([box], class_ids=[0])
    regions: list[Region] = []
    done = obscure(picture.native, finds, Taxonomy({"thing": spec}), seed=1, regions=regions)
    assert regions
    content = encode(picture, done, hidden=hidden_parts(regions))
    seen, before = (decode(moved(data, light)).native.astype(int) for data in (content, dark))
    hidden = as_stored(np.zeros_like(picture.native), orientation).copy()
    upright(hidden, orientation)[box[1] : box[3], box[0] : box[2]] = 1
    assert np.unique(seen[hidden == 1]).size <= 2
    assert np.unique(before[hidden == 1]).size > 50
    far = ~np.asarray(grown_to_units(hidden))
    np.testing.assert_array_equal(seen[far], before[far])


@pytest.mark.parametrize("orientation", range(9))
def test_hidden_parts_are_found_where_they_are_stored(orientation: int) -> None:
    random = np.random.default_rng(orientation)
    for _ in range(50):
        height, width = random.integers(1, 60, 2)
        y, x = random.integers(0, height), random.integers(0, width)
        rows, columns = random.integers(1, height - y + 1), random.integers(1, width - x + 1)
        mask = random.random((rows, columns)) < random.choice([0.02, 1.0])
        whole = np.zeros((height, width), bool)
        whole[y : y + rows, x : x + columns] = mask
        stored = as_stored(whole, orientation)
        expected = np.zeros([-(-side // BLOCK) for side in stored.shape], bool)
        for row, column in np.argwhere(stored):
            expected[row // BLOCK, column // BLOCK] = True
        parts = [(int(x), int(y), mask), (0, 0, np.zeros((0, 3), bool))]
        found = blocks_of(parts, (height, width), orientation)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(blocks_that_differ(np.zeros_like(stored), stored), expected)


@pytest.mark.parametrize("at", [(0, 0), (16, 32), (20, 5), (7, 8)])
def test_every_unit_of_a_part_that_holds_a_changed_block_is_touched(at: tuple[int, int]) -> None:
    random = np.random.default_rng(1)
    for unit in ((8, 8), (16, 16), (8, 32)):
        changed = random.random((90, 110)) < 0.0008
        shape = 60, 70  # it sticks out at the right
        found = units_of(blocks_that_differ(np.zeros_like(changed), changed), unit, shape, at=at)
        part = changed[at[0] : at[0] + shape[0], at[1] : at[1] + shape[1]]
        expected = np.zeros((-(-60 // unit[0]), -(-70 // unit[1])), bool)
        for row, column in np.argwhere(part):
            expected[row // unit[0], column // unit[1]] = True
        assert found.shape == expected.shape
        assert found[expected].all()
        assert not found.all()
        if at[0] % 16 == at[1] % 32 == 0:
            near = np.zeros_like(found)
            for row, column in np.argwhere(changed[at[0] :, at[1] :]):
                if row // unit[0] < len(near) and column // unit[1] < near.shape[1]:
                    near[row // unit[0], column // unit[1]] = True
            np.testing.assert_array_equal(found, near)
