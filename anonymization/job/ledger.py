"""The ledger: what has been anonymized, with what, into which bytes; one JSON line a picture.

It lies in the output folder as `.blurloop-ledger.jsonl` and holds names and digests, nothing of a
picture. `--resume` skips a picture only where source, work and output are all as recorded. What
the audit refused is recorded too: made again with other noise it might pass by luck.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from anonymization.errors import BlurloopError
from anonymization.files import sha256_of_file
from anonymization.job.audit import Visible

NAME = ".blurloop-ledger.jsonl"
SCHEMA_VERSION = 2


class LedgerError(BlurloopError):
    """The ledger cannot be read or written."""

    exit_code = 2


@dataclass(frozen=True)
class Record:
    """One picture that was done.

    Attributes:
        name: Path of the result below the output folder, with `/`.
        source_sha256: Of the source's bytes.
        source_bytes: Their number.
        source_mtime_ns: When the source was last changed; 0 inside of archives.
        output_sha256: Of the result's bytes.
        work: Digest of everything that decides what the result looks like.
        detections: Number of finds per class.
        spared: Finds that regions left as they were, as the report lists them.
        extras: SHA-256 of what was written beside it, by kind.
        visible: What the audit still saw, as the report lists it: the result is in quarantine.
    """

    name: str
    source_sha256: str
    source_bytes: int
    source_mtime_ns: int
    output_sha256: str
    work: str
    detections: dict[str, int]
    spared: list[dict[str, Any]]
    extras: dict[str, str]
    visible: list[dict[str, Any]] = field(default_factory=list)


class Ledger:
    """The records of one output folder; safe to use from several threads."""

    def __init__(self, output: Path) -> None:
        """Read what is recorded; lines that a kill cut off count as not recorded.

        Raises:
            LedgerError: If the file is there and cannot be read, or is a link: what it leads to
                would be written to.
        """
        self.path = output / NAME
        self._output = output
        self._lock = threading.Lock()
        self._records: dict[str, Record] = {}
        if self.path.is_symlink():
            raise LedgerError(f"ledger {self.path} is a link; take it away")
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            text = ""
        except OSError as error:
            raise LedgerError(f"ledger {self.path} cannot be read: {error}") from error
        for line in text.splitlines():
            record = _record(line)
            if record is not None:
                self._records[record.name] = record

    def proves(self, name: str, *, source_sha256: str, work: str) -> Record | None:
        """Return the record of a picture that is done: same source, same work, output intact."""
        record = self.last(name)
        if record is None or record.source_sha256 != source_sha256 or record.work != work:
            return None
        return record if is_file_of(self._output / name, record.output_sha256) else None

    def refused(self, name: str, *, source_sha256: str, work: str) -> Record | None:
        """Return the record of a picture that the audit refused: same source, same work."""
        record = self.last(name)
        if record is None or record.source_sha256 != source_sha256 or record.work != work:
            return None
        return record if record.visible else None

    def is_of_other_work(self, name: str, *, source_sha256: str, work: str) -> bool:
        """Tell whether a picture is done in all but the work: options, model or code are others."""
        record = self.last(name)
        if record is None or record.source_sha256 != source_sha256 or record.work == work:
            return False
        return is_file_of(self._output / name, record.output_sha256)

    def last(self, name: str) -> Record | None:
        """Return what was last recorded of a picture, whether it holds still or not."""
        with self._lock:
            return self._records.get(name)

    def add(self, record: Record) -> None:
        """Record a picture whose result is in place, in the output or in quarantine.

        Raises:
            LedgerError: If the line cannot be written; the next `--resume` does the picture again.
        """
        line = json.dumps({"schema_version": SCHEMA_VERSION} | asdict(record)) + "\n"
        with self._lock:
            self._records[record.name] = record
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                # A line that a kill cut off must not swallow the next one.
                with open(self.path, "ab+", opener=_open_itself) as file:
                    if file.tell() and _last_byte(file.fileno(), file.tell()) != b"\n":
                        line = "\n" + line
                    file.write(line.encode())
            except OSError as error:
                raise LedgerError(f"ledger {self.path} cannot be written: {error}") from error


def is_file_of(path: Path, sha256: str | None) -> bool:
    """Tell whether a file is there and holds these bytes."""
    try:
        return path.is_file() and sha256_of_file(path) == sha256
    except OSError:
        return False


def _open_itself(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _last_byte(handle: int, size: int) -> bytes:
    return os.pread(handle, 1, size - 1)


def _record(line: str) -> Record | None:
    try:
        values = json.loads(line)
        if values.pop("schema_version") != SCHEMA_VERSION:
            return None
        record = Record(**values)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    counted = isinstance(record.detections, dict) and all(
        type(count) is int and count >= 0 for count in record.detections.values()
    )
    listed = isinstance(record.spared, list) and all(
        isinstance(one, dict) and isinstance(one.get("region"), str) for one in record.spared
    )
    named = isinstance(record.name, str) and isinstance(record.extras, dict)
    try:
        seen = isinstance(record.visible, list) and all(map(Visible.from_dict, record.visible))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return record if counted and listed and named and seen else None
