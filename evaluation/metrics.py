"""Metrics from rows of judged objects and finds: recall, precision, AP, what was hidden too much.

Pure functions. Where pictures label only some classes, each class is measured on the pictures that
label it: recall on every counted object, precision and false finds where the class is completely
labelled.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.bound import CONFIDENCE, lower_bound
from evaluation.coverage import WRITTEN_ALLOWANCE
from evaluation.matching import RIGHT, WRONG
from evaluation.report.rows import FindRow, ObjectRow, PictureRow

COVERAGE_SHARES = tuple(round(0.5 + step / 20, 2) for step in range(11))
"""From half of an object to all of it."""

# As pycocotools has them by default: thresholds, most finds of a class in a picture, largest area.
_COCO_IOUS = np.linspace(0.5, 0.95, 10)
_COCO_RECALLS = np.linspace(0.0, 1.0, 101)
_FINDS_MAX = 100
_AREA_MAX = 1e10

_PAIRS_AT_ONCE = 1 << 18


def recall(
    rows: Iterable[ObjectRow], sense: str, *, confidence: float = CONFIDENCE, seed: int = 0
) -> dict[str, Any]:
    """Return recalled and total counted objects, and the recall with its lower bounds.

    Args:
        rows: Objects of one class.
        sense: `detected` or `covered`.
        confidence: One-sided, of the bounds.
        seed: Of the bootstrap.

    Returns:
        `recalled`, `total`, `recall`, `lower_bound`; the last two None where nothing counts.
    """
    total: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    for row in rows:
        if row.counted:
            total[row.cluster] += 1
            hits[row.cluster] += bool(getattr(row, sense))
    if not total:
        return {"recalled": 0, "total": 0, "recall": None, "lower_bound": None}
    names = sorted(total)
    x, n = [hits[name] for name in names], [total[name] for name in names]
    return {
        "recalled": sum(x),
        "total": sum(n),
        "recall": sum(x) / sum(n),
        "lower_bound": lower_bound(x, n, confidence=confidence, seed=seed).to_dict(),
    }


def precision(finds: Iterable[FindRow]) -> float | None:
    """Return right finds over right and wrong ones; None where none is either.

    Finds that are neither (crowds, objects too small to identify, unlabelled classes) stay out.
    """
    states = Counter(find.state for find in finds)
    judged = states[RIGHT] + states[WRONG]
    return states[RIGHT] / judged if judged else None


def precision_recall_curve(finds: Sequence[FindRow], total: int) -> list[dict[str, float]]:
    """Return precision and recall at each threshold at which either changes, thresholds falling.

    Args:
        finds: Finds of one class at all scores, in completely labelled pictures.
        total: Counted objects in these pictures.
    """
    judged = sorted((f for f in finds if f.state in (RIGHT, WRONG)), key=lambda f: -f.score)
    curve: list[dict[str, float]] = []
    right = 0
    for rank, find in enumerate(judged, start=1):
        right += find.state == RIGHT
        last_of_score = rank == len(judged) or judged[rank].score < find.score
        if total and last_of_score:
            curve.append(
                {"threshold": find.score, "precision": right / rank, "recall": right / total}
            )
    return curve


def thinned(curve: Sequence[dict[str, float]], points: int = 101) -> list[dict[str, float]]:
    """Return at most so many points of a curve, its ends included."""
    if len(curve) <= points:
        return list(curve)
    positions = np.unique(np.linspace(0, len(curve) - 1, points).round().astype(int))
    return [curve[i] for i in positions]


def coverage_curve(rows: Iterable[ObjectRow]) -> list[dict[str, float]]:
    """Return the covered recall for each share of an object's pixels that may be asked for.

    The gate asks for 0.9. The written file must agree with the regions at every share.
    """
    counted = [row for row in rows if row.counted]
    if not counted:
        return []
    shares = [row.share if kept_in_file(row) else 0.0 for row in counted]
    return [
        {"share": share, "recall": sum(s >= share for s in shares) / len(shares)}
        for share in COVERAGE_SHARES
    ]


def kept_in_file(row: ObjectRow) -> bool:
    """Return whether the written file hides as much of an object as the regions do."""
    return row.written_share is None or row.written_share >= row.share - WRITTEN_ALLOWANCE


def size_bins(
    rows: Sequence[ObjectRow], edges_px: Sequence[float], line_px: float
) -> list[dict[str, Any]]:
    """Return recalls by length of the side that the size rule measures, crowds left out.

    Args:
        rows: Objects of one class, identifiable or not.
        edges_px: Ascending edges of the bins; a last bin is open above.
        line_px: Length from which objects are identifiable; bins below it never enter the gate.
    """
    bins = []
    for low, high in zip(edges_px, [*edges_px[1:], math.inf], strict=True):
        inside = [r for r in rows if low <= r.side_px < high and not r.crowd]
        bins.append(
            {
                "from": low,
                "to": None if math.isinf(high) else high,
                "total": len(inside),
                "detected": sum(r.detected for r in inside),
                "covered": sum(r.covered for r in inside),
                "below_line": high <= line_px,
            }
        )
    return bins


def false_finds_per_picture(
    finds: Iterable[FindRow],
    pictures: Sequence[PictureRow],
    class_names: Sequence[str],
    gated: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return wrong finds per picture: each class over the pictures that label it completely.

    `value`, which the gate limits, is the sum of these rates over the gated classes, so that sets
    labelling different classes add up to what one picture with all classes would show. It is None
    where no picture labels some gated class completely: what was not measured must not pass.
    `pictures` is the number that the thinnest gated class rests on.

    >>> rows = [PictureRow("a", frozenset({"face"}), None, None)]
    >>> wrong = FindRow("a", "face", 0.9, (0, 0, 1, 1), "mask_rcnn", WRONG)
    >>> false_finds_per_picture([wrong, wrong], rows, ["face", "person"], ["face"])
    {'value': 2.0, 'pictures': 1, 'by_class': {'face': 2.0, 'person': None}}
    """
    wrong = Counter(find.class_name for find in finds if find.state == WRONG)
    labelled = {name: sum(name in p.labelled for p in pictures) for name in class_names}
    rates = {name: wrong[name] / n if n else None for name, n in labelled.items()}
    asked = class_names if gated is None else gated
    known = [rate for name in asked if (rate := rates[name]) is not None]
    return {
        "value": sum(known) if len(known) == len(asked) else None,
        "pictures": min((labelled[name] for name in asked), default=0),
        "by_class": rates,
    }


def non_object_share_obscured(pictures: Iterable[PictureRow]) -> dict[str, Any]:
    """Return which share of pixels without any object was fully obscured.

    Only pictures in which every gated class is completely labelled can tell; `value` is None
    where there is none.
    """
    known = [p for p in pictures if p.background_px is not None]
    background = sum(p.background_px or 0 for p in known)
    hidden = sum(p.background_hidden_px or 0 for p in known)
    return {"value": hidden / background if background else None, "pictures": len(known)}


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


if __name__ == "__main__":
    from evaluation.coco_metrics import main

    main()
