"""Choosing thresholds and margins on val: part of step 5, pure functions.

The gate will ask for a lower confidence bound on the reference set, so the choice asks: at this
threshold and margin, and after what val has shown, how likely is the reference set to clear the
gate? Among the settings that make it likely enough, the one with the best precision wins, then
the smallest margin. Where none does, the likeliest within the limit on false finds is taken, and
the choice says that it falls short.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonymization.errors import BlurloopError

Floats = NDArray[np.float64]


class CalibrationError(BlurloopError):
    """The evidence from val contradicts itself."""


@dataclass(frozen=True)
class ClassEvidence:
    """What the shipped anonymizer did with one class on val.

    Attributes:
        detected_at: Per identifiable true object, the highest threshold at which it is detected;
            -inf where it never is; float64, shape (N,).
        covered_at: The same for 90 % coverage, per margin; float64, shape (M, N).
        margins: The margins tried, ascending, shape (M,).
        false_scores: Scores of finds that are certainly false, in fully labelled pictures; (F,).
        true_scores: Scores of finds that match a true object in those pictures, shape (T,).
        labelled_pictures: Number of pictures in which every object of the class is labelled.
    """

    detected_at: Floats
    covered_at: Floats
    margins: Floats
    false_scores: Floats
    true_scores: Floats
    labelled_pictures: int

    def __post_init__(self) -> None:
        expected = (len(self.margins), len(self.detected_at))
        if self.covered_at.shape != expected:
            raise CalibrationError(
                f"covered_at has shape {self.covered_at.shape}; expected {expected}"
            )
        if np.any(np.diff(self.margins) <= 0):
            raise CalibrationError(f"margins {self.margins.tolist()} do not ascend")


@dataclass(frozen=True)
class Goal:
    """What a class has to reach.

    Attributes:
        reference_objects: Identifiable objects of the class in the reference set.
        needed: Smallest number of them that must be recalled to clear the gate.
        likely: Wanted probability that the reference set clears the gate.
        false_finds_max: Most false finds per fully labelled picture that this class may make.
        threshold_min: Lowest threshold that may be chosen.
    """

    reference_objects: int
    needed: int
    likely: float
    false_finds_max: float
    threshold_min: float


@dataclass(frozen=True)
class Choice:
    """The chosen setting of one class, with what val showed there."""

    threshold: float
    margin: float
    likely: float
    reached: bool
    detected: float | None
    covered: float | None
    precision: float | None
    false_finds_per_picture: float | None
    objects: int
    curve: tuple[dict[str, Any], ...]


def pass_probability(recalled: int, total: int, *, goal: Goal) -> float:
    """Return how likely the reference set clears the gate after val showed `recalled` of `total`.

    Beta-binomial posterior predictive with Jeffreys' prior.

    >>> goal = Goal(300, 292, 0.9, 1.0, 0.05)
    >>> pass_probability(200, 200, goal=goal) > 0.95 > 0.5 > pass_probability(190, 200, goal=goal)
    True
    """
    from scipy.stats import betabinom

    if goal.reference_objects == 0:
        return 0.0
    return float(
        betabinom.sf(
            goal.needed - 1, goal.reference_objects, recalled + 0.5, total - recalled + 0.5
        )
    )


def needed_recalls(total: int, *, clears: Callable[[int, int], bool]) -> int:
    """Return the smallest number of recalled objects, of `total`, that clears the gate.

    Returns `total + 1` where not even all of them do.
    """
    low, high = 0, total + 1
    while low < high:
        middle = (low + high) // 2
        if clears(middle, total):
            high = middle
        else:
            low = middle + 1
    return low


def choose(evidence: ClassEvidence, goal: Goal) -> Choice:
    """Choose threshold and margin of one class.

    The highest threshold at which any margin is likely enough is the most precise; the smallest
    such margin hides the least. A class without objects in val gets the lowest threshold: what
    was not measured must not cost a person.
    """
    if len(evidence.detected_at) == 0:
        return _unmeasured(evidence, goal)
    thresholds = _thresholds(evidence, goal)
    detected = _likely(evidence.detected_at, thresholds, goal)
    covered = np.stack([_likely(row, thresholds, goal) for row in evidence.covered_at])
    both = np.minimum(detected, covered)
    allowed = _false_finds(evidence, thresholds) <= goal.false_finds_max
    if not allowed.any():
        allowed[np.argmax(thresholds)] = True
    recalled = np.minimum(
        _share_at(evidence.detected_at, thresholds),
        np.stack([_share_at(row, thresholds) for row in evidence.covered_at]),
    )
    row, column = _best(both, recalled, allowed, goal.likely)
    threshold = float(thresholds[column])
    return Choice(
        threshold=threshold,
        margin=float(evidence.margins[row]),
        likely=float(both[row, column]),
        reached=bool(both[row, column] >= goal.likely),
        **_shown(evidence, row, threshold),
        objects=len(evidence.detected_at),
        curve=tuple(
            {"threshold": round(float(t), 4), **_shown(evidence, row, float(t))}
            for t in np.linspace(goal.threshold_min, 0.95, 19)
        ),
    )


def _unmeasured(evidence: ClassEvidence, goal: Goal) -> Choice:
    shown = _shown(evidence, len(evidence.margins) - 1, goal.threshold_min)
    margin = float(evidence.margins[-1])
    return Choice(goal.threshold_min, margin, 0.0, False, **shown, objects=0, curve=())


def _thresholds(evidence: ClassEvidence, goal: Goal) -> Floats:
    """Return every threshold at which something changes, descending, each a little rounded down.

    Only scores of true objects lower recall, so no other threshold can be better.
    """
    scores = np.concatenate([evidence.detected_at, evidence.covered_at.ravel()])
    scores = scores[np.isfinite(scores) & (scores >= goal.threshold_min)]
    steps = np.unique(np.concatenate([np.floor(scores * 1000) / 1000, [goal.threshold_min]]))
    return np.asarray(steps[steps >= goal.threshold_min][::-1], dtype=np.float64)


def _likely(recalled_at: Floats, thresholds: Floats, goal: Goal) -> Floats:
    total = len(recalled_at)
    counts = (recalled_at[None, :] >= thresholds[:, None]).sum(axis=1)
    by_count = {int(k): pass_probability(int(k), total, goal=goal) for k in np.unique(counts)}
    return np.array([by_count[int(k)] for k in counts])


def _false_finds(evidence: ClassEvidence, thresholds: Floats) -> Floats:
    counts = (evidence.false_scores[None, :] >= thresholds[:, None]).sum(axis=1)
    return np.asarray(counts / max(evidence.labelled_pictures, 1), dtype=np.float64)


def _share_at(recalled_at: Floats, thresholds: Floats) -> Floats:
    counts = (recalled_at[None, :] >= thresholds[:, None]).sum(axis=1)
    return np.asarray(counts / len(recalled_at), dtype=np.float64)


def _best(
    both: Floats, recalled: Floats, allowed: NDArray[np.bool_], likely: float
) -> tuple[int, int]:
    """Return (margin, threshold) positions; thresholds descend, so the first is most precise.

    Where nothing is likely enough, the highest recall is taken: probabilities of a poor network
    all vanish and would not tell its settings apart.
    """
    enough = (both >= likely) & allowed[None, :]
    if enough.any():
        column = int(np.argmax(enough.any(axis=0)))
        return int(np.argmax(enough[:, column])), column
    within = np.where(allowed[None, :], recalled, -1.0)
    best = within.max()
    column = int(np.argmax((within >= best - 1e-12).any(axis=0)))
    return int(np.argmax(within[:, column])), column


def _shown(evidence: ClassEvidence, row: int, threshold: float) -> dict[str, Any]:
    total = len(evidence.detected_at)
    true = int((evidence.true_scores >= threshold).sum())
    false = int((evidence.false_scores >= threshold).sum())
    return {
        "detected": _share(int((evidence.detected_at >= threshold).sum()), total),
        "covered": _share(int((evidence.covered_at[row] >= threshold).sum()), total),
        "precision": _share(true, true + false),
        "false_finds_per_picture": _share(false, evidence.labelled_pictures),
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None
