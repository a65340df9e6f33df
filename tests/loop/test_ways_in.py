"""The three ways into the configuration, each with real DVC: all run what they record."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = pytest.mark.slow

REVIEW = "conf/review/default.yaml"


def params(text: str) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(OmegaConf.create(text))


def ran(output: str, stage: str) -> bool:
    return f"Running stage '{stage}'" in output


def experiments(repository) -> dict[str, Any]:
    """Return the parameters of each finished experiment, by name."""
    lines = repository.run(
        "git", "for-each-ref", "--format=%(refname)", "refs/exps"
    ).stdout.splitlines()
    names = [line for line in lines if line.count("/") >= 4]
    show = {name: repository.run("git", "show", f"{name}:params.yaml").stdout for name in names}
    return {name.rsplit("/", 1)[1]: params(text) for name, text in show.items()}


def test_an_edit_under_conf_and_its_reversal_reach_the_stages_by_plain_repro(turned):
    before = turned.read("params.yaml")
    turned.edit(REVIEW, "side_min_px: 64", "side_min_px: 65")
    edited = turned.dvc("repro", "review").stdout
    assert ran(edited, "review")
    assert not ran(edited, "collection")
    assert params(turned.read("params.yaml"))["review"]["side_min_px"] == 65

    turned.edit(REVIEW, "side_min_px: 65", "side_min_px: 64")
    reverted = turned.dvc("repro", "review").stdout
    assert turned.read("params.yaml") == before
    # The results of the first turn come back from DVC's cache, or the stage runs again.
    assert "'review' is cached" in reverted or ran(reverted, "review")


def test_a_turn_with_nothing_to_do_runs_no_stage_that_makes_something(turned):
    output = turned.dvc("repro", "review").stdout
    assert not ran(output, "collection")
    assert not ran(output, "review")
    assert turned.run("git", "status", "--porcelain").stdout == ""


def test_an_experiment_runs_and_records_a_value(turned):
    turned.dvc("exp", "run", "-n", "value", "-S", "review.side_min_px=66", "review")
    assert experiments(turned)["value"]["review"]["side_min_px"] == 66
    assert params(turned.read("params.yaml"))["review"]["side_min_px"] == 66
    assert json.loads(turned.read("artifacts/turn.json"))["kind"] == "experiment"


def test_plain_repro_after_an_experiment_turns_the_loop_of_conf_again(turned):
    before = turned.read("params.yaml")
    turned.dvc("exp", "run", "-n", "value", "-S", "review.side_min_px=66", "review")
    output = turned.dvc("repro", "review")
    assert turned.read("params.yaml") == before
    assert "review.side_min_px: 66 -> 64" in output.stdout + output.stderr
    assert json.loads(turned.read("artifacts/turn.json"))["kind"] == "loop"


def test_an_experiment_runs_and_records_a_choice_of_a_group(turned):
    (turned.path / "conf/review/strict.yaml").write_text(
        "defaults: [default, _self_]\nside_min_px: 70\n"
    )
    turned.commit("another option")
    turned.dvc("exp", "run", "-n", "group", "-S", "review=strict", "review")
    assert experiments(turned)["group"]["review"]["side_min_px"] == 70


def test_an_experiment_in_a_temporary_folder_leaves_the_workspace_alone(turned):
    before = turned.read("params.yaml")
    turned.dvc("exp", "run", "--temp", "-n", "apart", "-S", "review.side_min_px=67", "review")
    assert experiments(turned)["apart"]["review"]["side_min_px"] == 67
    assert turned.read("params.yaml") == before
    assert json.loads(turned.read("artifacts/turn.json"))["kind"] == "loop"


def test_a_queued_grid_runs_every_setting(turned):
    turned.dvc("exp", "run", "--queue", "-S", "review.side_min_px=60,61", "review")
    turned.dvc("exp", "run", "--run-all")
    found = {tree["review"]["side_min_px"] for tree in experiments(turned).values()}
    assert found == {60, 61}


def test_one_stage_runs_by_hand_with_the_tree_under_conf_and_its_overrides(turned):
    before = turned.read("reports/review.json")
    ended = turned.python("data.review", "review.side_min_px=5000", check=False)
    assert ended.returncode == 1
    assert "every picture was rejected" in ended.stderr
    turned.python("data.review")
    assert turned.read("reports/review.json") == before


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("review.side_min=5", "review.side_min"),
        ("review.side_min_px=many", r"review.side_min_px is 'many' (str); expected int"),
        ("review=nothing", "Could not find 'review/nothing'"),
    ],
)
def test_what_is_wrong_by_hand_ends_in_one_clear_line(turned, override, message):
    ended = turned.python("data.review", override, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    assert message in ended.stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("side_min_px: 64", "side_min: 64", "review has no key 'side_min'; known keys:"),
        ("side_min_px: 64", "side_min_px: [64]", "review.side_min_px is [64] (list); expected int"),
    ],
)
def test_what_is_wrong_under_conf_stops_the_loop_before_its_first_stage(turned, old, new, message):
    before = turned.read("params.yaml")
    turned.edit(REVIEW, old, new)
    ended = turned.dvc("repro", check=False)
    assert ended.returncode != 0
    assert f"error: {message}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not ran(ended.stdout, "survey")
    assert turned.read("params.yaml") == before


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("review.side_min=5", "side_min"),
        ("+review.side_min=5", "error: review has no key 'side_min'"),
        ("review.side_min_px=many", "error: review.side_min_px is 'many' (str); expected int"),
    ],
)
def test_what_is_wrong_in_an_experiment_is_named(turned, override, message):
    ended = turned.dvc("exp", "run", "-S", override, "review", check=False)
    assert ended.returncode != 0
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not ran(ended.stdout, "survey")


def test_a_chosen_setting_holds_for_plain_repro_until_it_is_taken_back(turned):
    turned.python("conf.choose", "none")
    turned.python("conf")
    default = params(turned.read("params.yaml"))
    turned.python("conf.choose", "smoke")
    turned.dvc("repro", "config")
    smoke = params(turned.read("params.yaml"))
    assert smoke["collection"]["street"]["scenes"] < default["collection"]["street"]["scenes"]
    turned.dvc("repro", "config")
    assert params(turned.read("params.yaml")) == smoke


def test_a_winning_experiment_is_adopted_with_values_and_choices(turned):
    (turned.path / "conf/review/strict.yaml").write_text(
        "defaults: [default, _self_]\nside_min_px: 70\n"
    )
    turned.commit("another option")
    settings = ["-S", "review=strict", "-S", "preparation.val=0.21", "-S", "seed=7"]
    turned.dvc("exp", "run", "--temp", "-n", "winner", *settings, "review")
    won = experiments(turned)["winner"]

    output = turned.python("conf.adopt", "winner").stdout
    assert output.splitlines() == ["review=strict", "preparation.val=0.21", "seed=7"]
    assert "  - review: strict\n" in turned.read("conf/config.yaml")
    comments = [line for line in turned.read("conf/config.yaml").splitlines() if "#" in line]
    assert "# The whole loop's settings, one group per step." in comments[0]

    turned.dvc("repro", "config")
    assert params(turned.read("params.yaml")) == won


def test_adopting_keeps_what_was_edited_since(turned):
    turned.dvc("exp", "run", "--temp", "-n", "winner", "-S", "preparation.val=0.21", "review")
    turned.edit(REVIEW, "side_min_px: 64", "side_min_px: 63")
    turned.python("conf.adopt", "winner")
    turned.python("conf")
    tree = params(turned.read("params.yaml"))
    assert (tree["preparation"]["val"], tree["review"]["side_min_px"]) == (0.21, 63)


def test_adopting_a_value_changes_no_other_that_shares_its_line(turned):
    turned.python("conf.choose", "none")
    turned.commit("the default, in which both networks share one block")
    value = "training.mask_rcnn.optimizer.warmup_steps=51"
    turned.dvc("exp", "run", "--temp", "-n", "winner", "-S", value, "config")
    turned.python("conf.adopt", "winner")
    turned.python("conf")
    tree = params(turned.read("params.yaml"))["training"]
    assert tree["mask_rcnn"]["optimizer"]["warmup_steps"] == 51
    assert tree["keypoint_rcnn"]["optimizer"]["warmup_steps"] == 50


def test_adopting_an_unknown_experiment_names_the_known_ones(turned):
    ended = turned.python("conf.adopt", "nobody", check=False)
    assert ended.returncode == 2
    assert ended.stderr == "error: there is no experiment 'nobody'; known: none (dvc exp show)\n"
