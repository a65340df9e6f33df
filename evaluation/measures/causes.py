"""Why objects were missed: what to mend next, as TIDE asks of errors (Bolya et al., ECCV 2020).

Each object that counts and was not detected has one cause, the first that holds of:

- `below_threshold`: a find detects it, but with a lower score than what is shipped.
- `outline`: a find of its class has its box, but not its outline, and no other object.
- `shared`: the find of its class that has its box went to another object.
- `location`: a find of its class touches it, but not closely enough.
- `other_class`: a find of another class has its box.
- `unseen`: no find is near it.

Finds are those of all scores that the network returns, so that a cause does not change with the
threshold, `below_threshold` aside.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonymization.panorama.projection import Equirectangular
from evaluation.matching import IOU_MIN, RIGHT, box_iou
from evaluation.panoramas import on_circle, seam_of
from evaluation.report.rows import FindRow, ObjectRow

CAUSES = ("below_threshold", "outline", "shared", "location", "other_class", "unseen")

TOUCHING_IOU = 0.1
"""Box IoU from which a find is an attempt at an object rather than background (TIDE's t_b)."""


def miss_causes(
    rows: Iterable[ObjectRow],
    finds: Iterable[FindRow],
    panoramas: Mapping[str, Equirectangular | None],
) -> dict[str, int]:
    """Count the causes of the misses among true objects of one class.

    Args:
        rows: True objects of the class; those that do not count or were detected are passed over.
        finds: Finds of all classes at all scores, of the same pictures.
        panoramas: How each picture (SHA-256) is projected; None for a flat one.

    Returns:
        A count for each of `CAUSES`.
    """
    found: dict[str, list[FindRow]] = defaultdict(list)
    for find in finds:
        found[find.sha256].append(find)
    counts = dict.fromkeys(CAUSES, 0)
    for row in rows:
        if row.counted and not row.detected:
            counts[_cause(row, found[row.sha256], seam_of(panoramas.get(row.sha256)))] += 1
    return counts


def _cause(row: ObjectRow, finds: Sequence[FindRow], seam: int | None) -> str:
    if row.detected_at is not None:
        return "below_threshold"
    overlaps = _overlaps(row, finds, seam)
    own = np.array([find.class_name == row.class_name for find in finds], dtype=bool)
    free = np.array([find.state != RIGHT for find in finds], dtype=bool)
    close = overlaps >= IOU_MIN
    if (close & own).any():
        return "outline" if (close & own & free).any() else "shared"
    if (own & (overlaps >= TOUCHING_IOU)).any():
        return "location"
    return "other_class" if (close & ~own).any() else "unseen"


def _overlaps(row: ObjectRow, finds: Sequence[FindRow], seam: int | None) -> NDArray[Any]:
    boxes = np.array([find.box_xyxy for find in finds], dtype=np.float64).reshape(-1, 4)
    true = np.array([row.box_xyxy], dtype=np.float64)
    counts = np.zeros(1, dtype=bool)
    placed = boxes if seam is None else on_circle(boxes, seam)
    return np.asarray(box_iou(placed, true, counts, seam=seam)[:, 0])
