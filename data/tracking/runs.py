"""One parent run per turn of the loop, one child run per stage that measures.

Used by the stages training, bundle, evaluation and promotion::

    with stage_run("evaluation", tracking, params=..., inputs={"reference": path}) as run:
        run.log_metrics({"recall/face/covered": 0.97})

A run that cannot be opened stops its stage at once, before hours of work go unrecorded. What
fails later is tried again and then logged as a warning: a hiccup of the record does not cost the
work.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anonymization.errors import BlurloopError
from data.tracking.revisions import digest_of
from data.tracking.store import (
    TrackingConfig,
    TrackingError,
    experiment_id,
    open_client,
    shown_address,
    tracking_uri,
)
from data.tracking.turns import (
    end_killed_runs,
    exists,
    flatten,
    link_restored,
    log_params,
    open_parent,
    process,
    provenance,
)

log = logging.getLogger(__name__)

SHOWS_PICTURES = (
    *(".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".avif"),
    *(".mp4", ".mov", ".avi", ".mkv", ".html", ".htm", ".pdf", ".svg", ".npy", ".npz", ".zip"),
)
"""File types that may carry pixels of the street; logging one takes the caller's word."""

DATASET_DIGEST_CHARACTERS = 36
"""MLflow refuses longer data set digests; the whole digest is logged as a tag beside it."""

ATTEMPTS = 3

PAUSE_S = 0.5


class PersonalDataError(BlurloopError):
    """A file that may show people was about to leave the machine's artifacts folder."""


def _check_shows_nobody(path: Path) -> None:
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    for file in files:
        if file.suffix.lower() in SHOWS_PICTURES:
            raise PersonalDataError(
                f"{file} may show people and would leave this machine with the MLflow record; "
                "obscure every true region in it and log it with obscured=True"
            )


class StageRun:
    """One open run. Failures after its opening are tried again, then logged as warnings.

    Attributes:
        run_id: MLflow's id, for the stage's own output (`run_id`); None when tracking is off.
        parent_id: Id of the turn's run; None when tracking is off.
    """

    def __init__(self, client: Any | None, run_id: str | None, parent_id: str | None) -> None:
        """Hold an open run; `stage_run` makes it."""
        self.client = client
        self.run_id = run_id
        self.parent_id = parent_id

    def _try(self, what: str, call: Callable[[], object]) -> bool:
        if self.client is None:
            return False
        for attempt in range(1, ATTEMPTS + 1):
            try:
                call()
                return True
            except Exception as error:  # noqa: BLE001 - no hiccup of the record costs the work
                if attempt == ATTEMPTS:
                    log.warning("MLflow did not record %s: %s", what, error)
                else:
                    time.sleep(PAUSE_S * attempt)
        return False

    def log_metrics(self, metrics: Mapping[str, float | None], *, step: int = 0) -> None:
        """Record numbers; None values are left out. Names are like `recall/face/covered`."""
        from_now = int(time.time() * 1000)
        numbers = {name: float(value) for name, value in metrics.items() if value is not None}
        if self.client is None or not numbers:
            return
        from mlflow.entities import Metric

        rows = [Metric(name, value, from_now, step) for name, value in numbers.items()]
        self._try("metrics", lambda: self.client.log_batch(self.run_id, metrics=rows))  # type: ignore[union-attr]

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record settings; nested ones get dotted names."""
        if self.client is not None:
            flat = flatten(params)
            self._try("parameters", lambda: log_params(self.client, str(self.run_id), flat))

    def end(self, status: str) -> None:
        """End this run, and not its parent: FINISHED, FAILED or KILLED."""
        self._try("the end", lambda: self.client.set_terminated(self.run_id, status))  # type: ignore[union-attr]

    def set_tag(self, name: str, value: str) -> None:
        """Record one tag of this run."""
        self._try(f"tag {name}", lambda: self.client.set_tag(self.run_id, name, value))  # type: ignore[union-attr]

    def log_text(self, text: str, name: str) -> None:
        """Record a text as an artifact, under the path `name`."""
        self._try(name, lambda: self.client.log_text(self.run_id, text, name))  # type: ignore[union-attr]

    def log_dict(self, value: Mapping[str, Any], name: str) -> None:
        """Record plain values as a JSON or YAML artifact, under the path `name`."""
        self._try(name, lambda: self.client.log_dict(self.run_id, dict(value), name))  # type: ignore[union-attr]

    def log_artifact(
        self, path: Path, *, folder: str | None = None, obscured: bool = False
    ) -> None:
        """Record a file or folder.

        Args:
            path: What to copy.
            folder: Folder inside the run's artifacts.
            obscured: The caller's word that every true region in it is obscured.

        Raises:
            PersonalDataError: If it may show people and `obscured` is not said.
        """
        if not obscured:
            _check_shows_nobody(Path(path))
        if self.client is None:
            return
        log_it = self.client.log_artifacts if Path(path).is_dir() else self.client.log_artifact
        self._try(str(path), lambda: log_it(self.run_id, str(path), folder))


def _log_inputs(client: Any, run_id: str, inputs: Mapping[str, str | Path]) -> None:
    """Record data digests as MLflow data set inputs, and whole as tags."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    rows = []
    for name, value in inputs.items():
        digest = digest_of(value) if isinstance(value, Path) else value
        source = str(value) if isinstance(value, Path) else digest
        short = digest[:DATASET_DIGEST_CHARACTERS]
        data = Dataset(name=name, digest=short, source_type="dvc", source=source)
        rows.append(DatasetInput(data, [InputTag("mlflow.data.context", name)]))
        client.set_tag(run_id, f"digest.{name}", digest)
    if rows:
        client.log_inputs(run_id, datasets=rows)


def _open_run(stage: str, tracking: TrackingConfig, *, resume: str | None) -> StageRun:
    client = open_client()
    try:
        experiment = experiment_id(client, tracking.experiment)
        parent = open_parent(client, experiment)
        end_killed_runs(client, experiment, parent)
        link_restored(client, parent)
        client.update_run(parent, status="RUNNING")
        tags = {
            **provenance(),
            "mlflow.parentRunId": parent,
            "blurloop.role": "stage",
            "blurloop.stage": stage,
            "blurloop.process": process(),
        }
        if resume is not None and exists(client, resume):
            client.update_run(resume, status="RUNNING")
            client.set_tag(resume, "blurloop.process", process())
            return StageRun(client, resume, parent)
        run = client.create_run(experiment, run_name=stage, tags=tags)
        return StageRun(client, run.info.run_id, parent)
    except BlurloopError:
        raise
    except Exception as error:
        raise TrackingError(
            f"MLflow at {shown_address(tracking_uri())} did not open a run for {stage}: "
            f"{shown_address(str(error))}. "
            "Run `make doctor`, or the stage with tracking.enabled=false"
        ) from error


def _end(run: StageRun, status: str) -> None:
    run.end(status)
    StageRun(run.client, run.parent_id, None).end(status)


@contextmanager
def stage_run(
    stage: str,
    tracking: TrackingConfig,
    *,
    params: Mapping[str, Any] | None = None,
    inputs: Mapping[str, str | Path] | None = None,
    resume: str | None = None,
) -> Iterator[StageRun]:
    """Open the run of a stage under this turn's parent run, and end it with the block.

    Args:
        stage: Name of the DVC stage, as `training@mask_rcnn`.
        tracking: Section `tracking`.
        params: Settings of the stage, nested or flat.
        inputs: Digest of each input by name, or its path, which is then digested.
        resume: Run id of the killed run that this one goes on from.

    Raises:
        TrackingError: If the run cannot be opened.
    """
    if not tracking.enabled:
        yield StageRun(None, None, None)
        return
    run = _open_run(stage, tracking, resume=resume)
    try:
        if resume is None:
            run.log_params(params or {})
        run._try("inputs", lambda: _log_inputs(run.client, str(run.run_id), inputs or {}))
        yield run
    except Exception:
        _end(run, "FAILED")
        raise
    except BaseException:
        _end(run, "KILLED")
        raise
    _end(run, "FINISHED")
