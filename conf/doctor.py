"""Checks this machine, and says what to do: what `make doctor` does.

    python conf/doctor.py          # everything
    python conf/doctor.py setup    # what `make setup` needs, quietly
    python conf/doctor.py loop     # what a turn of the loop needs, quietly

Started as a file, by whatever Python there is, before anything is installed: it imports the
standard library only.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
# The environment takes 7.1 GB with torch's CUDA libraries, and pip keeps 3 GB of downloads. A turn
# of the default loop leaves 0.3 GB under artifacts/ and again in DVC's cache, where every further
# turn adds what it changed. Measured on Debian 12.
TURN_GB = 2
SETUP_GB = 11
MLFLOW_PORT = 5000
TIMEOUT_S = 3.0


@dataclass
class Finding:
    """One thing that was looked at; `remedy` is empty where it is well."""

    what: str
    remedy: str = ""
    required: bool = True


def python() -> Finding:
    """Look at the version of Python."""
    found = ".".join(map(str, sys.version_info[:3]))
    if found.startswith("3.11."):
        return Finding(f"Python {found}")
    return Finding(
        f"Python {found}",
        "Blurloop is tested on Python 3.11; install it (Debian 12: apt install python3.11 "
        "python3.11-venv) or name it: make setup PYTHON=/path/to/python3.11",
    )


def venv() -> Finding:
    """Look for the venv module, which Debian ships apart."""
    if importlib.util.find_spec("ensurepip") and importlib.util.find_spec("venv"):
        return Finding("Python's venv module")
    return Finding("Python's venv module is missing", "apt install python3.11-venv")


def program(name: str) -> Finding:
    """Look for a program on PATH."""
    if shutil.which(name):
        return Finding(name)
    return Finding(f"{name} is missing", f"apt install {name}")


def disk(need_gb: int) -> Finding:
    """Look at the free disk."""
    free_gb = shutil.disk_usage(REPOSITORY).free / 1e9
    what = f"{free_gb:.0f} GB of disk free"
    if free_gb >= need_gb:
        return Finding(what)
    return Finding(
        what,
        f"{need_gb} GB are needed; remove what no revision uses with `dvc gc --workspace`, or "
        "move DVC's cache: dvc cache dir --local PATH",
    )


def git_repository() -> Finding:
    """Look whether Git knows this folder, since DVC works inside of a Git repository."""
    ended = subprocess.run(
        ["git", "-C", str(REPOSITORY), "rev-parse", "--verify", "--quiet", "HEAD"],
        capture_output=True,
        check=False,
    )
    if ended.returncode == 0:
        return Finding("a Git repository with a commit")
    return Finding(
        "no Git repository with a commit here",
        "clone Blurloop with git, or: git init && git add -A && git commit -m 'Start'",
    )


def git_identity() -> Finding:
    """Look whether Git can commit; DVC's experiments are commits."""
    ended = subprocess.run(
        ["git", "-C", str(REPOSITORY), "var", "GIT_COMMITTER_IDENT"],
        capture_output=True,
        check=False,
    )
    if ended.returncode == 0:
        return Finding("git user.name and user.email")
    return Finding(
        "git does not know who you are",
        "experiments need it: git config --global user.name NAME; "
        "git config --global user.email ADDRESS",
        required=False,
    )


def environment() -> Finding:
    """Look for the environment that `make setup` makes."""
    if (REPOSITORY / ".venv" / ".installed").is_file():
        return Finding("the environment .venv")
    return Finding("no environment .venv yet", "make setup", required=False)


def lock_of_dvc() -> Finding:
    """Look at DVC's list of running stages, which a kill while it is written leaves half.

    DVC itself drops the entries of processes that are gone, but not a file that it cannot read.
    """
    path = REPOSITORY / ".dvc" / "tmp" / "rwlock"
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        pass
    except ValueError:
        return Finding(
            "DVC was killed while it wrote its list of running stages",
            f"when no dvc is running, remove it: rm {path}",
        )
    return Finding("DVC's list of running stages")


def registry() -> Finding:
    """Look whether MLflow's registry can be reached."""
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    # Without name and password; as data.tracking.store, which asks for what is not installed yet.
    shown = re.sub(r"(?<=://)[^/@\s]*@", "...@", address)
    if address.startswith(("http://", "https://")):
        return _server(f"MLflow at {shown}", f"{address.rstrip('/')}/health")
    if "://" in address and not address.startswith("sqlite:///"):
        return Finding(f"MLflow at {shown} (not looked at: neither SQLite nor HTTP)")
    return _database(Path(address.removeprefix("sqlite:///") or REPOSITORY / "mlruns.db"))


def _server(what: str, url: str) -> Finding:
    try:
        urllib.request.urlopen(url, timeout=TIMEOUT_S).close()  # noqa: S310 - http(s), see above
    except (urllib.error.URLError, OSError) as error:
        return Finding(f"{what} does not answer: {error}", "start it, or correct its address")
    return Finding(what)


def _database(path: Path) -> Finding:
    if not path.exists():
        return Finding(f"registry {path.name} (made by the first turn)")
    try:
        with sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=TIMEOUT_S) as database:
            database.execute("BEGIN IMMEDIATE")
            database.rollback()
    except sqlite3.Error as error:
        return Finding(
            f"registry {path} cannot be written: {error}",
            "end the program that holds it, or mend its permissions",
        )
    return Finding(f"registry {path.name}")


def port(number: int) -> Finding:
    """Look whether `make ui` can have its port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError:
            return Finding(
                f"port {number} is taken",
                "if that is not `make ui` already, start it elsewhere: mlflow ui --port 5001",
                required=False,
            )
    return Finding(f"port {number} is free")


def label_studio() -> Finding:
    """Look for the annotation server, where one is configured."""
    try:
        import yaml
    except ImportError:
        return Finding("the annotation server is not looked at before `make setup`")
    params = REPOSITORY / "params.yaml"
    values = yaml.safe_load(params.read_text(encoding="utf-8")) if params.is_file() else {}
    annotation = (values or {}).get("annotation") or {}
    address = str(annotation.get("url") or "")
    if annotation.get("backend") != "label_studio" or not address:
        return Finding("no annotation server configured (annotations come as files)")
    return _server(f"Label Studio at {address}", f"{address.rstrip('/')}/health")


def findings(task: str) -> list[Finding]:
    """Return what matters for a task: `setup`, `loop`, or everything."""
    if task == "setup":
        return [python(), venv(), program("git"), disk(SETUP_GB)]
    if task == "loop":
        return [git_repository(), lock_of_dvc(), disk(TURN_GB)]
    programs = [program("git"), program("make")]
    repository = [git_repository(), git_identity(), environment(), lock_of_dvc(), disk(TURN_GB)]
    servers = [registry(), port(MLFLOW_PORT), label_studio()]
    return [python(), venv(), *programs, *repository, *servers]


def main() -> int:
    """Print what was found; return 1 where something that is needed is missing."""
    task = sys.argv[1] if len(sys.argv) > 1 else "all"
    found = findings(task)
    for finding in found:
        if finding.remedy:
            print(f"{'FAIL' if finding.required else 'note'}  {finding.what}")  # noqa: T201
            print(f"      -> {finding.remedy}")  # noqa: T201
        elif task == "all":
            print(f"ok    {finding.what}")  # noqa: T201
    return int(any(finding.remedy and finding.required for finding in found))


if __name__ == "__main__":
    sys.exit(main())
