"""Detection: what a bundle's networks find in a picture.

Pure code over arrays; pictures come in as RGB pixels and finds go out in their coordinates.
Shapes: N finds, K = 17 keypoints, M = 28 mask cells a side, boxes xyxy half-open in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from anonymization.bundle import Bundle
from anonymization.card import BEST, KEYPOINT_NETWORK, MASK_NETWORK, Card, GraphCard, TilingCard
from anonymization.detection.applying import apply_card, are_above
from anonymization.detection.finds import Detections, ShapeError
from anonymization.detection.floors import Floors, with_masks
from anonymization.detection.looks import Look, looks_of, merged, mirror, mirrored_boxes
from anonymization.detection.mapping import head_finds, mask_finds, touching
from anonymization.detection.networks import Networks, Runtimes
from anonymization.detection.outputs import HEATMAPS, MASKS, GraphFinds, is_joint, posed_label
from anonymization.detection.preparing import prepare
from anonymization.detection.runtime import Runtime, load_graph
from anonymization.panorama.gpano import choose_projection
from anonymization.panorama.layout import views_of
from anonymization.panorama.merging import Sightings, at_inner_border, merge
from anonymization.panorama.projection import Equirectangular, Projection
from anonymization.panorama.views import Pyramid, Tile, View
from anonymization.panorama.warping import picture_box, with_open_edges
from anonymization.panorama.wrapping import beside_their_faces, canonical
from anonymization.pipeline import Cores

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


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
        go_on: Callable[[], None] = lambda: None,
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
            go_on: Called before each view, from several threads; what it raises ends the work,
                as of a large panorama that takes minutes.

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
            go_on()
            found, _ = self._detect_view(pixels, floors)
        else:
            found = self._detect_views(pixels, views, floors, projection, go_on)
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
        go_on: Callable[[], None],
    ) -> Detections:
        """Look at all views and make one find of each object."""
        pyramid = Pyramid(pixels)

        def seen(job: tuple[int, View], runtimes: Runtimes) -> Sightings:
            go_on()
            number, view = job
            pixels = view.render(pyramid)
            looks = [self._look(pixels, *job, runtimes, floors) for job in self._jobs()]
            found, extents = self._united(looks, floors)
            return self._sightings(found, extents, view, number)

        sightings = Sightings.concatenate(self._networks.each(seen, list(enumerate(views))))
        turn = projection.turn if isinstance(projection, Equirectangular) else None
        height, width = pixels.shape[:2]
        found = merge(
            sightings,
            views,
            firm=are_above(sightings.finds, self.card),
            iou=self.card.nms_iou,
            mask_threshold=self.card.mask_threshold,
            turn=turn,
            poles=projection.poles if isinstance(projection, Equirectangular) else None,
        )
        if turn is not None:
            found = canonical(found, width, turn)
        found = found.select(touching(found.boxes_xyxy, height, width))
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
            parts.append(mask_finds(finds, picture, graph, self.card, height, width))
            extents.append(parts[-1].boxes_xyxy)
        if name == KEYPOINT_NETWORK or is_joint(name, graph, outputs):
            posed = posed_label(name, graph, self.card)
            drawn = None if posed is None else np.arange(len(graph.classes)) == posed
            finds = GraphFinds.from_outputs(outputs, graph, name, HEATMAPS, drawn)
            finds = finds.of_label(posed).at_least(floors.of_heads(graph))
            heads, persons = head_finds(finds, picture, self.card, height, width)
            parts.append(heads)
            extents.append(persons)
        return Detections.concatenate(parts), np.concatenate(extents)
