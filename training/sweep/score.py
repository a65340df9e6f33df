"""The number that a sweep maximizes, from the evaluation of a trial on val."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.sweep.config import Goal


class ScoreError(Exception):
    """A trial's evaluation does not tell how good it is; the trial counts as failed."""


def class_scores(evaluation: Mapping[str, Any], goal: Goal) -> dict[str, float]:
    """Return the measure of every class that counts.

    Args:
        evaluation: `reports/evaluation.json` of an experiment.
        goal: What is measured, and of which classes.

    Raises:
        ScoreError: If it is not of val, or a class was not measured.
    """
    if evaluation.get("split") != "val":
        raise ScoreError(f"it was judged on {evaluation.get('split')}; expected val")
    scores = {}
    for name in goal.classes or evaluation["taxonomy_gated"]:
        measured = evaluation["classes"][name]
        value = measured["ap50"] if goal.measure == "ap50" else measured[goal.measure]["recall"]
        if value is None:
            raise ScoreError(
                f"{goal.measure} of {name} was not measured: val holds none of it; raise "
                "preparation.val, or leave it out of sweep.maximize.classes"
            )
        scores[name] = float(value)
    return scores


def score(evaluation: Mapping[str, Any], goal: Goal) -> float:
    """Return the number that is maximized.

    Raises:
        ScoreError: If the evaluation does not tell.

    >>> classes = {"face": {"ap50": 0.5}, "person": {"ap50": 1.0}}
    >>> told = {"split": "val", "taxonomy_gated": ["face", "person"], "classes": classes}
    >>> score(told, Goal("ap50", "worst")), score(told, Goal("ap50", "mean"))
    (0.5, 0.75)
    """
    values = class_scores(evaluation, goal).values()
    return min(values) if goal.over == "worst" else sum(values) / len(values)
