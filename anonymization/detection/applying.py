"""What a card makes of all that was found: thresholds, and one find of a face seen twice."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anonymization.card import KEYPOINT_NETWORK, Card
from anonymization.detection.finds import Detections, box_iou
from anonymization.detection.floors import limits


def above_thresholds(detections: Detections, card: Card) -> Detections:
    """Keep the finds that the card's thresholds keep; heads have one of their own."""
    return detections.select(are_above(detections, card))


def are_above(detections: Detections, card: Card) -> NDArray[np.bool_]:
    """Tell which finds those are; bool, shape (N,)."""
    needed = limits(card)[detections.class_ids]
    from_keypoints = np.array([s == KEYPOINT_NETWORK for s in detections.sources], bool)
    needed = np.where(from_keypoints, np.float32(card.head.threshold), needed)
    return np.asarray(detections.scores >= needed)


def merge_heads(detections: Detections, *, iou: float) -> Detections:
    """Make one find of a face and a head region that overlap.

    Counting both would halve precision for faces that both networks see. The face network's box
    stays, as it was trained on faces while the head is estimated from points; the better score
    stays; and the head's box is remembered in `merged_xyxy`, so that both get obscured. A head
    that overlaps no face stays a find of its own.
    """
    is_head = np.array([s == KEYPOINT_NETWORK for s in detections.sources], bool)
    scores, merged = detections.scores.copy(), detections.merged_xyxy.copy()
    kept = np.ones(len(detections), bool)
    heads = np.flatnonzero(is_head)
    overlaps = box_iou(detections.boxes_xyxy[heads], detections.boxes_xyxy)
    for head, overlap in zip(heads, overlaps, strict=True):
        same = ~is_head & (detections.class_ids == detections.class_ids[head])
        free = same & np.isnan(merged[:, 0]) & (overlap >= iou)
        if free.any():
            face = int(np.argmax(np.where(free, overlap, -1)))
            merged[face] = detections.boxes_xyxy[head]
            scores[face] = max(scores[face], scores[head])
            kept[head] = False
    return Detections(
        detections.boxes_xyxy,
        scores,
        detections.class_ids,
        detections.masks,
        detections.keypoints,
        detections.sources,
        merged,
    ).select(kept)


def apply_card(detections: Detections, card: Card) -> Detections:
    """Turn every find (`score_min` given) into what an operator gets: thresholds, then merging.

    In this order, so that a find below its threshold takes no part.
    """
    return merge_heads(above_thresholds(detections, card), iou=card.nms_iou)
