"""A turn of the loop in a few numbers and words, for MLflow's lists, comparisons and model pages.

The runs of the stages below a turn hold everything; what people sort and compare is the turn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from evaluation.statement import Block, Bullets, Paragraph, Table, to_markdown

SENSES = ("detected", "covered")


def headline_metrics(evaluation: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the numbers that two turns are compared by, named as those of evaluation.

    `bound/lowest` is the lowest bound of all gated classes in both senses: what the gate asks for
    0.95, and what a list of turns is sorted by. None where one of them was not measured.

    Args:
        evaluation: Content of reports/evaluation.json.

    >>> sense = {"recalled": 9, "total": 10, "lower_bound": {"bound": 0.6}}
    >>> classes = {"face": {"detected": sense, "covered": sense}}
    >>> found = headline_metrics({"classes": classes, "taxonomy_gated": ["face"]})
    >>> found["recall/face/covered"], found["bound/lowest"], found["false_finds_per_picture"]
    (0.9, 0.6, None)
    """
    metrics = {
        name: _number((evaluation.get(name) or {}).get("value"))
        for name in ("false_finds_per_picture", "non_object_share_obscured")
    }
    kept = (evaluation.get("utility_kept") or {}).get("unchanged")
    metrics["utility_kept/unchanged_share"] = _number(kept)
    for name, values in (evaluation.get("classes") or {}).items():
        for sense in SENSES:
            recall, bound = _recall_and_bound(values.get(sense) or {})
            metrics |= {f"recall/{name}/{sense}": recall, f"bound/{name}/{sense}": bound}
    gated = evaluation.get("taxonomy_gated") or ()
    asked = [metrics.get(f"bound/{name}/{sense}") for name in gated for sense in SENSES]
    bounds = [bound for bound in asked if bound is not None]
    metrics["bound/lowest"] = min(bounds) if bounds and len(bounds) == len(asked) else None
    return metrics


def record_headline(client: Any, turn_id: str | None, evaluation: Mapping[str, Any]) -> None:
    """Record the numbers on the turn's own run: as soon as they are known, and with the verdict.

    Evaluation does not run where DVC has its result in the cache, and an experiment may end before
    the verdict.

    Args:
        client: MLflow's; None where tracking is off.
        turn_id: Id of the turn's run.
        evaluation: Content of reports/evaluation.json.
    """
    from data.tracking.runs import StageRun

    StageRun(client, turn_id, None).log_metrics(headline_metrics(evaluation))


def _recall_and_bound(values: Mapping[str, Any]) -> tuple[float | None, float | None]:
    recalled, total = _number(values.get("recalled")), _number(values.get("total"))
    recall = recalled / total if total and recalled is not None else None
    return recall, _number((values.get("lower_bound") or {}).get("bound"))


def _number(value: Any) -> float | None:
    """Return a finite number; None for anything else, which the gate has refused already."""
    known = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if known else None


def verdict_note(verdict: Mapping[str, Any]) -> str:
    """Return a verdict as Markdown: outcome, recalls with their bounds, and why it was refused.

    Args:
        verdict: What stands beside a bundle (`promotion.shipped_verdict`).
    """
    from evaluation.report.page import ratio

    rows = []
    for name, values in verdict["classes"].items():
        pairs = [_recall_and_bound(values.get(sense) or {}) for sense in SENSES]
        rows.append((name, *(ratio(number) for pair in pairs for number in pair)))
    said = (
        "A forecast, measured on val." if verdict["forecast"] else "Measured on the reference set."
    )
    blocks: list[Block] = [
        Paragraph(said, f"{verdict['outcome']}."),
        Table(("class", "detected", "bound", "covered", "bound"), tuple(rows)),
        *([Bullets(tuple(verdict["reasons"]))] if verdict["reasons"] else []),
        *(Paragraph(warning, "Warning:") for warning in verdict["warnings"]),
    ]
    return to_markdown(blocks)
