"""The report once more, with the verdict on top and the champion beside it.

Stage promotion writes it to artifacts/verdicts, since the output of evaluation must stay as DVC
hashed it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anonymization.files import read_json
from anonymization.taxonomy import Taxonomy
from data.layout import EVALUATED, PICTURES, PREPARED
from evaluation.comparison import LOST
from evaluation.measures.curves import CURVES, with_curves
from evaluation.measures.leaks import read_attack
from evaluation.report.gallery import Album, Shown, boxes_by_picture
from evaluation.report.page import GALLERY, render
from evaluation.report.rows import ObjectRow

LOST_MAX = 12


def write_page(
    path: Path,
    evaluation: Mapping[str, Any],
    verdict: Mapping[str, Any],
    taxonomy: Taxonomy,
    *,
    rows: Mapping[str, Any],
    comparison: Mapping[str, Any] | None,
) -> None:
    """Write the page of a verdict; without the pictures that evaluation left there is none.

    Args:
        path: Where to.
        evaluation: Content of reports/evaluation.json.
        verdict: Content of reports/promotion.json.
        taxonomy: The classes.
        rows: Content of artifacts/evaluated/objects.json.
        comparison: What `comparison.compare` found; None without a champion.
    """
    if not (EVALUATED / GALLERY).is_file():
        return
    album = read_json(EVALUATED / GALLERY)
    pictures = [Shown(**entry) for entry in album["pictures"]]
    if comparison is not None:
        pictures += _lost(comparison, rows, taxonomy, raw=album["raw"])
    page = render(
        with_curves(evaluation, read_json(EVALUATED / CURVES)),
        taxonomy,
        pictures,
        raw=album["raw"],
        verdict=verdict,
        comparison=comparison,
        attack=read_attack(taxonomy),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _lost(
    comparison: Mapping[str, Any], rows: Mapping[str, Any], taxonomy: Taxonomy, *, raw: bool
) -> list[Shown]:
    """Return pictures of objects that the champion recalled and this bundle misses."""
    from data.coco import Dataset

    lost = {
        (row["sha256"], row["annotation_id"])
        for row in comparison["objects"]
        if row["state"] == LOST
    }
    own = [row for row in rows.get("objects", []) if (row["sha256"], row["annotation_id"]) in lost]
    if not own:
        return []
    dataset = Dataset.read(PREPARED / "reference.json", taxonomy)
    finds = read_json(EVALUATED / "detections.json")["detections"]
    found = boxes_by_picture((find["sha256"], tuple(find["box_xyxy"])) for find in finds)
    album = Album(dataset, taxonomy, PICTURES, found)
    return [album.miss(_row(values), raw=raw, kind=LOST) for values in own[:LOST_MAX]]


def _row(values: Mapping[str, Any]) -> ObjectRow:
    own = {key: value for key, value in values.items() if key != "class"}
    x0, y0, x1, y1 = values["box_xyxy"]
    return ObjectRow(**own | {"class_name": values["class"], "box_xyxy": (x0, y0, x1, y1)})
