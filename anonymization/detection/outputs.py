"""What a graph returned for one picture, checked before anything is made of it.

Shapes: N finds, K = 17 keypoints, M = 28 mask cells a side, boxes xyxy in the graph's pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonymization.card import KEYPOINT_NETWORK, Card, GraphCard
from anonymization.detection.finds import MASK_SIDE, NUM_KEYPOINTS
from anonymization.detection.runtime import InferenceError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MASKS, HEATMAPS = "masks", "heatmaps"
"""Outputs of a graph that hold what its heads draw of each find."""


def is_joint(name: str, graph: GraphCard, outputs: Mapping[str, Any]) -> bool:
    """Tell whether a mask network returned heat maps, too.

    Raises:
        InferenceError: If its card does not say so: it was not told to draw them down to the
            heads' threshold.
    """
    if HEATMAPS in outputs and HEATMAPS not in graph.outputs:
        raise InferenceError(
            f"graph {name} returned {HEATMAPS}, which its card does not list; it lists "
            f"{', '.join(graph.outputs) or 'nothing'}"
        )
    return HEATMAPS in outputs


def posed_label(name: str, graph: GraphCard, card: Card) -> int | None:
    """Return the label of the finds that have heat maps; None where all have."""
    if name == KEYPOINT_NETWORK:
        return None
    if card.taxonomy.keypoint_class not in graph.classes:
        raise InferenceError(
            f"graph {name} returns heat maps, but finds no class that has keypoints; the "
            f"taxonomy's is {card.taxonomy.keypoint_class}, the graph's are {graph.classes}"
        )
    return graph.classes.index(card.taxonomy.keypoint_class)


@dataclass(frozen=True)
class GraphFinds:
    """A graph's finds in its own pixels, with the maps of one of its heads, checked."""

    boxes: Floats
    scores: Floats
    labels: Ints
    maps: Floats

    @staticmethod
    def from_outputs(
        outputs: Mapping[str, Any],
        graph: GraphCard,
        name: str,
        map_name: str,
        drawn: Bools | None = None,
    ) -> GraphFinds:
        """Check a graph's outputs.

        Args:
            outputs: What it returned.
            graph: Its part of the card.
            name: What to call it in errors.
            map_name: `MASKS` or `HEATMAPS`.
            drawn: bool (labels,), whose finds have a map; None where all have. The maps of the
                others are not numbers. A graph that draws all of them, told so or not, may.

        Raises:
            InferenceError: If the outputs are not that.
        """
        try:
            raw = [outputs[key] for key in ("boxes", "scores", "labels", map_name)]
        except KeyError as error:
            raise InferenceError(
                f"graph {name} lacks output {error}; it returns {sorted(outputs)}"
            ) from error
        boxes, scores = (np.asarray(value, np.float32) for value in raw[:2])
        labels, maps = np.asarray(raw[2], np.int64), np.asarray(raw[3], np.float32)
        n = len(scores)
        shape = (MASK_SIDE, MASK_SIDE) if map_name == MASKS else (NUM_KEYPOINTS,)
        if n and not (labels.min() >= 0 and labels.max() < len(graph.classes)):
            raise InferenceError(
                f"graph {name} returned label {labels.max()}; it has {len(graph.classes)} classes"
            )
        wanted = np.ones(n, bool) if drawn is None or len(maps) == n else drawn[labels]
        if boxes.shape != (n, 4) or labels.shape != (n,) or len(maps) != wanted.sum():
            raise InferenceError(
                f"graph {name} returned boxes {boxes.shape}, scores {scores.shape}, labels "
                f"{labels.shape}, {map_name} {maps.shape}; expected one row per find in each"
                + ("" if drawn is None else f", of {map_name} {wanted.sum()}")
            )
        if maps.shape[1 : 1 + len(shape)] != shape:
            raise InferenceError(f"graph {name} returned {map_name} of shape {maps.shape}")
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise InferenceError(f"graph {name} returned a box or score that is not finite")
        if not wanted.all():
            every = np.full((n, *maps.shape[1:]), np.nan, np.float32)
            every[wanted] = maps
            maps = every
        return GraphFinds(boxes, scores, labels, maps)

    def of_label(self, label: int | None) -> GraphFinds:
        """Keep the finds of one label; None keeps all."""
        return self if label is None else self._select(self.labels == label)

    def at_least(self, score_min: Floats) -> GraphFinds:
        """Keep the finds that reach the score of their label; float32 (labels,)."""
        return self._select(self.scores >= score_min[self.labels])

    def _select(self, kept: Bools) -> GraphFinds:
        return GraphFinds(self.boxes[kept], self.scores[kept], self.labels[kept], self.maps[kept])
