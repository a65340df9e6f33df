"""Graphs with weights stored in 8 or 16 bits: a quarter or half of the size, the same arithmetic.

Each large weight becomes INT8 with one scale per output channel, followed by DequantizeLinear, or
FP16 followed by Cast; activations and sums stay float32, so speed hardly changes and recall by the
rounding of weights alone. Sums in FP16 are for processors that have them, which few CPUs do. The
bundle is calibrated and judged with what is stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0, "MatMul": -1}
"""Axis of the output channels of an operator's weight; Gemm as torch writes it, transposed."""

SIZE_MIN = 1024
"""Smaller weights stay as they are: they weigh nothing."""


def to_int8(weight: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round a weight to 127 steps a side, per channel.

    Args:
        weight: float32.
        axis: Its channel axis.

    Returns:
        int8 of the same shape, and the float32 scales, one per channel.

    >>> to_int8(np.float32([[1.0, -0.5], [0.0, 0.0]]), 0)[0].tolist()
    [[127, -64], [0, 0]]
    """
    others = tuple(i for i in range(weight.ndim) if i != axis % weight.ndim)
    largest = np.abs(weight).max(axis=others, keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    rounded = np.clip(np.round(weight / scale), -127, 127).astype(np.int8)
    return rounded, scale.reshape(-1)


def store_int8(content: bytes) -> bytes:
    """Return an ONNX file whose large weights are INT8.

    Args:
        content: The file of a float32 graph.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_from_string(content)
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    axes = _axes(graph, weights)
    nodes = []
    for name, axis in axes.items():
        weight = numpy_helper.to_array(weights[name])
        rounded, scale = to_int8(weight, axis)
        parts: dict[str, NDArray[Any]] = {
            "int8": rounded,
            "scale": scale,
            "zero": np.zeros(len(scale), np.int8),
        }
        graph.initializer.remove(weights[name])
        for part, values in parts.items():
            graph.initializer.append(numpy_helper.from_array(values, f"{name}.{part}"))
        inputs = [f"{name}.{part}" for part in parts]
        axis = axis % weight.ndim
        nodes.append(helper.make_node("DequantizeLinear", inputs, [name], axis=axis))
    for node in reversed(nodes):
        graph.node.insert(0, node)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


FP16_MAX = float(np.finfo(np.float16).max)


def store_fp16(content: bytes) -> bytes:
    """Return an ONNX file whose large weights are FP16.

    Args:
        content: The file of a float32 graph.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load_from_string(content)
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes = []
    for name in _axes(graph, weights):
        weight = numpy_helper.to_array(weights[name])
        if np.abs(weight).max() > FP16_MAX:
            continue
        graph.initializer.remove(weights[name])
        half = weight.astype(np.float16)
        graph.initializer.append(numpy_helper.from_array(half, f"{name}.fp16"))
        nodes.append(helper.make_node("Cast", [f"{name}.fp16"], [name], to=TensorProto.FLOAT))
    for node in reversed(nodes):
        graph.node.insert(0, node)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _axes(graph: Any, weights: dict[str, Any]) -> dict[str, int]:
    """Return the channel axis of every weight that can be stored in 8 bits."""
    from onnx import TensorProto

    found: dict[str, int] = {}
    kept: set[str] = set()
    for node in graph.node:
        for position, name in enumerate(node.input):
            tensor = weights.get(name)
            if tensor is None:
                continue
            large = tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) >= SIZE_MIN
            axis = CHANNEL_AXIS.get(node.op_type)
            if node.op_type == "Gemm" and not _transposed(node):
                axis = -1
            if position != 1 or axis is None or not large or found.get(name, axis) != axis:
                kept.add(name)
            else:
                found[name] = axis
    return {name: axis for name, axis in found.items() if name not in kept}


def _transposed(gemm: Any) -> bool:
    return any(a.name == "transB" and a.i == 1 for a in gemm.attribute)
