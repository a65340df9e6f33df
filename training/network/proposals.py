"""Region proposals whose objectness is judged per class, so that partial labels can teach them.

torchvision's region proposal network, with one objectness logit per anchor and class. A proposal
ranks by its best class.

Shapes: N pictures, A anchors per position, K classes, R anchors of all levels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RPNHead, concat_box_prediction_layers
from torchvision.ops import nms

from training.config import ProposalConfig
from training.network.matching import masked_bce, match

PRIOR = 0.05
"""Share of positives that the class logits start from, so that the many negatives do not swamp
the first steps (Lin et al. 2017, Focal Loss, section 3.3, with its 0.01 raised for sampled
boxes)."""

BOX_BETA = 1 / 9
"""Where the box loss turns from squared to linear; torchvision's value for R-CNN."""


class StridedAnchors(AnchorGenerator):
    """Anchors on the true strides.

    torchvision divides the input by the map's size instead, which is off where a pooled level
    has an odd number of cells; and the anchors of one input size would not fit another.
    """

    def __init__(
        self, sizes: Sequence[float], ratios: Sequence[float], strides: Sequence[int]
    ) -> None:
        super().__init__(tuple((s,) for s in sizes), (tuple(ratios),) * len(sizes))
        self.strides = tuple(strides)

    def forward(
        self,
        image_list: ImageList,  # noqa: ARG002 - torchvision's signature
        feature_maps: list[Tensor],
    ) -> list[Tensor]:
        """Return the anchors of each picture, each float32 (R, 4) xyxy."""
        first = feature_maps[0]
        grids = [level.shape[-2:] for level in feature_maps]
        strides = [[torch.tensor(s, device=first.device)] * 2 for s in self.strides]
        self.set_cell_anchors(first.dtype, first.device)
        anchors = torch.cat(self.grid_anchors(grids, strides))
        return [anchors] * first.shape[0]


def image_size(images: Tensor) -> Tensor:
    """Return (W, H, W, H) as float32, traceable for ONNX where the size is dynamic."""
    shape = torch._shape_as_tensor(images).to(images.device, images.dtype)
    return torch.stack([shape[3], shape[2], shape[3], shape[2]])


def clip(boxes: Tensor, size: Tensor) -> Tensor:
    """Clip xyxy boxes of shape (..., 4) into a picture of size (W, H, W, H)."""
    return torch.minimum(boxes.clamp(min=0), size)


def nms_by_group(
    boxes: Tensor, scores: Tensor, groups: Tensor, *, size: Tensor, iou: float
) -> Tensor:
    """Suppress within each group; boxes lie inside the picture, so groups are moved apart by it.

    torchvision's `batched_nms` moves by the largest coordinate instead, which ONNX cannot take
    of no boxes.
    """
    apart = groups.to(boxes.dtype) * (size.max() + 1)
    kept: Tensor = nms(boxes + apart[:, None], scores, iou)
    return kept


class PartialLabelProposals(nn.Module):
    """Region proposal network with an objectness per class."""

    def __init__(
        self, channels: int, num_classes: int, strides: Sequence[int], config: ProposalConfig
    ) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.anchors = StridedAnchors(config.anchor_sizes, config.anchor_ratios, strides)
        self.num_anchors = len(config.anchor_ratios)
        self.head = RPNHead(channels, self.num_anchors)
        self.head.cls_logits = nn.Conv2d(channels, self.num_anchors * num_classes, kernel_size=1)
        nn.init.normal_(self.head.cls_logits.weight, std=0.01)
        nn.init.constant_(self.head.cls_logits.bias, float(torch.logit(torch.tensor(PRIOR))))
        self.coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
        self.matcher = Matcher(
            config.positive_iou, config.negative_iou, allow_low_quality_matches=True
        )
        self.sampler = BalancedPositiveNegativeSampler(config.samples, 0.5)

    def forward(
        self,
        images: Tensor,
        features: OrderedDict[str, Tensor],
        targets: list[dict[str, Tensor]] | None,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Return the proposals of each picture, each (P, 4), and the losses where trained."""
        levels = list(features.values())
        logits, deltas = self.head(levels)
        anchors = self.anchors(ImageList(images, []), levels)
        ranks = [self._best_class(level) for level in logits]
        counts = [level[0].numel() for level in ranks] if self.training else None
        rank, flat_deltas = concat_box_prediction_layers(ranks, deltas)
        boxes = self.coder.decode(flat_deltas.detach(), anchors)
        count = len(anchors)
        proposals = self._filter(
            boxes.view(count, -1, 4), rank.detach().view(count, -1), ranks, image_size(images)
        )
        if targets is None or counts is None:
            return proposals, {}
        flat_logits, _ = concat_box_prediction_layers(list(logits), list(deltas))
        return proposals, self._losses(flat_logits, flat_deltas, anchors, targets)

    def _best_class(self, logits: Tensor) -> Tensor:
        """Reduce (N, A * K, h, w) to the best class of each anchor, (N, A, h, w)."""
        n, _, h, w = logits.shape
        return logits.view(n, self.num_anchors, self.num_classes, h, w).amax(2)

    def _filter(
        self, boxes: Tensor, ranks: Tensor, levels: list[Tensor], size: Tensor
    ) -> list[Tensor]:
        """Keep the best of each level, then the best of the picture after suppression."""
        config = self.config
        before = config.pre_nms_train if self.training else config.pre_nms_eval
        after = config.post_nms_train if self.training else config.post_nms_eval
        counts = [level.shape[1] * level.shape[2] * level.shape[3] for level in levels]
        found = []
        for picture_boxes, picture_ranks in zip(boxes.unbind(0), ranks.unbind(0), strict=True):
            kept_boxes, kept_ranks, groups = [], [], []
            for group, (level_boxes, level_ranks) in enumerate(
                zip(picture_boxes.split(counts), picture_ranks.split(counts), strict=True)
            ):
                best, index = self._best(level_ranks, before)
                kept_boxes.append(level_boxes[index])
                kept_ranks.append(best)
                groups.append(torch.full_like(best, group))
            chosen = clip(torch.cat(kept_boxes), size)
            rank, group_of = torch.cat(kept_ranks), torch.cat(groups)
            whole = torch.where(((chosen[:, 2:] - chosen[:, :2]) >= 1).all(1))[0]
            chosen, rank, group_of = chosen[whole], rank[whole], group_of[whole]
            keep = nms_by_group(chosen, rank, group_of, size=size, iou=config.nms_iou)[:after]
            found.append(chosen[keep])
        return found

    def _best(self, ranks: Tensor, limit: int) -> tuple[Tensor, Tensor]:
        """Return the highest of a level and their positions; of equal ones the first.

        A coarse level may rank all its places alike, and then the order decides which of them
        suppress the others. `topk` promises no order of equal values; ONNX's does.
        """
        if self.training or torch.onnx.is_in_onnx_export():
            count: Any = _at_most(ranks, limit)  # a tensor in the graph
            best, index = ranks.topk(count)
            return best, index
        best, index = ranks.sort(descending=True, stable=True)
        return best[:limit], index[:limit]

    def _losses(
        self,
        logits: Tensor,
        deltas: Tensor,
        anchors: list[Tensor],
        targets: list[dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        matches = [match(a, t, self.matcher) for a, t in zip(anchors, targets, strict=True)]
        positives, negatives = self.sampler([m.sampling for m in matches])
        positive = torch.where(torch.cat(positives))[0]
        sampled = torch.cat([positive, torch.where(torch.cat(negatives))[0]])
        labels = torch.cat([m.labels for m in matches])
        true = torch.cat([_objects(t, m.objects) for t, m in zip(targets, matches, strict=True)])
        regression = self.coder.encode_single(true[positive], torch.cat(anchors)[positive])
        box_loss = functional.smooth_l1_loss(
            deltas[positive], regression, beta=BOX_BETA, reduction="sum"
        )
        return {
            "rpn_class": masked_bce(logits[sampled], labels[sampled]),
            "rpn_box": box_loss / max(len(sampled), 1),
        }


def _objects(target: dict[str, Tensor], index: Tensor) -> Tensor:
    if len(target["boxes"]) == 0:
        return target["boxes"].new_zeros((len(index), 4))
    return target["boxes"][index]


def _at_most(values: Tensor, limit: int) -> int | Tensor:
    """Return min(limit, len(values)), as a traced tensor where ONNX needs it dynamic."""
    if torch.onnx.is_in_onnx_export():
        length = torch._shape_as_tensor(values)[:1]
        return torch.minimum(length, torch.tensor([limit]))[0]
    return min(limit, values.shape[0])
