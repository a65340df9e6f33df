"""Brush run lengths, against the codec that label-studio-sdk ships."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from annotation.brush import BrushError, mask_to_rle, rle_to_mask

MASKS = arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=40))


@pytest.fixture(scope="module")
def oracle():
    """The SDK's brush module."""
    from label_studio_sdk.converter import brush

    return brush


@settings(deadline=None)
@given(mask=MASKS)
def test_what_we_write_the_sdk_reads_alike(mask, oracle):
    values = oracle.decode_rle(mask_to_rle(mask)).reshape(*mask.shape, 4)
    assert (values[..., 3] == mask * 255).all()


@settings(deadline=None)
@given(mask=MASKS)
def test_what_the_sdk_writes_we_read_alike(mask, oracle):
    rle = oracle.mask2rle(mask.astype(np.uint8) * 255)
    height, width = mask.shape
    assert (rle_to_mask(rle, height=height, width=width) == mask).all()


@settings(deadline=None)
@given(
    canvas=arrays.arrays(
        np.uint8,
        st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(4)),
        elements=st.sampled_from([0, 60, 180, 255]),
    )
)
def test_coloured_canvases_of_the_editor_are_read_by_their_opacity(canvas, oracle):
    rle = oracle.encode_rle(canvas.ravel())
    height, width, _ = canvas.shape
    assert (rle_to_mask(rle, height=height, width=width) == (canvas[..., 3] > 0)).all()


def test_literals_are_read_as_the_packing_has_them():
    # 2x1 pixels: eight literals 1 2 3 9 | 1 2 3 0, so that only the first pixel is painted.
    values = [1, 2, 3, 9, 1, 2, 3, 0]
    header = f"{8:032b}" + f"{7:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16))
    bits = header + "0" + "00" + f"{7:03b}" + "".join(f"{v:08b}" for v in values)
    bits += "0" * (-len(bits) % 8)
    rle = list(int(bits, 2).to_bytes(len(bits) // 8, "big"))
    assert rle_to_mask(rle, height=1, width=2).tolist() == [[True, False]]


def test_a_brush_of_another_picture_is_refused():
    with pytest.raises(BrushError, match=r"16 values; a picture of 3x3 has 36"):
        rle_to_mask(mask_to_rle(np.ones((2, 2), bool)), height=3, width=3)


@pytest.mark.parametrize("keep", [3, 8, 10])
def test_a_brush_that_is_cut_off_is_refused(keep):
    rle = mask_to_rle(np.eye(9, dtype=bool))
    with pytest.raises(BrushError, match=r"cut off|no header"):
        rle_to_mask(rle[:keep], height=9, width=9)


def test_values_that_are_no_bytes_are_refused():
    with pytest.raises(BrushError, match="no byte"):
        rle_to_mask([0, 999], height=1, width=1)


def test_a_panorama_is_packed_and_read_in_less_than_three_seconds():
    mask = np.zeros((4096, 8192), bool)
    mask[1000:3000, 2000:2600] = True
    mask[1500:1600, 2100:2200] = False
    start = time.perf_counter()
    again = rle_to_mask(mask_to_rle(mask), height=4096, width=8192)
    assert time.perf_counter() - start < 3
    assert (again == mask).all()
