"""Which pictures a command works on, and where each result goes. No picture is opened here."""

from __future__ import annotations

import fnmatch
import glob
import itertools
import os
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from anonymization.errors import BlurloopError
from anonymization.job.archives import ArchiveError, contents, is_archive, members

STREAM = "-"
"""Stands for standard input, and as an output for standard output."""


_RESULTS = "holds results of this command"
_ARCHIVE = "is an archive; name it by itself"
_NO_PICTURE = "its name is not that of a picture"

UNREAD = {
    **dict.fromkeys((".heic", ".heif", ".avif", ".jxl"), "convert it to JPEG"),
    ".gif": "convert it to PNG",
    **dict.fromkeys(
        (".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"),
        "develop it to JPEG or TIFF",
    ),
    ".insp": "export it as JPEG with the camera's program",
}
"""File name endings of pictures that are not read, in lower case, and what to do with each."""

_KINDS_MAX = 8
"""Kinds of skipped files that a line names; a folder may hold any number."""


class InputError(BlurloopError):
    """The command's paths contradict each other."""

    exit_code = 2


@dataclass(frozen=True)
class Task:
    """One picture to anonymize.

    Attributes:
        source: Its file, or the archive that holds it.
        target: Where the result goes.
        name: Path below its input folder or archive, with `/`; also of the result below the
            output folder, and what globs and known regions name it by.
        member: Name inside the archive; None for a file.
    """

    source: Path
    target: Path
    name: str
    member: str | None = None

    @property
    def file(self) -> Path | None:
        """The file that is read, of an archive the whole; None for standard input."""
        return None if str(self.source) == STREAM else self.source

    @property
    def shown(self) -> str:
        """What to call it in reports and errors."""
        if str(self.source) == STREAM:
            return "standard input"
        return shown(self.source) + ("" if self.member is None else one_line(f": {self.member}"))


@dataclass(frozen=True)
class Plan:
    """What a command will do.

    Attributes:
        tasks: Pictures, in order.
        unreadable: Paths that could not be looked into and pictures of formats that are not read,
            with the reason.
        skipped: Files whose names are not those of pictures, with what they are.
    """

    tasks: tuple[Task, ...]
    unreadable: tuple[tuple[str, str], ...]
    skipped: tuple[tuple[str, str], ...]

    def loaded(self) -> Iterator[tuple[Task, bytes | BlurloopError | None]]:
        """Yield tasks with the bytes of those inside archives; None for files.

        An archive is read once, in its own order, by whoever iterates.
        """
        for archive, group in itertools.groupby(
            self.tasks, key=lambda task: task.source if task.member is not None else None
        ):
            tasks = list(group) if archive is not None else []
            if archive is None:
                yield from ((task, None) for task in group)
                continue
            waiting = {task.member or "": task for task in tasks}
            try:
                for name, data in contents(archive, list(waiting)):
                    yield waiting.pop(name), data
            except ArchiveError as error:
                yield from ((task, error) for task in waiting.values())
                continue
            missing = ArchiveError(f"{archive} has changed: a member is gone")
            yield from ((task, missing) for task in waiting.values())


class _Planner:
    """Collects what a command will do, input by input."""

    def __init__(
        self,
        output: Path,
        suffixes: tuple[str, ...],
        *,
        recursive: bool,
        leave_out: Iterable[Path] = (),
    ) -> None:
        self.output = output
        self.suffixes = suffixes
        self.recursive = recursive
        self.results = [resolved(folder) for folder in (output, *leave_out)]
        self.inside = {_identity(folder) for folder in self.results} - {None}
        self.tasks: list[Task] = []
        self.unreadable: list[tuple[str, str]] = []
        self.skipped: list[tuple[str, str]] = []

    def add(self, path: Path) -> None:
        """Take an input: a folder, an archive, a file, or a pattern that names some.

        Raises:
            InputError: If it holds nothing to work on: a disk that is not mounted must not pass as
                one that is done.
        """
        before, skipped = len(self.tasks) + len(self.unreadable), len(self.skipped)
        self._add(path)
        if len(self.tasks) + len(self.unreadable) == before:
            raise InputError(self._nothing_in(path, self.skipped[skipped:]))

    def _nothing_in(self, path: Path, skipped: list[tuple[str, str]]) -> str:
        found = f" (skipped: {kinds_of(skipped)})" if skipped else ""
        deeper = "" if self.recursive else ", folders inside of it aside (--no-recursive)"
        archives = "name archives by themselves, " * any(r == _ARCHIVE for _, r in skipped)
        return (
            f"{shown(path)} holds no picture{found}{deeper}; {archives}correct the input, or see "
            "that its disk is mounted"
        )

    def _add(self, path: Path) -> None:
        if path.is_dir():
            self._add_folder(path, path)
        elif os.path.lexists(path) or not glob.has_magic(str(path)):
            check_there(path)
            if is_archive(path):
                self._add_archive(path)
            else:
                self._add_file(path, path.name)
        else:
            self._add_pattern(path)

    def _add_file(self, path: Path, name: str) -> None:
        self.tasks.append(Task(path, self.output / name, name))

    def _add_folder(self, folder: Path, base: Path) -> None:
        for found in _walk(folder, recursive=self.recursive, leave_out=self.inside):
            if isinstance(found, tuple):
                self._leave_out_folder(*found)
            elif found.suffix.lower() in self.suffixes:
                self._add_file(found, found.relative_to(base).as_posix())
            elif is_archive(found):
                self.skipped.append((shown(found), _ARCHIVE))
            else:
                self._leave_out(shown(found), found.suffix)

    def _leave_out_folder(self, folder: Path, reason: str) -> None:
        listed = self.skipped if reason == _RESULTS else self.unreadable
        listed.append((shown(folder), reason))

    def _leave_out(self, where: str, suffix: str) -> None:
        """List a file that is not taken: as failed where it is a picture by its name."""
        advice = UNREAD.get(suffix.lower())
        if advice is None:
            self.skipped.append((where, _NO_PICTURE))
        else:
            self.unreadable.append((where, f"{suffix[1:].upper()} is not read; {advice}"))

    def _add_pattern(self, pattern: Path) -> None:
        parts = list(itertools.takewhile(lambda p: not glob.has_magic(p), pattern.parts))
        base = Path(*parts)
        # A pattern that starts in a folder of results asks for what is there.
        start = resolved(base)
        results = [folder for folder in self.results if not start.is_relative_to(folder)]
        folders: list[Path] = []
        unread: list[tuple[Path, str]] = []
        if EVERY_FOLDER in pattern.parts:
            leave_out = {_identity(folder) for folder in results} - {None}
            found = list(_matches_below(pattern, leave_out=leave_out))
            files = sorted(path for path in found if not isinstance(path, tuple))
            unread = [one for one in found if isinstance(one, tuple)]
        else:
            matches = [Path(path) for path in sorted(glob.glob(str(pattern)))]
            folders = [path for path in matches if path.is_dir()]
            files = [path for path in matches if not path.is_dir()]
        if not files and not folders:
            why = f" ({shown(unread[0][0])} {unread[0][1]})" if unread else ""
            raise InputError(f"{pattern} matches nothing{why}; correct the pattern")
        for one in unread:
            self._leave_out_folder(*one)
        for folder in folders:
            if _identity(folder) not in self.inside:
                self._add_folder(folder, base)
        for path in files:
            if any(map(resolved(path).is_relative_to, results)):
                self.skipped.append((shown(path), _RESULTS))
            elif path.suffix.lower() in self.suffixes:
                self._add_file(path, path.relative_to(base).as_posix())
            elif is_archive(path):
                self.skipped.append((shown(path), _ARCHIVE))
            else:
                self._leave_out(shown(path), path.suffix)

    def _add_archive(self, path: Path) -> None:
        try:
            listed = members(path)
        except ArchiveError as error:
            self.unreadable.append((shown(path), one_line(str(error))))
            return
        for member in listed:
            where = f"{shown(path)}: {one_line(member.name)}"
            suffix = PurePosixPath(member.name).suffix
            if suffix.lower() not in self.suffixes:
                self._leave_out(where, suffix)
            elif member.path is None:
                self.unreadable.append((where, member.reason))
            else:
                name = member.path.as_posix()
                self.tasks.append(Task(path, self.output / name, name, member.name))


def make_plan(
    inputs: Iterable[Path],
    output: Path,
    *,
    suffixes: tuple[str, ...],
    recursive: bool = True,
    leave_out: Iterable[Path] = (),
) -> Plan:
    """Mirror inputs into an output folder.

    A file goes to `output/name`; files of a folder or archive keep their paths inside it, and
    those of a pattern their paths below its first part without a wildcard. A file that is named
    by itself is taken whatever its suffix. Links to folders are followed, loops are listed.

    Args:
        inputs: Pictures, folders, archives and patterns.
        output: Folder for the results; not looked into where it lies in an input folder.
        suffixes: Name endings of pictures, in lower case.
        recursive: Look into folders inside folders.
        leave_out: Further folders that hold results.

    Raises:
        InputError: If two inputs would be written to one path, or one over an input, an input is
            missing, a pattern matches nothing, or an input holds no picture.
    """
    planner = _Planner(output, suffixes, recursive=recursive, leave_out=leave_out)
    for path in inputs:
        planner.add(path)
    _refuse_collisions(planner.tasks)
    return Plan(tuple(planner.tasks), tuple(planner.unreadable), tuple(planner.skipped))


def check_there(path: Path) -> None:
    """Refuse an input that is missing, as a typing error or a disk that is not mounted has it.

    Raises:
        InputError: If it is.
    """
    try:
        path.lstat()
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"{shown(path)} cannot be read: {why}; correct the input") from error


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


LINKS_MAX = 16
EVERY_FOLDER = "**"


def _walk(
    folder: Path,
    *,
    recursive: bool,
    leave_out: Collection[tuple[int, int] | None],
    ancestors: tuple[tuple[int, int], ...] = (),
    linked: Counter[tuple[int, int]] | None = None,
) -> Iterator[Path | tuple[Path, str]]:
    """Yield files in order of name, and (path, reason) for what cannot be looked into.

    A folder is not looked into more often than `LINKS_MAX` times through links: a chain of folders
    with two links each to the next has millions of paths.
    """
    linked = Counter() if linked is None else linked
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
        if not os.path.isdir(path):
            yield path
            continue
        if not recursive:
            continue
        inner = _identity(path)
        if inner in leave_out:
            yield path, _RESULTS
        elif inner is not None and entry.is_symlink() and linked[inner] >= LINKS_MAX:
            yield path, f"is a link to a folder to which {LINKS_MAX} others led already"
        else:
            if inner is not None and entry.is_symlink():
                linked[inner] += 1
            yield from _walk(
                path,
                recursive=True,
                leave_out=leave_out,
                ancestors=(*ancestors, identity),
                linked=linked,
            )


def _matches_below(
    pattern: Path, *, leave_out: Collection[tuple[int, int] | None]
) -> Iterator[Path | tuple[Path, str]]:
    """Yield files that a pattern with `**` names, and what of their folders cannot be looked into.

    `glob` would follow links in a loop until the system refuses the path. A folder or file with a
    dot before its name is matched by a part with one alone, as there.
    """
    parts = pattern.parts
    first = parts.index(EVERY_FOLDER)
    start = Path(*parts[:first])
    seen = set()
    for folder in map(Path, sorted(glob.glob(str(start)))):
        for found in _walk(folder, recursive=True, leave_out=leave_out) if folder.is_dir() else ():
            path = found[0] if isinstance(found, tuple) else found
            below = path.relative_to(folder).parts
            if path not in seen and (
                isinstance(found, tuple) or _matches_parts(below, parts[first:])
            ):
                seen.add(path)
                yield found


def _matches_parts(names: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Tell whether the parts of a path match those of a pattern.

    >>> _matches_parts(("a", "b", "1.jpg"), ("**", "*.jpg")), _matches_parts((".a",), ("**",))
    (True, False)
    """
    reached = {0}  # parts of the pattern that are used up
    for name in names:
        hidden, following = name.startswith("."), set()
        for place in _and_past_folders(reached, pattern):
            part = pattern[place] if place < len(pattern) else ""
            if part == EVERY_FOLDER:
                following |= set() if hidden else {place}
            elif fnmatch.fnmatchcase(name, part) and (not hidden or part.startswith(".")):
                following.add(place + 1)
        reached = following
    return len(pattern) in _and_past_folders(reached, pattern)


def _and_past_folders(places: set[int], pattern: tuple[str, ...]) -> set[int]:
    """Return places in a pattern, and those behind each `**` there, which may stand for nothing."""
    found = set(places)
    for place, part in enumerate(pattern):
        if place in found and part == EVERY_FOLDER:
            found.add(place + 1)
    return found


def _refuse_collisions(tasks: Iterable[Task]) -> None:
    sources: dict[Path, Path] = {}
    targets: dict[str, str] = {}
    listed = list(tasks)
    for task in listed:
        sources[resolved(task.source)] = task.source
    for task in listed:
        # Case is folded: on some file systems A.jpg and a.jpg are one file.
        target = resolved(task.target)
        key = str(target).casefold()
        if key in targets:
            raise InputError(
                f"{task.shown} and {targets[key]} would both be written to {task.target}; "
                "give them in separate runs with separate output folders"
            )
        targets[key] = task.shown
        if target in sources:
            raise InputError(
                f"{task.target} is an input; choose an output folder apart from the inputs"
            )


def resolved(path: Path) -> Path:
    """Return a path without links and `..`; a link to itself stays, and fails when it is read."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return Path(os.path.abspath(path))


def read_source(path: Path) -> tuple[bytes, int]:
    """Read a picture's file; return its bytes and when it was last changed, in nanoseconds.

    Raises:
        PictureError: If it is no regular file, empty, too large, or cannot be read.
    """
    from anonymization.formats.picture import MAX_BYTES, PictureError

    try:
        # Looked at before it is opened: opening a pipe would wait for its other end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise PictureError(f"{path} is not a regular file")
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(MAX_BYTES + 1)
        if not data:
            raise PictureError(f"{path} is empty (0 bytes)")
        if len(data) > MAX_BYTES:
            raise PictureError(f"{path} has more than {MAX_BYTES} bytes, the most that are read")
        return data, status.st_mtime_ns
    except OSError as error:
        raise PictureError(f"{path} cannot be read: {error.strerror or error}") from error


def kinds_of(skipped: Iterable[tuple[str, str]]) -> str:
    """Return how many files of each kind were skipped, the most frequent first.

    Args:
        skipped: Paths and reasons, as in `Plan.skipped`.

    >>> kinds_of([("a.mp4", ""), ("b.zip", ""), ("c.MP4", ""), ("README", "")])
    '2 .mp4, 1 .zip, 1 without an ending'
    """
    kinds = Counter(
        "results of this command"
        if reason == _RESULTS
        else PurePosixPath(path).suffix.lower() or "without an ending"
        for path, reason in skipped
    )
    named = [f"{number} {kind}" for kind, number in kinds.most_common(_KINDS_MAX)]
    rest = kinds.total() - sum(number for _, number in kinds.most_common(_KINDS_MAX))
    return ", ".join([*named, *([f"{rest} others"] if rest else [])])


def shown(path: Path) -> str:
    """Return a path as text that any terminal and JSON takes, on one line."""
    return one_line(os.fsencode(path).decode("utf-8", "replace"))


def one_line(text: str) -> str:
    """Return text without line breaks and control characters."""
    printable = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in printable)
