"""Settings of `python -m training.zoo`; checked before anything heavy loads."""

from __future__ import annotations

from dataclasses import dataclass

from anonymization.card import GraphInput
from anonymization.errors import BlurloopError
from training.config import NETWORKS

MASK_MODELS = ("maskrcnn_resnet50_fpn_v2", "maskrcnn_resnet50_fpn")
KEYPOINT_MODEL = "keypointrcnn_resnet50_fpn"

SCORE_MIN = 0.05
"""Least score of a find; torchvision's `box_score_thresh`."""

THRESHOLD = 0.3
"""Least score that counts. Not measured here: lower than the 0.5 of demonstrations, as a find too
many is a smaller loss than one too few."""

UPSCALE_MAX = 2.0
"""torchvision enlarges a picture of 640x480, COCO's usual size, by 1.67 before it looks at it."""


class ZooError(BlurloopError):
    """A setting of the command does not fit."""

    exit_code = 2


@dataclass(frozen=True)
class ZooConfig:
    """What the bundle is made of.

    Attributes:
        networks: `mask_rcnn`, `keypoint_rcnn`, or both.
        mask_model: torchvision's name of the mask network.
        mask_weights: Path or address of its weights; None takes torchvision's own.
        keypoint_weights: The same of the keypoint network.
        long_side: Length in pixels that a picture's longer side is resized to.
        threshold: Least score that counts, of every class and of heads; from `SCORE_MIN` to 1.
    """

    networks: tuple[str, ...] = NETWORKS
    mask_model: str = MASK_MODELS[0]
    mask_weights: str | None = None
    keypoint_weights: str | None = None
    long_side: int = 1024
    threshold: float = THRESHOLD

    def __post_init__(self) -> None:
        if not self.networks or not set(self.networks) <= set(NETWORKS):
            raise ZooError(
                f"networks are {list(self.networks)}; expected some of {', '.join(NETWORKS)}"
            )
        if self.mask_model not in MASK_MODELS:
            raise ZooError(
                f"mask model is {self.mask_model!r}; expected one of {', '.join(MASK_MODELS)}"
            )
        if not SCORE_MIN <= self.threshold <= 1:
            raise ZooError(
                f"threshold is {self.threshold}; expected a number from {SCORE_MIN} to 1: the "
                "networks return nothing below"
            )
        GraphInput(long_side=self.long_side)  # checks it

    def model(self, network: str) -> str:
        """Return torchvision's name of a network's model."""
        return self.mask_model if network == "mask_rcnn" else KEYPOINT_MODEL
