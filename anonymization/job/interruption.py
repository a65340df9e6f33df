"""Signals: a wish to end is noted, and what is in work ends by itself."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interruption:
    """Remembers which signal asked the run to end; a second one ends it at once."""

    def __init__(self) -> None:
        """Start without one."""
        self.stop = threading.Event()
        self.signal = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM as a wish to end after the steps in work."""
        before: dict[int, Any] = {}

        def note(number: int, _frame: object) -> None:
            self.signal = number
            self.stop.set()
            for known, earlier in before.items():
                signal.signal(known, earlier)

        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
        try:
            yield
        finally:
            for known, earlier in before.items():
                signal.signal(known, earlier)
