"""MLflow tracking: one parent run per turn of the loop, one child run per stage that measures.

Used by the stages training, bundle, evaluation and promotion::

    with stage_run("evaluation", tracking, params=..., inputs={"reference": path}) as run:
        run.log_metrics({"recall/face/covered": 0.97})

Runs go to MLFLOW_TRACKING_URI, else to `mlruns.db` in the repository that DVC was called in, so
that rows of experiments in temporary folders outlive those folders.

A run that cannot be opened stops its stage at once, before hours of work go unrecorded. What
fails later is tried again and then logged as a warning: a hiccup of the record does not cost the
work. MLflow is imported when the first run opens; its import takes about a second.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anonymization.errors import BlurloopError
from anonymization.files import read_json, sha256_of_file, sha256_of_json
from data.layout import PREPARED, SPLITS, TRAINED, WORK

log = logging.getLogger(__name__)

SHOWS_PICTURES = (
    *(".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".avif"),
    *(".mp4", ".mov", ".avi", ".mkv", ".html", ".htm", ".pdf", ".svg", ".npy", ".npz", ".zip"),
)
"""File types that may carry pixels of the street; logging one takes the caller's word."""

PARAMS_PER_CALL = 100
"""More in one call are refused (mlflow.utils.validation.MAX_PARAMS_TAGS_PER_BATCH)."""
PARAM_CHARACTERS = 6000
"""MLflow refuses longer values (mlflow.utils.validation.MAX_PARAM_VAL_LENGTH)."""
TURN_VARIABLE = "BLURLOOP_TURN_RUN"
"""Names a run, made by the caller of DVC, that becomes the turn's parent run: a sweep makes one for
each of its trials."""
DATASET_DIGEST_CHARACTERS = 36
"""MLflow refuses longer data set digests; the whole digest is logged as a tag beside it."""

LOCK_TIMEOUT_S = 60.0
ATTEMPTS = 3
PAUSE_S = 0.5

CODE_PACKAGES = ("anonymization", "data", "evaluation", "training", "annotation")


class TrackingError(BlurloopError):
    """The tracking server or database cannot be used."""


class PersonalDataError(BlurloopError):
    """A file that may show people was about to leave the machine's artifacts folder."""


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
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TrackingError(
            f"MLflow at {address} cannot be used: {reason}. "
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


def git_revision() -> str:
    """Return the checked-out commit, with `+edits` when tracked files differ; `none` without Git.

    What the loop itself writes (`dvc.lock`, `params.yaml`, `reports/`) is not an edit.
    """

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], capture_output=True, text=True, check=True, timeout=30
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    commit = git("rev-parse", "--verify", "HEAD")
    if not commit:
        return "none"
    written = (":!dvc.lock", ":!params.yaml", ":!reports")
    edits = git("status", "--porcelain", "--untracked-files=no", "--", ".", *written)
    return f"{commit}+edits" if edits else commit


def loaded_code() -> dict[str, str]:
    """Return the SHA-256 of each of our own source files that this process has imported.

    A stage that binds its result to its code records this at its end (`code_files`), and
    `changed_code` tells later which of the files are no longer the same. Paths are relative to
    the folder that holds the packages.
    """
    files: dict[str, str] = {}
    root = Path(__file__).resolve().parent.parent
    for module in list(sys.modules.values()):
        source = getattr(module, "__file__", None)
        if not isinstance(source, str) or not source.endswith(".py"):
            continue
        path = Path(source).resolve()
        if path.is_relative_to(root) and path.relative_to(root).parts[0] in CODE_PACKAGES:
            files[path.relative_to(root).as_posix()] = sha256_of_file(path)
    return dict(sorted(files.items()))


def changed_code(files: Mapping[str, str]) -> list[str]:
    """Return the recorded source files whose bytes are no longer the recorded ones."""
    root = Path(__file__).resolve().parent.parent
    return [
        name
        for name, digest in sorted(files.items())
        if not (root / name).is_file() or sha256_of_file(root / name) != digest
    ]


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and bytes of all files in a folder."""
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        return sha256_of_json({p.relative_to(path).as_posix(): sha256_of_file(p) for p in files})
    return sha256_of_file(path)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as dotted names.

    >>> flatten({"training": {"lr": 0.1, "freeze": []}, "seed": 7})
    {'training.lr': '0.1', 'training.freeze': '[]', 'seed': '7'}
    """
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{name}."))
        else:
            flat[name] = str(value)[:PARAM_CHARACTERS]
    return flat


def turn_id() -> str:
    """Return what identifies this turn of the loop: 16 hexadecimal digits.

    The experiment's name, the frozen configuration, the prepared data and the commit: a loop that
    is stopped and started again stays one turn, a changed setting or picture begins another.
    """
    files = [Path("params.yaml"), *(PREPARED / f"{split}.json" for split in SPLITS)]
    parts = {str(path): sha256_of_file(path) for path in files if path.is_file()}
    parts["experiment"] = experiment_name() or ""
    parts["revision"] = git_revision()
    return sha256_of_json(parts)[:16]


def _params() -> dict[str, str]:
    """Return the frozen configuration, flat; empty where no loop has been run."""
    path = Path("params.yaml")
    if not path.is_file():
        return {}
    import yaml

    return flatten(yaml.safe_load(path.read_text(encoding="utf-8")) or {})


def _provenance() -> dict[str, str]:
    tags = {"blurloop.turn": turn_id(), "mlflow.source.git.commit": git_revision()}
    name = experiment_name()
    if name:
        tags["dvc.experiment"] = name
    for path in (Path("dvc.lock"), *(PREPARED / f"{split}.json" for split in SPLITS)):
        if path.is_file():
            tags[f"digest.{path.name}"] = sha256_of_file(path)
    return tags


def _log_params(client: Any, run_id: str, params: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    items = [Param(key, value) for key, value in params.items()]
    for start in range(0, len(items), PARAMS_PER_CALL):
        client.log_batch(run_id, params=items[start : start + PARAMS_PER_CALL])


def find_parent(client: Any, experiment: str, turn: str) -> Any | None:
    """Return the parent run of a turn, or None."""
    found = client.search_runs(
        [experiment],
        filter_string=f"tags.`blurloop.turn` = '{turn}' and tags.`blurloop.role` = 'turn'",
        order_by=["attributes.start_time ASC"],
        max_results=1,
    )
    return found[0] if found else None


def _open_parent(client: Any, experiment: str) -> str:
    """Find this turn's parent run, or make it; two stages at once make one."""
    tags = _provenance()
    with registry_lock():
        found = find_parent(client, experiment, tags["blurloop.turn"])
        if found is not None:
            return str(found.info.run_id)
        name = experiment_name() or f"turn-{tags['blurloop.turn'][:8]}"
        tags |= {"blurloop.role": "turn"}
        run_id = os.environ.get(TURN_VARIABLE, "")
        if run_id and _exists(client, run_id):
            for key, value in tags.items():
                client.set_tag(run_id, key, value)
        else:
            run_id = client.create_run(experiment, run_name=name, tags=tags).info.run_id
        _log_params(client, run_id, _params())
    return str(run_id)


def _process() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _is_dead(process: str) -> bool:
    """Return whether a process of this machine has ended; False for other machines' processes."""
    host, _, pid = process.rpartition(":")
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _end_killed_runs(client: Any, experiment: str, parent: str) -> None:
    """Mark as killed what a killed process left open under this parent."""
    query = f"tags.`mlflow.parentRunId` = '{parent}' and attributes.status = 'RUNNING'"
    for run in client.search_runs([experiment], filter_string=query):
        if _is_dead(run.data.tags.get("blurloop.process", "")):
            client.set_terminated(run.info.run_id, "KILLED")


def _stage_run_ids() -> dict[str, str]:
    """Return the run that made each result of this turn, as the stages' own files name it."""
    files = {f"training@{path.parent.name}": path for path in TRAINED.glob("*/history.json")}
    files["evaluation"] = Path("reports/evaluation.json")
    found = {}
    for stage, path in files.items():
        value = read_json(path) if path.is_file() else {}
        run_id = value.get("run_id") or value.get("mlflow_run_id")
        if run_id:
            found[stage] = str(run_id)
    return found


def link_restored(client: Any, parent: str) -> dict[str, str]:
    """Tag a parent run with the runs that made results which DVC restored from its cache.

    Returns:
        Run id per linked stage.
    """
    linked = {}
    tags = client.get_run(parent).data.tags
    for stage, run_id in _stage_run_ids().items():
        tag = f"linked.{stage.replace('@', '.')}"
        try:
            made_in = client.get_run(run_id).data.tags.get("mlflow.parentRunId")
        except Exception:  # noqa: BLE001 - made elsewhere or deleted: its id still says which
            made_in = None
        if made_in != parent:
            client.set_tag(parent, tag, run_id)
            linked[stage] = run_id
        elif tag in tags:  # an earlier stage of this turn still saw the result of the last one
            client.delete_tag(parent, tag)
    return linked


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
            self._try("parameters", lambda: _log_params(self.client, str(self.run_id), flat))

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
        parent = _open_parent(client, experiment)
        _end_killed_runs(client, experiment, parent)
        link_restored(client, parent)
        client.update_run(parent, status="RUNNING")
        tags = {
            **_provenance(),
            "mlflow.parentRunId": parent,
            "blurloop.role": "stage",
            "blurloop.stage": stage,
            "blurloop.process": _process(),
        }
        if resume is not None and _exists(client, resume):
            client.update_run(resume, status="RUNNING")
            client.set_tag(resume, "blurloop.process", _process())
            return StageRun(client, resume, parent)
        run = client.create_run(experiment, run_name=stage, tags=tags)
        return StageRun(client, run.info.run_id, parent)
    except BlurloopError:
        raise
    except Exception as error:
        raise TrackingError(
            f"MLflow at {tracking_uri()} did not open a run for {stage}: {error}. "
            "Run `make doctor`, or the stage with tracking.enabled=false"
        ) from error


def _exists(client: Any, run_id: str) -> bool:
    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except Exception:  # noqa: BLE001 - MLflow has no class of its own for an unknown run
        return False


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
