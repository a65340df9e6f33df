"""The MLflow registry: versions of the model, the champion's alias and what moved it.

By hand: `python -m evaluation.registry history`, `rollback --name N --reason R`,
`override --version V --name N --reason R`. Callers that move the alias hold `registry_lock`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anonymization.card import FP32
from anonymization.errors import BlurloopError
from anonymization.files import read_json, write_json
from data.tracking.store import (
    TrackingConfig,
    experiment_id,
    open_client,
    registry_lock,
    shown_address,
    tracking_uri,
)
from evaluation.headline import verdict_note

OBJECTS = "objects.json"
VERDICT = "verdict.json"

REQUIREMENTS = ("numpy", "onnxruntime", "opencv-python-headless", "pillow", "mlflow")
"""What a server of the model installs; given by hand, as MLflow would import everything to ask."""

DESCRIPTION = (
    "Finds and obscures what may identify somebody in street imagery. The alias `champion`, and "
    "`champion-<variant>` for each variant, is what the gate promoted last: "
    "`anonymize --model models:/<name>@champion`."
)
"""Of the registered model."""


class RegistryError(BlurloopError):
    """The registry does not hold what was asked for."""


def champion_version(client: Any, model: str, alias: str) -> Any | None:
    """Return the version behind the alias, or None where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(model, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        where, why = shown_address(tracking_uri()), shown_address(str(error))
        raise RegistryError(f"the registry at {where} does not answer: {why}") from error


def variant_alias(alias: str, variant: str) -> str:
    """Return the alias under which a variant of the model is promoted.

    >>> variant_alias("champion", "fp32"), variant_alias("champion", "int8_weights")
    ('champion', 'champion-int8-weights')
    """
    return alias if variant == FP32 else f"{alias}-{variant.replace('_', '-')}"


def versions(client: Any, model: str) -> list[Any]:
    """Return all versions of a model, oldest first."""
    found = client.search_model_versions(f"name = '{model}'")
    return sorted(found, key=lambda version: int(version.version))


def version_of_bundle(client: Any, model: str, digest: str) -> Any | None:
    """Return the version that a bundle is registered as, or None."""
    same = [v for v in versions(client, model) if v.tags.get("bundle_digest") == digest]
    return same[0] if same else None


def save_model(folder: Path, bundle: Path, verdict: Mapping[str, Any]) -> None:
    """Write a pyfunc model around a bundle and its verdict: code and data, no pickle."""
    import mlflow.pyfunc

    import anonymization
    import evaluation

    with tempfile.TemporaryDirectory() as work:
        copy = Path(work) / "bundle"
        shutil.copytree(bundle, copy, ignore=shutil.ignore_patterns(VERDICT))
        write_json(copy / VERDICT, dict(verdict))
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=str(Path(evaluation.__path__[0]) / "serving.py"),
            artifacts={"bundle": str(copy)},
            pip_requirements=list(REQUIREMENTS),
            code_paths=[str(Path(anonymization.__path__[0]))],
        )


def register(
    client: Any, model: str, *, run_id: str, bundle: Path, verdict: Mapping[str, Any]
) -> Any:
    """Register a bundle as a version of the model; one that is registered keeps its version.

    Its tags say what the latest judgement was and which run (`judged_run`) holds its objects.
    """
    from mlflow.exceptions import MlflowException

    found = version_of_bundle(client, model, str(verdict["bundle_digest"]))
    keys = ("bundle_digest", "reference_digest", "code_revision", "outcome")
    tags = {key: str(verdict[key]) for key in keys} | {"judged_run": run_id}
    note = verdict_note(verdict)
    if found is not None:
        for key, value in tags.items():
            if found.tags.get(key) != value:
                client.set_model_version_tag(model, found.version, key, value)
        if found.description != note:
            client.update_model_version(model, found.version, note)
        return found
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "model"
        save_model(folder, bundle, verdict)
        client.log_artifacts(run_id, str(folder), "model")
    try:
        client.create_registered_model(model, description=DESCRIPTION)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"{client.get_run(run_id).info.artifact_uri}/model"
    about = {"run_id": run_id, "tags": tags, "description": note}
    return client.create_model_version(model, source=source, **about)


def move_alias(
    client: Any, model: str, alias: str, version: str, *, experiment: str, reason: str, name: str
) -> None:
    """Point the alias at a version and record who moved it, from where and why."""
    before = champion_version(client, model, alias)
    was = before.version if before is not None else ""
    if was == version:
        return
    tags = {
        "blurloop.role": "move",
        "model": model,
        "alias": alias,
        "from": str(was),
        "to": str(version),
        "reason": reason,
        "name": name,
    }
    run = client.create_run(experiment, run_name=f"{alias} -> {version}", tags=tags)
    if was:
        client.set_model_version_tag(model, version, "champion_before", str(was))
    client.set_registered_model_alias(model, alias, version)
    client.set_terminated(run.info.run_id, "FINISHED")


def artifact_json(client: Any, run_id: str, name: str) -> Any:
    """Read a JSON artifact of a run."""
    with tempfile.TemporaryDirectory() as work:
        return read_json(Path(client.download_artifacts(run_id, name, work)))


def history(client: Any, experiment: str) -> list[dict[str, str]]:
    """Return every move of an alias, oldest first."""
    runs = client.search_runs(
        [experiment],
        filter_string="tags.`blurloop.role` = 'move'",
        order_by=["attributes.start_time ASC"],
    )
    keys = ("alias", "from", "to", "name", "reason")
    return [{key: run.data.tags.get(key, "") for key in keys} for run in runs]


def _need(name: str, reason: str) -> None:
    for what, value in (("--name", name), ("--reason", reason)):
        if not value.strip():
            raise RegistryError(f"{what} is empty; say who moves the alias and why")


def rollback(
    client: Any, model: str, alias: str, *, experiment: str, name: str, reason: str
) -> str:
    """Point the alias at the champion before, and keep the gate from promoting this one again.

    Returns:
        The version that is the champion now.

    Raises:
        RegistryError: If there is no champion or none before it.
    """
    _need(name, reason)
    present = champion_version(client, model, alias)
    if present is None:
        raise RegistryError(f"model {model} has no {alias}; there is nothing to roll back")
    before = present.tags.get("champion_before")
    if not before:
        raise RegistryError(
            f"version {present.version} of {model} is the first {alias}; there is none before it"
        )
    client.set_model_version_tag(model, present.version, "rolled_back", f"{name}: {reason}")
    move_alias(
        client, model, alias, before, experiment=experiment, reason=f"rollback: {reason}", name=name
    )
    return str(before)


def override(
    client: Any, model: str, alias: str, version: str, *, experiment: str, name: str, reason: str
) -> None:
    """Point the alias at a version by hand; its tags and description say who and why.

    Raises:
        RegistryError: If the version does not exist.
    """
    _need(name, reason)
    known_versions = {str(v.version): v for v in versions(client, model)}
    if version not in known_versions:
        known = ", ".join(known_versions) or "none"
        raise RegistryError(f"model {model} has no version {version}; known versions: {known}")
    said = f"override by {name}: {reason}"
    client.set_model_version_tag(model, version, "override", said)
    client.update_model_version(model, version, description=said)
    if "rolled_back" in known_versions[version].tags:
        client.delete_model_version_tag(model, version, "rolled_back")
    move_alias(client, model, alias, version, experiment=experiment, reason=said, name=name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m evaluation.registry", description=__doc__)
    parser.add_argument("--model", default="anonymizer")
    parser.add_argument("--alias", default="champion")
    parser.add_argument("--experiment", default=TrackingConfig().experiment)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("history", help="print every move of the alias")
    for command in ("rollback", "override"):
        sub = commands.add_parser(command)
        sub.add_argument("--name", required=True, help="who moves the alias")
        sub.add_argument("--reason", required=True)
    commands.choices["override"].add_argument("--version", required=True)
    return parser


def run(arguments: Sequence[str]) -> None:
    """Do what a command line asks."""
    asked = _parser().parse_args(arguments)
    client = open_client()
    experiment = experiment_id(client, asked.experiment)
    if asked.command == "history":
        for move in history(client, experiment):
            print(  # noqa: T201
                f"{move['alias']}: {move['from'] or 'none'} -> {move['to']} "
                f"by {move['name']}: {move['reason']}"
            )
        return
    by = {"experiment": experiment, "name": asked.name, "reason": asked.reason}
    with registry_lock():
        if asked.command == "rollback":
            version = rollback(client, asked.model, asked.alias, **by)
        else:
            version = asked.version
            override(client, asked.model, asked.alias, version, **by)
    print(f"{asked.model}@{asked.alias} is version {version}")  # noqa: T201


if __name__ == "__main__":
    try:
        run(sys.argv[1:])
    except BlurloopError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
