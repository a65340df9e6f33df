"""The gate's question about the attack: is the way a class is obscured one that withstood it?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from anonymization.taxonomy import ClassSpec, Taxonomy
from evaluation.measures.leaks import (
    FACES_MATCHED,
    PLATES_READ,
    above_chance,
    leak_bound,
    rows_of,
    used_setting,
)
from evaluation.verdict import Criterion

TAKES_NOTHING = ("solid", "synthetic")
"""Methods whose output does not depend on the pixels they hide: there is nothing to attack."""

AGAIN = "python -m evaluation.attack --json reports/attack.json (docs/evaluation.md, Attack)"


def check_attack(
    attack: Mapping[str, Any] | None, taxonomy: Taxonomy, *, required: bool = True
) -> Iterator[Criterion]:
    """Yield whether the way each gated class is obscured withstood the attack.

    Args:
        attack: The kept attack; None where there is none.
        taxonomy: The classes, and how each is obscured.
        required: Whether a way that was not attacked fails.
    """
    for name in taxonomy.gated:
        spec = taxonomy[name]
        rows = rows_of(attack, spec) if attack else []
        aimed = aim_of(name, taxonomy)
        if spec.method == "none":
            said = f"{name}: none leaves every pixel as it is. Choose a method, or do not gate it"
            yield Criterion("attack", False, said, class_name=name)
            continue
        if any(aimed in row["attack"] for row in rows):
            yield _withstood(name, spec, rows)
        else:
            yield _unattacked(name, spec, aimed, required)


def aim_of(name: str, taxonomy: Taxonomy) -> str:
    """Return which attack shows whether a class stays hidden, as rows of the report name it.

    Persons are known by their faces, and everything else by what is written on it.
    """
    by_face = name in (taxonomy.head_class, taxonomy.keypoint_class)
    by_face = by_face or taxonomy[name].geometry == "ellipse"
    return FACES_MATCHED if by_face else PLATES_READ


def _unattacked(name: str, spec: ClassSpec, aimed: str, required: bool) -> Criterion:
    if spec.method in TAKES_NOTHING:
        said = f"{name}: {spec.method} shows no pixel of what it hides, so none is attacked"
        return Criterion("attack", True, said, class_name=name)
    said = f"{name}: {_named(spec)} was not attacked ({aimed})"
    if required:
        said += f". Run {AGAIN}, or set promotion.attack to optional"
    return Criterion("attack", not required, said, class_name=name)


def _withstood(name: str, spec: ClassSpec, rows: list[dict[str, Any]]) -> Criterion:
    worst = max(rows, key=above_chance)
    said = (
        f"{name}: {_named(spec)}, worst of {len(rows)} attacks on it: {worst['attack']} "
        f"{worst['leaked']} of {worst['total']}, chance {1 / worst['total']:.3f}"
    )
    return Criterion(
        "attack",
        above_chance(worst) <= 0,
        said,
        class_name=name,
        value=worst["leaked"] / worst["total"],
        bound=leak_bound(worst),
        limit=1 / worst["total"],
    )


def attack_warnings(attack: Mapping[str, Any] | None, taxonomy: Taxonomy) -> Iterator[str]:
    """Yield what a reader must know: what was not attacked, or was on other obscuring code."""
    for setting, names in _attackable(taxonomy).items():
        rows = rows_of(attack, taxonomy[names[0]]) if attack else []
        attacks = [str(row["attack"]) for row in rows]
        bare = [n for n in names if not any(aim_of(n, taxonomy) in attack for attack in attacks)]
        if bare:
            said = f"{setting[0]} {setting[1]:g}, by which {', '.join(bare)} is obscured"
            yield f"{said}, was not attacked: whether it hides what it covers is not known"
        if attack is None or not rows:
            continue
        said = f"{setting[0]} {setting[1]:g}, by which {', '.join(names)} is obscured"
        recorded = _recorded(attack).get(setting)
        if recorded is None:
            yield f"the attack of {attack['date']} does not say what obscured: {said}. Run {AGAIN}"
        elif recorded != _present(setting):
            yield (
                f"the attack of {attack['date']} was measured on other code: {said}, gives other "
                f"pixels now. Run {AGAIN}"
            )


def _attackable(taxonomy: Taxonomy) -> dict[tuple[str, float], list[str]]:
    """Return the gated classes by method and strength, of methods that show something."""
    found: dict[tuple[str, float], list[str]] = {}
    for name in taxonomy.gated:
        if taxonomy[name].method not in (*TAKES_NOTHING, "none"):
            found.setdefault(used_setting(taxonomy[name]), []).append(name)
    return found


def _recorded(attack: Mapping[str, Any]) -> dict[tuple[str, float], str]:
    return {(r["method"], r["strength"]): str(r["sha256"]) for r in attack.get("obscuring", ())}


def _present(setting: tuple[str, float]) -> str:
    from evaluation.attack import Setting, obscuring_digest

    return obscuring_digest(Setting(*setting))


def _named(spec: ClassSpec) -> str:
    return f"{spec.method} {used_setting(spec)[1]:g}"
