"""What was found in a picture: the value that detection, obscuring and judging share.

Pure code over arrays. Shapes: N finds, K = 17 keypoints, M = 28 mask cells a side, boxes xyxy
half-open in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonymization.card import MASK_NETWORK
from anonymization.errors import BlurloopError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

MASK_SIDE = 28
NUM_KEYPOINTS = 17


class ShapeError(BlurloopError):
    """Arrays that must agree do not."""


@dataclass(frozen=True)
class Detections:
    """What was found in one picture; checked when made.

    Attributes:
        boxes_xyxy: float32 (N, 4), picture pixels, half-open.
        scores: float32 (N,).
        class_ids: int64 (N,), position in the taxonomy's names.
        masks: float32 (N, 28, 28), probability inside the box; NaN rows where there is none.
        keypoints: float32 (N, 17, 3), x, y, score in COCO order; NaN rows where there are none.
        sources: Network that each came from; `keypoint_rcnn` for each head drawn from keypoints,
            also where a joint graph found them.
        merged_xyxy: float32 (N, 4), box of a find of the other source that is the same object
            and is obscured with it; NaN rows where there is none.
    """

    boxes_xyxy: Floats
    scores: Floats
    class_ids: Ints
    masks: Floats = field(repr=False)
    keypoints: Floats = field(repr=False)
    sources: tuple[str, ...]
    merged_xyxy: Floats = field(default_factory=lambda: np.zeros((0, 4), np.float32), repr=False)

    def __post_init__(self) -> None:
        n = len(self.scores)
        if len(self.merged_xyxy) == 0:
            object.__setattr__(self, "merged_xyxy", np.full((n, 4), np.nan, np.float32))
        object.__setattr__(self, "sources", tuple(self.sources))
        shapes: dict[str, tuple[int, ...]] = {
            "boxes_xyxy": (n, 4),
            "scores": (n,),
            "class_ids": (n,),
            "masks": (n, MASK_SIDE, MASK_SIDE),
            "keypoints": (n, NUM_KEYPOINTS, 3),
            "merged_xyxy": (n, 4),
        }
        for name, shape in shapes.items():
            kind = np.int64 if name == "class_ids" else np.float32
            value = np.asarray(getattr(self, name), dtype=kind)
            if value.shape != shape:
                raise ShapeError(f"{name} has shape {value.shape}; expected {shape}")
            object.__setattr__(self, name, value)
        if len(self.sources) != n:
            raise ShapeError(f"{len(self.sources)} sources for {n} finds")
        if not (np.isfinite(self.boxes_xyxy).all() and np.isfinite(self.scores).all()):
            raise ShapeError("a box or score is not finite")
        if n and self.class_ids.min() < 0:
            raise ShapeError(f"class id {self.class_ids.min()} is negative")

    def __len__(self) -> int:
        return len(self.scores)

    def select(self, index: NDArray[Any] | slice | list[int]) -> Detections:
        """Return some finds: a bool mask, positions, or a slice."""
        rows = np.asarray(index, np.int64) if isinstance(index, list) else index
        picked = np.arange(len(self))[rows]
        return Detections(
            boxes_xyxy=self.boxes_xyxy[picked],
            scores=self.scores[picked],
            class_ids=self.class_ids[picked],
            masks=self.masks[picked],
            keypoints=self.keypoints[picked],
            sources=tuple(self.sources[i] for i in picked),
            merged_xyxy=self.merged_xyxy[picked],
        )

    @staticmethod
    def concatenate(parts: Iterable[Detections]) -> Detections:
        """Return all finds of several, in order."""
        groups = [Detections.empty(), *parts]
        arrays = {
            f.name: np.concatenate([getattr(part, f.name) for part in groups])
            for f in fields(Detections)
            if f.name != "sources"
        }
        return Detections(sources=tuple(s for part in groups for s in part.sources), **arrays)

    @staticmethod
    def empty() -> Detections:
        """Return no finds."""
        return Detections.from_boxes(np.zeros((0, 4)), class_ids=np.zeros(0))

    @staticmethod
    def from_boxes(
        boxes_xyxy: Any,
        *,
        class_ids: Any,
        scores: Any = None,
        masks: Any = None,
        keypoints: Any = None,
        source: str = MASK_NETWORK,
    ) -> Detections:
        """Build from boxes; what is not given is 1 (scores) or NaN.

        >>> len(Detections.from_boxes([[0, 0, 4, 4]], class_ids=[0]))
        1
        """
        n = len(boxes_xyxy)
        nan = np.float32(np.nan)
        return Detections(
            boxes_xyxy=np.asarray(boxes_xyxy, np.float32).reshape(n, 4),
            scores=np.ones(n, np.float32) if scores is None else np.asarray(scores, np.float32),
            class_ids=np.asarray(class_ids, np.int64),
            masks=np.full((n, MASK_SIDE, MASK_SIDE), nan) if masks is None else masks,
            keypoints=np.full((n, NUM_KEYPOINTS, 3), nan) if keypoints is None else keypoints,
            sources=(source,) * n,
        )


def box_iou(a_xyxy: Floats, b_xyxy: Floats) -> Floats:
    """Return the intersection over union of each pair; float32 (A, B), 0 for empty boxes.

    >>> box_iou(np.float32([[0, 0, 2, 2]]), np.float32([[0, 0, 2, 1]])).tolist()
    [[0.5]]
    """
    low = np.maximum(a_xyxy[:, None, :2], b_xyxy[None, :, :2])
    high = np.minimum(a_xyxy[:, None, 2:], b_xyxy[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(np.clip(x[:, 2:] - x[:, :2], 0, None), axis=1) for x in (a_xyxy, b_xyxy)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    return np.asarray(shared / np.where(union > 0, union, 1), np.float32)


def nms(boxes_xyxy: Floats, scores: Floats, *, iou: float) -> Ints:
    """Return the positions that greedy non-maximum suppression keeps, best first.

    A find goes when it overlaps a better one by at least `iou`.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    overlaps = box_iou(boxes_xyxy, boxes_xyxy)
    for i in order:
        if not kept or overlaps[i, kept].max() < iou:
            kept.append(int(i))
    return np.asarray(kept, dtype=np.int64)
