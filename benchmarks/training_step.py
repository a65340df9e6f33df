"""Compares a training step of our Lightning module with the same step as a bare torchvision loop.

Both train torchvision's parts in the same sizes on the same drawn batches: ours through
Lightning's Trainer with its averaging, checks and records; the bare one is torchvision's own
MaskRCNN on the same backbone in a plain loop. Steps are timed in turns, so that whatever else the
machine does hits both. Then times the step of `conf/training/tiny.yaml` by itself, as pictures a
second. Prints a line each; run it with `make bench`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import pytorch_lightning as pl
import torch
from torch import Tensor
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

from conf import compose, section
from training.callbacks import AveragedWeights, Course
from training.config import NetworkConfig, TrainingConfig
from training.module import TrainingModule
from training.network.backbones import build_backbone
from training.network.proposals import StridedAnchors
from training.network.rcnn import build_network
from training.pictures.loading import to_input

CLASSES = ("face", "person", "license_plate", "vehicle")
HEIGHT, WIDTH, OBJECTS = 384, 512, 12
TINY_MIN = 2.5
"""Pictures a second that `tiny` promises on two cores, in batches of four."""


def drawn_batch(
    size: int, seed: int, *, height: int = HEIGHT, width: int = WIDTH
) -> dict[str, Any]:
    """Return a batch of noise with rectangles, labelled as `loading.to_batch` does."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 255, (size, height, width, 3), generator=generator).byte()
    targets = []
    for row in range(size):
        corner = torch.rand((OBJECTS, 2), generator=generator) * torch.tensor(
            [width - 112.0, height - 104.0]
        )
        side = 12 + torch.rand((OBJECTS, 2), generator=generator) * 80
        boxes = torch.cat([corner, corner + side], 1)
        masks = torch.zeros((OBJECTS, height, width), dtype=torch.uint8)
        for index, (x0, y0, x1, y1) in enumerate(boxes.int().tolist()):
            masks[index, y0:y1, x0:x1] = 1
            images[row, y0:y1, x0:x1] = 40 * (index % 4)
        targets.append(
            {
                "boxes": boxes,
                "labels": torch.arange(OBJECTS) % len(CLASSES),
                "masks": masks,
                "has_mask": torch.ones(OBJECTS, dtype=torch.bool),
                "labelled": torch.ones(len(CLASSES), dtype=torch.bool),
                "ignored_boxes": torch.zeros((0, 4)),
                "ignored_labels": torch.zeros(0, dtype=torch.int64),
            }
        )
    names = [f"drawn-{seed}-{row}" for row in range(size)]
    return {"images": images.permute(0, 3, 1, 2), "targets": targets, "names": names}


def torchvision_network(config: NetworkConfig) -> torch.nn.Module:
    """Return torchvision's Mask R-CNN with the sizes of our network."""
    backbone = build_backbone(config.backbone, pretrained=config.backbone.pretrained)
    backbone.out_channels = config.backbone.channels  # type: ignore[assignment]
    proposals, heads = config.proposals, config.heads
    levels = [str(i) for i in range(len(config.backbone.strides))]
    layers = list(heads.mask_channels)
    network = MaskRCNN(
        backbone,
        min_size=HEIGHT,
        max_size=WIDTH,
        image_mean=list(backbone.mean),
        image_std=list(backbone.std),
        rpn_anchor_generator=StridedAnchors(
            proposals.anchor_sizes, proposals.anchor_ratios, backbone.strides
        ),
        rpn_pre_nms_top_n_train=proposals.pre_nms_train,
        rpn_post_nms_top_n_train=proposals.post_nms_train,
        rpn_batch_size_per_image=proposals.samples,
        box_roi_pool=MultiScaleRoIAlign(levels, 7, 2),
        box_head=TwoMLPHead(config.backbone.channels * 49, heads.box_features),
        box_predictor=FastRCNNPredictor(heads.box_features, len(CLASSES) + 1),
        box_batch_size_per_image=heads.samples,
        box_positive_fraction=heads.positive_share,
        mask_roi_pool=MultiScaleRoIAlign(levels, 14, 2),
        mask_head=MaskRCNNHeads(config.backbone.channels, layers, 1),
        mask_predictor=MaskRCNNPredictor(layers[-1], layers[-1], len(CLASSES) + 1),
    )
    return network.to(memory_format=torch.channels_last).train()  # type: ignore[no-any-return]


class BareLoop:
    """The step as one would write it by hand."""

    def __init__(self, config: NetworkConfig) -> None:
        self.network = torchvision_network(config)
        self.clip = config.optimizer.clip_norm
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=config.lr, foreach=True)

    def step(self, batch: dict[str, Any]) -> None:
        """Train on one batch."""
        targets = [
            {"boxes": t["boxes"], "labels": t["labels"] + 1, "masks": t["masks"]}
            for t in batch["targets"]
        ]
        losses: dict[str, Tensor] = self.network(list(to_input(batch["images"])), targets)
        loss = torch.stack(list(losses.values())).sum()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.clip, foreach=True)
        self.optimizer.step()


class Turns:
    """Feeds Lightning one batch at a time and runs the bare step between, if any; times both."""

    def __init__(self, bare: BareLoop | None, *, steps: int, warmup: int, size: int) -> None:
        self.bare, self.steps, self.warmup, self.size = bare, steps, warmup, size
        self.bare_s: list[float] = []
        self.ours_s: list[float] = []

    def __len__(self) -> int:
        """Return the number of steps."""
        return self.steps + self.warmup

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield batches; time passes in Lightning between one and the next."""
        for number in range(len(self)):
            batch = drawn_batch(self.size, number)
            start = time.perf_counter()
            if self.bare is not None:
                self.bare.step(batch)
            middle = time.perf_counter()
            yield batch
            end = time.perf_counter()
            if number >= self.warmup:
                self.bare_s.append(middle - start)
                self.ours_s.append(end - middle)


def measure(config: NetworkConfig, *, steps: int, warmup: int) -> tuple[float, float]:
    """Return the median seconds of a step: ours, and the bare loop's."""
    size = config.loading.batch_size
    turns = Turns(BareLoop(config), steps=steps, warmup=warmup, size=size)
    train(config, turns)
    return statistics.median(turns.ours_s), statistics.median(turns.bare_s)


def throughput(config: NetworkConfig, *, steps: int, warmup: int) -> float:
    """Return the pictures a second of our step: loading aside, which happens beside it."""
    size = config.loading.batch_size
    turns = Turns(None, steps=steps, warmup=warmup, size=size)
    train(config, turns)
    return size / statistics.median(turns.ours_s)


def train(config: NetworkConfig, turns: Turns) -> None:
    """Train on what is fed."""
    module = TrainingModule(build_network("mask_rcnn", config, CLASSES), seed=1)
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[AveragedWeights(0.99), Course(lambda *_: None)],
        gradient_clip_val=config.optimizer.clip_norm,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
    )
    trainer.fit(module, train_dataloaders=turns)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=3)
    given = parser.parse_args()
    config = NetworkConfig()
    ours, bare = measure(config, steps=given.steps, warmup=given.warmup)
    print(
        f"training step ({config.loading.batch_size} pictures of {WIDTH}x{HEIGHT}): "
        f"ours {ours:.3f} s, bare torchvision loop {bare:.3f} s, ratio {ours / bare:.2f}"
    )
    tiny = section(compose(["training=tiny"]), "training", TrainingConfig).mask_rcnn
    found = throughput(tiny, steps=given.steps, warmup=given.warmup)
    print(
        f"training of tiny at {HEIGHT}x{WIDTH}, batches of {tiny.loading.batch_size}, "
        f"{torch.get_num_threads()} threads: {found:.2f} pictures/s (promised: {TINY_MIN})"
    )


if __name__ == "__main__":
    main()
