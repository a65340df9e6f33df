"""How few clusters and objects still keep the gate's promise, by simulation.

A class clears the gate when the lowest of its bounds (evaluation/bound.py) reaches 0.95. A model
whose true recall is 0.94 must do so in at most 5 % of reference sets. Independent objects would
keep that by construction; objects in one picture are found or missed together.

Each simulated set has beta-binomial clusters: a cluster's own recall is drawn from a beta
distribution of mean 0.94 and intra-cluster correlation 0 to 0.6, its objects from that. Clusters
hold 1, 2, 3, 5 or 10 objects, 1 to 10 at random, or a number with a long tail (log-normal, of
which there must be twice as many clusters to count as 80: `bound.effective_clusters`).

Worst rate of promotion at true recall 0.94, 2,000 sets a setting
(`python -m evaluation.simulation`):

======== ======= ==========
clusters objects worst rate
======== ======= ==========
20       60      16.6 %
40       60      8.6 %
60       60      5.5 %
80       100     4.6 %
100      100     3.0 %
150      300     2.4 %
======== ======= ==========

With a long tail, 200 clusters that count as 77 in the median pass in up to 4.3 %, and those of them
that count as 80 and more in 3.5 %; 95 clusters of one object and five of 30 (13) in 23 %.

Hence the minimum of 100 clusters, which count as 80, and 100 objects: the promise then holds with
room for the chance of the simulation itself. A cluster is a sequence or a group of near-duplicates,
else a picture.
Power at true recall 0.98: 100 % with 1,000 independent objects, 97 % with 250 clusters of 4 at
correlation 0.3, 66 % with 100 clusters of 3 at 0.2 (at true recall 0.99: 93 %).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.bound import CONFIDENCE, bootstrap_lower, clustered_lower, exact_lower

MIN_CLUSTERS = 100
MIN_OBJECTS = 100
RECALL_MIN = 0.95
FALSE_RECALL = 0.94
FALSE_PROMOTIONS_MAX = 0.05
CORRELATIONS = (0.0, 0.1, 0.2, 0.3, 0.45, 0.6)
LONG_TAIL = "long tail"
OBJECTS_PER_CLUSTER = (1, 2, 3, 5, 10, "1-10", LONG_TAIL)
MIN_EFFECTIVE_CLUSTERS = 80.0
SETS = 2000

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Setting:
    """One kind of reference set.

    Attributes:
        clusters: Number of clusters.
        per_cluster: Objects in each, or `1-10` or `long tail` for a random number.
        correlation: Intra-cluster correlation of being found, in [0, 1).
        recall: True recall.
    """

    clusters: int
    per_cluster: int | str
    correlation: float
    recall: float = FALSE_RECALL


def draw(setting: Setting, *, sets: int = SETS, seed: int = 0) -> tuple[Ints, Ints]:
    """Draw reference sets; recalled and total objects per cluster, int64 (sets, clusters)."""
    generator = np.random.default_rng(seed)
    shape = (sets, setting.clusters)
    if setting.per_cluster == LONG_TAIL:
        total = np.maximum(np.exp(generator.normal(0.7, 1.0, shape)).astype(np.int64), 1)
    elif isinstance(setting.per_cluster, str):
        total = generator.integers(1, 11, shape)
    else:
        total = np.full(shape, setting.per_cluster)
    recalls: NDArray[np.float64] | float = setting.recall
    if setting.correlation > 0:
        # A beta distribution of parameters a, b has intra-cluster correlation 1 / (a + b + 1).
        weight = 1 / setting.correlation - 1
        recalls = generator.beta(setting.recall * weight, (1 - setting.recall) * weight, shape)
    return generator.binomial(total, recalls), total


def promoted(
    recalled: Ints, total: Ints, *, confidence: float = CONFIDENCE, goal: float = RECALL_MIN
) -> NDArray[np.bool_]:
    """Return which sets clear the gate, bool (sets,).

    The bootstrap is the dearest bound and only asked where the other two have cleared.
    """
    exact = exact_lower(recalled.sum(axis=1), total.sum(axis=1), confidence=confidence)
    clustered, _ = clustered_lower(recalled, total, confidence=confidence)
    clear = np.asarray(np.minimum(exact, clustered) >= goal)
    for index in np.flatnonzero(clear):
        lower = bootstrap_lower(
            recalled[index], total[index], confidence=confidence, resamples=500, seed=int(index)
        )
        clear[index] = lower >= goal
    return clear


def promotion_rate(setting: Setting, *, sets: int = SETS, seed: int = 0) -> float:
    """Return the share of simulated reference sets that clear the gate."""
    return float(promoted(*draw(setting, sets=sets, seed=seed)).mean())


def mean_objects(per_cluster: int | str) -> float:
    """Return the mean number of objects in a cluster."""
    if per_cluster == LONG_TAIL:
        return 3.0
    return 5.5 if isinstance(per_cluster, str) else float(per_cluster)


def false_settings(
    min_clusters: int = MIN_CLUSTERS, min_objects: int = MIN_OBJECTS
) -> list[Setting]:
    """Return the settings over which the promise must hold: at the minimum, and above it.

    Above it too, as the discreteness of counts makes the rate rise and fall with the size.
    """
    settings = []
    for per_cluster in OBJECTS_PER_CLUSTER:
        least = max(min_clusters, int(np.ceil(min_objects / mean_objects(per_cluster))))
        least *= 2 if per_cluster == LONG_TAIL else 1  # to reach the effective number
        for factor in (1.0, 1.5, 2.5):
            settings += [
                Setting(int(least * factor), per_cluster, correlation)
                for correlation in CORRELATIONS
            ]
    return settings


def worst_false_promotion(
    min_clusters: int, min_objects: int, *, sets: int = SETS, seed: int = 0
) -> tuple[float, Setting]:
    """Return the highest rate at which a model of true recall 0.94 is promoted, and where."""
    rates = [
        (promotion_rate(setting, sets=sets, seed=seed), setting)
        for setting in false_settings(min_clusters, min_objects)
    ]
    return max(rates, key=lambda pair: pair[0])


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Print the worst rate of false promotions for several minima, and the power at some sizes."""
    for clusters, objects in ((20, 60), (40, 60), (60, 60), (80, 100), (100, 100), (150, 300)):
        rate, setting = worst_false_promotion(clusters, objects)
        _say(f"{clusters} clusters, {objects} objects: worst {rate:.4f} at {setting}")
    for setting in (
        Setting(1000, 1, 0.0, 0.98),
        Setting(250, 4, 0.0, 0.98),
        Setting(250, 4, 0.3, 0.98),
        Setting(100, 3, 0.0, 0.99),
        Setting(100, 3, 0.2, 0.99),
        Setting(100, 3, 0.2, 0.98),
        Setting(150, 3, 0.2, 0.99),
        Setting(80, 2, 0.2, 0.99),
        Setting(80, 4, 0.6, 0.99),
    ):
        _say(f"power {promotion_rate(setting):.3f} at {setting}")


if __name__ == "__main__":
    main()
