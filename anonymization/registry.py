"""Bundles by name: a folder, a model of an MLflow registry (extra `registry`), or the demo.

MLflow is imported only when a name asks for it: an operator with a bundle folder needs none.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from dataclasses import replace
from pathlib import Path

from anonymization.bundle import Bundle
from anonymization.card import CARD, BundleError
from anonymization.errors import BlurloopError

SCHEME = "models:/"
CHAMPION = "models:/anonymizer@champion"
DEMO = Path(__file__).parents[1] / "models" / "demo"
"""The demo bundle of a clone; wheels hold code and configuration only."""

TRACKING_VARIABLES = ("MLFLOW_REGISTRY_URI", "MLFLOW_TRACKING_URI")


class RegistryError(BlurloopError):
    """A registered model cannot be had."""


class NoModelError(BlurloopError):
    """No model was named and none is configured."""

    exit_code = 2


def load_bundle(model: str | None) -> Bundle:
    """Load the bundle that a name means.

    Args:
        model: Folder, `models:/name@alias`, `models:/name/version`, or None for the champion of
            the registry that `MLFLOW_TRACKING_URI` names, and without one the demo bundle.

    Raises:
        NoModelError: If there is no name and no registry configured.
        RegistryError: If the registry does not give the model.
        BundleError: If the bundle is not what its card says.
    """
    if model is None:
        if not _registry_is_configured() and (DEMO / CARD).is_file():
            return Bundle.load(DEMO)
        return load_registered(_configured_champion())
    return load_registered(model) if model.startswith(SCHEME) else Bundle.load(model)


def warning_about(model: str | None, bundle: Bundle) -> str | None:
    """Return one line for whoever uses a loaded bundle, or None where there is nothing to say.

    Args:
        model: The name that it was loaded by.
        bundle: The bundle.
    """
    if model is not None or bundle.path != DEMO:
        return bundle.warning
    recalls = {} if bundle.verdict is None else bundle.verdict.recalls()
    measured = ", ".join(f"{name} {recall}" for name, recall in recalls.items())
    return (
        "no model was named and no registry is configured: this is the demo bundle, "
        + (f"measured recall (detected/covered): {measured}" if measured else "not measured")
        + ". Do not publish what it anonymized without looking at it"
        + (f". Note: {bundle.card.note}" if bundle.card.note else "")
    )


def _registry_is_configured() -> bool:
    return any(os.environ.get(name) for name in TRACKING_VARIABLES)


def _configured_champion() -> str:
    if not _registry_is_configured():
        raise NoModelError(
            "no model: give --model BUNDLE_FOLDER (the loop writes artifacts/bundle; models/demo "
            f"of a clone is a small one), or --model {CHAMPION}, or install blurloop[registry] and "
            "set MLFLOW_TRACKING_URI to use the champion"
        )
    if importlib.util.find_spec("mlflow") is None:
        named = next(name for name in TRACKING_VARIABLES if os.environ.get(name))
        raise NoModelError(
            f"no model: {named} names a registry, which needs blurloop[registry]; install that, "
            f"unset {named}, or give --model BUNDLE_FOLDER"
        )
    return CHAMPION


def load_registered(uri: str) -> Bundle:
    """Download a registered model and load the bundle inside.

    Raises:
        RegistryError: If MLflow is not installed, no registry is configured, or it does not give
            the model.
        BundleError: If the model holds no bundle, or a damaged one.
    """
    # MLflow draws a bar of its own under the anonymizer's.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import is_tracking_uri_set
    except ImportError as error:
        raise RegistryError(
            f"{uri} is in an MLflow registry; install blurloop[registry], or give a bundle folder"
        ) from error
    if not (_registry_is_configured() or is_tracking_uri_set()):  # type: ignore[no-untyped-call]
        # MLflow would make an empty registry in the current folder.
        raise RegistryError(
            f"{uri} is in an MLflow registry, and none is configured: set MLFLOW_TRACKING_URI, as "
            "in MLFLOW_TRACKING_URI=https://SERVER, or sqlite:////FOLDER/mlruns.db of a loop"
        )
    with tempfile.TemporaryDirectory(prefix="blurloop-model-") as folder:
        try:
            local = Path(download_artifacts(artifact_uri=uri, dst_path=folder))
        except (MlflowException, OSError) as error:
            raise RegistryError(
                f"{uri} cannot be had from the registry: {error}. Check MLFLOW_TRACKING_URI, and "
                "that the gate has promoted a model"
            ) from error
        # The bundle's bytes are in memory afterwards, so that the download need not stay.
        return replace(Bundle.load(find_bundle(local, uri)), path=Path(uri))


def find_bundle(folder: Path, name: str) -> Path:
    """Return the one folder with a card inside a downloaded model.

    Raises:
        BundleError: If there is none or more than one.
    """
    found = sorted(card.parent for card in folder.rglob(CARD))
    if len(found) != 1:
        raise BundleError(f"{name} holds {len(found)} bundles; expected one folder with {CARD}")
    return found[0]
