"""Step 8, promotion: the gate, and the alias in the MLflow registry.

Reads reports/evaluation.json, reports/validation.json, artifacts/bundle and
artifacts/evaluated/objects.json; writes reports/promotion.json, and after a promotion
artifacts/promoted, the bundle with its verdict, ready to ship. The stage always runs, so that the
alias follows the checked-out revision. A refusal is a successful run.

By hand: `python -m evaluation.registry` (history, rollback, override).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from anonymization.errors import BlurloopError
from anonymization.files import (
    FileError,
    folder_in_one_step,
    read_json,
    sha256_of_file,
    sha256_of_json,
    write_json,
)
from anonymization.taxonomy import Taxonomy
from conf import stage
from data.layout import ARTIFACTS, BUNDLE, EVALUATED, PREPARED, REPORTS, WORK
from data.tracking import (
    TrackingConfig,
    changed_code,
    database_file,
    digest_of,
    experiment_id,
    experiment_name,
    open_client,
    registry_lock,
    stage_run,
    tracking_uri,
)
from evaluation.gate import (
    PROMOTED,
    Champion,
    Criterion,
    PromotionConfig,
    Verdict,
    judge,
)

EVALUATION = REPORTS / "evaluation.json"
VALIDATION = REPORTS / "validation.json"
REPORT = REPORTS / "promotion.json"
OBJECTS = EVALUATED / "objects.json"
SHIPPED = ARTIFACTS / "promoted"
STATE = WORK / "promotion.json"
SCHEMA_VERSION = 1


class PromotionError(BlurloopError):
    """A result changed while the alias was about to move."""


@stage
def main(
    promotion: PromotionConfig, taxonomy: Taxonomy, tracking: TrackingConfig, seed: int
) -> None:
    """Judge the evaluated bundle, record the verdict and move the alias."""
    inputs = input_digest(promotion, taxonomy, tracking)
    if not is_settled(inputs):
        promote(promotion, taxonomy, tracking, inputs=inputs, seed=seed)
        settle(input_digest(promotion, taxonomy, tracking))
    report = read_json(REPORT)
    print(report["text"])  # noqa: T201


def input_digest(promotion: PromotionConfig, taxonomy: Taxonomy, tracking: TrackingConfig) -> str:
    """Return the digest of all that the verdict rests on."""
    paths = (EVALUATION, VALIDATION, OBJECTS, BUNDLE, PREPARED / "reference.json")
    code = Path(__file__).parent
    values = {
        "settings": [asdict(promotion), taxonomy.to_dict(), asdict(tracking)],
        "experiment": experiment_name(),
        "uri": tracking_uri(),
        "code": [sha256_of_file(code / f"{name}.py") for name in ("gate", "paired", "promotion")],
        "changed": changed_code(_evaluated_code()),
        **{str(path): digest_of(path) if path.exists() else None for path in paths},
    }
    return sha256_of_json(values)


def _evaluated_code() -> dict[str, str]:
    files = read_json(EVALUATION).get("code_files")
    return dict(files) if isinstance(files, Mapping) else {}


def _registry_state() -> list[int] | None:
    """Return size and time of the database, which every write changes; None for a server."""
    database = database_file(tracking_uri())
    if database is None or not database.is_file():
        return None
    stat = database.stat()
    return [stat.st_size, stat.st_mtime_ns]


def is_settled(inputs: str) -> bool:
    """Return whether the last run saw just this, and nobody has written to the registry since.

    It spares `dvc repro` with nothing to do the two seconds that MLflow takes to start.
    """
    if not STATE.is_file() or not REPORT.is_file():
        return False
    try:
        state = read_json(STATE)
    except FileError:
        return False
    expected = {"inputs": inputs, "registry": _registry_state(), "report": sha256_of_file(REPORT)}
    return expected["registry"] is not None and bool(state == expected)


def settle(inputs: str) -> None:
    """Remember what this run saw and left."""
    write_json(
        STATE,
        {"inputs": inputs, "registry": _registry_state(), "report": sha256_of_file(REPORT)},
    )


def check_binding(
    evaluation: Mapping[str, Any], rows: Mapping[str, Any], taxonomy: Taxonomy
) -> list[Criterion]:
    """Check that bundle, thresholds, reference set and code are those that were evaluated."""
    from anonymization.bundle import Bundle, BundleError
    from data.coco import Dataset

    def same(name: str, judged: Any, present: Any, remedy: str) -> Criterion:
        passed = judged is not None and judged == present
        said = (
            "is the one that was evaluated" if passed else f"was {judged}, is {present}; {remedy}"
        )
        return Criterion(name, passed, f"{name} {said}"[:600])

    again = "run dvc repro --force evaluation"
    try:
        card = Bundle.load(BUNDLE).card
    except BundleError as error:
        return [Criterion("bundle", False, str(error))]
    split = "reference" if evaluation.get("split") == "reference" else "val"
    try:
        reference = Dataset.read(PREPARED / f"{split}.json", taxonomy).digest(taxonomy)
    except BlurloopError as error:
        return [Criterion("reference", False, str(error))]
    digests = ("bundle_digest", "reference_digest")
    changed = changed_code(_evaluated_code())
    known = bool(evaluation.get("code_revision")) and bool(_evaluated_code())
    code = "code is the one that evaluated" if known else "evaluation names no code"
    if changed:
        code = f"code changed since the evaluation: {', '.join(changed)[:300]}; {again}"
    return [
        same("bundle", evaluation.get("bundle_digest"), card.digest, again),
        same("thresholds", evaluation.get("thresholds"), dict(card.thresholds), again),
        same("reference", evaluation.get("reference_digest"), reference, again),
        same(
            "objects", [evaluation.get(d) for d in digests], [rows.get(d) for d in digests], again
        ),
        Criterion("code", known and not changed, code),
    ]


def load_champion(
    client: Any, config: PromotionConfig, reference_digest: str, taxonomy: Taxonomy, *, seed: int
) -> Champion | None:
    """Return what the champion did on this reference set, measured again where that changed."""
    from evaluation.registry import artifact_json, champion_version

    version = champion_version(client, config.model, config.alias)
    if version is None:
        return None
    tags = version.tags
    if tags.get("reference_digest") == reference_digest:
        stored = artifact_json(client, version.run_id, "objects.json")
        objects, classes = stored["objects"], stored["classes"]
    else:
        objects, classes = evaluate_again(client, version, taxonomy, seed=seed)
    return Champion(
        version=str(version.version),
        bundle_digest=str(tags.get("bundle_digest")),
        reference_digest=reference_digest,
        objects=objects,
        classes=classes,
    )


def evaluate_again(
    client: Any, version: Any, taxonomy: Taxonomy, *, seed: int
) -> tuple[list[dict[str, Any]], list[str]]:
    """Judge a registered bundle on the present reference set; return its rows and gated classes."""
    import tempfile

    from anonymization.bundle import Bundle
    from data.coco import Dataset
    from evaluation.__main__ import evaluate
    from evaluation.config import EvaluationConfig

    dataset = Dataset.read(PREPARED / "reference.json", taxonomy)
    with tempfile.TemporaryDirectory() as work:
        folder = client.download_artifacts(version.run_id, "model/artifacts/bundle", work)
        bundle = Bundle.load(folder)
        results = evaluate(bundle, dataset, taxonomy, EvaluationConfig(), seed=seed)
        rows = [row.to_dict() for result in results for row in result.objects]
    return rows, list(bundle.card.taxonomy.gated)


def models_judged(client: Any, experiment: str, evaluation: Mapping[str, Any]) -> int:
    """Return how many models this reference set had judged when it first judged this one.

    Counted to the first judgement, so that judging an old revision again says the same.
    """
    digest = evaluation.get("reference_digest")
    query = f"tags.`blurloop.judged_on` = '{digest}'"
    runs = client.search_runs(
        [experiment], filter_string=query, order_by=["attributes.start_time ASC"]
    )
    seen: list[str] = []
    for run in runs:
        bundle = run.data.tags.get("blurloop.judged")
        if bundle == evaluation.get("bundle_digest"):
            break
        if bundle and bundle not in seen:
            seen.append(bundle)
    return len(seen) + 1


def promote(
    config: PromotionConfig,
    taxonomy: Taxonomy,
    tracking: TrackingConfig,
    *,
    inputs: str,
    seed: int,
) -> None:
    """Judge, record, and move the alias where the verdict says so."""
    evaluation, validation = read_json(EVALUATION), read_json(VALIDATION)
    rows = read_json(OBJECTS)
    binding = check_binding(evaluation, rows, taxonomy)
    gated, objects = taxonomy.gated, rows.get("objects", [])
    forecast = experiment_name() is not None or evaluation.get("split") != "reference"
    if not tracking.enabled:
        unbound = Criterion("registry", False, "tracking.enabled is false, so no alias can move")
        verdict = judge(
            evaluation,
            validation,
            None,
            config,
            gated=gated,
            objects=objects,
            binding=[*binding, unbound],
        )
        _write_report(verdict, evaluation, run_id=None, version=None)
        return
    client = open_client()
    experiment = experiment_id(client, tracking.experiment)
    known = None if forecast else _promoted_before(client, config, evaluation)
    if known is not None and "rolled_back" in known.tags:
        said = f"version {known.version} was rolled back by {known.tags['rolled_back']}"
        binding.append(Criterion("rollback", False, said))
    champion = None
    if not forecast and known is None:
        digest = str(evaluation.get("reference_digest"))
        champion = load_champion(client, config, digest, taxonomy, seed=seed)
    verdict = judge(
        evaluation,
        validation,
        champion,
        config,
        gated=gated,
        objects=objects,
        models_judged=1 if forecast else models_judged(client, experiment, evaluation),
        binding=binding,
    )
    with stage_run("promotion", tracking, params=asdict(config)) as run:
        _record(run, verdict, rows, gated, forecast=forecast)
        version = None
        if verdict.outcome == PROMOTED and not forecast:
            with registry_lock():
                _check_unchanged(client, config, champion, inputs, taxonomy, tracking)
                version = _move(client, config, verdict, evaluation, experiment, str(run.run_id))
            _ship(verdict, evaluation)
        _write_report(verdict, evaluation, run_id=run.run_id, version=version)
        run.log_artifact(REPORT)


def _promoted_before(
    client: Any, config: PromotionConfig, evaluation: Mapping[str, Any]
) -> Any | None:
    """Return the version that the gate promoted for this bundle on this reference set, or None.

    It was compared with the champion of its day: checking out an old revision brings it back.
    """
    from evaluation.registry import version_of_bundle

    found = version_of_bundle(client, config.model, str(evaluation.get("bundle_digest")))
    if found is None or found.tags.get("outcome") != PROMOTED:
        return None
    same = found.tags.get("reference_digest") == evaluation.get("reference_digest")
    return found if same else None


def _check_unchanged(
    client: Any,
    config: PromotionConfig,
    champion: Champion | None,
    inputs: str,
    taxonomy: Taxonomy,
    tracking: TrackingConfig,
) -> None:
    """Check under the lock that what was judged is what is there.

    Raises:
        PromotionError: If a file changed, or another loop moved the alias since.
    """
    from evaluation.registry import champion_version

    if input_digest(config, taxonomy, tracking) != inputs:
        raise PromotionError("a result changed while it was judged; run dvc repro again")
    present = champion_version(client, config.model, config.alias)
    if champion is not None and (present is None or str(present.version) != champion.version):
        raise PromotionError(
            f"another loop moved {config.model}@{config.alias} from version {champion.version} "
            "while this one was judged; run dvc repro again to be compared with the new one"
        )


def _move(
    client: Any,
    config: PromotionConfig,
    verdict: Verdict,
    evaluation: Mapping[str, Any],
    experiment: str,
    run_id: str,
) -> str:
    from evaluation.registry import move_alias, register

    said = shipped_verdict(verdict, evaluation)
    version = register(client, config.model, run_id=run_id, bundle=BUNDLE, verdict=said)
    move_alias(
        client,
        config.model,
        config.alias,
        str(version.version),
        experiment=experiment,
        reason="promoted by the gate",
        name="gate",
    )
    return str(version.version)


def shipped_verdict(verdict: Verdict, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of `verdict.json`, which stands beside the bundle."""
    classes = {
        name: {sense: values.get(sense) for sense in ("detected", "covered")}
        for name, values in (evaluation.get("classes") or {}).items()
    }
    return verdict.to_dict() | verdict.binding | {"classes": classes}


def _record(
    run: Any,
    verdict: Verdict,
    rows: Mapping[str, Any],
    gated: Sequence[str],
    *,
    forecast: bool,
) -> None:
    """Record a verdict in MLflow, a refusal as fully as a promotion."""
    run.set_tag("verdict", verdict.outcome)
    run.set_tag("forecast", str(forecast).lower())
    run.set_tag("reasons", "; ".join(verdict.reasons)[:5000])
    if not forecast:
        run.set_tag("blurloop.judged_on", str(verdict.binding["reference_digest"]))
        run.set_tag("blurloop.judged", str(verdict.binding["bundle_digest"]))
    names = ("/".join(filter(None, (c.name, c.class_name, c.sense))) for c in verdict.criteria)
    pairs = list(zip(names, verdict.criteria, strict=True))
    run.log_metrics({f"gate/{name}/passed": float(c.passed) for name, c in pairs})
    run.log_metrics({f"gate/{name}/bound": c.bound for name, c in pairs})
    run.log_dict(verdict.to_dict(), "verdict.json")
    run.log_text(verdict.to_text() + "\n", "verdict.txt")
    run.log_dict({"objects": rows.get("objects", []), "classes": list(gated)}, "objects.json")
    for path in (EVALUATION, VALIDATION):
        run.log_artifact(path)


def _ship(verdict: Verdict, evaluation: Mapping[str, Any]) -> None:
    """Leave the bundle with its verdict; DVC's own output must stay as it was hashed."""
    with folder_in_one_step(SHIPPED) as folder:
        for path in sorted(BUNDLE.iterdir()):
            shutil.copy2(path, folder / path.name)
        write_json(folder / "verdict.json", shipped_verdict(verdict, evaluation))


def _write_report(
    verdict: Verdict, evaluation: Mapping[str, Any], *, run_id: str | None, version: str | None
) -> None:
    values = shipped_verdict(verdict, evaluation)
    text = verdict.to_text()
    write_json(REPORT, values | {"run_id": run_id, "version": version, "text": text})


if __name__ == "__main__":
    main()
