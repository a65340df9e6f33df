"""Pools proposals from a pyramid, on a CPU as a product with a sparse matrix.

RoIAlign (He et al. 2017) is linear in the map: each pooled cell is a weighted sum of pixels. With
the pixels of a channels-last map as rows, the weights are a sparse matrix; pooling is its product
with the map, and the gradient the product of its transpose. torchvision's own CPU kernel runs on
one core, cell by cell and channel by channel, and copies the map to planes before: ten times
slower in both directions, a sixth of a training step. `benchmarks.training_step` measures it.

Shapes: N pictures, P proposals, C channels, H and W cells of a map, S pooled cells per side.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import initLevelMapper

SAMPLES = 2
"""Points per pooled cell and axis (Mask R-CNN's)."""


def _axis(start: Tensor, length: Tensor, side: int, cells: int) -> tuple[Tensor, Tensor]:
    """Return the pixels that each pooled cell reads along one axis, and their weights.

    Args:
        start: Where each proposal starts, in cells of the map, shape (P,).
        length: How long it is, shape (P,).
        side: Cells of the map along this axis.
        cells: S.

    Returns:
        Positions (int64) and weights, both of shape (P, S, 2 * SAMPLES).
    """
    points = (torch.arange(cells * SAMPLES, device=start.device) + 0.5) / SAMPLES
    place = (start[:, None] + points * (length / cells)[:, None]).nan_to_num()
    inside = (place >= -1) & (place <= side)  # torchvision leaves out points beyond the border
    place = place.clamp(0, side - 1)
    low = place.floor().long()
    high = (low + 1).clamp(max=side - 1)
    share = place - low
    weight = torch.stack([1 - share, share], -1) * (inside[..., None] / SAMPLES)
    pixel = torch.stack([low, high], -1)
    shape = (-1, cells, 2 * SAMPLES)
    return pixel.view(shape), weight.view(shape)


def sampling_matrix(
    rows: Tensor, size: tuple[int, int, int], scale: float, cells: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return RoIAlign's weights as a compressed sparse matrix of P * S * S rows.

    Args:
        rows: Picture and xyxy in input pixels of each proposal, shape (P, 5), as torchvision's.
        size: N, H and W of the map.
        scale: Cells of the map per input pixel.
        cells: S.

    Returns:
        Row starts, columns (int64, positions in N * H * W), and values.
    """
    _, height, width = size
    x0, y0, x1, y1 = (rows[:, 1:] * scale).unbind(1)
    x, x_weight = _axis(x0, (x1 - x0).clamp(min=1), width, cells)
    y, y_weight = _axis(y0, (y1 - y0).clamp(min=1), height, cells)
    row = rows[:, 0].long()[:, None, None] * height + y
    columns = row[:, :, None, :, None] * width + x[:, None, :, None, :]
    values = y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :]
    taps = (2 * SAMPLES) ** 2
    starts = torch.arange(0, columns.numel() + 1, taps, device=rows.device)
    return starts, columns.flatten(), values.flatten()


class _Pooling(torch.autograd.Function):
    """Product of a sampling matrix with a map; no gradient reaches the boxes, as in torchvision."""

    @staticmethod
    def forward(
        ctx: Any, pixels: Tensor, starts: Tensor, columns: Tensor, values: Tensor
    ) -> Tensor:
        """Return (P * S * S, C) of pixels (N * H * W, C)."""
        ctx.save_for_backward(starts, columns, values)
        ctx.pixels = len(pixels)
        size = (len(starts) - 1, len(pixels))
        matrix = torch.sparse_csr_tensor(starts, columns, values, size, check_invariants=False)
        return matrix @ pixels

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient of the pixels."""
        starts, columns, values = ctx.saved_tensors
        # The same arrays, read as columns instead of rows, are the transposed matrix.
        size = (ctx.pixels, len(starts) - 1)
        transposed = torch.sparse_csc_tensor(starts, columns, values, size, check_invariants=False)
        return transposed @ gradient.contiguous(), None, None, None


def pool_level(level: Tensor, rows: Tensor, scale: float, cells: int) -> Tensor:
    """Return RoIAlign (P, C, S, S) of one map (N, C, H, W), equal to torchvision's to rounding."""
    number, channels, height, width = level.shape
    matrix = sampling_matrix(rows, (number, height, width), scale, cells)
    pixels = level.permute(0, 2, 3, 1).reshape(-1, channels)  # a view where channels come last
    pooled: Tensor = _Pooling.apply(pixels, *matrix)
    return pooled.view(-1, cells, cells, channels).permute(0, 3, 1, 2)


class PyramidPool(MultiScaleRoIAlign):
    """torchvision's pooling from several levels, faster on a CPU.

    The scales are set at once: torchvision infers them from the first picture, which bakes its
    size into a traced graph.

    Args:
        strides: Input pixels per cell of each level; powers of two.
        cells: S.
    """

    def __init__(self, strides: Sequence[int], cells: int) -> None:
        names = [str(i) for i in range(len(strides))]
        super().__init__(featmap_names=names, output_size=cells, sampling_ratio=SAMPLES)
        self.cells = cells
        self.scales = [1 / s for s in strides]
        levels = [s.bit_length() - 1 for s in strides]
        self.map_levels = initLevelMapper(levels[0], levels[-1])

    def forward(self, features: OrderedDict[str, Tensor], boxes: list[Tensor]) -> Tensor:
        """Return (P, C, S, S) for the boxes (xyxy, input pixels) of each picture."""
        maps = [features[name] for name in self.featmap_names]
        if not _sparse_products(maps[0]):
            pooled: Tensor = super().forward(features, boxes, [])
            return pooled
        picture = torch.repeat_interleave(
            torch.arange(len(boxes)), torch.tensor([len(b) for b in boxes])
        )
        rows = torch.cat([picture[:, None], torch.cat(boxes)], 1)
        if len(maps) == 1:
            return pool_level(maps[0], rows, self.scales[0], self.cells)
        levels = self.map_levels(boxes)
        parts, places = [], []
        for number, (level, scale) in enumerate(zip(maps, self.scales, strict=True)):
            place = torch.where(levels == number)[0]
            parts.append(pool_level(level, rows[place], scale, self.cells))
            places.append(place)
        return torch.cat(parts)[torch.cat(places).argsort()]


def _sparse_products(level: Tensor) -> bool:
    """Return whether a map can be pooled so: on a CPU in 32 bits, not while exported as a graph."""
    return (
        not torch.onnx.is_in_onnx_export()
        and level.device.type == "cpu"
        and level.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkl.is_available()
    )
