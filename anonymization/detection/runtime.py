"""Running a graph: one small protocol, so that other engines fit behind it.

Loads from bytes that the bundle has checked, never from a path that could have changed since.
"""

from __future__ import annotations

import importlib.util
import queue
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from anonymization.errors import BlurloopError
from anonymization.pipeline import cores

Array = NDArray[Any]

ONNXRUNTIME, OPENVINO = "onnxruntime", "openvino"
RUNTIMES = (ONNXRUNTIME, OPENVINO)

GPU_PROVIDERS = ("CUDAExecutionProvider", "ROCMExecutionProvider", "CoreMLExecutionProvider")
"""Used when present, in this order, before the CPU."""


class RuntimeLoadError(BlurloopError):
    """A graph cannot be loaded."""


class InferenceError(BlurloopError):
    """A graph failed on a picture, or answered with something impossible."""


class Runtime(Protocol):
    """Something that runs one graph; safe to call from several threads."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return every output of the graph, by name; feeds that it has no input for are left."""


def load_graph(
    graph: bytes, *, name: str = "graph", threads: int | None = None, runtime: str | None = None
) -> Runtime:
    """Load a graph into a runtime.

    Args:
        graph: The ONNX file's bytes.
        name: What to call it in errors.
        threads: Threads for one run; None leaves the choice to the runtime (all cores).
        runtime: One of `RUNTIMES`; None for ONNX Runtime.

    Raises:
        RuntimeLoadError: If the runtime is unknown or not installed, or the bytes are not a graph
            that this machine can run.
    """
    if runtime in (None, ONNXRUNTIME):
        return OnnxRuntime(graph, name=name, threads=threads)
    if runtime == OPENVINO:
        return OpenVinoRuntime(graph, name=name, threads=threads)
    raise RuntimeLoadError(f"runtime is {runtime!r}; expected one of {', '.join(RUNTIMES)}")


class OnnxRuntime:
    """ONNX Runtime behind the protocol."""

    def __init__(self, graph: bytes, *, name: str = "graph", threads: int | None = None) -> None:
        """Load a graph.

        Args:
            graph: The ONNX file's bytes.
            name: What to call it in errors.
            threads: Threads for one run; None leaves the choice to ONNX Runtime (all cores).

        Raises:
            RuntimeLoadError: If the bytes are not a graph that this machine can run.
        """
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 3  # warnings about constant folding help no operator
        if threads is not None:
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
        if _is_float(graph):
            # Else weights stored in 8 bits would be widened at every run, and no layer that reads
            # them would be laid out for this processor.
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        available = ort.get_available_providers()
        providers = [p for p in GPU_PROVIDERS if p in available] + ["CPUExecutionProvider"]
        self._name = name
        try:
            self._session = ort.InferenceSession(graph, options, providers=providers)
        except Exception as error:  # its binding raises a class per status code
            raise RuntimeLoadError(f"{name} cannot be loaded: {error}") from error
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._inputs = {port.name for port in self._session.get_inputs()}

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return every output of the graph, by name.

        Raises:
            InferenceError: If the graph fails.
        """
        try:
            known = {name: value for name, value in feeds.items() if name in self._inputs}
            values = self._session.run(self._outputs, known)
        except Exception as error:
            raise _failed(self._name, feeds, error) from error
        return dict(zip(self._outputs, values, strict=True))


def _is_float(graph: bytes) -> bool:
    """Tell whether a graph counts in floats throughout, whatever its weights are stored in.

    Only what is quantized on the way holds the operator's name; `DequantizeLinear`, which widens
    stored weights, is spelt with a small q.
    """
    return b"QuantizeLinear" not in graph


class OpenVinoRuntime:
    """OpenVINO behind the protocol, on the CPU; extra `openvino`."""

    def __init__(self, graph: bytes, *, name: str = "graph", threads: int | None = None) -> None:
        """Load a graph.

        Args:
            graph: The ONNX file's bytes.
            name: What to call it in errors.
            threads: Threads for one run; None leaves the choice to OpenVINO (all cores).

        Raises:
            RuntimeLoadError: If OpenVINO is not installed, or cannot run the graph, or the graph
                counts in 8 bits.
        """
        if not _is_float(graph):
            raise RuntimeLoadError(
                f"{name} counts in 8 bits, in which OpenVINO was seen to miss nearly everything "
                f"(docs/variants.md); use --runtime {ONNXRUNTIME}, which the bundle was judged in"
            )
        if importlib.util.find_spec("openvino") is None:
            raise RuntimeLoadError(
                "runtime openvino is not installed; install blurloop[openvino], or use "
                f"--runtime {ONNXRUNTIME}"
            )
        import openvino as ov

        runs = max(1, cores() // threads) if threads else 1
        # Float32 as the bundle was judged: the plug-in may choose bfloat16 by itself.
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": runs}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = runs * threads
        self._name = name
        try:
            core = ov.Core()
            self._model = core.compile_model(core.read_model(graph, b""), "CPU", options)
            # All are made here: making one while another runs was seen to wait for ever.
            self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
            for _ in range(runs):
                self._requests.put(self._model.create_infer_request())
        except Exception as error:  # its binding raises plain RuntimeError and others
            raise RuntimeLoadError(f"{name} cannot be loaded by OpenVINO: {error}") from error
        # OpenVINO drops inputs that nothing depends on, and refuses values for them.
        self._inputs = {port.get_any_name(): _sides(port) for port in self._model.inputs}

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return every output of the graph, by name.

        Raises:
            InferenceError: If the graph fails.
        """
        request = self._requests.get()
        try:
            known = {name: value for name, value in feeds.items() if name in self._inputs}
            # 2026.4 takes an array of other dimensions for none, and answers as to no picture.
            for name, value in known.items():
                _check_shape(name, value.shape, self._inputs[name])
            values = request.infer(known)
            # Copied: the request's own memory is used again by its next run.
            return {
                name: array
                for port in self._model.outputs
                for array in [np.array(values[port])]
                for name in port.get_names()
            }
        except Exception as error:
            raise _failed(self._name, feeds, error) from error
        finally:
            self._requests.put(request)


def _failed(name: str, feeds: Mapping[str, Array], error: Exception) -> InferenceError:
    shapes = {key: np.shape(value) for key, value in feeds.items()}
    return InferenceError(f"{name} failed on input {shapes}: {error}")


def _sides(port: Any) -> tuple[int | None, ...] | None:
    """Return the sides that an input of OpenVINO must have, None for any; None where all may be."""
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        return None
    return tuple(None if side.is_dynamic else int(side.get_length()) for side in shape)


def _check_shape(name: str, shape: tuple[int, ...], sides: tuple[int | None, ...] | None) -> None:
    """Refuse an array that is no input of a graph.

    Raises:
        ValueError: If it has other sides.
    """
    fits = sides is None or (
        len(shape) == len(sides)
        and all(side in (None, given) for given, side in zip(shape, sides, strict=True))
    )
    if not fits:
        raise ValueError(f"{name} is {shape}; expected {sides}")
