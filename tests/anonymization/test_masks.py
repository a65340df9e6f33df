"""Outlines: what a mask covers, in runs, and what lies as far as the margin from it."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from anonymization.obscuring import masks
from anonymization.obscuring.figures import Grid
from anonymization.obscuring.masks import grown, paste_mask, runs_in, runs_of

HEIGHT, WIDTH = 70, 90


def pixels_of(runs: masks.Runs, height: int, width: int) -> np.ndarray:
    out = np.zeros((height, width), bool)
    for row, start, end in zip(*runs, strict=True):
        assert 0 <= start < end <= width
        out[row, start:end] = True
    return out


def reference(inside: np.ndarray, margin: float) -> np.ndarray:
    """Hollows of a row that both of its sides reach over are filled; then a distance a pixel."""
    filled = inside.copy()
    for row in filled:
        at = np.flatnonzero(row)
        for left, right in pairwise(at):
            if right - left - 1 <= 2 * int(np.float32(margin)):
                row[left:right] = True
    outside = (~filled).view(np.uint8)
    distance = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance <= np.float32(margin))


@pytest.mark.parametrize("share", [0.001, 0.01, 0.3, 0.95])  # a few dots, ragged, few holes
@pytest.mark.parametrize("margin", [0.0, 1.0, 2**0.5, 5.0, 12.3, 90.0])
@pytest.mark.parametrize("pieces", [0, masks.STRANDS_MAX])  # a distance a pixel, and strands
def test_what_is_grown_is_as_far_as_the_margin_and_no_further(
    share: float, margin: float, pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masks, "STRANDS_MAX", pieces)
    inside = np.random.default_rng(3).random((HEIGHT, WIDTH)) < share
    inside[35, 0] = True
    found = grown(runs_in(inside), margin, height=HEIGHT, width=WIDTH)
    assert np.array_equal(found, reference(inside, margin))
    outside = (~inside).view(np.uint8)
    distance = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    assert found[distance <= np.float32(margin)].all()


@pytest.mark.parametrize("margin", [0.0, 1.5, 4.0, 11.0])
@pytest.mark.parametrize("seed", range(12))
def test_bodies_with_legs_and_holes_are_grown_as_well(margin: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    inside = np.zeros((HEIGHT, WIDTH), np.uint8)
    for _ in range(6):
        centre, axes = random.integers(5, 70, 2).tolist(), random.integers(2, 30, 2).tolist()
        kind = int(random.random() < 0.7)
        cv2.ellipse(inside, centre, axes, float(random.uniform(0, 180)), 0, 360, kind, -1)
    runs = runs_in(inside > 0)
    np.testing.assert_array_equal(pixels_of(runs, HEIGHT, WIDTH), inside > 0)
    found = grown(runs, margin, height=HEIGHT, width=WIDTH)
    assert np.array_equal(found, reference(inside > 0, margin))


def test_a_picture_wider_than_sixteen_bits_count_is_grown() -> None:
    inside = np.zeros((3, 40_000), bool)
    inside[1, [0, 20_000, 39_999]] = True
    found = grown(runs_in(inside), 2.0, height=3, width=40_000)
    assert np.flatnonzero(found[1]).tolist() == [
        *[0, 1, 2], *range(19_998, 20_003), *[39_997, 39_998, 39_999]
    ]  # fmt: skip


def test_nothing_grows_to_nothing() -> None:
    assert not grown(runs_in(np.zeros((4, 5), bool)), 3.0, height=4, width=5).any()


side = st.floats(0.5, 80, allow_nan=False)
corner = st.floats(-30, 60, allow_nan=False)


@settings(deadline=None, max_examples=300)
@given(corner, corner, side, side, st.integers(0, 10_000), st.sampled_from([0.05, 0.4, 0.5, 0.95]))
@example(0.0, 0.0, 28.0, 28.0, 0, 0.5)
def test_runs_are_the_pixels_that_reach_the_threshold(
    x: float, y: float, across: float, down: float, seed: int, threshold: float
) -> None:
    random = np.random.default_rng(seed)
    cells = int(random.integers(1, 29))
    mask = random.random((cells, cells)).astype(np.float32)
    if seed % 3 == 0:
        mask = (mask > 0.5).astype(np.float32)
    box = np.array([x, y, x + across, y + down], np.float32)
    grid = Grid(2, 3, 62, 48)
    found = pixels_of(runs_of(mask, box, grid, threshold), 45, 60)
    sampled = paste_mask(mask, box, x0=2, y0=3, height=45, width=60)
    assert found[sampled >= threshold + 1e-5].all()
    # A pixel is as good as on the line where it is a thousandth of a pixel away from it.
    steepest = cells / max(across, 1e-6)
    assert (sampled[found] >= threshold - 1e-5 - 2e-3 * steepest).all()
