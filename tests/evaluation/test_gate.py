"""The gate, point by point as DESIGN section 7 numbers them. Expected bounds worked out by hand."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from evaluation.bound import effective_clusters
from evaluation.config import GateError, PromotionConfig
from evaluation.criteria import BOUNDS, Champion
from evaluation.gate import judge
from evaluation.paired import bootstrap_lower, paired_difference, score_lower
from evaluation.simulation import MIN_CLUSTERS, MIN_EFFECTIVE_CLUSTERS, MIN_OBJECTS
from evaluation.verdict import PROMOTED, REFUSED, Verdict

CONFIG = PromotionConfig()
VALIDATION: dict[str, Any] = {"leaks": []}


def evaluation(
    recalled: int = 1000, total: int = 1000, clusters: int = 500, effective: float | None = None
) -> dict[str, Any]:
    sense = {"recalled": recalled, "total": total}
    sense["lower_bound"] = dict.fromkeys(BOUNDS, 0.999)  # type: ignore[assignment]
    return {
        "split": "reference",
        "bundle_digest": "b" * 64,
        "reference_digest": "r" * 64,
        "taxonomy_gated": ["face"],
        "classes": {
            "face": {
                "detected": copy.deepcopy(sense),
                "covered": copy.deepcopy(sense),
                "clusters": clusters,
                "effective_clusters": float(clusters) if effective is None else effective,
            }
        },
        "false_finds_per_picture": {"value": 0.1, "pictures": 500, "by_class": {"face": 0.1}},
        "non_object_share_obscured": {"value": 0.01, "pictures": 500},
        "written_output_verified": {"pictures": 500, "failed": []},
    }


def verdict(values: dict[str, Any], config: PromotionConfig = CONFIG, **more: Any) -> Verdict:
    validation = more.pop("validation", VALIDATION)
    champion = more.pop("champion", None)
    return judge(values, validation, champion, config, gated=("face",), **more)


def objects(missed: int, total: int = 1000) -> list[dict[str, Any]]:
    return [
        {"sha256": str(i), "annotation_id": i, "class": "face", "cluster": str(i)}
        | {"detected": i >= missed, "covered": i >= missed}
        for i in range(total)
    ]


def champion(missed: int) -> Champion:
    return Champion("3", "c" * 64, "r" * 64, objects(missed), ("face",))


def test_a_perfect_model_is_promoted():
    assert verdict(evaluation()).outcome == PROMOTED


@pytest.mark.parametrize("sense", ["detected", "covered"])
def test_each_class_must_clear_the_recall_in_both_senses(sense):
    values = evaluation()
    values["classes"]["face"][sense]["recalled"] = 900
    refused = verdict(values)
    assert refused.outcome == REFUSED
    assert [c.sense for c in refused.criteria if not c.passed] == [sense]


@pytest.mark.parametrize(("recalled", "outcome"), [(961, REFUSED), (962, PROMOTED)])
def test_the_exact_bound_decides_not_the_point_estimate(recalled, outcome):
    """Clopper-Pearson, one-sided 95 %: 962 of 1000 is the fewest whose bound reaches 0.95."""
    assert verdict(evaluation(recalled)).outcome == outcome


def test_the_lower_of_the_bounds_counts():
    values = evaluation()
    values["classes"]["face"]["covered"]["lower_bound"]["bootstrap"] = 0.949
    assert verdict(values).outcome == REFUSED


def test_a_point_estimate_is_judged_only_when_asked_for_and_the_verdict_says_so():
    config = replace(CONFIG, confidence=None)
    assert verdict(evaluation(951)).outcome == REFUSED
    passed = verdict(evaluation(951), config)
    assert passed.outcome == PROMOTED
    assert "point estimates" in passed.warnings[0]


@pytest.mark.parametrize(("objects_", "clusters"), [(99, 99), (250, 99)])
def test_a_class_with_too_few_objects_or_clusters_is_refused_as_unproven(objects_, clusters):
    refused = verdict(evaluation(objects_, objects_, clusters))
    assert refused.outcome == REFUSED
    assert refused.reasons == (
        f"face: unproven, {objects_} identifiable objects in {clusters} clusters, which count as "
        f"{clusters}; needed are 100 in 100, counting as 80",
    )


def test_few_large_clusters_prove_nothing_however_many_small_ones_there_are():
    sizes = [1] * 95 + [30] * 5
    refused = verdict(evaluation(245, 245, 100, effective_clusters(sizes)))
    assert refused.reasons == (
        "face: unproven, 245 identifiable objects in 100 clusters, which count as 13.1; "
        "needed are 100 in 100, counting as 80",
    )
    values = evaluation()
    del values["classes"]["face"]["effective_clusters"]
    assert verdict(values).outcome == REFUSED


def test_the_least_that_proves_a_class_is_what_the_simulation_found():
    found = (CONFIG.objects_min, CONFIG.clusters_min, CONFIG.effective_clusters_min)
    assert found == (MIN_OBJECTS, MIN_CLUSTERS, MIN_EFFECTIVE_CLUSTERS)
    assert verdict(evaluation(100, 100, 100)).outcome == PROMOTED


@pytest.mark.parametrize("value", [float("nan"), None, "1000", float("inf"), True, -1])
@pytest.mark.parametrize("key", ["recalled", "total"])
def test_what_is_missing_or_no_number_never_passes(key, value):
    values = evaluation()
    values["classes"]["face"]["detected"][key] = value
    assert verdict(values).outcome == REFUSED


@pytest.mark.parametrize("key", BOUNDS)
def test_a_missing_bound_never_passes(key):
    values = evaluation()
    del values["classes"]["face"]["detected"]["lower_bound"][key]
    assert verdict(values).outcome == REFUSED


@pytest.mark.parametrize("key", sorted(set(evaluation()) - {"bundle_digest", "reference_digest"}))
def test_an_evaluation_without_one_of_its_parts_is_no_promotion(key):
    values = evaluation()
    del values[key]
    found = verdict(values)
    assert found.outcome == REFUSED or found.forecast


@pytest.mark.parametrize(
    ("key", "value"),
    [("false_finds_per_picture", 3.01), ("non_object_share_obscured", 0.501)],
)
def test_hiding_too_much_is_refused(key, value):
    values = evaluation()
    values[key]["value"] = value
    assert verdict(values).outcome == REFUSED
    values[key] = {"value": 0.0, "pictures": 0}
    assert verdict(values).outcome == REFUSED


def test_the_same_recall_as_the_champion_is_not_worse():
    found = verdict(evaluation(), objects=objects(0), champion=champion(0))
    assert found.outcome == PROMOTED


def test_a_model_that_lost_ten_objects_of_a_thousand_is_worse_than_the_champion():
    found = verdict(evaluation(990), objects=objects(10), champion=champion(0))
    assert found.outcome == REFUSED
    assert "0 objects gained, 10 lost against version 3" in found.reasons[0]


@pytest.mark.parametrize("total", [100, 173, 267])
def test_a_model_that_loses_nothing_succeeds_a_champion_with_few_objects(total):
    theirs = replace(champion(0), objects=objects(0, total))
    values = evaluation(total, total, total)
    assert verdict(values, objects=objects(0, total), champion=theirs).outcome == PROMOTED
    assert verdict(values, objects=objects(1, total), champion=theirs).outcome == REFUSED


def test_a_champion_measured_on_another_reference_set_cannot_be_compared():
    other = replace(champion(0), reference_digest="x" * 64)
    found = verdict(evaluation(), objects=objects(0), champion=other)
    assert "was not evaluated on this reference set" in found.reasons[0]


def test_a_champion_with_other_objects_cannot_be_compared():
    other = replace(champion(0), objects=objects(0, 999))
    found = verdict(evaluation(), objects=objects(0), champion=other)
    assert "cannot be compared" in found.reasons[0]


@pytest.mark.parametrize("validation", [{"leaks": ["picture 7"]}, {}, {"leaks": None}])
def test_a_leak_or_no_search_for_one_is_refused(validation):
    assert verdict(evaluation(), validation=validation).outcome == REFUSED


def test_many_tries_on_one_reference_set_are_warned_of():
    assert verdict(evaluation(962), models_judged=1).warnings == ()
    warned = verdict(evaluation(962), models_judged=20)
    assert warned.outcome == PROMOTED
    assert "has judged 20 models" in warned.warnings[0]
    assert "Release a new reference set" in warned.warnings[0]


def test_a_taxonomy_that_gates_other_classes_than_were_judged_is_refused():
    found = judge(evaluation(), VALIDATION, None, CONFIG, gated=("face", "person"))
    assert found.outcome == REFUSED
    assert judge(evaluation(), VALIDATION, None, CONFIG, gated=()).outcome == REFUSED


def test_a_written_file_that_is_not_covered_as_claimed_is_refused():
    values = evaluation()
    values["written_output_verified"]["failed"] = ["picture"]
    assert verdict(values).outcome == REFUSED


def test_the_gate_is_pinned_at_95_percent():
    path = Path(__file__).parents[2] / "conf/promotion/default.yaml"
    settings = yaml.safe_load(path.read_text())
    assert (settings["recall_min"], settings["confidence"]) == (0.95, 0.95)
    with pytest.raises(GateError, match=r"recall_min is 0\.94; expected at least 0\.95"):
        PromotionConfig(recall_min=0.94)
    with pytest.raises(GateError, match=r"confidence is 0\.5"):
        PromotionConfig(confidence=0.5)
    with pytest.raises(GateError, match=r"attack is never; expected required or optional"):
        PromotionConfig(attack="never")
    assert PromotionConfig(**settings) == CONFIG


def test_the_score_bound_without_disagreement_is_minus_z2_over_n_plus_z2():
    """Tango 1998 with b = c = 0: z^2 / (n + z^2) = 2.7056 / 252.7056 = 0.010707."""
    assert score_lower(0, 0, 250, z=1.644854) == pytest.approx(-0.010707, abs=1e-5)


def test_the_paired_difference_in_three_cases():
    clusters = [str(i) for i in range(100)]
    assert paired_difference([True] * 100, [True] * 100, clusters).difference == 0
    nothing = paired_difference([False] * 100, [True] * 100, clusters)
    assert (nothing.difference, nothing.lower_bound) == (-1.0, pytest.approx(-1.0))
    half = paired_difference([True] * 50 + [False] * 50, [False] * 10 + [True] * 90, clusters)
    assert (half.gained, half.lost, half.difference) == (10, 50, -0.4)


def test_one_cluster_tells_the_bootstrap_nothing_but_its_mean():
    assert bootstrap_lower([1, -1, -1, 0], ["a"] * 4, confidence=0.95) == pytest.approx(-0.25)
