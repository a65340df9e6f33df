"""The second stage: class scores and boxes of each proposal, its mask, its keypoints or both.

torchvision's heads with independent class probabilities (no background class), so that a class
that a picture was not labelled for is left out of its loss.

Shapes: P proposals, K classes, D finds, G true objects.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder, Matcher
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import keypointrcnn_loss
from torchvision.ops import roi_align

from anonymization.taxonomy import KEYPOINT_NAMES
from training.config import KEYPOINT, MASK, HeadConfig
from training.network.matching import Match, masked_bce, match
from training.network.pooling import PyramidPool
from training.network.proposals import BOX_BETA, PRIOR, clip, nms_by_group

BOX_POOL = 7
MAP_POOL = 14
"""Cells per side that a proposal is pooled to, for boxes and for maps (He et al. 2017)."""

MAP_NAMES = ("map", "keypoint")
"""What the modules of the first and of the second map head are named after. That of a network
with one does not tell what it draws, and weights and graphs hold these names."""


def _start_small(predictor: nn.Module) -> None:
    """Let the last layer start near zero (0.001, detectron2's mask head).

    torchvision's start gives logits of tens on a pyramid that was never trained, and the first
    steps would go into calming them.
    """
    last = [m for m in predictor.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)][-1]
    nn.init.normal_(last.weight, std=0.001)
    if last.bias is not None:
        nn.init.zeros_(last.bias)


class BoxPredictor(nn.Module):
    """Class logits (P, K) and one box regression (P, 4) for all classes."""

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        self.scores = nn.Linear(features, num_classes)
        self.boxes = nn.Linear(features, 4)
        for layer, std in ((self.scores, 0.01), (self.boxes, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.scores.bias, float(torch.logit(torch.tensor(PRIOR))))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and regression."""
        return self.scores(features), self.boxes(features)


def _map_layers(
    kind: str, channels: int, layers: list[int], num_classes: int
) -> tuple[nn.Module, nn.Module]:
    """Return the convolutions of a map head, and what turns their result into its maps."""
    head: nn.Module
    predictor: nn.Module
    if kind == KEYPOINT:
        head = KeypointRCNNHeads(channels, layers)
        predictor = KeypointRCNNPredictor(layers[-1], len(KEYPOINT_NAMES))
    else:
        head = MaskRCNNHeads(channels, layers, 1)
        predictor = MaskRCNNPredictor(layers[-1], layers[-1], num_classes)
    _start_small(predictor)
    return head, predictor


class PartialLabelHeads(nn.Module):
    """Box head and one or two map heads.

    Args:
        channels: Channels of the pyramid.
        num_classes: K.
        strides: Strides of the levels pooled from.
        config: Sizes and limits.
        maps: What each map head draws: `mask`, `keypoint`.
        posed: Label of the class whose finds get heat maps; None where all do.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        strides: Sequence[int],
        config: HeadConfig,
        *,
        maps: Sequence[str],
        posed: int | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.maps = tuple(maps)
        self.posed = posed
        self.box_pool = PyramidPool(strides, BOX_POOL)
        self.box_head = TwoMLPHead(channels * BOX_POOL**2, config.box_features)
        self.box_predictor = BoxPredictor(config.box_features, num_classes)
        self.map_pool = PyramidPool(strides, MAP_POOL)
        for name, kind in self.named_maps:
            head, predictor = _map_layers(kind, channels, config.channels(kind), num_classes)
            self.add_module(f"{name}_head", head)
            self.add_module(f"{name}_predictor", predictor)
        self.coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
        self.matcher = Matcher(config.match_iou, config.match_iou, allow_low_quality_matches=False)
        self.sampler = BalancedPositiveNegativeSampler(config.samples, config.positive_share)

    @property
    def named_maps(self) -> list[tuple[str, str]]:
        """What the modules of each map head are named after, and what it draws."""
        return list(zip(MAP_NAMES, self.maps, strict=False))

    def _maps(self, name: str, pooled: Tensor) -> Tensor:
        """Return mask logits (P, K, 28, 28) or keypoint logits (P, 17, 56, 56)."""
        convolved = self.get_submodule(f"{name}_head")(pooled)
        return self.get_submodule(f"{name}_predictor")(convolved)  # type: ignore[no-any-return]

    def _boxes(
        self, features: OrderedDict[str, Tensor], boxes: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        pooled = self.box_pool(features, boxes)
        return self.box_predictor(self.box_head(pooled))  # type: ignore[no-any-return]

    def losses(
        self,
        features: OrderedDict[str, Tensor],
        proposals: list[Tensor],
        targets: list[dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        """Return the losses of a batch."""
        with torch.no_grad():
            proposals, matches = self._sample(proposals, targets)
        logits, deltas = self._boxes(features, proposals)
        labels = torch.cat([m.labels for m in matches])
        positive = torch.cat([m.positive for m in matches])
        true = torch.cat([t["boxes"][m.objects[m.positive]] for t, m in _pairs(targets, matches)])
        regression = self.coder.encode_single(true, torch.cat(proposals)[positive])
        box_loss = functional.smooth_l1_loss(
            deltas[positive], regression, beta=BOX_BETA, reduction="sum"
        )
        losses = {
            "box_class": masked_bce(logits, labels),
            "box": box_loss / max(len(labels), 1),
        }
        for name, kind in self.named_maps:
            loss = self._map_loss(name, kind, features, proposals, matches, targets)
            losses[kind] = self.config.weight(kind) * loss
        return losses

    def _sample(
        self, proposals: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Match]]:
        """Add the true boxes to the proposals, match, and draw those that enter the loss."""
        boxes = [torch.cat([p, t["boxes"]]) for p, t in _pairs(proposals, targets)]
        matches = [match(b, t, self.matcher) for b, t in _pairs(boxes, targets)]
        positives, negatives = self.sampler([m.sampling for m in matches])
        drawn = [torch.where(p.bool() | n.bool())[0] for p, n in _pairs(positives, negatives)]
        sampled = [
            Match(m.labels[i], m.objects[i], m.positive[i]) for m, i in _pairs(matches, drawn)
        ]
        return [b[i] for b, i in _pairs(boxes, drawn)], sampled

    def _map_loss(
        self,
        name: str,
        kind: str,
        features: OrderedDict[str, Tensor],
        proposals: list[Tensor],
        matches: list[Match],
        targets: list[dict[str, Tensor]],
    ) -> Tensor:
        """Return the loss over positives whose object has a true map."""
        boxes, objects = [], []
        for proposal, found, target in zip(proposals, matches, targets, strict=True):
            usable = found.positive.clone()
            usable[found.positive] = target[f"has_{kind}"][found.objects[found.positive]]
            # By chance: proposals come with the surest first, and would leave the hard ones out.
            index = torch.where(usable)[0]
            index = index[torch.randperm(len(index), device=index.device)]
            index = index[: self.config.map_samples]
            boxes.append(proposal[index])
            objects.append(found.objects[index])
        logits = self._maps(name, self.map_pool(features, boxes))
        if sum(len(b) for b in boxes) == 0:
            return logits.sum() * 0
        if kind == KEYPOINT:
            true = [t["keypoints"] for t in targets]
            # torchvision takes a view of the logits, which channels-last memory does not allow.
            return keypointrcnn_loss(logits.contiguous(), boxes, true, objects)  # type: ignore[no-any-return]
        return mask_loss(*_true_maps(logits, boxes, objects, targets), self.config.dice_weight)

    def finds(
        self,
        features: OrderedDict[str, Tensor],
        proposals: list[Tensor],
        size: Tensor,
        score_min: Tensor | None = None,
        draw: Tensor | None = None,
    ) -> list[tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]]:
        """Return for each picture boxes (D, 4), scores (D,), labels (D,) and the maps of each head.

        Maps are mask probabilities (D, 28, 28) of the label's class, or raw heat maps
        (P, 17, 56, 56) of the finds that have any, in order. `score_min` (K,) leaves out the finds
        below it before anything is drawn of them; masks are drawn of the classes for which `draw`
        (K,) is above 0. Usable under ONNX tracing for a batch of one.
        """
        logits, deltas = self._boxes(features, proposals)
        decoded = self.coder.decode_single(deltas, torch.cat(proposals))
        counts = [len(p) for p in proposals] if len(proposals) > 1 else None
        parts = zip(decoded.split(counts), logits.split(counts), strict=True) if counts else None
        chosen = [
            self._suppress(clip(boxes, size), scores.sigmoid(), size, score_min)
            for boxes, scores in (parts or [(decoded, logits)])
        ]
        boxes, labels = [found[0] for found in chosen], [found[2] for found in chosen]
        if draw is not None:
            rows = [torch.where(self._has_map(own, draw))[0] for own in labels]
            boxes = [own[i] for own, i in _pairs(boxes, rows)]
            labels = [own[i] for own, i in _pairs(labels, rows)]
        pooled = self.map_pool(features, boxes)
        drawn = [self._drawn(name, kind, pooled, labels, draw) for name, kind in self.named_maps]
        return [(*found, tuple(maps)) for found, *maps in zip(chosen, *drawn, strict=True)]

    def _has_map(self, labels: Tensor, draw: Tensor) -> Tensor:
        """Tell of which finds some head draws a map; bool (D,)."""
        if self.maps == (KEYPOINT,):
            return labels >= 0
        masked = draw[labels] > 0
        return masked if self.posed is None else masked | (labels == self.posed)

    def _drawn(
        self, name: str, kind: str, pooled: Tensor, labels: list[Tensor], draw: Tensor | None
    ) -> Sequence[Tensor]:
        """Return what one map head draws of each picture's finds, which are pooled together."""
        both, wanted = torch.cat(labels), None
        if kind == KEYPOINT and self.posed is not None:
            wanted = [own == self.posed for own in labels]
        elif kind == MASK and self.posed is not None and draw is not None:
            wanted = [draw[own] > 0 for own in labels]
        if wanted is not None:  # the other head draws some that this one does not
            pooled = pooled[torch.where(torch.cat(wanted))[0]]
            labels = [own[chosen] for own, chosen in _pairs(labels, wanted)]
            both = torch.cat(labels)
        maps = self._maps(name, pooled)
        if kind == MASK:
            index = both[:, None, None, None].expand(-1, 1, *maps.shape[2:])
            maps = maps.sigmoid().gather(1, index)[:, 0]
        return maps.split([len(own) for own in labels]) if len(labels) > 1 else [maps]

    def _suppress(
        self, boxes: Tensor, scores: Tensor, size: Tensor, score_min: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Turn boxes (P, 4) and scores (P, K) into finds, the best first."""
        whole = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(1, keepdim=True)
        pairs = torch.nonzero((scores >= self.config.score_min) & whole)
        row, label = pairs[:, 0], pairs[:, 1]
        chosen, score = boxes[row], scores[row, label]
        keep = nms_by_group(chosen, score, label, size=size, iou=self.config.nms_iou)
        keep = keep[: self.config.finds_max]
        if score_min is not None:  # last: the same finds as without, but for those below
            keep = keep[score[keep] >= score_min[label[keep]]]
        return chosen[keep], score[keep], label[keep]


def _true_maps(
    logits: Tensor, boxes: list[Tensor], objects: list[Tensor], targets: list[dict[str, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Return the logits of each proposal's own class and its true mask, both (P, 28, 28).

    Cells share out the box as `anonymization.obscuring.masks.paste_mask` does, pixel centres lying
    at halves. torchvision's `project_masks_on_boxes` has them at whole numbers, half a pixel off.
    """
    side = logits.shape[-1]
    true, labels = [], []
    for box, index, target in zip(boxes, objects, targets, strict=True):
        used, local = index.unique(return_inverse=True)
        places = torch.cat([local[:, None].to(box), box], dim=1)
        masks = target["masks"][used][:, None].to(box)
        true.append(roi_align(masks, places, (side, side), 1.0, aligned=True)[:, 0])
        labels.append(target["labels"][index])
    own = logits[torch.arange(len(logits), device=logits.device), torch.cat(labels)]
    return own, torch.cat(true)


def mask_loss(logits: Tensor, true: Tensor, dice_weight: float) -> Tensor:
    """Return cross-entropy per cell plus weighted Dice loss per object.

    The gate asks for the IoU of outlines. Cross-entropy weighs cells, so thin limbs count little
    beside full bodies; Dice (Milletari et al., V-Net, 2016) weighs each object's overlap.

    Args:
        logits: float, shape (P, M, M).
        true: In [0, 1], shape (P, M, M).
        dice_weight: Of the Dice loss beside the cross-entropy; 0 leaves it out.
    """
    loss = functional.binary_cross_entropy_with_logits(logits, true)
    if dice_weight == 0:
        return loss
    found = logits.sigmoid()
    shared = (found * true).sum((1, 2))
    dice = (2 * shared + 1) / (found.sum((1, 2)) + true.sum((1, 2)) + 1)
    return loss + dice_weight * (1 - dice).mean()


def _pairs(first, second):  # type: ignore[no-untyped-def]
    return zip(first, second, strict=True)
