"""The account of a server that `make label-studio` started: a file of this machine, git-ignored."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER = Path(".label-studio")
"""Data of the server: its database, its log, the account; in .gitignore."""
ACCOUNT = FOLDER / "account.json"


@dataclass(frozen=True)
class Account:
    """Who may sign in where.

    Attributes:
        url: Address of the server.
        user: Electronic mail address by which Label Studio knows people.
        password: For the browser.
        token: For the loop.
    """

    url: str
    user: str
    password: str
    token: str

    @classmethod
    def new(cls, url: str) -> Account:
        """Make an account with a random password and token."""
        return cls(
            url.rstrip("/"),
            "annotator@example.com",
            secrets.token_urlsafe(12),
            secrets.token_hex(20),
        )

    @classmethod
    def read(cls, path: Path = ACCOUNT) -> Account | None:
        """Read the file, or return None where there is none or it is damaged."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, path: Path = ACCOUNT) -> None:
        """Write the file, readable by its owner alone."""
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(asdict(self), file, indent=2)
            file.write("\n")
