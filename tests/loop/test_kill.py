"""A turn that is killed, its children left behind, ends in the verdict of an undisturbed one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("kill")]

DEADLINE_S = 300.0
COLLECTED = Path("artifacts/collected")


class Turn:
    """A `dvc repro` that can be killed."""

    def __init__(self, repository: Any, log: Path) -> None:
        self.log = log
        with log.open("w") as file:
            self.dvc = subprocess.Popen(
                ["dvc", "repro"],
                cwd=repository.path,
                env=repository.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def wait_for(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds while the turn goes on."""
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert self.dvc.poll() is None, f"the turn ended before {what}\n{self.text()}"
            assert time.monotonic() < end, f"no {what} in {DEADLINE_S} s\n{self.text()}"
            time.sleep(0.01)

    def text(self) -> str:
        """Return what the turn has printed so far."""
        return self.log.read_text()

    def stage(self, module: str) -> psutil.Process:
        """Return the program of a stage."""
        found = []
        for child in psutil.Process(self.dvc.pid).children(recursive=True):
            words = child.cmdline()
            if words[1:3] == ["-m", module]:
                found.append(child)
        assert found, f"python -m {module} runs no longer\n{self.text()}"
        return found[0]

    def kill(self) -> None:
        """Kill DVC's own process only: its child is left behind."""
        self.dvc.kill()
        self.dvc.wait()

    def end(self) -> None:
        """Wait for the end, which is a good one."""
        assert self.dvc.wait(timeout=DEADLINE_S) == 0, self.text()


def decided(repository: Any) -> Any:
    """Return the verdict with every number that it rests on."""
    report = json.loads(repository.read("reports/promotion.json"))
    return {name: report[name] for name in ("outcome", "criteria", "thresholds")}


@pytest.fixture(scope="module")
def chosen(tmp_path_factory, new_repository):
    """A repository in which `experiment/smoke` is chosen and no stage has run."""
    repository = new_repository(tmp_path_factory.mktemp("chosen") / "repository")
    repository.python("conf.choose", "smoke")
    repository.commit("smoke")
    return repository


@pytest.fixture(scope="module")
def undisturbed(chosen, tmp_path_factory):
    """A repository whose loop has turned once."""
    repository = chosen.copy(tmp_path_factory.mktemp("undisturbed") / "repository")
    repository.dvc("repro")
    return repository


def test_a_training_of_one_epoch_is_refused_and_that_is_no_failure(undisturbed):
    assert decided(undisturbed)["outcome"] == "REFUSED"
    told = undisturbed.run("python", ".github/verdict.py").stdout
    assert told.startswith("**REFUSED**: the champion stays where it was\n")
    for name in ("face", "person", "license_plate", "vehicle"):
        assert re.search(rf"\| recall \| {name} \| detected \|.*{name}: \d+ of \d+ objects", told)


def test_a_second_turn_makes_nothing_again(undisturbed):
    lock = undisturbed.read("dvc.lock")
    output = undisturbed.dvc("repro").stdout
    assert set(re.findall(r"Running stage '([^']+)'", output)) == {
        "config",
        "survey",
        "sync",
        "promotion",
    }
    assert undisturbed.read("dvc.lock") == lock


def test_a_turn_killed_in_three_stages_ends_in_the_verdict_of_an_undisturbed_one(
    chosen, undisturbed, tmp_path
):
    repository = chosen.copy(tmp_path / "repository")
    work = repository.path / "artifacts/.work"

    first = Turn(repository, tmp_path / "first.log")
    pictures = repository.path / COLLECTED / "pictures"
    first.wait_for("pictures", lambda: pictures.is_dir() and len(list(pictures.iterdir())) > 4)
    collection = first.stage("data.collection")
    collection.kill()
    first.kill()
    assert not (repository.path / COLLECTED / "manifest.json").exists(), "half collected"

    # From here on DVC alone is killed. Its child is held until the next turn has come to it.
    second = Turn(repository, tmp_path / "second.log")
    second.wait_for("a training", lambda: any(work.glob("training-mask_rcnn-*/run.json")))
    training = second.stage("training")
    training.send_signal(signal.SIGSTOP)
    second.kill()

    third = Turn(repository, tmp_path / "third.log")
    told = f"process {training.pid} of an earlier turn runs this stage still; waiting for it"
    third.wait_for("the training left behind", lambda: told in third.text())
    training.send_signal(signal.SIGCONT)
    third.wait_for("an evaluation", (work / "evaluation-__main__.lock").exists)
    assert "mask_rcnn is trained already" in third.text()
    evaluation = third.stage("evaluation")
    evaluation.send_signal(signal.SIGSTOP)
    third.kill()

    fourth = Turn(repository, tmp_path / "fourth.log")
    told = f"process {evaluation.pid} of an earlier turn runs this stage still; waiting for it"
    fourth.wait_for("the evaluation left behind", lambda: told in fourth.text())
    os.kill(evaluation.pid, signal.SIGCONT)
    fourth.end()

    assert decided(repository) == decided(undisturbed)
    assert "Running stage 'training" not in fourth.text(), "trained once"
