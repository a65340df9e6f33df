"""Signals: a wish to end is noted, and what is in work ends at its next step or view.

The system ends the process at a second one. Nothing half-made is left: outputs have no name, or a
hidden one, until they are whole, and the ledger forgives a last line that is cut off.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
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
        """Take the first SIGINT or SIGTERM as a wish to end after the steps in work."""
        before: dict[int, Any] = {}

        def note(number: int, _frame: object) -> None:
            for known in before:
                # Python would wait for all threads before it ended, and they for their networks.
                signal.signal(known, signal.SIG_DFL)
            _show_cursor()
            self.signal = number
            self.stop.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
        try:
            yield
        finally:
            for known, earlier in before.items():
                signal.signal(known, earlier)


def _show_cursor() -> None:
    """Bring back the cursor that a bar hides: who is ended at once does not do so."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if sys.stderr.isatty():
            os.write(sys.stderr.fileno(), b"\x1b[?25h")
