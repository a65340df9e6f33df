"""Implied heads: where a person's head must be, from the person's outline alone.

For operators who leave persons visible and hide their faces: a face that neither network sees still
sits on top of a person that one of them does. An estimate, drawn generously; it is no find of a
face, is marked by its source, and no measured recall counts it.

An adult standing is 7.5 heads tall and the shoulders are two heads wide, hats and hair left out
(proportions as in drawing: Loomis, Figure Drawing for All It's Worth, 1943). A region of a sixth
of the person's height leaves room for children and for hats. Of a person who is seen in part it is
more, up to all of it: where the head is cannot be told then, and rather too much is hidden.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonymization.detection.finds import Detections, box_iou
from anonymization.obscuring.region import Outline
from anonymization.panorama.wrapping import canonical

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Rectangle = tuple[float, float, float, float]

SOURCE = "person_outline"
"""Source of these finds in documents of detections."""

HEIGHT_SHARE = 1 / 6
"""Height of the region over that of a standing person's box."""

STANDING = 4.0
"""A standing person is this many times as high as the body is wide, and more."""

ALONE = 1.5
"""A head by itself, all else hidden or cut off, is up to this many times as high as wide."""

ASPECT = 1.5
"""Height of a head over its width, with what is seen of hair and chin of a head that leans."""

NARROW_SHARE = 0.45
"""Rows whose longest run is below this share of the region's height are a raised arm's: a forearm
is half as wide as a head."""

SHOULDERS_SHARE = 0.25
"""Lowest part of the region, over its height, that does not widen it: an adult's shoulders."""

GROWTH_SHARE = 0.25
"""Growth on each side over the region's height: an outline is known to a cell, 1/28 of its box."""

EDGE_PX = 1.5
"""An outline this close to the picture's edge is cut by it."""

SAME_IOU = 0.5


@dataclass(frozen=True)
class Cut:
    """Which sides of the picture a person's box is cut by."""

    left: bool = False
    top: bool = False
    right: bool = False


def head_of(box_xyxy: Floats, inside: Bools | None, cut: Cut) -> Floats:
    """Return the box in whose ellipse a person's head lies.

    A person that is not taller than wide lies, sits or bends, and the head may be at any end: the
    ellipse then holds the whole box.

    Args:
        box_xyxy: float32, shape (4,), box of the person.
        inside: bool, any shape (R, C), cells of the box that belong to the person; None where they
            are not known.
        cut: Where the picture cuts the person.

    Returns:
        float32, shape (4,); it may reach beyond the picture.

    >>> head_of(np.float32([0, 0, 20, 90]), None, Cut()).tolist()
    [-3.75, -3.75, 23.75, 18.75]
    """
    x0, y0, x1, y1 = (float(v) for v in box_xyxy)
    width, height = x1 - x0, y1 - y0
    if width >= height:
        growth = (math.sqrt(2) - 1) / 2
        dx, dy = growth * width, growth * height
        return np.array([x0 - dx, y0 - dy, x1 + dx, y1 + dy], np.float32)
    if inside is None or not inside.any():
        (left, top, right, bottom), head = _of_box(box_xyxy)
    else:
        (left, top, right, bottom), head = _uppermost(box_xyxy, inside, cut)
    # Where the picture cuts a head it may be at its widest, and an ellipse is not at its end.
    left, right = (
        left - (right - left) * (cut.left and left - x0 < EDGE_PX),
        right + (right - left) * (cut.right and x1 - right < EDGE_PX),
    )
    top -= (bottom - top) * cut.top
    growth = GROWTH_SHARE * head
    return np.array([left - growth, top - growth, right + growth, bottom + growth], np.float32)


def _of_box(box_xyxy: Floats) -> tuple[Rectangle, float]:
    """Return where the head lies in a box of which no outline is known, and how high it is."""
    x0, y0, x1, y1 = (float(v) for v in box_xyxy)
    head = _height(y1 - y0, x1 - x0)
    return (x0, y0, x1, min(y0 + head, y1)), head


def _uppermost(box_xyxy: Floats, inside: Bools, cut: Cut) -> tuple[Rectangle, float]:
    """Return where the head lies in an outline, and how high it is."""
    x0, y0, x1, y1 = (float(v) for v in box_xyxy)
    rows, columns = inside.shape
    down, across = (y1 - y0) / rows, (x1 - x0) / columns
    runs = _longest_runs(inside)
    body = float(np.median(runs[runs > 0])) * across
    head = _height(y1 - y0, body)
    narrow = min(NARROW_SHARE * head / across, float(runs.max()))
    first, wide = int(np.flatnonzero(runs)[0]), int(np.flatnonzero(runs >= narrow)[0])
    # Of somebody in a crowd little but the head may be seen, and that is as wide as the body.
    uppermost = runs[wide : wide + math.ceil(head / 4 / down)]
    head = max(head, ASPECT * float(uppermost.max()) * across)
    top, bottom = y0 + first * down, min(y0 + wide * down + head, y1)
    if not (cut.left or cut.right):
        # Above its first wide row a head is as high as it takes to get round, about a quarter.
        top = max(top, y0 + wide * down - head / 4)
    start, end = (int((row - y0) / down) for row in (top, bottom - SHOULDERS_SHARE * head))
    there = np.flatnonzero(inside[start : max(end, wide + 1)].any(axis=0))
    return (x0 + there[0] * across, top, x0 + (there[-1] + 1) * across, bottom), head


def _height(height: float, body: float) -> float:
    """Return the height of the region by the height of a box and the width of the body in it.

    From a head alone, which it covers whole, to a standing person along a power of how many times
    as high as wide the person is: of somebody seen from the waist up it covers nearly half.

    >>> [round(_height(100, 100 / times), 1) for times in (1.0, 1.5, 2.3, 4.0, 6.0)]
    [100.0, 100.0, 45.8, 16.7, 16.7]
    """
    power = math.log(HEIGHT_SHARE) / math.log(ALONE / STANDING)
    share = float((ALONE * body / height) ** power)
    return height * min(max(share, HEIGHT_SHARE), 1.0)


def _longest_runs(inside: Bools) -> NDArray[np.int64]:
    """Return the cells of the longest run in each row of an outline; int64, shape (R,)."""
    runs: NDArray[np.int64] = np.zeros(inside.shape[0], np.int64)
    longest: NDArray[np.int64] = runs.copy()
    for column in inside.T:
        runs = np.where(column, runs + 1, 0)
        longest = np.maximum(longest, runs)
    return longest


def implied_heads(
    detections: Detections,
    *,
    person: int,
    head: int,
    width: int,
    mask_threshold: float,
    outlines: Mapping[int, Outline],
    turn: float | None,
) -> Detections:
    """Return the head that each person's outline implies, but for those that are listed already.

    Args:
        detections: The finds.
        person: Class id of persons.
        head: Class id that heads get.
        width: Columns of the picture.
        mask_threshold: Least probability of a pixel of an outline.
        outlines: Exact pixels of finds, by position.
        turn: Columns of a whole turn where the picture is a panorama: nothing is cut at its sides.
    """
    persons = np.flatnonzero(detections.class_ids == person)
    boxes = np.zeros((len(persons), 4), np.float32)
    for row, index in enumerate(persons):
        box, inside = _below_the_top(
            *_outline(detections, int(index), outlines.get(int(index)), mask_threshold)
        )
        flat = turn is None
        cut = Cut(
            left=flat and bool(box[0] < EDGE_PX),
            top=bool(box[1] < EDGE_PX),
            right=flat and bool(box[2] > width - EDGE_PX),
        )
        boxes[row] = head_of(box, inside, cut)
    found = Detections.from_boxes(
        boxes,
        class_ids=np.full(len(persons), head),
        scores=detections.scores[persons],
        source=SOURCE,
    )
    if turn is not None:
        found = canonical(found, width, turn)
    listed = [i for i, source in enumerate(detections.sources) if source == SOURCE]
    overlaps = box_iou(found.boxes_xyxy, detections.boxes_xyxy[listed])
    return found.select(overlaps.max(axis=1, initial=0) < SAME_IOU)


def _outline(
    detections: Detections, index: int, drawn: Outline | None, mask_threshold: float
) -> tuple[Floats, Bools | None]:
    """Return the box of one find and the cells of it that belong to it, where they are known."""
    if drawn is not None:
        return drawn.box_xyxy, drawn.on(*(int(v) for v in drawn.box_xyxy))
    mask = detections.masks[index]
    inside = mask >= mask_threshold if np.isfinite(mask).all() else None
    return detections.boxes_xyxy[index], inside


def _below_the_top(box_xyxy: Floats, inside: Bools | None) -> tuple[Floats, Bools | None]:
    """Leave out what of a box lies above the picture: the rest has the head, or what is under it.

    A box that is above it altogether stays.
    """
    above, height = -float(box_xyxy[1]), float(box_xyxy[3] - box_xyxy[1])
    if not 0 < above < height:
        return box_xyxy, inside
    rows = 0 if inside is None else int(above / height * len(inside))
    gone = above if inside is None else rows * height / len(inside)
    box = np.array([box_xyxy[0], box_xyxy[1] + gone, *box_xyxy[2:]], np.float32)
    return box, None if inside is None else inside[rows:]
