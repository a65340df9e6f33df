"""Detection: what a bundle's networks find in a picture.

Pure code over arrays; pictures come in as RGB pixels and finds go out in their coordinates.
Shapes: N finds, K = 17 keypoints, M = 28 mask cells a side, boxes xyxy half-open in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from anonymization.bundle import Bundle
from anonymization.card import (
    BEST,
    KEYPOINT_NETWORK,
    MASK_NETWORK,
    Card,
    GraphCard,
    TilingCard,
)
from anonymization.detection.finds import (
    MASK_SIDE,
    NUM_KEYPOINTS,
    Detections,
    ShapeError,
    box_iou,
    nms,
)
from anonymization.detection.floors import Floors, limits, with_masks
from anonymization.detection.heads import head_box
from anonymization.detection.looks import Look, looks_of, merged, mirror, mirrored_boxes
from anonymization.detection.networks import Networks, Runtimes
from anonymization.detection.outputs import (
    HEATMAPS,
    MASKS,
    GraphFinds,
    is_joint,
    posed_label,
)
from anonymization.detection.runtime import Runtime, load_graph
from anonymization.panorama.gpano import choose_projection
from anonymization.panorama.layout import views_of
from anonymization.panorama.merging import Sightings, at_inner_border, merge
from anonymization.panorama.projection import Equirectangular, Projection
from anonymization.panorama.views import Pyramid, Tile, View
from anonymization.panorama.warping import picture_box, with_open_edges
from anonymization.panorama.wrapping import beside_their_faces, canonical
from anonymization.pipeline import Cores

__all__ = [
    "MASK_SIDE",
    "NUM_KEYPOINTS",
    "Detections",
    "Detector",
    "PreparedPicture",
    "ShapeError",
    "above_thresholds",
    "apply_card",
    "box_iou",
    "heatmaps_to_keypoints",
    "merge_heads",
    "nms",
    "prepare",
]

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Pixels = NDArray[np.uint8]


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


def prepare(pixels: Pixels, graph: GraphCard, *, look: float = 1.0) -> PreparedPicture:
    """Resize and pad a picture as the card says.

    Args:
        pixels: uint8, shape (H, W, 3), RGB.
        graph: The graph's part of the card.
        look: Factor on that size.
    """
    spec = graph.input
    height, width = pixels.shape[:2]
    scale = look * min(spec.long_side / max(height, width), spec.upscale_max)
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

    def __init__(self, card: Card, networks: Networks | Runtimes) -> None:
        """Use these networks for the card's graphs, by name."""
        self.card = card
        self._networks = networks if isinstance(networks, Networks) else Networks.fixed(networks)

    @classmethod
    def from_bundle(
        cls,
        bundle: Bundle,
        *,
        card: Card | None = None,
        threads: int | None = None,
        cores: Cores | None = None,
        runtime: str | None = None,
    ) -> Detector:
        """Load the bundle's graphs.

        Args:
            bundle: The bundle.
            card: What to use in place of its card.
            threads: Threads of one network run; None for what suits the number of runs.
            cores: How the cores are shared between pictures and runs, in place of `threads`;
                None gives all to one picture after the other.
            runtime: `onnxruntime` or `openvino`; None for the first.

        Raises:
            RuntimeLoadError: If a graph cannot be loaded.
        """

        def load(name: str, threads: int) -> Runtime:
            graph, said = bundle.graphs[name], f"graph {name} of {bundle.path}"
            return load_graph(graph, name=said, threads=threads, runtime=runtime)

        shared = cores or Cores.between(1, threads, 1)
        return cls(card or bundle.card, Networks(tuple(bundle.graphs), load, shared))

    def detect(
        self,
        pixels: Pixels,
        *,
        score_min: float | None = None,
        projection: Projection | str | None = None,
        tiling: TilingCard | None = None,
    ) -> Detections:
        """Find objects in a picture.

        Args:
            pixels: uint8, shape (H, W, 3), RGB, upright.
            score_min: None applies the card (thresholds, one find where both signals see a
                face). A number keeps every find at or above it, from each signal by itself;
                `apply_card` then does the rest.
            projection: How a panorama or fisheye picture is projected (`choose_projection`), or
                `equirectangular` for a panorama of the whole turn; None or `perspective` for a
                flat picture.
            tiling: Into which views to cut, in place of the card's, which the verdict is on.

        Returns:
            Finds in picture pixels. In a whole panorama, boxes start in [0, W) and end beyond W
            where they lie across the seam: obscure `wrapped_copies` of them.

        Raises:
            ShapeError: If the pixels are not uint8 (H, W, 3), or the projection is of another
                size.
            ProjectionError: If the projection's name is unknown, or does not fit the picture.
            InferenceError: If a graph fails or answers with something impossible.
        """
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise ShapeError(
                f"pixels are {pixels.dtype} {pixels.shape}; expected uint8 (height, width, 3)"
            )
        height, width = pixels.shape[:2]
        if isinstance(projection, str):
            projection = choose_projection(projection, b"", width, height).projection
        if projection is not None and (projection.width, projection.height) != (width, height):
            raise ShapeError(
                f"the projection is of a picture of {projection.width}x{projection.height}; "
                f"this one is {width}x{height}"
            )
        floors = Floors.of(self.card, score_min)
        views = self.views(width, height, projection=projection, tiling=tiling)
        if len(views) == 1 and isinstance(views[0], Tile):
            found, _ = self._detect_view(pixels, floors)
        else:
            found = self._detect_views(pixels, views, floors, projection)
        return apply_card(found, self.card) if score_min is None else found

    def views(
        self,
        width: int,
        height: int,
        *,
        projection: Projection | None = None,
        tiling: TilingCard | None = None,
    ) -> tuple[View, ...]:
        """Return the views that `detect` shows the networks of a picture of this size."""
        graphs = self.card.graphs
        graph = graphs.get(MASK_NETWORK) or next(iter(graphs.values()))
        return views_of(
            width,
            height,
            projection=projection,
            tiling=tiling or self.card.tiling,
            long_side=graph.input.long_side,
        )

    def _detect_views(
        self,
        pixels: Pixels,
        views: tuple[View, ...],
        floors: Floors,
        projection: Projection | None,
    ) -> Detections:
        """Look at all views and make one find of each object."""
        pyramid = Pyramid(pixels)

        def seen(job: tuple[int, View], runtimes: Runtimes) -> Sightings:
            number, view = job
            pixels = view.render(pyramid)
            looks = [self._look(pixels, *job, runtimes, floors) for job in self._jobs()]
            found, extents = self._united(looks, floors)
            return self._sightings(found, extents, view, number)

        sightings = Sightings.concatenate(self._networks.each(seen, list(enumerate(views))))
        turn = projection.turn if isinstance(projection, Equirectangular) else None
        found = merge(
            sightings,
            views,
            firm=_are_above(sightings.finds, self.card),
            iou=self.card.nms_iou,
            mask_threshold=self.card.mask_threshold,
            turn=turn,
        )
        height, width = pixels.shape[:2]
        if turn is not None:
            found = canonical(found, width, turn)
        found = found.select(_touching(found.boxes_xyxy, height, width))
        return found if turn is None else beside_their_faces(found, turn)

    def _sightings(self, found: Detections, extents: Floats, view: View, number: int) -> Sightings:
        """Say where a view's finds lie in the picture and how well it saw them."""
        card = self.card
        inputs = [self._graph_of(source).input for source in found.sources]
        longest = max(view.width, view.height)
        pixel = np.array(
            [1 / min(i.long_side / longest, i.upscale_max) for i in inputs], np.float32
        )
        edges = with_open_edges(found.boxes_xyxy, view, pixel)
        ellipses = [card.taxonomy[name].shape == "ellipse" for name in card.taxonomy.names]
        boxes = [
            picture_box(box, view, ellipse=ellipses[position])
            for box, position in zip(edges, found.class_ids, strict=True)
        ]
        return Sightings(
            finds=found,
            views=np.full(len(found), number, np.int64),
            boxes=np.array(boxes, np.float32).reshape(-1, 4),
            edges=edges,
            pixel=pixel,
            cut=at_inner_border(extents, view),
        )

    def _graph_of(self, source: str) -> GraphCard:
        """Return the graph that finds of a source came from: a joint one has both signals."""
        graphs = self.card.graphs
        return graphs.get(source) or graphs[MASK_NETWORK]

    def _jobs(self) -> list[tuple[Look, str]]:
        """Return what one view asks for: each graph, as often as the card says."""
        looks = looks_of(self.card.test_time)
        return [(look, name) for look in looks for name in self._networks.names]

    def _detect_view(self, pixels: Pixels, floors: Floors) -> tuple[Detections, Floats]:
        """Run every graph on one view, side by side; returns as `_united` does."""
        return self._united(
            self._networks.each(
                lambda job, runtimes: self._look(pixels, *job, runtimes, floors), self._jobs()
            ),
            floors,
        )

    def _united(
        self, seen: Sequence[tuple[Detections, Floats]], floors: Floors
    ) -> tuple[Detections, Floats]:
        """Make one find of what several looks at one view saw of an object.

        Returns:
            The finds in the view's pixels, and the box of what each was found by, which is the
            whole person's for a head.
        """
        card = self.card
        found = Detections.concatenate(finds for finds, _ in seen)
        extents = np.concatenate([boxes for _, boxes in seen])
        if len(looks_of(card.test_time)) == 1 and card.test_time.merge == BEST:
            return found, extents  # each graph has made one find of each object already
        kept, scores = merged(found, card.test_time, iou=card.nms_iou, score_min=floors.lowest)
        return replace(found.select(kept), scores=scores), extents[kept]

    def _look(
        self, pixels: Pixels, look: Look, name: str, runtimes: Runtimes, floors: Floors
    ) -> tuple[Detections, Floats]:
        """Run one graph on one view, shown in one way; returns as `_united` does."""
        if look.mirrored:
            # A view with negative strides, which OpenCV cannot take.
            flipped = np.ascontiguousarray(pixels[:, ::-1])
            upright = replace(look, mirrored=False)
            found, boxes = self._look(flipped, upright, name, runtimes, floors)
            width = pixels.shape[1]
            return mirror(found, width), mirrored_boxes(boxes, width)
        parts, extents = [], []
        graph = self.card.graphs[name]
        picture = prepare(pixels, graph, look=look.scale)
        masked = with_masks(graph, self.card)
        outputs = runtimes[name].run(
            {
                "image": picture.image,
                "score_min": floors.of_graph(name, graph, self.card),
                "draw": masked.astype(np.float32),
            }
        )
        height, width = pixels.shape[:2]
        if name == MASK_NETWORK:
            finds = GraphFinds.from_outputs(outputs, graph, name, MASKS, masked)
            finds = finds.at_least(floors.of_masks(graph, self.card))
            parts.append(_mask_finds(finds, picture, graph, self.card, height, width))
            extents.append(parts[-1].boxes_xyxy)
        if name == KEYPOINT_NETWORK or is_joint(name, graph, outputs):
            posed = posed_label(name, graph, self.card)
            drawn = None if posed is None else np.arange(len(graph.classes)) == posed
            finds = GraphFinds.from_outputs(outputs, graph, name, HEATMAPS, drawn)
            finds = finds.of_label(posed).at_least(floors.of_heads(graph))
            heads, persons = _head_finds(finds, picture, self.card, height, width)
            parts.append(heads)
            extents.append(persons)
        return Detections.concatenate(parts), np.concatenate(extents)


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
    finds: GraphFinds,
    picture: PreparedPicture,
    graph: GraphCard,
    card: Card,
    height: int,
    width: int,
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
    finds: GraphFinds, picture: PreparedPicture, card: Card, height: int, width: int
) -> tuple[Detections, Floats]:
    """Draw the head region of each person whose face the keypoints see.

    The persons themselves only carry the heads: the mask head draws persons with an outline.

    Returns:
        The heads, and the box of each one's person; float32 (N, 4).
    """
    if card.taxonomy.head_class is None or not len(finds.scores):
        return Detections.empty(), np.zeros((0, 4), np.float32)
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
    touching = _touching(boxes, height, width)
    heads, rows = heads.select(touching), rows[touching]
    kept = nms(heads.boxes_xyxy, heads.scores, iou=card.nms_iou)
    return heads.select(kept), persons[rows[kept]]


def above_thresholds(detections: Detections, card: Card) -> Detections:
    """Keep the finds that the card's thresholds keep; heads have one of their own."""
    return detections.select(_are_above(detections, card))


def _are_above(detections: Detections, card: Card) -> Bools:
    needed = limits(card)[detections.class_ids]
    from_keypoints = np.array([s == KEYPOINT_NETWORK for s in detections.sources], bool)
    needed = np.where(from_keypoints, np.float32(card.head.threshold), needed)
    return np.asarray(detections.scores >= needed)


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
