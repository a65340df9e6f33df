"""What calibration writes into a card: thresholds and margins chosen on val, and the evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from anonymization.files import read_json
from anonymization.taxonomy import Taxonomy
from data.layout import REPORTS
from evaluation.config import PromotionConfig
from training.bundle.config import BundleConfig

if TYPE_CHECKING:
    from anonymization.card import Card
    from anonymization.detection.finds import Detections
    from data.coco import Dataset
    from training.bundle.calibration import Choice, ClassEvidence, Goal


def calibrate(
    card: Card,
    val: Dataset,
    finds: Mapping[str, Detections],
    config: BundleConfig,
    promotion: PromotionConfig,
) -> Card:
    """Return the card with thresholds and margins chosen on val, and the evidence for them."""
    from dataclasses import replace

    from evaluation.truth import truth_of
    from training.bundle.calibration import choose, joint_worth
    from training.bundle.evidence import gather_evidence, with_margins

    taxonomy = card.taxonomy
    truths = [truth_of(i, val.by_image[i.id], taxonomy) for i in val.images]
    split = {
        source: {
            sha: found.select([i for i, s in enumerate(found.sources) if s == source])
            for sha, found in finds.items()
        }
        for source in ("mask_rcnn", "keypoint_rcnn")
    }
    limit = promotion.false_finds_per_picture_max * config.false_finds_share
    tried = {}
    for mask_threshold in config.mask_thresholds:
        evidence = gather_evidence(
            truths,
            split["mask_rcnn"],
            taxonomy,
            margins=config.margins,
            mask_threshold=mask_threshold,
        )
        goals = goals_of(evidence, config, promotion)
        found: dict[str, Choice] = {}
        # What is not gated costs the others nothing: the gate counts neither its recall nor its
        # false finds.
        for gated in (True, False):
            some = {n: e for n, e in evidence.items() if (n in taxonomy.gated) is gated}
            found |= choose(
                some,
                goals,
                false_finds_max=limit - config.head_false_finds_max,
                hopeless_precision=config.hopeless_precision,
            )
        tried[mask_threshold] = {name: found[name] for name in evidence}
    mask_threshold = max(
        tried,
        key=lambda threshold: joint_worth(
            {name: c for name, c in tried[threshold].items() if name in taxonomy.gated}
        ),
    )
    choices = tried[mask_threshold]
    heads = gather_evidence(
        truths, split["keypoint_rcnn"], taxonomy, margins=[0.0], mask_threshold=mask_threshold
    )
    margins = {name: choice.margin for name, choice in choices.items()}
    return replace(
        card,
        taxonomy=with_margins(taxonomy, margins),
        thresholds={name: choice.threshold for name, choice in choices.items()},
        head=replace(card.head, threshold=head_threshold(heads, taxonomy, config)),
        mask_threshold=mask_threshold,
        calibration={
            **_calibration(choices, goals, val, taxonomy),
            "mask_thresholds": {str(t): _stands(found) for t, found in tried.items()},
        },
    )


def _stands(choices: Mapping[str, Choice]) -> dict[str, float]:
    return {name: round(choice.likely, 4) for name, choice in choices.items()}


def goals_of(
    evidence: Mapping[str, ClassEvidence], config: BundleConfig, promotion: PromotionConfig
) -> dict[str, Goal]:
    """Return what each class must reach on the reference set that waits for it.

    Of the reference set only the number of its objects is read. A set too small to prove
    anything is treated as if it were just large enough: recall is not given up because of it.
    """
    from evaluation.bound import exact_lower
    from training.bundle.calibration import Goal, needed_recalls

    counts = read_json(REPORTS / "preparation.json")["splits"]["reference"]["identifiable"]

    def clears(recalled: int, total: int) -> bool:
        if promotion.confidence is None:
            return recalled / total >= promotion.recall_min
        bound = exact_lower(recalled, total, confidence=promotion.confidence)
        return bool(bound >= promotion.recall_min)

    goals = {}
    for name in evidence:
        objects = max(counts.get(name, 0), promotion.objects_min)
        goals[name] = Goal(
            reference_objects=objects,
            needed=needed_recalls(objects, clears=clears),
            likely=config.likely,
            threshold_min=config.threshold_min,
        )
    return goals


def head_threshold(
    evidence: Mapping[str, ClassEvidence], taxonomy: Taxonomy, config: BundleConfig
) -> float:
    """Return the lowest threshold at which head regions stay within their share of false finds.

    A head is a second signal beside the face class, so it can only add recall. Where no picture
    labels every face, nothing is known of its false finds, and 0.5 is taken.
    """
    import numpy as np

    if taxonomy.head_class is None or not evidence[taxonomy.head_class].labelled_pictures:
        return 0.5
    faces = evidence[taxonomy.head_class]
    allowed = int(config.head_false_finds_max * faces.labelled_pictures)
    scores = np.sort(faces.false_scores)[::-1]
    if len(scores) <= allowed:
        return config.threshold_min
    return float(min(np.ceil(scores[allowed] * 1000 + 1) / 1000, 1.0))


def _calibration(
    choices: Mapping[str, Choice], goals: Mapping[str, Goal], val: Dataset, taxonomy: Taxonomy
) -> dict[str, Any]:
    return {
        "split": "val",
        "pictures": len(val.images),
        "val_digest": val.digest(taxonomy),
        "short_of_goal": sorted(name for name, choice in choices.items() if not choice.reached),
        "classes": {
            name: {"goal": asdict(goals[name]), **_plain(choice)}
            for name, choice in choices.items()
        },
    }


def _plain(choice: Choice) -> dict[str, Any]:
    return {**asdict(choice), "curve": list(choice.curve)}
