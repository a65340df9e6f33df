"""The contact sheet: every picture of a run, obscured, on one page that needs nothing else.

Pictures that failed or are in quarantine are listed without an image: what the page shows was
anonymized.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable, Mapping
from string import Template
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anonymization.errors import BlurloopError

SIDE_PX = 320
QUALITY = 80
PICTURES_MAX = 2000
"""More would make a page of some 50 MB that browsers hardly open; the rest is in report.json."""

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --bad: #c62828; --warn: #b26a00; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1400px; padding: 24px; }
h1 { font-size: 24px; margin: 0 0 4px; }
h2 { font-size: 18px; margin: 32px 0 8px; }
.counts { display: flex; flex-wrap: wrap; gap: 12px; margin: 16px 0; padding: 0; list-style: none; }
.counts li { border: 1px solid var(--line); border-radius: 8px; padding: 8px 16px; }
.counts b { display: block; font-size: 22px; }
.bad { color: var(--bad); } .warn { color: var(--warn); }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: 4px 12px 4px 0; text-align: left; }
td { overflow-wrap: anywhere; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); gap: 16px; }
figure { margin: 0; border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
figure img { display: block; width: 100%; height: 180px; object-fit: contain;
  background: var(--soft); }
figcaption { padding: 8px 10px; font-size: 13px; overflow-wrap: anywhere; }
.finds { opacity: 0.8; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; }
dt { opacity: 0.7; } dd { margin: 0; overflow-wrap: anywhere; }
</style>
</head>
<body>
<h1>$title</h1>
<p>$summary</p>
<ul class="counts">$counts</ul>
<dl>$facts</dl>
$problems
$skipped
<h2>Anonymized pictures</h2>
$note
<div class="sheet">$figures</div>
</body>
</html>
""")


class SheetError(BlurloopError):
    """A small copy cannot be made."""


def thumbnail(pixels: NDArray[np.uint8]) -> bytes:
    """Return a small JPEG of anonymized RGB pixels, uint8 (H, W, 3).

    Raises:
        SheetError: If it cannot be encoded.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, SIDE_PX / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    done, content = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not done:
        raise SheetError(f"a small copy of {pixels.shape} cannot be encoded")
    return bytes(content)


def contact_sheet(report: Mapping[str, Any], thumbnails: Mapping[int, bytes]) -> str:
    """Return the page of a run.

    Args:
        report: Content of `report.json`.
        thumbnails: Small JPEGs of anonymized pictures, by position in the report's files; of
            more than `PICTURES_MAX` none need to be made.
    """
    files = report["files"]
    shown = [(i, files[i]) for i in sorted(thumbnails)][:PICTURES_MAX]
    left_out = sum(entry["status"] == "anonymized" for entry in files) - len(shown)
    note = f"<p>{left_out} more are not shown; report.json lists them.</p>" if left_out else ""
    bundle = report["bundle"]
    ended = "complete" if report["complete"] else "ended before it was complete"
    return _PAGE.substitute(
        title="Anonymization report",
        summary=_text(f"Run of {report['started']}, {ended}. Images show anonymized results."),
        counts="".join(
            f'<li class="{_tone(status, number)}"><b>{number}</b>{_text(_words(status))}</li>'
            for status, number in report["counts"].items()
        ),
        facts=_facts(report, bundle),
        problems=_problems(files),
        skipped=_skipped(files),
        note=note,
        figures="".join(_figure(entry, thumbnails[i]) for i, entry in shown),
    )


def _words(status: str) -> str:
    return status.replace("_", " ")


def _tone(status: str, number: int) -> str:
    if not number:
        return ""
    return {"failed": "bad", "quarantined": "warn"}.get(status, "")


def _facts(report: Mapping[str, Any], bundle: Mapping[str, Any] | None) -> str:
    facts = {
        "Model": "known regions, no network" if bundle is None else bundle["path"],
        "Verdict": "none" if bundle is None else bundle["verdict"] or "none: nobody has judged it",
        "Finds": ", ".join(f"{n} {name}" for name, n in report["finds"].items()) or "none",
        "Spared by regions": str(report["spared"]),
        "Settings": json.dumps(report["settings"]) if report["settings"] else "as the model says",
        "Seconds": f"{report['seconds']:g}",
    }
    return "".join(f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in facts.items())


def _problems(files: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        f"<tr><td>{_text(entry['status'])}</td><td>{_text(entry['input'])}</td>"
        f"<td>{_text(entry['reason'] or '')}{_visible(entry)}</td></tr>"
        for entry in files
        if entry["status"] in ("failed", "quarantined")
    ]
    if not rows:
        return ""
    head = "<tr><th>status</th><th>picture</th><th>reason</th></tr>"
    return f"<h2>Not in the output</h2><table>{head}{''.join(rows)}</table>"


def _skipped(files: Iterable[Mapping[str, Any]]) -> str:
    entries = [entry for entry in files if entry["status"] == "skipped"]
    if not entries:
        return ""
    rows = [
        f"<tr><td>{_text(entry['input'])}</td><td>{_text(entry['reason'] or '')}</td></tr>"
        for entry in entries[:PICTURES_MAX]
    ]
    left_out = len(entries) - len(rows)
    note = f"<p>{left_out} more are in report.json.</p>" if left_out else ""
    return (
        f"<details><summary>{len(entries)} skipped: files that are no pictures by their names"
        f"</summary><table>{''.join(rows)}</table>{note}</details>"
    )


def _visible(entry: Mapping[str, Any]) -> str:
    found = [
        f"{one['class']} at {', '.join(f'{v:g}' for v in one['box'])}, {one['covered']:.0%} hidden"
        for one in entry["visible"]
    ]
    return "".join(f"<br>{_text(line)}" for line in found)


def _figure(entry: Mapping[str, Any], content: bytes) -> str:
    finds = ", ".join(f"{n} {name}" for name, n in entry["detections"].items()) or "nothing found"
    spared = f", {len(entry['spared'])} spared" if entry["spared"] else ""
    data = base64.b64encode(content).decode()
    name = _text(entry["input"])
    return (
        f'<figure><img loading="lazy" alt="{name}, anonymized" src="data:image/jpeg;base64,{data}">'
        f'<figcaption>{name}<br><span class="finds">{_text(finds + spared)}</span></figcaption>'
        "</figure>"
    )


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)
