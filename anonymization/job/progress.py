"""The progress bar of a run: pictures, pictures and megapixels a second, time left."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from anonymization.job.results import FAILED, QUARANTINED, FileResult


class Bar:
    """Draws on standard error where that is a terminal; says what failed in any case."""

    def __init__(self, total: int) -> None:
        """Expect so many pictures."""
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("anonymizing"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=total, rate="")
        self._start = time.monotonic()
        self._pictures = 0
        self._pixels = 0

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

    def advance(self, result: FileResult) -> None:
        """Count a picture that has ended."""
        if result.status in (FAILED, QUARANTINED):
            self._progress.print(result.line, markup=False, highlight=False, soft_wrap=True)
        for note in result.notes:
            line = f"note: {result.input}: {note}"
            self._progress.print(line, markup=False, highlight=False, soft_wrap=True)
        self._pictures += 1
        self._pixels += (result.width or 0) * (result.height or 0)
        seconds = max(time.monotonic() - self._start, 1e-6)
        rate = f"{self._pictures / seconds:.1f} pictures/s, {self._pixels / seconds / 1e6:.1f} MP/s"
        self._progress.update(self._task, advance=1, rate=rate)
