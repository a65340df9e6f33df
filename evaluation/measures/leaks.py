"""What reports/attack.json says of the way a bundle obscures: for the gate and for reports.

`python -m evaluation.attack` measures methods and strengths, not bundles. A bundle obscures each
class in one way; this looks up what the attack said of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from anonymization.files import read_json
from anonymization.taxonomy import STRENGTH_MIN, ClassSpec, Taxonomy
from data.layout import REPORTS
from evaluation.bound import CONFIDENCE, exact_lower

ATTACK = REPORTS / "attack.json"

PLATES_READ, FACES_MATCHED = "plates read", "faces matched"
"""Part of the name of every attack that reads characters, or that tells whose face it is."""

TARGETS_MIN = 20
"""Objects below which an attack cannot say that anything holds. Above chance begins at four that
leak, of twenty one in five; of two even both are within chance."""


def read_attack(taxonomy: Taxonomy, path: Path = ATTACK) -> dict[str, Any] | None:
    """Return the last attack; None where none was kept.

    `default_of` of each row names the classes that this taxonomy obscures so, whatever it said on
    the day of the attack.
    """
    if not path.is_file():
        return None
    attack = dict(read_json(path, schema_version=1))
    users: dict[tuple[str, float], list[str]] = {}
    for name, spec in taxonomy.classes.items():
        users.setdefault(used_setting(spec), []).append(name)
    attack["rows"] = [
        {**row, "default_of": users.get((row["method"], row["strength"]), [])}
        for row in attack["rows"]
    ]
    return attack


def used_setting(spec: ClassSpec) -> tuple[str, float]:
    """Return method and strength that obscuring uses for a class: it raises weaker ones.

    >>> used_setting(ClassSpec("box", "box", "blur", strength=0.1))
    ('blur', 0.7)
    >>> used_setting(ClassSpec("box", "box", "solid", strength=0.1))
    ('solid', 0.0)
    """
    if spec.method not in ("blur", "pixelate"):
        return spec.method, 0.0
    return spec.method, max(spec.strength, STRENGTH_MIN)


def rows_of(attack: Mapping[str, Any], spec: ClassSpec) -> list[dict[str, Any]]:
    """Return what was measured of the way a class is obscured.

    A row of too few objects is left out, unless what leaked of them is above chance even so.
    """
    wanted = used_setting(spec)
    own = [row for row in attack["rows"] if (row["method"], row["strength"]) == wanted]
    return [
        row
        for row in own
        if row["total"] >= TARGETS_MIN or (row["total"] > 0 and above_chance(row) > 0)
    ]


def leak_bound(row: Mapping[str, Any]) -> float:
    """Return the lower bound of a leak rate, from its counts: what a row says of itself is moot."""
    return float(exact_lower(row["leaked"], row["total"], confidence=CONFIDENCE))


def above_chance(row: Mapping[str, Any]) -> float:
    """Return by how much the bound of a leak rate lies above chance.

    >>> above_chance({"leaked": 9, "total": 60}) > 0 > above_chance({"leaked": 2, "total": 2})
    True
    """
    return leak_bound(row) - 1 / float(row["total"])


def not_attacked(attack: Mapping[str, Any] | None, taxonomy: Taxonomy) -> Iterator[str]:
    """Yield one sentence for each way of obscuring that no attack was made on."""
    if attack is None:
        yield (
            "Attack on the obscured output: none on this page. `python -m evaluation.attack` "
            "makes one, for the page of the verdict."
        )
        return
    for name, spec in taxonomy.classes.items():
        method, strength = used_setting(spec)
        if method not in ("none", "synthetic") and not rows_of(attack, spec):
            yield f"Attack on {method} {strength:g}, by which {name} is obscured: not made."
