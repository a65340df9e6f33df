"""The gate: from what evaluation and validation measured to PROMOTED or REFUSED.

Pure: no file, no MLflow. Each criterion of DESIGN section 7 is one row of the verdict; all must
pass. What is missing, not a number or cannot be compared never passes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from anonymization.errors import BlurloopError
from evaluation.bound import exact_lower
from evaluation.paired import PairedError, paired_difference

PROMOTED = "PROMOTED"
REFUSED = "REFUSED"
SENSES = ("detected", "covered")
REQUIRED = "required"
OPTIONAL = "optional"
BOUNDS = ("exact", "bootstrap", "clustered", "bound")
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
            objects, below which a class is unproven. Both from evaluation/simulation.py.
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
        check("margin", 0 <= self.margin < 1, "at least 0 and below 1")
        finds, share = self.false_finds_per_picture_max, self.non_object_share_obscured_max
        check("false_finds_per_picture_max", 0 <= finds < math.inf, "a number, at least 0")
        check("non_object_share_obscured_max", 0 <= share < 1, "at least 0 and below 1")
        check("attack", self.attack in (REQUIRED, OPTIONAL), f"{REQUIRED} or {OPTIONAL}")


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


def _recall(
    evaluation: Mapping[str, Any], name: str, sense: str, config: PromotionConfig
) -> Criterion:
    """Judge one class in one sense (DESIGN 7.1, 7.2)."""
    counts = _counts(evaluation, name, sense)
    where = {"class_name": name, "sense": sense, "limit": config.recall_min}
    if counts is None:
        reason = f"{name}: recall ({sense}) was not measured"
        return Criterion("recall", False, reason, **where)  # type: ignore[arg-type]
    recall = counts[0] / counts[1]
    share = f"{name}: {counts[0]:g} of {counts[1]:g} objects {sense}"
    if config.confidence is None:
        reason = f"{share} (point estimate, no bound)"
        passed = recall >= config.recall_min
        return Criterion("recall", passed, reason, value=recall, **where)  # type: ignore[arg-type]
    bound = lower_bound(evaluation, name, sense, confidence=config.confidence)
    if bound is None:
        reason = f"{share}, without a bound at confidence {config.confidence}"
        return Criterion("recall", False, reason, value=recall, **where)  # type: ignore[arg-type]
    reason = f"{share}, lower bound {bound:.4f}"
    return Criterion(
        "recall",
        bound >= config.recall_min,
        reason,
        value=recall,
        bound=bound,
        **where,  # type: ignore[arg-type]
    )


def _proof(evaluation: Mapping[str, Any], name: str, config: PromotionConfig) -> Criterion:
    """Judge whether a class has enough reference objects and clusters (DESIGN 7.3)."""
    totals = [_counts(evaluation, name, sense) for sense in SENSES]
    objects = min((counts[1] if counts else 0.0) for counts in totals)
    clusters = _number(_at(evaluation, "classes", name, "clusters")) or 0.0
    passed = objects >= config.objects_min and clusters >= config.clusters_min
    reason = (
        f"{name}: {'' if passed else 'unproven, '}{objects:g} identifiable objects in "
        f"{clusters:g} clusters; needed are {config.objects_min} in {config.clusters_min}"
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


def _hides_too_much(
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


def _written_output(evaluation: Mapping[str, Any]) -> Criterion:
    checked = evaluation.get("written_output_verified")
    pictures, failed = _number(_at(checked, "pictures")), _at(checked, "failed")
    if not pictures or not isinstance(failed, Sequence):
        reason = "coverage of the written files was not verified"
        return Criterion("written_output", False, reason)
    reason = f"{pictures:g} written files read back, {len(failed)} not covered as claimed"
    return Criterion("written_output", not failed, reason, value=float(len(failed)), limit=0.0)


def _leak(validation: Mapping[str, Any]) -> Criterion:
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
    return Criterion(
        "champion", bound > limit, reason, name, sense, paired.difference, shown, limit
    )


def _champion(
    evaluation: Mapping[str, Any],
    objects: Sequence[Mapping[str, Any]],
    champion: Champion,
    gated: Sequence[str],
    config: PromotionConfig,
) -> Iterator[Criterion]:
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


def _classes(evaluation: Mapping[str, Any], gated: Sequence[str]) -> Criterion:
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
    criteria = [*binding, _classes(evaluation, gated)]
    for name in gated:
        criteria += [_recall(evaluation, name, sense, config) for sense in SENSES]
        criteria.append(_proof(evaluation, name, config))
    criteria += [
        *_hides_too_much(evaluation, gated, config),
        _written_output(evaluation),
        _leak(validation),
    ]
    criteria += [*attacked, *compared]
    if champion is not None:
        criteria += _champion(evaluation, objects, champion, gated, config)
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
