"""Section `sweep` of the configuration: what is searched, for how long, and what counts as good."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from anonymization.errors import BlurloopError

SEARCHED = ("training", "bundle")
"""Sections that may be searched. The others decide what a trial is judged on, or only record."""

Scalar = bool | int | float | str


class SweepConfigError(BlurloopError):
    """The section `sweep` cannot be searched; found before anything runs."""

    exit_code = 2


class SweepError(BlurloopError):
    """A sweep cannot begin, or not go on."""


@dataclass(frozen=True)
class Setting:
    """One setting that is searched.

    Attributes:
        name: Its dotted name, as after `dvc exp run -S`.
        kind: `float` and `int` lie between `low` and `high`, both included; `choice` is one of
            `choices`, which are written as after `-S name=`.
        low: Least value.
        high: Greatest value.
        log: Whether equal factors count as equal steps, as with learning rates.
        choices: Values of a choice.
    """

    name: str
    kind: Literal["float", "int", "choice"]
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: list[Scalar] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.name.split(".")[0] not in SEARCHED:
            raise SweepConfigError(
                f"sweep.space names {self.name!r}; trials are compared on one set of pictures, so "
                f"only settings of {' and '.join(SEARCHED)} can be searched"
            )
        if self.kind == "choice":
            self._check_choices()
        else:
            self._check_range()

    def _check_choices(self) -> None:
        different = len({(type(choice), choice) for choice in self.choices})
        if different < 2 or different < len(self.choices):
            raise SweepConfigError(
                f"sweep.space: {self.name} has choices {self.choices}; expected two or more, each "
                "another"
            )
        if self.low is not None or self.high is not None or self.log:
            raise SweepConfigError(
                f"sweep.space: {self.name} is a choice and has none of low, high and log"
            )

    def _check_range(self) -> None:
        if self.low is None or self.high is None or self.choices:
            raise SweepConfigError(
                f"sweep.space: {self.name} is {self.kind}; it needs low and high, and no choices"
            )
        if not self.low < self.high:
            raise SweepConfigError(
                f"sweep.space: {self.name} goes from {self.low} to {self.high}; expected low < high"
            )
        if self.kind == "int" and (self.low % 1 or self.high % 1):
            raise SweepConfigError(
                f"sweep.space: {self.name} goes from {self.low} to {self.high}; expected whole "
                "numbers, or kind: float"
            )
        least = 1 if self.kind == "int" else 0
        if self.log and (self.low < least or self.low == 0):
            raise SweepConfigError(
                f"sweep.space: {self.name} is searched by factors (log) from {self.low}; expected "
                "low above 0"
            )

    @property
    def ends(self) -> list[Scalar]:
        """Return the values at which a mistake in the range would show."""
        if self.kind == "choice":
            return list(self.choices)
        return [self.number(end) for end in (self.low, self.high) if end is not None]

    def number(self, value: float) -> int | float:
        """Return a value of the range in its kind."""
        return int(value) if self.kind == "int" else float(value)

    def holds(self, value: Any) -> bool:
        """Return whether a value can be drawn."""
        if self.kind == "choice":
            return any(type(value) is type(each) and value == each for each in self.choices)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if self.kind == "int" and not float(value).is_integer():
            return False
        return self.low is not None and self.high is not None and self.low <= value <= self.high


@dataclass(frozen=True)
class Goal:
    """What is maximized: a number of the trial's evaluation on val.

    Attributes:
        measure: `detected` or `covered`: recall at the thresholds that the trial calibrated;
            `ap50`: average precision at IoU 0.5, which asks for no threshold.
        over: `worst`: the class that stands worst; `mean`: all alike.
        classes: The classes that count; empty: those that the gate asks for.
    """

    measure: Literal["detected", "covered", "ap50"] = "detected"
    over: Literal["worst", "mean"] = "worst"
    classes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SweepConfig:
    """Section `sweep`.

    Attributes:
        name: Begins the name of the study and of every experiment.
        trials: Trials in all, failed ones included; more than were run goes on.
        random_first: Trials that are drawn at random before the search learns from them.
        failures_max: Trials in a row that may fail before the sweep stops.
        maximize: What is good.
        space: What is searched.
    """

    name: str
    trials: int
    random_first: int
    failures_max: int
    maximize: Goal
    space: list[Setting]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,30}", self.name):
            raise SweepConfigError(
                f"sweep.name is {self.name!r}; expected small letters, digits, _ and -"
            )
        for key in ("trials", "random_first", "failures_max"):
            if getattr(self, key) < 1:
                raise SweepConfigError(f"sweep.{key} is {getattr(self, key)}; expected 1 or more")
        names = [setting.name for setting in self.space]
        if not names or len(set(names)) < len(names):
            raise SweepConfigError(
                f"sweep.space names {', '.join(names) or 'nothing'}; expected one setting or more, "
                "each once"
            )
