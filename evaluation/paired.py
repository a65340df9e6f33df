"""Lower bound of the difference between two models' recalls on the same objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from anonymization.errors import BlurloopError

RESAMPLES = 2000
"""As evaluation/bound.py: the 5 % quantile's own error is then about 0.5 % in probability."""
SEED = 20240611
"""Any constant: the same rows must give the same verdict each time."""


class PairedError(BlurloopError):
    """Two models' rows do not speak of the same objects."""


@dataclass(frozen=True)
class PairedDifference:
    """A model's recall minus another's, on the same objects.

    Attributes:
        difference: Share of the objects gained minus share lost.
        lower_bound: One-sided lower bound of it.
        gained: Objects that only the first model recalled.
        lost: Objects that only the second model recalled.
        total: Objects compared.
    """

    difference: float
    lower_bound: float
    gained: int
    lost: int
    total: int


def score_lower(gained: int, lost: int, total: int, *, z: float) -> float:
    """Return Tango's score bound, which holds where few pairs disagree.

    Tango, Statistics in Medicine 17 (1998): the smallest difference that the score test with
    critical value `z` does not reject, found by bisection.

    >>> round(score_lower(0, 0, 250, z=1.6449), 4)
    -0.0107
    """

    def rejects(delta: float) -> bool:
        a = 2 * total
        b = -gained - lost + (2 * total - gained + lost) * delta
        c = -lost * delta * (1 - delta)
        lost_share = (np.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
        variance = total * (2 * lost_share + delta * (1 - delta))
        statistic = gained - lost - total * delta
        return bool(statistic > z * np.sqrt(max(variance, 1e-300)))

    low, high = -1.0, (gained - lost) / total
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rejects(middle) else (low, middle)
    return float(low)


def bootstrap_lower(changes: Sequence[int], clusters: Sequence[str], *, confidence: float) -> float:
    """Return the percentile bootstrap's bound of the mean change, resampling whole clusters."""
    _, index = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    sums = np.bincount(index, weights=np.asarray(changes, dtype=np.float64))
    sizes = np.bincount(index).astype(np.float64)
    draw = np.random.default_rng(SEED)
    means = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        chosen = draw.integers(len(sums), size=len(sums))
        means[i] = sums[chosen].sum() / sizes[chosen].sum()
    return float(np.quantile(means, 1 - confidence))


def paired_difference(
    ours: Sequence[bool],
    theirs: Sequence[bool],
    clusters: Sequence[str],
    *,
    confidence: float = 0.95,
) -> PairedDifference:
    """Compare two models' recall object by object.

    Args:
        ours: Whether the candidate recalled each object.
        theirs: Whether the champion did, in the same order.
        clusters: Picture or sequence of each object.
        confidence: One-sided confidence.

    Returns:
        The difference with the lower of the score and the bootstrap bound.

    Raises:
        PairedError: If there is no object, or the lengths differ.

    >>> paired_difference([True] * 9 + [False], [True] * 10, list("abcdefghij")).difference
    -0.1
    """
    from scipy.special import ndtri

    if not len(ours) == len(theirs) == len(clusters) or not len(ours):
        raise PairedError(
            f"{len(ours)}, {len(theirs)} objects in {len(clusters)} clusters cannot be paired"
        )
    changes = [int(mine) - int(other) for mine, other in zip(ours, theirs, strict=True)]
    gained, lost = changes.count(1), changes.count(-1)
    score = score_lower(gained, lost, len(changes), z=float(ndtri(confidence)))
    bootstrap = bootstrap_lower(changes, clusters, confidence=confidence)
    difference = (gained - lost) / len(changes)
    return PairedDifference(difference, min(score, bootstrap), gained, lost, len(changes))
