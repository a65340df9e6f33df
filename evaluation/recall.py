"""Metrics from rows of judged objects and finds: recall, precision, what was hidden too much.

Pure functions. Where pictures label only some classes, each class is measured on the pictures that
label it: recall on every counted object, precision and false finds where the class is completely
labelled.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from evaluation.bound import CONFIDENCE, lower_bound
from evaluation.coverage import WRITTEN_ALLOWANCE
from evaluation.matching import RIGHT, WRONG
from evaluation.report.rows import FindRow, ObjectRow, PictureRow

COVERAGE_SHARES = tuple(round(0.5 + step / 20, 2) for step in range(11))
"""From half of an object to all of it."""


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
