"""A turn as the gate sees it: what the steps before left to be judged, and by which settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from anonymization.card import FP32
from anonymization.files import read_json
from anonymization.taxonomy import Taxonomy
from data.layout import REPORTS
from data.tracking.store import TrackingConfig, experiment_name
from evaluation.binding import OBJECTS
from evaluation.config import EvaluationConfig, PromotionConfig
from evaluation.registry import variant_alias

EVALUATION = REPORTS / "evaluation.json"
VALIDATION = REPORTS / "validation.json"
REPORT = REPORTS / "promotion.json"


@dataclass(frozen=True)
class Settings:
    """The sections that promotion reads."""

    promotion: PromotionConfig
    evaluation: EvaluationConfig
    taxonomy: Taxonomy
    tracking: TrackingConfig
    seed: int


@dataclass(frozen=True)
class Turn:
    """What the steps before left to be judged.

    Attributes:
        evaluation: `reports/evaluation.json`.
        validation: `reports/validation.json`.
        rows: `artifacts/evaluated/objects.json`.
        forecast: Whether this is an experiment, in which no alias moves.
    """

    evaluation: Mapping[str, Any]
    validation: Mapping[str, Any]
    rows: Mapping[str, Any]
    forecast: bool

    @staticmethod
    def read() -> Turn:
        """Read them from where the steps leave them."""
        evaluation = read_json(EVALUATION)
        forecast = experiment_name() is not None or evaluation.get("split") != "reference"
        return Turn(evaluation, read_json(VALIDATION), read_json(OBJECTS), forecast)

    @property
    def bundle(self) -> str:
        """Digest of the bundle that was evaluated."""
        return str(self.evaluation.get("bundle_digest"))

    def alias(self, config: PromotionConfig) -> str:
        """Return the alias that the bundle may move: each variant has its own champion."""
        return variant_alias(config.alias, str(self.evaluation.get("variant", FP32)))
