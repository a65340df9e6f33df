"""Looking at a picture more than once: mirrored, and in other sizes (test-time augmentation).

What one look misses another may find. Finds are mapped back and those of one object made one.
Pure code over arrays; boxes are xyxy in picture pixels, half-open. N finds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from anonymization.card import SOFT, LooksCard
from anonymization.detection.finds import Detections, Floats, Ints, box_iou, nms
from anonymization.taxonomy import MIRRORED

SOFT_SIGMA = 0.5
"""Bodla et al., Soft-NMS, 2017, section 4.1."""


@dataclass(frozen=True)
class Look:
    """How a picture is shown to the networks.

    Attributes:
        scale: Size relative to the network's input.
        mirrored: Whether left and right change places.
    """

    scale: float
    mirrored: bool


def looks_of(card: LooksCard) -> tuple[Look, ...]:
    """Return the looks that a card asks for.

    >>> [(look.scale, look.mirrored) for look in looks_of(LooksCard(flip=True))]
    [(1.0, False), (1.0, True)]
    """
    sides = (False, True) if card.flip else (False,)
    return tuple(Look(scale, side) for scale in card.scales for side in sides)


def mirrored_boxes(boxes_xyxy: Floats, width: int) -> Floats:
    """Return boxes in the picture that has left and right exchanged.

    >>> mirrored_boxes(np.float32([[10, 0, 30, 5]]), 100).tolist()
    [[70.0, 0.0, 90.0, 5.0]]
    """
    mirrored = boxes_xyxy.copy()
    mirrored[:, [0, 2]] = width - boxes_xyxy[:, [2, 0]]
    return mirrored


def mirror(found: Detections, width: int) -> Detections:
    """Return finds in the picture that has left and right exchanged; twice is as before.

    A mirrored left eye is a right eye.
    """
    points = found.keypoints[:, MIRRORED].copy()
    points[..., 0] = width - points[..., 0]
    return replace(
        found,
        boxes_xyxy=mirrored_boxes(found.boxes_xyxy, width),
        masks=found.masks[:, :, ::-1],
        keypoints=points,
        merged_xyxy=mirrored_boxes(found.merged_xyxy, width),
    )


def merged(
    found: Detections, card: LooksCard, *, iou: float, score_min: float
) -> tuple[Ints, Floats]:
    """Make one find of those of one object, among finds of one class and network.

    Args:
        found: Finds of all looks.
        card: `best` keeps the surest of finds that overlap, `soft` lowers the scores of the others.
        iou: Overlap from which `best` takes two finds for one object.
        score_min: Finds that `soft` leaves below it go.

    Returns:
        Positions of the finds kept, ascending, and their scores.
    """
    scores = found.scores.copy()
    sources = np.array(found.sources, dtype=object)
    kept: list[Ints] = []
    for source in dict.fromkeys(found.sources):
        for class_id in np.unique(found.class_ids):
            rows = np.flatnonzero((sources == source) & (found.class_ids == class_id))
            boxes = found.boxes_xyxy[rows]
            if card.merge == SOFT:
                scores[rows] = soft_scores(boxes, scores[rows])
                kept.append(rows[scores[rows] >= score_min])
            else:
                kept.append(rows[nms(boxes, scores[rows], iou=iou)])
    index = np.sort(np.concatenate([*kept, np.zeros(0, np.int64)])).astype(np.int64)
    return index, scores[index]


def soft_scores(boxes_xyxy: Floats, scores: Floats) -> Floats:
    """Return scores lowered by the overlap with every surer find: exp(-IoU^2 / 0.5) for each.

    Bodla et al., Soft-NMS, 2017, equation 3. Unlike suppression it keeps two people who stand
    one behind the other.

    >>> one = np.float32([[0, 0, 9, 9], [0, 0, 9, 9], [20, 0, 29, 9]])
    >>> [round(float(s), 3) for s in soft_scores(one, np.float32([0.8, 0.9, 0.7]))]
    [0.108, 0.9, 0.7]
    """
    lowered = scores.astype(np.float64)
    overlaps = box_iou(boxes_xyxy, boxes_xyxy)
    left: NDArray[np.bool_] = np.ones(len(scores), dtype=bool)
    for _ in range(len(scores)):
        best = int(np.argmax(np.where(left, lowered, -np.inf)))
        left[best] = False
        lowered[left] *= np.exp(-(overlaps[best, left] ** 2) / SOFT_SIGMA)
    return lowered.astype(np.float32)
