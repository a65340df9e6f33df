"""Which files a command works on, and where each result goes. No picture is opened here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from anonymization.errors import BlurloopError
from anonymization.files import FileError


class InputError(BlurloopError):
    """The command's paths contradict each other."""

    exit_code = 2


@dataclass(frozen=True)
class Task:
    """One picture to anonymize."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Plan:
    """What a command will do.

    Attributes:
        tasks: Pictures, in order.
        unreadable: Paths that could not be looked into, with the reason.
        skipped: Files in folders whose names are not those of pictures.
    """

    tasks: tuple[Task, ...]
    unreadable: tuple[tuple[Path, str], ...]
    skipped: tuple[Path, ...]


def make_plan(
    inputs: Iterable[Path], output: Path, *, suffixes: tuple[str, ...], recursive: bool = True
) -> Plan:
    """Mirror inputs into an output folder.

    A file goes to `output/name`; a folder's files keep their paths inside it. A file that is named
    by itself is taken whatever its suffix. Links to folders are followed, loops are listed.

    Raises:
        InputError: If two inputs would be written to one path, or one over an input.
    """
    tasks: list[Task] = []
    unreadable: list[tuple[Path, str]] = []
    skipped: list[Path] = []
    inside = _identity(output)
    for path in inputs:
        if not path.is_dir():
            tasks.append(Task(path, output / path.name))
            continue
        for found in _walk(path, recursive=recursive, leave_out=inside, ancestors=()):
            if isinstance(found, tuple):
                unreadable.append(found)
            elif found.suffix.lower() in suffixes:
                tasks.append(Task(found, output / found.relative_to(path)))
            else:
                skipped.append(found)
    _refuse_collisions(tasks)
    return Plan(tuple(tasks), tuple(unreadable), tuple(skipped))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _walk(
    folder: Path,
    *,
    recursive: bool,
    leave_out: tuple[int, int] | None,
    ancestors: tuple[tuple[int, int], ...],
) -> Iterator[Path | tuple[Path, str]]:
    """Yield files in order of name, and (path, reason) for what cannot be looked into."""
    identity = _identity(folder)
    if identity is None:
        yield folder, "cannot be looked into"
        return
    if identity in ancestors:
        yield folder, "is a link to a folder that holds it"
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield folder, f"cannot be looked into: {error.strerror or error}"
        return
    for entry in entries:
        path = Path(entry.path)
        if not path.is_dir():
            yield path
        elif recursive and _identity(path) != leave_out:
            yield from _walk(
                path, recursive=True, leave_out=leave_out, ancestors=(*ancestors, identity)
            )


def _refuse_collisions(tasks: Iterable[Task]) -> None:
    sources: dict[Path, Path] = {}
    targets: dict[str, Path] = {}
    listed = list(tasks)
    for task in listed:
        sources[_resolved(task.source)] = task.source
    for task in listed:
        # Case is folded: on some file systems A.jpg and a.jpg are one file.
        key = str(_resolved(task.target)).casefold()
        if key in targets:
            raise InputError(
                f"{task.source} and {targets[key]} would both be written to {task.target}; "
                "give them in separate runs with separate output folders"
            )
        targets[key] = task.source
        if _resolved(task.target) in sources:
            raise InputError(
                f"{task.target} is an input; choose an output folder apart from the inputs"
            )


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:
        raise FileError(f"{path} cannot be followed: {error}") from error
