"""Sweeps: the space, the score, and the study that outlives a kill."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest

from conf import compose
from conf.schema import convert
from training.sweep.__main__ import Search, check_committed, check_val, shared_overrides, summary
from training.sweep.config import Goal, Setting, SweepConfig, SweepConfigError, SweepError
from training.sweep.experiment import only_one, reason_in
from training.sweep.score import ScoreError, score
from training.sweep.space import check_classes, check_space, present_values, to_override
from training.sweep.study import (
    best,
    finished,
    next_trial,
    open_study,
    study_name,
    tell_failure,
)

REPOSITORY = Path(__file__).parents[2]
LR = Setting("training.mask_rcnn.lr", "float", 1e-4, 1e-2, log=True)
EPOCHS = Setting("training.mask_rcnn.epochs", "int", 2, 6)
SHARE = Setting("training.mask_rcnn.heads.positive_share", "choice", choices=[0.25, 0.5])
SPACE = [LR, EPOCHS, SHARE]


def config(**more: Any) -> SweepConfig:
    given = {"name": "a", "trials": 4, "random_first": 2, "failures_max": 2, "maximize": Goal()}
    return SweepConfig(**(given | {"space": SPACE} | more))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "preparation.val", "kind": "float", "low": 0.1, "high": 0.2}, "only settings of"),
        ({"name": "training.a", "kind": "float", "low": 0.1}, "needs low and high"),
        ({"name": "training.a", "kind": "float", "low": 2.0, "high": 1.0}, "expected low < high"),
        ({"name": "training.a", "kind": "float", "low": 0, "high": 1, "log": True}, "low above 0"),
        ({"name": "training.a", "kind": "int", "low": 0, "high": 4, "log": True}, "low above 0"),
        ({"name": "training.a", "kind": "int", "low": 1.5, "high": 3}, "whole numbers"),
        ({"name": "training.a", "kind": "choice", "choices": [1]}, "two or more, each another"),
        ({"name": "training.a", "kind": "choice", "choices": [1, 1]}, "two or more, each another"),
        ({"name": "training.a", "kind": "choice", "choices": [1, 2], "log": True}, "none of low"),
        (
            {"name": "training.a", "kind": "int", "low": 1, "high": 2, "choices": [1]},
            "and no choices",
        ),
    ],
)
def test_a_setting_that_cannot_be_searched_is_named(values, message):
    with pytest.raises(SweepConfigError, match=message):
        convert(values, Setting, where="sweep.space[0]")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"name": "a b"}, "sweep.name is 'a b'"),
        ({"trials": 0}, "sweep.trials is 0"),
        ({"space": []}, "names nothing"),
        ({"space": [LR, LR]}, "each once"),
    ],
)
def test_a_sweep_that_cannot_run_is_refused(more, message):
    with pytest.raises(SweepConfigError, match=message):
        config(**more)


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in (REPOSITORY / "conf/sweep").iterdir())
)
def test_the_spaces_in_the_repository_fit_the_configuration(name, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    tree = compose([f"sweep={name}"])
    sweep = convert(tree["sweep"], SweepConfig, where="sweep")
    check_classes(sweep.maximize, tree)
    check_space(sweep.space)
    assert present_values(sweep.space, tree)[1] == []  # what conf/ says is tried first


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (Setting("training.mask_rcnn.lrr", "float", 0.1, 0.2), "lrr=0.1.*conf/ has no such key"),
        (Setting("training.mask_rcnn.epochs", "float", 1.5, 2.5), r"epochs=1.5.*expected int"),
        # Only the far end is out of range.
        (
            Setting("training.mask_rcnn.heads.positive_share", "float", 0.5, 1.5),
            "positive_share=1.5: ",
        ),
        (Setting("training", "choice", choices=["tiny", "huge"]), "training=huge: "),
    ],
)
def test_a_setting_that_its_stage_refuses_is_named_before_anything_runs(
    setting, message, monkeypatch
):
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(SweepConfigError, match=message):
        check_space([setting])


def test_a_class_that_the_taxonomy_lacks_is_named():
    with pytest.raises(SweepConfigError, match="'fcae'; known classes: face"):
        check_classes(Goal(classes=["fcae"]), {"taxonomy": {"classes": {"face": {}}}})


def test_todays_values_outside_the_space_are_named():
    network = {"lr": 1e-3, "epochs": 8, "heads": {"positive_share": 0.25}}
    values, outside = present_values(SPACE, {"training": {"mask_rcnn": network}})
    assert values == {LR.name: 1e-3, EPOCHS.name: 8, SHARE.name: 0.25}
    assert outside == [EPOCHS.name]


@pytest.mark.parametrize("value", [0.0001234567, 1e-05, 3, True, "[0.1,0.2]", "tiny"])
def test_an_override_is_read_as_the_value_that_was_drawn(value, tmp_path):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    read = OverridesParser.create().parse_override(to_override("training.a", value)).value()
    assert read == ([0.1, 0.2] if value == "[0.1,0.2]" else value)
    assert type(read) is type(value) or isinstance(read, list)


def evaluation(**more: Any) -> dict[str, Any]:
    def of(detected: float | None, covered: float) -> dict[str, Any]:
        return {"detected": {"recall": detected}, "covered": {"recall": covered}, "ap50": 0.5}

    classes = {"face": of(0.9, 0.95), "person": of(0.6, 1.0), "sign": of(0.1, 0.1)}
    return {"split": "val", "taxonomy_gated": ["face", "person"], "classes": classes} | more


@pytest.mark.parametrize(
    ("goal", "expected"),
    [
        (Goal("detected", "worst"), 0.6),
        (Goal("detected", "mean"), 0.75),
        (Goal("covered", "worst"), 0.95),
        (Goal("ap50", "mean"), 0.5),
        (Goal("detected", "worst", ["sign", "face"]), 0.1),
    ],
)
def test_the_score_is_what_the_goal_asks_for(goal, expected):
    assert score(evaluation(), goal) == pytest.approx(expected)


def test_a_class_that_was_not_measured_is_no_score():
    told = evaluation()
    told["classes"]["face"]["detected"]["recall"] = None
    with pytest.raises(ScoreError, match="detected of face was not measured"):
        score(told, Goal())
    assert score(told, Goal("covered")) == 0.95


def test_what_was_judged_on_the_reference_set_is_no_score():
    with pytest.raises(ScoreError, match="judged on reference; expected val"):
        score(evaluation(split="reference"), Goal())


def quality(params: dict[str, Any]) -> float:
    """Peaks where lr is 1e-3; more epochs are better."""
    return params[EPOCHS.name] - abs(math.log10(params[LR.name]) + 3)


def drawn(study: optuna.Study, *, kill_at: int | None = None, until: int = 8) -> None:
    while len(finished(study)) < until:
        trial = next_trial(study, SPACE, seed=1, random_first=3)
        if trial.number == kill_at:
            return
        if trial.number == 2:
            tell_failure(study, trial, "no memory")
        else:
            study.tell(trial, quality(trial.params))


def told(study: optuna.Study) -> list[tuple[Any, ...]]:
    return [(t.number, t.state.name, t.params, t.value) for t in study.get_trials()]


def test_a_study_that_was_killed_draws_and_counts_what_an_undisturbed_one_does(tmp_path):
    first = {LR.name: 1e-3, EPOCHS.name: 4, SHARE.name: 0.25}
    whole = open_study("a", tmp_path / "whole.db", first=first)
    drawn(whole)
    for kill_at in (0, 2, 5, None):
        drawn(open_study("a", tmp_path / "killed.db", first=first), kill_at=kill_at)
    killed = open_study("a", tmp_path / "killed.db", first=first)
    assert told(killed) == told(whole)
    assert len(told(killed)) == 8
    assert told(killed)[0] == (0, "COMPLETE", first, 4.0)
    assert len({str(row[2]) for row in told(killed)}) == 8, "the same draw twice"


def test_the_best_trial_is_the_first_of_the_highest_and_no_failed_one(tmp_path):
    study = open_study("a", tmp_path / "a.db", first=None)
    assert best(study) is None
    for value in (0.1, 0.7, 0.7):
        study.tell(next_trial(study, SPACE, seed=1, random_first=3), value)
    tell_failure(study, next_trial(study, SPACE, seed=1, random_first=3), "no memory")
    found = best(study)
    assert found is not None
    assert found.number == 1
    lines = summary(Search("a", config(), study, (), 1))
    assert lines[0] == "a: 4 trials, 1 of them failed"
    assert lines[1] == "best is a-1, worst detected on val: 0.7000"
    assert lines[2] == "the first trial reached 0.1000"
    assert lines[-1] == "next: make adopt EXP=a-1"


def test_a_study_is_another_where_its_trials_could_not_be_compared():
    base = {"training": {"lr": 1}, "sweep": {"trials": 3}, "tracking": {"enabled": True}}
    name = study_name(config(), base, "c0")
    recorded_elsewhere = base | {"sweep": {"trials": 9}, "tracking": {"enabled": False}}
    assert study_name(config(trials=9), recorded_elsewhere, "c0") == name
    others = {
        study_name(config(), base | {"training": {"lr": 2}}, "c0"),
        study_name(config(), base, "c1"),
        study_name(config(space=[LR]), base, "c0"),
        study_name(config(maximize=Goal(over="mean")), base, "c0"),
    }
    assert len(others | {name}) == 5


def test_trials_judged_on_another_val_set_are_not_compared(tmp_path):
    study = open_study("a", tmp_path / "a.db", first=None)
    check_val(study, {"reference_digest": "one"})
    check_val(study, {"reference_digest": "one"})
    with pytest.raises(SweepError, match=r"cannot be compared.*sweep\.name"):
        check_val(study, {"reference_digest": "two"})


@pytest.mark.parametrize("revision", ["none", "0123abc+edits"])
def test_edits_are_to_be_committed_first(revision):
    with pytest.raises(SweepError, match="git commit"):
        check_committed(revision)


def test_what_is_about_the_sweep_itself_is_kept_from_its_trials():
    words = ["sweep=smoke", "sweep.trials=2", "++sweep.name=b", "--help", "seed=3", "sweeper=1"]
    assert shared_overrides(words) == ["seed=3", "sweeper=1"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("error: first\nerror: the loss is NaN\nERROR: failed: a\n", "the loss is NaN"),
        ("ERROR: failed to run: exited with -9\n", "failed to run: exited with -9"),
        ("ValueError: no\n", "ValueError: no"),
        ("\n", "it ended without a word"),
    ],
)  # fmt: skip
def test_the_reason_of_a_failure_is_what_the_stage_said(text, reason):
    assert reason_in(text) == reason


def test_a_trial_left_running_keeps_the_next_one_waiting(tmp_path):
    lock, done = tmp_path / "lock", tmp_path / "done"
    program = "import sys, time, pathlib; time.sleep(1); pathlib.Path(sys.argv[1]).touch()"
    with only_one(lock) as held:
        words = [sys.executable, "-c", program, str(done)]
        child = subprocess.Popen(words, pass_fds=[held.fileno()])
    # We let go of the lock as a killed sweep does; its child has it still.
    with only_one(lock):
        assert done.exists()
    assert child.wait() == 0


def test_what_a_killed_experiment_left_is_removed_and_nothing_else(tmp_path, monkeypatch):
    from training.sweep.experiment import _clear_left_behind

    monkeypatch.chdir(tmp_path)
    runs = tmp_path / ".dvc/tmp/exps"
    kept = {}
    for name, folder in (("mine", runs / "standalone/x"), ("other", runs / "standalone/y"),
                         ("mine", tmp_path / "outside")):  # fmt: skip
        folder.mkdir(parents=True)
        record = runs / f"run/{folder.name}/{folder.name}.run"
        record.parent.mkdir(parents=True)
        record.write_text(json.dumps({"name": name, "root_dir": str(folder)}))
        kept[folder.name] = folder
    (runs / "run/x/cut.run").write_text("{")
    _clear_left_behind("mine")
    assert [name for name, folder in kept.items() if folder.exists()] == ["y", "outside"]
