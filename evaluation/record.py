"""What dvc.lock recorded of the evaluation, beside what lies there now.

reports/evaluation.json and artifacts/evaluated name each other's digests, so whoever edits one can
edit both. DVC wrote down the MD5 of each when the stage ended, in a file that Git keeps: an edit
of the results shows, or is an edit of dvc.lock that a review sees.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from evaluation.verdict import Criterion

LOCK = Path("dvc.lock")
STAGE = "evaluation"


def recorded_outputs(lock: Path = LOCK, stage: str = STAGE) -> dict[str, str]:
    """Return the MD5 of each output of a stage as dvc.lock has it; empty where it has none."""
    import yaml

    if not lock.is_file():
        return {}
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    content = yaml.load(lock.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 - a safe one
    outputs = ((content or {}).get("stages") or {}).get(stage, {}).get("outs") or []
    return {str(out["path"]): str(out["md5"]) for out in outputs if "md5" in out}


def dvc_md5(path: Path) -> str:
    """Return a file's or folder's MD5 as DVC computes it; `absent` where there is none.

    A folder's is that of the JSON list of its files' digests, sorted by path, plus `.dir`
    (dvc_data, `Tree.digest`).
    """
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        names = {p.relative_to(path).as_posix(): p for p in files}
        listed = [{"md5": dvc_md5(names[name]), "relpath": name} for name in sorted(names)]
        return hashlib.md5(_as_json(listed), usedforsecurity=False).hexdigest() + ".dir"
    if not path.is_file():
        return "absent"
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _as_json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def check_record(lock: Path = LOCK, stage: str = STAGE) -> Criterion:
    """Compare the outputs of a stage with what dvc.lock recorded of them."""
    recorded = recorded_outputs(lock, stage)
    if not recorded:
        return Criterion("record", True, f"no dvc.lock records this {stage}; Git shows nothing")
    changed = [path for path, md5 in sorted(recorded.items()) if dvc_md5(Path(path)) != md5]
    if changed:
        said = f"{', '.join(changed)} is not what dvc.lock recorded of the {stage}; "
        return Criterion("record", False, f"{said}run dvc repro --force {stage}")
    return Criterion("record", True, f"the {stage} is the one that dvc.lock records")
