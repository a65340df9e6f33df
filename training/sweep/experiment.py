"""One trial: a DVC experiment in a folder of its own, and what it left.

`dvc exp run --temp` leaves workspace and index alone, shares DVC's cache with the workspace, and
keeps its result as an experiment that `dvc exp show` and `make adopt` know by name.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from conf.adopt import experiments
from data.layout import REPORTS

DVC_RUNS = Path(".dvc/tmp/exps")
PATIENCE_S = 60.0
"""For DVC to tidy up after an interrupt."""

log = logging.getLogger(__name__)


class TrialFailedError(Exception):
    """An experiment came to no result; the message is the reason."""


def reason_in(text: str) -> str:
    r"""Return the line of an experiment's output that says why it failed.

    >>> reason_in("Running stage 'training'\nerror: the loss is NaN\nERROR: failed to reproduce\n")
    'the loss is NaN'
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for mark in ("error: ", "ERROR: "):
        found = [line.split(mark, 1)[1] for line in lines if mark in line]
        if found:
            return found[-1]
    return lines[-1] if lines else "it ended without a word"


@contextlib.contextmanager
def only_one(path: Path) -> Iterator[IO[str]]:
    """Hold the lock of a running trial; the experiment's own process inherits it.

    A sweep that was killed at once leaves its experiment running. The next one waits here for its
    end, and takes its result.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            log.warning("%s; waiting for its end", file.read().strip() or "a trial runs still")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def run_experiment(
    name: str, overrides: Sequence[str], *, lock: Path, output: Path, variables: Mapping[str, str]
) -> None:
    """Run an experiment to its end, or return at once where it is there already.

    Args:
        name: Name of the experiment.
        overrides: What follows each `-S`.
        lock: File that a running trial holds.
        output: File that takes what DVC and the stages say.
        variables: Variables of the environment that the stages see beside our own.

    Raises:
        TrialFailedError: If it came to no result.
    """
    with only_one(lock) as held:
        if name in experiments():
            return
        _clear_left_behind(name)
        words = ["dvc", "exp", "run", "--temp", "--name", name]
        words += [word for override in overrides for word in ("--set-param", override)]
        with output.open("w", encoding="utf-8") as file:
            child = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | variables,
                pass_fds=[held.fileno()],
                start_new_session=True,  # an interrupt reaches DVC and its stages through _stop
            )
            _say_who(held, f"trial {name} of an earlier sweep runs still (kill {child.pid})")
            try:
                child.wait()
            except BaseException:
                _stop(child)
                raise
    if name not in experiments():
        raise TrialFailedError(reason_in(output.read_text(encoding="utf-8", errors="replace")))


def _say_who(file: IO[str], text: str) -> None:
    file.truncate(0)
    file.write(text + "\n")
    file.flush()


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Interrupt DVC and its stages, and kill them where they do not end."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGINT)
        try:
            child.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _clear_left_behind(name: str) -> None:
    """Remove the folder, pictures and all, in which DVC was killed at this experiment."""
    records = [*DVC_RUNS.glob("run/*/*.run"), *DVC_RUNS.glob("standalone/run/*/*.run")]
    for record in records:
        try:
            told = json.loads(record.read_text(encoding="utf-8"))
        except ValueError:
            continue  # cut off by the kill
        folder = Path(told.get("root_dir", "")).resolve()
        if told.get("name") == name and DVC_RUNS.resolve() in folder.parents:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(record.parent, ignore_errors=True)


def evaluation_of(name: str) -> dict[str, Any]:
    """Return `reports/evaluation.json` of a finished experiment.

    Raises:
        TrialFailedError: If there is none.
    """
    path = REPORTS / "evaluation.json"
    shown = subprocess.run(
        ["git", "show", f"{experiments()[name]}:{path}"], capture_output=True, check=False
    )
    if shown.returncode:
        raise TrialFailedError(f"the experiment left no {path}")
    return dict(json.loads(shown.stdout))
