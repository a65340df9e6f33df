"""Step 8, promotion: the gate, and the alias in the MLflow registry.

Reads reports/evaluation.json, reports/validation.json, artifacts/bundle and
artifacts/evaluated/objects.json; writes reports/promotion.json, under artifacts/verdicts the
verdict on the bundle, where the anonymizer looks for it, and the report with the verdict on top,
and after a promotion artifacts/promoted, the bundle with its verdict, ready to ship. The stage
always runs, so that the alias follows the checked-out revision. A refusal is a successful run.

By hand: `python -m evaluation.registry` (history, rollback, override).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anonymization.errors import BlurloopError
from anonymization.files import (
    folder_in_one_step,
    read_json,
    sha256_of_json,
    write_json,
)
from anonymization.taxonomy import Taxonomy
from conf import stage
from data.layout import ARTIFACTS, BUNDLE
from data.tracking.runs import StageRun, stage_run
from data.tracking.store import TrackingConfig, experiment_id, open_client, registry_lock
from evaluation.attack_gate import attack_warnings, check_attack
from evaluation.binding import (
    bundle_is_judged,
    check_binding,
    measure_digest,
)
from evaluation.champion import load_champion
from evaluation.config import REQUIRED, EvaluationConfig, PromotionConfig
from evaluation.criteria import Champion
from evaluation.gate import judge
from evaluation.headline import record_headline, verdict_note
from evaluation.measures.leaks import read_attack
from evaluation.settled import input_digest, is_settled, settle
from evaluation.turn import EVALUATION, REPORT, VALIDATION, Settings, Turn
from evaluation.verdict import PROMOTED, Criterion, Verdict

if TYPE_CHECKING:
    pass

SHIPPED = ARTIFACTS / "promoted"
ATTEMPTS = 3
"""How often a bundle is judged again because another loop moved the alias meanwhile."""

log = logging.getLogger(__name__)


class PromotionError(BlurloopError):
    """A result changed while the alias was about to move."""


class ChampionMovedError(PromotionError):
    """Another loop moved the alias while this one judged."""


@stage
def main(
    promotion: PromotionConfig,
    evaluation: EvaluationConfig,
    taxonomy: Taxonomy,
    tracking: TrackingConfig,
    seed: int,
) -> None:
    """Judge the evaluated bundle, record the verdict and move the alias."""
    settings = Settings(promotion, evaluation, taxonomy, tracking, seed)
    inputs = input_digest(settings)
    if not is_settled(inputs):
        promote(settings, inputs=inputs)
        settle(input_digest(settings))
    print(read_json(REPORT)["text"])  # noqa: T201


def models_judged(client: Any, experiment: str, turn: Turn) -> int:
    """Return how many models this reference set had judged when it first judged this one.

    Counted to the first judgement, so that judging an old revision again says the same.
    """
    digest = turn.evaluation.get("reference_digest")
    query = f"tags.`blurloop.judged_on` = '{digest}'"
    runs = client.search_runs(
        [experiment], filter_string=query, order_by=["attributes.start_time ASC"]
    )
    seen: list[str] = []
    for run in runs:
        bundle = run.data.tags.get("blurloop.judged")
        if bundle == turn.bundle:
            break
        if bundle and bundle not in seen:
            seen.append(bundle)
    return len(seen) + 1


def promote(settings: Settings, *, inputs: str) -> None:
    """Judge, record, and move the alias where the verdict says so.

    Args:
        settings: The sections that promotion reads.
        inputs: `input_digest` from before anything was read.

    Raises:
        PromotionError: If a result changed meanwhile, or other loops keep moving the alias.
    """
    turn = Turn.read()
    if not settings.tracking.enabled:
        unbound = Criterion("registry", False, "tracking.enabled is false, so no alias can move")
        verdict = _verdict(settings, turn, binding=[unbound])
        _write(verdict, turn, alias=None, run_id=None, version=None)
        _write_page(settings, turn, None)
        return
    client = open_client()
    experiment = experiment_id(client, settings.tracking.experiment)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _judge_and_move(client, experiment, settings, turn, inputs)
            return
        except ChampionMovedError as error:
            if attempt == ATTEMPTS:
                raise
            log.info("%s; judging again", error)


def _verdict(settings: Settings, turn: Turn, **more: Any) -> Verdict:
    """Judge a turn; `more` are further arguments of `gate.judge`."""
    bound = check_binding(
        turn.evaluation, turn.rows, turn.validation, settings.taxonomy, seed=settings.seed
    )
    more["binding"] = [*bound, *more.get("binding", [])]
    attack, required = read_attack(settings.taxonomy), settings.promotion.attack == REQUIRED
    verdict = judge(
        turn.evaluation,
        turn.validation,
        more.pop("champion", None),
        settings.promotion,
        gated=settings.taxonomy.gated,
        objects=turn.rows.get("objects", []),
        attacked=list(check_attack(attack, settings.taxonomy, required=required)),
        warned=list(attack_warnings(attack, settings.taxonomy)),
        **more,
    )
    return replace(verdict, forecast=turn.forecast)


def _judge_and_move(
    client: Any, experiment: str, settings: Settings, turn: Turn, inputs: str
) -> None:
    from evaluation.registry import champion_version

    config = settings.promotion
    seen = champion_version(client, config.model, turn.alias(config))
    known = _circumstances(client, experiment, settings, turn, seen)
    verdict = _verdict(settings, turn, **known)
    with _recorded(client, experiment, settings, turn, verdict) as run_id:
        version = None
        if verdict.outcome == PROMOTED and not turn.forecast:
            with registry_lock():
                _check_unchanged(client, settings, turn, seen, inputs)
                version = _move(client, settings, verdict, turn, experiment, run_id)
            _ship(verdict, turn)
        alias = turn.alias(config)
        _write(verdict, turn, alias=alias, run_id=run_id, version=version)
        _write_page(settings, turn, known.get("champion"))


def _circumstances(
    client: Any, experiment: str, settings: Settings, turn: Turn, seen: Any | None
) -> dict[str, Any]:
    """Return what the registry knows: the champion to beat, or the earlier promotion."""
    from evaluation.registry import artifact_json, version_of_bundle

    if turn.forecast:
        return {}
    found: dict[str, Any] = {"models_judged": models_judged(client, experiment, turn)}
    known = _promoted_before(client, settings.promotion, turn)
    taken_back = version_of_bundle(client, settings.promotion.model, turn.bundle)
    if taken_back is not None and "rolled_back" in taken_back.tags:
        # Whatever reference set it is judged on by now.
        said = f"version {taken_back.version} was rolled back by {taken_back.tags['rolled_back']}"
        found["binding"] = [Criterion("rollback", False, said)]
    if known is None:
        if seen is not None:
            found["champion"] = load_champion(client, settings, turn, seen)
        return found
    run_id = known.tags.get("judged_run") or known.run_id
    criteria = artifact_json(client, run_id, "verdict.json")["criteria"]
    found["compared"] = [Criterion(**c) for c in criteria if c["name"] == "champion"]
    return found


def _promoted_before(client: Any, config: PromotionConfig, turn: Turn) -> Any | None:
    """Return the version that the gate promoted for this bundle on this reference set, or None.

    It was compared with the champion of its day: checking out an old revision brings it back.
    """
    from evaluation.registry import version_of_bundle

    found = version_of_bundle(client, config.model, turn.bundle)
    if found is None or found.tags.get("outcome") != PROMOTED:
        return None
    same = found.tags.get("reference_digest") == turn.evaluation.get("reference_digest")
    return found if same else None


def _check_unchanged(
    client: Any, settings: Settings, turn: Turn, seen: Any | None, inputs: str
) -> None:
    """Check under the lock that what was judged is what is there.

    Raises:
        PromotionError: If a file changed.
        ChampionMovedError: If another loop moved the alias, or set it for the first time.
    """
    from evaluation.registry import champion_version

    if input_digest(settings) != inputs:
        raise PromotionError("a result changed while it was judged; run dvc repro again")
    model, alias = settings.promotion.model, turn.alias(settings.promotion)
    present = champion_version(client, model, alias)
    if present is not None and present.tags.get("bundle_digest") == turn.bundle:
        return
    before, now = (None if v is None else str(v.version) for v in (seen, present))
    if before != now:
        raise ChampionMovedError(
            f"another loop moved {model}@{alias} from version {before} to {now} while this one "
            "was judged; run dvc repro again to be compared with the new one"
        )


def _move(
    client: Any, settings: Settings, verdict: Verdict, turn: Turn, experiment: str, run_id: str
) -> str:
    from evaluation.registry import move_alias, register

    model, alias = settings.promotion.model, turn.alias(settings.promotion)
    said = shipped_verdict(verdict, turn)
    version = register(client, model, run_id=run_id, bundle=BUNDLE, verdict=said)
    by = {"experiment": experiment, "reason": "promoted by the gate", "name": "gate"}
    move_alias(client, model, alias, str(version.version), **by)
    return str(version.version)


def shipped_verdict(verdict: Verdict, turn: Turn) -> dict[str, Any]:
    """Return the content of `verdict.json`, which stands beside the bundle."""
    classes = {
        name: {sense: values.get(sense) for sense in ("detected", "covered")}
        for name, values in (turn.evaluation.get("classes") or {}).items()
    }
    return verdict.to_dict() | verdict.binding | {"classes": classes}


@contextmanager
def _recorded(
    client: Any, experiment: str, settings: Settings, turn: Turn, verdict: Verdict
) -> Iterator[str]:
    """Give the id of the run that records a verdict; the same verdict is recorded once."""
    digest = sha256_of_json(verdict.to_dict())
    query = f"tags.`blurloop.verdict` = '{digest}' and attributes.status = 'FINISHED'"
    order = ["attributes.start_time ASC"]
    earlier = client.search_runs([experiment], query, order_by=order, max_results=1)
    if earlier:
        yield str(earlier[0].info.run_id)
        return
    with stage_run("promotion", settings.tracking, params=asdict(settings.promotion)) as run:
        _record(run, settings, turn, verdict)
        _record_turn(client, str(run.parent_id), turn, verdict)
        yield str(run.run_id)
        run.log_artifact(REPORT)
        if page_of(turn).is_file():
            run.log_artifact(page_of(turn), obscured=True)
        run.set_tag("blurloop.verdict", digest)


def _record(run: Any, settings: Settings, turn: Turn, verdict: Verdict) -> None:
    """Record a verdict in MLflow, a refusal as fully as a promotion."""
    run.set_tag("verdict", verdict.outcome)
    run.set_tag("forecast", str(turn.forecast).lower())
    run.set_tag("reasons", "; ".join(verdict.reasons)[:5000])
    if not turn.forecast:
        run.set_tag("blurloop.judged_on", str(verdict.binding["reference_digest"]))
        run.set_tag("blurloop.judged", str(verdict.binding["bundle_digest"]))
    names = ("/".join(filter(None, (c.name, c.class_name, c.sense))) for c in verdict.criteria)
    pairs = list(zip(names, verdict.criteria, strict=True))
    run.log_metrics({f"gate/{name}/passed": float(c.passed) for name, c in pairs})
    run.log_metrics({f"gate/{name}/bound": c.bound for name, c in pairs})
    run.log_dict(verdict.to_dict(), "verdict.json")
    run.log_text(verdict.to_text() + "\n", "verdict.txt")
    objects = {
        "objects": turn.rows.get("objects", []),
        "classes": list(settings.taxonomy.names),
        "measure": measure_digest(turn.evaluation, settings.taxonomy),
    }
    run.log_dict(objects, "objects.json")
    for path in (EVALUATION, VALIDATION):
        run.log_artifact(path)


def _record_turn(client: Any, run_id: str, turn: Turn, verdict: Verdict) -> None:
    """Record the headline on the turn's own run, which people list, sort and compare."""
    parent = StageRun(client, run_id, None)
    record_headline(client, run_id, turn.evaluation)
    parent.set_tag("verdict", verdict.outcome)
    parent.set_tag("mlflow.note.content", verdict_note(shipped_verdict(verdict, turn)))


def _ship(verdict: Verdict, turn: Turn) -> None:
    """Leave the bundle with its verdict; DVC's own output must stay as it was hashed."""
    from anonymization.bundle import VERDICT

    with folder_in_one_step(SHIPPED) as folder:
        for path in sorted(BUNDLE.iterdir()):
            shutil.copy2(path, folder / path.name)
        write_json(folder / VERDICT, shipped_verdict(verdict, turn))


def _write(
    verdict: Verdict, turn: Turn, *, alias: str | None, run_id: str | None, version: str | None
) -> None:
    """Write the report, and the verdict to where the anonymizer finds it; no forecast is one."""
    from anonymization.bundle import VERDICTS

    values = shipped_verdict(verdict, turn)
    if not turn.forecast and bundle_is_judged(verdict.criteria):
        write_json(BUNDLE.parent / VERDICTS / f"{turn.bundle}.json", values)
    recorded = {"alias": alias, "run_id": run_id, "version": version}
    write_json(REPORT, values | recorded | {"text": verdict.to_text()})


def page_of(turn: Turn) -> Path:
    """Return where the report with the verdict stands; a forecast never takes a verdict's place."""
    from anonymization.bundle import VERDICTS

    return BUNDLE.parent / VERDICTS / f"{turn.bundle}{'-forecast' if turn.forecast else ''}.html"


def _write_page(settings: Settings, turn: Turn, champion: Champion | None) -> None:
    """Write the report again, with the verdict on top and the champion beside it."""
    from evaluation.comparison import compare
    from evaluation.verdict_page import write_page

    compared = None
    if champion is not None and champion.objects:
        compared = compare(turn.rows.get("objects", []), champion.objects, champion.version)
    write_page(
        page_of(turn),
        turn.evaluation,
        read_json(REPORT),
        settings.taxonomy,
        rows=turn.rows,
        comparison=compared,
    )


if __name__ == "__main__":
    main()
