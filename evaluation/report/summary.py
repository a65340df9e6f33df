"""The numbers of an evaluation from what its pictures showed: reports/evaluation.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anonymization.panorama.projection import Equirectangular
from anonymization.taxonomy import Taxonomy
from data.coco import Dataset
from evaluation.average_precision import average_precision
from evaluation.bound import CONFIDENCE, effective_clusters
from evaluation.matching import WRONG
from evaluation.measures.calibration import calibration_error, reliability
from evaluation.measures.causes import miss_causes
from evaluation.measures.confusion import confusion_matrix
from evaluation.measures.slices import slice_table, slice_values
from evaluation.measures.tracks import track_table, tracks_of
from evaluation.measures.utility import utility_kept
from evaluation.panoramas import joined_dataset
from evaluation.recall import (
    coverage_curve,
    false_finds_per_picture,
    non_object_share_obscured,
    precision,
    precision_recall_curve,
    recall,
    size_bins,
    thinned,
)
from evaluation.report.pictures import PictureResult
from evaluation.report.rows import FindRow, ObjectRow

SENSES = ("detected", "covered")


def summarize(
    results: Sequence[PictureResult],
    taxonomy: Taxonomy,
    *,
    size_edges: Sequence[float],
    confidence: float = CONFIDENCE,
    seed: int = 0,
    dataset: Dataset | None = None,
    slices: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the metrics of an evaluation, plain types.

    Args:
        results: One for each picture.
        taxonomy: The classes.
        size_edges: Edges of the size bins as multiples of a class's identifiable line.
        confidence: One-sided, of the bounds.
        seed: Of the bootstrap.
        dataset: The judged pictures and labels, which slices and tracks need; None without them.
        slices: Fields of the manifest to slice by.
    """
    pictures = [result.picture for result in results]
    finds = [find for result in results for find in result.finds]
    failed = [row for result in results for row in result.written_failed]
    rows = [row for result in results for row in result.objects]
    panoramas = {picture.sha256: picture.panorama for picture in pictures}
    asked = _Asked(tuple(slices), tuple(size_edges), confidence, seed)
    return {
        "pictures": len(results),
        "classes": {
            name: _of_class(
                results, taxonomy, name, size_edges=size_edges, confidence=confidence, seed=seed
            )
            for name in taxonomy.names
        },
        "false_finds_per_picture": false_finds_per_picture(
            finds, pictures, taxonomy.names, taxonomy.gated
        ),
        "non_object_share_obscured": non_object_share_obscured(pictures),
        "utility_kept": utility_kept(picture.kept for picture in pictures),
        "written_output_verified": {
            "pictures": sum(bool(result.objects) for result in results),
            "failed": [*(_failed(row) for row in failed), *_failed_thumbnails(results)],
            **_thumbnails(results),
        },
        "confusion": confusion_matrix(rows, finds, pictures, taxonomy.names),
        **(
            {}
            if dataset is None
            else _by_slice_and_track(rows, dataset, taxonomy, asked, panoramas)
        ),
    }


@dataclass(frozen=True)
class _Asked:
    """How slices and tracks are measured."""

    fields: tuple[str, ...]
    size_edges: tuple[float, ...]
    confidence: float
    seed: int


def _by_slice_and_track(
    rows: Sequence[ObjectRow],
    dataset: Dataset,
    taxonomy: Taxonomy,
    asked: _Asked,
    panoramas: Mapping[str, Equirectangular | None],
) -> dict[str, Any]:
    dataset = joined_dataset(dataset, panoramas)
    values = slice_values(dataset, taxonomy, asked.fields, asked.size_edges, panoramas)
    how: dict[str, Any] = {"confidence": asked.confidence, "seed": asked.seed}
    return {
        "slices": slice_table(rows, values, **how),
        "tracks": track_table(tracks_of(rows, dataset), **how),
    }


def _failed(row: ObjectRow) -> dict[str, Any]:
    return {
        "sha256": row.sha256,
        "annotation_id": row.annotation_id,
        "class": row.class_name,
        "share": row.share,
        "written_share": row.written_share,
    }


def _thumbnails(results: Sequence[PictureResult]) -> dict[str, int]:
    """Return how many embedded thumbnails were looked at; nothing where no file has one."""
    checked = sum(result.thumbnail is not None for result in results)
    return {"thumbnails": checked} if checked else {}


def _failed_thumbnails(results: Sequence[PictureResult]) -> list[dict[str, Any]]:
    """Name the written files whose embedded thumbnail shows another picture."""
    bad = [result.picture.sha256 for result in results if result.thumbnail is False]
    return [{"sha256": sha256, "part": "thumbnail"} for sha256 in bad]


def _of_class(
    results: Sequence[PictureResult],
    taxonomy: Taxonomy,
    name: str,
    *,
    size_edges: Sequence[float],
    confidence: float,
    seed: int,
) -> dict[str, Any]:
    rows = [row for result in results for row in result.objects if row.class_name == name]
    complete = [result for result in results if name in result.picture.labelled]
    finds = _finds(complete, name, shipped=True)
    at_all_scores = _finds(complete, name, shipped=False)
    counted_complete = sum(
        row.counted for result in complete for row in result.objects if row.class_name == name
    )
    line = taxonomy[name].identifiable_px
    counted = [row for row in rows if row.counted]
    in_clusters = Counter(row.cluster for row in counted)
    reliable = reliability(at_all_scores)
    return {
        **{sense: recall(rows, sense, confidence=confidence, seed=seed) for sense in SENSES},
        "pictures": len({row.sha256 for row in counted}),
        "clusters": len(in_clusters),
        "effective_clusters": round(effective_clusters([*in_clusters.values()]), 6),
        "labelled_pictures": len(complete),
        "not_counted": len(rows) - len(counted),
        "precision": precision(finds),
        **average_precision(rows, at_all_scores, [r.picture for r in complete], name),
        "finds": len(finds),
        "false_finds": sum(find.state == WRONG for find in finds),
        "miss_causes": miss_causes(
            rows,
            [find for result in results for find in result.all_finds],
            {result.picture.sha256: result.picture.panorama for result in results},
        ),
        "size_bins": size_bins(rows, [edge * line for edge in size_edges], line),
        "coverage_curve": coverage_curve(rows),
        "calibration": {"ece": calibration_error(reliable), "bins": reliable},
        "curve": thinned(precision_recall_curve(at_all_scores, counted_complete)),
    }


def _finds(results: Sequence[PictureResult], name: str, *, shipped: bool) -> list[FindRow]:
    return [
        find
        for result in results
        for find in (result.finds if shipped else result.all_finds)
        if find.class_name == name
    ]


def metrics_to_log(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the numbers for MLflow, named as `recall/face/covered`."""
    metrics: dict[str, float | None] = {
        "false_finds_per_picture": summary["false_finds_per_picture"]["value"],
        "non_object_share_obscured": summary["non_object_share_obscured"]["value"],
        "utility_kept/unchanged_share": summary["utility_kept"]["unchanged"],
        "utility_kept/psnr_db": summary["utility_kept"]["psnr_db"],
        "written_output_failed": len(summary["written_output_verified"]["failed"]),
    }
    for name, values in summary["classes"].items():
        for sense in SENSES:
            metrics[f"recall/{name}/{sense}"] = values[sense]["recall"]
            bound = values[sense]["lower_bound"]
            metrics[f"bound/{name}/{sense}"] = None if bound is None else bound["bound"]
        for key in ("precision", "ap", "ap50", "ar"):
            metrics[f"{key}/{name}"] = values[key]
        metrics[f"ece/{name}"] = values["calibration"]["ece"]
        metrics[f"objects/{name}"] = values["detected"]["total"]
    for row in summary.get("tracks", []):
        metrics[f"track_recall/{row['class']}"] = row["recall"]
        metrics[f"longest_leak_frames/{row['class']}"] = row["longest_leak_frames"]
    return metrics
