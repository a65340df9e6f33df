"""Settings of the training stage, one section per network; checked before anything heavy loads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from training.errors import NetworkConfigError

NETWORKS = ("mask_rcnn", "keypoint_rcnn")
MASK, KEYPOINT = "mask", "keypoint"
"""What a map head draws of an object: its mask, or heat maps of its keypoints."""
NORMS = ("frozen", "trained")
OPTIMIZERS = ("adamw", "sgd")
DETECTRON2 = "detectron2/"
"""What names of detectron2's backbones start with; the rest is a model zoo configuration."""


def _require(ok: bool, what: str, value: object, expected: str) -> None:
    if not ok:
        raise NetworkConfigError(f"training: {what} is {value!r}; expected {expected}")


def _require_shares(owner: object, names: Iterable[str]) -> None:
    for name in names:
        value = getattr(owner, name)
        _require(0 <= value <= 1, name, value, "a share from 0 to 1")


def _require_positive(owner: object, names: Iterable[str]) -> None:
    for name in names:
        value = getattr(owner, name)
        _require(value > 0, name, value, "a number above 0")


@dataclass(frozen=True)
class BackboneConfig:
    """Feature extractor and pyramid.

    Attributes:
        name: `tf_efficientnet_lite0` to `lite2`, `resnet50`, `resnet101`, `mobilenet_v3_large`,
            `timm/<name>` for any of timm's feature extractors, or `detectron2/<name>` for the
            pyramid of a configuration in detectron2's model zoo (docs/detectron2.md).
        pretrained: Start from ImageNet weights. Those of `tf_efficientnet_lite0` to `lite2` come
            from installed packages; the others are downloaded by torchvision and timm. A backbone
            of detectron2 starts from `weights`.
        norm: `frozen` keeps batch statistics as pretrained (right for the few pictures a batch
            holds here), `trained` learns them. Scales and shifts are trained with both, behind
            `frozen_stride`.
        strides: Strides of the levels that enter the pyramid; one more is pooled on top.
        channels: Channels of each level of the pyramid.
        frozen_stride: Layers whose maps have this stride or a smaller one keep their pretrained
            weights; 0 trains all. Early layers hold edges and colours, and cost most to train.
        weights: Path or URL of the weights that a backbone of detectron2 starts from (`.pkl`,
            `.pth`); empty downloads those of its configuration in the model zoo.
    """

    name: str = "tf_efficientnet_lite0"
    pretrained: bool = True
    norm: str = "frozen"
    strides: list[int] = field(default_factory=lambda: [4, 8, 16, 32])
    channels: int = 96
    frozen_stride: int = 0
    weights: str = ""

    def __post_init__(self) -> None:
        _require(self.norm in NORMS, "backbone.norm", self.norm, " or ".join(NORMS))
        _require_positive(self, ["channels"])
        ok = bool(self.strides) and all(s in (4, 8, 16, 32) for s in self.strides)
        ok = ok and all(b == 2 * a for a, b in zip(self.strides, self.strides[1:], strict=False))
        _require(ok, "backbone.strides", list(self.strides), "neighbours among 4, 8, 16, 32")
        if self.weights:
            ok = self.pretrained and self.name.startswith(DETECTRON2)
            expected = f"'' unless backbone.name starts with {DETECTRON2} and pretrained is true"
            _require(ok, "backbone.weights", self.weights, expected)


@dataclass(frozen=True)
class ProposalConfig:
    """Region proposals.

    Attributes:
        anchor_sizes: Square root of the anchors' area in input pixels, one per pyramid level
            (the pooled one included).
        anchor_ratios: Height over width of the anchors at each position.
        positive_iou: IoU with an object of a class from which an anchor is a positive of it.
        negative_iou: IoU below which it is a negative.
        samples: Anchors per picture that enter the loss.
        pre_nms, post_nms: Proposals per level before, and per picture after suppression.
        nms_iou: IoU above which the weaker of two proposals is dropped.
    """

    anchor_sizes: list[float] = field(default_factory=lambda: [14.0, 28.0, 56.0, 112.0, 224.0])
    anchor_ratios: list[float] = field(default_factory=lambda: [0.4, 1.0, 2.2])
    positive_iou: float = 0.6
    negative_iou: float = 0.3
    samples: int = 256
    pre_nms_train: int = 400
    post_nms_train: int = 300
    pre_nms_eval: int = 300
    post_nms_eval: int = 200
    nms_iou: float = 0.7

    def __post_init__(self) -> None:
        _require_shares(self, ["positive_iou", "negative_iou", "nms_iou"])
        _require_positive(
            self,
            ["samples", "pre_nms_train", "post_nms_train", "pre_nms_eval", "post_nms_eval"],
        )
        _require(
            self.negative_iou <= self.positive_iou,
            "proposals.negative_iou",
            self.negative_iou,
            f"at most positive_iou ({self.positive_iou})",
        )
        for name in ("anchor_sizes", "anchor_ratios"):
            value = list(getattr(self, name))
            _require(bool(value) and min(value) > 0, f"proposals.{name}", value, "sizes above 0")


@dataclass(frozen=True)
class HeadConfig:
    """Box head, and mask head, keypoint head or both.

    Attributes:
        box_features: Width of the two layers of the box head.
        samples: Proposals per picture that enter the loss.
        positive_share: Most positives among them.
        match_iou: IoU from which a proposal is a positive of an object's class.
        mask_channels, keypoint_channels: Channels of each convolution of the mask head and of the
            keypoint head, where the network has it.
        map_samples: Most positives per picture that enter the loss of each of them.
        mask_weight, keypoint_weight: Weights of their losses.
        dice_weight: Weight of the Dice loss within the mask loss, beside cross-entropy.
        score_min: Finds below this score are never returned; thresholds above it are calibrated.
        nms_iou: IoU above which the weaker of two finds of one class is dropped.
        finds_max: Most finds per picture.
    """

    box_features: int = 256
    samples: int = 96
    positive_share: float = 0.25
    match_iou: float = 0.5
    mask_channels: list[int] = field(default_factory=lambda: [96, 96])
    keypoint_channels: list[int] = field(default_factory=lambda: [96, 96])
    map_samples: int = 16
    mask_weight: float = 1.0
    keypoint_weight: float = 0.5
    dice_weight: float = 1.0
    score_min: float = 0.02
    nms_iou: float = 0.5
    finds_max: int = 100

    def __post_init__(self) -> None:
        _require_shares(self, ["positive_share", "match_iou", "score_min", "nms_iou"])
        _require_positive(self, ["box_features", "samples", "map_samples", "finds_max"])
        for kind in (MASK, KEYPOINT):
            value = self.channels(kind)
            what = f"heads.{kind}_channels"
            _require(bool(value) and min(value) > 0, what, value, "channels above 0")

    def channels(self, kind: str) -> list[int]:
        """Return the channels of each convolution of the `mask` or the `keypoint` head."""
        return list(self.keypoint_channels if kind == KEYPOINT else self.mask_channels)

    def weight(self, kind: str) -> float:
        """Return the weight of the `mask` or the `keypoint` loss."""
        return self.keypoint_weight if kind == KEYPOINT else self.mask_weight


@dataclass(frozen=True)
class InputConfig:
    """Size of the pictures that the network sees.

    Attributes:
        long_side: Longer side in pixels; larger pictures are shrunk to it.
        upscale_max: Most that a smaller picture is enlarged.
        min_side_px: Objects with a box side below this at input size are neither positive nor
            negative: too few pixels to tell what they are.
    """

    long_side: int = 512
    upscale_max: float = 1.0
    min_side_px: float = 4.0

    def __post_init__(self) -> None:
        _require(self.long_side >= 64, "input.long_side", self.long_side, "64 or more")
        _require_positive(self, ["upscale_max"])


@dataclass(frozen=True)
class AugmentationConfig:
    """Random changes of the training pictures.

    Attributes:
        flip: Share of pictures mirrored left to right.
        scale_min, scale_max: Range of the size relative to `input.long_side`; what exceeds the
            input is cropped at random.
        scale_first: Factor on both in the first epoch; it rises evenly, to 1 in the last.
            Small pictures are cheap, and early epochs have the coarse things to learn.
        visible_min: An object of which the crop leaves a smaller share is ignored.
        light, colour, gray, blur, noise, compression: Share of pictures with other brightness,
            contrast and gamma (night included); other hue and saturation; no colour; blur;
            sensor noise; JPEG artefacts.
        mosaic: Share of pictures that are joined with three others that are labelled for the same
            classes (training/pictures/mosaic.py).
        paste: Share of pictures into which outlined objects of others are pasted, with what lies
            in them (training/pictures/pasting.py).
        paste_objects: Most objects pasted into one picture.
        rotation: Degrees by which pictures are turned at most, to either side.
        perspective: Share of the sides by which each corner moves at most.
    """

    flip: float = 0.5
    scale_min: float = 0.7
    scale_max: float = 1.3
    scale_first: float = 1.0
    visible_min: float = 0.3
    light: float = 0.5
    colour: float = 0.3
    gray: float = 0.05
    blur: float = 0.15
    noise: float = 0.15
    compression: float = 0.15
    mosaic: float = 0.0
    paste: float = 0.0
    paste_objects: int = 3
    rotation: float = 0.0
    perspective: float = 0.0

    def __post_init__(self) -> None:
        shares = ["flip", "visible_min", "light", "colour", "gray", "blur", "noise", "compression"]
        _require_shares(self, [*shares, "mosaic", "paste"])
        _require_positive(self, ["scale_min", "paste_objects"])
        _require(0 <= self.rotation <= 45, "rotation", self.rotation, "0 to 45 degrees")
        # From a quarter on, corners could change places.
        _require(0 <= self.perspective < 0.25, "perspective", self.perspective, "0 to below 0.25")
        ok = 0 < self.scale_first <= 1
        _require(ok, "augmentation.scale_first", self.scale_first, "above 0, at most 1")
        _require(
            self.scale_min <= self.scale_max,
            "augmentation.scale_min",
            self.scale_min,
            f"at most scale_max ({self.scale_max})",
        )


@dataclass(frozen=True)
class OptimizerConfig:
    """Steps of the optimizer.

    Attributes:
        name: `adamw` or `sgd` (momentum 0.9).
        warmup_steps: Steps over which the learning rate rises to its peak; then it falls as a
            cosine, to `final_share` of the peak at the last step.
        backbone_lr_share: Learning rate of the backbone relative to the rest.
        clip_norm: Gradients are clipped to this norm; 0 turns it off.
        ema_decay: Decay of the exponential moving average of the weights, which is what is
            shipped; 0 turns it off.
    """

    name: str = "adamw"
    weight_decay: float = 1e-2
    backbone_lr_share: float = 0.5
    warmup_steps: int = 50
    final_share: float = 0.01
    clip_norm: float = 5.0
    ema_decay: float = 0.99

    def __post_init__(self) -> None:
        _require(self.name in OPTIMIZERS, "optimizer.name", self.name, " or ".join(OPTIMIZERS))
        _require_shares(self, ["backbone_lr_share", "final_share"])
        _require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "0 or more, below 1")
        for name in ("weight_decay", "warmup_steps", "clip_norm"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")


@dataclass(frozen=True)
class LoadingConfig:
    """How pictures reach the network.

    Attributes:
        batch_size: Pictures per step and device.
        workers: Processes that prepare batches; 0 prepares them between the steps.
        cache_mb: Memory for decoded pictures; what does not fit is decoded again every epoch.
        repeat_share: Share of pictures below which a class's pictures are shown more often, by
            the square root of what it lacks (`training.pictures.sampling`); 0 shows all alike.
        hard: File of `python -m training.mining`, relative to the repository, whose pictures are
            shown more often; empty for none.
        hard_factor: How much more often.
    """

    batch_size: int = 4
    workers: int = 1
    cache_mb: int = 1500
    repeat_share: float = 0.0
    hard: str = ""
    hard_factor: float = 2.0

    def __post_init__(self) -> None:
        _require_positive(self, ["batch_size"])
        _require(self.hard_factor >= 1, "loading.hard_factor", self.hard_factor, "1 or more")
        ok = not Path(self.hard).is_absolute()
        _require(ok, "loading.hard", self.hard, "a file relative to the repository")
        share = self.repeat_share
        _require(0 <= share <= 1, "loading.repeat_share", share, "0 to 1")
        for name in ("workers", "cache_mb"):
            _require(getattr(self, name) >= 0, f"loading.{name}", getattr(self, name), "0 or more")


@dataclass(frozen=True)
class RecallConfig:
    """Recall on the validation pictures while training goes on.

    Attributes:
        every_epochs: Measure after every so many epochs, and after the last; 0 measures never.
        pictures: Most pictures that are measured, spread over the list; 0 for all.
        score_min: Finds at or above this score count.
        iou_min: IoU of box and box from which an object is found (DESIGN section 7).
        patience: Measurements without a better mean over the classes after which training stops;
            what is shipped are the weights measured best. 0 trains to the end and ships the last.
    """

    every_epochs: int = 1
    pictures: int = 60
    score_min: float = 0.15
    iou_min: float = 0.5
    patience: int = 0

    def __post_init__(self) -> None:
        _require_shares(self, ["score_min", "iou_min"])
        for name in ("every_epochs", "pictures", "patience"):
            _require(getattr(self, name) >= 0, f"recall.{name}", getattr(self, name), "0 or more")
        if self.patience:
            expected = "0 where recall.every_epochs is 0: nothing is measured"
            _require(self.every_epochs > 0, "recall.patience", self.patience, expected)


@dataclass(frozen=True)
class NetworkConfig:
    """Everything about one network and its training.

    Attributes:
        start: Folder of a trained network of ours, or of several by name, that this training
            starts from in place of ImageNet weights (training/starting.py): relative to the
            repository, or to the folder that BLURLOOP_STARTS names. Empty for none.
        epochs: Times that every training picture is seen.
        lr: Peak learning rate.
        trainer: Passed to Lightning's Trainer as it is (`accelerator`, `devices`, `strategy`,
            `precision`, ...).
        joint: Whether Mask R-CNN has a keypoint head, too, so that one pass finds both.
        trained: Whether the network is trained; where not, its stage only records that, and the
            bundle goes without it.
    """

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    heads: HeadConfig = field(default_factory=HeadConfig)
    input: InputConfig = field(default_factory=InputConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loading: LoadingConfig = field(default_factory=LoadingConfig)
    recall: RecallConfig = field(default_factory=RecallConfig)
    start: str = ""
    epochs: int = 6
    lr: float = 1e-3
    trainer: dict[str, Any] = field(default_factory=dict)
    joint: bool = False
    trained: bool = True

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, "epochs", self.epochs, "1 or more")
        _require_positive(self, ["lr"])
        expected = "a folder relative to the repository, or to what BLURLOOP_STARTS names"
        _require(not Path(self.start).is_absolute(), "start", self.start, expected)
        levels = len(self.backbone.strides) + 1
        _require(
            len(self.proposals.anchor_sizes) == levels,
            "proposals.anchor_sizes",
            list(self.proposals.anchor_sizes),
            f"{levels} sizes: one per stride in backbone.strides, and one for the pooled level",
        )

    def maps(self, network: str) -> tuple[str, ...]:
        """Return what the map heads of the named network draw, in order.

        >>> NetworkConfig(joint=True).maps("mask_rcnn")
        ('mask', 'keypoint')
        """
        if network == "keypoint_rcnn":
            return (KEYPOINT,)
        return (MASK, KEYPOINT) if self.joint else (MASK,)

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> NetworkConfig:
        """Build from what `to_dict` returned.

        Raises:
            NetworkConfigError: If a key is unknown or a value is out of range.
        """
        kinds: dict[str, Any] = {
            "backbone": BackboneConfig,
            "proposals": ProposalConfig,
            "heads": HeadConfig,
            "input": InputConfig,
            "augmentation": AugmentationConfig,
            "optimizer": OptimizerConfig,
            "loading": LoadingConfig,
            "recall": RecallConfig,
        }
        try:
            return cls(**{k: kinds[k](**v) if k in kinds else v for k, v in values.items()})
        except TypeError as error:
            raise NetworkConfigError(f"training: {error}") from error


@dataclass(frozen=True)
class TrainingConfig:
    """The section `training`: one network each."""

    mask_rcnn: NetworkConfig = field(default_factory=NetworkConfig)
    keypoint_rcnn: NetworkConfig = field(default_factory=NetworkConfig)

    def __post_init__(self) -> None:
        mask, keypoint = self.mask_rcnn, self.keypoint_rcnn
        what = "false: Mask R-CNN is what carries both heads"
        _require(not keypoint.joint, "keypoint_rcnn.joint", keypoint.joint, what)
        what = "false where mask_rcnn.joint is true: two networks would draw each head"
        once = not (mask.joint and keypoint.trained)
        _require(once, "keypoint_rcnn.trained", keypoint.trained, what)
