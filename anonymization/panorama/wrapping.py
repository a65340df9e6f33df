"""Wrapping: finds of a panorama, whose last column borders on its first.

An object across the seam is one find whose box ends beyond the picture's width. Whatever works on
the picture's pixels, as obscuring does, takes `wrapped_copies` instead.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonymization.card import KEYPOINT_NETWORK
from anonymization.detection.finds import Detections, box_iou

Floats = NDArray[np.float32]


def shifted(detections: Detections, columns: float | NDArray[Any]) -> Detections:
    """Return finds moved to the right by some columns, one number or one per find."""
    by = np.broadcast_to(np.asarray(columns, np.float32), (len(detections),))
    boxes, merged = detections.boxes_xyxy.copy(), detections.merged_xyxy.copy()
    points = detections.keypoints.copy()
    for array in (boxes, merged):
        array[:, 0::2] += by[:, None]
    points[..., 0] += by[:, None]
    return replace(detections, boxes_xyxy=boxes, merged_xyxy=merged, keypoints=points)


def wrapped_copies(
    detections: Detections, width: float, *, turn: float | None = None
) -> Detections:
    """Return the finds of a panorama and, of those across its seam, a copy on the other side.

    Args:
        detections: Finds whose boxes may reach beyond the picture's columns.
        width: Columns of the picture.
        turn: Columns of a whole turn, where the picture shows less than one; None for `width`.

    Returns:
        The finds, in their order, then the copies.

    >>> across = Detections.from_boxes([[90, 0, 110, 9]], class_ids=[0])
    >>> wrapped_copies(across, 100).boxes_xyxy.tolist()
    [[90.0, 0.0, 110.0, 9.0], [-10.0, 0.0, 10.0, 9.0]]
    """
    period = width if turn is None else turn
    x0, x1 = _columns(detections)
    left = detections.select(x1 > period)
    right = detections.select(x0 + period < width)
    return Detections.concatenate([detections, shifted(left, -period), shifted(right, period)])


def with_copies(
    detections: Detections, width: float, turn: float | None
) -> tuple[Detections, NDArray[np.int64]]:
    """Return the finds and their copies across a seam, and whose copy each is.

    Args:
        detections: Finds whose boxes may reach beyond the picture's columns.
        width: Columns of the picture.
        turn: Columns of a whole turn; None for a flat picture, which has no copies.

    Returns:
        The finds, in their order, then the copies; and a position in `detections` for each.
    """
    owners = np.arange(len(detections))
    if turn is None:
        return detections, owners
    each = [wrapped_copies(detections.select([int(i)]), width, turn=turn) for i in owners]
    copies = [(i, part.select([n])) for i, part in enumerate(each) for n in range(1, len(part))]
    drawn = Detections.concatenate([detections, *(part for _, part in copies)])
    return drawn, np.concatenate([owners, np.array([i for i, _ in copies], np.int64)])


def with_grown_copies(
    drawn: Detections,
    owners: NDArray[np.int64],
    growth: Floats,
    width: float,
    turn: float | None,
) -> tuple[Detections, NDArray[np.int64], NDArray[np.int64]]:
    """Return finds and, of those of which only what is hidden around them crosses, a copy there.

    Args:
        drawn: Finds and their copies, or some of them; see `with_copies`.
        owners: Whose copy each is.
        growth: How far each is hidden beyond its boxes, float32 (N,), columns.
        width: Columns of the picture.
        turn: Columns of a whole turn; None for a flat picture.

    Returns:
        The finds, in their order, then the copies; whose copy each is; and of which in `drawn`.
    """
    before = np.arange(len(drawn))
    if turn is None or not len(drawn):
        return drawn, owners, before
    x0, x1 = _columns(drawn)
    moved = []
    for by in (-turn, turn):
        reaches = (x1 + growth + by > 0) & (x0 - growth + by < width)
        there = (x1 + by > 0) & (x0 + by < width)
        # Not of a find that is not in the picture itself: another is its copy here.
        moved.append(reaches & ~there & (x1 > 0) & (x0 < width))
    left, right = (np.flatnonzero(rows) for rows in moved)
    finds = [drawn, shifted(drawn.select(left), -turn), shifted(drawn.select(right), turn)]
    sources = np.concatenate([before, left, right])
    return Detections.concatenate(finds), owners[sources], sources


def over_the_seam(
    drawn: Detections,
    owners: NDArray[np.int64],
    growth: Floats,
    width: float,
    turn: float | None,
) -> NDArray[np.int64]:
    """Return positions of finds that are hidden on beyond the last column of a whole panorama.

    Args:
        drawn: Finds and their copies, or some of them.
        owners: Whose copy each is; see `with_copies`.
        growth: How far each is hidden beyond its boxes, float32 (N,), columns.
        width: Columns of the picture.
        turn: Columns of a whole turn; None for a flat picture.

    Returns:
        Those of which both sides are there.
    """
    if turn is None or abs(turn - width) >= 0.5 or not len(drawn):
        return np.zeros(0, np.int64)
    both = np.bincount(owners)[owners] > 1
    starts, ends = drawn.boxes_xyxy[:, 0], drawn.boxes_xyxy[:, 2]
    reaches = (starts - growth < width) & (ends + growth > width)
    return np.flatnonzero(both & (starts >= 0) & reaches)


def _columns(detections: Detections) -> tuple[Floats, Floats]:
    """Return the first and the last column of each find's boxes; float32 (N,) both."""
    boxes, merged = detections.boxes_xyxy, detections.merged_xyxy
    return np.fmin(boxes[:, 0], merged[:, 0]), np.fmax(boxes[:, 2], merged[:, 2])


def canonical(detections: Detections, width: float, turn: float) -> Detections:
    """Return each find where it starts in the picture, or overlaps most with it.

    Args:
        detections: Finds at any multiple of a turn.
        width: Columns of the picture.
        turn: Columns of a whole turn.

    Returns:
        In a whole panorama, finds whose boxes start in [0, width); boxes of a turn or more stay.
    """
    x0, x1 = detections.boxes_xyxy[:, 0], detections.boxes_xyxy[:, 2]
    start = np.where(x1 - x0 < turn, np.mod(x0, turn), x0)
    if width < turn - 0.5:
        here = np.minimum(start + x1 - x0, width) - np.minimum(start, width)
        before = np.minimum(start + x1 - x0 - turn, width) - np.maximum(start - turn, 0)
        start = np.where(before > here, start - turn, start)
    return shifted(detections, start - x0)


def beside_their_faces(detections: Detections, turn: float) -> Detections:
    """Return heads on the same side of the seam as the faces that they overlap most.

    So that heads and faces can be merged by their boxes (`merge_heads`).
    """
    from_keypoints = np.array([s == KEYPOINT_NETWORK for s in detections.sources], bool)
    heads, faces = np.flatnonzero(from_keypoints), np.flatnonzero(~from_keypoints)
    if not len(heads) or not len(faces):
        return detections
    steps = np.array([0, turn, -turn], np.float32)
    overlaps = np.stack(
        [
            box_iou(shifted(detections, step).boxes_xyxy[heads], detections.boxes_xyxy[faces])
            for step in steps
        ]
    )
    same = detections.class_ids[heads][:, None] == detections.class_ids[faces][None, :]
    best = np.where(same, overlaps, 0).max(axis=2).argmax(axis=0)
    columns = np.zeros(len(detections), np.float32)
    columns[heads] = steps[best]
    return shifted(detections, columns)
