"""Runtimes behind one protocol give the same finds."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from anonymization.anonymizer import Anonymizer
from anonymization.bundle import Bundle
from anonymization.detection.runtime import InferenceError, RuntimeLoadError, load_graph


def adding_graph() -> bytes:
    """A graph that returns the mean of its input plus the input."""
    from onnx import TensorProto, helper

    shape = [1, 3, "H", "W"]
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["image"], ["mean"], keepdims=1),
            helper.make_node("Add", ["image", "mean"], ["sum"]),
        ],
        "adding",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def stored_in_8_bits() -> bytes:
    """A convolution whose weights are stored as whole numbers with one scale."""
    from onnx import TensorProto, helper, numpy_helper

    weights = np.arange(9, dtype=np.int8).reshape(1, 1, 3, 3)
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", ["stored", "scale"], ["weights"], name="widen"),
            helper.make_node("Conv", ["image", "weights"], ["sum"], pads=[1, 1, 1, 1]),
        ],
        "stored",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, "H", "W"])],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, [1, 1, "H", "W"])],
        [
            numpy_helper.from_array(weights, "stored"),
            numpy_helper.from_array(np.array(0.5, np.float32), "scale"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def test_stored_weights_are_widened_once_and_not_at_every_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import onnx
    import onnxruntime as ort

    seen = tmp_path / "optimized.onnx"
    load = ort.InferenceSession

    def watched(graph: bytes, options: ort.SessionOptions, **rest: object) -> ort.InferenceSession:
        options.optimized_model_filepath = str(seen)
        return load(graph, options, **rest)

    monkeypatch.setattr(ort, "InferenceSession", watched)
    runtime = load_graph(stored_in_8_bits(), threads=1)
    assert "DequantizeLinear" not in {node.op_type for node in onnx.load(seen).graph.node}
    (value,) = runtime.run({"image": np.ones((1, 1, 1, 1), np.float32)})["sum"].ravel()
    assert value == 4 * 0.5  # the middle weight alone meets the only pixel


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_runtime_serves_several_threads_and_sizes(name: str) -> None:
    pytest.importorskip(name)
    runtime = load_graph(adding_graph(), threads=1, runtime=name)

    def run(number: int) -> bool:
        image = np.full((1, 3, 8 + number, 8), number, np.float32)
        return bool(np.array_equal(runtime.run({"image": image})["sum"], image * 2))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(24)))


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_runtime_says_which_graph_failed(name: str) -> None:
    pytest.importorskip(name)
    with pytest.raises(RuntimeLoadError, match="graph x"):
        load_graph(b"no graph", name="graph x", runtime=name)
    runtime = load_graph(adding_graph(), name="graph x", runtime=name)
    with pytest.raises(InferenceError, match=r"graph x failed on input .*\(2, 2\)"):
        runtime.run({"image": np.zeros((2, 2), np.float32)})


def test_both_runtimes_find_the_same(make_bundle: Callable[..., Bundle]) -> None:
    pytest.importorskip("openvino")
    bundle = make_bundle()
    pixels = np.zeros((60, 100, 3), np.uint8)
    ours, theirs = (
        Anonymizer.from_bundle(bundle, runtime=name, threads=1).detect(pixels)
        for name in ("onnxruntime", "openvino")
    )
    np.testing.assert_allclose(theirs.boxes_xyxy, ours.boxes_xyxy)
    np.testing.assert_allclose(theirs.masks, ours.masks)


def test_openvino_gets_no_graph_that_counts_in_8_bits() -> None:
    """It runs them and finds next to nobody (docs/variants.md)."""
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["image", "scale"], ["sum"])],
        "counting",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, "H", "W"])],
        [helper.make_tensor_value_info("sum", TensorProto.UINT8, None)],
        [numpy_helper.from_array(np.array(0.1, np.float32), "scale")],
    )
    opset = [helper.make_opsetid("", 17)]
    content = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    with pytest.raises(RuntimeLoadError, match=r"graph x counts in 8 bits.*use --runtime onnx"):
        load_graph(content, name="graph x", runtime="openvino")
    ran = load_graph(content, name="graph x").run({"image": np.ones((1, 1, 1, 1), np.float32)})
    assert ran["sum"].ravel().tolist() == [10]


def test_an_unknown_runtime_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RuntimeLoadError, match="expected one of onnxruntime, openvino"):
        load_graph(b"", runtime="abacus")
