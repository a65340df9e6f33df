"""A folder of pictures without labels, subfolders included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from data.sources.listing import Digests, is_past, picture_files, read_bytes
from data.sources.protocol import Entry, Found


class FolderSource:
    """Every picture file below a folder.

    Args:
        root: The folder; its name is part of the source's identity.
        sequences: Whether the pictures of one subfolder are one camera sequence.
        retain_until: ISO date after which nothing of it is kept, or None.
    """

    def __init__(self, root: Path, *, sequences: bool, retain_until: str | None) -> None:
        self._root = root
        self._sequences = sequences
        self._retain_until = retain_until
        self.id = f"folder-{root.name}"

    def survey(self) -> dict[str, Any]:
        """List every file with its digest; none once they may be kept no longer."""
        digests = Digests()
        names = [] if is_past(self._retain_until) else picture_files(self._root)
        entries = [[name, digests.of_or_missing(self._root / name)] for name in names]
        digests.save()
        return {
            "entries": entries,
            "sequences": self._sequences,
            "retain_until": self._retain_until,
        }

    def entries(self, surveyed: Mapping[str, Any]) -> list[Entry]:
        """Return one entry per surveyed file."""
        about = f"sequences={self._sequences} retain_until={self._retain_until}"
        return [Entry(name, sha256, about) for name, sha256 in surveyed["entries"]]

    def part(self, entries: Sequence[Entry]) -> FolderSource:
        """Return this source: it holds no list of its files."""
        del entries
        return self

    def read(self, entry: Entry) -> Found:
        """Read one file; its subfolder is its sequence where configured so."""
        fields: dict[str, Any] = {"retain_until": self._retain_until}
        parent = PurePosixPath(entry.origin).parent
        if self._sequences and parent.name:
            fields["sequence"] = parent.as_posix()
        return Found(read_bytes(self._root, entry.origin), fields)
