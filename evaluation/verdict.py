"""What the gate decided, and on what grounds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

PROMOTED = "PROMOTED"
REFUSED = "REFUSED"


@dataclass(frozen=True)
class Criterion:
    """One thing that was asked of the model, and the answer.

    Attributes:
        name: `recall`, `proof`, `false_finds`, `non_object_share`, `written_output`, `champion`,
            `leak`, `attack`, `classes`, or what binds the verdict (`bundle`, `reference`, ...).
        passed: Whether it is fulfilled.
        reason: One sentence, also when it passed.
        class_name: Class that it concerns, if one.
        sense: `detected` or `covered`, if one.
        value: What was measured; None where nothing was.
        bound: Its lower confidence bound; None where there is none.
        limit: What it was held against.
    """

    name: str
    passed: bool
    reason: str
    class_name: str | None = None
    sense: str | None = None
    value: float | None = None
    bound: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Verdict:
    """The recorded outcome of the gate.

    Attributes:
        outcome: `PROMOTED` or `REFUSED`.
        criteria: Everything that was asked, passed or not.
        forecast: Whether it was measured on val, so that no alias may move.
        warnings: What a reader must know beside the outcome.
        models_judged: Number of models that this reference set has judged, this one included.
        binding: What the verdict holds for: digests of bundle and reference set, code revision,
            thresholds.
    """

    outcome: str
    criteria: tuple[Criterion, ...]
    forecast: bool
    warnings: tuple[str, ...]
    models_judged: int
    binding: dict[str, Any]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it was refused; empty when it was not."""
        return tuple(c.reason for c in self.criteria if not c.passed)

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, for JSON."""
        return {"schema_version": 1, **asdict(self), "reasons": list(self.reasons)}

    def to_text(self) -> str:
        """Return the verdict as a table for a terminal."""
        head = f"{self.outcome}{' (forecast: measured on val)' if self.forecast else ''}"
        rows = [
            f"  {'ok ' if c.passed else 'NO '} {_label(c):34} {_shown(c.value)} "
            f"{_shown(c.bound)} {_shown(c.limit)}  {c.reason}"
            for c in self.criteria
        ]
        title = f"      {'criterion':34} {'value':>8} {'bound':>8} {'limit':>8}"
        return "\n".join([head, title, *rows, *(f"  warning: {w}" for w in self.warnings)])


def _label(criterion: Criterion) -> str:
    return " ".join(filter(None, (criterion.name, criterion.class_name, criterion.sense)))


def _shown(number: float | None) -> str:
    return f"{number:8.4f}" if number is not None else f"{'-':>8}"
