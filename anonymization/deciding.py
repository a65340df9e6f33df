"""Deciding: which finds of a picture are obscured, on both sides of a panorama's seam."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from anonymization.detection.finds import Detections
from anonymization.implied_heads import implied_heads
from anonymization.obscuring.region import Outline
from anonymization.obscuring.shapes import NO_OUTLINES, growths
from anonymization.panorama.wrapping import over_the_seam, with_copies, with_grown_copies
from anonymization.regions import Regions, Spared
from anonymization.taxonomy import Taxonomy


@dataclass(frozen=True)
class Rules:
    """What decides, the same for every picture.

    Attributes:
        taxonomy: How classes are obscured.
        regions: Regions of interest, ignored ones, and the ego vehicle.
        disabled: Names of the classes that are off.
        mask_threshold: Least probability of a pixel of an outline.
        implying_head: Whether a person's outline implies a head.
    """

    taxonomy: Taxonomy
    regions: Regions
    disabled: frozenset[str]
    mask_threshold: float
    implying_head: bool


@dataclass(frozen=True)
class Decided:
    """What is to be done with the finds of one picture.

    Attributes:
        detections: Every find of the classes that are on, and the heads that persons' outlines
            imply where that is asked for.
        outlines: Exact pixels of finds, by position in `drawn`.
        spared: Those that a region takes out.
        drawn: The finds, then a copy of each that reaches across a panorama's seam, where it
            comes in on the other side.
        owners: Position in `detections` of each of `drawn`.
        hidden: What is obscured of `drawn`, in order; then a copy of each of which only what is
            hidden around it reaches across the seam.
        hidden_outlines: Exact pixels of finds, by position in `hidden`.
        across: Positions in `hidden` of finds that go on across a whole panorama's seam, where both
            sides are obscured.
    """

    detections: Detections
    outlines: Mapping[int, Outline]
    spared: tuple[Spared, ...]
    drawn: Detections
    owners: NDArray[np.int64]
    hidden: Detections
    hidden_outlines: Mapping[int, Outline]
    across: NDArray[np.int64]


def decide(
    detections: Detections,
    rules: Rules,
    *,
    name: str,
    width: int,
    height: int,
    outlines: Mapping[int, Outline] = NO_OUTLINES,
    turn: float | None = None,
) -> Decided:
    """Add implied heads, take out classes that are off, and tell which finds are obscured.

    Args:
        detections: The finds.
        rules: What decides.
        name: Path of the picture below its input folder, with `/`.
        width: Columns of the picture.
        height: Rows of the picture.
        outlines: Exact pixels of finds, by position.
        turn: Columns of a whole turn; None for a flat picture, which has no seam.

    Raises:
        RegionError: If a region's mask does not fit the picture.
    """
    taxonomy = rules.taxonomy
    detections = _with_implied_heads(detections, rules, width, outlines, turn)
    off = [i for i, n in enumerate(taxonomy.names) if n in rules.disabled]
    listed = np.flatnonzero(~np.isin(detections.class_ids, off))
    found, found_outlines = _picked(detections, outlines, listed)
    drawn, owners = with_copies(found, width, turn)
    drawn_outlines = _moved(found_outlines, found, drawn, owners)
    spared = rules.regions.spared(
        drawn,
        taxonomy,
        name=name,
        width=width,
        height=height,
        mask_threshold=rules.mask_threshold,
        outlines=drawn_outlines,
    )
    out = _on_every_side(spared, owners, len(found))
    hidden_at = np.flatnonzero(~np.isin(owners, [one.index for one in out]))
    hidden, hidden_outlines = _picked(drawn, drawn_outlines, hidden_at)
    # What is hidden around an object may cross the seam where the object does not.
    growth: NDArray[np.float32] = np.zeros(len(hidden), np.float32)
    if turn is not None:
        growth = growths(hidden, taxonomy)
    every, whose, copied = with_grown_copies(hidden, owners[hidden_at], growth, width, turn)
    across = over_the_seam(every, whose, growth[copied], width, turn)
    outlined = _moved(hidden_outlines, hidden, every, copied)
    return Decided(found, drawn_outlines, out, drawn, owners, every, outlined, across)


def _with_implied_heads(
    detections: Detections,
    rules: Rules,
    width: int,
    outlines: Mapping[int, Outline],
    turn: float | None,
) -> Detections:
    """Return the finds, and after them the heads that persons' outlines imply."""
    taxonomy = rules.taxonomy
    if not rules.implying_head or not taxonomy.keypoint_class or not taxonomy.head_class:
        return detections
    heads = implied_heads(
        detections,
        person=taxonomy.class_id(taxonomy.keypoint_class),
        head=taxonomy.class_id(taxonomy.head_class),
        width=width,
        mask_threshold=rules.mask_threshold,
        outlines=outlines,
        turn=turn,
    )
    return Detections.concatenate([detections, heads])


def _on_every_side(
    spared: Sequence[Spared], owners: NDArray[np.int64], finds: int
) -> tuple[Spared, ...]:
    """Return the finds that are spared; an object across the seam only where both sides are.

    Args:
        spared: Finds and copies that regions take out, by position in `owners`.
        owners: Whose copy each is; the finds themselves come first.
        finds: How many these are.
    """
    kept = np.setdiff1d(np.arange(len(owners)), [one.index for one in spared])
    protected = set(owners[kept].tolist())
    return tuple(one for one in spared if one.index < finds and one.index not in protected)


def _moved(
    outlines: Mapping[int, Outline],
    finds: Detections,
    copies: Detections,
    owners: NDArray[np.int64],
) -> dict[int, Outline]:
    """Return what a person drew, also for copies that crossed the seam and follow their finds."""
    moved = copies.boxes_xyxy[:, 0] - finds.boxes_xyxy[owners, 0]
    return {
        copy: replace(outlines[owner], x0=outlines[owner].x0 + round(float(moved[copy])))
        for copy, owner in enumerate(owners.tolist())
        if owner in outlines
    }


def _picked(
    detections: Detections, outlines: Mapping[int, Outline], positions: NDArray[np.int64]
) -> tuple[Detections, dict[int, Outline]]:
    """Return some finds, and their outlines by new position."""
    drawn = {new: outlines[int(old)] for new, old in enumerate(positions) if int(old) in outlines}
    return detections.select(positions), drawn
