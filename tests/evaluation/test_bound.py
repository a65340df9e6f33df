"""Lower bounds against known values, and the gate's promise by simulation."""

import subprocess
import sys

import numpy as np
import pytest

from evaluation.bound import BoundError, bootstrap_lower, clustered_lower, exact_lower, lower_bound
from evaluation.plan import PlanError, clusters_needed
from evaluation.simulation import (
    FALSE_PROMOTIONS_MAX,
    MIN_CLUSTERS,
    MIN_OBJECTS,
    Setting,
    draw,
    promotion_rate,
    worst_false_promotion,
)

# Most misses with which the exact bound still reaches 0.95, one-sided 95 %.
TABLE = [
    (59, 0), (100, 1), (200, 4), (300, 8), (500, 16), (1000, 38), (2000, 83), (5000, 224),
    (10000, 463),
]  # fmt: skip


@pytest.mark.parametrize(("total", "misses"), TABLE)
def test_the_exact_bound_allows_the_known_number_of_misses_and_not_one_more(
    total: int, misses: int
) -> None:
    assert exact_lower(total - misses, total) >= 0.95
    assert exact_lower(total - misses - 1, total) < 0.95


def test_nothing_recalled_proves_nothing() -> None:
    assert exact_lower(0, 50) == 0.0


def test_independent_objects_lose_nothing_to_clustering() -> None:
    bound = lower_bound([1] * 970 + [0] * 30, [1] * 1000)
    assert bound.effective == pytest.approx(1000, rel=0.01)
    assert bound.bound == pytest.approx(bound.exact, abs=0.002)


def test_clusters_that_stand_or_fall_whole_count_as_one_object_each() -> None:
    whole = lower_bound([10] * 95 + [0] * 5, [10] * 100)
    assert whole.effective == pytest.approx(98, abs=2)
    assert whole.bound < exact_lower(950, 1000) - 0.02
    assert whole.bound == min(whole.exact, whole.bootstrap, whole.clustered)


def test_one_cluster_proves_nothing() -> None:
    assert clustered_lower([50], [50])[0] == 0.0


def test_the_bootstrap_equals_drawing_clusters_one_by_one() -> None:
    generator = np.random.default_rng(0)
    total = generator.integers(1, 6, 120)
    recalled = generator.binomial(total, 0.9)
    rows = generator.integers(0, 120, (4000, 120))
    plain = np.quantile(recalled[rows].sum(1) / total[rows].sum(1), 0.05)
    assert bootstrap_lower(recalled, total, resamples=4000) == pytest.approx(plain, abs=0.003)


@pytest.mark.parametrize(
    ("recalled", "total", "message"),
    [
        ([2], [1], "expected 0 <= recalled <= total"),
        ([], [], "no cluster holds an object"),
        ([0], [0], "no cluster holds an object"),
        ([np.nan], [3], "not a number"),
        ([1, 1], [1], "expected \\(K,\\) both"),
    ],
    ids=["more than all", "none", "empty cluster", "NaN", "shapes"],
)
def test_impossible_counts_are_refused(recalled: list, total: list, message: str) -> None:
    with pytest.raises(BoundError, match=message):
        lower_bound(recalled, total)


def test_the_command_prints_the_bound() -> None:
    run = [sys.executable, "-m", "evaluation.bound", "59", "59"]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert "lower bound 0.9505" in done.stdout


def test_the_command_refuses_more_recalled_than_there_are() -> None:
    run = [sys.executable, "-m", "evaluation.bound", "5", "3"]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: recalled 5")


def test_simulated_clusters_have_the_recall_and_correlation_that_were_asked_for() -> None:
    recalled, total = draw(Setting(400, 2, 0.5, 0.8), sets=400, seed=1)
    assert recalled.sum() / total.sum() == pytest.approx(0.8, abs=0.005)
    # P(both found) = p^2 + rho p (1 - p)
    assert (recalled == 2).mean() == pytest.approx(0.64 + 0.5 * 0.16, abs=0.005)


@pytest.mark.slow
def test_a_model_of_true_recall_094_is_promoted_in_at_most_5_percent_of_sets() -> None:
    rate, setting = worst_false_promotion(MIN_CLUSTERS, MIN_OBJECTS, sets=2000, seed=7)
    assert rate <= FALSE_PROMOTIONS_MAX, setting


def test_a_good_model_is_promoted_with_1000_independent_objects() -> None:
    assert promotion_rate(Setting(1000, 1, 0.0, 0.98), sets=2000) > 0.9


@pytest.mark.slow
def test_the_plan_asks_for_no_more_than_reaches_the_power() -> None:
    clusters = clusters_needed(recall=0.98, power=0.9)
    assert 300 <= clusters <= 500


def test_a_plan_for_a_model_below_the_gate_is_refused() -> None:
    with pytest.raises(PlanError, match=r"recall is 0\.94; expected above 0\.95"):
        clusters_needed(recall=0.94, power=0.9)
