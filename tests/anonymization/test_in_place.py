"""A picture is obscured in its own memory, and its writer is told what changed."""

import io

import numpy as np
import pytest
from PIL import Image

from anonymization.anonymizer import Anonymizer
from anonymization.detection.finds import Detections, ShapeError
from anonymization.formats.picture import Picture, decode, encode
from anonymization.formats.pixels import PictureWriteError
from anonymization.obscuring.region import Region
from anonymization.settings import Settings

WIDTH, HEIGHT = 208, 104
NAMES = ["JPEG", "PNG", "TIFF", "WEBP"]


def tool(*given: str) -> Anonymizer:
    return Anonymizer.for_known_regions(
        settings=Settings.of(given), projection="equirectangular", seed=3
    )


def written(kind: str, mode: str = "RGB", **options: object) -> bytes:
    random = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(random).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def finds(count: int = 6, seed: int = 0) -> Detections:
    """Objects of every class, some of them over the seam."""
    random = np.random.default_rng(seed)
    corners = random.uniform((20, 5), (WIDTH - 8, 70), (count, 2))
    boxes = np.hstack([corners, corners + random.uniform(8, 60, (count, 2))])
    masks = (random.random((count, 4, 4)) > 0.2).repeat(7, axis=1).repeat(7, axis=2)
    return Detections.from_boxes(
        boxes, class_ids=np.arange(count) % 4, masks=masks.astype(np.float32)
    )


def rewritten(picture: Picture, found: Detections, *, keep: bool) -> bytes:
    anonymizer = tool()
    decided = anonymizer.decide(
        found,
        name="a",
        width=WIDTH,
        height=HEIGHT,
        view=anonymizer.view(b"", WIDTH, HEIGHT),
    )
    return anonymizer.rewrite(picture, decided, keep=keep)[1]


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_picture_that_is_kept_is_written_as_one_that_is_used_up(kind: str, mode: str) -> None:
    data = written(kind, mode)
    before = decode(data)
    kept, taken = decode(data), decode(data)
    content = rewritten(kept, finds(), keep=True)
    np.testing.assert_array_equal(kept.native, before.native)
    np.testing.assert_array_equal(kept.pixels, before.pixels)
    assert rewritten(taken, finds(), keep=False) == content


def test_what_a_picture_is_taken_from_is_its_own_memory_where_that_is_ours() -> None:
    picture = decode(written("JPEG"))
    native = picture.native
    with pytest.raises(ValueError, match="read-only"):
        native[0, 0] = 0
    assert picture.taken() is native
    native[0, 0] = 0
    foreign = np.frombuffer(bytes(12), np.uint8).reshape(2, 2, 3)
    copied = Picture(foreign, foreign, picture.encoding).taken()
    copied[:] = 7
    assert not foreign.any()


def test_who_changes_a_picture_in_place_must_tell_what() -> None:
    """Compared with itself, nothing has changed: the file would come out as it was."""
    picture = decode(written("JPEG"))
    assert encode(picture, picture.native)
    native = picture.taken()
    native[:] = 0
    with pytest.raises(PictureWriteError, match="tell which parts were hidden"):
        encode(picture, native)
    for array in (np.zeros((8, 9, 3), np.uint8)[:, ::2], np.frombuffer(bytes(27), np.uint8)):
        with pytest.raises(ShapeError, match="in place"):
            tool().obscure(np.atleast_2d(array), finds(), in_place=True)


def test_the_array_that_is_given_stays_as_it_is() -> None:
    pixels = decode(written("PNG")).pixels.copy()
    before = pixels.copy()
    anonymizer = tool()
    decided = anonymizer.decide(
        finds(), name="a", width=WIDTH, height=HEIGHT, view=anonymizer.view(b"", WIDTH, HEIGHT)
    )
    done = anonymizer.hide(pixels, decided)
    np.testing.assert_array_equal(pixels, before)
    again = anonymizer.hide(pixels, decided, in_place=True)
    assert again is pixels
    np.testing.assert_array_equal(pixels, done)


@pytest.mark.parametrize("seed", range(8))
def test_every_pixel_that_changes_lies_in_a_region_over_the_seam_too(seed: int) -> None:
    """A JPEG is written from the regions: what changed beside them would come out as it was."""
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    anonymizer = tool("face.method=pixelate", "license_plate.method=solid")
    view = anonymizer.view(b"", WIDTH, HEIGHT)
    decided = anonymizer.decide(finds(9, seed), name="a", width=WIDTH, height=HEIGHT, view=view)
    regions: list[Region] = []
    changed = (anonymizer.hide(pixels, decided, regions=regions) != pixels).any(axis=2)
    touched = np.zeros((HEIGHT, WIDTH), bool)
    for where in regions:
        touched[where.slices] |= where.touched
    assert changed.any()
    assert not (changed & ~touched).any()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_panorama_in_any_orientation_comes_out_hidden(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = orientation > 4
    random = np.random.default_rng(1).integers(0, 256, (13, 26), np.uint8)
    smooth = Image.fromarray(random).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    (smooth.transpose(Image.Transpose.ROTATE_90) if turned else smooth).save(
        buffer, "JPEG", quality=95, exif=exif
    )
    picture = decode(buffer.getvalue())
    assert (picture.width, picture.height) == (WIDTH, HEIGHT)
    anonymizer = tool(*(f"{name}.method=solid" for name in ("face", "person", "vehicle")))
    view = anonymizer.view(b"", WIDTH, HEIGHT)
    decided = anonymizer.decide(finds(), name="a", width=WIDTH, height=HEIGHT, view=view)
    wanted = anonymizer.hide(picture.native, decided).astype(int)
    shown = decode(anonymizer.rewrite(picture, decided, keep=True)[1]).native.astype(int)
    black = wanted == 0
    assert black.sum() > 1000
    assert np.percentile(shown[black], 99) < 40
    same = np.abs(shown - picture.native.astype(int)) == 0
    assert same.mean() > 0.2
    assert np.abs(shown - wanted).mean() < 8
