"""Where a training keeps what must survive a kill, and the lock that one process holds on it.

`artifacts/.work/training-<network>-<digest>/` is no output of DVC, which deletes outputs before
it reruns a stage. Killing DVC leaves its child training on: the next run waits for it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anonymization.files import sha256_of_file, sha256_of_json

CODE = Path(__file__).parent
NOT_TRAINING = ("bundle.py", "calibration.py", "evidence.py", "export.py", "parity.py")
"""Files of this package that run after training and do not change its result."""


def digest(settings: dict[str, Any], data: list[Path]) -> str:
    """Return what identifies a training: 16 digits over settings, data and code."""
    code = {
        path.name: sha256_of_file(path)
        for path in sorted(CODE.glob("*.py"))
        if path.name not in NOT_TRAINING
    }
    files = [sha256_of_file(path) for path in data]
    return sha256_of_json({"settings": settings, "data": files, "code": code})[:16]


@contextmanager
def locked(path: Path, *, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock file; the system lets go of it when this process ends, however it ends.

    Args:
        path: The lock file; it stays.
        on_wait: Told once, with the id of the process that holds it, when it has to wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            on_wait(file.read().strip() or "unknown")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
