"""Finds of the shipped anonymizer judged against the truth of one picture.

The same judgement serves calibration on val and evaluation on the reference set. Matching is done
once on every find that the network kept: what holds at a threshold is a look-up (matching.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anonymization.taxonomy import ClassSpec, Taxonomy
from evaluation.coverage import (
    MASK_THRESHOLD,
    covered_at,
    covers_of,
    region_of,
    regions_of,
    unrolled,
)
from evaluation.matching import IOU_MIN, Matching, MatchingError, box_iou, mask_iou, match
from evaluation.panoramas import on_circle
from evaluation.patch import Patch
from evaluation.truth import PictureTruth, TruthObject

if TYPE_CHECKING:
    from anonymization.detection.finds import Detections


@dataclass(frozen=True)
class ClassJudgement:
    """One class in one picture.

    Attributes:
        truths: True objects of the class, M of them.
        indices: Positions of the class's finds in the picture's detections, int64 (N,).
        scores: Scores of these finds, float64 (N,).
        matching: With objects that do not count ignored.
        detected_at: Highest threshold at which each truth is detected, float64 (M,); for those
            that do not count but are no crowds, from a second matching in which they do. -inf for
            crowds.
    """

    truths: tuple[TruthObject, ...]
    indices: NDArray[np.int64]
    scores: NDArray[np.float64]
    matching: Matching
    detected_at: NDArray[np.float64]

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Which truths count for recall, bool (M,)."""
        return np.array([t.counted for t in self.truths], dtype=bool)


def check_detections(detections: Detections, name: str) -> None:
    """Refuse finds that no model may return.

    Raises:
        MatchingError: If a score or a box is not a number, or a score lies outside [0, 1].
    """
    scores = np.asarray(detections.scores)
    boxes = np.asarray(detections.boxes_xyxy)
    bad = ~np.isfinite(scores) | (scores < 0) | (scores > 1)
    for index in np.flatnonzero(bad):
        raise MatchingError(
            f"find {index} in picture {name} has score {scores[index]}; expected 0 to 1. "
            "The model is broken: train it again"
        )
    for index in np.flatnonzero(~np.isfinite(boxes).all(axis=1)):
        raise MatchingError(
            f"find {index} in picture {name} has box {boxes[index].tolist()}; expected numbers. "
            "The model is broken: train it again"
        )


def judge(
    truth: PictureTruth,
    detections: Detections,
    taxonomy: Taxonomy,
    *,
    iou_min: float = IOU_MIN,
    mask_threshold: float = MASK_THRESHOLD,
) -> dict[str, ClassJudgement]:
    """Match every class's finds, whatever their score, to its truths.

    Raises:
        MatchingError: If a score or a box is not a number.
    """
    check_detections(detections, truth.image.sha256)
    return {
        name: match_class(
            truth, detections, taxonomy, name, iou_min=iou_min, mask_threshold=mask_threshold
        )
        for name in taxonomy.names
    }


def match_class(
    truth: PictureTruth,
    detections: Detections,
    taxonomy: Taxonomy,
    name: str,
    *,
    iou_min: float = IOU_MIN,
    mask_threshold: float = MASK_THRESHOLD,
) -> ClassJudgement:
    """Match one class's finds, whatever their score, to its truths."""
    truths = truth.of_class(name)
    finds = np.flatnonzero(np.asarray(detections.class_ids) == taxonomy.class_id(name))
    scores = np.asarray(detections.scores, dtype=np.float64)[finds]
    sources = [detections.sources[i] for i in finds]
    coverage = truth.coverage(name)
    ignored = np.array([not t.counted for t in truths], dtype=bool)
    overlaps = FindOverlaps.of(
        truth, truths, detections.select(finds), taxonomy[name], mask_threshold
    )
    matching = match(
        overlaps.given(ignored),
        scores,
        ignored=ignored,
        coverage=coverage,
        sources=sources,
        iou_min=iou_min,
    )
    detected_at = matching.detected_at
    crowds = np.array([t.crowd for t in truths], dtype=bool)
    if np.any(ignored & ~crowds):
        beside = match(overlaps.given(crowds), scores, ignored=crowds, iou_min=iou_min)
        detected_at = np.where(ignored, beside.detected_at, detected_at)
    return ClassJudgement(truths, finds, scores, matching, detected_at)


@dataclass(frozen=True)
class FindOverlaps:
    """One class's finds and truths, drawn once and compared for any choice of ignored truths.

    Outlines are compared with outlines; a truth that has only a box, with the find's box.

    Attributes:
        boxes_xyxy: Found boxes, float64 (N, 4).
        true_boxes_xyxy: True boxes, float64 (M, 4).
        outlined: Which truths have an outline, bool (M,).
        patches: Found outlines, N of them, or none where no truth has an outline.
        true_patches: True outlines, one for each True in `outlined`.
        seam: Column at which the picture goes on at its first one; None where it does not.
    """

    boxes_xyxy: NDArray[np.float64]
    true_boxes_xyxy: NDArray[np.float64]
    outlined: NDArray[np.bool_]
    patches: tuple[Patch, ...]
    true_patches: tuple[Patch, ...]
    seam: int | None = None

    @classmethod
    def of(
        cls,
        truth: PictureTruth,
        truths: Sequence[TruthObject],
        detections: Detections,
        spec: ClassSpec,
        mask_threshold: float,
    ) -> FindOverlaps:
        """Draw the finds (all of one class) and truths of a picture."""
        outlined = np.array([t.has_mask for t in truths], dtype=bool)
        drawn = range(len(detections.scores)) if outlined.any() else range(0)
        seam, width = truth.seam, truth.image.width
        boxes: NDArray[np.float64] = np.asarray(detections.boxes_xyxy, dtype=np.float64).reshape(
            -1, 4
        )
        if seam is not None:
            from anonymization.panorama.wrapping import canonical

            boxes, detections = on_circle(boxes, seam), canonical(detections, seam, seam)
            width = 2 * seam
        patches = (
            find_patch(
                detections,
                index,
                spec,
                height=truth.image.height,
                width=width,
                mask_threshold=mask_threshold,
            )
            for index in drawn
        )
        return cls(
            boxes,
            np.array([t.box_xyxy for t in truths], dtype=np.float64).reshape(-1, 4),
            outlined,
            tuple(patches if seam is None else (patch.within_turn(seam) for patch in patches)),
            tuple(t.patch for t in truths if t.has_mask),
            seam,
        )

    def given(self, ignored: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the overlaps, float64 (N, M), with COCO's crowd overlap for ignored truths."""
        overlaps = box_iou(self.boxes_xyxy, self.true_boxes_xyxy, ignored, seam=self.seam)
        if self.patches:
            overlaps[:, self.outlined] = mask_iou(
                self.patches, self.true_patches, ignored[self.outlined], seam=self.seam
            )
        return overlaps


def find_patch(
    detections: Detections,
    index: int,
    spec: ClassSpec,
    *,
    height: int,
    width: int,
    mask_threshold: float = MASK_THRESHOLD,
) -> Patch:
    """Return the found outline itself, without margin and feather; its box where it has none."""
    from anonymization.obscuring.shapes import region

    plain = dataclasses.replace(spec, shape="outline", margin=0.0, feather=0.0)
    found = region(
        detections, index, plain, height=height, width=width, mask_threshold=mask_threshold
    )
    return Patch(int(found.x0), int(found.y0), np.asarray(found.full))


def covered_thresholds(
    truth: PictureTruth,
    detections: Detections,
    taxonomy: Taxonomy,
    name: str,
    *,
    thresholds: Mapping[str, float] | None = None,
    mask_threshold: float = MASK_THRESHOLD,
) -> NDArray[np.float64]:
    """Return the highest threshold of a class at which each of its counted truths is covered.

    Args:
        truth: The picture's truth.
        detections: All finds, down to the lowest score of interest.
        taxonomy: With the margins to try.
        name: The class.
        thresholds: Thresholds of the other classes, whose regions hide objects too; None to
            judge the class by its own finds alone.
        mask_threshold: Least probability of a pixel of an outline.

    Returns:
        float64, one for each counted truth of the class, in order; inf where other classes cover
        it, -inf where nothing does.
    """
    patches = [t.patch for t in truth.of_class(name) if t.counted]
    if not patches:
        return np.zeros(0)
    draw: dict[str, Any] = {
        "height": truth.image.height,
        "width": truth.image.width,
        "mask_threshold": mask_threshold,
    }
    if truth.panorama is not None:
        from anonymization.obscuring.shapes import growths
        from anonymization.panorama.wrapping import with_copies, with_grown_copies

        width, turn = truth.panorama.width, truth.panorama.turn
        drawn, owners = with_copies(detections, width, turn)
        growth = growths(drawn, taxonomy)
        detections, _, _ = with_grown_copies(drawn, owners, growth, width, turn)
    ids = np.asarray(detections.class_ids)
    scores = np.asarray(detections.scores, dtype=np.float64)
    base = None
    if thresholds is not None:
        limits = np.array([thresholds[other] for other in taxonomy.names])[ids]
        others = np.flatnonzero((ids != taxonomy.class_id(name)) & (scores >= limits))
        hiding = regions_of(detections, taxonomy, indices=others.tolist(), **draw)
        base = covers_of(patches, unrolled(hiding, truth.seam))
    own = np.flatnonzero(ids == taxonomy.class_id(name))
    own = own[np.argsort(-scores[own], kind="stable")]
    regions = (region_of(detections, int(i), taxonomy, **draw) for i in own)
    if truth.seam is not None:
        own = np.repeat(own, 2)
    return covered_at(patches, unrolled(regions, truth.seam), scores[own], base=base)
