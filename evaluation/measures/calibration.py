"""Whether scores mean what they say: reliability by score, and the expected calibration error.

A score is calibrated if of the finds with score 0.8 eight in ten are right. Pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from evaluation.matching import RIGHT, WRONG
from evaluation.report.rows import FindRow

BINS = 10


def reliability(finds: Iterable[FindRow], bins: int = BINS) -> list[dict[str, Any]]:
    """Return, for equal bins of the score, how many finds lie there and how many are right.

    Args:
        finds: Finds of one class at all scores; those that are neither right nor wrong stay out.
        bins: Number of bins between 0 and 1; a score on an edge belongs to the bin above it.

    Returns:
        One row for each bin: `from`, `to`, `finds`, `score` (mean) and `precision`; the last two
        are None where no find lies.

    >>> one = FindRow("a", "face", 0.85, (0, 0, 1, 1), "n", RIGHT)
    >>> [row["finds"] for row in reliability([one], bins=2)]
    [0, 1]
    """
    judged = [(f.score, f.state == RIGHT) for f in finds if f.state in (RIGHT, WRONG)]
    scores = np.array([score for score, _ in judged], dtype=np.float64)
    right = np.array([hit for _, hit in judged], dtype=np.float64)
    inside = np.clip((scores * bins).astype(np.int64), 0, bins - 1)
    rows = []
    for number in range(bins):
        here = inside == number
        count = int(here.sum())
        rows.append(
            {
                "from": number / bins,
                "to": (number + 1) / bins,
                "finds": count,
                "score": float(scores[here].mean()) if count else None,
                "precision": float(right[here].mean()) if count else None,
            }
        )
    return rows


def calibration_error(rows: Iterable[dict[str, Any]]) -> float | None:
    """Return the expected calibration error of reliability rows; None where no find lies.

    The distance of mean score and precision, weighted by finds (Naeini et al., AAAI 2015).

    >>> calibration_error([{"finds": 4, "score": 0.9, "precision": 0.5}])
    0.4
    """
    known = [row for row in rows if row["finds"]]
    total = sum(row["finds"] for row in known)
    if not total:
        return None
    return float(sum(r["finds"] * abs(r["score"] - r["precision"]) for r in known) / total)
