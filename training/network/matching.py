"""Which box is a positive, a negative or neither, for each class by itself.

A picture may have only some classes labelled. So a box is judged per class: an unlabelled class
teaches nothing where no object of it is known, and an object of one class says nothing about
another. Boxes are xyxy in input pixels.

Shapes: R boxes to judge (anchors or proposals), G true objects, I ignored regions, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

POSITIVE = 1
NEGATIVE = 0
UNKNOWN = -1

IGNORED_SHARE = 0.5
"""A box with this share of its area in an ignored region is no negative of that class; as COCO's
evaluation treats crowds, by intersection over the box's own area."""


@dataclass(frozen=True)
class Match:
    """What each box is.

    Attributes:
        labels: int8, shape (R, K): POSITIVE, NEGATIVE or UNKNOWN.
        objects: int64, shape (R,): the true object that it regresses to; 0 where it has none.
        positive: bool, shape (R,): whether it is positive for its object's class.
    """

    labels: Tensor
    objects: Tensor
    positive: Tensor

    @property
    def sampling(self) -> Tensor:
        """int64, shape (R,): 1 positive of any class, 0 negative of some, -1 unknown of all."""
        known = (self.labels == NEGATIVE).any(1)
        unknown = torch.full_like(self.objects, UNKNOWN)
        return torch.where(self.positive, 1, torch.where(known, 0, unknown))


def match(boxes: Tensor, target: dict[str, Tensor], matcher: Matcher) -> Match:
    """Judge boxes against the labels of one picture.

    Args:
        boxes: float32, shape (R, 4).
        target: `boxes` (G, 4), `labels` (G,), `labelled` bool (K,), `ignored_boxes` (I, 4) and
            `ignored_labels` (I,).
        matcher: torchvision's; its thresholds hold for each class.
    """
    labelled = target["labelled"]
    labels = torch.full((len(boxes), len(labelled)), UNKNOWN, dtype=torch.int8, device=boxes.device)
    labels[:, labelled] = NEGATIVE
    objects = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    positive = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    _spare_ignored(labels, boxes, target, matcher.low_threshold)
    if len(target["boxes"]):
        iou = box_iou(target["boxes"], boxes)
        for name in target["labels"].unique():
            best = iou[target["labels"] == name].amax(0)
            labels[best >= matcher.low_threshold, name] = UNKNOWN
            labels[best >= matcher.high_threshold, name] = POSITIVE
        best, objects = iou.max(0)
        positive = best >= matcher.high_threshold
        if matcher.allow_low_quality_matches:
            nearest = _nearest(iou) & ~positive
            labels[torch.where(nearest)[1], target["labels"][torch.where(nearest)[0]]] = POSITIVE
            objects = torch.where(nearest.any(0), (iou * nearest).argmax(0), objects)
            positive = positive | nearest.any(0)
    return Match(labels, objects, positive)


def _nearest(iou: Tensor) -> Tensor:
    """Return the boxes nearest to each object, bool (G, R): an object that no box fits has those.

    torchvision's `Matcher` keeps such boxes too, but gives each to the object that lies nearest to
    the box, which may be another one, of another class: a small face's anchor taught a person.
    """
    top = iou.amax(1, keepdim=True)
    return (iou == top) & (top > 0)


def _spare_ignored(
    labels: Tensor, boxes: Tensor, target: dict[str, Tensor], low_threshold: float
) -> None:
    """Take boxes out that lie in an ignored object, or about on one as on one that counts."""
    area = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=1e-6)
    for region, name in zip(target["ignored_boxes"], target["ignored_labels"], strict=True):
        sides = torch.minimum(boxes[:, 2:], region[2:]) - torch.maximum(boxes[:, :2], region[:2])
        shared = sides.clamp(min=0).prod(1)
        iou = shared / (area + (region[2:] - region[:2]).prod() - shared)
        spared = (shared / area >= IGNORED_SHARE) | (iou >= low_threshold)
        labels[spared, name] = UNKNOWN


def masked_bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the binary cross-entropy over known (box, class) pairs, per box.

    Args:
        logits: float32, shape (R, K).
        labels: int8, shape (R, K); pairs that are UNKNOWN count nothing.

    Returns:
        Scalar: the sum over pairs divided by R (0 where R is 0).
    """
    known = labels != UNKNOWN
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, labels.clamp(min=0).to(logits.dtype), weight=known.to(logits.dtype), reduction="sum"
    )
    return loss / max(len(logits), 1)
