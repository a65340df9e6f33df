"""The Lightning module: one step, one measurement, the optimizer."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from training.config import NetworkConfig, OptimizerConfig
from training.errors import NonFiniteLossError
from training.network.rcnn import Network
from training.pictures.loading import to_input
from training.recall import RecallCount, recalled


def rate_share(step: int, *, steps: int, config: OptimizerConfig) -> float:
    """Return the learning rate of a step relative to the peak: linear warm-up, then a cosine.

    >>> config = OptimizerConfig(warmup_steps=10, final_share=0.0)
    >>> rate_share(4, steps=110, config=config), rate_share(60, steps=110, config=config)
    (0.5, 0.5)
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    after = min(1.0, (step - config.warmup_steps) / max(1, steps - config.warmup_steps))
    share = config.final_share
    return share + (1 - share) * (1 + math.cos(math.pi * after)) / 2


def parameter_groups(network: Network, config: NetworkConfig) -> list[dict[str, Any]]:
    """Split parameters by learning rate, and leave biases and scales without weight decay."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        share = config.optimizer.backbone_lr_share if name.startswith("backbone.body.") else 1
        lr = config.lr * share
        decay = config.optimizer.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((lr, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": lr, "weight_decay": decay}
        for (lr, decay), parameters in groups.items()
    ]


class TrainingModule(pl.LightningModule):
    """Trains one network.

    Args:
        network: What is trained.
        seed: Makes the random draws of each step a function of the step, so that a resumed
            training draws what an undisturbed one does.
    """

    def __init__(self, network: Network, seed: int) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.settings = network.config
        self.seed = seed
        self.count = RecallCount(network.classes)
        self.recall: dict[str, float | None] = {}

    def training_step(self, batch: dict[str, Any], _: int) -> Tensor:
        """Return the summed loss of a batch.

        Raises:
            NonFiniteLossError: If it is NaN or infinite; the message names the pictures.
        """
        torch.manual_seed((self.seed * 1_000_003 + self.global_step) * 64 + self.global_rank)
        losses = self.network(to_input(batch["images"]), batch["targets"])
        loss = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(loss):
            values = ", ".join(f"{name} {float(v):.4g}" for name, v in losses.items())
            raise NonFiniteLossError(
                f"the loss of {self.network.name} is not finite at step {self.global_step} "
                f"({values}) for pictures {', '.join(batch['names'])}. Look at their labels; "
                f"if they are right, lower training.{self.network.name}.lr"
            )
        self.losses = {name: value.detach() for name, value in losses.items()}
        return loss

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        """Count what is found of the identifiable objects."""
        settings = self.settings.recall
        found = self.network.find(to_input(batch["images"]))
        for target, finds in zip(batch["targets"], found, strict=True):
            sure = finds.scores >= settings.score_min
            for label, name in enumerate(self.network.classes):
                truth = target["identifiable"][target["identifiable_labels"] == label]
                own = sure & (finds.labels == label)
                hits = recalled(
                    truth, finds.boxes[own], finds.scores[own], iou_min=settings.iou_min
                )
                self.count.add(name, hits, len(truth))

    def on_validation_epoch_end(self) -> None:
        """Turn counts into recall."""
        self.recall = self.count.shares()
        self.count = RecallCount(self.network.classes)

    def configure_optimizers(self) -> Any:
        """Return optimizer and per-step learning rate."""
        config = self.settings.optimizer
        groups = parameter_groups(self.network, self.settings)
        optimizer: torch.optim.Optimizer
        if config.name == "adamw":
            optimizer = torch.optim.AdamW(groups, foreach=True)
        else:
            optimizer = torch.optim.SGD(groups, momentum=0.9, foreach=True)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: rate_share(step, steps=steps, config=config)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }
