"""Which training pictures a bundle still fails on: `python -m training.mining`.

Reads `artifacts/bundle`, `artifacts/prepared/train.json` and, where there is one, `reports/
queue.json`; writes `artifacts/hard.json`, which the next training shows more often where
`training.<network>.loading.hard` names it. Mistakes are counted with the anonymizer's own detection
at the shipped thresholds. Pictures whose labels validation doubts are left out, as the mistake may
be the label's; reference pictures are never looked at.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anonymization.files import read_json, sha256_of_file, write_json
from anonymization.taxonomy import Taxonomy
from conf import stage
from data.layout import ARTIFACTS, BUNDLE, PICTURES, PREPARED, REPORTS
from training.pictures.sampling import HARD_SCHEMA_VERSION

if TYPE_CHECKING:
    from anonymization.detection.finds import Detections
    from evaluation.truth import PictureTruth

HARD = ARTIFACTS / "hard.json"

log = logging.getLogger(__name__)


def mistakes(
    truth: PictureTruth, found: Detections, taxonomy: Taxonomy, *, mask_threshold: float
) -> dict[str, int]:
    """Count what an operator would get wrong in one picture.

    Args:
        truth: The picture's labels; a class that is not labelled counts nothing.
        found: Finds at the shipped thresholds.
        taxonomy: The classes.
        mask_threshold: Least probability of a pixel of an outline.

    Returns:
        `missed`: identifiable objects without a find; `false`: finds that are certainly wrong.
    """
    from evaluation.judging import judge
    from evaluation.matching import WRONG

    judged = judge(truth, found, taxonomy, mask_threshold=mask_threshold).values()
    missed = sum(int(np.isneginf(j.detected_at[j.counted]).sum()) for j in judged)
    false = sum(int((j.matching.find_state == WRONG).sum()) for j in judged)
    return {"missed": missed, "false": false}


def hard_pictures(
    counts: Mapping[str, Mapping[str, int]], doubted: frozenset[str]
) -> dict[str, dict[str, int]]:
    """Return the pictures with a mistake, without those whose labels are doubted.

    >>> hard_pictures({"a": {"missed": 0, "false": 0}, "b": {"missed": 1, "false": 0}}, frozenset())
    {'b': {'missed': 1, 'false': 0}}
    """
    return {
        sha256: dict(count)
        for sha256, count in sorted(counts.items())
        if any(count.values()) and sha256 not in doubted
    }


def doubted_pictures(path: Path) -> frozenset[str]:
    """Return the pictures that validation wants annotated again; none where it has not run."""
    if not path.is_file():
        return frozenset()
    queue: dict[str, Any] = read_json(path, schema_version=1)
    return frozenset(entry["sha256"] for entry in queue["reannotate"])


@stage
def main(taxonomy: Taxonomy) -> None:
    """Look at every training picture."""
    from tqdm import tqdm

    from anonymization.bundle import Bundle
    from anonymization.detection.detector import Detector
    from anonymization.formats.picture import read_picture
    from data.coco import Dataset
    from evaluation.truth import truth_of

    bundle = Bundle.load(BUNDLE)
    detector = Detector.from_bundle(bundle)
    train = Dataset.read(PREPARED / "train.json", taxonomy)
    counts = {}
    for image in tqdm(train.images, desc="mining", unit="picture", mininterval=5):
        found = detector.detect(read_picture(PICTURES / image.file_name).pixels)
        truth = truth_of(image, train.by_image[image.id], taxonomy)
        counts[image.sha256] = mistakes(
            truth, found, taxonomy, mask_threshold=bundle.card.mask_threshold
        )
    doubted = doubted_pictures(REPORTS / "queue.json")
    hard = hard_pictures(counts, doubted)
    write_json(
        HARD,
        {
            "schema_version": HARD_SCHEMA_VERSION,
            "bundle_digest": bundle.digest,
            "train_sha256": sha256_of_file(PREPARED / "train.json"),
            "pictures": hard,
        },
    )
    log.info(
        "%d of %d training pictures have a mistake (%d more have doubted labels): %s",
        len(hard),
        len(counts),
        sum(any(counts[sha256].values()) for sha256 in doubted if sha256 in counts),
        HARD,
    )


if __name__ == "__main__":
    main()
