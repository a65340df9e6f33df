"""Section `evaluation` of the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from anonymization.errors import BlurloopError


class EvaluationConfigError(BlurloopError):
    """A setting of the section `evaluation` is out of range."""

    exit_code = 2


@dataclass(frozen=True)
class EvaluationConfig:
    """How a bundle is judged.

    Attributes:
        confidence: One-sided confidence of the lower bounds.
        score_min: Lowest score that curves and AP look at.
        size_edges: Edges of the size bins, multiples of a class's identifiable size, ascending.
        slices: Manifest fields and picture attributes whose values are measured apart.
        misses_max: Number of misses, and of false finds, that the report shows.
        publish_raw: Whether the report shows them as they are, also where it is published.
    """

    confidence: float = 0.95
    score_min: float = 0.02
    size_edges: list[float] = field(default_factory=lambda: [0.0, 0.5, 1.0, 1.5, 2.0, 4.0])
    slices: list[str] = field(
        default_factory=lambda: ["source", "camera", "projection", "daylight", "weather"]
    )
    misses_max: int = 24
    publish_raw: bool = False

    def __post_init__(self) -> None:
        if not 0.5 <= self.confidence < 1:
            raise EvaluationConfigError(
                f"evaluation.confidence is {self.confidence}; expected 0.5 to below 1"
            )
        if not 0 <= self.score_min < 1:
            raise EvaluationConfigError(
                f"evaluation.score_min is {self.score_min}; expected 0 to below 1"
            )
        edges = self.size_edges
        if not edges or edges[0] != 0 or any(a >= b for a, b in pairwise(edges)):
            raise EvaluationConfigError(
                f"evaluation.size_edges is {edges}; expected ascending numbers that begin with 0"
            )
        if 1.0 not in edges:
            raise EvaluationConfigError(
                f"evaluation.size_edges is {edges}; it must hold 1.0, the identifiable line"
            )
        if len(set(self.slices)) < len(self.slices) or not all(self.slices):
            raise EvaluationConfigError(
                f"evaluation.slices is {self.slices}; expected different names of manifest fields"
            )
        if self.misses_max < 0:
            raise EvaluationConfigError(
                f"evaluation.misses_max is {self.misses_max}; expected 0 or more"
            )
