"""A folded norm changes neither what a network answers nor what it learns."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from training.config import BackboneConfig
from training.network.backbones import build_backbone
from training.network.folding import FoldedForward, fold_norms


def shaken(body: nn.Module) -> nn.Module:
    """Give norms statistics and scales that are not one and zero."""
    torch.manual_seed(1)
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return body.eval()


def body_of(name: str) -> nn.Module:
    config = BackboneConfig(name=name, pretrained=False, norm="trained")
    return shaken(build_backbone(config, pretrained=False).body)


def maps(body: nn.Module, pictures: torch.Tensor) -> list[torch.Tensor]:
    out = body(pictures)
    return list(out.values()) if isinstance(out, dict) else list(out)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet50", "mobilenet_v3_large"])
@pytest.mark.parametrize("side", [64, 96])
def test_answers_and_gradients_are_those_of_separate_norms(name: str, side: int) -> None:
    body = body_of(name)
    folded = copy.deepcopy(body)
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in body.modules())
    assert fold_norms(folded) == norms
    assert list(folded.state_dict()) == list(body.state_dict())
    body.double()
    folded.double()
    pictures = torch.randn((2, 3, side, side), dtype=torch.float64)
    expected, answered = maps(body, pictures), maps(folded, pictures)
    torch.testing.assert_close(answered, expected)
    torch.stack([m.square().mean() for m in expected]).sum().backward()
    torch.stack([m.square().mean() for m in answered]).sum().backward()
    for theirs, ours in zip(body.parameters(), folded.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_kernel_that_is_not_trained_pads_by_itself() -> None:
    body = body_of("tf_efficientnet_lite0")
    folded = copy.deepcopy(body).requires_grad_(False)
    fold_norms(folded)
    for size in ((64, 96), (62, 90), (33, 47)):
        pictures = torch.randn((1, 3, *size))
        for theirs, ours in zip(maps(body, pictures), maps(folded, pictures), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)


def test_a_copy_computes_with_its_own_weights() -> None:
    body = body_of("tf_efficientnet_lite0")
    fold_norms(body)
    pictures = torch.randn((1, 3, 64, 64))
    for copied in (copy.deepcopy(body), pickle.loads(pickle.dumps(body))):
        with torch.no_grad():
            for parameter in copied.parameters():
                parameter.zero_()
            assert float(maps(body, pictures)[0].abs().max()) > 0
            assert float(maps(copied, pictures)[0].abs().max()) == 0


class Shared(nn.Module):
    """A convolution whose output is used besides its norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        made = self.conv(x)
        return [self.norm(made) + made]


def test_a_body_that_would_answer_otherwise_is_left_as_it_is() -> None:
    body = shaken(Shared())
    pictures = torch.randn((1, 3, 8, 8))
    before = body(pictures)[0]
    assert fold_norms(body) == 0
    assert torch.equal(body(pictures)[0], before)
    assert not isinstance(body.conv.forward, FoldedForward)
