"""Prints the verdict of the last turn as Markdown, from reports/: for people and pull requests."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

REPORTS = Path(sys.argv[1] if len(sys.argv) > 1 else "reports")


def read(name: str) -> dict[str, Any] | None:
    """Return a report, or None where the loop has not written it yet."""
    path = REPORTS / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def number(value: float | None) -> str:
    """Return a share with four digits; what was not measured is said to be so."""
    return "not measured" if value is None else f"{value:.4f}"


def rows(evaluation: dict[str, Any]) -> list[str]:
    """Return the table of recalls, one row per class and sense."""
    lines = [
        f"On the {evaluation['split']} set, {evaluation['pictures']} pictures:",
        "",
        "| class | sense | recalled | recall | lower bound |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, values in evaluation["classes"].items():
        for sense in ("detected", "covered"):
            part = values[sense]
            bound = (part.get("lower_bound") or {}).get("bound")
            lines.append(
                f"| {name} | {sense} | {part['recalled']} of {part['total']} "
                f"| {number(part['recall'])} | {number(bound)} |"
            )
    return lines


def main() -> None:
    """Print what the reports say."""
    promotion, evaluation = read("promotion.json"), read("evaluation.json")
    if promotion is None:
        print("No verdict yet: `make loop` has not been run to its end on this revision.")
        return
    verdict = promotion["verdict"]
    print(f"**Verdict: {verdict if isinstance(verdict, str) else verdict['verdict']}**\n")
    for reason in promotion.get("reasons") or []:
        print(f"- {reason}")
    if evaluation is not None:
        print("\n" + "\n".join(rows(evaluation)))


if __name__ == "__main__":
    main()
