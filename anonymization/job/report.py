"""The report of a run: counts, paths, digests and boxes, and nothing of a picture.

`docs/anonymizing.md` describes the JSON; the contact sheet is made from the same content.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anonymization.errors import BlurloopError
from anonymization.files import write_bytes, write_json
from anonymization.job.results import STATUSES, FileResult

if TYPE_CHECKING:
    from anonymization.bundle import Bundle

SCHEMA_VERSION = 2


class ReportError(BlurloopError):
    """A report cannot be written."""

    exit_code = 2


def report_of(
    results: Sequence[FileResult],
    *,
    bundle: Bundle | None,
    settings: Mapping[str, Any],
    regions: Sequence[Mapping[str, Any]],
    options: Mapping[str, Any],
    started: str,
    seconds: float,
    complete: bool,
) -> dict[str, Any]:
    """Return the content of `report.json`.

    Args:
        results: What became of each file, in the order of the inputs.
        bundle: What detected; None where the regions were known.
        settings: What was changed per class.
        regions: The regions of the run.
        options: Other options that decide what results look like.
        started: When, as ISO 8601 with the zone.
        seconds: How long the run took.
        complete: Whether it came to its end.
    """
    counts = Counter(result.status for result in results)
    finds: Counter[str] = Counter()
    spared: Counter[str] = Counter()
    for result in results:
        finds.update(result.detections)
        spared.update(one["region"] for one in result.spared)
    listed = [dict(area) | {"spared": spared[area["name"]]} for area in regions]
    return {
        "schema_version": SCHEMA_VERSION,
        "complete": complete,
        "started": started,
        "seconds": round(seconds, 3),
        "bundle": _bundle(bundle),
        "settings": dict(settings),
        "options": dict(options),
        "regions": listed,
        "counts": {status: counts[status] for status in STATUSES},
        "finds": dict(sorted(finds.items())),
        "spared": sum(spared.values()),
        "files": [
            asdict(result) | {"notes": [note.text for note in result.notes]} for result in results
        ],
    }


def _bundle(bundle: Bundle | None) -> dict[str, Any] | None:
    if bundle is None:
        return None
    return {
        "path": str(bundle.path),
        "digest": bundle.digest,
        "verdict": None if bundle.verdict is None else bundle.verdict.outcome,
    }


def check_writable(path: Path) -> None:
    """See that a report can be written before anything is done.

    Raises:
        ReportError: If it cannot.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ReportError(f"report {path} cannot be written: {error.strerror or error}") from error


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Write `report.json`.

    Raises:
        ReportError: If it cannot be written.
    """
    try:
        write_json(path, report)
    except OSError as error:
        raise ReportError(f"report {path} cannot be written: {error.strerror or error}") from error


def write_sheet(path: Path, report: Mapping[str, Any], thumbnails: Mapping[int, bytes]) -> None:
    """Write `report.html`.

    Raises:
        ReportError: If it cannot be written.
    """
    from anonymization.job.contact_sheet import contact_sheet

    try:
        write_bytes(path, contact_sheet(report, thumbnails).encode("utf-8", "replace"))
    except OSError as error:
        raise ReportError(f"report {path} cannot be written: {error.strerror or error}") from error
