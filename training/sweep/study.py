"""The study: Optuna's record of trials, in SQLite, which outlives every kill.

A trial is told of exactly once, after everything else about it was written. One that was not
stays `RUNNING` and is the first to be run by the next sweep, under its number and with its
settings: nothing is counted twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anonymization.files import sha256_of_json
from training.sweep.config import Scalar, Setting, SweepConfig

if TYPE_CHECKING:
    import optuna

REASON = "reason"
"""Attribute of a failed trial."""
VAL = "val"
"""Attribute of the study: digest of the set that its trials are judged on."""


def study_name(config: SweepConfig, tree: Mapping[str, Any], revision: str) -> str:
    """Return a name that changes with all that makes trials comparable.

    Args:
        config: Section `sweep`; its space and goal count, the number of trials does not.
        tree: The configuration that every trial starts from.
        revision: The commit.
    """
    base = {key: value for key, value in tree.items() if key not in ("sweep", "tracking")}
    space = [vars(setting) for setting in config.space]
    parts = {"base": base, "space": space, "goal": vars(config.maximize), "revision": revision}
    return f"{config.name}-{sha256_of_json(parts)[:8]}"


def open_study(name: str, path: Path, *, first: Mapping[str, Scalar] | None) -> optuna.Study:
    """Open a study, or make it.

    Args:
        name: Its name.
        path: The database, which may hold others.
        first: Settings of the first trial; None where the space does not hold them.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=name,
        storage=f"sqlite:///{path}",
        direction="maximize",
        load_if_exists=True,
    )
    if first is not None and not study.get_trials(deepcopy=False):
        study.enqueue_trial(dict(first))
    return study


def finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the trials that came to an end, good or bad, in their order."""
    return [trial for trial in study.get_trials() if trial.state.is_finished()]


def next_trial(
    study: optuna.Study, space: Sequence[Setting], *, seed: int, random_first: int
) -> optuna.Trial:
    """Return the trial that was left unfinished, else a new one, with all its settings drawn."""
    import optuna

    state = optuna.trial.TrialState
    left = study.get_trials(deepcopy=False, states=(state.RUNNING,))
    number = left[0].number if left else begun(study)
    # A sampler of its own for each number: one that were seeded again after a kill would draw
    # once more what it drew before.
    study.sampler = optuna.samplers.TPESampler(
        seed=1000 * seed + number, n_startup_trials=random_first
    )
    # Optuna has no public way back to a running trial; its own `ask` makes one just so.
    trial = optuna.Trial(study, left[0]._trial_id) if left else study.ask()
    for setting in space:
        _draw(trial, setting)  # what was drawn before comes back as it was
    return trial


def begun(study: optuna.Study) -> int:
    """Return how many trials were begun, ended or not."""
    import optuna

    waiting = optuna.trial.TrialState.WAITING
    return sum(trial.state is not waiting for trial in study.get_trials(deepcopy=False))


def _draw(trial: optuna.Trial, setting: Setting) -> None:
    if setting.kind == "choice":
        trial.suggest_categorical(setting.name, setting.choices)
        return
    low, high = (setting.number(end) for end in (setting.low or 0.0, setting.high or 0.0))
    if setting.kind == "int":
        trial.suggest_int(setting.name, int(low), int(high), log=setting.log)
    else:
        trial.suggest_float(setting.name, low, high, log=setting.log)


def tell_failure(study: optuna.Study, trial: optuna.Trial, reason: str) -> None:
    """Record that a trial came to no result."""
    import optuna

    trial.set_user_attr(REASON, reason)
    study.tell(trial, state=optuna.trial.TrialState.FAIL)


def best(study: optuna.Study) -> optuna.trial.FrozenTrial | None:
    """Return the trial of the highest score, of equal ones the first; None without any."""
    import optuna

    done = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    return max(done, key=lambda trial: (trial.value or 0.0, -trial.number), default=None)
