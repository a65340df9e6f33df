"""Starting a training from an earlier one of ours: drawn scenes, another source, the last turn.

What both networks have is taken over. Layers that decide class by class are taken over by class
name, so that taxonomies may differ: a class that the earlier network did not know starts anew.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from anonymization.files import read_json, sha256_of_file, sha256_of_json
from data.layout import TRAINED
from data.tracking.store import repository
from training.errors import StartError
from training.network.rcnn import NETWORK, SCHEMA_VERSION, WEIGHTS

if TYPE_CHECKING:
    from training.network.rcnn import Network

log = logging.getLogger(__name__)

FOLDER_VARIABLE = "BLURLOOP_STARTS"

BY_CLASS = (
    "proposals.head.cls_logits",
    "heads.box_predictor.scores",
    "heads.map_predictor.mask_fcn_logits",
)
"""Layers whose outputs are class by class, the class last: `(..., K)` flattened."""

FIXED = ("pixel_mean", "pixel_std")


@dataclass(frozen=True)
class Start:
    """A trained network that another training starts from.

    Attributes:
        folder: Holds its weights and description.
        network: `mask_rcnn` or `keypoint_rcnn`.
        classes: Class names by label.
        digest: SHA-256 over weights and classes: what the result depends on.
    """

    folder: Path
    network: str
    classes: tuple[str, ...]
    digest: str

    @classmethod
    def find(cls, name: str, network: str) -> Start:
        """Find what the setting `start` names for a network.

        Args:
            name: A folder with a trained network, or with one folder for each network.
            network: Network that will be trained.

        Raises:
            StartError: If there is none, or it is the output of this very stage.
        """
        given = os.environ.get(FOLDER_VARIABLE)
        root = Path(given).expanduser() if given else repository()
        folder = root / name
        if folder.resolve().is_relative_to((repository() / TRAINED).resolve()):
            raise StartError(
                f"training.{network}.start is {name!r}, which DVC deletes before it trains; "
                f"copy it first: cp -r {TRAINED} {TRAINED.parent}/kept"
            )
        folder = next((f for f in (folder, folder / network) if (f / NETWORK).is_file()), folder)
        if not (folder / NETWORK).is_file() or not (folder / WEIGHTS).is_file():
            raise StartError(
                f"training.{network}.start is {name!r}, but {folder} holds no trained network "
                f"({NETWORK}, {WEIGHTS}); name a folder relative to the repository, or to the one "
                f"that {FOLDER_VARIABLE} names"
            )
        values = read_json(folder / NETWORK, schema_version=SCHEMA_VERSION)
        classes = tuple(values["classes"])
        weights = sha256_of_file(folder / WEIGHTS)
        digest = sha256_of_json([values["network"], list(classes), weights])
        return cls(folder, values["network"], classes, digest)

    def load_into(self, network: Network) -> None:
        """Take over what fits.

        Raises:
            StartError: If its backbone is another one, or the file cannot be read.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            state = load_file(self.folder / WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise StartError(f"{self.folder / WEIGHTS} cannot be read: {error}") from error
        own = network.state_dict()
        taken = take_over(own, state, classes=network.classes, known=self.classes)
        strange = [key for key in own if key.startswith(("backbone.", *FIXED)) and key not in taken]
        if strange:
            raise StartError(
                f"the network in {self.folder} has another backbone ({strange[0]} differs); set "
                f"training.{network.name}.backbone as it was there ({NETWORK}), or another start"
            )
        network.load_state_dict(taken, strict=False)
        anew = sorted({key.rsplit(".", 1)[0] for key in own if key not in taken})
        log.info("%s starts from %s", network.name, self.folder)
        unknown = [name for name in network.classes if name not in self.classes]
        if unknown:
            log.info("classes that it did not know start anew: %s", ", ".join(unknown))
        if anew:
            log.info("layers of other size start anew: %s", ", ".join(anew))


def take_over(
    own: dict[str, Tensor],
    state: dict[str, Tensor],
    *,
    classes: Sequence[str],
    known: Sequence[str],
) -> dict[str, Tensor]:
    """Return the tensors that a network gets from an earlier one.

    Args:
        own: State of the network as it was built.
        state: State of the earlier one.
        classes: Classes of the network, by label.
        known: Classes of the earlier one.

    Returns:
        Of `own`, the keys that the earlier network has in the same size, its classes aside.
    """
    taken = {}
    for key, mine in own.items():
        theirs = state.get(key)
        if theirs is None:
            continue
        if key.rsplit(".", 1)[0] in BY_CLASS:
            theirs = by_class_name(mine, theirs, classes=classes, known=known)
        if theirs is not None and theirs.shape == mine.shape:
            taken[key] = theirs.to(mine.dtype)
    return taken


def by_class_name(
    mine: Tensor, theirs: Tensor, *, classes: Sequence[str], known: Sequence[str]
) -> Tensor | None:
    """Return `mine` with the rows of the classes that both know taken from `theirs`.

    Args:
        mine: Shape (A * K, ...), row a * K + k of class k; A is 1 but for anchors.
        theirs: Shape (A * L, ...).
        classes: The K classes of `mine`.
        known: The L classes of `theirs`.

    Returns:
        Shape (A * K, ...), or None where the rest of the shape, or A, differs.

    >>> import torch
    >>> mine, theirs = torch.zeros(4), torch.tensor([1.0, 2.0, 3.0, 4.0])
    >>> by_class_name(mine, theirs, classes=["face", "car"], known=["car", "dog"]).tolist()
    [0.0, 1.0, 0.0, 3.0]
    """
    if len(mine) // len(classes) != len(theirs) // len(known) or mine.shape[1:] != theirs.shape[1:]:
        return None
    rows = mine.clone().view(-1, len(classes), *mine.shape[1:])
    source = theirs.view(-1, len(known), *theirs.shape[1:])
    for label, name in enumerate(classes):
        if name in known:
            rows[:, label] = source[:, known.index(name)].to(mine.dtype)
    return rows.view_as(mine)
