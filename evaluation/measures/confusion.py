"""Which class is taken for which: a confusion matrix of true objects and finds.

Finds take truths in the order of their scores whatever their class, one to one, at box IoU 0.5.
A true object that nothing took is missed; a find that took nothing is background, which is counted
only where its class is completely labelled. Objects that do not count (crowds, not identifiable)
and finds on them are left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from evaluation.matching import WRONG, box_iou, match
from evaluation.panoramas import on_circle, seam_of
from evaluation.report.rows import FindRow, ObjectRow, PictureRow

BACKGROUND = "background"
MISSED = "missed"


def confusion_matrix(
    rows: Iterable[ObjectRow],
    finds: Iterable[FindRow],
    pictures: Sequence[PictureRow],
    class_names: Sequence[str],
) -> dict[str, Any]:
    """Return counts of true classes (rows) and found classes (columns).

    Args:
        rows: True objects.
        finds: Finds at the thresholds of interest; second signals on one object are one find.
        pictures: What each picture labels completely.
        class_names: The classes in order.

    Returns:
        `truth`: names of the rows, `background` last. `found`: names of the columns, `missed`
        last. `counts`: one list for each row.
    """
    truths: dict[str, list[ObjectRow]] = defaultdict(list)
    found: dict[str, list[FindRow]] = defaultdict(list)
    for row in rows:
        truths[row.sha256].append(row)
    for find in finds:
        found[find.sha256].append(find)
    position = {name: i for i, name in enumerate(class_names)}
    counts = np.zeros((len(class_names) + 1, len(class_names) + 1), dtype=np.int64)
    for picture in pictures:
        _count(counts, truths[picture.sha256], found[picture.sha256], picture, position)
    return {
        "truth": [*class_names, BACKGROUND],
        "found": [*class_names, MISSED],
        "counts": counts.tolist(),
    }


def _count(
    counts: Any,
    truths: Sequence[ObjectRow],
    finds: Sequence[FindRow],
    picture: PictureRow,
    position: Mapping[str, int],
) -> None:
    last = len(position)
    ignored = np.array([not row.counted for row in truths], dtype=bool)
    boxes = np.array([find.box_xyxy for find in finds], dtype=np.float64).reshape(-1, 4)
    true_boxes = np.array([row.box_xyxy for row in truths], dtype=np.float64).reshape(-1, 4)
    seam = seam_of(picture.panorama)
    matching = match(
        box_iou(boxes if seam is None else on_circle(boxes, seam), true_boxes, ignored, seam=seam),
        np.array([find.score for find in finds], dtype=np.float64),
        ignored=ignored,
    )
    for find, truth in zip(finds, matching.find_truth, strict=True):
        if truth >= 0 and not ignored[truth]:
            counts[position[truths[truth].class_name], position[find.class_name]] += 1
        elif truth < 0 and find.state == WRONG and find.class_name in picture.labelled:
            counts[last, position[find.class_name]] += 1
    for row, at in zip(truths, matching.detected_at, strict=True):
        if row.counted and not np.isfinite(at):
            counts[position[row.class_name], last] += 1
