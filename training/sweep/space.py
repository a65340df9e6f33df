"""The search space against the configuration: overrides, their check, and today's values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anonymization.errors import BlurloopError
from conf import ConfigError, compose
from conf.__main__ import check_sections, entries
from training.sweep.config import Goal, Scalar, Setting, SweepConfigError


def to_override(name: str, value: Scalar) -> str:
    """Return a value as Hydra reads it on the command line.

    >>> to_override("bundle.likely", True), to_override("training.mask_rcnn.lr", 1e-05)
    ('bundle.likely=true', 'training.mask_rcnn.lr=1e-05')
    """
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"{name}={text}"


def check_space(space: Sequence[Setting], shared: Sequence[str] = ()) -> None:
    """Compose the configuration at the ends of every range, as the trials will.

    Args:
        space: The settings.
        shared: Overrides that hold for every trial.

    Raises:
        SweepConfigError: If a setting does not exist, or its stage refuses a value.
    """
    stages = entries()
    for setting in space:
        for value in setting.ends:
            override = to_override(setting.name, value)
            try:
                check_sections(compose([*shared, override]), stages)
            except (ConfigError, BlurloopError) as error:
                raise SweepConfigError(f"sweep.space: {override}: {error}") from error


def check_classes(goal: Goal, tree: Mapping[str, Any]) -> None:
    """Refuse a goal that names a class which the taxonomy does not have.

    Raises:
        SweepConfigError: If it does.
    """
    known = tree["taxonomy"]["classes"]
    for name in goal.classes:
        if name not in known:
            raise SweepConfigError(
                f"sweep.maximize.classes names {name!r}; known classes: {', '.join(known)}"
            )


def value_at(tree: Mapping[str, Any], name: str) -> Any:
    """Return the value of a dotted name.

    >>> value_at({"training": {"lr": 0.1}}, "training.lr")
    0.1
    """
    value: Any = tree
    for key in name.split("."):
        value = value[key]
    return value


def present_values(
    space: Sequence[Setting], tree: Mapping[str, Any]
) -> tuple[dict[str, Scalar], list[str]]:
    """Return what `conf/` says now, and the names of those values that lie outside the space."""
    values = {setting.name: value_at(tree, setting.name) for setting in space}
    outside = [setting.name for setting in space if not setting.holds(values[setting.name])]
    return values, outside
