"""How far a run is: pictures, pictures and megapixels a second, time left; and what failed."""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
import time
from collections import deque
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from anonymization.job.results import (
    FAILED,
    QUARANTINED,
    REPEATED,
    SHAPE_FLAT,
    SHAPE_WHOLE,
    FileResult,
    Note,
)

LINE_SECONDS = 60.0
"""Time between two lines where no bar is drawn: a log of a night has some 500 of them."""

RECENT = 100
"""Pictures from whose time that of the rest is estimated: those that --resume skips take none."""

SHAPE_WIDTH_MIN = 512
"""Least width of a picture whose 2:1 shape is told of; no panorama in use is smaller."""

_SHAPES = {
    SHAPE_FLAT: "of 2:1 shape without GPano metadata were looked at as "
    "flat; give --projection equirectangular if they are panoramas",
    SHAPE_WHOLE: "without GPano metadata were taken for "
    "panoramas for their 2:1 shape; give --projection perspective if they are flat",
}
"""What is said once of all pictures with a note of a kind."""


def mute() -> None:
    """Say nothing any more: a log on a full disk must not end a run, and reports tell all."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


class Bar:
    """Draws on standard error where that is a terminal, else says now and then how far it is.

    What failed is said in any case.
    """

    def __init__(self, total: int) -> None:
        """Expect so many pictures."""
        self._console = Console(stderr=True)
        self._progress = Progress(
            BarColumn(),  # the one column that may wrap, and so the one that gives way
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[state]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("", total=total, state="")
        self._total = total
        self._start = self._said = time.monotonic()
        self._ended = deque([(0, self._start)], RECENT + 1)
        self._pictures = 0
        self._pixels = 0
        self._failed = 0
        self._quarantined = 0
        self._shapes = dict.fromkeys(_SHAPES, 0)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()
        for kind_of_note, number in self._shapes.items():
            if number:
                self._print(f"note: {number} pictures {_SHAPES[kind_of_note]}")

    def advance(self, result: FileResult) -> None:
        """Count a picture that has ended."""
        if result.status in (FAILED, QUARANTINED):
            self._print(result.line)
        for note in result.notes:
            self._note(result, note)
        self._pictures += 1
        self._pixels += (result.width or 0) * (result.height or 0)
        self._failed += result.status == FAILED
        self._quarantined += result.status == QUARANTINED
        now = time.monotonic()
        self._ended.append((self._pictures, now))
        self._progress.update(self._task, advance=1, state=self._state(now, unit=""))
        if not self._console.is_terminal and now - self._said >= LINE_SECONDS:
            self._said = now
            state = self._state(now, unit=" pictures")
            self._print(f"{self._pictures} of {self._total} done, {state}")

    def _state(self, now: float, *, unit: str) -> str:
        seconds = max(now - self._start, 1e-6)
        return (
            f"{self._failed} failed, {self._quarantined} quarantined, "
            f"{self._pictures / seconds:.1f}{unit}/s, {self._pixels / seconds / 1e6:.1f} MP/s, "
            f"{datetime.timedelta(seconds=round(self._left(now)))} left"
        )

    def _left(self, now: float) -> float:
        """Return the seconds that the rest takes, by the last pictures.

        The first of them count from the start of the run: two workers end theirs at nearly the
        same time, and between these two moments no picture is done.
        """
        before, since = self._ended[0]
        return (self._total - self._pictures) * (now - since) / (self._pictures - before)

    def _note(self, result: FileResult, note: Note) -> None:
        if note.kind in self._shapes:
            self._shapes[note.kind] += (result.width or 0) >= SHAPE_WIDTH_MIN
        elif note.kind != REPEATED:
            self._print(f"note: {result.input}: {note.text}")

    def _print(self, line: str) -> None:
        try:
            self._progress.print(line, markup=False, highlight=False, soft_wrap=True)
        except OSError:
            mute()
