"""Step 7: data quality, and the queue of what to annotate again or collect next.

Reads `artifacts/prepared`, the collected pictures and, where there is one, `reports/
evaluation.json`; writes `reports/validation.json`, `reports/queue.json` and
`artifacts/validated/sizes.json`. A leak into the reference set blocks the verdict.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from anonymization.errors import BlurloopError
from anonymization.files import folder_in_one_step, read_json, sha256_of_file, write_json
from anonymization.taxonomy import Taxonomy
from conf import stage
from data.coco import Dataset
from data.findings import (
    FAILS,
    WARNS,
    Finding,
    identifiable_sizes,
    leaks,
    size_gaps,
    suspicious_labels,
    thin_classes,
)
from data.grouping import perceptual_hashes
from data.layout import PICTURES, PREPARED, REPORTS, SPLITS, VALIDATED
from data.preparation import PreparationConfig

SCHEMA_VERSION = 1
EDGES_PX = (0, 8, 12, 16, 20, 24, 32, 40, 56, 80, 112, 160, 224, 320, 448, 640, 100000)
"""Bins of sizes in the detail, about half an octave each; they hold the identifiable limits."""
log = logging.getLogger(__name__)


class ValidationError(BlurloopError):
    """The validation cannot go on."""


@dataclass(frozen=True)
class ValidationConfig:
    """Limits beyond which data quality is worth a finding.

    Attributes:
        objects_min: Smallest number of identifiable objects of each class, per split.
        outside_max: Largest share of reference objects outside the sizes seen in training.
        ks_max: Largest Kolmogorov-Smirnov distance between both sizes, where significant.
        recall_min: Classes that evaluation found below it are asked for in the queue.
    """

    objects_min: dict[str, int] = field(
        default_factory=lambda: {"train": 100, "val": 30, "reference": 100}
    )
    outside_max: float = 0.02
    ks_max: float = 0.2
    recall_min: float = 0.95

    def __post_init__(self) -> None:
        unknown = set(self.objects_min) - set(SPLITS)
        if unknown:
            raise ValidationError(
                f"validation.objects_min names {sorted(unknown)}; expected {', '.join(SPLITS)}"
            )


def find(
    splits: Mapping[str, Dataset],
    hashes: Mapping[str, str],
    taxonomy: Taxonomy,
    config: ValidationConfig,
    *,
    distance_max: int,
) -> list[Finding]:
    """Run every check."""
    found = leaks(splits, hashes, distance_max=distance_max)
    found += thin_classes(splits, taxonomy, config.objects_min)
    found += size_gaps(
        splits["train"],
        splits["reference"],
        taxonomy,
        outside_max=config.outside_max,
        ks_max=config.ks_max,
    )
    for split, dataset in splits.items():
        doubts = suspicious_labels(dataset)
        if doubts:
            message = f"{len(doubts)} pictures of {split} have labels that look wrong"
            evidence = {"split": split, "pictures": dict(sorted(doubts.items())[:50])}
            found.append(Finding("bad_label", WARNS, message, evidence))
    return found


def queue(
    splits: Mapping[str, Dataset],
    findings: list[Finding],
    evaluation: Mapping[str, Any] | None,
    config: ValidationConfig,
) -> dict[str, Any]:
    """Return what the next turn should annotate again or collect; never a reference picture."""
    judged = {image.sha256 for image in splits["reference"].images}
    again = []
    for split in ("train", "val"):
        doubts = suspicious_labels(splits[split])
        again += [
            {"sha256": i.sha256, "origin": i.fields.get("origin"), "reasons": doubts[i.sha256]}
            for i in splits[split].images
            if i.sha256 in doubts and i.sha256 not in judged
        ]
    wanted = [
        {"class": f.evidence["class"], "reason": f.message}
        for f in findings
        if f.kind in ("thin_class", "size_gap")
    ]
    for name, figures in ((evaluation or {}).get("classes") or {}).items():
        recall = (figures.get("detected") or {}).get("recall")
        if recall is not None and recall < config.recall_min:
            reason = f"recall {recall:.3f} is below {config.recall_min}"
            wanted.append({"class": name, "reason": reason})
    return {"schema_version": SCHEMA_VERSION, "reannotate": again, "collect": wanted}


def report(findings: list[Finding], digests: Mapping[str, str]) -> dict[str, Any]:
    """Return `reports/validation.json`; `digests` say which splits were looked at."""
    return {
        "schema_version": SCHEMA_VERSION,
        "data_sha256": dict(digests),
        "verdict_blocking": any(f.severity == FAILS for f in findings),
        "counts": dict(sorted(Counter(f.kind for f in findings).items())),
        "leaks": [f.message for f in findings if f.kind == "leak" and f.severity == FAILS],
        "findings": [asdict(f) for f in findings],
    }


def sizes(splits: Mapping[str, Dataset], taxonomy: Taxonomy) -> dict[str, Any]:
    """Return histograms of object sizes per split and class."""
    return {
        "schema_version": SCHEMA_VERSION,
        "edges_px": list(EDGES_PX),
        "counts": {
            split: {
                name: np.histogram(values, EDGES_PX)[0].tolist()
                for name, values in identifiable_sizes(dataset, taxonomy).items()
            }
            for split, dataset in splits.items()
        },
    }


@stage
def main(validation: ValidationConfig, preparation: PreparationConfig, taxonomy: Taxonomy) -> None:
    """Validate the prepared data."""
    splits = {split: Dataset.read(PREPARED / f"{split}.json", taxonomy) for split in SPLITS}
    pictures = {i.sha256: PICTURES / i.file_name for d in splits.values() for i in d.images}
    findings = find(
        splits,
        perceptual_hashes(pictures),
        taxonomy,
        validation,
        distance_max=preparation.near_duplicate_bits,
    )
    path = REPORTS / "evaluation.json"
    evaluation = read_json(path) if path.exists() else None
    with folder_in_one_step(VALIDATED) as work:
        write_json(work / "sizes.json", sizes(splits, taxonomy))
    write_json(REPORTS / "queue.json", queue(splits, findings, evaluation, validation))
    digests = {split: sha256_of_file(PREPARED / f"{split}.json") for split in SPLITS}
    write_json(REPORTS / "validation.json", report(findings, digests))
    for finding in findings:
        log.warning("%s (%s): %s", finding.kind, finding.severity, finding.message)


if __name__ == "__main__":
    main()
