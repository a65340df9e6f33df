"""What a verdict holds for: bundle, thresholds, reference set, judged objects and code.

Each check compares a file with what evaluation recorded of it, so that nothing can be exchanged
or edited between the evaluation and the alias.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anonymization.card import FP32
from anonymization.errors import BlurloopError
from anonymization.files import sha256_of_file, sha256_of_json
from anonymization.taxonomy import Taxonomy
from data.layout import BUNDLE, EVALUATED, PREPARED, SPLITS
from data.tracking.revisions import changed_code
from evaluation.bound import effective_clusters
from evaluation.criteria import SENSES
from evaluation.record import check_record
from evaluation.verdict import Criterion

if TYPE_CHECKING:
    from data.coco import Dataset

OBJECTS = EVALUATED / "objects.json"
AGAIN = "run dvc repro --force evaluation"
TOLERANCE = 1e-9
"""Bounds come back from JSON as they were written; scipy versions differ in the last digits."""
MEASURING = tuple(
    f"evaluation/{name}.py"
    for name in (
        "coverage",
        "judging",
        "matching",
        "panoramas",
        "patch",
        "report/pictures",
        "truth",
    )
)
"""Code that decides whether an object was detected and covered."""


def evaluated_code(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of each source file that evaluated, as evaluation recorded them."""
    pairs = (str(line).split("  ", 1) for line in evaluation.get("code_files") or ())
    return {pair[1]: pair[0] for pair in pairs if len(pair) == 2}


def measure_digest(evaluation: Mapping[str, Any], taxonomy: Taxonomy) -> str:
    """Return what two models' object rows must share to be compared.

    The reference set, which of its objects count, and the code that found, hid and judged them.
    """
    rules = {
        name: [spec.geometry, spec.identifiable_side, spec.identifiable_px]
        for name, spec in taxonomy.classes.items()
    }
    code = evaluated_code(evaluation)
    shipped = {n: digest for n, digest in code.items() if n.startswith("anonymization/")}
    judging = {n: code.get(n) for n in MEASURING}
    return sha256_of_json([evaluation.get("reference_digest"), rules, judging, shipped])


def check_binding(
    evaluation: Mapping[str, Any],
    rows: Mapping[str, Any],
    validation: Mapping[str, Any],
    taxonomy: Taxonomy,
    *,
    seed: int,
) -> list[Criterion]:
    """Check that everything evaluated is still what it was.

    Args:
        evaluation: `reports/evaluation.json`.
        rows: `artifacts/evaluated/objects.json`.
        validation: `reports/validation.json`.
        taxonomy: The loop's classes.
        seed: Seed of the bootstrap that evaluation used.
    """
    try:
        return [
            *_bundle(evaluation),
            *_reference(evaluation, taxonomy),
            _objects(evaluation, rows),
            _counts(evaluation, rows, taxonomy, seed),
            _code(evaluation),
            _validation(validation),
            check_record(),
            check_record(stage="validation"),
        ]
    except BlurloopError as error:
        return [Criterion("binding", False, str(error))]


def _same(name: str, judged: Any, present: Any, remedy: str = AGAIN) -> Criterion:
    passed = judged is not None and judged == present
    said = "is the one that was evaluated" if passed else f"was {judged}, is {present}; {remedy}"
    return Criterion(name, passed, f"{name} {said}"[:600])


def _bundle(evaluation: Mapping[str, Any]) -> Iterator[Criterion]:
    from anonymization.bundle import Bundle
    from anonymization.card import BundleError

    try:
        card = Bundle.load(BUNDLE).card
    except BundleError as error:
        yield Criterion("bundle", False, str(error))
        return
    yield _same("bundle", evaluation.get("bundle_digest"), card.digest)
    yield _same("variant", evaluation.get("variant", FP32), card.variant)
    yield _same("thresholds", evaluation.get("thresholds"), dict(card.thresholds))


def _reference(evaluation: Mapping[str, Any], taxonomy: Taxonomy) -> Iterator[Criterion]:
    from data.coco import Dataset

    split = "reference" if evaluation.get("split") == "reference" else "val"
    dataset = Dataset.read(PREPARED / f"{split}.json", taxonomy)
    yield _same("reference", evaluation.get("reference_digest"), dataset.digest(taxonomy))
    if split == "reference":
        yield _release(dataset, taxonomy)


def _release(dataset: Dataset, taxonomy: Taxonomy) -> Criterion:
    """Compare the prepared reference set with the releases in Git that it was made of."""
    from data.reference import current_release, labels_by_picture, union

    sources = sorted({str(image.fields.get("source")) for image in dataset.images})
    releases = {source: current_release(source, taxonomy) for source in sources}
    absent = [source for source, release in releases.items() if release is None]
    if absent:
        said = f"no release under reference/ holds source {absent[0]}; run dvc repro"
        return Criterion("release", False, said)
    released = union(release.dataset for release in releases.values() if release)
    if labels_by_picture(released) != labels_by_picture(dataset):
        said = "the prepared reference set is not what was released; run dvc repro"
        return Criterion("release", False, f"{said} --force preparation")
    names = ", ".join(f"{s} {r.number}" for s, r in releases.items() if r) or "none"
    return Criterion("release", True, f"reference set is as released: {names}")


def _objects(evaluation: Mapping[str, Any], rows: Mapping[str, Any]) -> Criterion:
    """Compare the judged objects with the file that evaluation wrote, byte for byte."""
    digests = ("bundle_digest", "reference_digest")
    judged = [*(evaluation.get(key) for key in digests), evaluation.get("objects_sha256")]
    return _same("objects", judged, [*(rows.get(key) for key in digests), sha256_of_file(OBJECTS)])


def _counts(
    evaluation: Mapping[str, Any], rows: Mapping[str, Any], taxonomy: Taxonomy, seed: int
) -> Criterion:
    """Count again: the recalls and bounds that are judged must follow from the judged objects."""
    for name in taxonomy.gated:
        own = [r for r in rows.get("objects", []) if r["class"] == name and r.get("counted", True)]
        values = (evaluation.get("classes") or {}).get(name) or {}
        sizes = Counter(str(row["cluster"]) for row in own)
        judged = [len(sizes), round(effective_clusters([*sizes.values()]), 6)]
        reported = [values.get("clusters"), values.get("effective_clusters")]
        if reported != judged:
            said = f"{name}: {reported} clusters (effective) reported, {judged} judged; {AGAIN}"
            return Criterion("counts", False, said, class_name=name)
        for sense in SENSES:
            said = _differs(values.get(sense) or {}, own, sense, evaluation.get("confidence"), seed)
            if said:
                return Criterion("counts", False, f"{name}: {said}; {AGAIN}", name, sense)
    return Criterion("counts", True, "recalls and bounds follow from the judged objects")


def _differs(
    reported: Mapping[str, Any],
    own: Sequence[Mapping[str, Any]],
    sense: str,
    confidence: Any,
    seed: int,
) -> str:
    """Return how a reported recall differs from its objects; empty where it does not."""
    from evaluation.bound import lower_bound

    total = Counter(str(row["cluster"]) for row in own)
    hits = Counter(str(row["cluster"]) for row in own if row[sense] is True)
    counted = [hits.total(), total.total()]
    said = [reported.get("recalled"), reported.get("total")]
    if said != counted:
        return f"{said} objects {sense} reported, {counted} judged (recalled, total)"
    if not own:
        return ""
    clusters = sorted(total)
    x, n = [hits[c] for c in clusters], [total[c] for c in clusters]
    bounds = lower_bound(x, n, confidence=confidence or 0.95, seed=seed).to_dict()
    for key, bound in bounds.items():
        value = (reported.get("lower_bound") or {}).get(key)
        if not isinstance(value, int | float) or abs(value - bound) > TOLERANCE * max(1, bound):
            return f"{key} of {sense} is {value}, its objects give {bound}"
    return ""


def _validation(validation: Mapping[str, Any]) -> Criterion:
    """Compare what data validation looked at with what was trained on and judged."""
    looked_at = validation.get("data_sha256")
    if not isinstance(looked_at, Mapping):
        said = "data validation does not say which splits it looked at"
        return Criterion("validation", False, f"{said}; run dvc repro --force validation")
    paths = {split: PREPARED / f"{split}.json" for split in SPLITS}
    present = {split: sha256_of_file(p) if p.is_file() else None for split, p in paths.items()}
    others = [split for split in SPLITS if looked_at.get(split) != present[split]]
    if others:
        said = f"data validation looked at another {', '.join(others)}"
        return Criterion("validation", False, f"{said}; run dvc repro --force validation")
    return Criterion("validation", True, "data validation looked at these splits")


def _code(evaluation: Mapping[str, Any]) -> Criterion:
    code = evaluated_code(evaluation)
    if not code or not evaluation.get("code_revision"):
        return Criterion("code", False, f"evaluation names no code; {AGAIN}")
    changed = changed_code(code)
    if changed:
        said = f"code changed since the evaluation: {', '.join(changed)[:300]}; {AGAIN}"
        return Criterion("code", False, said)
    return Criterion("code", True, "code is the one that evaluated")


def bundle_is_judged(criteria: Sequence[Criterion], folder: Path = BUNDLE) -> bool:
    """Return whether the bundle in its folder is the one that the verdict names."""
    return folder.is_dir() and any(c.name == "bundle" and c.passed for c in criteria)
