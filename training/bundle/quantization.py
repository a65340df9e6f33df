"""Graphs that count in 8 bits: convolutions and dense layers of an ONNX graph become INT8.

Static quantization of ONNX Runtime: QuantizeLinear and DequantizeLinear stand around every layer
that is to run in 8 bits, and ONNX Runtime makes integer kernels of them. Ranges of activations are
observed on pictures; weights have one scale per output channel and are rounded so that what the
layers give on those pictures errs least (rounding.py).

Float32 stays what decides: the last layers of every branch (class scores, boxes, masks, key
points), pooling of regions, decoding and suppression. And, where asked for, the first layers: few
channels, from which all that follows is made.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.bundle.rounding import Moments, round_weights
from training.errors import QuantizationError

Floats = NDArray[np.float32]

log = logging.getLogger(__name__)

WEIGHT_MOST = 64
"""Steps of a weight on either side: 7 bits, see `to_int8_arithmetic`."""

LAYERS = ("Conv", "Gemm", "MatMul")
"""What runs in 8 bits. ONNX Runtime has no integer kernel for ConvTranspose on a CPU."""

BETWEEN = ("Relu", "Clip", "MaxPool", "Resize", "Add")
"""What hands integers on between two such layers, where all that it takes are integers."""

FEATURES: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("Relu", "Clip", "MaxPool", "Pad", "Flatten", "Sigmoid", "HardSigmoid"), (0,)),
    **dict.fromkeys(("HardSwish", "GlobalAveragePool", "Transpose", "Resize", "RoiAlign"), (0,)),
    **dict.fromkeys(("Add", "Mul"), (0, 1)),
    "ScatterElements": (0, 2),
}
"""Operators that hand features on, and by which inputs. Through a region's box, for one, nothing
of the layer that found it goes on; an operator that is not here ends a branch."""

SAMPLE = 4096
"""Values kept of a tensor and picture, evenly spread."""

SHRINKS = np.linspace(0.4, 1.0, 25)
"""Shares of the observed range that are tried."""


@dataclass
class Observed:
    """What a tensor held.

    Attributes:
        low: Least value, at most 0.
        high: Largest value, at least 0.
        samples: Some of the values of each picture, each float32 (S,).
    """

    low: float = 0.0
    high: float = 0.0
    samples: list[Floats] = field(default_factory=list)

    def add(self, values: Floats) -> None:
        """Take note of a tensor of any shape; one without values (no finds) says nothing."""
        if not values.size:
            return
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))
        flat = values.reshape(-1)
        self.samples.append(flat[:: max(1, len(flat) // SAMPLE)].copy())


def best_range(values: Floats, low: float, high: float) -> tuple[float, float]:
    """Return the part of a range in which 255 steps represent values with the least squared error.

    A few extreme values would make every step coarse; clipping them can cost less.

    Args:
        values: float32 (N,), a sample.
        low: Least value of all, at most 0.
        high: Largest value of all, at least 0.

    >>> values = np.linspace(0, 1, 1001, dtype=np.float32)
    >>> best_range(values, 0.0, 1.0)
    (0.0, 1.0)
    """
    errors = []
    for shrink in SHRINKS:
        step = max((high - low) * shrink / 255, 1e-12)
        zero = np.round(-low * shrink / step)
        rounded = (np.clip(np.round(values / step) + zero, 0, 255) - zero) * step
        errors.append(float(np.square(rounded - values, dtype=np.float64).mean()))
    # The widest of equals: what was not sampled may lie further out.
    best = float(SHRINKS[len(SHRINKS) - 1 - int(np.argmin(errors[::-1]))])
    return low * best, high * best


def to_int8_arithmetic(
    content: bytes,
    pictures: Iterable[Floats],
    *,
    keep_float: Sequence[str] = (),
    float_first: int = 0,
) -> bytes:
    """Return an ONNX file whose layers run in 8 bits.

    Weights take 7 of the 8 bits: processors without VNNI add two products of 8 bits in 16 and
    saturate, and a verdict measured on one processor would not hold on the other.
    2 * 255 * 64 = 32,640 cannot.

    Args:
        content: The file of a float32 graph, its picture the first input.
        pictures: Its input for some pictures, each float32 (1, 3, H, W).
        keep_float: Parts of names of layers that stay float32.
        float_first: Number of first layers that stay float32.

    Raises:
        QuantizationError: If no layer of the graph can be quantized, or there is no picture.
    """
    import onnx

    model = onnx.load_from_string(content)
    _with_plain_constants(model.graph)
    chosen = layers_to_quantize(model.graph, keep_float, float_first=float_first)
    if not chosen:
        raise QuantizationError(
            f"no layer can be quantized; {', '.join(keep_float) or 'nothing'} was to stay float32"
        )
    tensors = _tensors_of(model.graph, chosen)
    moments = _moments_of(model.graph, chosen)
    ranges = _observe(model, sorted(set().union(*tensors.values())), pictures, moments)
    observed = [name for name in chosen if ranges.keys() >= tensors[name]]
    if len(observed) < len(chosen):
        log.warning(
            "%d layers stay float32: in no picture did anything reach them",
            len(chosen) - len(observed),
        )
    return _with_best_weights(_quantized(model, observed, ranges), model, moments)


def _with_plain_constants(graph: Any) -> None:
    """Make every constant an initializer, and name every node: the quantizer asks for both.

    Layers that share a bias get one each, as its scale is that of the layer's input. The exporter
    lets equal weights be one, behind an Identity.
    """
    from onnx import numpy_helper

    known = {tensor.name: tensor for tensor in graph.initializer}
    for node in list(graph.node):
        value = None
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            value = node.attribute[0].t
        elif node.op_type == "Identity":
            value = known.get(node.input[0])
        if value is not None:
            tensor = numpy_helper.from_array(numpy_helper.to_array(value), node.output[0])
            known[node.output[0]] = tensor
            graph.initializer.append(tensor)
            graph.node.remove(node)
    used: set[str] = set()
    for number, node in enumerate(graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
        if node.op_type in LAYERS and len(node.input) > 2 and node.input[2] in known:
            bias = numpy_helper.to_array(known[node.input[2]])
            if node.input[2] in used:
                node.input[2] = f"{node.name}.bias"
                graph.initializer.append(numpy_helper.from_array(bias, node.input[2]))
            used.add(node.input[2])


def layers_to_quantize(
    graph: Any, keep_float: Sequence[str] = (), *, float_first: int = 0
) -> list[str]:
    """Return the names of the nodes of a graph that run in 8 bits.

    Layers with weights that are not the last of their branch nor among the first so many, and what
    stands between them.
    """
    weights = {tensor.name for tensor in graph.initializer}
    layers = [
        node
        for node in graph.node
        if node.op_type in LAYERS and len(node.input) > 1 and node.input[1] in weights
    ]
    transposed = [node for node in graph.node if node.op_type == "ConvTranspose"]
    leading = _leading_to(graph, {node.input[0] for node in (*layers, *transposed)})
    chosen: list[str] = []
    integer: set[str] = set()
    wanted = {
        node.name
        for node in layers[float_first:]
        if node.output[0] in leading and not any(part in node.name for part in keep_float)
    }
    for node in graph.node:
        taken = node.input[:2] if node.op_type == "Add" else node.input[:1]
        between = node.op_type in BETWEEN and _is_exact(node) and integer.issuperset(taken)
        if node.name in wanted or between:
            chosen.append(node.name)
            integer.update(node.output)
    return chosen


def _leading_to(graph: Any, targets: set[str]) -> set[str]:
    """Return the targets and all tensors from which features reach one of them."""
    found = set(targets)
    for node in reversed(graph.node):
        if node.op_type in FEATURES and found.intersection(node.output):
            found.update(node.input[i] for i in FEATURES[node.op_type] if i < len(node.input))
    return found


def _is_exact(node: Any) -> bool:
    """Whether an operator between two layers says the same in integers: Resize by nearest only."""
    if node.op_type != "Resize":
        return True
    return all(a.s == b"nearest" for a in node.attribute if a.name == "mode")


def _tensors_of(graph: Any, chosen: Sequence[str]) -> dict[str, set[str]]:
    """Return the tensors that each chosen node takes and gives, weights and sizes aside."""
    known = {tensor.name for tensor in graph.initializer}
    found = {}
    for node in graph.node:
        if node.name in set(chosen):
            taken = node.input[:2] if node.op_type in ("Add", "MatMul") else node.input[:1]
            found[node.name] = {*taken, *node.output} - known
    return found


def _moments_of(graph: Any, chosen: Sequence[str]) -> dict[str, Moments]:
    """Return what gathers the inputs of each layer that is to be rounded, by its weight's name."""
    from onnx import numpy_helper

    known = {tensor.name: tensor for tensor in graph.initializer}
    found: dict[str, Moments] = {}
    for node in graph.node:
        if node.name not in set(chosen) or node.op_type not in LAYERS:
            continue
        name = node.input[1]
        if name in found:
            found[name].inputs.append(node.input[0])
        else:
            found[name] = Moments(node, numpy_helper.to_array(known[name]))
    return {name: moments for name, moments in found.items() if not moments.is_too_wide}


def _with_best_weights(content: bytes, model: Any, moments: Mapping[str, Moments]) -> bytes:
    """Return a quantized graph with its weights rounded by what their layers see."""
    import onnx
    from onnx import numpy_helper

    quantized = onnx.load_from_string(content)
    stored = {tensor.name: tensor for tensor in quantized.graph.initializer}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, seen in moments.items():
        integers, scales = stored.get(f"{name}_quantized"), stored.get(f"{name}_scale")
        if integers is None or scales is None or not seen.total.ndim:
            continue  # it stayed float32
        grouped = seen.grouped(numpy_helper.to_array(weights[name]))
        steps = numpy_helper.to_array(scales).reshape(grouped.shape[:2])
        rounded = seen.ungrouped(round_weights(grouped, steps, seen.total, WEIGHT_MOST))
        integers.CopyFrom(numpy_helper.from_array(rounded, integers.name))
    return bytes(quantized.SerializeToString())


def _observe(
    model: Any,
    tensors: Sequence[str],
    pictures: Iterable[Floats],
    moments: Mapping[str, Moments],
) -> dict[str, tuple[float, float]]:
    """Run the float32 graph on pictures and return the range of each tensor.

    What layers take is added to their moments.
    """
    import onnx
    import onnxruntime as ort

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    present = {output.name for output in watched.graph.output}
    watched.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in tensors if name not in present
    )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    observed = {name: Observed() for name in tensors}
    image, *told = session.get_inputs()
    # Everything is drawn: what the network finds at all shows what its last layers see.
    every = {port.name: np.full(port.shape, port.name == "draw", np.float32) for port in told}
    seen = 0
    generator = np.random.default_rng(0)
    for picture in pictures:
        seen += 1
        found = session.run(tensors, {image.name: picture} | every)
        values_of = dict(zip(tensors, found, strict=True))
        for name, values in values_of.items():
            observed[name].add(values)
        for taken in moments.values():
            for name in taken.inputs:
                taken.add(values_of[name], generator)
    if not seen:
        raise QuantizationError("there is no picture to observe ranges on; expected at least one")
    return {
        name: best_range(np.concatenate(values.samples), values.low, values.high)
        for name, values in observed.items()
        if values.samples
    }


def _quantized(model: Any, chosen: Sequence[str], ranges: dict[str, tuple[float, float]]) -> bytes:
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data

    pairs = {name: tuple(np.float32(v) for v in pair) for name, pair in ranges.items()}
    root = logging.getLogger()
    level = root.level
    with tempfile.TemporaryDirectory() as work:
        known, out = Path(work) / "ranges.json", Path(work) / "int8.onnx"
        save_tensors_data(TensorsData(CalibrationMethod.MinMax, pairs), known)
        root.setLevel(logging.ERROR)  # it advises pre-processing that the export has done
        try:
            quantize_static(
                model,
                out,
                None,
                calibration_cache_path=known,
                nodes_to_quantize=list(chosen),
                op_types_to_quantize=[*LAYERS, *BETWEEN],
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                reduce_range=True,
            )
        finally:
            root.setLevel(level)
        return out.read_bytes()
