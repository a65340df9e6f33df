"""Running a graph: one small protocol, so that other engines fit behind it.

Loads from bytes that the bundle has checked, never from a path that could have changed since.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from anonymization.errors import BlurloopError

Array = NDArray[Any]

GPU_PROVIDERS = ("CUDAExecutionProvider", "ROCMExecutionProvider", "CoreMLExecutionProvider")
"""Used when present, in this order, before the CPU."""


class RuntimeLoadError(BlurloopError):
    """A graph cannot be loaded."""


class InferenceError(BlurloopError):
    """A graph failed on a picture, or answered with something impossible."""


class Runtime(Protocol):
    """Something that runs one graph; safe to call from several threads."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return every output of the graph, by name."""


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
        available = ort.get_available_providers()
        providers = [p for p in GPU_PROVIDERS if p in available] + ["CPUExecutionProvider"]
        self._name = name
        try:
            self._session = ort.InferenceSession(graph, options, providers=providers)
        except Exception as error:  # its binding raises a class per status code
            raise RuntimeLoadError(f"{name} cannot be loaded: {error}") from error
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return every output of the graph, by name.

        Raises:
            InferenceError: If the graph fails.
        """
        try:
            values = self._session.run(self._outputs, dict(feeds))
        except Exception as error:
            shapes = {key: np.shape(value) for key, value in feeds.items()}
            raise InferenceError(f"{self._name} failed on input {shapes}: {error}") from error
        return dict(zip(self._outputs, values, strict=True))
