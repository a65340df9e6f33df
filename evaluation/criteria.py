"""What the gate asks, each rule by itself: from numbers that were measured to one criterion.

What is missing, not a number or cannot be compared never passes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.bound import exact_lower
from evaluation.config import PromotionConfig
from evaluation.paired import PairedError, paired_difference
from evaluation.verdict import Criterion

SENSES = ("detected", "covered")
BOUNDS = ("exact", "bootstrap", "clustered", "bound")


@dataclass(frozen=True)
class Champion:
    """What the present champion did on the same reference set.

    Attributes:
        version: Its registered version.
        bundle_digest: Digest of its bundle.
        reference_digest: Digest of the reference set that `objects` were measured on.
        objects: One row per identifiable object, as evaluation writes them.
        classes: Classes that it finds.
    """

    version: str
    bundle_digest: str
    reference_digest: str
    objects: Sequence[Mapping[str, Any]]
    classes: Sequence[str]


def _number(value: Any) -> float | None:
    """Return a finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _at(values: Any, *keys: str) -> Any:
    for key in keys:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values


def _counts(evaluation: Mapping[str, Any], name: str, sense: str) -> tuple[float, float] | None:
    """Return recalled and total objects, or None if they are not counts."""
    recalled = _number(_at(evaluation, "classes", name, sense, "recalled"))
    total = _number(_at(evaluation, "classes", name, sense, "total"))
    if recalled is None or total is None or not 0 <= recalled <= total or total < 1:
        return None
    return recalled, total


def lower_bound(
    evaluation: Mapping[str, Any], name: str, sense: str, *, confidence: float
) -> float | None:
    """Return the lowest of the measured bounds and the exact one of the counts, or None."""
    counts = _counts(evaluation, name, sense)
    measured = _at(evaluation, "classes", name, sense, "lower_bound")
    measured_at = _number(evaluation.get("confidence", 0.95))
    if counts is None or measured_at is None or measured_at < confidence:
        return None
    bounds = [_number(_at(measured, key)) for key in BOUNDS]
    known = [bound for bound in bounds if bound is not None]
    if len(known) < len(bounds):
        return None
    return min(*known, float(exact_lower(*counts, confidence=confidence)))


def recall(
    evaluation: Mapping[str, Any], name: str, sense: str, config: PromotionConfig
) -> Criterion:
    """Judge one class in one sense (DESIGN 7.1, 7.2)."""
    counts = _counts(evaluation, name, sense)
    where = {"class_name": name, "sense": sense, "limit": config.recall_min}
    if counts is None:
        reason = f"{name}: recall ({sense}) was not measured"
        return Criterion("recall", False, reason, **where)  # type: ignore[arg-type]
    found = counts[0] / counts[1]
    share = f"{name}: {counts[0]:g} of {counts[1]:g} objects {sense}"
    if config.confidence is None:
        reason = f"{share} (point estimate, no bound)"
        passed = found >= config.recall_min
        return Criterion("recall", passed, reason, value=found, **where)  # type: ignore[arg-type]
    bound = lower_bound(evaluation, name, sense, confidence=config.confidence)
    if bound is None:
        reason = f"{share}, without a bound at confidence {config.confidence}"
        return Criterion("recall", False, reason, value=found, **where)  # type: ignore[arg-type]
    reason = f"{share}, lower bound {bound:.4f}"
    return Criterion(
        "recall",
        bound >= config.recall_min,
        reason,
        value=found,
        bound=bound,
        **where,  # type: ignore[arg-type]
    )


def proof(evaluation: Mapping[str, Any], name: str, config: PromotionConfig) -> Criterion:
    """Judge whether a class has enough reference objects and clusters (DESIGN 7.3)."""
    totals = [_counts(evaluation, name, sense) for sense in SENSES]
    objects = min((counts[1] if counts else 0.0) for counts in totals)
    clusters = _number(_at(evaluation, "classes", name, "clusters")) or 0.0
    effective = _number(_at(evaluation, "classes", name, "effective_clusters")) or 0.0
    passed = (
        objects >= config.objects_min
        and clusters >= config.clusters_min
        and effective >= config.effective_clusters_min
    )
    reason = (
        f"{name}: {'' if passed else 'unproven, '}{objects:g} identifiable objects in "
        f"{clusters:g} clusters, which count as {effective:.3g}; needed are {config.objects_min} "
        f"in {config.clusters_min}, counting as {config.effective_clusters_min:g}"
    )
    limit = float(config.objects_min)
    return Criterion("proof", passed, reason, class_name=name, value=objects, limit=limit)


def _at_most(name: str, what: str, measured: Any, limit: float, unmeasured: str) -> Criterion:
    """Judge one limit on hiding too much (DESIGN 7.4)."""
    value, pictures = _number(_at(measured, "value")), _number(_at(measured, "pictures"))
    if value is None or not pictures:
        reason = f"{what} cannot be measured: no reference picture labels {unmeasured}"
        return Criterion(name, False, reason, limit=limit)
    passed = 0 <= value <= limit
    reason = f"{what}: {value:.4g}, at most {limit:g}"
    return Criterion(name, passed, reason, value=value, limit=limit)


def _every(names: Sequence[str], word: str) -> str:
    """Return `every face, every person and every vehicle`.

    >>> _every(["face", "person", "vehicle"], "and")
    'every face, every person and every vehicle'
    """
    said = [f"every {name}" for name in names]
    return f" {word} ".join(filter(None, (", ".join(said[:-1]), *said[-1:])))


def hides_too_much(
    evaluation: Mapping[str, Any], gated: Sequence[str], config: PromotionConfig
) -> Iterator[Criterion]:
    """Judge the limits that a model which hides everything breaks (DESIGN 7.4)."""
    finds = evaluation.get("false_finds_per_picture")
    unlabelled = [n for n in gated if _number(_at(finds, "by_class", n)) is None]
    yield _at_most(
        "false_finds",
        "false finds per picture",
        finds,
        config.false_finds_per_picture_max,
        _every(unlabelled or gated, "or"),
    )
    yield _at_most(
        "non_object_share",
        "share of non-object pixels obscured",
        evaluation.get("non_object_share_obscured"),
        config.non_object_share_obscured_max,
        _every(gated, "and"),
    )


def written_output(evaluation: Mapping[str, Any]) -> Criterion:
    """Judge whether written files hide what they claim to (DESIGN 7.1)."""
    checked = evaluation.get("written_output_verified")
    pictures, failed = _number(_at(checked, "pictures")), _at(checked, "failed")
    if not pictures or not isinstance(failed, Sequence):
        reason = "coverage of the written files was not verified"
        return Criterion("written_output", False, reason)
    reason = f"{pictures:g} written files read back, {len(failed)} not covered as claimed"
    return Criterion("written_output", not failed, reason, value=float(len(failed)), limit=0.0)


def leak(validation: Mapping[str, Any]) -> Criterion:
    """Judge whether training saw the reference set (DESIGN 7.6)."""
    leaks = validation.get("leaks")
    if not isinstance(leaks, Sequence) or isinstance(leaks, str):
        reason = "data validation did not look for leaks into the reference set"
        return Criterion("leak", False, reason, limit=0.0)
    found = len(leaks)
    reason = f"{found} leaks between training and reference data"
    if leaks:
        reason += f", the first: {str(leaks[0])[:200]}"
    return Criterion("leak", not leaks, reason, value=float(found), limit=0.0)


def _rows(objects: Sequence[Mapping[str, Any]], name: str) -> dict[tuple[str, str], Any]:
    return {
        (str(row.get("sha256")), str(row.get("annotation_id"))): row
        for row in objects
        if row.get("class") == name and row.get("counted", True)
    }


def _against_champion(
    ours: dict[tuple[str, str], Any],
    champion: Champion,
    name: str,
    sense: str,
    config: PromotionConfig,
) -> Criterion:
    """Judge one class in one sense against the champion, object by object (DESIGN 7.5)."""
    theirs = _rows(champion.objects, name)
    keys = sorted(ours)
    limit = -config.margin
    if keys != sorted(theirs):
        reason = (
            f"{name}: {len(ours)} objects cannot be compared with the champion's {len(theirs)}; "
            "evaluate version " + champion.version + " again"
        )
        return Criterion("champion", False, reason, name, sense, limit=limit)
    mine = [ours[key].get(sense) for key in keys]
    other = [theirs[key].get(sense) for key in keys]
    if not all(isinstance(value, bool) for value in (*mine, *other)):
        reason = f"{name}: some objects are neither {sense} nor missed"
        return Criterion("champion", False, reason, name, sense, limit=limit)
    clusters = [str(ours[key].get("cluster")) for key in keys]
    confidence = config.confidence or 0.95
    try:
        paired = paired_difference(mine, other, clusters, confidence=confidence)
    except PairedError as error:
        return Criterion("champion", False, f"{name}: {error}", name, sense, limit=limit)
    point = config.confidence is None
    bound = paired.difference if point else paired.lower_bound
    reason = (
        f"{name}: {paired.gained} objects gained, {paired.lost} lost against version "
        f"{champion.version} ({sense}, {paired.total} compared)"
    )
    shown = None if point else bound
    # With nothing lost there is nothing to forgive: below 268 objects the bound alone would refuse
    # a model that answers exactly as the champion does.
    passed = bound > limit or not paired.lost
    return Criterion("champion", passed, reason, name, sense, paired.difference, shown, limit)


def champion_criteria(
    evaluation: Mapping[str, Any],
    objects: Sequence[Mapping[str, Any]],
    champion: Champion,
    gated: Sequence[str],
    config: PromotionConfig,
) -> Iterator[Criterion]:
    """Judge every class that the champion knows against it (DESIGN 7.5)."""
    if evaluation.get("bundle_digest") == champion.bundle_digest:
        yield Criterion("champion", True, f"this bundle is the champion, {champion.version}")
        return
    if evaluation.get("reference_digest") != champion.reference_digest:
        reason = (
            f"the champion, version {champion.version}, was not evaluated on this reference set"
        )
        yield Criterion("champion", False, reason)
        return
    for name in gated:
        if name not in champion.classes:
            reason = f"{name}: the champion, version {champion.version}, does not know this class"
            yield Criterion("champion", True, reason, class_name=name)
            continue
        ours = _rows(objects, name)
        for sense in SENSES:
            yield _against_champion(ours, champion, name, sense, config)


def classes(evaluation: Mapping[str, Any], gated: Sequence[str]) -> Criterion:
    """Judge whether evaluation measured just the classes that the taxonomy gates."""
    measured = evaluation.get("taxonomy_gated")
    if not gated:
        return Criterion("classes", False, "the taxonomy gates no class, so nothing is proven")
    if not isinstance(measured, Sequence) or sorted(measured) != sorted(gated):
        reason = f"evaluation judged {measured}, the taxonomy gates {list(gated)}"
        return Criterion("classes", False, reason)
    return Criterion("classes", True, f"gated: {', '.join(gated)}")


def many_tries_bound(
    evaluation: Mapping[str, Any], name: str, sense: str, *, confidence: float, models: int
) -> float | None:
    """Return the bound at the confidence that `models` tries ask for (Bonferroni), or None.

    Where objects cluster the exact bound is taken of their effective number.
    """
    counts = _counts(evaluation, name, sense)
    plain = lower_bound(evaluation, name, sense, confidence=confidence)
    if counts is None or plain is None:
        return None
    path = ("classes", name, sense, "lower_bound", "effective_objects")
    effective = min(_number(_at(evaluation, *path)) or counts[1], counts[1])
    asked = 1 - (1 - confidence) / max(models, 1)
    recalled = counts[0] * effective / counts[1]
    return min(plain, float(exact_lower(recalled, effective, confidence=asked)))
