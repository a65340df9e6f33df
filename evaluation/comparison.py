"""Object by object against the champion: gained, lost, both missed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

SENSES = ("detected", "covered")
GAINED, LOST, MISSED, RECALLED = "gained", "lost", "both_missed", "both_recalled"
STATES = (GAINED, LOST, MISSED, RECALLED)
SHOWN_MAX = 200

Rows = Sequence[Mapping[str, Any]]


def state_of(ours: bool, theirs: bool) -> str:
    """Return what became of an object.

    >>> state_of(True, False)
    'gained'
    """
    if ours:
        return RECALLED if theirs else GAINED
    return LOST if theirs else MISSED


def compare(ours: Rows, theirs: Rows, version: str) -> dict[str, Any]:
    """Return counts by class and sense, and the objects whose lot changed or stayed bad.

    Args:
        ours: Judged objects of this bundle, as artifacts/evaluated/objects.json holds them.
        theirs: The champion's, on the same reference set.
        version: The champion's registered version.

    Returns:
        `version`, `classes` (by class and sense, counts of each state) and `objects`: at most
        200 rows with `class`, `sha256`, `annotation_id`, `sense`, `state`, lost ones first.
    """
    known = {_key(row): row for row in theirs if row.get("counted", True)}
    counts: dict[str, dict[str, Counter[str]]] = {}
    changed = []
    for row in ours:
        other = known.get(_key(row))
        if other is None or not row.get("counted", True):
            continue
        name = str(row["class"])
        for sense in SENSES:
            state = state_of(row[sense] is True, other[sense] is True)
            counts.setdefault(name, {s: Counter() for s in SENSES})[sense][state] += 1
            if state != RECALLED:
                about = {key: row[key] for key in ("class", "sha256", "annotation_id")}
                changed.append({**about, "sense": sense, "state": state})
    order = (LOST, MISSED, GAINED)
    changed.sort(key=lambda row: (order.index(row["state"]), row["class"], row["sha256"]))
    return {
        "version": version,
        "classes": {
            name: {sense: {s: by_sense[sense][s] for s in STATES} for sense in SENSES}
            for name, by_sense in counts.items()
        },
        "objects": changed[:SHOWN_MAX],
        "objects_left_out": max(0, len(changed) - SHOWN_MAX),
    }


def _key(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return (str(row.get("class")), str(row.get("sha256")), str(row.get("annotation_id")))
