"""The gate: from what evaluation and validation measured to PROMOTED or REFUSED.

Pure: no file, no MLflow. Each criterion of DESIGN section 7 is one row of the verdict; all must
pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evaluation.config import PromotionConfig
from evaluation.criteria import (
    SENSES,
    Champion,
    champion_criteria,
    classes,
    hides_too_much,
    leak,
    lower_bound,
    many_tries_bound,
    proof,
    recall,
    written_output,
)
from evaluation.verdict import PROMOTED, REFUSED, Criterion, Verdict


def _warnings(
    evaluation: Mapping[str, Any], gated: Sequence[str], config: PromotionConfig, models: int
) -> Iterator[str]:
    """Warn of a point estimate and of many tries on one reference set (DESIGN 7.2, 7.7)."""
    if config.confidence is None:
        yield "point estimates were judged (promotion.confidence: null): chance may have passed it"
        return
    for name in gated:
        for sense in SENSES:
            asked = {"confidence": config.confidence}
            plain = lower_bound(evaluation, name, sense, **asked)
            strict = many_tries_bound(evaluation, name, sense, **asked, models=models)
            if plain is None or strict is None or not strict < config.recall_min <= plain:
                continue
            yield (
                f"{name} ({sense}): this reference set has judged {models} models; so many tries "
                f"ask for the bound {strict:.4f}, below {config.recall_min:g}, though one try "
                f"has {plain:.4f}. Release a new reference set"
            )


def judge(
    evaluation: Mapping[str, Any],
    validation: Mapping[str, Any],
    champion: Champion | None,
    config: PromotionConfig,
    *,
    gated: Sequence[str],
    objects: Sequence[Mapping[str, Any]] = (),
    models_judged: int = 1,
    binding: Sequence[Criterion] = (),
    compared: Sequence[Criterion] = (),
    attacked: Sequence[Criterion] = (),
    warned: Sequence[str] = (),
) -> Verdict:
    """Judge one evaluated bundle.

    Args:
        evaluation: `reports/evaluation.json`.
        validation: `reports/validation.json`.
        champion: The present champion on the same reference set; None where there is none.
        config: Section `promotion`.
        gated: Classes that the taxonomy gates.
        objects: The bundle's own rows of `artifacts/evaluated/objects.json`.
        models_judged: Models that this reference set has judged, this one included.
        binding: What was found when digests, code and thresholds were checked again.
        compared: Comparison with the champion of its day, where the bundle was promoted before.
        attacked: Whether the way each class is obscured withstood it (evaluation/attack_gate.py).
        warned: What that leaves unknown.
    """
    criteria = [*binding, classes(evaluation, gated)]
    for name in gated:
        criteria += [recall(evaluation, name, sense, config) for sense in SENSES]
        criteria.append(proof(evaluation, name, config))
    criteria += [
        *hides_too_much(evaluation, gated, config),
        written_output(evaluation),
        leak(validation),
    ]
    criteria += [*attacked, *compared]
    if champion is not None:
        criteria += champion_criteria(evaluation, objects, champion, gated, config)
    bound_to = (
        "split",
        "bundle_digest",
        "reference_digest",
        "objects_sha256",
        "code_revision",
        "thresholds",
    )
    return Verdict(
        outcome=PROMOTED if all(c.passed for c in criteria) else REFUSED,
        criteria=tuple(criteria),
        forecast=evaluation.get("split") != "reference",
        warnings=(*_warnings(evaluation, gated, config, models_judged), *warned),
        models_judged=models_judged,
        binding={key: evaluation.get(key) for key in bound_to},
    )
