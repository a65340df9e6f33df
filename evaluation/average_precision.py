"""COCO's average precision and recall of boxes, equal to pycocotools', in array code.

Pure functions. N rows of objects or finds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from evaluation.report.rows import FindRow, ObjectRow, PictureRow

# As pycocotools has them by default: thresholds, most finds of a class in a picture, largest area.
_COCO_IOUS = np.linspace(0.5, 0.95, 10)
_COCO_RECALLS = np.linspace(0.0, 1.0, 101)
_FINDS_MAX = 100
_AREA_MAX = 1e10

_PAIRS_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class BoxRows:
    """True objects or finds of many pictures and classes, one row each.

    Attributes:
        pictures: Position of the picture, int64 (N,).
        classes: Position of the class, int64 (N,).
        boxes_xywh: Left, top, width and height in pixels, float64 (N, 4).
        values: Scores of finds, areas of true objects in square pixels, float64 (N,).
    """

    pictures: NDArray[np.int64]
    classes: NDArray[np.int64]
    boxes_xywh: NDArray[np.float64]
    values: NDArray[np.float64]

    def groups(self, pictures: int) -> NDArray[np.int64]:
        """Return one number for each class in each picture, (N,); classes first."""
        return self.classes * pictures + self.pictures

    def rows(self, wanted: NDArray[np.int64]) -> BoxRows:
        """Return some rows, in the order asked for."""
        places = self.pictures[wanted], self.classes[wanted]
        return BoxRows(*places, self.boxes_xywh[wanted], self.values[wanted])


def coco_box_scores(
    truths: BoxRows, finds: BoxRows, crowd: NDArray[np.bool_], complete: NDArray[np.bool_]
) -> list[dict[str, float | None]]:
    """Return COCO's box AP, AP50, AP75 and AR100 of each class; tests hold pycocotools beside.

    Args:
        truths: True objects, values being areas.
        finds: Finds, values being scores. Of equal scores the earlier picture and row goes first.
        crowd: Whether a true object is ignored as COCO ignores crowds, (N,).
        complete: Whether a picture labels a class completely, shape (classes, pictures); a class
            is scored on these pictures only.

    Returns:
        `ap`, `ap50`, `ap75`, `ar` of each class; None where no object counts.
    """
    pictures = complete.shape[1]
    asked = np.argsort(truths.groups(pictures), kind="stable")
    asked = asked[complete[truths.classes, truths.pictures][asked]]
    truths, crowd = truths.rows(asked), crowd[asked]
    ignored = crowd | (truths.values < 0) | (truths.values > _AREA_MAX)
    finds = finds.rows(np.flatnonzero(complete[finds.classes, finds.pictures]))
    finds = finds.rows(np.lexsort((-finds.values, finds.groups(pictures))))
    finds = finds.rows(np.flatnonzero(_rank(finds.groups(pictures)) < _FINDS_MAX))
    matched, neither = _coco_matched(truths, finds, crowd, ignored, pictures)
    found: list[dict[str, float | None]] = []
    for number in range(len(complete)):
        own = np.flatnonzero(finds.classes == number)
        own = own[np.argsort(-finds.values[own], kind="stable")]
        total = int(np.sum((truths.classes == number) & ~ignored))
        found.append(_coco_averages(matched[own].T, neither[own].T, total))
    return found


def _rank(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the place of each row in its group; equal numbers are one group, ascending."""
    return np.arange(len(group)) - np.searchsorted(group, group)


def _coco_matched(
    truths: BoxRows,
    finds: BoxRows,
    crowd: NDArray[np.bool_],
    ignored: NDArray[np.bool_],
    pictures: int,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return whether each find is matched, and whether it is not to be judged.

    Each (finds, IoU thresholds). Finds of one class in one picture choose by falling score, first
    among objects that count, then the highest IoU, then the later object; all pictures and classes
    in step.
    """
    find, truth, iou = _close_pairs(truths, finds, crowd, pictures)
    choosers, position = np.unique(find, return_inverse=True)
    step = _rank(finds.groups(pictures)[choosers])[position]
    order = np.lexsort((-truth, -iou, ignored[truth], find, step))
    find, truth, iou, step = find[order], truth[order], iou[order], step[order]
    taken = np.zeros((len(ignored), len(_COCO_IOUS)), dtype=bool)
    matched = np.zeros((len(finds.values), len(_COCO_IOUS)), dtype=bool)
    neither = np.zeros_like(matched)
    for start, stop in pairwise(np.searchsorted(step, np.arange(step.max(initial=-1) + 2))):
        near, who = truth[start:stop], find[start:stop]
        free = iou[start:stop, None] >= _COCO_IOUS
        free &= ~taken[near] | crowd[near, None]
        firsts = np.flatnonzero(np.diff(who, prepend=-1))
        place = np.where(free, np.arange(len(near))[:, None], len(near))
        choice = np.minimum.reduceat(place, firsts, axis=0)
        row, level = np.nonzero(choice < len(near))
        chosen = near[choice[row, level]]
        taken[chosen, level] = True
        matched[who[firsts[row]], level] = True
        neither[who[firsts[row]], level] = ignored[chosen]
    large = finds.boxes_xywh[:, 2] * finds.boxes_xywh[:, 3] > _AREA_MAX
    return matched, neither | (~matched & large[:, None])


def _close_pairs(
    truths: BoxRows, finds: BoxRows, crowd: NDArray[np.bool_], pictures: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return rows of finds and of truths of the same group with an IoU of 0.5 or more, and it."""
    known, wanted = truths.groups(pictures), finds.groups(pictures)
    low = np.searchsorted(known, wanted)
    counts = np.searchsorted(known, wanted, side="right") - low
    before = np.concatenate([[0], np.cumsum(counts)])
    parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    start = 0
    while start < len(counts):
        # So many finds at a time that crowded pictures do not fill the memory.
        stop = int(np.searchsorted(before, before[start] + _PAIRS_AT_ONCE, side="right")) - 1
        stop = max(stop, start + 1)
        own = counts[start:stop]
        find = np.repeat(np.arange(start, stop), own)
        offset = low[start:stop] - before[start:stop] + before[start]
        truth = np.arange(len(find)) + np.repeat(offset, own)
        a, b = finds.boxes_xywh[find], truths.boxes_xywh[truth]
        sides = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
        sides -= np.maximum(a[:, :2], b[:, :2])
        shared = np.where((sides > 0).all(axis=1), sides[:, 0] * sides[:, 1], 0.0)
        own_area = a[:, 2] * a[:, 3]
        union = np.where(crowd[truth], own_area, own_area + b[:, 2] * b[:, 3] - shared)
        iou = np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
        close = iou >= _COCO_IOUS[0]
        parts.append((find[close], truth[close], iou[close]))
        start = stop
    find, truth, iou = (np.concatenate(column) for column in zip(*parts, strict=True))
    return find, truth, iou


def _coco_averages(
    matched: NDArray[np.bool_], neither: NDArray[np.bool_], total: int
) -> dict[str, float | None]:
    """Return COCO's scores of one class; finds by falling score, (IoU thresholds, finds)."""
    if not total:
        return dict.fromkeys(("ap", "ap50", "ap75", "ar"))
    right = np.cumsum(matched & ~neither, axis=1)
    judged = np.cumsum(~neither, axis=1)
    found = right / total
    precise = right / (judged + np.spacing(1))
    # A recall that is never reached has precision 0, which stands at the end.
    precise = np.pad(np.maximum.accumulate(precise[:, ::-1], axis=1)[:, ::-1], ((0, 0), (0, 1)))
    by_recall = np.array(
        [p[np.searchsorted(r, _COCO_RECALLS)] for p, r in zip(precise, found, strict=True)]
    )
    return {
        "ap": float(by_recall.mean()),
        "ap50": float(by_recall[0].mean()),
        "ap75": float(by_recall[5].mean()),
        "ar": float(found[:, -1].mean()) if found.shape[1] else 0.0,
    }


def average_precision(
    rows: Sequence[ObjectRow],
    finds: Sequence[FindRow],
    pictures: Iterable[PictureRow],
    class_name: str,
) -> dict[str, float | None]:
    """Return COCO's box AP, AP50 and AR100 of one class on the pictures that label it completely.

    Objects that do not count are ignored as COCO ignores crowds. Tests compare them with
    pycocotools.

    Returns:
        `ap`, `ap50`, `ar`; None where no object counts.
    """
    wanted = sorted(p.sha256 for p in pictures if class_name in p.labelled)
    ids = {sha256: i for i, sha256 in enumerate(wanted)}
    truths = [r for r in rows if r.class_name == class_name and r.sha256 in ids]
    if not any(r.counted for r in truths):
        return {"ap": None, "ap50": None, "ar": None}
    own = [f for f in finds if f.class_name == class_name and f.sha256 in ids]
    if not own:
        return {"ap": 0.0, "ap50": 0.0, "ar": 0.0}
    crowd = np.array([not r.counted for r in truths], dtype=bool)
    everywhere = np.ones((1, len(ids)), dtype=bool)
    objects, found = _box_rows(truths, ids), _box_rows(own, ids, [f.score for f in own])
    scores = coco_box_scores(objects, found, crowd, everywhere)[0]
    return {key: scores[key] for key in ("ap", "ap50", "ar")}


def _box_rows(
    rows: Sequence[ObjectRow] | Sequence[FindRow],
    ids: Mapping[str, int],
    scores: Sequence[float] | None = None,
) -> BoxRows:
    boxes = np.array([row.box_xyxy for row in rows], dtype=np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    pictures = np.array([ids[row.sha256] for row in rows], dtype=np.int64)
    values = boxes[:, 2] * boxes[:, 3] if scores is None else np.array(scores, dtype=np.float64)
    return BoxRows(pictures, np.zeros_like(pictures), boxes, values)
