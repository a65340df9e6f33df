"""Regions as they are kept: whole boxes and faded ellipses without pixels until somebody asks."""

import numpy as np
import pytest

from anonymization.detection.finds import ShapeError
from anonymization.obscuring.obscure import _mix
from anonymization.obscuring.region import NOWHERE, Region, hidden_parts
from anonymization.obscuring.replacement import CellNoise

FADED = np.array([[0, 90, 255], [255, 255, 255]], np.uint8)
FULL = np.array([[0, 0, 1], [1, 1, 1]], bool)


def test_a_whole_box_is_full_everywhere() -> None:
    box = Region(4, 6, None, shape=(2, 3))
    assert box.whole
    assert box.full.all()
    assert box.full.shape == (2, 3)
    assert box.slices == (slice(6, 8), slice(4, 7))
    np.testing.assert_array_equal(box.touched, box.full)
    np.testing.assert_array_equal(box.weight, np.ones((2, 3), np.float32))


def test_a_faded_region_is_full_where_its_weight_is() -> None:
    faded = Region(0, 0, None, FADED)
    assert not faded.whole
    np.testing.assert_array_equal(faded.full, FULL)
    np.testing.assert_array_equal(faded.touched, FADED > 0)
    ((x0, y0, touched),) = hidden_parts([faded])
    assert (x0, y0) == (0, 0)
    np.testing.assert_array_equal(touched, FADED > 0)


@pytest.mark.parametrize(
    "where",
    [
        pytest.param(Region(10, 20, None, FADED), id="by weight"),
        pytest.param(Region(10, 20, FULL), id="by pixels"),
    ],
)
def test_a_region_holds_what_all_of_is_fully_replaced(where: Region) -> None:
    assert where.holds(10, 21, 13, 22)
    assert where.holds(12, 20, 13, 22)
    assert not where.holds(11, 20, 13, 22)  # a pixel of it only fades
    assert not where.holds(9, 21, 13, 22)  # sticks out to the left
    assert not where.holds(10, 21, 14, 22)  # to the right
    assert not where.holds(10, 21, 13, 23)  # below


def test_a_whole_box_holds_what_lies_in_it() -> None:
    box = Region(10, 20, None, shape=(5, 5))
    assert box.holds(10, 20, 15, 25)
    assert not box.holds(10, 19, 15, 25)
    assert not box.holds(10, 20, 16, 25)


def test_what_others_hide_is_taken_out_of_both_pixels_and_weights() -> None:
    left = Region(10, 20, None, FADED).without([Region(11, 21, None, shape=(9, 9)), NOWHERE])
    np.testing.assert_array_equal(left.full, [[0, 0, 1], [1, 0, 0]])
    assert left.faded is not None
    np.testing.assert_array_equal(left.faded, [[0, 90, 255], [255, 0, 0]])


def test_a_region_is_cut_to_what_it_touches() -> None:
    pixels = np.zeros((5, 6), bool)
    pixels[1:3, 2:4] = True
    cut = Region(7, 8, pixels).trimmed()
    assert (cut.x0, cut.y0, cut.shape) == (9, 9, (2, 2))
    assert Region(7, 8, np.zeros((5, 6), bool)).trimmed() is NOWHERE
    assert NOWHERE.empty


def test_a_region_needs_a_shape() -> None:
    with pytest.raises(ShapeError, match="needs a shape"):
        Region(0, 0, None)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_no_mix_of_two_values_leaves_what_lies_between_them(kind: type) -> None:
    """A sum that is one too large would wrap around: a black speck in white."""
    top = int(np.iinfo(kind).max)
    levels = np.linspace(0, top, 256).round().astype(kind)
    old, new = np.meshgrid(levels, levels)
    for weight in range(256):
        crop = old.copy()
        _mix(new, np.full(old.shape, weight, np.uint8), crop)
        exact = old + (new.astype(float) - old) * weight / 255
        assert np.abs(crop - exact).max() <= 1
        assert (crop <= np.maximum(old, new)).all()
        assert (crop >= np.minimum(old, new)).all()
        if weight in (0, 255):
            np.testing.assert_array_equal(crop, new if weight else old)


def test_noise_is_drawn_in_blocks_and_never_used_twice() -> None:
    noise = CellNoise(np.zeros((4, 4), np.uint8), np.random.default_rng(3))
    shapes = [(3, 5, 3), (7, 7), (40, 30, 3), (2, 2)] * 4
    taken = [noise.take(shape) for shape in shapes]
    assert [one.shape for one in taken] == shapes
    every = np.concatenate([one.ravel() for one in taken])
    assert len(np.unique(every)) == len(every)
    assert abs(every.mean() - 4) < 0.5
    assert 4.5 < every.std() < 5.7
