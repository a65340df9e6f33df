"""Thresholds and margins: the most precise setting that makes the gate likely."""

import numpy as np
import pytest

from training.bundle.calibration import (
    CalibrationError,
    Choice,
    ClassEvidence,
    Goal,
    choose,
    joint_worth,
    needed_recalls,
    pass_probability,
)

GOAL = Goal(reference_objects=300, needed=292, likely=0.8, threshold_min=0.05)


def evidence(
    detected_at: list[float],
    covered_at: list[list[float]],
    margins: list[float],
    false_scores: list[float] | None = None,
) -> ClassEvidence:
    return ClassEvidence(
        detected_at=np.array(detected_at),
        covered_at=np.array(covered_at).reshape(len(margins), len(detected_at)),
        margins=np.array(margins),
        false_scores=np.array(false_scores or []),
        true_scores=np.array(detected_at),
        labelled_pictures=10,
    )


def chosen(*args: object, false_finds_max: float = 1.0) -> Choice:
    found = {"face": evidence(*args)}  # type: ignore[arg-type]
    return choose(found, {"face": GOAL}, false_finds_max=false_finds_max)["face"]


def test_the_highest_threshold_that_keeps_every_object_is_taken() -> None:
    choice = chosen([0.9] * 150 + [0.62] * 50, [[0.9] * 150 + [0.62] * 50], [0.0])
    assert choice.threshold == pytest.approx(0.62)
    assert choice.reached
    assert choice.detected == 1.0
    assert choice.precision == 1.0


def test_the_smallest_margin_that_covers_is_taken() -> None:
    never = [-np.inf] * 200
    choice = chosen([0.8] * 200, [never, [0.8] * 200, [0.8] * 200], [0.0, 0.1, 0.2])
    assert choice.margin == pytest.approx(0.1)
    assert choice.covered == 1.0


def test_a_setting_beyond_the_limit_on_false_finds_is_not_taken() -> None:
    choice = chosen([0.9] * 150 + [0.3] * 50, [[0.9] * 150 + [0.3] * 50], [0.0], [0.5] * 11)
    assert choice.threshold == pytest.approx(0.9)
    assert not choice.reached


def test_the_limit_is_spent_on_the_class_that_stands_worst() -> None:
    good = evidence([0.9] * 199 + [0.2], [[0.9] * 199 + [0.2]], [0.0], [0.3] * 9)
    poor = evidence([0.9] * 100 + [0.2] * 100, [[0.9] * 100 + [0.2] * 100], [0.0], [0.3] * 9)
    goals = {"face": GOAL, "person": GOAL}
    choices = choose({"face": good, "person": poor}, goals, false_finds_max=1.0)
    assert choices["person"].threshold == pytest.approx(0.2)
    assert choices["face"].threshold == pytest.approx(0.9)


def test_where_nothing_is_likely_the_best_recall_is_taken_and_said_to_fall_short() -> None:
    scores = [0.9] * 100 + [0.4] * 20 + [-np.inf] * 80
    choice = chosen(scores, [scores], [0.0])
    assert choice.threshold == pytest.approx(0.4)
    assert choice.detected == pytest.approx(0.6)
    assert not choice.reached


def test_a_class_that_val_does_not_hold_gets_the_lowest_threshold() -> None:
    choice = chosen([], [[], []], [0.0, 0.3])
    assert choice.threshold == 0.05
    assert choice.margin == 0.3
    assert choice.detected is None
    assert not choice.reached


def test_margins_that_do_not_ascend_are_refused() -> None:
    with pytest.raises(CalibrationError, match="do not ascend"):
        evidence([0.5], [[0.5], [0.5]], [0.1, 0.1])


def test_evidence_of_another_shape_is_refused() -> None:
    with pytest.raises(CalibrationError, match=r"shape \(1, 1\); expected \(1, 2\)"):
        ClassEvidence(np.zeros(2), np.zeros((1, 1)), np.zeros(1), np.zeros(0), np.zeros(0), 1)


def test_needed_recalls_is_the_smallest_count_that_clears() -> None:
    assert needed_recalls(100, clears=lambda k, n: k / n >= 0.95) == 95
    assert needed_recalls(3, clears=lambda k, n: False) == 4


def test_an_empty_reference_is_never_likely_to_clear() -> None:
    empty = Goal(0, 1, 0.8, 0.05)
    assert pass_probability(10, 10, goal=empty) == 0.0


def test_choices_for_all_classes_are_worth_less_when_one_class_is_poor() -> None:
    good = evidence([0.9] * 200, [[0.9] * 200], [0.0])
    poor = evidence([0.9] * 150 + [-np.inf] * 50, [[0.9] * 200], [0.0])
    goals = {"face": GOAL, "person": GOAL}
    both = choose({"face": good, "person": good}, goals, false_finds_max=1.0)
    one = choose({"face": good, "person": poor}, goals, false_finds_max=1.0)
    assert joint_worth(both) > joint_worth(one)


def test_a_hopeless_class_does_not_starve_one_that_little_would_help() -> None:
    hopeless = evidence(
        [0.9] * 100 + [0.1] * 5 + [-np.inf] * 95, [[0.9] * 200], [0.0], [0.5] * 8 + [0.3] * 2
    )
    close = evidence([0.9] * 190 + [0.4] * 10, [[0.9] * 190 + [0.4] * 10], [0.0], [0.5] * 2)
    goals = {"vehicle": GOAL, "person": GOAL}
    choices = choose({"vehicle": hopeless, "person": close}, goals, false_finds_max=1.0)
    assert choices["person"].reached
    assert choices["person"].threshold == pytest.approx(0.4)
    assert choices["vehicle"].threshold == pytest.approx(0.9)


def test_a_network_that_will_be_refused_gives_no_class_up_for_another() -> None:
    """Half of the persons, or a seventh more of the plates, for the same false finds."""
    faint = [0.95] * 2 + [0.3] * 98 + [-np.inf] * 100
    person = evidence(faint, [faint], [0.0], [0.5] * 9)
    plates = [0.9] * 160 + [0.4] * 30 + [-np.inf] * 10
    plate = evidence(plates, [plates], [0.0], [0.5] * 9)
    goals = {"person": GOAL, "license_plate": GOAL}
    choices = choose({"person": person, "license_plate": plate}, goals, false_finds_max=1.0)
    assert choices["person"].threshold == pytest.approx(0.3)
    assert choices["license_plate"].threshold == pytest.approx(0.9)


def test_a_network_that_will_be_refused_may_go_on_finding_down_to_a_precision() -> None:
    seen = [0.9] * 60 + [0.3] * 20 + [0.1] * 20
    faces = evidence(seen, [seen], [0.0], [0.5] * 12 + [0.2] * 100)
    goals = {"face": GOAL}

    kept = choose({"face": faces}, goals, false_finds_max=1.0)["face"]
    lowered = choose({"face": faces}, goals, false_finds_max=1.0, hopeless_precision=0.5)["face"]
    strict = choose({"face": faces}, goals, false_finds_max=1.0, hopeless_precision=0.99)["face"]

    assert (kept.threshold, kept.detected) == (pytest.approx(0.9), 0.6)
    # Not 0.3, the last that shows a face here: nothing false lies between that and 0.2.
    assert (lowered.threshold, lowered.detected) == (pytest.approx(0.201), 0.8)
    assert lowered.false_finds_per_picture == pytest.approx(1.2)
    assert (strict.threshold, strict.detected) == (pytest.approx(0.501), 0.6)


def test_what_is_precise_leaves_the_limit_on_false_finds_to_the_other_classes() -> None:
    seen = [0.9] * 60 + [0.3] * 20 + [-np.inf] * 20
    few = [0.9] * 3 + [0.6] * 6 + [-np.inf] * 91
    found = {
        "face": evidence(seen, [seen], [0.0], [0.95] * 1 + [0.4] * 4),
        "person": evidence(few, [few], [0.0], [0.95] * 5 + [0.7] * 5),  # never precise
    }
    goals = {"face": GOAL, "person": GOAL}

    shared = choose(found, goals, false_finds_max=1.0)
    freed = choose(found, goals, false_finds_max=1.0, hopeless_precision=0.5)

    assert shared["person"].threshold == pytest.approx(0.9)
    assert freed["face"].threshold == pytest.approx(GOAL.threshold_min)
    assert freed["person"].detected == 0.09
    assert freed["person"].threshold == pytest.approx(GOAL.threshold_min)  # nothing false is left


def test_a_precise_class_may_spend_of_the_limit_too() -> None:
    """It had been kept to its precision while a poor one wasted all of the limit."""
    seen = [0.9] * 50 + [0.6] * 40 + [-np.inf] * 10
    poor = [0.9] * 4 + [0.3] * 1 + [-np.inf] * 12
    found = {
        "person": evidence(seen, [seen], [0.0], [0.8] * 50 + [0.7] * 60),  # precise down to 0.8
        "vehicle": evidence(poor, [poor], [0.0], [0.95] * 4 + [0.5] * 25),
    }
    goals = dict.fromkeys(found, GOAL)
    chosen = choose(found, goals, false_finds_max=6.5, hopeless_precision=0.5)
    assert chosen["person"].detected == 0.9
    assert chosen["person"].false_finds_per_picture == pytest.approx(11.0)
    assert chosen["vehicle"].threshold > 0.5


def test_a_network_that_will_be_refused_spends_all_of_the_limit() -> None:
    seen = [0.9] * 60 + [-np.inf] * 40
    found = {
        "person": evidence(seen, [seen], [0.0], [0.8] * 100),  # no threshold costs so little
        "vehicle": evidence(seen, [seen], [0.0], [0.95] * 60 + [0.7] * 2 + [0.6] * 3),
        "face": evidence(seen, [seen], [0.0], [0.95] * 60 + [0.5] * 5 + [0.4] * 100),
    }
    goals = dict.fromkeys(found, GOAL)

    kept = choose(found, goals, false_finds_max=13.0)
    spent = choose(found, goals, false_finds_max=13.0, hopeless_precision=0.99)

    assert [choice.threshold for choice in kept.values()] == pytest.approx([0.9] * 3)
    assert spent["person"].threshold == pytest.approx(0.801)  # precise, so not under the limit
    assert spent["vehicle"].threshold == pytest.approx(GOAL.threshold_min)  # 6.5 each, half spent
    assert spent["face"].threshold == pytest.approx(0.401)


def test_what_is_left_of_the_limit_goes_to_classes_that_fall_short() -> None:
    """Val showed nothing below 0.9; the reference set, twice as large, holds what scores less."""
    short = [0.9] * 196 + [-np.inf] * 4
    found = {
        "vehicle": evidence(short, [short], [0.0], [0.5] * 3 + [0.2] * 20),
        "face": evidence([0.9] * 200, [[0.9] * 200], [0.0], [0.5] * 3),
    }
    choices = choose(found, dict.fromkeys(found, GOAL), false_finds_max=1.0)
    assert 0.05 < choices["vehicle"].likely < GOAL.likely
    assert choices["vehicle"].threshold == pytest.approx(0.201)
    assert choices["vehicle"].false_finds_per_picture == pytest.approx(0.3)
    assert choices["face"].reached
    assert choices["face"].threshold == pytest.approx(0.9)


def test_where_not_even_the_fewest_false_finds_fit_they_are_taken() -> None:
    noisy = evidence([0.9] * 100 + [0.2] * 100, [[0.9] * 200], [0.0], [0.95] * 30)
    choices = choose({"face": noisy}, {"face": GOAL}, false_finds_max=1.0)
    assert choices["face"].threshold == pytest.approx(0.9)
    assert choices["face"].false_finds_per_picture == pytest.approx(3.0)


def test_noise_of_the_likelihood_does_not_make_a_setting_that_finds_nobody_the_best() -> None:
    """SciPy's sf is 1e-14 for 1 of 95 here and 0 for 60 of 95."""
    goal = Goal(reference_objects=248, needed=243, likely=0.98, threshold_min=0.02)
    assert pass_probability(1, 95, goal=goal) == pass_probability(60, 95, goal=goal) == 0
    scores = [0.99] + [0.4] * 59 + [-np.inf] * 35
    person = evidence(scores, [scores], [0.0], [0.5] * 9)
    choice = choose({"person": person}, {"person": goal}, false_finds_max=1.0)["person"]
    assert choice.threshold == pytest.approx(0.4)
