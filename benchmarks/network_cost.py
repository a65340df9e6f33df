"""Prints what networks cost: parameters, and the peak memory of a training step on a CPU.

    python -m benchmarks.network_cost tiny small
    python -m benchmarks.network_cost base --batch 1 --parameters-only

One Mask R-CNN for each setting under `conf/training`, at its input size (4:3), with drawn pictures
and no pretrained weights. Each runs in a process of its own, as the system tells the peak of a
process only; torch alone takes some 350 MB of it.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

import torch

from benchmarks.training_step import CLASSES, drawn_batch
from conf import compose, section
from training.config import NetworkConfig, TrainingConfig
from training.network.rcnn import build_network
from training.pictures.loading import padded_size, to_input


def config_of(group: str) -> NetworkConfig:
    """Return Mask R-CNN's settings of a group under conf/training."""
    return section(compose([f"training={group}"]), "training", TrainingConfig).mask_rcnn


def peak_bytes() -> int:
    """Return the most memory that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def cost(group: str, *, batch: int | None, step: bool) -> str:
    """Return a line on one network, after one training step where asked for."""
    config = config_of(group)
    network = build_network("mask_rcnn", config, CLASSES, pretrained=False)
    network = network.to(memory_format=torch.channels_last).train()
    parameters = sum(p.numel() for p in network.parameters())
    line = f"{group}: {config.backbone.name}, {parameters / 1e6:.1f} million parameters"
    if not step:
        return line
    height, width = padded_size((config.input.long_side * 3 // 4, config.input.long_side))
    size = batch or config.loading.batch_size
    drawn = drawn_batch(size, 0, height=height, width=width)
    before = peak_bytes()
    optimizer = torch.optim.AdamW(network.parameters(), foreach=True)
    losses = network(to_input(drawn["images"]), drawn["targets"])
    torch.stack(list(losses.values())).sum().backward()
    optimizer.step()
    return (
        f"{line}, peak of a step with {size} pictures of {width}x{height}: "
        f"{peak_bytes() / 1e9:.1f} GB ({before / 1e9:.1f} GB before it)"
    )


def main() -> None:
    """Measure each network in a process of its own."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.network_cost",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("group", nargs="+", help="settings under conf/training")
    parser.add_argument("--batch", type=int, help="pictures a step (default: as configured)")
    parser.add_argument("--parameters-only", action="store_true", help="train no step")
    given = parser.parse_args()
    if len(given.group) == 1:
        print(cost(given.group[0], batch=given.batch, step=not given.parameters_only))
        return
    options = [word for word in sys.argv[1:] if word not in given.group]
    for group in given.group:
        words = [sys.executable, "-m", "benchmarks.network_cost", group, *options]
        subprocess.run(words, check=True)


if __name__ == "__main__":
    main()
