"""Bundles by name: a folder, a model of an MLflow registry (extra `registry`), or the demo.

MLflow is imported only when a name asks for it: an operator with a bundle folder needs none.
"""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
"""Three tries of five seconds and the waits between them: at most 20 seconds for a question to a
server that is not there. MLflow's own are eight tries of two minutes."""

_SQLITE = re.compile(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?")


class RegistryError(BlurloopError):
    """A registered model cannot be had."""


class NoModelError(BlurloopError):
    """No model was named and none is configured."""

    exit_code = 2


@contextmanager
def bounded_patience() -> Iterator[None]:
    """Let MLflow wait for no more than `PATIENCE` in the block, where the user has set nothing."""
    added = [name for name in PATIENCE if name not in os.environ]
    os.environ.update({name: PATIENCE[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def load_bundle(model: str | None, *, tell: Callable[[str], None] | None = None) -> Bundle:
    """Load the bundle that a name means.

    Args:
        model: Folder, `models:/name@alias`, `models:/name/version`, or None for the champion of
            the registry that `MLFLOW_TRACKING_URI` names, and without one the demo bundle.
        tell: Takes a line that says which registry is asked, before it is.

    Raises:
        NoModelError: If there is no name and no registry configured.
        RegistryError: If the registry does not give the model.
        BundleError: If the bundle is not what its card says.
    """
    if model is None:
        if not _registry_is_configured() and (DEMO / CARD).is_file():
            return Bundle.load(DEMO)
        return load_registered(_configured_champion(), tell=tell)
    return load_registered(model, tell=tell) if model.startswith(SCHEME) else Bundle.load(model)


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


def load_registered(uri: str, *, tell: Callable[[str], None] | None = None) -> Bundle:
    """Download a registered model and load the bundle inside.

    Args:
        uri: `models:/name@alias` or `models:/name/version`.
        tell: As in `load_bundle`.

    Raises:
        RegistryError: If MLflow is not installed, no registry is configured or its database is
            not there, or it does not answer or give the model.
        BundleError: If the model holds no bundle, or a damaged one.
    """
    # MLflow draws a bar of its own under the anonymizer's.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        from mlflow import get_registry_uri, get_tracking_uri
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
    address = get_registry_uri()
    for place in (address, get_tracking_uri()):
        _check_database(place, uri)
    where = _without_password(address)
    if tell is not None:
        tell(f"asking the MLflow registry at {where} for {uri}")
    with tempfile.TemporaryDirectory(prefix="blurloop-model-") as folder:
        try:
            local = Path(download_artifacts(artifact_uri=uri, dst_path=folder))
        except (MlflowException, OSError) as error:
            silence = _silence(error)
            if silence is not None:
                raise RegistryError(
                    f"{uri} cannot be had: the MLflow registry at {where} does not answer "
                    f"({silence}). Check MLFLOW_TRACKING_URI and the network, or give --model "
                    "BUNDLE_FOLDER; a slow server gets more time by MLFLOW_HTTP_REQUEST_TIMEOUT, "
                    "in seconds, and MLFLOW_HTTP_REQUEST_MAX_RETRIES"
                ) from error
            raise RegistryError(
                f"{uri} cannot be had from the registry: {_without_password(str(error))}. Check "
                "MLFLOW_TRACKING_URI, and that the gate has promoted a model"
            ) from error
        # The bundle's bytes are in memory afterwards, so that the download need not stay.
        return replace(Bundle.load(find_bundle(local, uri)), path=Path(uri))


def _check_database(address: str, uri: str) -> None:
    """Refuse an SQLite database that is not there: MLflow would make an empty one."""
    named = _SQLITE.fullmatch(address)
    if named is not None and named[1] != ":memory:" and not Path(named[1]).is_file():
        raise RegistryError(
            f"{uri} cannot be had: {named[1]}, the database of the MLflow registry, is not there. "
            f"Check MLFLOW_TRACKING_URI, which is {address} (an absolute path has four slashes)"
        )


def _without_password(text: str) -> str:
    """Return an address, or a text with some, without names and passwords.

    >>> _without_password("https://bob:s3cret@host/mlflow")
    'https://...@host/mlflow'
    """
    return re.sub(r"(?<=://)[^/@\s]*@", "...@", text)


def _silence(error: BaseException) -> str | None:
    """Return in a few words why a server does not answer; None where that is not what is wrong."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TimeoutError):
            return "timed out"
        if isinstance(cause, ConnectionError | socket.gaierror):
            return cause.strerror or "no connection"
        cause = cause.__cause__ or cause.__context__
    return None


def find_bundle(folder: Path, name: str) -> Path:
    """Return the one folder with a card inside a downloaded model.

    Raises:
        BundleError: If there is none or more than one.
    """
    found = sorted(card.parent for card in folder.rglob(CARD))
    if len(found) != 1:
        raise BundleError(f"{name} holds {len(found)} bundles; expected one folder with {CARD}")
    return found[0]
