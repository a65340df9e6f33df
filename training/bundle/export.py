"""A trained network as an ONNX graph: one picture of any size in, its finds out."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

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


def export_onnx(network: Network, path: Path) -> None:
    """Write the network as ONNX; height and width are dynamic, multiples of 32.

    Input `image`: float32 (1, 3, H, W), RGB in [0, 1]. Outputs: `boxes` (D, 4) xyxy in input
    pixels, `scores` (D,), `labels` int64 (D,), and `masks` (D, 28, 28) probabilities or
    `heatmaps` (D, 17, 56, 56) raw. A joint network returns both, its heat maps only of the finds
    of the class that has keypoints, in order.

    Raises:
        ExportError: If the exporter fails.
    """
    names = output_names(network)
    rows = dict.fromkeys(names, "finds")
    if len(network.maps) > 1:
        rows[MAP_OUTPUTS[KEYPOINT]] = "posed"
    # Values do not matter, but both sides must differ, or the exporter could take them for one.
    example = torch.rand(
        (1, 3, 8 * MULTIPLE, 10 * MULTIPLE), generator=torch.Generator().manual_seed(0)
    )
    training = network.training
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network.graph,
                (example,),
                str(path),
                input_names=["image"],
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
