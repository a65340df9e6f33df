"""Agreement between annotators of one picture: do they see the same objects, and how alike?

Per class, the objects of two people are matched one to one by box IoU, best pairs first. The
share of agreement is Dice's: twice the matched objects over all objects of both, 1 where they saw
the same and 0 where nothing matches; where neither drew anything there is nothing to measure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from data.coco import Annotation
from evaluation.matching import IOU_MIN, box_iou


@dataclass
class Agreement:
    """Sums over pairs of annotations, per class.

    Attributes:
        pairs: Pairs of people who annotated the same picture.
        matched: Objects that both saw, per class.
        drawn: Objects of both together, per class.
        overlaps: IoU of each matched pair, per class.
        words: How often both said whether a matched object is identifiable, and said the same.
    """

    pairs: int = 0
    matched: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    drawn: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    overlaps: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    words: list[bool] = field(default_factory=list)

    def add(self, opinions: Sequence[Sequence[Annotation]]) -> None:
        """Compare every two opinions on one picture."""
        for one, other in combinations(opinions, 2):
            self.pairs += 1
            for name in sorted({a.class_name for a in (*one, *other)}):
                self._add_class(
                    [a for a in one if a.class_name == name],
                    [a for a in other if a.class_name == name],
                    name,
                )

    def _add_class(self, one: list[Annotation], other: list[Annotation], name: str) -> None:
        self.drawn[name] += len(one) + len(other)
        for i, j, overlap in matched(one, other):
            self.matched[name] += 1
            self.overlaps[name].append(overlap)
            said = [a.attributes.get("identifiable") for a in (one[i], other[j])]
            if None not in said:
                self.words.append(said[0] == said[1])

    def to_dict(self) -> dict[str, Any]:
        """Return the figures; None where nothing was compared."""
        return {
            "pairs": self.pairs,
            "classes": {
                name: {
                    "objects": self.drawn[name],
                    "agreement": round(2 * self.matched[name] / self.drawn[name], 4),
                    "mean_iou": _mean(self.overlaps[name]),
                }
                for name in sorted(self.drawn)
            },
            "identifiable": _mean(self.words),
        }


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return round(float(np.mean(found)), 4) if found else None


def matched(
    one: Sequence[Annotation], other: Sequence[Annotation], *, iou_min: float = IOU_MIN
) -> list[tuple[int, int, float]]:
    """Match the objects of two people one to one, best overlap first.

    Returns:
        Position in `one`, position in `other`, and IoU of each pair.
    """
    if not one or not other:
        return []
    mine, theirs = (np.array([a.box_xyxy for a in g], dtype=np.float64) for g in (one, other))
    overlaps = box_iou(mine, theirs)
    pairs: list[tuple[int, int, float]] = []
    for place in np.argsort(-overlaps, axis=None, kind="stable"):
        i, j = divmod(int(place), len(other))
        if overlaps[i, j] < iou_min:
            break
        if all(i != a and j != b for a, b, _ in pairs):
            pairs.append((i, j, float(overlaps[i, j])))
    return pairs
