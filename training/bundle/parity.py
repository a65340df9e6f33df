"""Whether an exported graph answers as the network that it was made from; pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Answer:
    """What a network or its graph found in one picture.

    Attributes:
        boxes: Shape (D, 4), xyxy in input pixels.
        scores: Shape (D,).
        labels: Shape (D,).
        maps: Mask probabilities or heat maps, shape (D, ...).
    """

    boxes: NDArray[Any]
    scores: NDArray[Any]
    labels: NDArray[Any]
    maps: NDArray[Any]


def answers(outputs: Sequence[NDArray[Any]], *, posed: int | None) -> list[Answer]:
    """Return one answer for each map head: the finds that it draws, and their maps.

    Args:
        outputs: Boxes, scores, labels and the maps of each head, as a network returns them.
        posed: Label of the finds that the second head draws; None where there is none.

    >>> found = [np.zeros((2, 4)), np.ones(2), np.array([0, 1]), np.zeros((2, 2)), np.zeros((1, 3))]
    >>> [answer.maps.shape for answer in answers(found, posed=1)]
    [(2, 2), (1, 3)]
    """
    boxes, scores, labels, maps, *more = outputs
    rows = labels == posed
    return [
        Answer(boxes, scores, labels, maps),
        *(Answer(boxes[rows], scores[rows], labels[rows], own) for own in more),
    ]


def without_partner(
    these: Answer, others: Answer, *, score_min: float, tolerance: float
) -> list[int]:
    """Return which of these finds the other answer lacks.

    Finds are paired by nearness, not by order: equal scores may come in another order.

    Args:
        these: Finds to look for.
        others: Where to look.
        score_min: Finds below this score are not looked for: rounding decides whether they pass
            the network's own score floor and its suppression.
        tolerance: Largest difference of a pair: tenfold in pixels for boxes, in map values
            relative to their range, and in score.

    >>> one = Answer(np.zeros((1, 4)), np.array([0.9]), np.array([0]), np.zeros((1, 2, 2)))
    >>> none = Answer(np.zeros((0, 4)), np.zeros(0), np.zeros(0), np.zeros((0, 2, 2)))
    >>> without_partner(one, one, score_min=0.1, tolerance=0.01)
    []
    >>> without_partner(one, none, score_min=0.1, tolerance=0.01)
    [0]
    """
    reach = max(float(np.ptp(these.maps)), 1.0) if these.maps.size else 1.0
    missing = []
    for i in np.flatnonzero(these.scores >= score_min):
        near = (
            (others.labels == these.labels[i])
            & (np.abs(others.scores - these.scores[i]) <= tolerance)
            & (np.abs(others.boxes - these.boxes[i]).max(axis=1, initial=0) <= 10 * tolerance)
        )
        close = [
            j for j in np.flatnonzero(near)
            if np.abs(others.maps[j] - these.maps[i]).max() <= tolerance * reach
        ]  # fmt: skip
        if not close:
            missing.append(int(i))
    return missing
