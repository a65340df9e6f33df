"""A trained network as an ONNX graph: one picture of any size in, its finds out."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.config import KEYPOINT, MASK
from training.errors import ExportError
from training.network.rcnn import MULTIPLE, Network

OPSET = 17
"""Highest opset of the TorchScript-based exporter that ONNX Runtime, OpenVINO and TensorRT all
read; RoiAlign and NonMaxSuppression are in it."""


MAP_OUTPUTS = {MASK: "masks", KEYPOINT: "heatmaps"}


def output_names(network: Network) -> list[str]:
    """Return the names of the graph's outputs, in order."""
    return ["boxes", "scores", "labels", *(MAP_OUTPUTS[kind] for kind in network.maps)]


def all_finds(network: Network, image: Tensor) -> dict[str, NDArray[np.float32]]:
    """Return the inputs with which the network's graph keeps and draws every find in a picture."""
    classes = len(network.classes)
    feeds = {"image": image.numpy(), "score_min": np.zeros(classes, np.float32)}
    return feeds | ({"draw": np.ones(classes, np.float32)} if MASK in network.maps else {})


def export_onnx(network: Network, path: Path) -> None:
    """Write the network as ONNX; height and width are dynamic, multiples of 32.

    Inputs: `image`, float32 (1, 3, H, W), RGB in [0, 1]; and of each class, float32 (classes,),
    `score_min`, the score below which its finds are left out, and in a graph with masks `draw`,
    above 0 where its finds get one. Most of what a network finds at all lies below its threshold,
    faces and plates need no outline, and drawing all of it would be more than half of the time.

    Outputs: `boxes` (D, 4) xyxy in input pixels, `scores` (D,), `labels` int64 (D,), and of the
    finds that are drawn, in order, `masks` (M, 28, 28) probabilities or, of all, `heatmaps`
    (D, 17, 56, 56) raw. A joint network returns both, its heat maps only of the finds of the class
    that has keypoints.

    Raises:
        ExportError: If the exporter fails.
    """
    names = output_names(network)
    rows = dict.fromkeys(names, "finds")
    rows |= {MAP_OUTPUTS[MASK]: "drawn"} if MASK in network.maps else {}
    rows |= {MAP_OUTPUTS[KEYPOINT]: "posed"} if len(network.maps) > 1 else {}
    # Values do not matter, but both sides must differ, or the exporter could take them for one.
    example = torch.rand(
        (1, 3, 8 * MULTIPLE, 10 * MULTIPLE), generator=torch.Generator().manual_seed(0)
    )
    inputs = all_finds(network, example)
    training = network.training
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network.graph,
                tuple(torch.from_numpy(value) for value in inputs.values()),
                str(path),
                input_names=list(inputs),
                output_names=names,
                dynamic_axes={
                    "image": {2: "height", 3: "width"},
                    **{name: {0: axis} for name, axis in rows.items()},
                },
                opset_version=OPSET,
                dynamo=False,
            )
    except Exception as error:
        raise ExportError(
            f"{network.name} cannot be exported to {path}: {str(error).splitlines()[0]}"
        ) from error
    finally:
        network.train(training)
