"""Searches settings: `make sweep`, or `python -m training.sweep [sweep=NAME] [KEY=VALUE ...]`.

Reads section `sweep`; overrides of other sections hold for every trial. Optuna proposes, DVC runs
each trial as an experiment, its evaluation on val is the score, MLflow records sweep, trials and
stages below each other. Started again it goes on where it was killed.

Writes `artifacts/.work/sweeps.db` (Optuna's studies) and what each trial printed, below
`artifacts/.work/sweep/`.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf import compose, stage
from data.layout import WORK
from data.tracking.revisions import git_revision
from data.tracking.runs import StageRun
from data.tracking.store import TrackingConfig
from training.sweep.config import Scalar, SweepConfig, SweepError
from training.sweep.experiment import TrialFailedError, evaluation_of, run_experiment
from training.sweep.record import Sweep, sweep_run
from training.sweep.score import ScoreError, class_scores, score
from training.sweep.space import check_classes, check_space, present_values, to_override
from training.sweep.study import (
    VAL,
    begun,
    best,
    finished,
    next_trial,
    open_study,
    study_name,
    tell_failure,
)

if TYPE_CHECKING:
    import optuna

STUDIES = WORK / "sweeps.db"
OUTPUT = WORK / "sweep"
_OWN = re.compile(r"[+~]*sweep[.=@]|-|hydra[./]")

log = logging.getLogger(__name__)


def shared_overrides(words: Sequence[str]) -> list[str]:
    """Return the overrides of a command line that hold for every trial.

    >>> shared_overrides(["sweep.trials=3", "+experiment=smoke", "seed=2"])
    ['+experiment=smoke', 'seed=2']
    """
    return [word for word in words if not _OWN.match(word)]


def check_committed(revision: str) -> None:
    """Refuse to sweep over edits: DVC would move them away and back at each trial.

    Raises:
        SweepError: If there is no commit, or tracked files differ from it.
    """
    if revision == "none" or revision.endswith("+edits"):
        raise SweepError(
            "tracked files hold edits that are in no commit; every trial starts from the commit, "
            "and a kill could leave edits in Git's stash. Commit them: git commit -a"
        )


@dataclass(frozen=True)
class Search:
    """A sweep under way.

    Attributes:
        name: Of the study; the experiments are called `<name>-<number>`.
        config: Section `sweep`.
        study: Optuna's record.
        shared: Overrides that hold for every trial.
        seed: Of the draws.
    """

    name: str
    config: SweepConfig
    study: optuna.Study
    shared: tuple[str, ...]
    seed: int

    def experiment(self, number: int) -> str:
        """Return the name of a trial's experiment."""
        return f"{self.name}-{number}"


def search(this: Search, record: Sweep) -> None:
    """Run trials until there are as many as asked for.

    Raises:
        SweepError: If too many in a row fail.
    """
    config, failures = this.config, 0
    while (done := len(finished(this.study))) < config.trials:
        trial = next_trial(
            this.study, config.space, seed=this.seed, random_first=config.random_first
        )
        name = this.experiment(trial.number)
        log.info("trial %d of %d, experiment %s", done + 1, config.trials, name)
        for setting, value in trial.params.items():
            log.info("  %s", to_override(setting, value))
        try:
            reached = attempt(this, record, name, trial.params)
        except (TrialFailedError, ScoreError) as error:
            failures += 1
            log.warning("  failed: %s (%s)", error, _output(name))
            tell_failure(this.study, trial, str(error))
        else:
            failures = 0
            log.info("  %s", _told(this, reached))
            record.log_score(reached, number=trial.number)
            this.study.tell(trial, reached)
        if failures >= config.failures_max:
            raise SweepError(
                f"{failures} trials in a row failed, the last for: {_last_reason(this)}. Mend it "
                "and start the sweep again; it goes on with the next trial"
            )


def _told(this: Search, value: float) -> str:
    goal = this.config.maximize
    return f"{goal.over} {goal.measure} on val: {value:.4f}"


def _output(name: str) -> Path:
    return OUTPUT / f"{name}.log"


def _last_reason(this: Search) -> str:
    return str(finished(this.study)[-1].user_attrs["reason"])


def attempt(this: Search, record: Sweep, name: str, settings: Mapping[str, Scalar]) -> float:
    """Run one trial as an experiment and return its score.

    Raises:
        TrialFailedError: If it came to no result.
        ScoreError: If its result tells no score.
    """
    overrides = [*this.shared, *(to_override(key, value) for key, value in settings.items())]
    with record.trial(name, settings) as run:
        run_experiment(
            name,
            overrides,
            lock=OUTPUT / "trial.lock",
            output=_output(name),
            variables=run.variables,
        )
        evaluation = evaluation_of(name)
        check_val(this.study, evaluation)
        value = score(evaluation, this.config.maximize)
        _log_trial(run.run, evaluation, this.config, value)
    return value


def check_val(study: optuna.Study, evaluation: Mapping[str, Any]) -> None:
    """Refuse to compare trials that were judged on different pictures or labels.

    Raises:
        SweepError: If this trial was judged on another val set than the first.
    """
    digest = evaluation.get("reference_digest")
    known = study.user_attrs.get(VAL)
    if known is None:
        study.set_user_attr(VAL, digest)
    elif known != digest:
        raise SweepError(
            "val holds other pictures or labels than when this sweep began, so its trials cannot "
            "be compared. Begin another: set sweep.name"
        )


def _log_trial(
    run: StageRun, evaluation: Mapping[str, Any], config: SweepConfig, value: float
) -> None:
    from evaluation.report.summary import metrics_to_log

    scores = class_scores(evaluation, config.maximize)
    run.log_metrics(
        {
            **metrics_to_log(evaluation),
            **{f"score/{name}": each for name, each in scores.items()},
            "score": value,
        }
    )


def summary(this: Search) -> list[str]:
    """Return what the sweep came to, line by line."""
    top = best(this.study)
    trials = finished(this.study)
    failed = sum("reason" in trial.user_attrs for trial in trials)
    lines = [f"{this.name}: {len(trials)} trials, {failed} of them failed"]
    if top is None or top.value is None:
        return [*lines, "no trial came to a result"]
    first = trials[0]
    lines.append(f"best is {this.experiment(top.number)}, {_told(this, top.value)}")
    if first.value is not None and first.number != top.number:
        lines.append(f"the first trial reached {first.value:.4f}")
    lines += [f"  {to_override(name, value)}" for name, value in top.params.items()]
    return [*lines, f"next: make adopt EXP={this.experiment(top.number)}"]


@stage
def main(sweep: SweepConfig, tracking: TrackingConfig, seed: int) -> None:
    """Search, and say which trial is best."""
    # A plain kill is heard as an interrupt is: the trial is stopped, and runs are closed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    shared = shared_overrides(sys.argv[1:])
    tree = compose(shared)
    check_classes(sweep.maximize, tree)
    check_space(sweep.space, shared)
    revision = git_revision()
    check_committed(revision)
    name = study_name(sweep, tree, revision)
    present, outside = present_values(sweep.space, tree)
    if outside:
        log.info("conf/ itself is not tried: the space does not hold its %s", ", ".join(outside))
    study = open_study(name, STUDIES, first=None if outside else present)
    this = Search(name, sweep, study, tuple(shared), seed)
    log.info("going on with %s" if begun(study) else "beginning %s", name)
    with sweep_run(name, tracking, {"sweep": dataclasses.asdict(sweep)}) as record:
        search(this, record)
    print("\n".join(summary(this)))  # noqa: T201


if __name__ == "__main__":
    main()
