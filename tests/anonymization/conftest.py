"""A bundle whose networks always find the same: detection and commands end to end, untrained."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from anonymization.bundle import Bundle, write_bundle
from anonymization.card import Card, GraphCard, GraphInput
from anonymization.files import write_json
from anonymization.obscuring.generator import GeneratorCard
from anonymization.taxonomy import ClassSpec, Taxonomy

TAXONOMY = Taxonomy(
    {
        "face": ClassSpec("ellipse", "ellipse", margin=0.1, feather=0.2),
        "person": ClassSpec("mask", "outline", margin=0.1),
        "license_plate": ClassSpec("box", "box", margin=0.1, method="pixelate"),
        "vehicle": ClassSpec("mask", "outline", method="none"),
    },
    keypoint_class="person",
    head_class="face",
)
WIDTH_28 = (28, 28)


def constant_graph(outputs: dict[str, NDArray[Any]]) -> bytes:
    """Build an ONNX graph that takes `image` and returns these arrays whatever it shows."""
    from onnx import TensorProto, helper, numpy_helper

    kinds = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64}
    graph = helper.make_graph(
        [helper.make_node("Identity", [f"c_{name}"], [name]) for name in outputs],
        "constant",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, "H", "W"])],
        [
            helper.make_tensor_value_info(name, kinds[value.dtype], value.shape)
            for name, value in outputs.items()
        ],
        [numpy_helper.from_array(value, f"c_{name}") for name, value in outputs.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def mask_outputs(rows: list[tuple[list[float], float, int]]) -> dict[str, NDArray[Any]]:
    """Outputs of a mask network from (box, score, label) rows; masks are full."""
    n = len(rows)
    return {
        "boxes": np.array([row[0] for row in rows], np.float32).reshape(n, 4),
        "scores": np.array([row[1] for row in rows], np.float32),
        "labels": np.array([row[2] for row in rows], np.int64),
        "masks": np.ones((n, *WIDTH_28), np.float32),
    }


def keypoint_outputs(
    box: list[float], score: float, points: dict[int, tuple[int, int]]
) -> dict[str, NDArray[Any]]:
    """Outputs of a keypoint network: one person, a peak of 10 per seen point, else -10.

    `points` maps a keypoint to the cell (column, row) of its 56x56 heat map.
    """
    heatmaps = np.full((1, 17, 56, 56), -10, np.float32)
    for k, (column, row) in points.items():
        heatmaps[0, k, row, column] = 10
    return {
        "boxes": np.array([box], np.float32),
        "scores": np.array([score], np.float32),
        "labels": np.zeros(1, np.int64),
        "heatmaps": heatmaps,
    }


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Bundle]:
    """Write a bundle of constant graphs; finds are in pixels of pictures up to 512 px."""

    def make(
        rows: list[tuple[list[float], float, int]] | None = None,
        person: dict[str, NDArray[Any]] | None = None,
        folder: str = "bundle",
        **card: Any,
    ) -> Bundle:
        found = [([10.0, 8.0, 30.0, 28.0], 0.9, 0)] if rows is None else rows
        graphs = {"mask_rcnn": constant_graph(mask_outputs(found))}
        listed = {
            "mask_rcnn": GraphCard("mask_rcnn.onnx", "", GraphInput(512), TAXONOMY.names),
        }
        if person is not None:
            graphs["keypoint_rcnn"] = constant_graph(person)
            listed["keypoint_rcnn"] = GraphCard(
                "keypoint_rcnn.onnx", "", GraphInput(512), ("person",)
            )
        values = {"taxonomy": TAXONOMY, "thresholds": dict.fromkeys(TAXONOMY.names, 0.5)} | card
        return write_bundle(tmp_path / folder, Card(graphs=listed, **values), graphs)

    return make


@pytest.fixture
def constant_bundle(make_bundle: Callable[..., Bundle]) -> Bundle:
    """A bundle that finds one face at (10, 8)-(30, 28) in every picture up to 512 px."""
    return make_bundle()


@pytest.fixture
def face_generator(tmp_path: Path) -> Path:
    """A generator's folder: no faces, but pictures of 16x16 that follow from the latents."""
    return write_generator(tmp_path / "faces")


def write_generator(folder: Path, *, latents: int = 8, side: int = 16) -> Path:
    """Write a generator that multiplies its latents with random weights."""
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).normal(0, 1, (latents, 3 * side * side))
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["latents", "weights"], ["product"]),
            helper.make_node("Tanh", ["product"], ["bent"]),
            helper.make_node("Reshape", ["bent", "shape"], ["faces"]),
        ],
        "faces",
        [helper.make_tensor_value_info("latents", TensorProto.FLOAT, [1, latents])],
        [helper.make_tensor_value_info("faces", TensorProto.FLOAT, [1, 3, side, side])],
        [
            numpy_helper.from_array(weights.astype(np.float32), "weights"),
            numpy_helper.from_array(np.array([1, 3, side, side], np.int64), "shape"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    content = bytes(model.SerializeToString())
    card = GeneratorCard(
        sha256=hashlib.sha256(content).hexdigest(),
        latents=latents,
        scale=0.8,
        side=side,
        origin="random weights",
        note="made by a test",
    )
    folder.mkdir()
    (folder / "generator.onnx").write_bytes(content)
    write_json(folder / "generator.json", card.to_dict())
    return folder
