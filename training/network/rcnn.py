"""Mask R-CNN and Keypoint R-CNN, built from torchvision's parts, written and read as a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anonymization.files import read_json, write_json
from training.config import DETECTRON2, NETWORKS, NetworkConfig
from training.errors import NetworkConfigError, TrainedNetworkError
from training.network.backbones import build_backbone
from training.network.detectron2_backbone import read_weights, start_heads, weights_source
from training.network.heads import PartialLabelHeads
from training.network.proposals import PartialLabelProposals, image_size

SCHEMA_VERSION = 1
WEIGHTS = "weights.safetensors"
NETWORK = "network.json"
HISTORY = "history.json"

MULTIPLE = 32
"""Height and width of a batch are multiples of this, the largest stride of the bodies."""


@dataclass(frozen=True)
class Finds:
    """What a network found in one picture, best first; D finds.

    Attributes:
        boxes: float32, shape (D, 4), xyxy in input pixels.
        scores: float32, shape (D,), probability of the label's class.
        labels: int64, shape (D,), position in the network's classes.
        maps: Of each map head: mask probabilities (M, 28, 28) or raw keypoint heat maps
            (P, 17, 56, 56), of the finds that have any, in order.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    maps: tuple[Tensor, ...]


class Network(nn.Module):
    """Backbone, proposals and heads over RGB pictures in [0, 1].

    Attributes:
        name: `mask_rcnn` or `keypoint_rcnn`.
        classes: Class names; labels are positions in it.
        keypoint_class: The class that has keypoints, or None.
        maps: What its map heads draw, in order: `mask`, `keypoint`.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        name: str,
        classes: Sequence[str],
        config: NetworkConfig,
        *,
        pretrained: bool,
        frozen: bool | None = None,
        keypoint_class: str | None,
    ) -> None:
        super().__init__()
        if name not in NETWORKS:
            raise NetworkConfigError(f"network is {name!r}; expected {', '.join(NETWORKS)} or all")
        self.name = name
        self.classes = tuple(classes)
        self.keypoint_class = keypoint_class
        self.config = config
        self.maps = config.maps(name)
        self.backbone = build_backbone(config.backbone, pretrained=pretrained, frozen=frozen)
        channels, strides = config.backbone.channels, self.backbone.strides
        self.proposals = PartialLabelProposals(channels, len(classes), strides, config.proposals)
        self.heads = PartialLabelHeads(
            channels,
            len(classes),
            strides[:-1],
            config.heads,
            maps=self.maps,
            posed=self.posed,
        )
        if pretrained and config.backbone.name.startswith(DETECTRON2):
            state = read_weights(weights_source(config.backbone))
            layers = {kind: len(config.heads.channels(kind)) for kind in self.maps}
            start_heads(self, state, self.heads.named_maps, layers=layers)
        self.register_buffer("pixel_mean", torch.tensor(self.backbone.mean).view(1, 3, 1, 1))
        self.register_buffer("pixel_std", torch.tensor(self.backbone.std).view(1, 3, 1, 1))

    @property
    def posed(self) -> int | None:
        """Label of the finds that get heat maps in a joint network; None in the others.

        Raises:
            NetworkConfigError: If it finds no class that has keypoints.
        """
        if len(self.maps) == 1:
            return None
        if self.keypoint_class not in self.classes:
            raise NetworkConfigError(
                f"training.{self.name}.joint is true, but the class with keypoints is "
                f"{self.keypoint_class}; expected one of {', '.join(self.classes)}. Name it in "
                "taxonomy.keypoint_class, or set joint to false"
            )
        return self.classes.index(self.keypoint_class)

    def forward(self, images: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return the losses of a batch.

        Args:
            images: float32, shape (N, 3, H, W), RGB in [0, 1], H and W multiples of 32.
            targets: One per picture, as `training.pictures.samples.to_target` makes them.
        """
        images = (images - self.pixel_mean) / self.pixel_std
        features = self.backbone(images)
        proposals, losses = self.proposals(images, features, targets)
        return {**losses, **self.heads.losses(features, proposals, targets)}

    def find(
        self, images: Tensor, score_min: Tensor | None = None, draw: Tensor | None = None
    ) -> list[Finds]:
        """Return what is found in each picture of a batch; call in eval mode.

        Args:
            images: As in `forward`.
            score_min: float32, shape (classes,): what stays below is left out before its maps are
                drawn; None keeps all.
            draw: float32, shape (classes,): above 0 where masks are wanted; None draws all.
        """
        images = (images - self.pixel_mean) / self.pixel_std
        features = self.backbone(images)
        proposals, _ = self.proposals(images, features, None)
        size = image_size(images)
        return [Finds(*f) for f in self.heads.finds(features, proposals, size, score_min, draw)]

    @property
    def graph(self) -> DetectionGraph:
        """The network as one picture in, plain tensors out; in eval mode."""
        return DetectionGraph(self).eval()


class DetectionGraph(nn.Module):
    """What is exported: (1, 3, H, W) in [0, 1] to boxes, scores, labels and maps of its finds."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, image: Tensor, score_min: Tensor | None = None, draw: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Return boxes (D, 4), scores (D,), labels (D,), and maps of each head as in `Finds`."""
        found = self.network.find(image, score_min, draw)[0]
        return found.boxes, found.scores, found.labels, *found.maps


def build_network(
    name: str,
    config: NetworkConfig,
    classes: Sequence[str],
    *,
    pretrained: bool | None = None,
    frozen: bool | None = None,
    keypoint_class: str | None = None,
) -> Network:
    """Build a network.

    Args:
        name: `mask_rcnn` or `keypoint_rcnn`.
        config: Its settings.
        classes: Class names that it finds.
        pretrained: Whether to start from ImageNet weights; None as the settings say.
        frozen: Whether early layers keep their weights as the settings say; None where pretrained.
        keypoint_class: The class that has keypoints; a joint network needs it.

    Raises:
        BackboneError: If the backbone is unknown, or its weights cannot be had.
    """
    start = config.backbone.pretrained if pretrained is None else pretrained
    return Network(
        name, classes, config, pretrained=start, frozen=frozen, keypoint_class=keypoint_class
    )


def save_network(network: Network, folder: Path, *, extra: dict[str, Any] | None = None) -> None:
    """Write weights and description into an existing folder; `extra` joins the description."""
    from safetensors.torch import save_file

    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    write_json(
        folder / NETWORK,
        {
            "schema_version": SCHEMA_VERSION,
            "network": network.name,
            "classes": list(network.classes),
            "keypoint_class": network.keypoint_class,
            "config": network.config.to_dict(),
            **(extra or {}),
        },
    )


def save_untrained(name: str, folder: Path) -> None:
    """Record in an existing folder that a network is not trained, and so has no weights."""
    record = {"schema_version": SCHEMA_VERSION, "network": name, "trained": False}
    write_json(folder / NETWORK, record)


def has_weights(folder: Path) -> bool:
    """Return whether the network of a folder was trained, rather than left out by its settings."""
    return bool(read_json(folder / NETWORK, schema_version=SCHEMA_VERSION).get("trained", True))


def load_network(folder: Path) -> Network:
    """Read a trained network, in eval mode.

    Raises:
        TrainedNetworkError: If the folder is incomplete or does not fit this version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    values = read_json(folder / NETWORK, schema_version=SCHEMA_VERSION)
    try:
        network = build_network(
            values["network"],
            NetworkConfig.from_dict(values["config"]),
            values["classes"],
            pretrained=False,
            keypoint_class=values["keypoint_class"],
        )
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (KeyError, OSError, RuntimeError, SafetensorError) as error:
        raise TrainedNetworkError(
            f"{folder} cannot be loaded: {str(error).splitlines()[0]}. Train again (dvc repro)"
        ) from error
    return network.eval()
