"""Writes into `dvc.yaml` which code and which settings each stage depends on.

    python -m conf.dependencies            # rewrites the two lists of every stage
    python -m conf.dependencies --check    # exits with 1 where they are out of date

Code: every first-party module that a stage's entry point imports, directly or not, also inside
functions, so that DVC neither serves a result of older code nor trains again for a change in
drawing. A subpackage that a stage imports as a whole stands as one folder: DVC reads and writes
dvc.lock in plain Python at each stage that always runs, which is most of the time of a turn with
nothing to do. Such a stage gets no code at all, which would decide nothing. Left out are modules
that hold nothing but a docstring, imports for type checkers only, and `conf`: what it hands to a
stage is tracked value by value, as parameters.

Settings: the sections that the entry point names as its parameters. `network` is left out, as it
stands on the command line, and so is `tracking`: where runs are recorded changes no result.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conf import PACKAGES, ConfigError, ending_in_one_line
from conf.pipeline import PIPELINE, Command, body, command_of

UNTRACKED = frozenset({"network", "tracking"})


@functools.cache
def parsed(path: Path) -> ast.Module:
    """Return a file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def file_of(module: str) -> Path | None:
    """Return the file of a first-party module relative to the repository, or None."""
    path = Path(*module.split("."))
    for candidate in (path / "__init__.py", path.with_suffix(".py")):
        if candidate.is_file():
            return candidate
    return None


def entry_file(module: str) -> Path:
    """Return the file that `python -m` runs.

    Raises:
        ConfigError: If there is no such module.
    """
    path = Path(*module.split("."))
    for candidate in (path / "__main__.py", path.with_suffix(".py")):
        if candidate.is_file():
            return candidate
    raise ConfigError(f"dvc.yaml starts `python -m {module}`, but there is no such module")


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a syntax tree without what only type checkers read."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not _is_type_checking(child):
            yield from _running(child)


def _absolute(node: ast.ImportFrom, path: Path) -> str:
    if not node.level:
        return node.module or ""
    package = path.parent.parts[: len(path.parent.parts) - node.level + 1]
    return ".".join([*package, *filter(None, [node.module])])


def imports(path: Path) -> set[Path]:
    """Return the first-party files that a file imports, the packages around them included."""
    names: set[str] = set()
    for node in _running(parsed(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, path)
            names.update({base, *(f"{base}.{alias.name}" for alias in node.names)})
    found: set[Path] = set()
    for name in names:
        parts = name.split(".")
        if parts[0] in PACKAGES:
            around = (".".join(parts[:length]) for length in range(1, len(parts) + 1))
            found.update(filter(None, map(file_of, around)))
    return found


def _is_empty(path: Path) -> bool:
    """Return whether a file holds nothing that runs: a docstring and `__future__` at most."""
    return all(
        (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        or (isinstance(node, ast.ImportFrom) and node.module == "__future__")
        for node in parsed(path).body
    )


def code_of(module: str) -> list[str]:
    """Return the first-party files that running a module may execute, sorted.

    A subpackage of which all files are among them is named in their place.
    """
    todo, seen = [entry_file(module)], set()
    while todo:
        path = todo.pop()
        if path not in seen and path.parts[0] != "conf":
            seen.add(path)
            todo.extend(imports(path))
    return sorted(map(str, _folded({path for path in seen if not _is_empty(path)})))


def _folded(files: set[Path]) -> set[Path]:
    """Return files with those of each subpackage that is there as a whole named by its folder."""
    for folder in {path.parent for path in files if len(path.parts) > 2}:
        whole = {path for path in folder.rglob("*.py") if not _is_empty(path)}
        if whole <= files:
            files = files - whole | {folder}
    return files


def sections_of(module: str) -> list[str]:
    """Return the sections that a stage's entry point names as its parameters.

    Raises:
        ConfigError: If the module has no function decorated with `stage`.
    """
    path = entry_file(module)
    for node in parsed(path).body:
        if isinstance(node, ast.FunctionDef) and any(
            isinstance(mark, ast.Name) and mark.id == "stage" for mark in node.decorator_list
        ):
            return [argument.arg for argument in node.args.args]
    raise ConfigError(f"{path} has no entry point; decorate its main with conf.stage")


def parameters_of(command: Command) -> list[str]:
    """Return the parameters that DVC tracks for a stage, sorted."""
    names = sorted(set(sections_of(command.module)) - UNTRACKED)
    if "${item}" in command.text:
        # One stage per item reads its own part of the section that is named like the stage.
        names = [f"{name}.${{item}}" if name == command.stage else name for name in names]
    return names


def is_code(path: Any) -> bool:
    """Return whether an entry under `deps` is one that this program writes."""
    return isinstance(path, str) and (path.endswith(".py") or Path(path).parts[0] in PACKAGES)


def updated(text: str) -> str:
    """Return the text of dvc.yaml with both lists of every stage written anew."""
    import io

    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 100
    yaml.indent(mapping=2, sequence=4, offset=2)
    pipeline = yaml.load(text)
    for name, stage in pipeline["stages"].items():
        _update(name, body(stage))
    stream = io.StringIO()
    yaml.dump(pipeline, stream)
    return stream.getvalue()


def _update(name: str, stage: Any) -> None:
    command = command_of(name, stage["cmd"])
    if command is None or command.module == __package__:
        return
    deps = stage["deps"]
    for position in reversed([i for i, path in enumerate(deps) if is_code(path)]):
        del deps[position]
    code = [] if stage.get("always_changed") else code_of(command.module)
    for position, path in enumerate(code):
        deps.insert(position, path)
    parameters = parameters_of(command)
    if parameters and list(stage.get("params", [])) != parameters:
        if "params" not in stage:
            stage.insert(list(stage).index("deps"), "params", parameters)
        else:
            stage["params"] = parameters


def main() -> None:
    """Rewrite dvc.yaml, or check it."""
    old = PIPELINE.read_text(encoding="utf-8")
    new = updated(old)
    if old == new:
        return
    if "--check" in sys.argv[1:]:
        raise ConfigError("dvc.yaml is out of date; run `python -m conf.dependencies`")
    PIPELINE.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    ending_in_one_line(main)
