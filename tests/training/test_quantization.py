"""INT8 arithmetic: integer kernels where features are made, float32 where finds are decided."""

import collections
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from training.bundle import quantization  # noqa: E402
from training.bundle.quantization import (  # noqa: E402
    _moments_of,
    _with_plain_constants,
    best_range,
    layers_to_quantize,
    to_int8_arithmetic,
)
from training.errors import QuantizationError  # noqa: E402


class Features(torch.nn.Module):  # type: ignore[misc,name-defined]
    """A residual block, a map shared by two sizes, and a last layer, as detectors have them.

    Biases are zero and therefore equal: the exporter makes one of them.
    """

    def __init__(self) -> None:
        super().__init__()
        layer = torch.nn.Conv2d
        self.stem, self.block = layer(3, 16, 3, padding=1), layer(16, 16, 3, padding=1)
        self.shared, self.last = layer(16, 16, 3, padding=1), layer(16, 2, 1)
        for each in (self.stem, self.block, self.shared, self.last):
            torch.nn.init.zeros_(each.bias)

    def forward(self, image: Any) -> Any:
        """Return (1, 2, H, W)."""
        x = self.stem(image).clamp(0, 6)
        x = x + self.block(x)
        half = self.shared(torch.nn.functional.max_pool2d(x, 2)).relu()
        full = self.shared(x).relu()
        return self.last(full + torch.nn.functional.interpolate(half, scale_factor=2.0))


@pytest.fixture(scope="module")
def content() -> bytes:
    torch.manual_seed(0)
    buffer = io.BytesIO()
    example = (torch.rand(1, 3, 16, 24),)
    torch.onnx.export(
        Features().eval(),
        example,
        buffer,
        input_names=["image"],
        dynamic_axes={"image": {2: "height", 3: "width"}},
        opset_version=17,
        dynamo=False,
    )
    return buffer.getvalue()


def pictures(count: int = 4) -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.random((1, 3, 32, 32 + 8 * i), dtype=np.float32) for i in range(count)]


def answer(graph: bytes, image: Any) -> Any:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image})[0]


def kernels(graph: bytes, folder: Path) -> collections.Counter[str]:
    """Count what ONNX Runtime makes of a graph."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    model = onnx.load(folder / "optimized.onnx")
    return collections.Counter(node.op_type for node in model.graph.node)


def test_every_layer_but_the_last_runs_in_an_integer_kernel(content: bytes, tmp_path: Path) -> None:
    made = kernels(to_int8_arithmetic(content, pictures()), tmp_path)
    # stem, block and twice the shared one; the last stays float32.
    assert made["QLinearConv"] == 4
    assert made["Conv"] == 1
    assert made["QLinearAdd"] == 2


def test_the_answer_is_nearly_that_of_float32(content: bytes) -> None:
    quantized = to_int8_arithmetic(content, pictures())
    other = np.random.default_rng(9).random((1, 3, 48, 32), dtype=np.float32)
    expected, found = answer(content, other), answer(quantized, other)
    assert np.abs(found - expected).max() < 0.05 * np.ptp(expected)
    assert not np.array_equal(found, expected)


def test_weights_take_seven_bits_so_that_sums_of_two_products_fit_into_sixteen(
    content: bytes,
) -> None:
    model = onnx.load_from_string(to_int8_arithmetic(content, pictures()))
    stored = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4
    ]
    assert len(stored) == 3
    largest = max(int(np.abs(weight.astype(int)).max()) for weight in stored)
    assert 60 <= largest <= 64
    assert 2 * 255 * largest < 2**15


def test_a_layer_named_stays_float32(content: bytes, tmp_path: Path) -> None:
    made = kernels(to_int8_arithmetic(content, pictures(), keep_float=["/block/"]), tmp_path)
    assert made["QLinearConv"] == 3


def test_the_first_layers_stay_float32_where_asked_for(content: bytes, tmp_path: Path) -> None:
    made = kernels(to_int8_arithmetic(content, pictures(), float_first=2), tmp_path)
    assert made["QLinearConv"] == 2


def test_a_weight_that_layers_share_is_rounded_by_what_all_of_them_see(content: bytes) -> None:
    model = onnx.load_from_string(content)
    _with_plain_constants(model.graph)
    moments = _moments_of(model.graph, layers_to_quantize(model.graph))
    assert sorted(len(layer.inputs) for layer in moments.values()) == [1, 1, 2]


def test_rounding_by_what_layers_see_errs_less(
    content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    some, others = pictures(8), pictures(12)[8:]

    def error() -> float:
        graph = to_int8_arithmetic(content, some)
        return sum(float(np.square(answer(graph, x) - answer(content, x)).sum()) for x in others)

    best = error()
    monkeypatch.setattr(quantization, "_with_best_weights", lambda made, *_: made)
    assert best < error()


def test_a_layer_behind_a_box_does_not_make_the_layer_that_found_it_a_middle_one() -> None:
    node, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    weight = onnx.numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "w")
    nodes = [
        node("Conv", ["image", "w"], ["features"], name="features"),
        node("Conv", ["features", "w"], ["boxes_map"], name="boxes"),
        node("Squeeze", ["boxes_map"], ["boxes"], name="squeeze"),
        node("RoiAlign", ["features", "boxes", "which"], ["regions"], name="pool"),
        node("Conv", ["regions", "w"], ["head"], name="head"),
        node("Conv", ["head", "w"], ["scores"], name="scores"),
    ]
    graph = onnx.helper.make_graph(
        nodes, "g", [value("image", 1, None)], [value("scores", 1, None)], [weight]
    )
    assert layers_to_quantize(graph) == ["features", "head"]


def test_ranges_come_from_pictures_so_that_none_is_refused(content: bytes) -> None:
    with pytest.raises(QuantizationError, match="no picture to observe ranges on"):
        to_int8_arithmetic(content, [])
    with pytest.raises(QuantizationError, match="stem, block, shared was to stay float32"):
        to_int8_arithmetic(content, pictures(), keep_float=["stem", "block", "shared"])


def test_one_extreme_value_does_not_make_every_step_coarse() -> None:
    values = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    values[0] = 12.0
    _, high = best_range(values, float(values.min()), 12.0)
    assert 3 < high < 12
    assert best_range(values[1:], 0.0, 0.0) == (0.0, 0.0)


def test_a_range_keeps_its_zero_where_it_was() -> None:
    values = np.abs(np.random.default_rng(0).normal(size=10_000)).astype(np.float32)
    low, high = best_range(values, 0.0, float(values.max()))
    assert low == 0.0
    assert high > 0
