"""Where MLflow keeps the record, and the lock under which runs are made and aliases move.

Runs go to MLFLOW_TRACKING_URI, else to `mlruns.db` in the repository that DVC was called in, so
that rows of experiments in temporary folders outlive those folders. MLflow is imported when the
first client opens; its import takes about a second.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anonymization.errors import BlurloopError
from data.layout import WORK

LOCK_TIMEOUT_S = 60.0


class TrackingError(BlurloopError):
    """The tracking server or database cannot be used."""


@dataclass(frozen=True)
class TrackingConfig:
    """Section `tracking`.

    Attributes:
        enabled: Whether runs are recorded. Promotion needs it: without it no alias moves.
        experiment: Name of the MLflow experiment that holds every turn.
    """

    enabled: bool = True
    experiment: str = "blurloop"

    def __post_init__(self) -> None:
        if not self.experiment.strip():
            raise TrackingError("tracking.experiment is empty; give the MLflow experiment a name")


def repository() -> Path:
    """Return the repository that DVC was called in, also from inside a temporary experiment.

    DVC sets DVC_ROOT for every stage, and to the parent repository for queued and `--temp`
    experiments (dvc/repo/experiments/queue/base.py). By hand it is the nearest folder upward
    with `.dvc` or `.git`; below `.dvc/tmp/exps` it is the repository around that folder.
    """
    given = os.environ.get("DVC_ROOT")
    start = Path(given if given else os.getcwd()).resolve()
    parts = start.parts
    for i in range(len(parts) - 2):
        if parts[i : i + 3] == (".dvc", "tmp", "exps"):
            return Path(*parts[:i])
    for folder in (start, *start.parents):
        if (folder / ".dvc").is_dir() or (folder / ".git").exists():
            return folder
    return start


def experiment_name() -> str | None:
    """Return the name of the DVC experiment that this process runs in, or None."""
    return os.environ.get("DVC_EXP_NAME") or None


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI, else the absolute address of the repository's `mlruns.db`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{repository() / 'mlruns.db'}"


def shown_address(uri: str) -> str:
    """Return an address as messages may show it: without a name and password.

    >>> shown_address("postgresql://bob:s3cret@db:5432/mlflow")
    'postgresql://...@db:5432/mlflow'
    """
    return re.sub(r"(?<=://)[^/@\s]*@", "...@", uri)


def database_file(uri: str) -> Path | None:
    """Return the file behind an SQLite address, or None for any other address.

    >>> database_file("sqlite:////srv/mlruns.db")
    PosixPath('/srv/mlruns.db')
    """
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


@contextmanager
def registry_lock(uri: str | None = None) -> Iterator[None]:
    """Hold the lock under which runs are created and aliases move.

    It lies beside an SQLite database, so that every clone that shares the database shares the
    lock; for a server it is this machine's.

    Raises:
        TrackingError: If another process holds it for longer than a minute.
    """
    from filelock import FileLock, Timeout

    database = database_file(uri or tracking_uri())
    path = repository() / WORK / "registry.lock"
    if database is not None:
        path = database.with_name(database.name + ".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=LOCK_TIMEOUT_S):
            yield
    except Timeout as error:
        raise TrackingError(
            f"{path} has been held by another loop for {LOCK_TIMEOUT_S:.0f} s; "
            "wait for that loop to end, then run dvc repro again"
        ) from error


def quiet_mlflow() -> None:
    """Keep MLflow from writing progress and migrations to the terminal and from calling home."""
    quiet = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def open_client(uri: str | None = None) -> Any:
    """Return an `MlflowClient`; the database is made, under the lock, when it does not exist.

    Raises:
        TrackingError: If the address cannot be used.
    """
    quiet_mlflow()
    address = uri or tracking_uri()
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise TrackingError(
            "MLflow is not installed; install the extra 'train', or set tracking.enabled=false"
        ) from error
    # MLflow sets its own loggers up when it is imported.
    quiet_mlflow()
    try:
        with registry_lock(address):
            client = MlflowClient(tracking_uri=address, registry_uri=address)
            # The store, and with it the database's tables, is made at the first call.
            client.search_experiments(max_results=1)
        return client
    except TrackingError:
        raise
    except Exception as error:
        reason = shown_address((str(error).strip() or type(error).__name__).splitlines()[0])
        raise TrackingError(
            f"MLflow at {shown_address(address)} cannot be used: {reason}. "
            "Correct MLFLOW_TRACKING_URI, start that server, or unset it to use mlruns.db"
        ) from error


def experiment_id(client: Any, name: str, *, uri: str | None = None) -> str:
    """Return the id of the MLflow experiment, which is made at first use.

    With an SQLite database its artifacts lie beside the database, under `mlartifacts`.
    """
    database = database_file(uri or tracking_uri())
    location = None if database is None else (database.parent / "mlartifacts").resolve().as_uri()
    with registry_lock(uri):
        found = client.get_experiment_by_name(name)
        if found is None:
            return str(client.create_experiment(name, artifact_location=location))
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)
