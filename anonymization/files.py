"""Files that are whole or not there: digests, JSON, and outputs that appear by one rename."""

from __future__ import annotations

import hashlib
import json
import os
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


def sha256_of_json(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON (sorted keys, no spaces).

    >>> sha256_of_json({"b": 1, "a": 2}) == sha256_of_json({"a": 2, "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


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


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one step, with the permissions that a plain `open` would give."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def folder_in_one_step(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces `path` when the block ends well.

    A block that raises, or a process that is killed, leaves `path` as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        work.chmod(0o755)
        yield work
        if path.exists():
            shutil.rmtree(path)
        os.replace(work, path)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
