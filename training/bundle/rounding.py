"""Rounding weights so that what a layer gives errs least, not each weight by itself.

Rounding to the nearest step errs by up to half a step in every weight, and the errors of a layer
add up. GPTQ (Frantar et al. 2022, after optimal brain surgery, Hassibi et al. 1993) rounds one
input of a layer after the other and lets the weights that are not rounded yet make up for the
error, as far as the layer's inputs on some pictures go together. It costs nothing when the network
runs.

Shapes: O output channels, K inputs of one of them (input channels times kernel), G groups whose
inputs differ (1, or the channels of a depthwise convolution).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

PATCHES = 400
"""Places of a picture at which the inputs of a layer are looked at, drawn at random."""

DAMPING = 0.01
"""Share of the mean diagonal that is added to it: inputs that never differed say nothing."""

INPUTS_MOST = 8192
"""Layers with more inputs are rounded to the nearest step: the inverse of their moments would take
gigabytes, and time with the third power."""

BLOCK = 128
"""Inputs after which the errors are handed on to all that follow, at once."""


def round_weights(weights: Floats, scales: Floats, moments: Doubles, most: int) -> NDArray[np.int8]:
    """Round the weights of a layer.

    Args:
        weights: float32, shape (G, O, K).
        scales: Size of a step, shape (G, O).
        moments: Sum of the products of inputs, shape (G, K, K).
        most: Largest number of steps on either side, at most 127.

    Returns:
        int8, shape (G, O, K), in steps.

    >>> weights, scales = np.float32([[[1.4, 1.4]]]), np.ones((1, 1), np.float32)
    >>> round_weights(weights, scales, np.ones((1, 2, 2)), 127).tolist()
    [[[1, 2]]]
    """
    left = weights.astype(np.float64)
    steps = scales.astype(np.float64)[..., None]
    rounded = np.zeros(weights.shape, np.int8)
    upper = _inverse_factor(moments)
    count = weights.shape[-1]
    for start in range(0, count, BLOCK):
        end = min(start + BLOCK, count)
        errors = np.zeros((*weights.shape[:2], end - start))
        for i in range(start, end):
            counted = np.clip(np.round(left[..., i : i + 1] / steps), -most, most)
            rounded[..., i] = counted[..., 0].astype(np.int8)
            error = (left[..., i] - (counted * steps)[..., 0]) / upper[:, i, i][:, None]
            left[..., i:end] -= error[..., None] * upper[:, None, i, i:end]
            errors[..., i - start] = error
        left[..., end:] -= errors @ upper[:, start:end, end:]
    return rounded


def _inverse_factor(moments: Doubles) -> Doubles:
    """Return the upper Cholesky factor of the inverse of each matrix, damped; shape (G, K, K)."""
    count = moments.shape[-1]
    mean = np.trace(moments, axis1=1, axis2=2) / count
    # Inputs that are always 0 leave a matrix of zeros.
    damped = moments + np.eye(count) * (DAMPING * mean + 1e-9)[:, None, None]
    inverse = np.linalg.inv(damped)
    symmetric = (inverse + inverse.transpose(0, 2, 1)) / 2
    return np.asarray(np.linalg.cholesky(symmetric).transpose(0, 2, 1), np.float64)


class Moments:
    """Gathers the moments of one layer's inputs, picture by picture.

    Attributes:
        inputs: Names of the tensors that it takes; several where layers share their weight.
        groups: G.
        total: float64, shape (G, K, K); of no dimension until something was seen.
    """

    def __init__(self, node: Any, weight: Floats) -> None:
        """Take a Conv, Gemm or MatMul of an ONNX graph, and its weight."""
        from onnx import helper

        self.inputs = [node.input[0]]
        self._options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        self._is_convolution = node.op_type == "Conv"
        self.groups = int(self._options.get("group", 1)) if self._is_convolution else 1
        self._transposed = node.op_type == "MatMul" or (
            node.op_type == "Gemm" and not self._options.get("transB", 0)
        )
        self._shape = weight.shape
        self.total: Doubles = np.zeros(())

    @property
    def is_too_wide(self) -> bool:
        """Whether the layer has more inputs than are worth their moments."""
        outputs = self._shape[-1] if self._transposed else self._shape[0]
        return int(np.prod(self._shape)) // outputs > INPUTS_MOST

    def grouped(self, weight: Floats) -> Floats:
        """Return a weight of the layer as (G, O, K)."""
        rows = weight.T if self._transposed else weight.reshape(len(weight), -1)
        return np.ascontiguousarray(rows.reshape(self.groups, -1, rows.shape[-1]))

    def ungrouped(self, rounded: NDArray[np.int8]) -> NDArray[np.int8]:
        """Return what `grouped` took, in the layer's own shape."""
        rows = rounded.reshape(-1, rounded.shape[-1])
        return np.ascontiguousarray(rows.T if self._transposed else rows.reshape(self._shape))

    def add(self, values: Floats, generator: np.random.Generator) -> None:
        """Take note of the layer's input for one picture; one without values says nothing."""
        if not values.size:
            return
        seen = self._patches(values, generator).astype(np.float64)
        self.total = self.total + seen.transpose(0, 2, 1) @ seen

    def _patches(self, values: Floats, generator: np.random.Generator) -> Floats:
        """Return what some places of the output see, shape (G, P, K)."""
        if not self._is_convolution:
            rows = values.reshape(-1, values.shape[-1])
            chosen = generator.permutation(len(rows))[:PATCHES]
            return rows[None, chosen]
        kernel = self._options["kernel_shape"]
        pads = self._options.get("pads", [0, 0, 0, 0])
        strides, dilations = (self._options.get(name, [1, 1]) for name in ("strides", "dilations"))
        around = ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3]))
        padded = np.pad(values, around)
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        view: Any = np.lib.stride_tricks.sliding_window_view  # numpy's types lack this form
        windows = view(padded, reach, axis=(2, 3))
        windows = windows[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
        pictures, _, rows, columns = windows.shape[:4]
        chosen = generator.integers(0, pictures * rows * columns, PATCHES)
        picture, rest = np.divmod(chosen, rows * columns)
        row, column = np.divmod(rest, columns)
        seen = windows[picture, :, row, column]  # (P, channels, kernel...)
        parts: Floats = seen.reshape(PATCHES, self.groups, -1).transpose(1, 0, 2)
        return parts
