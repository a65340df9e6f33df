"""Sections `evaluation` and `promotion` of the configuration."""

from __future__ import annotations

import math
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


REQUIRED = "required"
OPTIONAL = "optional"
RECALL_MIN = 0.95
"""What the project promises; configuration may ask for more, never for less."""


class GateError(BlurloopError):
    """The gate is configured to let through what it exists to stop."""


@dataclass(frozen=True)
class PromotionConfig:
    """Section `promotion`.

    Attributes:
        model: Name of the registered model in MLflow.
        alias: Alias that a promotion moves.
        recall_min: Recall that each gated class must clear, in both senses.
        confidence: One-sided confidence of the bounds; None judges the point estimate.
        objects_min: Identifiable reference objects below which a class is unproven.
        clusters_min: Clusters (sequence, group of near-duplicates, else picture) that hold such
            objects, below which a class is unproven.
        effective_clusters_min: Kish's effective number of those clusters, which few large ones
            lower, below which a class is unproven. All three from evaluation/simulation.py.
        margin: How far the bound of the paired difference to the champion may lie below zero.
        false_finds_per_picture_max: Limit, on fully labelled pictures.
        non_object_share_obscured_max: Limit on the share of non-object pixels obscured.
        attack: `required` refuses a class whose way of obscuring was not attacked; `optional`
            warns of it. What leaks is refused with either.
    """

    model: str = "anonymizer"
    alias: str = "champion"
    recall_min: float = RECALL_MIN
    confidence: float | None = 0.95
    objects_min: int = 100
    clusters_min: int = 100
    effective_clusters_min: float = 80.0
    margin: float = 0.01
    false_finds_per_picture_max: float = 3.0
    non_object_share_obscured_max: float = 0.5
    attack: str = REQUIRED

    def __post_init__(self) -> None:
        def check(name: str, right: bool, expected: str) -> None:
            if not right:
                raise GateError(
                    f"promotion.{name} is {getattr(self, name)}; expected {expected}. "
                    "Correct it in conf/promotion"
                )

        check("recall_min", RECALL_MIN <= self.recall_min < 1, f"at least {RECALL_MIN}, below 1")
        confident = self.confidence is None or 0.95 <= self.confidence < 1
        check("confidence", confident, "null, or at least 0.95 and below 1")
        check("objects_min", self.objects_min >= 1, "at least 1")
        check("clusters_min", self.clusters_min >= 1, "at least 1")
        check("effective_clusters_min", self.effective_clusters_min >= 1, "at least 1")
        check("margin", 0 <= self.margin < 1, "at least 0 and below 1")
        finds, share = self.false_finds_per_picture_max, self.non_object_share_obscured_max
        check("false_finds_per_picture_max", 0 <= finds < math.inf, "a number, at least 0")
        check("non_object_share_obscured_max", 0 <= share < 1, "at least 0 and below 1")
        check("attack", self.attack in (REQUIRED, OPTIONAL), f"{REQUIRED} or {OPTIONAL}")
