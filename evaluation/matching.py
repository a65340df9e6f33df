"""Which find is which true object: IoU and COCO's greedy one-to-one matching.

Pure functions on one picture and one class. Finds take truths in the order of their scores, so
the matching above any threshold is a prefix of the whole matching: `detected_at` holds, for each
truth, the highest threshold at which it is still detected, and recall at any threshold is a
look-up. A test holds this against matching again at each threshold and against pycocotools.

Ignored truths (crowds, objects that are not identifiable) are treated as COCO treats crowds: the
overlap is measured against the find's own area, any number of finds may lie on one, and such finds
are neither right nor wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonymization.errors import BlurloopError
from evaluation.patch import Patch, intersection

IOU_MIN = 0.5
"""DESIGN section 7.1; the PASCAL VOC criterion."""

RIGHT, WRONG, NEITHER = 1, 0, -1
"""What a find is: matched to a truth, false, or not to be judged."""

LABELLED, PARTIAL, UNLABELLED = "labelled", "partial", "unlabelled"
"""How far a picture's objects of one class are labelled: all, some, or none."""


class MatchingError(BlurloopError):
    """Finds and truths cannot be compared."""


@dataclass(frozen=True)
class Matching:
    """Finds of one class matched to the truths of one picture.

    Attributes:
        detected_at: Score of the find matched to each truth, float64 (M,); -inf where there is
            none, and for ignored truths. The truth is detected at thresholds up to this one.
        find_state: RIGHT, WRONG or NEITHER for each find, int8 (N,).
        find_truth: Position of the truth that each find was matched to, int64 (N,); -1 for none.
    """

    detected_at: NDArray[np.float64]
    find_state: NDArray[np.int8]
    find_truth: NDArray[np.int64]


def box_iou(
    finds_xyxy: NDArray[np.floating],
    truths_xyxy: NDArray[np.floating],
    ignored: NDArray[np.bool_] | None = None,
    *,
    seam: int | None = None,
) -> NDArray[np.float64]:
    """Return the IoU of each find with each truth.

    Args:
        finds_xyxy: Boxes, shape (N, 4).
        truths_xyxy: Boxes, shape (M, 4).
        ignored: bool (M,); for these the share of the find that lies inside (COCO's crowd rule).
        seam: Column at which a panorama goes on at its first; None for flat pictures. Boxes then
            start in [0, seam) and are at most that wide.

    Returns:
        float64 (N, M), in [0, 1]; 0 where both are empty.

    >>> box_iou(np.array([[0, 0, 2, 2.0]]), np.array([[1, 0, 3, 2.0]])).round(3)
    array([[0.333]])
    """
    a = np.asarray(finds_xyxy, dtype=np.float64).reshape(-1, 1, 4)
    b = np.asarray(truths_xyxy, dtype=np.float64).reshape(1, -1, 4)
    shared = _shared(a, b)
    for step in () if seam is None else (-seam, seam):
        shared = shared + _shared(a + np.array([step, 0, step, 0]), b)
    area_a = np.prod(np.clip(a[..., 2:] - a[..., :2], 0, None), axis=-1)
    area_b = np.prod(np.clip(b[..., 2:] - b[..., :2], 0, None), axis=-1)
    return _ratio(shared, area_a, area_b, ignored)


def _shared(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    return np.asarray(np.prod(np.clip(high - low, 0, None), axis=-1), dtype=np.float64)


def mask_iou(
    finds: Sequence[Patch],
    truths: Sequence[Patch],
    ignored: NDArray[np.bool_] | None = None,
    *,
    seam: int | None = None,
) -> NDArray[np.float64]:
    """Return the IoU of each found mask with each true mask, as `box_iou`; float64 (N, M)."""
    shared = np.zeros((len(finds), len(truths)))
    steps = (0,) if seam is None else (0, -seam, seam)
    for i, find in enumerate(finds):
        for j, truth in enumerate(truths):
            shared[i, j] = sum(intersection(find.shifted(step), truth) for step in steps)
    area_a = np.array([find.area for find in finds], dtype=np.float64).reshape(-1, 1)
    area_b = np.array([truth.area for truth in truths], dtype=np.float64).reshape(1, -1)
    return _ratio(shared, area_a, area_b, ignored)


def _ratio(
    shared: NDArray[np.float64],
    area_a: NDArray[np.float64],
    area_b: NDArray[np.float64],
    ignored: NDArray[np.bool_] | None,
) -> NDArray[np.float64]:
    whole = area_a + area_b - shared
    if ignored is not None:
        whole = np.where(np.asarray(ignored, dtype=bool).reshape(1, -1), area_a, whole)
    out = np.zeros(shared.shape)
    np.divide(shared, np.broadcast_to(whole, shared.shape), out=out, where=whole > 0)
    return out


def match(
    ious: NDArray[np.floating],
    scores: NDArray[np.floating],
    *,
    ignored: NDArray[np.bool_] | None = None,
    coverage: str = LABELLED,
    sources: Sequence[str] | None = None,
    iou_min: float = IOU_MIN,
) -> Matching:
    """Match the finds of one class to the truths of that class in one picture.

    A truth counts as detected if some find is matched to it one to one. A find left over is
    WRONG, unless the class is not completely labelled here (`coverage`), or it confirms a truth
    that another signal found first: a face and the head drawn from the same person's keypoints
    are one object found twice, by design.

    Args:
        ious: Overlap of each find with each truth (COCO's crowd overlap for ignored ones), (N, M).
        scores: (N,), finite.
        ignored: bool (M,), truths that are neither to be found nor to be missed.
        coverage: LABELLED, PARTIAL (truths count, a find left over is NEITHER) or UNLABELLED
            (every find is NEITHER; there must be no truth).
        sources: Signal that made each find, (N,); None where there is only one.
        iou_min: Smallest overlap of a match.

    Raises:
        MatchingError: If shapes disagree, a score or an overlap is not finite, or an unlabelled
            class has truths.

    >>> m = match(np.array([[0.8], [0.6]]), np.array([0.3, 0.9]))
    >>> m.detected_at.tolist(), m.find_state.tolist()
    ([0.9], [0, 1])
    """
    ious, scores, ignored = _checked(ious, scores, ignored, coverage)
    found_truth = _greedy(ious, scores, ignored, iou_min)
    state: NDArray[np.int8] = np.full(
        len(scores), WRONG if coverage == LABELLED else NEITHER, dtype=np.int8
    )
    detected_at = np.full(len(ignored), -np.inf)
    for find in np.flatnonzero(found_truth >= 0):
        truth = found_truth[find]
        state[find] = NEITHER if ignored[truth] else RIGHT
        if not ignored[truth]:
            detected_at[truth] = scores[find]
    if sources is not None:
        state = _forgive_second_signals(state, found_truth, ious, sources, iou_min)
    return Matching(detected_at, state, found_truth)


def _greedy(
    ious: NDArray[np.float64],
    scores: NDArray[np.float64],
    ignored: NDArray[np.bool_],
    iou_min: float,
) -> NDArray[np.int64]:
    """Give each find, best score first, the free truth it overlaps most; counted ones first."""
    found_truth = np.full(len(scores), -1, dtype=np.int64)
    if ious.size == 0:
        return found_truth
    free = np.ones(len(ignored), dtype=bool)
    # pycocotools asks for at least min(threshold, 1 - 1e-10) (cocoeval.py, evaluateImg).
    enough = ious >= min(iou_min, 1 - 1e-10)
    for find in np.argsort(-scores, kind="stable"):
        for kind in (~ignored & free, ignored):
            possible = np.flatnonzero(enough[find] & kind)
            if len(possible):
                # On equal overlaps pycocotools takes the later truth.
                best = possible[::-1][np.argmax(ious[find, possible[::-1]])]
                found_truth[find] = best
                free[best] = bool(ignored[best])
                break
    return found_truth


def _forgive_second_signals(
    state: NDArray[np.int8],
    found_truth: NDArray[np.int64],
    ious: NDArray[np.float64],
    sources: Sequence[str],
    iou_min: float,
) -> NDArray[np.int8]:
    """Turn a find left over from WRONG to NEITHER where it confirms another signal's match."""
    if len(sources) != len(state):
        raise MatchingError(f"{len(sources)} sources for {len(state)} finds; expected one each")
    judged: NDArray[np.int8] = state.copy()
    confirmed = {(int(t), sources[f]) for f, t in enumerate(found_truth) if t >= 0}
    matched = {truth for truth, _ in confirmed}
    for find in np.flatnonzero(judged == WRONG):
        for truth in np.flatnonzero(ious[find] >= iou_min):
            key = (int(truth), sources[find])
            if key[0] in matched and key not in confirmed:
                confirmed.add(key)
                judged[find] = NEITHER
                break
    return judged


def _checked(
    ious: NDArray[np.floating],
    scores: NDArray[np.floating],
    ignored: NDArray[np.bool_] | None,
    coverage: str,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    ious = np.asarray(ious, dtype=np.float64)
    scores = np.asarray(scores, dtype=np.float64)
    if ious.ndim != 2 or scores.shape != (ious.shape[0],):
        raise MatchingError(
            f"overlaps {ious.shape} and scores {scores.shape} disagree; expected (N, M) and (N,)"
        )
    ignored = np.zeros(ious.shape[1], bool) if ignored is None else np.asarray(ignored, dtype=bool)
    if ignored.shape != (ious.shape[1],):
        raise MatchingError(f"{ignored.shape} ignore flags for {ious.shape[1]} truths")
    for what, values in (("score", scores), ("overlap", ious)):
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            raise MatchingError(
                f"{what} of find {int(bad[0][0])} is {values[tuple(bad[0])]}; expected a number. "
                "Run the network again; a model that returns NaN is broken"
            )
    if coverage not in (LABELLED, PARTIAL, UNLABELLED):
        raise MatchingError(
            f"coverage is {coverage!r}; expected {LABELLED}, {PARTIAL} or {UNLABELLED}"
        )
    if coverage == UNLABELLED and ious.shape[1]:
        raise MatchingError(f"{ious.shape[1]} truths of a class that is unlabelled in the picture")
    return ious.astype(np.float64), scores.astype(np.float64), ignored


def recall_at(detected_at: NDArray[np.floating], threshold: float) -> float:
    """Return the share of counted truths detected at a threshold; NaN where there is none.

    >>> recall_at(np.array([0.9, 0.4, -np.inf]), 0.4)
    0.6666666666666666
    """
    if len(detected_at) == 0:
        return float("nan")
    return float(np.mean(np.asarray(detected_at) >= threshold))
