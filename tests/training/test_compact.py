"""Weights in fewer bits: a quarter or half of the size, nearly the same answers."""

import io
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnxruntime = pytest.importorskip("onnxruntime")

from training.bundle.compact import store_fp16, store_int8, to_int8  # noqa: E402


class Layers(torch.nn.Module):  # type: ignore[misc,name-defined]
    """One of each operator whose weights are stored."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 64, 3, padding=1)
        self.up = torch.nn.ConvTranspose2d(64, 32, 2, 2)
        self.line = torch.nn.Linear(32, 64)
        self.times = torch.nn.Parameter(torch.randn(64, 40))

    def forward(self, image: Any) -> Any:
        """Return (1, 40)."""
        pooled = self.up(self.conv(image).relu()).mean((2, 3))
        return self.line(pooled) @ self.times


def exported() -> bytes:
    torch.manual_seed(0)
    buffer = io.BytesIO()
    torch.onnx.export(Layers(), (torch.rand(1, 3, 8, 8),), buffer, opset_version=17, dynamo=False)
    return buffer.getvalue()


def answer(content: bytes) -> Any:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).random((1, 3, 8, 8), dtype=np.float32)
    return session.run(None, {session.get_inputs()[0].name: image})[0]


def test_a_graph_with_int8_weights_is_small_and_answers_alike() -> None:
    before = exported()
    after = store_int8(before)
    assert len(after) < 0.45 * len(before)
    expected, found = answer(before), answer(after)
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()
    assert not np.array_equal(found, expected)


def test_a_graph_with_fp16_weights_is_half_as_large_and_answers_alike() -> None:
    before = exported()
    after = store_fp16(before)
    assert len(after) < 0.65 * len(before)
    expected, found = answer(before), answer(after)
    assert np.abs(found - expected).max() < 0.001 * np.abs(expected).max()
    assert not np.array_equal(found, expected)


def test_a_weight_beyond_the_range_of_fp16_stays_float32() -> None:
    torch.manual_seed(0)
    layers, buffer = Layers(), io.BytesIO()
    with torch.no_grad():
        layers.times[0, 0] = 1e6
    image = (torch.rand(1, 3, 8, 8),)
    torch.onnx.export(layers, image, buffer, opset_version=17, dynamo=False)
    before = buffer.getvalue()
    expected, found = answer(before), answer(store_fp16(before))
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() < 0.001 * np.abs(expected).max()


def test_every_weight_is_within_half_a_step() -> None:
    weight = np.random.default_rng(1).normal(size=(5, 7, 3)).astype(np.float32)
    for axis in (0, 1, -1):
        rounded, scale = to_int8(weight, axis)
        shape = [1, 1, 1]
        shape[axis] = -1
        steps = scale.reshape(shape)
        assert np.all(np.abs(rounded * steps - weight) <= steps / 2 + 1e-7)


def test_a_channel_of_zeros_stays_zero() -> None:
    rounded, scale = to_int8(np.zeros((2, 4), np.float32), 0)
    assert not rounded.any()
    assert np.isfinite(scale).all()
