"""Reads weights of torchvision's detectors from a file or an address, and puts them into a model.

A file of weights is read as tensors alone (`weights_only`): reading one cannot run foreign code.
"""

from __future__ import annotations

import hashlib
import http.client
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anonymization.errors import BlurloopError
from anonymization.files import sha256_of_file

TIMEOUT_S = 30.0
"""Longest silence of a server before the download is given up."""


class ZooWeightsError(BlurloopError):
    """Weights cannot be had, cannot be read, or do not fit the model."""


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights on this machine.

    Attributes:
        path: Where it lies.
        origin: Address that it came from, or its name alone: a bundle that is handed over does
            not tell the folders of the machine that made it.
        sha256: Digest of its bytes.
    """

    path: Path
    origin: str
    sha256: str


def find_weights(given: str | None, official: str, option: str) -> WeightsFile:
    """Return the file that holds the weights, downloaded where it must be.

    Downloads are kept where torch.hub keeps them (`TORCH_HOME`), and taken from there next time.

    Args:
        given: A path, an http(s) address, or None for torchvision's own.
        official: Address of torchvision's own; its name ends in the start of its digest.
        option: Option of the command line that takes another file; for the error.

    Raises:
        ZooWeightsError: If there is no such file, it cannot be downloaded, or it is damaged.
    """
    where = official if given is None else given
    if not where.startswith(("http://", "https://")):
        path = Path(where)
        if not path.is_file():
            raise ZooWeightsError(
                f"weights {where} are no file; {option} takes the path of one, or its http(s) "
                "address"
            )
        return WeightsFile(path, path.name, sha256_of_file(path))
    path = _kept(where, official)
    if not path.is_file():
        _download(where, path, option)
    digest = sha256_of_file(path)
    start = path.stem.rpartition("-")[2]
    if where == official and not digest.startswith(start):
        raise ZooWeightsError(
            f"{path} has sha256 {digest}; that of {where} starts with {start}. The file was "
            "changed or damaged: delete it and run the command again"
        )
    return WeightsFile(path, where, digest)


def _kept(where: str, official: str) -> Path:
    """Return where a download is kept: torchvision's own under its name, as torchvision does."""
    name = where.rstrip("/").rpartition("/")[2].partition("?")[0] or "weights"
    if where != official:
        name = f"{hashlib.sha256(where.encode()).hexdigest()[:16]}-{name}"
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def _download(where: str, path: Path, option: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_S)
    try:
        torch.hub.download_url_to_file(where, str(path))
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ZooWeightsError(
            f"weights cannot be downloaded from {where}: {error}. Without a network, bring the "
            f"file from a machine that has one and name it with {option} PATH, or leave this "
            "network out with --network"
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def load_weights(model: nn.Module, file: WeightsFile, *, name: str) -> None:
    """Put weights into a model, in place.

    Layers that older versions of torchvision named otherwise are renamed by torchvision itself.

    Args:
        model: torchvision's detector.
        file: A state dictionary as `torch.save` writes it, or a checkpoint of torchvision's
            training scripts that holds one under `model`.
        name: What the model is called in messages.

    Raises:
        ZooWeightsError: If the file is none, or a layer is missing, unknown or of another shape.
    """
    state = _read(file)
    try:
        missing, unknown = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        wrong = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
        what = wrong[0] if wrong else " ".join(str(error).split())
        raise _misfit(file, name, f"{max(len(wrong), 1)} of other shapes, first {what}") from error
    # How many batches a norm has seen means nothing here; frozen norms do not keep it.
    lacking = [key for key in missing if not key.endswith("num_batches_tracked")]
    if lacking or unknown:
        parts = [
            f"{len(keys)} {what}, first {keys[0]}"
            for what, keys in (("missing", lacking), ("unknown", unknown))
            if keys
        ]
        raise _misfit(file, name, "; ".join(parts))


def _misfit(file: WeightsFile, name: str, what: str) -> ZooWeightsError:
    return ZooWeightsError(
        f"weights {file.origin} do not fit {name} as trained on COCO: {what.rstrip('.')}. Give "
        "weights of this model, or choose the model that they are of with --mask-model"
    )


def _read(file: WeightsFile) -> dict[str, Tensor]:
    try:
        state: Any = torch.load(file.path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch raises whatever its reader stumbles over.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ZooWeightsError(
            f"weights {file.path} cannot be read: {reason}. Expected a state dictionary as "
            "torch.save writes it; a damaged download is to be deleted"
        ) from error
    if isinstance(state, Mapping) and isinstance(state.get("model"), Mapping):
        state = state["model"]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ZooWeightsError(
            f"weights {file.path} hold no state dictionary; expected a tensor for each name"
        )
    return state
