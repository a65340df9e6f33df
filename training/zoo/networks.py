"""torchvision's COCO detectors as graphs that answer as the anonymizer expects.

Backbone, region proposals and heads are torchvision's own modules, and what follows the heads is
its post-processing (`RoIHeads.postprocess_detections`), except that classes which the taxonomy
lacks are left out, and that classes which it merges suppress each other.

Shapes: one picture of H x W, P proposals, C COCO classes with the background, K of them kept,
D finds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import (
    KeypointRCNN_ResNet50_FPN_Weights,
    MaskRCNN_ResNet50_FPN_V2_Weights,
    MaskRCNN_ResNet50_FPN_Weights,
    maskrcnn_resnet50_fpn_v2,
)
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.keypoint_rcnn import KeypointRCNN
from torchvision.models.detection.mask_rcnn import MaskRCNN
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops.misc import FrozenBatchNorm2d

from anonymization.taxonomy import KEYPOINT_NAMES, Taxonomy
from training.config import KEYPOINT, MASK, NETWORKS
from training.errors import NetworkConfigError
from training.network.heads import BOX_POOL, MAP_POOL
from training.network.pooling import PyramidPool
from training.network.proposals import _at_most, clip, image_size, nms_by_group
from training.zoo.config import KEYPOINT_MODEL, SCORE_MIN

COCO_WEIGHTS: dict[str, Any] = {
    "maskrcnn_resnet50_fpn": MaskRCNN_ResNet50_FPN_Weights.COCO_V1,
    "maskrcnn_resnet50_fpn_v2": MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1,
    KEYPOINT_MODEL: KeypointRCNN_ResNet50_FPN_Weights.COCO_V1,
}
"""torchvision's own weights of each model: address, class names, what they were trained on."""

STRIDES = (4, 8, 16, 32)
"""Strides of the levels of a ResNet's pyramid that boxes are pooled from."""

NMS_IOU = 0.5
"""IoU above which the weaker of two finds of one class is dropped; torchvision's
`box_nms_thresh`."""

FINDS_MAX = 200
"""Most finds per picture. torchvision keeps 100, as COCO's metric counts no more; a crowd in a
street has more, and each one that is dropped stays visible."""

SIDE_MIN = 1e-2
"""Least side of a box in pixels; torchvision's."""


def build_model(model: str) -> Any:
    """Build one of torchvision's detectors, without weights, in eval mode.

    Norms of the first versions are frozen and add nothing to the variance, as torchvision builds
    them for its own weights (`overwrite_eps`): those were trained so.

    Raises:
        NetworkConfigError: If the model is unknown.
    """
    if model not in COCO_WEIGHTS:
        raise NetworkConfigError(f"model is {model!r}; expected one of {', '.join(COCO_WEIGHTS)}")
    classes = len(COCO_WEIGHTS[model].meta["categories"])
    if model == "maskrcnn_resnet50_fpn_v2":
        built = maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=classes)
        return built.eval()
    body = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=partial(FrozenBatchNorm2d, eps=0.0)
    )
    if model == KEYPOINT_MODEL:
        return KeypointRCNN(body, classes, num_keypoints=len(KEYPOINT_NAMES)).eval()
    return MaskRCNN(body, classes).eval()


def known_categories(categories: Sequence[str], taxonomy: Taxonomy) -> dict[int, str]:
    """Return the class of the taxonomy for each COCO category that it knows.

    Args:
        categories: COCO's names by label; label 0 is the background.
        taxonomy: Knows a category by the name of a class or one of its aliases, where a space
            may be written as an underscore.

    Returns:
        Class name by COCO label, ascending.
    """
    known = {}
    for label, category in list(enumerate(categories))[1:]:
        name = taxonomy.resolve(category) or taxonomy.resolve(category.replace(" ", "_"))
        if name is not None:
            known[label] = name
    return known


class ZooNetwork(nn.Module):
    """A detector of torchvision over one picture; what `training.bundle.export` needs to write it.

    Attributes:
        name: `mask_rcnn` or `keypoint_rcnn`.
        maps: What its map head draws: `mask` or `keypoint`.
        classes: Class names of the taxonomy; labels are positions in it.
        finds_max: Most finds per picture.
    """

    mean: Tensor
    std: Tensor
    columns: Tensor
    labels: Tensor

    def __init__(self, name: str, model: Any, known: dict[int, str], taxonomy: Taxonomy) -> None:
        """Wrap a model.

        Args:
            name: `mask_rcnn` or `keypoint_rcnn`.
            model: torchvision's `MaskRCNN` or `KeypointRCNN`.
            known: Class of the taxonomy by COCO label; see `known_categories`.
            taxonomy: Says in which order the classes stand.
        """
        super().__init__()
        if name not in NETWORKS:
            raise NetworkConfigError(f"network is {name!r}; expected {', '.join(NETWORKS)}")
        self.name = name
        self.maps = (KEYPOINT,) if name == "keypoint_rcnn" else (MASK,)
        self.model = model
        self.classes = tuple(c for c in taxonomy.names if c in known.values())
        self.finds_max = FINDS_MAX
        self.box_pool = PyramidPool(STRIDES, BOX_POOL)
        self.map_pool = PyramidPool(STRIDES, MAP_POOL)
        transform = model.transform
        self.register_buffer("mean", torch.tensor(transform.image_mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(transform.image_std).view(1, 3, 1, 1))
        self.register_buffer("columns", torch.tensor(list(known)))
        positions = [self.classes.index(c) for c in known.values()]
        self.register_buffer("labels", torch.tensor(positions))
        self.eval()

    @property
    def graph(self) -> ZooNetwork:
        """The network as one picture in, plain tensors out: itself, in eval mode."""
        return self.eval()

    def forward(
        self, image: Tensor, score_min: Tensor | None = None, draw: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what is found in a picture, best first.

        Args:
            image: float32, shape (1, 3, H, W), RGB in [0, 1], H and W multiples of 32.
            score_min: float32, shape (classes,): what stays below is left out; None keeps all.
            draw: float32, shape (classes,): above 0 where masks are wanted; None draws all.

        Returns:
            Boxes (D, 4) xyxy in input pixels, scores (D,), labels (D,), and mask probabilities
            (M, 28, 28) of those that are drawn or raw keypoint heat maps (D, 17, 56, 56).
        """
        size = image_size(image)
        features = self.model.backbone((image - self.mean) / self.std)
        proposals = self._proposals(image, features, size)
        boxes, scores, columns = self._finds(features, proposals, size)
        if score_min is not None:
            keep = torch.where(scores >= score_min[self.labels[columns]])[0]
            boxes, scores, columns = boxes[keep], scores[keep], columns[keep]
        labels, drawn = self.labels[columns], boxes
        if draw is not None and self.maps == (MASK,):
            rows = torch.where(draw[labels] > 0)[0]
            drawn, columns = boxes[rows], columns[rows]
        return boxes, scores, labels, self._maps(features, drawn, columns)

    def _proposals(self, image: Tensor, features: OrderedDict[str, Tensor], size: Tensor) -> Tensor:
        """Return the proposals, (P, 4): the best of each level, suppressed, the best of all."""
        rpn = self.model.rpn
        levels = list(features.values())
        logits, deltas = rpn.head(levels)
        anchors = rpn.anchor_generator(ImageList(image, [(0, 0)]), levels)
        counts = [level.shape[1] * level.shape[2] * level.shape[3] for level in logits]
        logit, delta = concat_box_prediction_layers(logits, deltas)
        decoded = rpn.box_coder.decode(delta, anchors).view(-1, 4)
        boxes, ranks, groups = [], [], []
        for group, (level_boxes, level_logits) in enumerate(
            zip(decoded.split(counts), logit.flatten().split(counts), strict=True)
        ):
            best, index = level_logits.topk(_at_most(level_logits, rpn.pre_nms_top_n()))
            boxes.append(level_boxes[index])
            ranks.append(best)
            groups.append(torch.full_like(best, group))
        chosen = clip(torch.cat(boxes), size)
        rank, group_of = torch.cat(ranks).sigmoid(), torch.cat(groups)
        whole = torch.where(((chosen[:, 2:] - chosen[:, :2]) >= rpn.min_size).all(1))[0]
        chosen, rank, group_of = chosen[whole], rank[whole], group_of[whole]
        keep = nms_by_group(chosen, rank, group_of, size=size, iou=rpn.nms_thresh)
        return chosen[keep[: rpn.post_nms_top_n()]]

    def _finds(
        self, features: OrderedDict[str, Tensor], proposals: Tensor, size: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes (D, 4), scores (D,), and which of the K COCO classes each is (D,).

        A score is the softmax over all C classes, those that are left out included.
        """
        heads = self.model.roi_heads
        pooled = self.box_pool(features, [proposals])
        logits, deltas = heads.box_predictor(heads.box_head(pooled))
        scores = logits.softmax(-1)[:, self.columns]
        kept = deltas.view(-1, logits.shape[1], 4)[:, self.columns]
        boxes = heads.box_coder.decode_single(kept.flatten(1), proposals)
        boxes = clip(boxes.view(-1, len(self.columns), 4), size)
        whole = ((boxes[..., 2:] - boxes[..., :2]) >= SIDE_MIN).all(-1)
        pairs = torch.nonzero((scores > SCORE_MIN) & whole)
        row, column = pairs[:, 0], pairs[:, 1]
        chosen, score = boxes[row, column], scores[row, column]
        # By class of the taxonomy: a van that COCO calls a car and a truck is one find.
        keep = nms_by_group(chosen, score, self.labels[column], size=size, iou=NMS_IOU)
        keep = keep[: self.finds_max]
        return chosen[keep], score[keep], column[keep]

    def _maps(self, features: OrderedDict[str, Tensor], boxes: Tensor, columns: Tensor) -> Tensor:
        """Return the maps of the finds; of the masks that of each one's COCO class."""
        heads = self.model.roi_heads
        pooled = self.map_pool(features, [boxes])
        if self.maps == (KEYPOINT,):
            maps: Tensor = heads.keypoint_predictor(heads.keypoint_head(pooled))
            return maps
        logits = heads.mask_predictor(heads.mask_head(pooled))
        index = self.columns[columns][:, None, None, None].expand(-1, 1, *logits.shape[2:])
        masks: Tensor = logits.gather(1, index)[:, 0].sigmoid()
        return masks
