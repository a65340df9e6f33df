"""Prints the verdict of the last turn as Markdown, from reports/: for people and pull requests.

Standard library only: it runs where nothing is installed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def number(value: float | None) -> str:
    """Return a number with four decimals, or a dash where there is none."""
    return "–" if value is None else f"{value:.4f}".rstrip("0").rstrip(".")


def headline(promotion: dict[str, Any]) -> str:
    """Return the outcome and what it means for the alias."""
    outcome = promotion["outcome"]
    if promotion["forecast"]:
        return f"**{outcome}** (a forecast, measured on {promotion['split']}: no alias moves)"
    if outcome == "PROMOTED" and promotion["version"]:
        return f"**PROMOTED** as version {promotion['version']}, {promotion['alias']}"
    return f"**{outcome}**: the champion stays where it was"


def table(criteria: list[dict[str, Any]]) -> Iterator[str]:
    """Yield one row per criterion, failed ones marked."""
    yield "| | criterion | class | sense | value | lower bound | limit | in words |"
    yield "| --- | --- | --- | --- | ---: | ---: | ---: | --- |"
    for row in criteria:
        words = row["reason"].replace("|", "/").replace("\n", " ")
        cells = [
            "ok" if row["passed"] else "**NO**",
            row["name"].replace("_", " "),
            row["class_name"] or "",
            row["sense"] or "",
            *(number(row[key]) for key in ("value", "bound", "limit")),
            words,
        ]
        yield f"| {' | '.join(cells)} |"


def told(promotion: dict[str, Any]) -> Iterator[str]:
    """Yield the verdict, line by line."""
    yield headline(promotion)
    yield ""
    failed = [row for row in promotion["criteria"] if not row["passed"]]
    if failed:
        yield f"{len(failed)} of {len(promotion['criteria'])} criteria failed:"
        yield ""
        yield from (f"- {row['reason']}" for row in failed)
        yield ""
    yield from table(promotion["criteria"])
    yield ""
    yield f"This reference set has judged {promotion['models_judged']} model(s)."
    yield from (f"\n> warning: {warning}" for warning in promotion["warnings"])


def main(reports: Path) -> None:
    """Print what `promotion.json` says."""
    path = reports / "promotion.json"
    if not path.is_file():
        print("No verdict yet: `make loop` has not been run to its end on this revision.")
        return
    print("\n".join(told(json.loads(path.read_text(encoding="utf-8")))))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "reports"))
