"""Picture files below a folder, with digests that are computed once per change of a file."""

from __future__ import annotations

import os
from collections import deque
from datetime import UTC, date, datetime
from pathlib import Path

from anonymization.errors import BlurloopError
from anonymization.files import read_json, sha256_of_file, write_json
from data.layout import WORK
from data.sources.protocol import SourceError, UnreadableEntryError

ROOT_VARIABLE = "BLURLOOP_COLLECTION_ROOT"
MISSING = "missing"
CACHE = WORK / "digests.json"
SCHEMA_VERSION = 1


def root_folder(configured: str | None) -> Path:
    """Return the folder that pictures come from.

    A machine's path does not belong in a committed params.yaml: it comes from the environment
    unless the configuration names one.

    Raises:
        SourceError: If neither names a folder, or there is none of that name.
    """
    named = configured or os.environ.get(ROOT_VARIABLE)
    if not named:
        raise SourceError(
            "this source needs a folder: set the environment variable "
            f"{ROOT_VARIABLE}, or collection.root"
        )
    root = Path(named).expanduser()
    if not root.is_dir():
        by = "collection.root" if configured else ROOT_VARIABLE
        raise SourceError(f"{by} is {named!r}, which is not a folder; correct it")
    return root.resolve()


def is_past(retain_until: str | None) -> bool:
    """Return whether the last day (ISO 8601) that something may be kept has gone by, in UTC.

    >>> is_past("1999-12-31"), is_past(None)
    (True, False)
    """
    if retain_until is None:
        return False
    return date.fromisoformat(retain_until[:10]) < datetime.now(UTC).date()


def picture_files(root: Path) -> list[str]:
    """Return the picture files below a folder as sorted relative paths; hidden ones are skipped.

    Linked folders are followed, each once, so that a link to a folder above ends.
    """
    from anonymization.formats.picture import SUFFIXES

    found: list[str] = []
    seen: set[Path] = set()
    links = deque([root])
    while links:
        # All real folders before the next link: by one its pictures would get another name.
        todo = [links.popleft()]
        while todo:
            folder = todo.pop()
            if folder.resolve() in seen:
                continue
            seen.add(folder.resolve())
            for path in _listed(folder):
                if path.is_dir():
                    (links if path.is_symlink() else todo).append(path)
                elif path.suffix.lower() in SUFFIXES:
                    found.append(path.relative_to(root).as_posix())
    return sorted(found)


def _listed(folder: Path) -> list[Path]:
    """Return what a folder holds, hidden things aside, sorted.

    Raises:
        SourceError: If it cannot be read: its pictures would leave the collection without a word.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise SourceError(
            f"{folder} cannot be read: {error.strerror}; mend its permissions, or take it away"
        ) from error


class Digests:
    """SHA-256s of files, remembered by path, size and time of change."""

    def __init__(self, cache: Path = CACHE) -> None:
        self._cache = cache
        self._known: dict[str, list[int | str]] = {}
        if cache.exists():
            try:
                self._known = read_json(cache, schema_version=SCHEMA_VERSION)["files"]
            except (BlurloopError, KeyError):
                self._known = {}  # only a cache: a damaged one is made again
        self._changed = False

    def of(self, path: Path) -> str:
        """Return a file's SHA-256, read only if the file changed since the last time."""
        status = path.stat()
        known = self._known.get(str(path))
        if known and known[:2] == [status.st_size, status.st_mtime_ns]:
            return str(known[2])
        digest = sha256_of_file(path)
        self._known[str(path)] = [status.st_size, status.st_mtime_ns, digest]
        self._changed = True
        return digest

    def of_or_missing(self, path: Path) -> str:
        """Return a file's SHA-256, or `MISSING` where it cannot be read: a link to nowhere, say."""
        try:
            return self.of(path) if path.is_file() else MISSING
        except OSError:
            return MISSING

    def save(self) -> None:
        """Write what was learned."""
        if self._changed:
            values = {"schema_version": SCHEMA_VERSION, "files": self._known}
            write_json(self._cache, values, indent=None)


def is_inside(name: str) -> bool:
    """Return whether a name stays inside its folder.

    Links there are the user's own; a name out of a foreign annotation file is not.

    >>> is_inside("a/b.jpg"), is_inside("../b.jpg"), is_inside("/etc/b.jpg")
    (True, False, False)
    """
    return not Path(name).is_absolute() and ".." not in Path(name).parts


def read_bytes(root: Path, name: str) -> bytes:
    """Read a file of a source.

    Raises:
        UnreadableEntryError: If it cannot be read, or leads out of the source.
    """
    if not is_inside(name):
        raise UnreadableEntryError("its name leads out of the source folder")
    path = root / name
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableEntryError(f"cannot be read: {error.strerror}") from error
