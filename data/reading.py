"""Reading a source's entries on all cores, in order, a bounded number ahead.

Drawing a scene or decoding a photograph keeps one core busy for a tenth of a second; a collection
of thousands should use them all. Sources are read in processes of their own, since drawing is
Python.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import groupby

from data.sources.protocol import Entry, Found, Source, UnreadableEntryError

SERIAL_BELOW = 48
"""Fewer entries are read sooner than processes start."""

CHUNK = 4
"""Entries that one process reads in a row, so that the scenes of a sequence are drawn together."""

WORKERS_MAX = 8


@dataclass(frozen=True)
class Read:
    """A picture as its source gave it, decoded once to see that it is whole.

    Attributes:
        found: Bytes, fields and labels.
        suffix: The file name ending of its true format.
        width: Columns as displayed.
        height: Rows as displayed.
    """

    found: Found
    suffix: str
    width: int
    height: int


def read_entry(source: Source, entry: Entry) -> Read:
    """Read one entry and decode it completely.

    Raises:
        UnreadableEntryError: If it holds no usable picture.
    """
    from anonymization.formats.picture import FORMATS, PictureError, decode

    found = source.read(entry)
    try:
        picture = decode(found.content, name="it")
    except PictureError as error:
        raise UnreadableEntryError(str(error)) from error
    return Read(found, FORMATS[picture.encoding.format], picture.width, picture.height)


Outcome = Read | UnreadableEntryError


class Reader:
    """Gives back what entries hold; those announced are read ahead.

    Args:
        announced: Entries that will be asked for, in this order; some may be left out.
        workers: Processes; 1 reads in this one.
    """

    def __init__(self, announced: Sequence[tuple[Source, Entry]], *, workers: int) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._ahead: deque[tuple[tuple[str, Entry], Outcome]] = deque()
        self._pending: deque[tuple[str, list[Entry], Future[list[Outcome]]]] = deque()
        if workers > 1 and len(announced) >= SERIAL_BELOW:
            self._chunks = _chunks(announced)
            self._pool = ProcessPoolExecutor(
                workers, multiprocessing.get_context("spawn"), initializer=_end_with_parent
            )
            for _ in range(2 * workers):
                self._submit()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _submit(self) -> None:
        chunk = next(self._chunks, None)
        if chunk is not None and self._pool is not None:
            source, entries = chunk
            future = self._pool.submit(_read_chunk, source.part(entries), entries)
            self._pending.append((source.id, entries, future))

    def read(self, source: Source, entry: Entry) -> Read:
        """Return what an entry holds.

        Raises:
            UnreadableEntryError: If it holds no usable picture.
        """
        while self._ahead or self._pending:
            if not self._ahead:
                self._next_chunk()
            announced, outcome = self._ahead.popleft()
            if announced == (source.id, entry):
                if isinstance(outcome, UnreadableEntryError):
                    raise outcome
                return outcome
        return read_entry(source, entry)

    def _next_chunk(self) -> None:
        source_id, entries, future = self._pending.popleft()
        self._submit()
        outcomes = zip(entries, future.result(), strict=True)
        self._ahead.extend(((source_id, entry), outcome) for entry, outcome in outcomes)


def workers_here() -> int:
    """Return how many processes suit this machine."""
    return min(WORKERS_MAX, len(os.sched_getaffinity(0)))


def _chunks(work: Sequence[tuple[Source, Entry]]) -> Iterator[tuple[Source, list[Entry]]]:
    for _, pairs in groupby(work, key=lambda pair: pair[0].id):
        listed = list(pairs)
        for start in range(0, len(listed), CHUNK):
            part = listed[start : start + CHUNK]
            yield part[0][0], [entry for _, entry in part]


def _read_chunk(source: Source, entries: list[Entry]) -> list[Outcome]:
    return [_outcome(source, entry) for entry in entries]


def _outcome(source: Source, entry: Entry) -> Outcome:
    try:
        return read_entry(source, entry)
    except UnreadableEntryError as error:
        return error


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, killed or not."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def watch() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()
