"""How many objects a class needs: `python -m evaluation.plan --recall 0.98 --power 0.9`.

By the same simulation that set the gate's minimum (evaluation/simulation.py).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from anonymization.errors import BlurloopError
from evaluation.simulation import MIN_CLUSTERS, MIN_OBJECTS, RECALL_MIN, Setting, promotion_rate

MOST_CLUSTERS = 20_000
SETS = 400
"""Simulated sets a size: a power of 0.9 is then known within 0.03."""


class PlanError(BlurloopError):
    """No number of objects gives what is asked for."""

    exit_code = 2


def clusters_needed(
    *, recall: float, power: float, per_cluster: int = 1, correlation: float = 0.0, seed: int = 0
) -> int:
    """Return the least number of clusters with which the gate passes a model so often.

    Args:
        recall: The model's true recall, above 0.95.
        power: Wanted probability that it is promoted, in (0, 1).
        per_cluster: Objects of the class in each cluster.
        correlation: Intra-cluster correlation of being found, in [0, 1).
        seed: Of the simulation.

    Raises:
        PlanError: If an argument is out of range, or 20,000 clusters are not enough.
    """
    _check(recall, power, per_cluster, correlation)

    def reached(clusters: int) -> bool:
        setting = Setting(clusters, per_cluster, correlation, recall)
        return promotion_rate(setting, sets=SETS, seed=seed) >= power

    low = max(MIN_CLUSTERS, -(-MIN_OBJECTS // per_cluster))
    if reached(low):
        return low
    high = low
    while not reached(high):
        if high >= MOST_CLUSTERS:
            raise PlanError(
                f"{MOST_CLUSTERS} clusters do not promote a model of true recall {recall} with "
                f"probability {power}; its recall is too close to {RECALL_MIN}"
            )
        low, high = high, min(2 * high, MOST_CLUSTERS)
    # To 2 %: the simulation knows no more, and the rate is not smooth.
    while high - low > max(1, low // 50):
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def _check(recall: float, power: float, per_cluster: int, correlation: float) -> None:
    if not RECALL_MIN < recall < 1:
        raise PlanError(f"recall is {recall}; expected above {RECALL_MIN} and below 1")
    if not 0 < power < 1:
        raise PlanError(f"power is {power}; expected a number between 0 and 1")
    if per_cluster < 1:
        raise PlanError(f"per-cluster is {per_cluster}; expected 1 or more")
    if not 0 <= correlation < 1:
        raise PlanError(f"correlation is {correlation}; expected 0 to below 1")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the number of clusters and objects needed."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="python -m evaluation.plan",
        description="How many reference objects a class needs to prove a recall above 0.95.",
    )
    parser.add_argument("--recall", type=float, default=0.98, help="true recall of the model")
    parser.add_argument("--power", type=float, default=0.9, help="wanted chance of promotion")
    parser.add_argument("--per-cluster", type=int, default=1, help="objects a picture or sequence")
    parser.add_argument("--correlation", type=float, default=0.0, help="intra-cluster correlation")
    given = parser.parse_args(arguments)
    try:
        clusters = clusters_needed(
            recall=given.recall,
            power=given.power,
            per_cluster=given.per_cluster,
            correlation=given.correlation,
        )
    except PlanError as error:
        sys.exit(f"error: {error}")
    _say(
        f"{clusters} clusters (pictures or sequences) with {clusters * given.per_cluster} objects "
        f"promote a model of true recall {given.recall} with probability {given.power}"
    )


if __name__ == "__main__":
    main()
