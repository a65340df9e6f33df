"""The audit: detects again in the bytes that will be written, and lists what is still visible.

An obscured object is still found: a blurred person looks like a person. So a find of the audit
counts as visible by what was done to its pixels, not by being found: unless enough of them were
obscured fully, and coarsely enough for an object of its size, the picture goes to quarantine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from anonymization.card import KEYPOINT_NETWORK, Card
from anonymization.detection.finds import Detections
from anonymization.obscuring.obscure import obscured_regions
from anonymization.obscuring.region import Outline, Region
from anonymization.obscuring.shapes import NO_OUTLINES, class_spec, region, shorter_side
from anonymization.taxonomy import STRENGTH_MIN, Taxonomy

SOURCE = "audit"
"""Source of finds that the audit adds to what a picture had."""

THRESHOLD_SHARE = 0.5
"""The audit looks at finds of this share of each class's threshold."""

COVERED_MIN = 0.9
"""Least share of a find's pixels that must be obscured; the gate's own measure of covered."""

CELL_SHARE_MIN = STRENGTH_MIN / 4
"""Least cell over the find's shorter side: half of what the floor gives a blur. An object found
larger than the one that was obscured under it may have cells too fine for its size."""


@dataclass(frozen=True)
class AuditRule:
    """How strict the audit is.

    Attributes:
        threshold_share: Finds from this share of their class's threshold on are looked at.
        covered_min: Least share of a find's pixels that must be obscured.
    """

    threshold_share: float = THRESHOLD_SHARE
    covered_min: float = COVERED_MIN


@dataclass(frozen=True)
class Visible:
    """A find of the audit that is not hidden enough.

    Attributes:
        class_name: Its class.
        score: Its score in the anonymized picture.
        box: Its box x0, y0, x1, y1 in pixels of the upright picture, together with that of the
            other network's find of the same object.
        covered: Share of its pixels that were obscured coarsely enough.
    """

    class_name: str
    score: float
    box: tuple[float, float, float, float]
    covered: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, for reports."""
        values = asdict(self)
        return {"class": values.pop("class_name")} | values | {"box": list(self.box)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Visible:
        """Return what `to_dict` made plain.

        Raises:
            KeyError: If a value is missing.
            TypeError: If one is of another type.
            ValueError: If one cannot be read.
        """
        x0, y0, x1, y1 = (float(v) for v in values["box"])
        score, covered = float(values["score"]), float(values["covered"])
        return cls(str(values["class"]), score, (x0, y0, x1, y1), covered)


def without_copies(visible: Sequence[Visible], width: int) -> list[Visible]:
    """Leave one of each two sides of what lies across a panorama's seam, a width apart.

    >>> sides = [Visible("face", 0.5, (x, 0, x + 9, 9), 0.1) for x in (95.0, -5.0)]
    >>> [one.box for one in without_copies(sides, 100)]
    [(95.0, 0, 104.0, 9)]
    """
    kept: list[Visible] = []
    for one in visible:
        x0, *rest = one.box
        moved = {round(x0 + by, 1) for by in (width, -width)}
        same = (k for k in kept if (k.class_name, k.score) == (one.class_name, one.score))
        if not any(k.box[0] in moved and (k.box[1], k.box[3]) == (rest[0], rest[2]) for k in same):
            kept.append(one)
    return kept


def visible_finds(visible: Sequence[Visible], taxonomy: Taxonomy) -> Detections:
    """Return what the audit still sees as finds of their own, whose whole boxes are hidden.

    Their outlines were seen in an obscured picture, and are not to be trusted.
    """
    return Detections.concatenate(
        [
            Detections.from_boxes(
                [list(one.box)],
                class_ids=[taxonomy.class_id(one.class_name)],
                scores=[one.score],
                source=SOURCE,
            )
            for one in visible
        ]
    )


def counted(visible: Sequence[Visible]) -> str:
    """Return how many of which class are visible.

    >>> counted([Visible("face", 0.5, (0, 0, 9, 9), 0.1)])
    '1 face'
    """
    counts = Counter(one.class_name for one in visible)
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))


def audited(
    found: Detections, card: Card, rule: AuditRule, *, implying_head: bool = False
) -> Detections:
    """Keep the finds that the audit looks at.

    Args:
        found: Every find of both networks down to `lowest_score`.
        card: Thresholds and classes; classes with method `none` are not looked at.
        rule: How strict.
        implying_head: Whether a person's outline implies a head: persons are looked at then, too.
    """
    person = card.taxonomy.keypoint_class if implying_head else None
    limits = np.array([card.thresholds[name] for name in card.taxonomy.names], np.float32)
    hidden = np.array(
        [n == person or card.taxonomy[n].method != "none" for n in card.taxonomy.names], bool
    )
    if not len(found):
        return found
    needed = limits[found.class_ids]
    heads = np.array([source == KEYPOINT_NETWORK for source in found.sources], bool)
    needed = np.where(heads, np.float32(card.head.threshold), needed)
    least = needed * np.float32(rule.threshold_share)
    return found.select((found.scores >= least) & hidden[found.class_ids])


def lowest_score(card: Card, rule: AuditRule) -> float:
    """Return the score down to which the audit needs finds."""
    return rule.threshold_share * min(*card.thresholds.values(), card.head.threshold)


def still_visible(
    found: Detections,
    hidden: Detections,
    taxonomy: Taxonomy,
    height: int,
    width: int,
    *,
    rule: AuditRule,
    mask_threshold: float,
    outlines: Mapping[int, Outline] = NO_OUTLINES,
) -> list[Visible]:
    """Return the finds of the audit that the obscured regions do not hide.

    Args:
        found: What the audit looks at; classes with method `none` are not asked for.
        hidden: What was obscured.
        taxonomy: How.
        height: Rows of the picture.
        width: Columns of the picture.
        rule: How strict.
        mask_threshold: Least probability of a pixel of an outline.
        outlines: Exact pixels of what was obscured, by position.
    """
    done = [
        (where, find.cell)
        for find, where in obscured_regions(
            hidden, taxonomy, height, width, mask_threshold=mask_threshold, outlines=outlines
        )
    ]
    visible = []
    for index in range(len(found)):
        spec = class_spec(found, index, taxonomy)
        if spec.method == "none":
            continue
        own = region(
            found,
            index,
            replace(spec, margin=0.0, feather=0.0),
            height=height,
            width=width,
            mask_threshold=mask_threshold,
        )
        needed = CELL_SHARE_MIN * shorter_side(found.boxes_xyxy[index])
        covered = _covered(own, [where for where, cell in done if cell >= needed])
        if covered < rule.covered_min:
            name = taxonomy.names[int(found.class_ids[index])]
            both = np.stack([found.boxes_xyxy[index], found.merged_xyxy[index]])
            low, high = np.nanmin(both[:, :2], axis=0), np.nanmax(both[:, 2:], axis=0)
            x0, y0, x1, y1 = (round(float(v), 1) for v in (*low, *high))
            score = round(float(found.scores[index]), 4)
            visible.append(Visible(name, score, (x0, y0, x1, y1), round(covered, 4)))
    return visible


def _covered(own: Region, done: list[Region]) -> float:
    """Return the share of a region's pixels that lie in others; 1 for a region without pixels."""
    total = int(own.full.sum())
    if not total:
        return 1.0
    return 1 - int(own.without(done).full.sum()) / total
