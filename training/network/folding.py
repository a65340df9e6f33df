"""Computes frozen norms as part of the convolution before them.

A batch norm whose statistics are frozen multiplies each channel and adds to it, which the
convolution can do itself: one pass over a large map less, forwards and backwards. Weights, scales
and shifts stay separate parameters, so the state of a network and its graph are as without.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = 64
"""Height and width of the pictures that tell which norm follows which convolution."""


class FoldedForward:
    """Forward pass of a convolution with the norm after it.

    Args:
        conv: With `same` padding as TensorFlow pads where `pad_same` is given.
        norm: In eval mode whenever the network runs.
        pad_same: timm's function that pads (N, C, H, W) for a kernel and a stride.
    """

    def __init__(
        self,
        conv: nn.Conv2d,
        norm: nn.BatchNorm2d,
        pad_same: Callable[..., Tensor] | None,
    ) -> None:
        self.conv, self.norm, self.pad_same = conv, norm, pad_same

    def __call__(self, x: Tensor) -> Tensor:
        """Return norm(conv(x)); conv(x) in an exported graph, where the norm stands by itself."""
        conv, norm = self.conv, self.norm
        if torch.onnx.is_in_onnx_export():
            return type(conv).forward(conv, x)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        weight = conv.weight * scale[:, None, None, None]
        bias = norm.bias - norm.running_mean * scale
        if conv.bias is not None:
            bias = bias + conv.bias * scale
        if self.pad_same is None:
            out: Tensor = conv._conv_forward(x, weight, bias)
            return out
        padding: Any = (0, 0)
        if _pads_one_side(conv, x):
            # A kernel with a row and a column of zeros before it starts where `same` does, and the
            # convolution pads by itself: padding first copies the largest map of the network.
            padding = (conv.kernel_size[0] // 2, conv.kernel_size[1] // 2)
            weight = functional.pad(weight, (1, 0, 1, 0))
        else:
            x = self.pad_same(x, weight.shape[-2:], conv.stride, conv.dilation)
        return functional.conv2d(x, weight, bias, conv.stride, padding, conv.dilation, conv.groups)


def _pads_one_side(conv: nn.Conv2d, x: Tensor) -> bool:
    """Return whether `same` padding of a depthwise convolution puts one pixel more at the end.

    Not where the kernel is trained: its gradient costs more than the copy.
    """
    return (
        conv.groups == conv.in_channels > 1
        and conv.stride == (2, 2)
        and conv.dilation == (1, 1)
        and all(side % 2 == 1 for side in conv.kernel_size)
        and all(side % 2 == 0 for side in x.shape[-2:])
        and not conv.weight.requires_grad
    )


class ActivationForward:
    """Forward pass of a norm that was folded: what follows its normalization."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        self.norm = norm

    def __call__(self, x: Tensor) -> Tensor:
        """Return the activation of an input that is normalized already."""
        norm: Any = self.norm
        out: Tensor = x
        if torch.onnx.is_in_onnx_export():
            out = type(norm).forward(norm, x)
        elif hasattr(norm, "act"):  # timm's norms end in dropout and activation
            out = norm.act(norm.drop(x))
        return out


def fold_norms(body: nn.Module) -> int:
    """Fold each batch norm of a body that directly follows a convolution; return how many.

    Convolutions and norms of kinds not known are left alone, and so is the whole body where it
    would not answer as before (a convolution whose output is used besides, for instance).

    Args:
        body: Takes (N, 3, H, W) and returns maps as a list or as a dictionary.
    """
    pairs = _pairs(body)
    pictures = torch.randn((2, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0))
    before = _maps(body, pictures)
    for conv, norm, pad_same in pairs:
        _replace_forward(conv, FoldedForward(conv, norm, pad_same))
        _replace_forward(norm, ActivationForward(norm))
    after = _maps(body, pictures)
    if all(_alike(a, b) for a, b in zip(after, before, strict=True)):
        return len(pairs)
    for conv, norm, _ in pairs:
        del conv.__dict__["forward"], norm.__dict__["forward"]
    return 0


def _alike(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= 1e-3 * other.abs().max())


def _replace_forward(module: Any, forward: Callable[[Tensor], Tensor]) -> None:
    module.forward = forward


def _maps(body: nn.Module, pictures: Tensor) -> list[Tensor]:
    with torch.no_grad():
        maps = body.eval()(pictures)
    return list(maps.values()) if isinstance(maps, dict) else list(maps)


def _pairs(
    body: nn.Module,
) -> list[tuple[nn.Conv2d, nn.BatchNorm2d, Callable[..., Tensor] | None]]:
    """Return each convolution with the norm that its output goes into."""
    made: dict[int, tuple[Any, Tensor]] = {}  # tensors are kept, so that no id comes twice
    pairs: list[tuple[Any, Any, Any]] = []
    same = _same_convolutions()

    def after_conv(conv: nn.Module, _: Any, out: Tensor) -> None:
        made[id(out)] = (conv, out)

    def before_norm(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        conv, _ = made.get(id(inputs[0]), (None, None))
        if type(conv) is nn.Conv2d:
            pairs.append((conv, norm, None))
        elif conv is not None and type(conv) in same:
            pairs.append((conv, norm, same[type(conv)]))

    hooks = []
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(after_conv))
        elif _is_known_norm(module):
            hooks.append(module.register_forward_pre_hook(before_norm))
    _maps(body, torch.zeros((1, 3, SIDE, SIDE)))
    for hook in hooks:
        hook.remove()
    return pairs


def _is_known_norm(module: nn.Module) -> bool:
    if type(module) is nn.BatchNorm2d:
        return True
    return type(module).__name__ == "BatchNormAct2d" and module.running_mean is not None


def _same_convolutions() -> dict[type, Callable[..., Tensor]]:
    """Return timm's convolution that pads as TensorFlow does, where timm is installed."""
    try:
        from timm.layers.conv2d_same import Conv2dSame
        from timm.layers.padding import pad_same
    except ImportError:
        return {}
    return {Conv2dSame: pad_same}
