"""A Label Studio server on this machine: `make label-studio` and `make label-studio-stop`.

    python -m annotation.server start
    python -m annotation.server stop

The server runs in its own environment, `.venv-labelstudio`, as its pins collide with ours; it
keeps SQLite, its log and an account under `.label-studio`, and listens on 127.0.0.1 alone.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from annotation.account import FOLDER, Account
from anonymization.errors import BlurloopError
from conf import ending_in_one_line

PROGRAM = Path(".venv-labelstudio/bin/label-studio")
PORT = 8080
START_TIMEOUT_S = 300
"""The first start makes the database: 20 s on two cores, more on a busy machine."""
STOP_TIMEOUT_S = 20


class LocalServerError(BlurloopError):
    """The server cannot be started or stopped."""


@dataclass(frozen=True)
class LocalServer:
    """A server of this machine.

    Attributes:
        folder: Its data.
        program: The `label-studio` program.
        documents: Folder whose pictures it may show: the loop's artifacts.
        port: Where it listens.
    """

    folder: Path = FOLDER
    program: Path = PROGRAM
    documents: Path = Path("artifacts")
    port: int = PORT

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def _pid_file(self) -> Path:
        return self.folder / "server.json"

    @property
    def log(self) -> Path:
        """Where it writes what it does."""
        return self.folder / "server.log"

    def account(self) -> Account:
        """Return its account; the first time, make one."""
        path = self.folder / "account.json"
        known = Account.read(path)
        if known is None or known.url != self.url:
            made = Account.new(self.url)
            # The database knows the first account: another port is another address only.
            known = made if known is None else Account(self.url, *_secrets(known))
            known.write(path)
        return known

    def environment(self, account: Account) -> dict[str, str]:
        """Return the variables that the server reads."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("LABEL_STUDIO_", "DVC_"))}
        return kept | {
            "LABEL_STUDIO_BASE_DATA_DIR": str(self.folder.resolve()),
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            "LABEL_STUDIO_USERNAME": account.user,
            "LABEL_STUDIO_PASSWORD": account.password,
            "LABEL_STUDIO_USER_TOKEN": account.token,
            "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
            "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
            "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(self.documents.resolve()),
            "COLLECT_ANALYTICS": "false",
            "LATEST_VERSION_CHECK": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
        }

    def is_up(self) -> bool:
        """Return whether a Label Studio server answers at the address."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:  # noqa: S310
                return bool(json.load(answer).get("status") == "UP")
        except (OSError, ValueError):
            return False

    def start(self) -> Account:
        """Start the server and wait until it answers; one that runs already stays.

        Raises:
            LocalServerError: If it is not installed, another program has the port, or it ends.
        """
        account = self.account()
        if self._running() is not None and self.is_up():
            return account
        if not self.program.is_file():
            raise LocalServerError(f"{self.program} is missing; run `make label-studio`")
        if self.is_up() or _taken(self.port):
            raise LocalServerError(
                f"another program listens on {self.url}; stop it, or give another --port (and put "
                "it into annotation.url)"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [
                    str(self.program.resolve()), "start", "--no-browser",
                    "--internal-host", "127.0.0.1", "--port", str(self.port),
                ],
                env=self.environment(account),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )  # fmt: skip
        started = {"pid": process.pid, "started": _start_time(process.pid)}
        self._pid_file.write_text(json.dumps(started), encoding="utf-8")
        self._wait(process)
        return account

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < until:
            if process.poll() is not None:
                raise LocalServerError(
                    f"Label Studio ended with {process.returncode}; {self.log} says why"
                )
            if self.is_up():
                return
            time.sleep(0.5)
        raise LocalServerError(
            f"Label Studio did not answer within {START_TIMEOUT_S} s; see {self.log}, then run "
            "`make label-studio-stop`"
        )

    def _running(self) -> int | None:
        """Return the process id of the server that was started here, if it still runs."""
        try:
            values = json.loads(self._pid_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        pid = int(values["pid"])
        # A number comes back for another process after a while; its start time does not.
        return pid if _start_time(pid) == values["started"] else None

    def stop(self) -> bool:
        """Stop the server that was started here; return whether one ran.

        Raises:
            LocalServerError: If it does not end.
        """
        pid = self._running()
        if pid is None:
            self._pid_file.unlink(missing_ok=True)
            return False
        for sent in (signal.SIGTERM, signal.SIGKILL):
            os.kill(pid, sent)
            until = time.monotonic() + STOP_TIMEOUT_S
            while time.monotonic() < until:
                if _start_time(pid) is None:
                    self._pid_file.unlink(missing_ok=True)
                    return True
                time.sleep(0.1)
        raise LocalServerError(f"process {pid} does not end; stop it by hand")


def _secrets(account: Account) -> tuple[str, str, str]:
    return account.user, account.password, account.token


def _taken(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _start_time(pid: int) -> str | None:
    """Return when a process was started, in the system's words; None where it does not run."""
    known = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        # proc(5): after the name in brackets come the state and, 19 fields on, the start.
        fields = known.read_text().rpartition(")")[2].split() if known.exists() else ["Z"]
        state, started = fields[0], fields[-1] if len(fields) < 20 else fields[19]
    else:
        asked = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
        words = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
        state, started = (words or ["Z"])[0], " ".join(words[1:])
    # A zombie has ended; its parent has not noticed.
    return None if state.startswith("Z") else started


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _start(server: LocalServer) -> None:
    account = server.start()
    _say(f"Label Studio: {account.url}")
    _say(f"  sign in as {account.user}; the password is in {server.folder / 'account.json'}")
    _say("  the loop finds its key there, too (LABEL_STUDIO_API_KEY has precedence)")
    if account.url != f"http://127.0.0.1:{PORT}":
        _say(f"  set annotation.url: {account.url} in conf/annotation/label_studio.yaml")


def main() -> None:
    """Start or stop."""
    parser = argparse.ArgumentParser(
        prog="python -m annotation.server",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=["start", "stop"])
    parser.add_argument("--port", type=int, default=PORT)
    given = parser.parse_args()
    server = LocalServer(port=given.port)
    if given.command == "start":
        ending_in_one_line(lambda: _start(server))
    else:
        ending_in_one_line(lambda: _say("stopped" if server.stop() else "no server runs here"))


if __name__ == "__main__":
    main()
