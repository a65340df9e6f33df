"""Weights rounded so that what a layer gives errs least (GPTQ)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from training.bundle.rounding import PATCHES, Moments, round_weights  # noqa: E402


def correlated(count: int, inputs: int, rank: int, seed: int = 0) -> np.ndarray:
    """Draw inputs that go together, as features do."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(rank, inputs))
    mixed = rng.normal(size=(count, rank)) @ mixing
    return np.float32(mixed + 0.1 * rng.normal(size=(count, inputs)))


@pytest.mark.parametrize(("groups", "inputs"), [(1, 300), (5, 9)])
def test_the_answers_of_a_layer_err_less_than_with_the_nearest_steps(
    groups: int, inputs: int
) -> None:
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(groups, 8, inputs)).astype(np.float32)
    scales = np.abs(weights).max(-1) / 64
    seen = np.stack([correlated(2000, inputs, 4, seed) for seed in range(groups)])
    moments = seen.transpose(0, 2, 1).astype(np.float64) @ seen
    rounded = round_weights(weights, scales, moments, 64)
    assert rounded.dtype == np.int8
    assert np.abs(rounded.astype(int)).max() <= 64
    other = np.stack([correlated(500, inputs, 4, seed) for seed in range(groups)])

    def error(steps: np.ndarray) -> float:
        difference = steps * scales[..., None] - weights
        return float(np.square(other @ difference.transpose(0, 2, 1)).mean())

    assert error(rounded) < (0.3 if inputs > 100 else 0.8) * error(
        np.round(weights / scales[..., None])
    )


def test_inputs_that_are_always_zero_are_rounded_to_the_nearest() -> None:
    weights = np.random.default_rng(2).normal(size=(2, 3, 4)).astype(np.float32)
    scales = np.abs(weights).max(-1) / 127
    rounded = round_weights(weights, scales, np.zeros((2, 4, 4)), 127)
    np.testing.assert_array_equal(rounded, np.round(weights / scales[..., None]))


def node(kind: str, **attributes: Any) -> Any:
    return onnx.helper.make_node(kind, ["x", "w"], ["y"], **attributes)


@pytest.mark.parametrize("group", [1, 6])
def test_moments_are_of_what_each_place_of_the_output_sees(group: int) -> None:
    torch = pytest.importorskip("torch")
    shape = (4, 6, 3, 3) if group == 1 else (6, 1, 3, 3)
    weight = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    made = node("Conv", kernel_shape=[3, 3], pads=[0, 1, 2, 1], strides=[2, 2], group=group)
    layer = Moments(made, weight)
    values = np.random.default_rng(4).normal(size=(1, 6, 9, 11)).astype(np.float32)
    patches = layer._patches(values, np.random.default_rng(5))
    assert patches.shape == (group, PATCHES, weight[0].size)
    grouped = layer.grouped(weight)
    given = np.einsum("gpk,gok->pgo", patches, grouped).reshape(PATCHES, -1)
    padded = torch.nn.functional.pad(torch.from_numpy(values), (1, 1, 0, 2))
    expected = torch.nn.functional.conv2d(
        padded, torch.from_numpy(weight), stride=2, groups=group
    ).numpy()
    places = expected[0].reshape(expected.shape[1], -1).T
    nearest = np.abs(given[:, None] - places[None]).max(-1).min(1)
    assert nearest.max() < 1e-4
    np.testing.assert_array_equal(layer.ungrouped(grouped), weight)


@pytest.mark.parametrize(
    ("kind", "options"), [("MatMul", {}), ("Gemm", {"transB": 1}), ("Gemm", {})]
)
def test_dense_layers_are_taken_by_output(kind: str, options: dict[str, int]) -> None:
    weight = np.random.default_rng(6).normal(size=(7, 5)).astype(np.float32)
    layer = Moments(node(kind, **options), weight)
    rows = weight if options else weight.T
    np.testing.assert_array_equal(layer.grouped(weight)[0], rows)
    np.testing.assert_array_equal(layer.ungrouped(layer.grouped(weight)), weight)
    layer.add(np.zeros((0, rows.shape[1]), np.float32), np.random.default_rng(7))
    assert layer.total.ndim == 0
    layer.add(np.ones((3, rows.shape[1]), np.float32), np.random.default_rng(7))
    np.testing.assert_array_equal(layer.total, np.full((1, rows.shape[1], rows.shape[1]), 3.0))


def test_a_layer_too_wide_for_its_moments_is_known_as_such(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("training.bundle.rounding.INPUTS_MOST", 54)
    wide = np.zeros((4, 55), np.float32)
    assert Moments(node("Gemm", transB=1), wide).is_too_wide
    assert Moments(node("MatMul"), np.ascontiguousarray(wide.T)).is_too_wide
    convolution = node("Conv", kernel_shape=[3, 3])
    assert not Moments(convolution, np.zeros((4, 6, 3, 3), np.float32)).is_too_wide
    assert Moments(convolution, np.zeros((4, 7, 3, 3), np.float32)).is_too_wide
