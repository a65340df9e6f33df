"""Detection: what a bundle's networks find in a picture.

Pure code over arrays; pictures come in as RGB pixels and finds go out in their coordinates.
Shapes: N finds, K = 17 keypoints, M = 28 mask cells a side, boxes xyxy half-open in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anonymization.bundle import KEYPOINT_NETWORK, MASK_NETWORK, Bundle, Card, GraphCard
from anonymization.errors import BlurloopError
from anonymization.heads import head_box
from anonymization.runtime import InferenceError, OnnxRuntime, Runtime

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Pixels = NDArray[np.uint8]

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
        sources: Network that each came from.
        merged_xyxy: float32 (N, 4), box of a find of the other network that is the same object
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


def heatmaps_to_keypoints(heatmaps: Floats, boxes_xyxy: Floats) -> Floats:
    """Find each keypoint at the highest point of its heat map, resized to its box.

    Equals torchvision's `heatmaps_to_keypoints` (roi_heads.py): bicubic resizing to the box
    rounded up, the highest pixel, its centre scaled to the box.

    Args:
        heatmaps: float32, shape (N, K, S, S), raw values.
        boxes_xyxy: float32, shape (N, 4).

    Returns:
        float32, shape (N, K, 3): x, y in the boxes' pixels, and the value there.
    """
    found = np.zeros((*heatmaps.shape[:2], 3), np.float32)
    for i, (maps, box) in enumerate(zip(heatmaps, boxes_xyxy, strict=True)):
        width, height = np.maximum(box[2:] - box[:2], 1)
        columns, rows = int(np.ceil(width)), int(np.ceil(height))
        for k, heatmap in enumerate(maps):
            large = cv2.resize(heatmap, (columns, rows), interpolation=cv2.INTER_CUBIC)
            y, x = divmod(int(large.argmax()), columns)
            found[i, k] = (
                (x + 0.5) * (width / columns) + box[0],
                (y + 0.5) * (height / rows) + box[1],
                large[y, x],
            )
    return found


@dataclass(frozen=True)
class PreparedPicture:
    """A picture as a graph takes it.

    Attributes:
        image: float32 (1, 3, H, W), RGB in [0, 1], padded right and below.
        scale_xy: Graph pixels per picture pixel, in x and in y.
    """

    image: Floats
    scale_xy: tuple[float, float]


def prepare(pixels: Pixels, graph: GraphCard) -> PreparedPicture:
    """Resize and pad a picture as the card says.

    Args:
        pixels: uint8, shape (H, W, 3), RGB.
        graph: The graph's part of the card.
    """
    spec = graph.input
    height, width = pixels.shape[:2]
    scale = min(spec.long_side / max(height, width), spec.upscale_max)
    columns, rows = max(1, round(width * scale)), max(1, round(height * scale))
    # Area averaging does not alias when it shrinks; it cannot enlarge.
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    same = (rows, columns) == (height, width)
    resized = pixels if same else cv2.resize(pixels, (columns, rows), interpolation=how)
    padded = [-(-side // spec.multiple) * spec.multiple for side in (rows, columns)]
    image = np.empty((1, 3, *padded), np.float32)
    image[:] = np.asarray(spec.pad_rgb, np.float32)[None, :, None, None]
    np.multiply(resized.transpose(2, 0, 1), np.float32(1 / 255), out=image[0, :, :rows, :columns])
    return PreparedPicture(image, (columns / width, rows / height))


class Detector:
    """Runs a bundle's networks on pictures; safe to use from several threads."""

    def __init__(self, card: Card, runtimes: Mapping[str, Runtime]) -> None:
        """Use these runtimes for the card's graphs, by network name."""
        self.card = card
        self._runtimes = dict(runtimes)

    @classmethod
    def from_bundle(cls, bundle: Bundle, *, threads: int | None = None) -> Detector:
        """Load the bundle's graphs into ONNX Runtime.

        Raises:
            RuntimeLoadError: If a graph cannot be loaded.
        """
        return cls(
            bundle.card,
            {
                name: OnnxRuntime(content, name=f"graph {name} of {bundle.path}", threads=threads)
                for name, content in bundle.graphs.items()
            },
        )

    def detect(self, pixels: Pixels, *, score_min: float | None = None) -> Detections:
        """Find objects in a picture.

        Args:
            pixels: uint8, shape (H, W, 3), RGB, upright.
            score_min: None applies the card (thresholds, one find where both networks see a
                face). A number keeps every find at or above it, from each network by itself;
                `apply_card` then does the rest.

        Raises:
            ShapeError: If the pixels are not uint8 (H, W, 3).
            InferenceError: If a graph fails or answers with something impossible.
        """
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise ShapeError(
                f"pixels are {pixels.dtype} {pixels.shape}; expected uint8 (height, width, 3)"
            )
        lowest = self._lowest_threshold() if score_min is None else score_min
        found = self._detect_view(pixels, lowest)
        return apply_card(found, self.card) if score_min is None else found

    def _lowest_threshold(self) -> float:
        return min(*self.card.thresholds.values(), self.card.head.threshold)

    def _detect_view(self, pixels: Pixels, score_min: float) -> Detections:
        """Run every graph on one view: today the whole picture, a tile or cube face tomorrow."""
        parts = []
        for name, runtime in self._runtimes.items():
            graph = self.card.graphs[name]
            picture = prepare(pixels, graph)
            outputs = runtime.run({"image": picture.image})
            height, width = pixels.shape[:2]
            finds = _Finds.from_outputs(outputs, graph, name).at_least(score_min)
            if name == MASK_NETWORK:
                parts.append(_mask_finds(finds, picture, graph, self.card, height, width))
            else:
                parts.append(_head_finds(finds, picture, self.card, height, width))
        return Detections.concatenate(parts)


@dataclass(frozen=True)
class _Finds:
    """A graph's outputs in its own pixels, checked."""

    boxes: Floats
    scores: Floats
    labels: Ints
    maps: Floats

    @staticmethod
    def from_outputs(outputs: Mapping[str, Any], graph: GraphCard, name: str) -> _Finds:
        map_name = "masks" if name == MASK_NETWORK else "heatmaps"
        try:
            raw = [outputs[key] for key in ("boxes", "scores", "labels", map_name)]
        except KeyError as error:
            raise InferenceError(
                f"graph {name} lacks output {error}; it returns {sorted(outputs)}"
            ) from error
        boxes, scores = (np.asarray(value, np.float32) for value in raw[:2])
        labels, maps = np.asarray(raw[2], np.int64), np.asarray(raw[3], np.float32)
        n = len(scores)
        shape = (MASK_SIDE, MASK_SIDE) if name == MASK_NETWORK else (NUM_KEYPOINTS,)
        if boxes.shape != (n, 4) or labels.shape != (n,) or len(maps) != n:
            raise InferenceError(
                f"graph {name} returned boxes {boxes.shape}, scores {scores.shape}, labels "
                f"{labels.shape}, {map_name} {maps.shape}; expected one row per find in each"
            )
        if maps.shape[1 : 1 + len(shape)] != shape:
            raise InferenceError(f"graph {name} returned {map_name} of shape {maps.shape}")
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise InferenceError(f"graph {name} returned a box or score that is not finite")
        if n and not (labels.min() >= 0 and labels.max() < len(graph.classes)):
            raise InferenceError(
                f"graph {name} returned label {labels.max()}; it has {len(graph.classes)} classes"
            )
        return _Finds(boxes, scores, labels, maps)

    def at_least(self, score_min: float) -> _Finds:
        kept = self.scores >= score_min
        return _Finds(self.boxes[kept], self.scores[kept], self.labels[kept], self.maps[kept])


def _to_picture(boxes: Floats, picture: PreparedPicture) -> Floats:
    sx, sy = picture.scale_xy
    return np.asarray(boxes / np.array([sx, sy, sx, sy], np.float32), np.float32)


def _touching(boxes_xyxy: Floats, height: int, width: int) -> NDArray[np.bool_]:
    """Tell which boxes have an area inside the picture."""
    x0, y0, x1, y1 = boxes_xyxy.T
    inside_x = np.minimum(x1, width) > np.maximum(x0, 0)
    inside_y = np.minimum(y1, height) > np.maximum(y0, 0)
    return np.asarray(inside_x & inside_y)


def _mask_finds(
    finds: _Finds, picture: PreparedPicture, graph: GraphCard, card: Card, height: int, width: int
) -> Detections:
    """Map finds of the mask network back to the picture.

    Boxes are not cut at the picture's edge: the 28x28 mask spans the whole box.
    """
    positions = np.array([card.taxonomy.class_id(name) for name in graph.classes], np.int64)
    boxes = _to_picture(finds.boxes, picture)
    found = Detections.from_boxes(
        boxes, class_ids=positions[finds.labels], scores=finds.scores, masks=finds.maps
    )
    return found.select(_touching(boxes, height, width))


def _head_finds(
    finds: _Finds, picture: PreparedPicture, card: Card, height: int, width: int
) -> Detections:
    """Draw the head region of each person whose face the keypoints see.

    The persons themselves only carry the heads: the mask network finds persons with an outline.
    """
    if card.taxonomy.head_class is None or not len(finds.scores):
        return Detections.empty()
    points = heatmaps_to_keypoints(finds.maps, finds.boxes)
    points[..., 0] /= picture.scale_xy[0]
    points[..., 1] /= picture.scale_xy[1]
    persons = _to_picture(finds.boxes, picture)
    pairs = [
        (i, box)
        for i in range(len(persons))
        if (box := head_box(points[i], persons[i], card.head)) is not None
    ]
    rows = np.array([i for i, _ in pairs], np.int64)
    boxes = np.array([box for _, box in pairs], np.float32).reshape(-1, 4)
    heads = Detections.from_boxes(
        boxes,
        class_ids=np.full(len(rows), card.taxonomy.class_id(card.taxonomy.head_class)),
        scores=finds.scores[rows],
        keypoints=points[rows],
        source=KEYPOINT_NETWORK,
    )
    heads = heads.select(_touching(boxes, height, width))
    return heads.select(nms(heads.boxes_xyxy, heads.scores, iou=card.nms_iou))


def above_thresholds(detections: Detections, card: Card) -> Detections:
    """Keep the finds that the card's thresholds keep; heads have one of their own."""
    limits = np.array([card.thresholds[name] for name in card.taxonomy.names], np.float32)
    needed = limits[detections.class_ids] if len(detections) else np.zeros(0, np.float32)
    from_keypoints = np.array([s == KEYPOINT_NETWORK for s in detections.sources], bool)
    needed = np.where(from_keypoints, np.float32(card.head.threshold), needed)
    return detections.select(detections.scores >= needed)


def merge_heads(detections: Detections, *, iou: float) -> Detections:
    """Make one find of a face and a head region that overlap.

    Counting both would halve precision for faces that both networks see. The face network's box
    stays, as it was trained on faces while the head is estimated from points; the better score
    stays; and the head's box is remembered in `merged_xyxy`, so that both get obscured. A head
    that overlaps no face stays a find of its own.
    """
    is_head = np.array([s == KEYPOINT_NETWORK for s in detections.sources], bool)
    scores, merged = detections.scores.copy(), detections.merged_xyxy.copy()
    kept = np.ones(len(detections), bool)
    heads = np.flatnonzero(is_head)
    overlaps = box_iou(detections.boxes_xyxy[heads], detections.boxes_xyxy)
    for head, overlap in zip(heads, overlaps, strict=True):
        same = ~is_head & (detections.class_ids == detections.class_ids[head])
        free = same & np.isnan(merged[:, 0]) & (overlap >= iou)
        if free.any():
            face = int(np.argmax(np.where(free, overlap, -1)))
            merged[face] = detections.boxes_xyxy[head]
            scores[face] = max(scores[face], scores[head])
            kept[head] = False
    return Detections(
        detections.boxes_xyxy,
        scores,
        detections.class_ids,
        detections.masks,
        detections.keypoints,
        detections.sources,
        merged,
    ).select(kept)


def apply_card(detections: Detections, card: Card) -> Detections:
    """Turn every find (`score_min` given) into what an operator gets: thresholds, then merging.

    In this order, so that a find below its threshold takes no part.
    """
    return merge_heads(above_thresholds(detections, card), iou=card.nms_iou)
