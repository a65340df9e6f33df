"""Pooling by sparse products equals torchvision's RoIAlign, forwards and backwards."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign, roi_align

from training.network.pooling import PyramidPool, pool_level

pytestmark = pytest.mark.skipif(
    not torch.backends.mkl.is_available(), reason="sparse products need MKL"
)


def boxes_around(count: int, generator: torch.Generator) -> torch.Tensor:
    """Return boxes inside, across and beyond the border of a picture; some have no size."""
    corner = torch.rand((count, 2), generator=generator) * 180 - 30
    side = torch.rand((count, 2), generator=generator) ** 3 * 200
    return torch.cat([corner, corner + side], 1)


@pytest.mark.parametrize("cells", [1, 7, 14])
@pytest.mark.parametrize("channels_last", [True, False])
def test_values_and_gradients_are_those_of_torchvision(cells: int, channels_last: bool) -> None:
    generator = torch.Generator().manual_seed(cells)
    level = torch.randn((3, 5, 24, 32), generator=generator)
    if channels_last:
        level = level.to(memory_format=torch.channels_last)
    boxes = boxes_around(60, generator)
    rows = torch.cat([torch.randint(0, 3, (60, 1), generator=generator).float(), boxes], 1)
    ours, theirs = (level.clone().requires_grad_() for _ in range(2))
    pooled = pool_level(ours, rows, 0.25, cells)
    expected = roi_align(theirs, rows, cells, 0.25, 2)
    torch.testing.assert_close(pooled, expected, atol=1e-4, rtol=1e-4)
    upstream = torch.randn(expected.shape, generator=generator)
    pooled.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-4)


def test_each_box_is_pooled_from_the_level_that_torchvision_takes() -> None:
    generator = torch.Generator().manual_seed(4)
    strides = (4, 8, 16, 32)
    features = OrderedDict(
        (str(i), torch.randn((2, 6, 256 // s, 320 // s), generator=generator))
        for i, s in enumerate(strides)
    )
    boxes = [boxes_around(40, generator) * 2, boxes_around(0, generator)]
    theirs = MultiScaleRoIAlign([str(i) for i in range(4)], 7, 2)
    expected = theirs(features, boxes, [(256, 320)] * 2)
    torch.testing.assert_close(
        PyramidPool(strides, 7)(features, boxes), expected, atol=1e-4, rtol=1e-4
    )


def test_no_box_at_all_gives_an_empty_result_that_learning_survives() -> None:
    level = torch.randn((1, 4, 8, 8), requires_grad=True)
    pooled = PyramidPool((4,), 7)(OrderedDict([("0", level)]), [torch.zeros((0, 4))])
    assert pooled.shape == (0, 4, 7, 7)
    pooled.sum().backward()
    assert level.grad is not None
    assert not level.grad.any()


def test_a_box_that_is_not_a_number_reads_no_memory_outside_of_the_map() -> None:
    level = torch.ones((1, 4, 8, 8))
    boxes = torch.tensor([[float("nan")] * 4, [float("inf"), 0, float("inf"), 9], [0, 0, 9, 9]])
    pooled = PyramidPool((4,), 7)(OrderedDict([("0", level)]), [boxes])
    assert pooled.isfinite().all()
