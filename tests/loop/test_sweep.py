"""A sweep with real DVC, Optuna and MLflow: killed, gone on with, and failing."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sweep")]

DEADLINE_S = 1200.0
STUDIES = "artifacts/.work/sweeps.db"
OUTPUT = Path("artifacts/.work/sweep")
# Enough pictures in val that every trial is judged on something.
SMOKE = ("sweep=smoke", "preparation.val=0.3")


class Sweep:
    """A `python -m training.sweep` that can be killed."""

    def __init__(self, repository: Any, log: Path, *words: str) -> None:
        self.repository = repository
        self.log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                ["python", "-m", "training.sweep", *words],
                cwd=repository.path,
                env=repository.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def text(self) -> str:
        """Return what the sweep has printed so far."""
        return self.log.read_text()

    def wait_for(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds while the sweep goes on."""
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert self.process.poll() is None, f"the sweep ended before {what}\n{self.text()}"
            assert time.monotonic() < end, f"no {what} in {DEADLINE_S} s\n{self.text()}"
            time.sleep(0.05)

    def wait_for_output(self, words: str) -> None:
        """Wait until a stage of a trial says something."""
        folder = self.repository.path / OUTPUT

        def said() -> bool:
            return any(words in path.read_text() for path in folder.glob("*.log"))

        self.wait_for(words, said)

    def dvc(self) -> psutil.Process:
        """Return the DVC that runs the trial."""
        own = psutil.Process(self.process.pid)
        self.wait_for("DVC to start", lambda: len(own.children()) == 1)
        return own.children()[0]

    def end(self) -> int:
        """Wait for the end; return the exit code."""
        return self.process.wait(timeout=DEADLINE_S)


def runs(repository: Any) -> list[Any]:
    """Return MLflow's runs, oldest first."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{repository.path / 'mlruns.db'}")
    experiment = client.get_experiment_by_name("blurloop").experiment_id
    return list(client.search_runs([experiment], order_by=["attributes.start_time ASC"]))


def below(repository: Any, parent: Any | None) -> list[Any]:
    """Return the runs right below another, oldest first; of None the topmost."""
    wanted = parent.info.run_id if parent else None
    return [r for r in runs(repository) if r.data.tags.get("mlflow.parentRunId") == wanted]


def trials(repository: Any) -> list[Any]:
    """Return what Optuna knows of each trial of the only study."""
    import optuna

    storage = f"sqlite:///{repository.path / STUDIES}"
    (name,) = optuna.get_all_study_names(storage)
    return list(optuna.load_study(study_name=name, storage=storage).trials)


def evaluation(repository: Any, name: str) -> Any:
    """Return `reports/evaluation.json` of an experiment."""
    listed = repository.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").stdout
    (reference,) = [line for line in listed.split() if line.endswith(f"/{name}")]
    return json.loads(repository.run("git", "show", f"{reference}:reports/evaluation.json").stdout)


def status(repository: Any) -> str:
    return str(repository.run("git", "status", "--porcelain").stdout)


def test_a_sweep_killed_twice_ends_with_each_trial_counted_once(turned, tmp_path):
    from conf.__main__ import from_yaml

    first = Sweep(turned, tmp_path / "first.log", *SMOKE)
    first.wait_for_output("Running stage 'preparation'")
    dvc = first.dvc()
    first.process.terminate()
    assert first.end() == 128 + signal.SIGTERM, first.text()
    assert not dvc.is_running(), "a plain kill stops the trial too"
    assert [run.info.status for run in runs(turned)[:2]] == ["KILLED", "KILLED"]

    for stale in (turned.path / OUTPUT).glob("*.log"):
        stale.unlink()  # what the stopped trial said is not what the next one says
    # Killed at once, it leaves its trial running; held until the next sweep has come to it.
    second = Sweep(turned, tmp_path / "second.log", *SMOKE)
    second.wait_for_output("Running stage 'training@")
    dvc = second.dvc()
    dvc.suspend()
    second.process.kill()
    second.end()
    third = Sweep(turned, tmp_path / "third.log", *SMOKE)
    said = f"runs still (kill {dvc.pid}); waiting for its end"
    third.wait_for("the trial left behind", lambda: said in third.text())
    dvc.resume()
    assert third.end() == 0, third.text()

    told = trials(turned)
    assert [trial.state.name for trial in told] == ["COMPLETE", "COMPLETE"]
    # On a busy machine the second sweep may have come to its second trial before it was held.
    done = 1 if "trial 2 of 2" in second.text() else 0
    assert third.text().count("trial 1 of 2") == 1 - done
    assert third.text().count("trial 2 of 2") == 1
    assert len(turned.dvc("exp", "list", "--name-only").stdout.split()) == 2
    assert status(turned) == "", "the workspace is as it was"
    assert not list((turned.path / ".dvc/tmp/exps/standalone").glob("tmp*")), "left behind"

    (top,) = below(turned, None)
    assert (top.info.status, top.data.tags["blurloop.role"]) == ("FINISHED", "sweep")
    for trial, run in zip(told, below(turned, top), strict=True):
        assert run.info.status == "FINISHED"
        assert run.data.metrics["score"] == pytest.approx(trial.value)
        assert run.data.params["seed"] == "1", "the whole configuration is recorded"
        name = run.data.tags["dvc.experiment"]
        report = evaluation(turned, name)
        scores = [values["ap50"] for values in report["classes"].values()]
        assert trial.value == pytest.approx(sum(scores) / len(scores))
        stages = {each.data.tags["blurloop.stage"] for each in below(turned, run)}
        assert {"training@mask_rcnn", "bundle", "evaluation", "promotion"} <= stages
    lr = told[1].params["training.mask_rcnn.lr"]
    assert told[0].params["training.mask_rcnn.lr"] == 1e-3, "conf/ itself is tried first"

    name = f"{top.info.run_name}-1"
    assert f"next: make adopt EXP={top.info.run_name}-" in third.text()
    turned.python("conf.adopt", name)
    turned.python("conf")
    adopted = from_yaml(turned.path / "params.yaml")
    assert adopted["training"]["mask_rcnn"]["lr"] == pytest.approx(lr)
    assert adopted["preparation"]["val"] == 0.3


def test_trials_that_fail_are_recorded_with_their_reason_and_stop_the_sweep(turned):
    words = (*SMOKE, "sweep.trials=5", "sweep.failures_max=2", "review.side_min_px=5000")
    ended = turned.python("training.sweep", *words, check=False)
    assert ended.returncode == 1
    lines = ended.stderr.strip().splitlines()
    assert lines[-1].startswith("error: 2 trials in a row failed, the last for: every picture was")
    assert "Traceback" not in ended.stderr
    told = trials(turned)
    assert [trial.state.name for trial in told] == ["FAIL", "FAIL"]
    assert all("every picture was rejected" in trial.user_attrs["reason"] for trial in told)
    (top,) = below(turned, None)
    found = below(turned, top)
    assert [run.info.status for run in (top, *found)] == ["FAILED"] * 3
    assert all("every picture" in run.data.tags["blurloop.reason"] for run in found)
    assert status(turned) == ""


def test_what_is_wrong_with_a_sweep_ends_in_one_line_before_anything_runs(turned):
    space = "[{name: training.mask_rcnn.lrr, kind: float, low: 0.1, high: 0.2}]"
    ended = turned.python("training.sweep", f"sweep.space={space}", check=False)
    assert ended.returncode == 2
    assert ended.stderr == (
        "error: sweep.space: training.mask_rcnn.lrr=0.1: Could not override "
        "'training.mask_rcnn.lrr': conf/ has no such key\n"
    )
    turned.edit("conf/review/default.yaml", "side_min_px: 64", "side_min_px: 65")
    ended = turned.python("training.sweep", *SMOKE, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: tracked files hold edits that are in no commit")
    assert ended.stderr.count("\n") == 1
    assert not (turned.path / STUDIES).exists()
