"""What identifies a training, and so the folder that keeps what must survive a kill.

`artifacts/.work/training-<network>-<digest>/` is no output of DVC, which deletes outputs before
it reruns a stage.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anonymization.files import sha256_of_file, sha256_of_json

CODE = Path(__file__).parent
NOT_TRAINING = (
    "anchors.py",
    "bundle.py",
    "calibration.py",
    "compact.py",
    "evidence.py",
    "export.py",
    "mining.py",
    "parity.py",
    "quantization.py",
    "variants.py",
    "zoo.py",
    "zoo_config.py",
    "zoo_networks.py",
    "zoo_weights.py",
)
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
