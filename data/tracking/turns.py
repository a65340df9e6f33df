"""A turn of the loop as one MLflow run: what identifies it, and what hangs below it."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anonymization.files import read_json, sha256_of_file, sha256_of_json
from data.layout import PREPARED, SPLITS, TRAINED
from data.tracking.revisions import git_revision
from data.tracking.store import experiment_name, registry_lock

PARAMS_PER_CALL = 100
"""More in one call are refused (mlflow.utils.validation.MAX_PARAMS_TAGS_PER_BATCH)."""

PARAM_CHARACTERS = 6000
"""MLflow refuses longer values (mlflow.utils.validation.MAX_PARAM_VAL_LENGTH)."""

TURN_VARIABLE = "BLURLOOP_TURN_RUN"
"""Names a run, made by the caller of DVC, that becomes the turn's parent run: a sweep makes one for
each of its trials."""


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


def provenance() -> dict[str, str]:
    """Return the tags that say what a run was made from."""
    tags = {"blurloop.turn": turn_id(), "mlflow.source.git.commit": git_revision()}
    name = experiment_name()
    if name:
        tags["dvc.experiment"] = name
    for path in (Path("dvc.lock"), *(PREPARED / f"{split}.json" for split in SPLITS)):
        if path.is_file():
            tags[f"digest.{path.name}"] = sha256_of_file(path)
    return tags


def log_params(client: Any, run_id: str, params: Mapping[str, str]) -> None:
    """Record settings, in as many calls as MLflow asks for."""
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


def open_parent(client: Any, experiment: str) -> str:
    """Find this turn's parent run, or make it; two stages at once make one."""
    tags = provenance()
    with registry_lock():
        found = find_parent(client, experiment, tags["blurloop.turn"])
        if found is not None:
            return str(found.info.run_id)
        name = experiment_name() or f"turn-{tags['blurloop.turn'][:8]}"
        tags |= {"blurloop.role": "turn"}
        run_id = os.environ.get(TURN_VARIABLE, "")
        if run_id and exists(client, run_id):
            for key, value in tags.items():
                client.set_tag(run_id, key, value)
        else:
            run_id = client.create_run(experiment, run_name=name, tags=tags).info.run_id
        log_params(client, run_id, _params())
    return str(run_id)


def process() -> str:
    """Return what names this process beyond its machine."""
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


def end_killed_runs(client: Any, experiment: str, parent: str) -> None:
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


def exists(client: Any, run_id: str) -> bool:
    """Return whether there is such a run, and nobody deleted it."""
    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except Exception:  # noqa: BLE001 - MLflow has no class of its own for an unknown run
        return False
