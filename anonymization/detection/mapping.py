"""From what a graph answered to finds in the picture's pixels."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from anonymization.card import KEYPOINT_NETWORK, Card, GraphCard
from anonymization.detection.finds import Detections, nms
from anonymization.detection.heads import head_box
from anonymization.detection.outputs import GraphFinds
from anonymization.detection.preparing import PreparedPicture

Floats = NDArray[np.float32]


def heatmaps_to_keypoints(heatmaps: Floats, boxes_xyxy: Floats) -> Floats:
    """Find each keypoint at the highest point of its heat map, resized to its box.

    Equals torchvision's `heatmaps_to_keypoints` (roi_heads.py): bicubic resizing to the box
    rounded up, the highest pixel, its centre scaled to the box.

    Args:
        heatmaps: float32, shape (N, K, S, S), raw values.
        boxes_xyxy: float32, shape (N, 4).

    Returns:
        float32, shape (N, K, 3): x, y in the boxes' pixels, and the value there.
    """
    found = np.zeros((*heatmaps.shape[:2], 3), np.float32)
    for i, (maps, box) in enumerate(zip(heatmaps, boxes_xyxy, strict=True)):
        width, height = np.maximum(box[2:] - box[:2], 1)
        columns, rows = int(np.ceil(width)), int(np.ceil(height))
        for k, heatmap in enumerate(maps):
            large = cv2.resize(heatmap, (columns, rows), interpolation=cv2.INTER_CUBIC)
            y, x = divmod(int(large.argmax()), columns)
            found[i, k] = (
                (x + 0.5) * (width / columns) + box[0],
                (y + 0.5) * (height / rows) + box[1],
                large[y, x],
            )
    return found


def _to_picture(boxes: Floats, picture: PreparedPicture) -> Floats:
    sx, sy = picture.scale_xy
    return np.asarray(boxes / np.array([sx, sy, sx, sy], np.float32), np.float32)


def touching(boxes_xyxy: Floats, height: int, width: int) -> NDArray[np.bool_]:
    """Tell which boxes have an area inside the picture."""
    x0, y0, x1, y1 = boxes_xyxy.T
    inside_x = np.minimum(x1, width) > np.maximum(x0, 0)
    inside_y = np.minimum(y1, height) > np.maximum(y0, 0)
    return np.asarray(inside_x & inside_y)


def mask_finds(
    finds: GraphFinds,
    picture: PreparedPicture,
    graph: GraphCard,
    card: Card,
    height: int,
    width: int,
) -> Detections:
    """Map finds of the mask network back to the picture.

    Boxes are not cut at the picture's edge: the 28x28 mask spans the whole box.
    """
    positions = np.array([card.taxonomy.class_id(name) for name in graph.classes], np.int64)
    boxes = _to_picture(finds.boxes, picture)
    found = Detections.from_boxes(
        boxes, class_ids=positions[finds.labels], scores=finds.scores, masks=finds.maps
    )
    return found.select(touching(boxes, height, width))


def head_finds(
    finds: GraphFinds, picture: PreparedPicture, card: Card, height: int, width: int
) -> tuple[Detections, Floats]:
    """Draw the head region of each person whose face the keypoints see.

    The persons themselves only carry the heads: the mask head draws persons with an outline.

    Returns:
        The heads, and the box of each one's person; float32 (N, 4).
    """
    if card.taxonomy.head_class is None or not len(finds.scores):
        return Detections.empty(), np.zeros((0, 4), np.float32)
    points = heatmaps_to_keypoints(finds.maps, finds.boxes)
    points[..., 0] /= picture.scale_xy[0]
    points[..., 1] /= picture.scale_xy[1]
    persons = _to_picture(finds.boxes, picture)
    pairs = [
        (i, box)
        for i in range(len(persons))
        if (box := head_box(points[i], persons[i], card.head)) is not None
    ]
    rows = np.array([i for i, _ in pairs], np.int64)
    boxes = np.array([box for _, box in pairs], np.float32).reshape(-1, 4)
    heads = Detections.from_boxes(
        boxes,
        class_ids=np.full(len(rows), card.taxonomy.class_id(card.taxonomy.head_class)),
        scores=finds.scores[rows],
        keypoints=points[rows],
        source=KEYPOINT_NETWORK,
    )
    seen = touching(boxes, height, width)
    heads, rows = heads.select(seen), rows[seen]
    kept = nms(heads.boxes_xyxy, heads.scores, iou=card.nms_iou)
    return heads.select(kept), persons[rows[kept]]
