"""Obscuring over a panorama's seam, where its last column borders on its first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonymization.detection.finds import Detections
from anonymization.obscuring.obscure import blend
from anonymization.obscuring.region import FULL, Outline, Region
from anonymization.obscuring.shapes import NO_OUTLINES, class_spec
from anonymization.panorama.wrapping import shifted
from anonymization.taxonomy import Taxonomy

Pixels = NDArray[Any]

Hide = Callable[[Pixels, Detections, Mapping[int, Outline], list[Region]], Pixels]
"""Returns a picture with finds obscured, given those that a person outlined, by position; adds to
the list where they are."""


def obscure_wrapped(
    pixels: Pixels,
    detections: Detections,
    hide: Hide,
    taxonomy: Taxonomy,
    *,
    across: Sequence[int] | NDArray[np.int64],
    outlines: Mapping[int, Outline] = NO_OUTLINES,
    regions: list[Region] | None = None,
) -> Pixels:
    """Return the picture with every find obscured, those over the seam on both sides as one.

    Each side is obscured by itself, and then a strip around the seam once more, or the seam would
    show as an edge in a blur, and one plate as two. A flat picture has nothing across.

    Args:
        pixels: As for `obscure`.
        detections: What to hide, the copies on the other side of the seam included.
        hide: `obscure`, with how it is to be done.
        taxonomy: The one by which `hide` does it.
        across: Positions of finds that go on beyond the last column of a whole panorama
            (`panorama.wrapping.over_the_seam`).
        outlines: Exact pixels of finds, by position.
        regions: Where each region that is obscured is added.
    """
    done = hide(pixels, detections, outlines, [] if regions is None else regions)
    if not len(across):
        return done
    width = pixels.shape[1]
    reach = max(_reach(detections, int(i), taxonomy, outlines, width) for i in across)
    half = min(width // 2, reach)
    strip = np.concatenate([done[:, width - half :], done[:, :half]], axis=1)
    moved = {
        new: replace(outlines[int(old)], x0=outlines[int(old)].x0 + half - width)
        for new, old in enumerate(across)
        if int(old) in outlines
    }
    finds = shifted(detections.select(np.asarray(across, np.int64)), half - width)
    in_strip: list[Region] = []
    strip = hide(strip, finds, moved, in_strip)
    if regions is not None:
        for where in in_strip:
            regions += [where.part(0, half, width - half), where.part(half, 2 * half, -half)]
    if reach > half:
        strip = _faded(strip, np.concatenate([done[:, width - half :], done[:, :half]], axis=1))
    done[:, width - half :], done[:, :half] = strip[:, :half], strip[:, half:]
    return done


def _faded(strip: Pixels, without: Pixels) -> Pixels:
    """Return a strip that passes into what it was without it, towards its ends.

    For a find all around, over a pole, whose strip ends in the middle of it. Both hide it.
    """
    half = strip.shape[1] // 2
    ramp = np.clip(np.arange(half) / max(half // 2, 1) * FULL, 0, FULL).astype(np.uint8)
    columns = np.concatenate([ramp, np.full(strip.shape[1] - 2 * half, FULL, np.uint8), ramp[::-1]])
    weight = np.ascontiguousarray(np.broadcast_to(columns, strip.shape[:2]))
    mixed = without.copy()
    blend(mixed, strip, Region(0, 0, None, weight))
    return np.where(strip == without, without, mixed)  # floats that are alike mix to others


def _reach(
    finds: Detections, index: int, taxonomy: Taxonomy, outlines: Mapping[int, Outline], width: int
) -> int:
    """Return how many columns to either side of the seam hold all that one find hides."""
    spec = class_spec(finds, index, taxonomy)
    boxes = [finds.boxes_xyxy[index], finds.merged_xyxy[index]]
    boxes += [outlines[index].box_xyxy] if index in outlines else []
    low, high = np.fmin.reduce(boxes), np.fmax.reduce(boxes)
    sides = high[2:] - low[:2]
    # A rotated box reaches out of the box around it by less than its own longer side.
    growth = float(sides.max()) + (spec.margin + spec.feather) * float(sides.min()) + 2
    return int(max(width - low[0], high[2] - width) + growth)
