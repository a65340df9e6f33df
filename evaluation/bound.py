"""Lower confidence bounds of a recall: `python -m evaluation.bound RECALLED TOTAL`.

Three bounds, and the lowest counts:

* exact: Clopper-Pearson, right where objects are independent (Clopper & Pearson, Biometrika 26,
  1934).
* bootstrap: over clusters (pictures or sequences), percentile. It is too narrow for few clusters
  and says 1 where nothing was missed.
* clustered: Clopper-Pearson with the effective number of objects (Korn & Graubard, Survey
  Methodology 24, 1998), which simulation (evaluation/simulation.py) shows to hold where the
  bootstrap does not.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anonymization.errors import BlurloopError

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
"""One-sided; DESIGN section 7.2."""

RESAMPLES = 2000
"""Bootstrap resamples: the 5 % quantile's own error is then about 0.5 % in probability."""


class BoundError(BlurloopError):
    """Counts that no recall can have."""


@dataclass(frozen=True)
class LowerBound:
    """Lower bounds of one recall.

    Attributes:
        exact: Clopper-Pearson on all objects.
        bootstrap: Percentile bootstrap over clusters.
        clustered: Clopper-Pearson on the effective number of objects.
        effective: Number of independent objects that would tell as much.
    """

    exact: float
    bootstrap: float
    clustered: float
    effective: float

    @property
    def bound(self) -> float:
        """The lowest of the three: what the gate compares."""
        return min(self.exact, self.bootstrap, self.clustered)

    def to_dict(self) -> dict[str, float]:
        """Return plain types, for JSON."""
        return {
            "exact": self.exact,
            "bootstrap": self.bootstrap,
            "clustered": self.clustered,
            "effective_objects": self.effective,
            "bound": self.bound,
        }


def exact_lower(recalled: ArrayLike, total: ArrayLike, *, confidence: float = CONFIDENCE) -> Any:
    """Return the one-sided Clopper-Pearson lower bound; 0 where nothing was recalled.

    Counts may be fractions, as effective numbers are.

    >>> round(float(exact_lower(59, 59)), 4), round(float(exact_lower(962, 1000)), 4)
    (0.9505, 0.9505)
    """
    from scipy.stats import beta

    k, n = np.asarray(recalled, dtype=np.float64), np.asarray(total, dtype=np.float64)
    _check_counts(k, n, confidence)
    bound = beta.ppf(1 - confidence, np.maximum(k, 1e-12), n - k + 1)
    return np.where(k <= 0, 0.0, bound)[()]


def _check_counts(k: Floats, n: Floats, confidence: float) -> None:
    if not 0 < confidence < 1:
        raise BoundError(f"confidence is {confidence}; expected a number between 0 and 1")
    if not (np.all(np.isfinite(k)) and np.all(np.isfinite(n))):
        raise BoundError(f"recalled {k} of {n}: not a number")
    if np.any(n <= 0) or np.any(k < 0) or np.any(k > n + 1e-9):
        raise BoundError(f"recalled {k} of {n}; expected 0 <= recalled <= total and total > 0")


def clustered_lower(
    recalled: ArrayLike, total: ArrayLike, *, confidence: float = CONFIDENCE
) -> tuple[Any, Any]:
    """Return Korn and Graubard's lower bound, and the effective number of objects.

    The number of objects is divided by the design effect (variance of the recall as the clusters
    show it, over the variance that independent objects would have, at least 1) and by the squared
    ratio of Student's quantiles at the clusters' and the objects' degrees of freedom.

    Args:
        recalled: Recalled objects of each cluster, shape (..., K).
        total: Objects of each cluster, shape (..., K), all above 0.
        confidence: One-sided.

    Returns:
        Bound and effective number, each of shape (...). A single cluster proves nothing: 0, 1.

    >>> bound, effective = clustered_lower([2] * 97 + [0] * 3, [2] * 100)
    >>> round(float(bound), 3), round(float(effective))
    (0.924, 98)
    """
    from scipy.stats import t

    x, n = np.asarray(recalled, dtype=np.float64), np.asarray(total, dtype=np.float64)
    clusters = n.shape[-1]
    objects, hits = n.sum(axis=-1), x.sum(axis=-1)
    if clusters < 2:
        return np.zeros(objects.shape)[()], np.ones(objects.shape)[()]
    recall = hits / objects
    spread = ((x - recall[..., None] * n) ** 2).sum(axis=-1) * clusters / (clusters - 1)
    independent = recall * (1 - recall) * objects
    effect = np.ones(objects.shape)
    np.divide(spread, independent, out=effect, where=independent > 0)
    quantiles = t.ppf(confidence, np.maximum(objects - 1, 1)) / t.ppf(confidence, clusters - 1)
    effective = np.minimum(objects / np.maximum(effect, 1) * quantiles**2, objects)
    bound = exact_lower(recall * effective, effective, confidence=confidence)
    return bound, effective[()]


def effective_clusters(sizes: Sequence[int] | NDArray[Any]) -> float:
    """Return how many clusters of one size tell as much as these: Kish's effective number.

    A few large clusters decide a recall almost alone, and no bound from them is wide enough.

    Args:
        sizes: Objects of each cluster, shape (K,).

    >>> effective_clusters([3] * 100), round(effective_clusters([1] * 95 + [30] * 5), 1)
    (100.0, 13.1)
    """
    n = np.asarray(sizes, dtype=np.float64)
    return float(n.sum() ** 2 / (n**2).sum()) if n.any() else 0.0


def bootstrap_lower(
    recalled: ArrayLike,
    total: ArrayLike,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> float:
    """Return the percentile bootstrap's lower bound over clusters.

    Clusters are drawn with replacement. Only clusters with a miss need drawing one by one: how
    often each of the others is drawn matters through their sizes alone, and equal clusters are
    counted together, so that a thousand clusters cost as many draws as they have kinds.

    Args:
        recalled: Recalled objects of each cluster, shape (K,).
        total: Objects of each cluster, shape (K,).
        confidence: One-sided.
        resamples: Number of drawn sets.
        seed: Of the draws.

    Returns:
        Bound in [0, 1].

    >>> bootstrap_lower([1, 1, 1], [1, 1, 1])
    1.0
    """
    x, n = np.asarray(recalled, dtype=np.int64), np.asarray(total, dtype=np.int64)
    kinds, counts = np.unique(np.stack([x, n], axis=1), axis=0, return_counts=True)
    generator = np.random.default_rng(seed)
    draws = generator.multinomial(counts.sum(), counts / counts.sum(), size=resamples)
    recalls = draws @ kinds[:, 0] / (draws @ kinds[:, 1])
    return float(np.quantile(recalls, 1 - confidence, method="lower"))


def lower_bound(
    recalled: Sequence[int] | NDArray[Any],
    total: Sequence[int] | NDArray[Any],
    *,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> LowerBound:
    """Return the lower bounds of a recall from what each cluster shows.

    Args:
        recalled: Recalled objects of each cluster, shape (K,).
        total: Objects of each cluster, shape (K,); clusters without objects are left out.
        confidence: One-sided.
        seed: Of the bootstrap.

    Raises:
        BoundError: If a count is impossible, or there is no object at all.

    >>> round(lower_bound([1] * 59, [1] * 59).bound, 4)
    0.9505
    """
    x, n = np.asarray(recalled, dtype=np.float64), np.asarray(total, dtype=np.float64)
    if x.shape != n.shape or x.ndim != 1:
        raise BoundError(f"recalled has shape {x.shape}, total {n.shape}; expected (K,) both")
    x, n = x[n != 0], n[n != 0]
    if len(n) == 0:
        raise BoundError("no cluster holds an object; nothing can be said of the recall")
    _check_counts(x, n, confidence)
    clustered, effective = clustered_lower(x, n, confidence=confidence)
    return LowerBound(
        exact=float(exact_lower(x.sum(), n.sum(), confidence=confidence)),
        bootstrap=bootstrap_lower(x, n, confidence=confidence, seed=seed),
        clustered=float(clustered),
        effective=float(effective),
    )


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the exact lower bound of RECALLED of TOTAL independent objects."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="python -m evaluation.bound",
        description="Exact one-sided lower confidence bound of a recall (Clopper-Pearson). "
        "Objects that share pictures prove less: python -m evaluation.plan.",
    )
    parser.add_argument("recalled", type=int, metavar="RECALLED")
    parser.add_argument("total", type=int, metavar="TOTAL")
    parser.add_argument("--confidence", type=float, default=CONFIDENCE)
    given = parser.parse_args(arguments)
    try:
        bound = exact_lower(given.recalled, given.total, confidence=given.confidence)
    except BoundError as error:
        sys.exit(f"error: {error}")
    _say(
        f"recall {given.recalled / given.total:.4f} ({given.recalled} of {given.total}), "
        f"lower bound {float(bound):.4f} at {given.confidence:.0%} confidence"
    )


if __name__ == "__main__":
    main()
