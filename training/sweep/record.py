"""A sweep in MLflow: its run, below it one run for each trial, below that the trial's stages.

A trial's run is the parent run of its turn: it is made here, before DVC starts, and named to the
stages by a variable of the environment (data/tracking/turns.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from data.tracking.runs import StageRun
from data.tracking.store import TrackingConfig, experiment_id, open_client, registry_lock
from data.tracking.turns import TURN_VARIABLE
from training.sweep.config import Scalar

REASON_CHARACTERS = 1000
"""Of the reason in MLflow; the log has it whole. MLflow refuses tags of more than 8000."""
UNRECORDED = StageRun(None, None, None)


def _opened(client: Any, experiment: str, name: str, *, role: str, known_by: dict[str, str]) -> str:
    """Return the id of the run that has these tags, open again, or of a new one."""
    with registry_lock():
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in known_by.items())
        found = client.search_runs([experiment], filter_string=query, max_results=1)
        if found:
            client.update_run(found[0].info.run_id, status="RUNNING")
            return str(found[0].info.run_id)
        tags = {**known_by, "blurloop.role": role}
        return str(client.create_run(experiment, run_name=name, tags=tags).info.run_id)


@contextmanager
def sweep_run(study: str, tracking: TrackingConfig, params: Mapping[str, Any]) -> Iterator[Sweep]:
    """Open the run of a sweep, for the same study the same one, and end it with the block.

    Raises:
        TrackingError: If MLflow cannot be used.
    """
    if not tracking.enabled:
        yield Sweep(UNRECORDED, "")
        return
    client = open_client()
    experiment = experiment_id(client, tracking.experiment)
    run_id = _opened(client, experiment, study, role="sweep", known_by={"blurloop.sweep": study})
    run = StageRun(client, run_id, None)
    run.log_params(params)
    with _ending(run):
        yield Sweep(run, experiment)


@contextmanager
def _ending(run: StageRun) -> Iterator[None]:
    """End a run as its block ends."""
    try:
        yield
    except Exception:
        run.end("FAILED")
        raise
    except BaseException:
        run.end("KILLED")
        raise
    run.end("FINISHED")


class Sweep:
    """The open run of a sweep."""

    def __init__(self, run: StageRun, experiment: str) -> None:
        """Hold an open run; `sweep_run` makes it."""
        self.run = run
        self.experiment = experiment

    def log_score(self, score: float, *, number: int) -> None:
        """Add a trial's score to the course of the sweep."""
        self.run.log_metrics({"score": score}, step=number)

    @contextmanager
    def trial(self, name: str, settings: Mapping[str, Scalar]) -> Iterator[Trial]:
        """Open the run of a trial, again where it was killed, and end it with the block."""
        if self.run.client is None:
            yield Trial(UNRECORDED)
            return
        known_by = {"mlflow.parentRunId": str(self.run.run_id), "dvc.experiment": name}
        run_id = _opened(self.run.client, self.experiment, name, role="trial", known_by=known_by)
        run = StageRun(self.run.client, run_id, self.run.run_id)
        run.log_params({f"trial.{setting}": value for setting, value in settings.items()})
        with _ending(run):
            try:
                yield Trial(run)
            except Exception as error:
                run.set_tag("blurloop.reason", str(error)[:REASON_CHARACTERS])
                raise


class Trial:
    """The open run of a trial."""

    def __init__(self, run: StageRun) -> None:
        """Hold an open run; `Sweep.trial` makes it."""
        self.run = run

    @property
    def variables(self) -> dict[str, str]:
        """What the trial's stages must see to record below this run."""
        return {} if self.run.run_id is None else {TURN_VARIABLE: self.run.run_id}
