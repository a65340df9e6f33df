"""detectron2's ResNet and ResNeXt pyramids from its model zoo, behind the interface of `Backbone`.

Proposals, heads, Lightning module, export and calibration are the same as with torchvision's
backbones: detectron2's own heads have one softmax over classes and background, which pictures that
label only some classes cannot teach (docs/partial-labels.md). docs/detectron2.md says how to
install it. Nothing of detectron2 is imported before a backbone of it is asked for.

Shapes: N pictures, C channels, H and W input pixels (multiples of 32), S a stride.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.config import DETECTRON2, KEYPOINT, BackboneConfig
from training.errors import BackboneError

log = logging.getLogger(__name__)

LEVELS = {4: "res2", 8: "res3", 16: "res4", 32: "res5"}
"""detectron2's names of the maps by stride."""

ARRAYS = {
    ("_codecs", "encode"),  # bytes, as Python 3 writes them for Python 2
    ("collections", "OrderedDict"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
}
"""What a file of arrays is made of."""


class Detectron2Backbone(nn.Module):
    """A pyramid of detectron2 with the interface of `training.network.backbones.Backbone`.

    Args:
        pyramid: detectron2's `FPN`, of which the last level is pooled.
        strides: Strides of the levels that enter the pyramid.
        mean, std: Normalization of the configuration, per channel in its order, in 0..255.
        bgr: Whether the body takes BGR.
        frozen_norm: Whether batch statistics stay as pretrained.

    Attributes:
        body: The pyramid, its bottom-up network included.
        mean, std: The same per RGB channel in [0, 1].
        strides: Strides of the maps returned, the pooled one included.
    """

    def __init__(
        self,
        pyramid: nn.Module,
        strides: Sequence[int],
        *,
        mean: Sequence[float],
        std: Sequence[float],
        bgr: bool,
        frozen_norm: bool,
    ) -> None:
        super().__init__()
        self.body = pyramid
        self.bgr = bgr
        self.frozen_norm = frozen_norm
        order = -1 if bgr else 1
        self.mean = tuple(value / 255 for value in mean[::order])
        self.std = tuple(value / 255 for value in std[::order])
        self.strides = (*strides, 2 * strides[-1])

    def train(self, mode: bool = True) -> Detectron2Backbone:
        """Keep batch statistics as pretrained where the norm is frozen."""
        super().train(mode)
        if self.frozen_norm:
            for module in self.body.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Return maps `0`, `1`, ... and `pool`, each (N, channels, H / S, W / S).

        Args:
            images: float32, shape (N, 3, H, W), RGB, normalized by `mean` and `std`.
        """
        maps = list(self.body(images.flip(1) if self.bgr else images).values())
        names = [*(str(i) for i in range(len(maps) - 1)), "pool"]
        return OrderedDict(zip(names, maps, strict=True))


def _import(module: str) -> Any:
    """Import a module of detectron2.

    Raises:
        BackboneError: If it cannot be imported; the message says how to install it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise BackboneError(
            f"backbone.name starts with {DETECTRON2}, and detectron2 cannot be imported ({error}); "
            "build it from a checkout of its source beside setuptools<81: pip install "
            "--no-build-isolation <checkout> (docs/detectron2.md), or choose another backbone"
        ) from error


def zoo_config(config: BackboneConfig) -> Any:
    """Return detectron2's configuration of a backbone, with our pyramid and norm.

    Raises:
        BackboneError: If detectron2 is not installed, its model zoo has no such configuration, or
            that has no pyramid over a plain ResNet.
    """
    name = config.name.removeprefix(DETECTRON2)
    zoo = _import("detectron2.model_zoo")
    try:
        cfg = zoo.get_config(f"{name}.yaml")
    except (RuntimeError, OSError) as error:
        raise BackboneError(
            f"backbone {config.name!r} is not in detectron2's model zoo; expected {DETECTRON2} and "
            "the name of a configuration without .yaml, such as "
            f"{DETECTRON2}COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x"
        ) from error
    resnet = cfg.MODEL.RESNETS
    plain = cfg.MODEL.BACKBONE.NAME == "build_resnet_fpn_backbone"
    if not plain or any(resnet.DEFORM_ON_PER_STAGE) or resnet.RES5_DILATION != 1:
        raise BackboneError(
            f"backbone {config.name!r} has no pyramid over a plain ResNet; expected a "
            "configuration with FPN, without dilation and deformable convolutions (dconv)"
        )
    if config.norm == "trained" and resnet.NORM == "FrozenBN":
        resnet.NORM = "BN"
    levels = [LEVELS[stride] for stride in config.strides]
    resnet.OUT_FEATURES = levels
    cfg.MODEL.FPN.IN_FEATURES = levels
    cfg.MODEL.FPN.OUT_CHANNELS = config.channels
    cfg.MODEL.BACKBONE.FREEZE_AT = 0  # backbone.frozen_stride decides, as for other backbones
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def build_detectron2_backbone(config: BackboneConfig, *, pretrained: bool) -> Detectron2Backbone:
    """Build the backbone of a model zoo configuration, and start it from its weights.

    Raises:
        BackboneError: If detectron2 is not installed, the configuration does not fit, or the
            weights cannot be had or do not fit.
    """
    cfg = zoo_config(config)
    shape = _import("detectron2.layers").ShapeSpec(channels=3)
    fpn = _import("detectron2.modeling.backbone.fpn")
    pyramid = fpn.build_resnet_fpn_backbone(cfg, shape)
    # detectron2 pools level 5; ours may end earlier.
    pyramid.top_block.in_feature = f"p{config.strides[-1].bit_length() - 1}"
    backbone = Detectron2Backbone(
        pyramid,
        config.strides,
        mean=cfg.MODEL.PIXEL_MEAN,
        std=cfg.MODEL.PIXEL_STD,
        bgr=cfg.INPUT.FORMAT == "BGR",
        frozen_norm=config.norm == "frozen",
    )
    if pretrained:
        source = weights_source(config)
        load_pyramid(pyramid, read_weights(source), origin=source)
    return backbone


def weights_source(config: BackboneConfig) -> str:
    """Return path or URL of the weights: `config.weights`, else those of the model zoo.

    Raises:
        BackboneError: If neither is there.
    """
    if config.weights:
        return config.weights
    try:
        name = config.name.removeprefix(DETECTRON2)
        url: str = _import("detectron2.model_zoo").get_checkpoint_url(f"{name}.yaml")
    except RuntimeError as error:
        raise BackboneError(
            f"detectron2's model zoo has no weights of {config.name!r}; set backbone.weights to a "
            "path or URL, or backbone.pretrained=false"
        ) from error
    return url


class ArrayUnpickler(pickle.Unpickler):
    """Reads pickled arrays, as the model zoo ships them; a file cannot make it run anything."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class or function that arrays are made of.

        Raises:
            pickle.UnpicklingError: If the file asks for anything else.
        """
        module = module.replace("numpy.core.", "numpy._core.")  # its name before NumPy 2
        if (module, name) not in ARRAYS:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no array")
        return super().find_class(module, name)


def read_weights(source: str) -> dict[str, Tensor]:
    """Read a weights file in any form that the model zoo has, under detectron2's names.

    Args:
        source: Path or URL; `.pkl` of detectron2 or Detectron (Caffe2), else of `torch.save`.

    Raises:
        BackboneError: If it cannot be had, or is no weights file.
    """
    try:
        path = Path(_import("detectron2.utils.file_io").PathManager.get_local_path(source))
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            if path.suffix == ".pkl":
                content: Any = ArrayUnpickler(file, encoding="latin1").load()
            else:
                content = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BackboneError(
            f"weights {source} cannot be read: {reason}. Correct backbone.weights, or set "
            "backbone.pretrained=false"
        ) from error
    log.info("weights %s have SHA-256 %s", source, sha256)
    named = content.get("model", content.get("blobs", content)) if _is_mapping(content) else {}
    state = {
        name.removeprefix("module."): torch.as_tensor(value)
        for name, value in named.items()
        if isinstance(value, Tensor | np.ndarray) and not name.endswith("_momentum")
    }
    if not state:
        raise BackboneError(f"weights {source} hold no tensors; expected a file of detectron2")
    if path.suffix == ".pkl" and "model" not in content:  # Caffe2's names
        conversion = _import("detectron2.checkpoint.c2_model_loading")
        state, _ = conversion.convert_c2_detectron_names(state)
    return state


def _is_mapping(content: object) -> bool:
    return isinstance(content, Mapping)


def load_pyramid(pyramid: nn.Module, state: Mapping[str, Tensor], *, origin: str) -> None:
    """Load the weights of body and pyramid; a file without a pyramid (ImageNet) starts the body.

    Raises:
        BackboneError: If a tensor has another shape, or some are missing.
    """
    own = pyramid.state_dict()
    found = {}
    for name, mine in own.items():
        inner = name.removeprefix("bottom_up.")
        theirs = _first(state, f"backbone.{name}", name, inner)
        if theirs is None:
            continue
        if theirs.shape != mine.shape:
            raise BackboneError(
                f"weights {origin}: {name} has shape {tuple(theirs.shape)}; the configuration "
                f"needs {tuple(mine.shape)}. Name the configuration that the weights were trained "
                "with in backbone.name (its pyramids have backbone.channels=256)"
            )
        found[name] = theirs
    optional = ["num_batches_tracked"]
    if not any(name.endswith("running_mean") for name in found):
        optional += ["running_mean", "running_var"]  # Caffe2 folds them into scale and shift
    needed = [name for name in own if not name.endswith(tuple(optional))]
    levels = [name for name in needed if name.startswith("fpn_")]
    if not any(name in found for name in levels):
        log.info("weights %s hold no pyramid; it starts at random", origin)
        needed = [name for name in needed if name not in levels]
    missing = [name for name in needed if name not in found]
    if missing:
        raise BackboneError(
            f"weights {origin} lack {len(missing)} of {len(needed)} tensors of the configuration, "
            f"first {missing[0]}. Name the configuration that they were trained with in "
            "backbone.name"
        )
    _copy(found, own)
    log.info("%d of %d tensors of the backbone start from %s", len(found), len(own), origin)


def _copy(values: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Write values into the tensors of a `state_dict()`, which share a network's memory.

    `load_state_dict` of a part would reset the statistics of every frozen norm that is not in it
    (detectron2's `FrozenBatchNorm2d._load_from_state_dict` fills in what it misses).
    """
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(value)


def _first(state: Mapping[str, Tensor], *names: str) -> Tensor | None:
    return next((state[name] for name in names if name in state), None)


def _chains(
    maps: Iterable[tuple[str, str]], layers: Mapping[str, int]
) -> Iterator[list[tuple[str, str]]]:
    """Yield our layers beside detectron2's, from the pyramid on; each works on the one before."""
    yield [("proposals.head.conv.0.0", "proposal_generator.rpn_head.conv")]
    yield [
        ("heads.box_head.fc6", "roi_heads.box_head.fc1"),
        ("heads.box_head.fc7", "roi_heads.box_head.fc2"),
    ]
    for name, kind in maps:
        ours, theirs, rows = f"heads.{name}", f"roi_heads.{kind}_head", range(layers[kind])
        if kind == KEYPOINT:
            own = [(f"{ours}_head.{2 * i}", f"{theirs}.conv_fcn{i + 1}") for i in rows]
            yield [*own, (f"{ours}_predictor.kps_score_lowres", f"{theirs}.score_lowres")]
        else:
            own = [(f"{ours}_head.{i}.0", f"{theirs}.mask_fcn{i + 1}") for i in rows]
            yield [*own, (f"{ours}_predictor.conv5_mask", f"{theirs}.deconv")]


def start_heads(
    network: nn.Module,
    state: Mapping[str, Tensor],
    maps: Iterable[tuple[str, str]],
    *,
    layers: Mapping[str, int],
) -> list[str]:
    """Start the heads of a network from detectron2's where the shapes are the same.

    Class scores, masks per class and box regressions belong to COCO's classes, and stay as they
    are; keypoints are COCO's. A layer behind one that does not fit stays as it is, too.

    Args:
        network: With `proposals` and `heads` as `training.network.rcnn.Network` has them.
        state: Weights under detectron2's names.
        maps: What the modules of each map head are named after, and what it draws.
        layers: Convolutions of each, by what it draws.

    Returns:
        Names of our layers that were started.
    """
    own = network.state_dict()
    started: dict[str, Tensor] = {}
    names = []
    for chain in _chains(maps, layers):
        for mine, theirs in chain:
            pair = {}
            for part in ("weight", "bias"):
                whole = f"{theirs}.{part}"
                value = _first(state, whole, whole.removeprefix("roi_heads."))
                if value is not None and value.shape == own[f"{mine}.{part}"].shape:
                    pair[f"{mine}.{part}"] = value
            if len(pair) < 2:
                break
            started |= pair
            names.append(mine)
    _copy(started, own)
    log.info("layers of the heads that start from detectron2: %s", ", ".join(names) or "none")
    return names
