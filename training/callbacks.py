"""What goes along with training: averaged weights, checkpoints, the record of its course."""

# ruff: noqa: ARG002 - Lightning fixes the arguments of its hooks.
from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

Log = Callable[[dict[str, float | None], int], None]


class AveragedWeights(pl.Callback):
    """Exponential moving average of the weights; measured and shipped in place of the last ones.

    The decay rises with the steps ((1 + t) / (10 + t), as in TensorFlow's moving average), so
    that the average of a short training does not remember its start.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.average: list[Tensor] = []
        self.kept: list[Tensor] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start from the network's weights, unless a checkpoint brought the average."""
        current = list(pl_module.network.parameters())  # type: ignore[union-attr]
        if self.average:
            self.average = [
                mine.to(own.device) for mine, own in zip(self.average, current, strict=True)
            ]
        else:
            self.average = [p.detach().clone() for p in current]

    @torch.no_grad()
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move the average towards the weights."""
        step = trainer.global_step
        decay = min(self.decay, (1 + step) / (10 + step))
        current = list(pl_module.network.parameters())  # type: ignore[union-attr]
        torch._foreach_lerp_(self.average, current, 1 - decay)

    @torch.no_grad()
    def swap(self, network: torch.nn.Module) -> None:
        """Put the average in place of the weights; call again to take it back."""
        current: list[Tensor] = list(network.parameters())
        if self.kept:
            torch._foreach_copy_(current, self.kept)
            self.kept = []
            return
        self.kept = [p.detach().clone() for p in current]
        torch._foreach_copy_(current, self.average)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the average."""
        self.swap(pl_module.network)  # type: ignore[arg-type]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Train on with the weights."""
        self.swap(pl_module.network)  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        """Return the average, for the checkpoint."""
        return {"average": self.average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the average from a checkpoint."""
        self.average = list(state_dict["average"])


class BestWeights(pl.Callback):
    """Keeps the weights that were measured best, and stops training when none are better for long.

    Of equal measurements the later counts: it was trained longer. Stands before `Course` in the
    list, which takes the measurement away.

    Attributes:
        best: Epoch and mean recall over the classes of the weights kept, or None.
    """

    def __init__(self, patience: int, average: AveragedWeights | None) -> None:
        self.patience = patience
        self.average = average
        self.best: dict[str, float] | None = None
        self.weights: list[Tensor] = []
        self.waited = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End at once what a killed training had decided to end."""
        trainer.should_stop = trainer.should_stop or self.waited >= self.patience

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare what was measured in this epoch, if anything was."""
        measured: dict[str, float | None] = pl_module.recall  # type: ignore[assignment]
        values = [value for value in measured.values() if value is not None]
        if not values:
            return
        recall = sum(values) / len(values)
        self.waited += 1
        if self.best is None or recall > self.best["recall"]:
            self.waited = 0
        if self.best is None or recall >= self.best["recall"]:
            self.best = {"epoch": trainer.current_epoch + 1, "recall": recall}
            parameters, buffers = _state(pl_module)
            shipped = [*(self.average.average if self.average else parameters), *buffers]
            self.weights = [value.detach().clone() for value in shipped]
        if self.waited >= self.patience:
            trainer.should_stop = True

    @torch.no_grad()
    def take(self, pl_module: pl.LightningModule) -> None:
        """Put the weights kept in place of the network's."""
        parameters, buffers = _state(pl_module)
        for own, kept in zip([*parameters, *buffers], self.weights, strict=True):
            own.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """Return what is kept, for the checkpoint."""
        return {"best": self.best, "weights": self.weights, "waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what is kept from a checkpoint."""
        self.best, self.waited = state_dict["best"], state_dict["waited"]
        self.weights = list(state_dict["weights"])


def _state(pl_module: pl.LightningModule) -> tuple[list[Tensor], list[Tensor]]:
    """Return parameters and buffers: of norms that are trained, the latter belong to a moment."""
    network: torch.nn.Module = pl_module.network  # type: ignore[assignment]
    return list(network.parameters()), list(network.buffers())


class MeasureLast(pl.Callback):
    """Measures the last epoch, whatever the number of epochs between measurements."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Have it measured; Lightning asks for a multiple, at each epoch's end."""
        if trainer.max_epochs == trainer.current_epoch + 1:
            trainer.check_val_every_n_epoch = 1


class LastCheckpoint(pl.Callback):
    """Keeps the state after the last whole epoch, written in one step."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the checkpoint; a kill leaves the one before."""
        half = self.path.with_suffix(".half")
        trainer.save_checkpoint(half)
        if trainer.is_global_zero:
            os.replace(half, self.path)


class Course(pl.Callback):
    """Records losses, learning rate, throughput and recall, one row per epoch.

    Losses are summed as tensors and read once per epoch, so that recording costs no step.

    Attributes:
        rows: One per finished epoch, as they go into `history.json`.
        best: Epoch and recall of the weights shipped, where they are not the last.
    """

    def __init__(self, record: Log) -> None:
        # Not `log`: Lightning puts a method of its own under that name on every callback.
        self.record = record
        self.rows: list[dict[str, Any]] = []
        self.best: dict[str, float] | None = None
        self._begin()

    def _begin(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.steps = self.pictures = 0
        self.waited_s = self.worked_s = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clocks."""
        self._begin()
        self.since = time.perf_counter()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The batch is here: what passed since the last step was waiting."""
        now = time.perf_counter()
        self.waited_s += now - self.since
        self.since = now

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Add this step's losses and time."""
        losses: dict[str, Tensor] = pl_module.losses  # type: ignore[assignment]
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value
        self.steps += 1
        self.pictures += len(batch["names"])
        now = time.perf_counter()
        self.worked_s += now - self.since
        self.since = now

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the epoch's row; Lightning has measured by now."""
        losses = {name: float(value) / self.steps for name, value in self.sums.items()}
        elapsed_s = max(1e-9, self.worked_s + self.waited_s)
        measured: dict[str, float | None] = pl_module.recall  # type: ignore[assignment]
        row: dict[str, Any] = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "loss": sum(losses.values()),
            "losses": losses,
            "lr": trainer.optimizers[0].param_groups[-1]["lr"],
            "pictures_per_s": self.pictures * trainer.world_size / elapsed_s,
            "data_wait_share": self.waited_s / elapsed_s,
            "recall": dict(measured),
        }
        pl_module.recall = {}  # type: ignore[assignment]
        self.rows.append(row)
        if trainer.is_global_zero:
            self.record(to_metrics(row), trainer.global_step)
            trainer.print(to_line(row))

    def state_dict(self) -> dict[str, Any]:
        """Return the rows, for the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the rows from a checkpoint."""
        self.rows = list(state_dict["rows"])


def to_metrics(row: dict[str, Any]) -> dict[str, float | None]:
    """Return a row as metrics, with names like `loss/mask` and `val_recall/face`."""
    flat = {name: row[name] for name in ("loss", "lr", "pictures_per_s", "data_wait_share")}
    flat |= {f"loss/{name}": value for name, value in row["losses"].items()}
    return flat | {f"val_recall/{name}": value for name, value in row["recall"].items()}


def to_line(row: dict[str, Any]) -> str:
    """Return a row as one line for the terminal."""
    recall = ", ".join(f"{k} {v:.3f}" for k, v in row["recall"].items() if v is not None)
    return (
        f"epoch {row['epoch']}: loss {row['loss']:.3f}, {row['pictures_per_s']:.1f} pictures/s "
        f"({row['data_wait_share']:.0%} waiting for data)"
        + (f", recall on val: {recall}" if recall else "")
    )
