"""The gate's question about the attack: is the way a class is obscured one that withstood it?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from anonymization.taxonomy import Taxonomy
from evaluation.bound import CONFIDENCE, exact_lower
from evaluation.gate import Criterion
from evaluation.measures.leaks import rows_of, used_setting


def check_attack(attack: Mapping[str, Any] | None, taxonomy: Taxonomy) -> Iterator[Criterion]:
    """Yield whether the way each gated class is obscured withstood the attack.

    Where it was not attacked the criterion is met, and says so: an attack needs engines that not
    every machine has.
    """
    for name in taxonomy.gated:
        spec = taxonomy[name]
        rows = rows_of(attack, spec) if attack else []
        if not rows:
            said = f"{name}: {spec.method} {used_setting(spec)[1]:g} was not attacked"
            yield Criterion("attack", True, said, class_name=name)
            continue
        worst = max(rows, key=_above_chance)
        said = (
            f"{name}: {spec.method} {used_setting(spec)[1]:g}, worst of {len(rows)} attacks on it: "
            f"{worst['attack']} "
            f"{worst['leaked']} of {worst['total']}, chance {1 / worst['total']:.3f}"
        )
        yield Criterion(
            "attack",
            _above_chance(worst) <= 0,
            said,
            class_name=name,
            value=worst["leaked"] / worst["total"],
            bound=_lower(worst),
            limit=1 / worst["total"],
        )


def _lower(row: Mapping[str, Any]) -> float:
    """Return the lower bound of a leak rate, from its counts: what a row says of itself is moot."""
    return float(exact_lower(row["leaked"], row["total"], confidence=CONFIDENCE))


def _above_chance(row: Mapping[str, Any]) -> float:
    return _lower(row) - 1 / float(row["total"])
