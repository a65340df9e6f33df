"""Writes a winning experiment's settings into `conf/`: what `make adopt EXP=name` does.

    python -m conf.adopt NAME

What the experiment overrode is the difference between its `params.yaml` and the composition of
its own `conf/`, so that edits made to `conf/` since then stay. A difference that another option
of a group explains becomes that choice; what is left is written value by value where it is
defined. Comments stay. The result is composed again and must hold the experiment's values, or
nothing is written.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conf import ConfigError, compose, ending_in_one_line, one_line
from conf.choose import chosen

CONF = Path("conf")
EXPERIMENT = "experiment"
_ABSENT = object()


def leaves(tree: Any, where: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Return everything in a tree that is not a mapping with keys, by path.

    >>> leaves({"a": {"b": 1, "c": []}})
    {('a', 'b'): 1, ('a', 'c'): []}
    """
    if not isinstance(tree, Mapping) or not tree:
        return {where: tree}
    found: dict[tuple[str, ...], Any] = {}
    for key, value in tree.items():
        found.update(leaves(value, (*where, str(key))))
    return found


def differences(old: Any, new: Any) -> dict[tuple[str, ...], Any]:
    """Return the leaves of `new` that `old` lacks or has otherwise."""
    before = leaves(old)
    return {
        path: value for path, value in leaves(new).items() if before.get(path, _ABSENT) != value
    }


def distance(old: Any, new: Any) -> int:
    """Return the number of leaves in which two trees differ, either way."""
    return len({*differences(old, new), *differences(new, old)})


@dataclass
class Overrides:
    """What an experiment changed: choices of groups, and values."""

    groups: dict[str, str] = field(default_factory=dict)
    values: dict[tuple[str, ...], Any] = field(default_factory=dict)

    def arguments(self, chosen_experiment: bool) -> list[str]:
        """Return the choices as Hydra's overrides."""
        return [
            f"+{group}={option}"
            if group == EXPERIMENT and not chosen_experiment
            else f"{group}={option}"
            for group, option in self.groups.items()
        ]

    def __str__(self) -> str:
        """Return one line per setting."""
        groups = [f"{group}={option}" for group, option in self.groups.items()]
        values = [f"{'.'.join(path)}={value}" for path, value in self.values.items()]
        return "\n".join(groups + values)


def _git(*words: str) -> bytes:
    ended = subprocess.run(["git", *words], capture_output=True, check=False)
    if ended.returncode:
        raise ConfigError(f"git {words[0]} failed: {ended.stderr.decode().strip()}")
    return ended.stdout


def experiments() -> dict[str, str]:
    """Return the commit of each finished experiment, by name."""
    lines = _git("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps").decode()
    known: dict[str, str] = {}
    for line in lines.splitlines():
        commit, reference = line.split(" ", 1)
        if reference.count("/") >= 4:  # refs/exps/<2 hex>/<38 hex of the baseline>/<name>
            known[reference.rsplit("/", 1)[1]] = commit
    return known


def revision_of(name: str) -> str:
    """Return the commit of an experiment.

    Raises:
        ConfigError: If there is no experiment of this name.
    """
    known = experiments()
    if name not in known:
        listed = ", ".join(sorted(known)) or "none"
        raise ConfigError(f"there is no experiment {name!r}; known: {listed} (dvc exp show)")
    return known[name]


def extract(revision: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Unpack `conf/` of a revision; return it and the parameters that it ran with."""
    from omegaconf import OmegaConf

    archive = _git("archive", "--format=zip", revision, "conf", "params.yaml")
    with zipfile.ZipFile(io.BytesIO(archive)) as packed:
        packed.extractall(folder)  # of tar, Python 3.11.2 cannot refuse paths outside of it
    params = OmegaConf.to_container(OmegaConf.load(folder / "params.yaml"))
    return folder / "conf", params  # type: ignore[return-value]


def options(folder: Path, group: str) -> list[str]:
    """Return the options of a group, sorted."""
    return sorted(path.stem for path in (folder / group).glob("*.yaml"))


def groups(folder: Path) -> list[str]:
    """Return the groups of a configuration folder; nested ones come after their parents."""
    found = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_dir())
    return [str(path) for path in found if "__pycache__" not in path.parts]


def has_chosen_experiment(folder: Path) -> bool:
    """Return whether a named setting is selected in config.yaml."""
    text = (folder / "config.yaml").read_text(encoding="utf-8")
    return text != chosen(text, "none")


def infer(folder: Path, params: Mapping[str, Any]) -> Overrides:
    """Return the overrides that lead from a configuration folder to these parameters."""
    found = Overrides()
    is_chosen = has_chosen_experiment(folder)
    best = distance(compose(folder=folder), params)
    order = [EXPERIMENT, *(group for group in groups(folder) if group != EXPERIMENT)]
    for group in order:
        for option in options(folder, group) if best else []:
            tried = Overrides({**found.groups, group: option})
            try:
                left = distance(compose(tried.arguments(is_chosen), folder=folder), params)
            except ConfigError:
                continue  # not an option on its own, or a group that the defaults do not name
            if left < best:
                found, best = tried, left
    base = compose(found.arguments(is_chosen), folder=folder)
    found.values = differences(base, params)
    gone = {path for path in leaves(base) if path not in leaves(params)}
    gone = {path for path in gone if not any(path == p[: len(path)] for p in found.values)}
    if gone:
        listed = ", ".join(".".join(path) for path in sorted(gone))
        raise ConfigError(f"the experiment removed {listed}; remove it from conf/ by hand")
    return found


def _with_choice(text: str, group: str, option: str) -> str:
    if group == EXPERIMENT:
        return chosen(text, option)
    line = re.compile(rf"^(  - (?:override )?/?{re.escape(group)}: )[\w-]+", re.MULTILINE)
    return line.sub(rf"\g<1>{option}", text, count=1)


def _choices(folder: Path) -> dict[str, str]:
    """Return the chosen option of each group.

    Raises:
        ConfigError: If a choice has no file.
    """
    import hydra
    from hydra.errors import HydraException

    try:
        with hydra.initialize_config_dir(str(folder.resolve()), version_base="1.3"):
            tree = hydra.compose("config", return_hydra_config=True)
    except HydraException as error:
        raise ConfigError(one_line(error)) from error
    return {str(k): str(v) for k, v in tree.hydra.runtime.choices.items() if v is not None}


def _homes(folder: Path, path: tuple[str, ...]) -> list[tuple[Path, tuple[str, ...]]]:
    """Return files that may define a value and its path in each, last word first."""
    choices = _choices(folder)
    homes: list[tuple[Path, tuple[str, ...]]] = []
    if EXPERIMENT in choices:
        homes.append((folder / EXPERIMENT / f"{choices[EXPERIMENT]}.yaml", path))
    homes.append((folder / "config.yaml", path))
    for depth in range(len(path) - 1, 0, -1):
        group = "/".join(path[:depth])
        if group in choices:
            homes.append((folder / group / f"{choices[group]}.yaml", path[depth:]))
    return homes


def _yaml() -> Any:
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 100
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _has(tree: Any, path: tuple[str, ...]) -> bool:
    for key in path:
        if not isinstance(tree, Mapping) or key not in tree:
            return False
        tree = tree[key]
    return True


def _written(file: Path, path: tuple[str, ...], value: Any) -> str:
    """Return a file's text with one value set; comments stay."""
    yaml = _yaml()
    tree = yaml.load(file.read_text(encoding="utf-8")) or {}
    node = tree
    for key in path[:-1]:
        node = node.setdefault(key, {})
    node[path[-1]] = value
    stream = io.StringIO()
    yaml.dump(tree, stream)
    return stream.getvalue()


def write_value(folder: Path, path: tuple[str, ...], value: Any) -> Path:
    """Write a value where it is defined, else where it has the last word; return the file.

    Raises:
        ConfigError: If no file takes the value without changing another one with it.
    """
    wanted = leaves(compose(folder=folder)) | leaves(value, path)
    homes = _homes(folder, path)
    defining = [home for home in homes if _has(_yaml().load(home[0].read_text()), home[1])]
    for file, inner in [*defining, *homes]:
        old = file.read_text(encoding="utf-8")
        file.write_text(_written(file, inner, value), encoding="utf-8")
        # An anchor that two sections share, or a file of higher rank, would show here.
        if leaves(compose(folder=folder)) == wanted:
            return file
        file.write_text(old, encoding="utf-8")
    raise ConfigError(f"cannot write {'.'.join(path)}={value} into conf/; edit it by hand")


def apply(overrides: Overrides, folder: Path) -> None:
    """Write overrides into a configuration folder.

    Raises:
        ConfigError: If the folder cannot take one of them.
    """
    config = folder / "config.yaml"
    for group, option in overrides.groups.items():
        text = config.read_text(encoding="utf-8")
        config.write_text(_with_choice(text, group, option), encoding="utf-8")
        if _choices(folder).get(group) != option:
            raise ConfigError(f"cannot choose {group}={option} in conf/; edit it by hand")
    for path, value in overrides.values.items():
        write_value(folder, path, value)


def adopt(name: str, folder: Path = CONF) -> Overrides:
    """Write an experiment's overrides into `conf/`, all or nothing.

    Raises:
        ConfigError: If there is no such experiment, or `conf/` cannot take its settings.
    """
    revision = revision_of(name)
    with tempfile.TemporaryDirectory(prefix="blurloop-adopt-") as work:
        overrides = infer(*extract(revision, Path(work)))
    before = {path: path.read_bytes() for path in folder.rglob("*.yaml")}
    try:
        apply(overrides, folder)
    except BaseException:
        for path, content in before.items():
            path.write_bytes(content)
        raise
    return overrides


def main() -> None:
    """Adopt the experiment that the command line names."""
    if len(sys.argv) != 2:
        raise ConfigError("usage: make adopt EXP=name (dvc exp show lists the names)")
    overrides = adopt(sys.argv[1])
    print(overrides if str(overrides) else "the experiment overrode nothing")  # noqa: T201


if __name__ == "__main__":
    ending_in_one_line(main)
