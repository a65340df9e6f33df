"""Choosing thresholds and margins on val: part of step 5, pure functions.

The gate will ask for a lower confidence bound on the reference set, so the choice asks: at this
threshold and margin, and after what val has shown, how likely is the reference set to clear the
gate? A class takes the highest threshold that makes it likely enough, with the smallest margin.
The limit on false finds is one for all classes together; it is spent where it makes most likely
that all of them clear the gate. A class that it does not carry to its goal gets of what is left,
and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
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
        true_scores: Scores of finds that are right, in those pictures, shape (T,).
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
        threshold_min: Lowest threshold that may be chosen.
    """

    reference_objects: int
    needed: int
    likely: float
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


LIKELY_NOISE = 1e-9
"""Likelihoods up to this are none. SciPy subtracts from 1, so where there is none it returns some
1e-14 that does not grow with recall, and a setting that finds nobody would seem the best."""


def pass_probability(recalled: int, total: int, *, goal: Goal) -> float:
    """Return how likely the reference set clears the gate after val showed `recalled` of `total`.

    Beta-binomial posterior predictive with Jeffreys' prior.

    >>> goal = Goal(300, 292, 0.9, 0.05)
    >>> pass_probability(200, 200, goal=goal) > 0.95 > 0.5 > pass_probability(190, 200, goal=goal)
    True
    """
    from scipy.stats import betabinom

    if goal.reference_objects == 0:
        return 0.0
    likely = float(
        betabinom.sf(
            goal.needed - 1, goal.reference_objects, recalled + 0.5, total - recalled + 0.5
        )
    )
    return likely if likely > LIKELY_NOISE else 0.0


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


@dataclass(frozen=True)
class Setting:
    """A threshold, the margin that suits it best, and what they did on val.

    Attributes:
        threshold: Least score.
        margin: Position in the margins tried.
        likely: Probability that the reference set clears the gate.
        recalled: Share of objects detected and covered, the lower of the two.
        false_finds: Per fully labelled picture.
    """

    threshold: float
    margin: int
    likely: float
    recalled: float
    false_finds: float


def choose(
    evidence: Mapping[str, ClassEvidence],
    goals: Mapping[str, Goal],
    *,
    false_finds_max: float,
    hopeless_precision: float | None = None,
) -> dict[str, Choice]:
    """Choose threshold and margin of every class.

    The limit on false finds is one for all classes together. Of all combinations of settings
    within it, the one is taken that makes it most likely that every class clears the gate; of
    those that are alike, the one with the fewest false finds; what is left of the limit then lowers
    the thresholds of classes that fall short, in equal parts. Where none makes it likely, the
    network will be refused, and what it hides is all that it can still be good for: then the
    product of all recalls is made as large as it goes, so that no class is given up for another,
    and false finds of a class that is as precise as `hopeless_precision` do not count: all of the
    limit is for what lies below, of whatever class. Where none fits, each class takes its fewest.
    A class without objects in val gets the lowest threshold: what was not measured must not cost a
    person.

    Args:
        evidence: What val showed, per class.
        goals: What each class has to reach.
        false_finds_max: Most false finds per fully labelled picture, all classes together.
        hopeless_precision: Precision down to which false finds of a network without hope are
            free; None counts all.
    """
    if not evidence:
        return {}
    steps = {name: list(settings(evidence[name], goals[name])) for name in evidence}
    usable = {name: listed for name, listed in steps.items() if listed}
    taken = _best_within(usable, goals, false_finds_max, _worth)
    if np.prod([setting.likely for setting in taken.values()]) < HOPEFUL:
        free = dict.fromkeys(usable, 0.0)
        if hopeless_precision is not None:
            for name, listed in usable.items():
                precise = _lowered(listed, evidence[name], goals[name], hopeless_precision)
                if precise is not None:
                    free[name] = precise.false_finds
                    below = [s for s in listed if s.threshold < precise.threshold]
                    usable[name] = [precise, *below]
        counted = {
            name: [replace(s, false_finds=max(0.0, s.false_finds - free[name])) for s in listed]
            for name, listed in usable.items()
        }
        taken = _best_within(counted, goals, false_finds_max, _recall_worth)
        if hopeless_precision is not None:
            taken = _spent(taken, evidence, goals, false_finds_max, free)
    else:
        short = {n: s for n, s in taken.items() if s.likely < goals[n].likely}
        others = sum(s.false_finds for n, s in taken.items() if n not in short)
        left = false_finds_max - others
        taken |= _spent(short, evidence, goals, left, dict.fromkeys(short, 0.0))
    return {
        name: _choice(evidence[name], goals[name], taken[name])
        if name in taken
        else _unmeasured(evidence[name], goals[name])
        for name in evidence
    }


BUDGET_STEPS = 2000
"""Parts of the limit on false finds that the choice counts in, each setting rounded up."""


def _best_within(
    steps: Mapping[str, list[Setting]],
    goals: Mapping[str, Goal],
    limit: float,
    worth: Callable[[Setting, Goal], float],
) -> dict[str, Setting]:
    """Return the best setting of each class under a limit for all (a knapsack, solved exactly)."""
    if not steps:
        return {}
    spent = {
        name: np.ceil([s.false_finds / max(limit, 1e-9) * BUDGET_STEPS for s in listed]).astype(int)
        for name, listed in steps.items()
    }
    best = np.zeros(BUDGET_STEPS + 1)
    taken: list[NDArray[np.int64]] = []
    for name, listed in steps.items():
        options = np.full((len(listed), BUDGET_STEPS + 1), -np.inf)
        for row, setting in enumerate(listed):
            cost = int(spent[name][row])
            if cost <= BUDGET_STEPS:
                value = worth(setting, goals[name]) - FALSE_FIND_COST * setting.false_finds
                options[row, cost:] = best[: BUDGET_STEPS + 1 - cost] + value
        taken.append(options.argmax(axis=0))
        best = options.max(axis=0)
    if not np.isfinite(best[-1]):
        return {name: listed[0] for name, listed in steps.items()}
    left, chosen = BUDGET_STEPS, {}
    for name, rows in zip(reversed(list(steps)), reversed(taken), strict=True):
        row = int(rows[left])
        chosen[name] = steps[name][row]
        left -= int(spent[name][row])
    return chosen


def _lowered(
    steps: list[Setting], evidence: ClassEvidence, goal: Goal, precision_min: float
) -> Setting | None:
    """Return the setting of the lowest threshold that is precise enough, if there is one."""
    precise = [s for s in steps if (_precision(evidence, s.threshold) or 0.0) >= precision_min]
    if not precise:
        return None
    below = _below(precise[-1], evidence, goal)
    found = (s for s in below if (_precision(evidence, s.threshold) or 0.0) >= precision_min)
    return next(found, precise[-1])


def _spent(
    taken: Mapping[str, Setting],
    evidence: Mapping[str, ClassEvidence],
    goals: Mapping[str, Goal],
    limit: float,
    free: Mapping[str, float],
) -> dict[str, Setting]:
    """Return the settings with what they left of the limit spent, an equal part on each that can.

    Args:
        taken: With the false finds that count.
        evidence: What val showed, per class.
        goals: What each class has to reach.
        limit: On false finds that count, of all classes together.
        free: False finds of each class that do not count.
    """
    left = max(0.0, limit - sum(setting.false_finds for setting in taken.values()))
    spent = {name: setting.false_finds + free[name] for name, setting in taken.items()}
    below = {name: list(_below(s, evidence[name], goals[name])) for name, s in taken.items()}
    able = [
        n for n, listed in below.items() if any(s.false_finds <= spent[n] + left for s in listed)
    ]
    part = left / max(1, len(able))
    return dict(taken) | {
        name: next((s for s in below[name] if s.false_finds <= spent[name] + part), taken[name])
        for name in able
    }


def _below(setting: Setting, evidence: ClassEvidence, goal: Goal) -> Iterator[Setting]:
    """Yield settings with lower thresholds, the lowest first, at which val shows nothing more.

    Val has few objects, and the next picture holds one that scores less. Only at a false find does
    a lower threshold cost something, so each lies just above one.
    """
    above = (np.floor(evidence.false_scores * 1000) + 1) / 1000
    for threshold in [goal.threshold_min, *np.unique(above[above > goal.threshold_min]).tolist()]:
        if threshold >= setting.threshold:
            return
        found = float(_false_finds(evidence, np.array([threshold]))[0])
        yield replace(setting, threshold=threshold, false_finds=found)


def _precision(evidence: ClassEvidence, threshold: float) -> float | None:
    true = int((evidence.true_scores >= threshold).sum())
    false = int((evidence.false_scores >= threshold).sum())
    return _share(true, true + false)


LIKELY_FLOOR = 1e-3
"""Added to likelihoods before their logarithm: those of a poor network vanish all alike, and
recall decides between its settings."""

HOPEFUL = 0.05
"""Least likelihood that all classes clear the gate for which false finds are spent on that."""

RECALL_FLOOR = 1e-2
"""Added to recalls before their logarithm: a class of which nothing is found must stay finite."""

FALSE_FIND_COST = 1e-4
"""What a false find per picture weighs against log-likelihood: it decides between equals only."""


def _worth(setting: Setting, goal: Goal) -> float:
    """Return the log-likelihood of clearing the gate, no higher than wanted, plus the recall."""
    return float(np.log(min(setting.likely, goal.likely) + LIKELY_FLOOR) + setting.recalled)


def _recall_worth(setting: Setting, goal: Goal) -> float:  # noqa: ARG001 - as `_worth`
    return float(np.log(setting.recalled + RECALL_FLOOR))


def joint_worth(choices: Mapping[str, Choice]) -> float:
    """Return how well choices for all classes do together, to compare them with others."""
    measured = [
        np.log(choice.likely + LIKELY_FLOOR) + min(choice.detected, choice.covered)
        for choice in choices.values()
        if choice.detected is not None and choice.covered is not None
    ]
    return float(sum(measured))


def settings(evidence: ClassEvidence, goal: Goal) -> Iterator[Setting]:
    """Yield settings from the highest threshold down, each better than the one before.

    The last is the first that reaches the goal, where one does. Likelihoods of a poor network
    all vanish and would not tell its settings apart, so recall decides where they tie.
    """
    if len(evidence.detected_at) == 0:
        return
    thresholds = _thresholds(evidence, goal)
    likely = np.minimum(
        _likely(evidence.detected_at, thresholds, goal),
        np.stack([_likely(row, thresholds, goal) for row in evidence.covered_at]),
    )
    recalled = np.minimum(
        _share_at(evidence.detected_at, thresholds),
        np.stack([_share_at(row, thresholds) for row in evidence.covered_at]),
    )
    false_finds = _false_finds(evidence, thresholds)
    best = (-1.0, -1.0)
    for column, threshold in enumerate(thresholds):
        row = _margin(likely[:, column], recalled[:, column], goal.likely)
        value = (float(likely[row, column]), float(recalled[row, column]))
        if value > best:
            best = value
            yield Setting(float(threshold), row, *value, float(false_finds[column]))
        if value[0] >= goal.likely:
            return


def _margin(likely: Floats, recalled: Floats, wanted: float) -> int:
    """Return the smallest margin that is likely enough, else the smallest of the best."""
    if (likely >= wanted).any():
        return int(np.argmax(likely >= wanted))
    return int(np.lexsort((np.arange(len(likely)), -recalled, -likely))[0])


def _choice(evidence: ClassEvidence, goal: Goal, setting: Setting) -> Choice:
    return Choice(
        threshold=setting.threshold,
        margin=float(evidence.margins[setting.margin]),
        likely=setting.likely,
        reached=setting.likely >= goal.likely,
        **_shown(evidence, setting.margin, setting.threshold),
        objects=len(evidence.detected_at),
        curve=tuple(
            {"threshold": round(float(t), 4), **_shown(evidence, setting.margin, float(t))}
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


def _shown(evidence: ClassEvidence, row: int, threshold: float) -> dict[str, Any]:
    total = len(evidence.detected_at)
    false = int((evidence.false_scores >= threshold).sum())
    return {
        "detected": _share(int((evidence.detected_at >= threshold).sum()), total),
        "covered": _share(int((evidence.covered_at[row] >= threshold).sum()), total),
        "precision": _precision(evidence, threshold),
        "false_finds_per_picture": _share(false, evidence.labelled_pictures),
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None
