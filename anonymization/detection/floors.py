"""What a graph is asked to draw: finds from which score on, and masks of which classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonymization.card import KEYPOINT_NETWORK, Card, GraphCard
from anonymization.detection.outputs import HEATMAPS, posed_label

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


def limits(card: Card) -> Floats:
    """Return the thresholds by position in the taxonomy."""
    return np.array([card.thresholds[name] for name in card.taxonomy.names], np.float32)


@dataclass(frozen=True)
class Floors:
    """Scores from which on finds are looked at: below, a graph need not draw them.

    Attributes:
        classes: Of the mask network's finds, by position in the taxonomy; float32 (classes,).
        head: Of heads by keypoints.
    """

    classes: Floats
    head: float

    @staticmethod
    def of(card: Card, score_min: float | None) -> Floors:
        """Return one floor for everything, or with None the card's thresholds.

        What stays below its threshold never changes a find above it (panorama/merging.py,
        detection/looks.py), so leaving it out early changes nothing.
        """
        if score_min is not None:
            floors = np.full(len(card.taxonomy.names), score_min, np.float32)
            return Floors(floors, score_min)
        return Floors(limits(card), card.head.threshold)

    @property
    def lowest(self) -> float:
        """The lowest of all."""
        return min(float(self.classes.min()), self.head)

    def of_masks(self, graph: GraphCard, card: Card) -> Floats:
        """Return the floors of a mask network's finds, by label."""
        return self.classes[[card.taxonomy.class_id(name) for name in graph.classes]]

    def of_heads(self, graph: GraphCard) -> Floats:
        """Return the floors of finds that get heat maps, by label."""
        return np.full(len(graph.classes), self.head, np.float32)

    def of_graph(self, name: str, graph: GraphCard, card: Card) -> Floats:
        """Return the floors that a graph is told, by label: no higher than any that follows."""
        if name == KEYPOINT_NETWORK:
            return self.of_heads(graph)
        floors = self.of_masks(graph, card)
        posed = posed_label(name, graph, card) if HEATMAPS in graph.outputs else None
        if posed is not None:  # a joint one
            floors[posed] = min(floors[posed], self.head)
        return floors


def with_masks(graph: GraphCard, card: Card) -> Bools:
    """Tell of which labels the finds have a mask: those that networks are taught outlines of.

    A box hidden along its outline is hidden as a box.

    Returns:
        bool, shape (labels,).
    """
    specs = [card.taxonomy[name] for name in graph.classes]
    return np.array([s.geometry == "mask" for s in specs], bool)
