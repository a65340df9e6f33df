"""How much of each true object the shipped anonymizer hides, whatever class hid it.

Regions are the anonymizer's own, as crops. `covered_at` serves calibration: the highest threshold
of a class at which an object is covered. `passed_through` and `written_shares` check the written
file: two complementary noise pictures are obscured with the same regions, written, and read back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from anonymization.errors import BlurloopError
from evaluation.patch import Patch, overlap

if TYPE_CHECKING:
    from anonymization.detection.finds import Detections
    from anonymization.taxonomy import Taxonomy

MASK_THRESHOLD = 0.4
"""As the anonymizer and the card have it where nothing else is said; a test compares."""

SHARE_MIN = 0.9
"""DESIGN section 7.1: an object is covered if at least 90 % of its pixels are obscured."""

GAIN_MAX = 0.5
"""A pixel is obscured if less than half of its own value reaches the file (`passed_through`).

An untouched pixel has gain 1, within 0.1 after JPEG at quality 75. A Gaussian blur of sigma s
px leaves a pixel the gain 1/(4 pi s^2) with a spread of 1/sqrt(4 pi s^2): at s = 2 that is
0.04 and 0.14, so the limit lies three spreads away and one pixel in 2,000 is misjudged.
"""

WRITTEN_ALLOWANCE = 0.05
"""Share of an object by which the written file may fall short of the intended regions.

Small kernels leave some pixels close to their own value by chance; a strip of an object that was
forgotten is more than this, and what it may hide is bounded by it.
"""


class CoverageError(BlurloopError):
    """The written picture cannot be compared with what was meant to be written."""


def add_region(covers: Sequence[NDArray[np.bool_]], truths: Sequence[Patch], region: Patch) -> None:
    """Mark in each truth's crop, in place, the pixels that a region hides."""
    for cover, truth in zip(covers, truths, strict=True):
        window = overlap(truth, region)
        if window is not None:
            x0, y0, x1, y1 = window
            rows, columns = slice(y0 - truth.y0, y1 - truth.y0), slice(x0 - truth.x0, x1 - truth.x0)
            cover[rows, columns] |= region.window(*window)


def covers_of(truths: Sequence[Patch], regions: Iterable[Patch]) -> list[NDArray[np.bool_]]:
    """Return the union of regions inside each truth's crop; bool, the crop's shape.

    Regions are taken one at a time, so that a generator never holds two of them.
    """
    covers = [np.zeros_like(truth.mask) for truth in truths]
    for region in regions:
        add_region(covers, truths, region)
    return covers


def shares(truths: Sequence[Patch], covers: Sequence[NDArray[np.bool_]]) -> NDArray[np.float64]:
    """Return the share of each truth's pixels that is hidden, float64 (M,), in [0, 1]."""
    return np.array([_share(t, c) for t, c in zip(truths, covers, strict=True)], dtype=np.float64)


def _share(truth: Patch, cover: NDArray[np.bool_]) -> float:
    return float(np.count_nonzero(truth.mask & cover)) / max(truth.area, 1)


def coverage_shares(truths: Sequence[Patch], regions: Iterable[Patch]) -> NDArray[np.float64]:
    """Return the share of each true object that the union of all regions hides.

    >>> whole, half = np.ones((2, 4), dtype=bool), np.ones((2, 2), dtype=bool)
    >>> coverage_shares([Patch(0, 0, whole)], [Patch(0, 0, half), Patch(1, 0, half)]).tolist()
    [0.75]
    """
    return shares(truths, covers_of(truths, regions))


def covered_at(
    truths: Sequence[Patch],
    regions: Iterable[Patch | None],
    scores: NDArray[np.floating],
    *,
    base: Sequence[NDArray[np.bool_]] | None = None,
    share_min: float = SHARE_MIN,
) -> NDArray[np.float64]:
    """Return the highest threshold of a class at which each truth is covered.

    Args:
        truths: Counted truths of the class in one picture, M of them.
        regions: What each find of the class hides, in the order of `scores` descending; None
            where a find hides nothing.
        scores: Scores in the same order, (N,).
        base: What other classes hide inside each truth's crop at their own thresholds
            (`covers_of`); None for nothing.
        share_min: Share of an object's pixels that must be hidden.

    Returns:
        float64 (M,); inf where other classes alone cover the truth, -inf where it never is.

    Raises:
        CoverageError: If the scores do not descend.

    >>> left, right = np.ones((1, 9), dtype=bool), np.ones((1, 1), dtype=bool)
    >>> truth = Patch(0, 0, np.ones((1, 10), dtype=bool))
    >>> covered_at([truth], [Patch(9, 0, right), Patch(0, 0, left)], np.array([0.8, 0.3])).tolist()
    [0.3]
    """
    scores = np.asarray(scores, dtype=np.float64)
    if np.any(np.diff(scores) > 0):
        raise CoverageError("scores do not descend; sort finds and regions by score first")
    covers = [np.zeros_like(t.mask) for t in truths] if base is None else [c.copy() for c in base]
    reached = np.where(shares(truths, covers) >= share_min, np.inf, -np.inf)
    for region, score in zip(regions, scores, strict=True):
        open_ = [i for i in range(len(truths)) if reached[i] == -np.inf]
        if not open_:
            break
        if region is None:
            continue
        some = [truths[i] for i in open_]
        add_region([covers[i] for i in open_], some, region)
        for i in open_:
            if overlap(truths[i], region) and _share(truths[i], covers[i]) >= share_min:
                reached[i] = score
    return reached


def region_of(
    detections: Detections,
    index: int,
    taxonomy: Taxonomy,
    *,
    height: int,
    width: int,
    mask_threshold: float = MASK_THRESHOLD,
) -> Patch | None:
    """Return the pixels that one find fully obscures (blending weight 1); None for none."""
    from anonymization.obscuring.shapes import region

    spec = taxonomy[taxonomy.names[int(detections.class_ids[index])]]
    if spec.method == "none":
        return None
    found = region(
        detections, index, spec, height=height, width=width, mask_threshold=mask_threshold
    )
    mask = np.asarray(found.full)
    return Patch(int(found.x0), int(found.y0), mask) if mask.any() else None


def regions_of(
    detections: Detections,
    taxonomy: Taxonomy,
    *,
    height: int,
    width: int,
    mask_threshold: float = MASK_THRESHOLD,
    indices: Iterable[int] | None = None,
) -> Iterable[Patch]:
    """Yield what each find fully obscures, one crop at a time."""
    for index in range(len(detections.scores)) if indices is None else indices:
        found = region_of(
            detections,
            int(index),
            taxonomy,
            height=height,
            width=width,
            mask_threshold=mask_threshold,
        )
        if found is not None:
            yield found


_Region = TypeVar("_Region", Patch, Patch | None)


def unrolled(regions: Iterable[_Region], seam: int | None) -> Iterable[_Region]:
    """Yield regions and, of a panorama with a seam, each again where a true object across it ends.

    Regions lie in the picture; a true object across the seam ends beyond its width.

    Args:
        regions: What finds hide; None for one that hides nothing.
        seam: Column at which the picture goes on at its first one; None where it does not.

    >>> [r.x0 for r in unrolled([Patch(2, 0, np.ones((1, 1), dtype=bool))], 100)]
    [2, 102]
    """
    for region in regions:
        yield region
        if seam is not None:
            yield region if region is None else region.shifted(seam)


def noise_pair(height: int, width: int, *, seed: int) -> tuple[NDArray[np.uint8], ...]:
    """Return a picture of random black and white pixels, and its negative; uint8 (H, W, 3).

    Grey, because JPEG keeps less of the colour. A pair, because a picture alone cannot tell a
    black pixel that was left alone from one that was painted black.
    """
    generator = np.random.default_rng(seed)
    noise = generator.integers(0, 2, (height, width, 1), dtype=np.uint8) * np.uint8(255)
    noise = np.repeat(noise, 3, axis=2)
    return noise, 255 - noise


def passed_through(
    noise: NDArray[np.uint8], written: NDArray[np.uint8], written_negative: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """Return how much of each pixel's own value reached the file; float32 (H, W).

    1 where the pixel was left alone, 0 where the file does not depend on it; noise around it
    spreads the value of blurred pixels about their kernel's centre weight.

    Raises:
        CoverageError: If the written pictures have another size than the noise.
    """
    for picture in (written, written_negative):
        if picture.shape != noise.shape:
            raise CoverageError(
                f"the written noise picture has shape {picture.shape}; expected {noise.shape}"
            )
    sign = np.where(noise[..., 0] > 0, np.float32(1), np.float32(-1))
    # Channel by channel: a float copy of an 8K panorama in colour would take 400 MB.
    gain = np.full(noise.shape[:2], -np.inf, dtype=np.float32)
    for channel in range(noise.shape[2]):
        change = written[..., channel].astype(np.float32) - written_negative[..., channel]
        np.maximum(gain, change * sign / 255, out=gain)
    return gain


def written_shares(truths: Sequence[Patch], gain: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the share of each truth's pixels that the written file hides, float64 (M,)."""
    return shares(truths, [_seen(gain, truth) < GAIN_MAX for truth in truths])


def _seen(gain: NDArray[np.float32], truth: Patch) -> NDArray[np.float32]:
    """Return the gain in a truth's crop, which goes on at the first column beyond the last."""
    rows = gain[truth.y0 : truth.y1]
    if truth.x1 <= gain.shape[1]:
        return rows[:, truth.x0 : truth.x1]
    return rows[:, np.arange(truth.x0, truth.x1) % gain.shape[1]]


def written_coverage(
    truths: Sequence[Patch],
    *,
    height: int,
    width: int,
    obscure: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
    rewrite: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
    seed: int,
) -> NDArray[np.float64]:
    """Return the share of each truth that is hidden in the file the anonymizer writes.

    Args:
        truths: True objects, M of them.
        height: Rows of the picture.
        width: Columns of the picture.
        obscure: The anonymizer's obscuring with the finds of this picture.
        rewrite: Writes a picture as the anonymizer does, and reads it back.
        seed: Of the noise.

    Returns:
        float64 (M,), in [0, 1].
    """
    if not truths:
        return np.zeros(0)
    noise, negative = noise_pair(height, width, seed=seed)
    written, written_negative = (rewrite(obscure(picture.copy())) for picture in (noise, negative))
    return written_shares(truths, passed_through(noise, written, written_negative))
