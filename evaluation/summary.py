"""The numbers of an evaluation from what its pictures showed: reports/evaluation.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anonymization.taxonomy import Taxonomy
from evaluation.bound import CONFIDENCE
from evaluation.matching import WRONG
from evaluation.metrics import (
    average_precision,
    false_finds_per_picture,
    non_object_share_obscured,
    precision,
    precision_recall_curve,
    recall,
    size_bins,
    thinned,
)
from evaluation.pictures import PictureResult
from evaluation.rows import FindRow, ObjectRow

SENSES = ("detected", "covered")


def summarize(
    results: Sequence[PictureResult],
    taxonomy: Taxonomy,
    *,
    size_edges: Sequence[float],
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the metrics of an evaluation, plain types.

    Args:
        results: One for each picture.
        taxonomy: The classes.
        size_edges: Edges of the size bins as multiples of a class's identifiable line.
        confidence: One-sided, of the bounds.
        seed: Of the bootstrap.
    """
    pictures = [result.picture for result in results]
    finds = [find for result in results for find in result.finds]
    failed = [row for result in results for row in result.written_failed]
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
        "written_output_verified": {
            "pictures": sum(bool(result.objects) for result in results),
            "failed": [_failed(row) for row in failed],
        },
    }


def _failed(row: ObjectRow) -> dict[str, Any]:
    return {
        "sha256": row.sha256,
        "annotation_id": row.annotation_id,
        "class": row.class_name,
        "share": row.share,
        "written_share": row.written_share,
    }


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
    return {
        **{sense: recall(rows, sense, confidence=confidence, seed=seed) for sense in SENSES},
        "pictures": len({row.sha256 for row in counted}),
        "clusters": len({row.cluster for row in counted}),
        "labelled_pictures": len(complete),
        "not_counted": len(rows) - len(counted),
        "precision": precision(finds),
        **average_precision(rows, at_all_scores, [r.picture for r in complete], name),
        "finds": len(finds),
        "false_finds": sum(find.state == WRONG for find in finds),
        "size_bins": size_bins(rows, [edge * line for edge in size_edges], line),
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
        "written_output_failed": len(summary["written_output_verified"]["failed"]),
    }
    for name, values in summary["classes"].items():
        for sense in SENSES:
            metrics[f"recall/{name}/{sense}"] = values[sense]["recall"]
            bound = values[sense]["lower_bound"]
            metrics[f"bound/{name}/{sense}"] = None if bound is None else bound["bound"]
        for key in ("precision", "ap", "ap50", "ar"):
            metrics[f"{key}/{name}"] = values[key]
        metrics[f"objects/{name}"] = values["detected"]["total"]
    return metrics
