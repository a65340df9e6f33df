"""The evaluation as one HTML page that needs no network and can be printed.

Evaluation writes it twice: `report.html` shows every true object obscured and may be published,
`report_local.html` shows pictures as they are and stays under artifacts/. Promotion writes it once
more, with the verdict on top and the comparison with the champion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from anonymization.files import write_json
from anonymization.taxonomy import Taxonomy
from evaluation.measures.unmeasured import not_measured
from evaluation.report.gallery import Album, Shown, boxes_by_picture, gallery
from evaluation.report.rows import FindRow, ObjectRow

TEMPLATES = Path(__file__).parent / "templates"
PUBLISHED, LOCAL, GALLERY = "report.html", "report_local.html", "gallery.json"


def write_report(
    folder: Path,
    summary: Mapping[str, Any],
    rows: Sequence[ObjectRow],
    finds: Sequence[FindRow],
    album: Album,
    *,
    most: int,
    publish_raw: bool = False,
) -> None:
    """Write `report.html`, `report_local.html` and `gallery.json`, the published pictures.

    Args:
        folder: Where to.
        summary: Content of reports/evaluation.json.
        rows: Every true object.
        finds: Finds that the shipped thresholds keep.
        album: The judged pictures.
        most: Misses, and false finds, to show.
        publish_raw: Whether the published page shows them as they are too.
    """
    album = replace(album, found=boxes_by_picture((f.sha256, f.box_xyxy) for f in finds))
    raw = gallery(rows, finds, album, most=most, raw=True)
    shown = raw if publish_raw else gallery(rows, finds, album, most=most, raw=False)
    for name, pictures, is_raw in ((PUBLISHED, shown, publish_raw), (LOCAL, raw, True)):
        page = render(summary, album.taxonomy, pictures, raw=is_raw)
        (folder / name).write_text(page, encoding="utf-8")
    content = {"schema_version": 1, "raw": publish_raw, "pictures": [s.to_dict() for s in shown]}
    write_json(folder / GALLERY, content, indent=None)


def render(
    summary: Mapping[str, Any],
    taxonomy: Taxonomy,
    pictures: Sequence[Shown],
    *,
    raw: bool,
    verdict: Mapping[str, Any] | None = None,
    comparison: Mapping[str, Any] | None = None,
    attack: Mapping[str, Any] | None = None,
) -> str:
    """Return the page.

    Args:
        summary: Content of reports/evaluation.json.
        taxonomy: The classes.
        pictures: Misses, false finds and objects that the champion recalled.
        raw: Whether they show people as they are.
        verdict: Content of reports/promotion.json, where there is one.
        comparison: What was gained and lost against the champion (evaluation/comparison.py).
        attack: Content of reports/attack.json, where it was measured.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["ratio"] = ratio
    environment.filters["ratio_up"] = ratio_up
    environment.filters["criterion"] = criterion
    environment.globals["polyline"] = polyline
    return environment.get_template("report.html").render(
        summary=summary,
        taxonomy=taxonomy,
        pictures=pictures,
        raw=raw,
        verdict=verdict,
        comparison=comparison,
        attack=attack,
        unmeasured=not_measured(summary, taxonomy, attack),
    )


def ratio(value: float | None, digits: int = 3) -> str:
    """Return a number as text, rounded down so that 0.9499 never reads as 0.95; a dash for None.

    >>> ratio(0.94996), ratio(None)
    ('0.949', '–')
    """
    if value is None:
        return "–"
    scale = 10**digits
    return f"{np.floor(value * scale + 1e-9) / scale:.{digits}f}"


def ratio_up(value: float | None, digits: int = 3) -> str:
    """Return a number of which less is better, rounded up: 0.0001 never reads as none.

    >>> ratio_up(0.0001), ratio_up(0.25), ratio_up(None)
    ('0.001', '0.250', '–')
    """
    if value is None:
        return "–"
    scale = 10**digits
    return f"{max(0.0, np.ceil(value * scale - 1e-9)) / scale:.{digits}f}"


COUNTS = ("proof", "written_output", "leak")
LESS_IS_BETTER = ("false_finds", "non_object_share", "attack")


def criterion(value: float | None, name: str, *, limit: bool = False) -> str:
    """Return a value of the gate, or its limit, as text: counts whole, others never flattered.

    >>> criterion(438.0, "proof"), criterion(2.6701, "false_finds"), criterion(0.9709, "recall")
    ('438', '2.671', '0.970')
    >>> criterion(1 / 60, "attack", limit=True)
    '0.016'
    """
    if value is not None and name in COUNTS:
        return f"{value:g}"
    return ratio_up(value) if name in LESS_IS_BETTER and not limit else ratio(value)


def polyline(
    curve: Sequence[Mapping[str, float]],
    *,
    width: float,
    height: float,
    across: str = "recall",
    up: str = "precision",
) -> str:
    """Return a curve as the points of an SVG polyline, the origin below left.

    >>> polyline([{"recall": 0.5, "precision": 1.0}], width=100, height=50)
    '50.0,0.0'
    """
    return " ".join(
        f"{point[across] * width:.1f},{(1 - point[up]) * height:.1f}" for point in curve
    )
