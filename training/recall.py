"""Recall on validation pictures while training goes on: a compass, not the gate.

The gate judges the exported bundle with the anonymizer's own code (evaluation); this counts boxes
of the network itself, so that a bad run shows early.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torchvision.ops import box_iou


def recalled(truth: Tensor, boxes: Tensor, scores: Tensor, *, iou_min: float) -> int:
    """Count true boxes that a find covers; each find serves one, the surest first.

    Args:
        truth: float32, shape (G, 4), xyxy.
        boxes: Finds of the same class, float32, shape (D, 4).
        scores: float32, shape (D,).
        iou_min: IoU from which a box is found.

    >>> one = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    >>> recalled(one, one, torch.tensor([0.9]), iou_min=0.5)
    1
    """
    if len(truth) == 0 or len(boxes) == 0:
        return 0
    iou = box_iou(boxes[scores.argsort(descending=True)], truth)
    free = torch.ones(len(truth), dtype=torch.bool, device=truth.device)
    for row in iou:
        best, index = (row * free).max(0)
        if best >= iou_min:
            free[index] = False
    return int((~free).sum())


@dataclass
class RecallCount:
    """Counts of found and of all identifiable objects per class."""

    classes: Sequence[str]
    found: dict[str, int] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, found: int, total: int) -> None:
        """Add one picture's counts of one class."""
        self.found[name] = self.found.get(name, 0) + found
        self.total[name] = self.total.get(name, 0) + total

    def shares(self) -> dict[str, float | None]:
        """Return recall per class; None where there is no object."""
        return {
            name: self.found[name] / self.total[name] if self.total.get(name) else None
            for name in self.classes
        }
