"""Which code and which bytes a result was made from."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from anonymization.files import sha256_of_file, sha256_of_json

CODE_PACKAGES = ("anonymization", "data", "evaluation", "training", "annotation")


def git_revision() -> str:
    """Return the checked-out commit, with `+edits` when tracked files differ; `none` without Git.

    What the loop itself writes (`dvc.lock`, `params.yaml`, `reports/`) is not an edit.
    """

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], capture_output=True, text=True, check=True, timeout=30
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    commit = git("rev-parse", "--verify", "HEAD")
    if not commit:
        return "none"
    written = (":!dvc.lock", ":!params.yaml", ":!reports")
    edits = git("status", "--porcelain", "--untracked-files=no", "--", ".", *written)
    return f"{commit}+edits" if edits else commit


def loaded_code() -> dict[str, str]:
    """Return the SHA-256 of each of our own source files that this process has imported.

    A stage that binds its result to its code records this at its end (`code_files`), and
    `changed_code` tells later which of the files are no longer the same. Paths are relative to
    the folder that holds the packages.
    """
    files: dict[str, str] = {}
    root = Path(__file__).resolve().parents[2]
    for module in list(sys.modules.values()):
        source = getattr(module, "__file__", None)
        if not isinstance(source, str) or not source.endswith(".py"):
            continue
        path = Path(source).resolve()
        if path.is_relative_to(root) and path.relative_to(root).parts[0] in CODE_PACKAGES:
            files[path.relative_to(root).as_posix()] = sha256_of_file(path)
    return dict(sorted(files.items()))


def changed_code(files: Mapping[str, str]) -> list[str]:
    """Return the recorded source files whose bytes are no longer the recorded ones."""
    root = Path(__file__).resolve().parents[2]
    return [
        name
        for name, digest in sorted(files.items())
        if not (root / name).is_file() or sha256_of_file(root / name) != digest
    ]


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and bytes of all files in a folder."""
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        return sha256_of_json({p.relative_to(path).as_posix(): sha256_of_file(p) for p in files})
    return sha256_of_file(path)
