"""Reads `dvc.yaml`: which stages there are, and which module each of them starts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PIPELINE = Path("dvc.yaml")
_MODULE = re.compile(r"python -m ([\w.]+)")


@dataclass(frozen=True)
class Command:
    """What a stage runs.

    Attributes:
        stage: Name in dvc.yaml, without the `@item` of a stage that is written once for several.
        module: Module that `python -m` starts.
        text: The whole command line, templates unresolved.
    """

    stage: str
    module: str
    text: str


def body(stage: Mapping[str, Any]) -> Any:
    """Return what a stage does, also where it is written once for several items."""
    return stage.get("do", stage)


def command_of(stage: str, text: str) -> Command | None:
    """Return the command of a stage where it starts a module.

    >>> command_of("review", "python -m data.review ${frozen}").module
    'data.review'
    """
    found = _MODULE.match(text)
    return Command(stage, found[1], text) if found else None


def commands(pipeline: Path = PIPELINE) -> list[Command]:
    """Return the command of every stage that starts a module, in order."""
    from ruamel.yaml import YAML

    stages = YAML(typ="safe").load(pipeline.read_text(encoding="utf-8"))["stages"]
    found = (command_of(name, body(stage)["cmd"]) for name, stage in stages.items())
    return [command for command in found if command is not None]
