"""Step 6, evaluation: the bundle judged on the reference set as an operator would get it.

Reads artifacts/bundle and artifacts/prepared/reference.json (val.json inside an experiment), and
the pictures under artifacts/collected. Writes reports/evaluation.json and artifacts/evaluated:
objects.json (true objects that count, and beside them those that do not), detections.json,
report.html, report_local.html (pictures as they are) and gallery.json
(the pictures of the former), curves.json.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from anonymization.taxonomy import Taxonomy
from conf import stage
from data.tracking.store import TrackingConfig
from evaluation.config import EvaluationConfig

if TYPE_CHECKING:
    from pathlib import Path

    from anonymization.bundle import Bundle
    from anonymization.formats.picture import Picture
    from data.coco import Dataset, Image
    from data.tracking.runs import StageRun
    from evaluation.report.pictures import PictureResult

SCHEMA_VERSION = 1

log = logging.getLogger(__name__)


@stage
def main(
    evaluation: EvaluationConfig, taxonomy: Taxonomy, tracking: TrackingConfig, seed: int
) -> None:
    """Judge the bundle and write what came out."""
    from anonymization.bundle import Bundle
    from anonymization.files import sha256_of_file, write_json_rows
    from data.coco import Dataset
    from data.layout import BUNDLE, PREPARED, REPORTS
    from data.tracking.runs import stage_run
    from data.tracking.store import experiment_name
    from evaluation.measures.curves import without_curves
    from evaluation.truth import check_reference, read_groups

    split = "val" if experiment_name() else "reference"
    path = PREPARED / f"{split}.json"
    dataset = Dataset.read(path, taxonomy)
    check_reference(dataset, split)
    bundle = Bundle.load(BUNDLE)
    check_classes(bundle, taxonomy)
    inputs = {split: sha256_of_file(path), "bundle": bundle.card.digest}
    with stage_run("evaluation", tracking, params=asdict(evaluation), inputs=inputs) as run:
        found = evaluate(bundle, dataset, taxonomy, evaluation, seed=seed, groups=read_groups())
        results = list(found)
        summary = _provenance(bundle, dataset, taxonomy, split, run)
        summary["confidence"] = evaluation.confidence
        summary["slicings"] = ["size", "occlusion", "latitude", *evaluation.slices]
        summary |= summarized(results, taxonomy, evaluation, seed, dataset)
        _write_artifacts(results, summary, dataset, taxonomy, evaluation)
        write_json_rows(REPORTS / "evaluation.json", without_curves(summary))
        _log(run, summary, evaluation)
    sys.stdout.write("\n".join(headline(summary)) + "\n")


def check_classes(bundle: Bundle, taxonomy: Taxonomy) -> None:
    """Refuse a bundle that finds other classes than the truth has.

    Raises:
        EvaluationError: If names or their order differ.
    """
    from evaluation.report.pictures import EvaluationError

    found = bundle.card.taxonomy.names
    if found != taxonomy.names:
        raise EvaluationError(
            f"the bundle finds {', '.join(found)}; the taxonomy has {', '.join(taxonomy.names)}. "
            "Make the bundle again (dvc repro)"
        )


def evaluate(
    bundle: Bundle,
    dataset: Dataset,
    taxonomy: Taxonomy,
    config: EvaluationConfig,
    *,
    seed: int,
    groups: Mapping[str, str],
) -> Iterator[PictureResult]:
    """Yield what each picture shows, the anonymizer's own detection and obscuring at work.

    `groups` names the group of near-duplicates by SHA-256: one cluster of the bounds each.
    """
    from anonymization.detection.detector import Detector
    from data.layout import PICTURES
    from evaluation.measures.thumbnails import shows_written
    from evaluation.panoramas import as_panorama, projection_of_image
    from evaluation.report.pictures import is_rgb, judge_picture, rewritten_as
    from evaluation.truth import truth_of

    detector = Detector.from_bundle(bundle)
    # No lower than the card: a threshold below would ship finds that were never looked for.
    lowest = min(config.score_min, *bundle.card.thresholds.values(), bundle.card.head.threshold)
    for image in _with_progress(dataset.images):
        path = PICTURES / image.file_name
        picture = read_labelled(path, image)
        chosen = projection_of_image(image, picture.xmp)
        if chosen.warning:
            log.warning("picture %s: %s", image.sha256, chosen.warning)
        panorama = as_panorama(chosen)
        cluster = groups.get(image.sha256)
        labels = dataset.by_image[image.id]
        truth = truth_of(image, labels, taxonomy, panorama, cluster=cluster)
        raw = detector.detect(picture.pixels, score_min=lowest, projection=chosen.projection)
        yield judge_picture(
            truth,
            raw,
            bundle.card,
            taxonomy,
            rewrite=rewritten_as(picture),
            pixels=picture.pixels if is_rgb(picture) else None,
            thumbnail=shows_written(picture, path.read_bytes(), seed=seed),
            seed=seed,
        )


def read_labelled(path: Path, image: Image) -> Picture:
    """Read a picture of the reference set.

    Raises:
        EvaluationError: If the file is not the picture that was labelled.
    """
    from anonymization.files import sha256_of_file
    from anonymization.formats.picture import read_picture
    from evaluation.report.pictures import EvaluationError

    if not path.is_file() or sha256_of_file(path) != image.sha256:
        raise EvaluationError(
            f"picture {path} is missing or no longer the one that was labelled; "
            "collect it again (dvc repro collection)"
        )
    picture = read_picture(path)
    if (picture.width, picture.height) != (image.width, image.height):
        raise EvaluationError(
            f"picture {path} is {picture.width}x{picture.height}; its labels are for "
            f"{image.width}x{image.height}. Correct the labels"
        )
    return picture


def _with_progress(images: Sequence[Any]) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(
        images, description="evaluation", console=console, disable=not console.is_terminal
    )


def summarized(
    results: Sequence[PictureResult],
    taxonomy: Taxonomy,
    config: EvaluationConfig,
    seed: int,
    dataset: Dataset | None = None,
) -> dict[str, Any]:
    """Return the metrics at the section's settings."""
    from evaluation.report.summary import summarize

    return summarize(
        results,
        taxonomy,
        size_edges=config.size_edges,
        confidence=config.confidence,
        seed=seed,
        dataset=dataset,
        slices=config.slices,
    )


def _provenance(
    bundle: Bundle, dataset: Dataset, taxonomy: Taxonomy, split: str, run: StageRun
) -> dict[str, Any]:
    from data.tracking.revisions import git_revision

    return {
        "schema_version": SCHEMA_VERSION,
        "split": split,
        "bundle_digest": bundle.card.digest,
        "variant": bundle.card.variant,
        "reference_digest": dataset.digest(taxonomy),
        "code_revision": git_revision(),
        "thresholds": dict(bundle.card.thresholds),
        "taxonomy_gated": list(taxonomy.gated),
        "run_id": run.run_id,
    }


def _write_artifacts(
    results: Sequence[PictureResult],
    summary: dict[str, Any],
    dataset: Dataset,
    taxonomy: Taxonomy,
    config: EvaluationConfig,
) -> None:
    from anonymization.files import folder_in_one_step, sha256_of_file, write_json
    from data.layout import EVALUATED, PICTURES
    from data.tracking.revisions import loaded_code
    from evaluation.measures.curves import CURVES, curve_rows
    from evaluation.report.gallery import Album
    from evaluation.report.page import write_report

    binding = {key: summary[key] for key in ("split", "bundle_digest", "reference_digest")}
    head = {"schema_version": SCHEMA_VERSION, **binding}
    with folder_in_one_step(EVALUATED) as folder:
        rows = [row for result in results for row in result.objects]
        objects = {
            "objects": [row.to_dict() for row in rows if row.counted],
            "not_counted": [row.to_dict() for row in rows if not row.counted],
        }
        finds = [row.to_dict() for result in results for row in result.finds]
        write_json(folder / "objects.json", {**head, **objects}, indent=None)
        summary["objects_sha256"] = sha256_of_file(folder / "objects.json")
        write_json(folder / "detections.json", {**head, "detections": finds}, indent=None)
        write_json(folder / CURVES, curve_rows(summary), indent=None)
        shipped = [find for result in results for find in result.finds]
        write_report(
            folder,
            summary,
            rows,
            shipped,
            Album(dataset, taxonomy, PICTURES),
            most=config.misses_max,
            publish_raw=config.publish_raw,
        )
    # A list: `dvc metrics diff` would take a mapping for metrics.
    summary["code_files"] = [f"{digest}  {path}" for path, digest in loaded_code().items()]


def _log(run: StageRun, summary: dict[str, Any], config: EvaluationConfig) -> None:
    from data.layout import EVALUATED, REPORTS
    from evaluation.headline import record_headline
    from evaluation.report.summary import metrics_to_log

    run.log_metrics(metrics_to_log(summary))
    record_headline(run.client, run.parent_id, summary)
    run.log_artifact(REPORTS / "evaluation.json")
    if config.publish_raw:
        log.warning("evaluation.publish_raw is set: the report in MLflow shows people as they are")
    run.log_artifact(EVALUATED / "report.html", obscured=True)


def headline(summary: dict[str, Any]) -> list[str]:
    """Return one line for each class: recalls, bounds and counts."""
    lines = [f"{summary['split']}: {summary['pictures']} pictures"]
    for name, values in summary["classes"].items():
        parts = []
        for sense in ("detected", "covered"):
            each = values[sense]
            if each["recall"] is None:
                parts.append(f"{sense} not measured")
                continue
            bound = each["lower_bound"]["bound"]
            parts.append(
                f"{sense} {each['recall']:.4f} ({each['recalled']}/{each['total']}, "
                f"bound {bound:.4f})"
            )
        lines.append(f"  {name}: {', '.join(parts)}, {values['clusters']} clusters")
    return lines


if __name__ == "__main__":
    main()
