"""What the shipped anonymizer did on val, class by class: the input of calibration.

Detection runs once, at a low score; every threshold is then a look-up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from anonymization.taxonomy import Taxonomy
from evaluation.judging import ClassJudgement, covered_thresholds, judge
from evaluation.matching import RIGHT, WRONG
from evaluation.truth import PictureTruth
from training.bundle.calibration import ClassEvidence, Floats

if TYPE_CHECKING:
    from anonymization.detection.finds import Detections


@dataclass
class _Gathered:
    """Evidence of one class as it grows, picture by picture."""

    detected_at: list[Floats] = field(default_factory=list)
    covered_at: list[Floats] = field(default_factory=list)
    false_scores: list[Floats] = field(default_factory=list)
    true_scores: list[Floats] = field(default_factory=list)
    labelled_pictures: int = 0


def gather_evidence(
    truths: Sequence[PictureTruth],
    finds: Mapping[str, Detections],
    taxonomy: Taxonomy,
    *,
    margins: Sequence[float],
    mask_threshold: float,
) -> dict[str, ClassEvidence]:
    """Match and cover every picture of val at every threshold and margin.

    Args:
        truths: Truth per picture.
        finds: Finds per picture SHA-256, at the lowest score that calibration may choose.
        taxonomy: Classes; their own margins are not used.
        margins: Margins to try, ascending.
        mask_threshold: Least probability of a pixel of an outline.

    Returns:
        Evidence per class of the taxonomy. Coverage counts regions of an object's own class
        only, which is less than what other classes hide besides.
    """
    gathered = {name: _Gathered() for name in taxonomy.names}
    grown = [with_margins(taxonomy, dict.fromkeys(taxonomy.names, m)) for m in margins]
    for truth in truths:
        found = finds[truth.image.sha256]
        judged = judge(truth, found, taxonomy, mask_threshold=mask_threshold)
        for name, judgement in judged.items():
            rows = [
                covered_thresholds(truth, found, wider, name, mask_threshold=mask_threshold)
                for wider in grown
            ]
            _add(gathered[name], judgement, np.stack(rows), name in truth.image.labelled)
    return {name: _evidence(gathered[name], margins) for name in taxonomy.names}


def _add(gathered: _Gathered, judged: ClassJudgement, covered: Floats, labelled: bool) -> None:
    gathered.detected_at.append(judged.matching.detected_at[judged.counted])
    gathered.covered_at.append(covered)
    gathered.labelled_pictures += labelled
    gathered.false_scores.append(judged.scores[judged.matching.find_state == WRONG])
    if labelled:  # as evaluation measures precision
        gathered.true_scores.append(judged.scores[judged.matching.find_state == RIGHT])


def _evidence(gathered: _Gathered, margins: Sequence[float]) -> ClassEvidence:
    return ClassEvidence(
        detected_at=np.concatenate(gathered.detected_at),
        covered_at=np.concatenate(gathered.covered_at, axis=1),
        margins=np.asarray(margins, dtype=np.float64),
        false_scores=np.concatenate(gathered.false_scores),
        true_scores=np.concatenate([np.zeros(0), *gathered.true_scores]),
        labelled_pictures=gathered.labelled_pictures,
    )


def with_margins(taxonomy: Taxonomy, margins: Mapping[str, float]) -> Taxonomy:
    """Return the taxonomy with other margins for some classes."""
    classes = {
        name: replace(spec, margin=margins.get(name, spec.margin))
        for name, spec in taxonomy.classes.items()
    }
    return replace(taxonomy, classes=classes)
