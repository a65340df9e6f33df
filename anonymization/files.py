"""Files that are whole or not there: digests, JSON, and outputs that appear by one rename."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anonymization.errors import BlurloopError


class FileError(BlurloopError):
    """A file is missing or cannot be understood."""


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(value: Any, *, allow_nan: bool = False) -> str:
    """Return the SHA-256 of a value's canonical JSON (sorted keys, no spaces).

    Args:
        value: The value.
        allow_nan: Whether it may hold NaN or infinity, which JSON does not have.

    >>> sha256_of_json({"b": 1, "a": 2}) == sha256_of_json({"a": 2, "b": 1})
    True

    Raises:
        ValueError: If it holds NaN or infinity and may not.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=allow_nan)
    return hashlib.sha256(text.encode()).hexdigest()


def parse_json(text: str) -> Any:
    """Parse JSON that a person may have edited: a key given twice is an error.

    Python takes the last, so that what stands above it would be lost without a word.

    Raises:
        ValueError: If it is not JSON, or an object has a key twice.
    """
    return json.loads(text, object_pairs_hook=_without_repeats)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice!r} is given twice")
    return found


def read_json(path: Path, *, schema_version: int | None = None) -> Any:
    """Read a JSON file and check its `schema_version` where one is asked for.

    Raises:
        FileError: If the file is missing, is not JSON, or has another schema version.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileError(f"{path} is missing; run the stage that writes it (dvc repro)") from error
    except (OSError, ValueError) as error:
        raise FileError(f"{path} is not readable JSON: {error}") from error
    if schema_version is not None:
        found = value.get("schema_version") if isinstance(value, dict) else None
        if found != schema_version:
            raise FileError(
                f"{path} has schema version {found}; expected {schema_version}. "
                "Write it again with this version of Blurloop (dvc repro)"
            )
    return value


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """Write JSON in one step: readers see the old file or the new one, never half of it.

    Raises:
        ValueError: If the value holds NaN or infinity.
    """
    text = json.dumps(value, indent=indent, allow_nan=False) + "\n"
    write_bytes(path, text.encode())


def write_json_rows(path: Path, value: Any) -> None:
    """Write JSON that Git keeps, in one step: a line for each element of a list (`json_rows`)."""
    write_bytes(path, (json_rows(value) + "\n").encode())


def json_rows(value: Any, depth: int = 0) -> str:
    """Return JSON in which a list of rows takes one line a row, so that a diff shows which changed.

    >>> print(json_rows({"a": 1, "rows": [{"x": 1}, {"x": 2}]}))
    {
      "a": 1,
      "rows": [
        {"x": 1},
        {"x": 2}
      ]
    }

    Raises:
        ValueError: If the value holds NaN or infinity.
    """
    pad = "  " * (depth + 1)
    if isinstance(value, dict) and value:
        lines = [f"{json.dumps(key)}: {json_rows(v, depth + 1)}" for key, v in value.items()]
        opened, closed = "{}"
    elif isinstance(value, list) and any(isinstance(v, dict | list | str) for v in value):
        lines = [json.dumps(v, allow_nan=False) for v in value]
        opened, closed = "[]"
    else:
        return json.dumps(value, allow_nan=False)
    inner = ",\n".join(pad + line for line in lines)
    return f"{opened}\n{inner}\n{pad[2:]}{closed}"


def write_bytes(path: Path, content: bytes, *, overwrite: bool = True) -> None:
    """Write a file in one step, with the permissions that a plain `open` would give.

    Until it is whole the file has no name where the system can do that (Linux), so that even a
    kill leaves nothing behind; else it has a hidden one.

    Raises:
        FileExistsError: If it is there and may not be overwritten.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = _nameless_file(path.parent)
    if handle is not None:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            if _placed(handle, path, overwrite=overwrite):
                return
    _write_named(path, content, overwrite=overwrite)


def _placed(handle: int, path: Path, *, overwrite: bool) -> bool:
    """Give a nameless file its name; False where the system cannot do that."""
    try:
        if not overwrite or not os.path.lexists(path):
            try:
                _give_name(handle, path)
                return True
            except FileExistsError:
                if not overwrite:
                    raise
        name = path.parent / f"{_hidden(path)}{secrets.token_hex(8)}"
        _give_name(handle, name)  # fails where the name is taken
    except FileExistsError:
        raise
    except OSError:
        return False
    _rename(name, path)
    return True


def _hidden(path: Path) -> str:
    return f".{path.name[:40]}."


def _rename(name: Path, path: Path) -> None:
    try:
        os.replace(name, path)
    except BaseException:
        name.unlink(missing_ok=True)
        raise


def _nameless_file(folder: Path) -> int | None:
    """Open a file without a name; None where the system or the file system has none."""
    flag = getattr(os, "O_TMPFILE", None)
    if flag is None or not os.path.isdir("/proc/self/fd"):
        return None
    try:
        return os.open(folder, flag | os.O_WRONLY, 0o666)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
            return None
        raise


def _give_name(handle: int, path: Path) -> None:
    """Link an open file that has no name; fails where the name is taken."""
    # A folder's handle, though unused, makes Python call linkat, which follows the link in /proc.
    os.link(f"/proc/self/fd/{handle}", path, src_dir_fd=handle, follow_symlinks=True)


def _write_named(path: Path, content: bytes, *, overwrite: bool) -> None:
    name = path.parent / f"{_hidden(path)}{secrets.token_hex(8)}"
    # Opened as any new file is: to ask for the umask is to set it, for all threads at once.
    file = name.open("xb")
    try:
        with file:
            file.write(content)
        if not overwrite:
            os.link(name, path)
            name.unlink()
            return
    except BaseException:
        name.unlink(missing_ok=True)
        raise
    _rename(name, path)


class OutputError(BlurloopError):
    """An output path must not or cannot be written."""


class ExistsError(OutputError):
    """An output is there and may not be replaced.

    Attributes:
        target: Where it is.
    """

    def __init__(self, target: Path) -> None:
        super().__init__(target)
        self.target = target

    def __str__(self) -> str:
        return f"{self.target} exists; overwrite=True replaces it"


def check_output(source: Path | None, target: Path, *, overwrite: bool) -> None:
    """Refuse an output that would destroy something.

    Args:
        source: The file that it is made from; None where that is no file.
        target: Where it would go.
        overwrite: Whether a file there may be replaced.

    Raises:
        OutputError: If the target is the source, a folder, or there without leave to overwrite.
    """
    try:
        if source is not None and target.exists() and target.samefile(source):
            raise OutputError(f"{target} is the input itself; choose another output folder")
        if target.is_dir():
            raise OutputError(f"{target} is a folder; a picture was to be written there")
        if os.path.lexists(target) and not overwrite:
            raise ExistsError(target)
    except OSError as error:
        raise OutputError(f"{target} cannot be looked at: {error.strerror or error}") from error


def write_output(target: Path, content: bytes, *, overwrite: bool) -> None:
    """Write an output whole or not at all.

    Raises:
        OutputError: If it is there and may not be overwritten, or cannot be written.
    """
    try:
        write_bytes(target, content, overwrite=overwrite)
    except FileExistsError as error:
        raise ExistsError(target) from error
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}") from error


@contextmanager
def folder_in_one_step(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces `path` when the block ends well.

    A block that raises, or a process that is killed, leaves `path` as it was. A folder cannot be
    put in another's place by one rename: the old one steps aside first. Who is killed right then
    leaves it there, whole, and the next use brings it back.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.parent / f".{path.name}.old"
    _tidy(path, aside)
    work = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        work.chmod(0o755)
        yield work
        # Over anything else, as a file or a link, the second rename fails.
        if path.is_dir() and not path.is_symlink():
            os.replace(path, aside)
        os.replace(work, path)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        _tidy(path, aside)
        raise
    _tidy(path, aside)


def _tidy(path: Path, aside: Path) -> None:
    """Bring back a folder that stepped aside, or remove it where another took its place."""
    if not aside.is_dir():
        return
    if os.path.lexists(path):
        shutil.rmtree(aside)
    else:
        os.replace(aside, path)
