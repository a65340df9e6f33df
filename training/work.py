"""What identifies a training, and so the folder that keeps what must survive a kill.

`artifacts/.work/training-<network>-<digest>/` is no output of DVC, which deletes outputs before
it reruns a stage.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anonymization.files import sha256_of_file, sha256_of_json

CODE = Path(__file__).parent
AFTER_TRAINING = ("anchors.py", "bundle", "mining.py", "sweep", "zoo")
"""Files and folders of this package that do not change what a training results in."""


def digest(settings: dict[str, Any], data: list[Path]) -> str:
    """Return what identifies a training: 16 digits over settings, data and code."""
    paths = {path.relative_to(CODE): path for path in sorted(CODE.rglob("*.py"))}
    code = {
        name.as_posix(): sha256_of_file(path)
        for name, path in paths.items()
        if name.parts[0] not in AFTER_TRAINING
    }
    files = [sha256_of_file(path) for path in data]
    return sha256_of_json({"settings": settings, "data": files, "code": code})[:16]
