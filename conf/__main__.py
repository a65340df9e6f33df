"""Stage `config`: freezes the composition of `conf/` into `params.yaml`.

Reads `conf/`; writes `params.yaml` where it changed, `artifacts/composed.json` (constant) and
`artifacts/turn.json`. Inside an experiment DVC has composed `params.yaml` with the overrides, and
it is left as it is. Every section is checked against the stage that reads it here, so that a
typing error in the last stage's settings is found before the first one has run.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from conf import ConfigError, Stage, arguments, compose, ending_in_one_line, log_to_stderr
from conf.pipeline import PIPELINE, commands
from conf.schema import SCHEMA_VERSION

PARAMS = Path("params.yaml")
COMPOSED = Path("artifacts/composed.json")
TURN = Path("artifacts/turn.json")
EXPERIMENT_VARIABLE = "DVC_EXP_NAME"
"""DVC sets it for the stages of an experiment, to the experiment's name."""

log = logging.getLogger(__name__)


def write_if_changed(path: Path, text: str) -> bool:
    """Write a text file in one step where its content differs; return whether it did."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        file.write(text)
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(file.name, 0o666 & ~umask)
    os.replace(file.name, path)
    return True


def to_yaml(tree: Mapping[str, Any]) -> str:
    """Return the text that DVC would write for this tree inside an experiment."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(dict(tree)))


def from_yaml(path: Path) -> dict[str, Any]:
    """Read a frozen configuration."""
    from omegaconf import OmegaConf

    return dict(OmegaConf.to_container(OmegaConf.load(path)))  # type: ignore[arg-type]


def leaves(tree: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and value of everything in a tree that is not a mapping.

    >>> list(leaves({"a": {"b": 1, "c": []}}))
    [('a.b', 1), ('a.c', [])]
    """
    if not isinstance(tree, Mapping):
        yield where, tree
        return
    for key, value in tree.items():
        yield from leaves(value, f"{where}.{key}" if where else str(key))


_INSTEAD = {
    "root": "Set the environment variable BLURLOOP_COLLECTION_ROOT instead",
    "start": "Set the environment variable BLURLOOP_STARTS to the folder around it instead",
}
"""By the setting's own name: what serves machines that keep things elsewhere."""
_RELATIVE = "Give a path relative to the repository instead"


def check_names_no_machine(tree: Mapping[str, Any]) -> None:
    """Refuse absolute paths: the composition is committed and must hold on other machines.

    Raises:
        ConfigError: If a value is an absolute path.
    """
    for name, value in leaves(tree):
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and (PurePath(text).is_absolute() or text.startswith("~")):
                last = name.rpartition(".")[2]
                raise ConfigError(
                    f"{name} is {text!r}, a path of this machine, and would be committed with "
                    f"params.yaml. {_INSTEAD.get(last, _RELATIVE)}, or try it in an experiment: "
                    f"dvc exp run -S {name}=PATH"
                )


def entries(pipeline: Path = PIPELINE) -> list[Stage]:
    """Return the entry points of the pipeline's stages, `config` aside.

    They are imported by name: this package composes and knows none of the others.
    """
    names = dict.fromkeys(command.module for command in commands(pipeline))
    found = []
    for name in names:
        if name != __package__:
            module = importlib.import_module(name)
            if hasattr(module, "__path__"):
                module = importlib.import_module(f"{name}.__main__")
            found.append(module.main)
    return found


def check_sections(tree: Mapping[str, Any], stages: list[Stage]) -> None:
    """Check every section against the stages that read it.

    Raises:
        ConfigError: If a section is missing or does not fit.
    """
    for entry in stages:
        arguments(tree, entry.sections())


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return one line per value that differs between two trees."""
    before, after = dict(leaves(old)), dict(leaves(new))
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return [f"{name}: {before.get(name, '-')} -> {after.get(name, '-')}" for name in names]


def freeze(overrides: list[str]) -> None:
    """Compose, check and write `params.yaml`."""
    tree = compose(overrides)
    check_names_no_machine(tree)
    check_sections(tree, entries())
    old = from_yaml(PARAMS) if PARAMS.is_file() else {}
    if write_if_changed(PARAMS, to_yaml(tree)) and old:
        for line in changes(old, tree):
            log.info("params.yaml: %s", line)


def main() -> None:
    """Run the stage; overrides on the command line are for trying a composition by hand."""
    log_to_stderr()
    overrides = sys.argv[1:]
    if {"-h", "--help"} & set(overrides):
        print(f"{__doc__}\nusage: python -m conf [KEY=VALUE ...]")  # noqa: T201
        return
    experiment = bool(os.environ.get(EXPERIMENT_VARIABLE))
    if experiment:
        check_sections(from_yaml(PARAMS), entries())
    else:
        freeze(overrides)
    turn = {"schema_version": SCHEMA_VERSION, "kind": "experiment" if experiment else "loop"}
    write_if_changed(COMPOSED, json.dumps({"schema_version": SCHEMA_VERSION}) + "\n")
    write_if_changed(TURN, json.dumps(turn) + "\n")


if __name__ == "__main__":
    ending_in_one_line(main)
