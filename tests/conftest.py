"""Fixtures that every test folder shares."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).parent.parent
TIMEOUT_S = 600


def _realdata_folder() -> Path:
    named = os.environ.get("BLURLOOP_REALDATA")
    return Path(named) if named else REPOSITORY.parent / "shared" / "realdata"


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Folder of the real photographs; tests that ask for it are skipped by name without it."""
    folder = _realdata_folder()
    if not (folder / "README.md").is_file():
        pytest.skip(f"needs the real photographs; {folder} is missing (set BLURLOOP_REALDATA)")
    return folder.resolve()


@pytest.fixture(scope="session")
def constant_networks() -> ModuleType:
    """Module with `constant_graph` and `mask_outputs`; test folders are no packages."""
    path = Path(__file__).parent / "anonymization/conftest.py"
    spec = importlib.util.spec_from_file_location("constant_networks", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Repository:
    """A temporary Git and DVC repository that holds a copy of the working tree.

    Attributes:
        path: Its root.
        environment: Variables that its commands see.
    """

    path: Path
    environment: dict[str, str] = field(default_factory=dict)

    def run(
        self, *words: str, check: bool = True, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program; its output comes with the failure."""
        ended = subprocess.run(
            words,
            cwd=self.path,
            env=self.environment | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        if check and ended.returncode:
            pytest.fail(
                f"{' '.join(words)} ended with {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
            )
        return ended

    def dvc(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run DVC."""
        return self.run("dvc", *words, check=check)

    def python(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a module of the copy: `python("data.review", "seed=2")`."""
        return self.run("python", "-m", *words, check=check)

    def commit(self, message: str = "change") -> str:
        """Commit everything; return the revision."""
        self.run("git", "add", "-A")
        self.run("git", "commit", "--quiet", "--allow-empty", "-m", message)
        return self.run("git", "rev-parse", "HEAD").stdout.strip()

    def read(self, path: str) -> str:
        """Return the text of a file."""
        return (self.path / path).read_text(encoding="utf-8")

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace a text that stands in a file exactly once."""
        text = self.read(path)
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path}"
        (self.path / path).write_text(text.replace(old, new), encoding="utf-8")

    def copy(self, path: Path) -> Repository:
        """Return an independent copy, cache and results included."""
        shutil.copytree(self.path, path, symlinks=True)
        return Repository(path, _environment(path))


def _environment(path: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_", "GIT_"))}
    return kept | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "MLFLOW_TRACKING_URI": f"sqlite:///{path / 'mlruns.db'}",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(path.parent / f"{path.name}-site-cache"),
        "GIT_AUTHOR_NAME": "test",
        "GIT_AUTHOR_EMAIL": "test@example.invalid",
        "GIT_COMMITTER_NAME": "test",
        "GIT_COMMITTER_EMAIL": "test@example.invalid",
        "OMP_NUM_THREADS": "1",
    }


def _working_tree() -> Iterator[str]:
    """Yield what a commit of everything would hold, results of turns aside."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        is_result = name == "dvc.lock" or (
            name.startswith(("reports/", "reference/")) and name.endswith(".json")
        )
        if not is_result and (REPOSITORY / name).is_file():
            yield name


def make_repository(path: Path) -> Repository:
    """Copy the working tree into a new Git and DVC repository."""
    for name in _working_tree():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, path / name)
    repository = Repository(path, _environment(path))
    repository.run("git", "init", "--quiet", "--initial-branch=main")
    repository.commit("copy of the working tree")
    return repository


@pytest.fixture(scope="session")
def new_repository() -> Callable[[Path], Repository]:
    """Makes copies of the working tree; for fixtures that live longer than one test."""
    return make_repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A fresh copy of the working tree in which no stage has run."""
    return make_repository(tmp_path / "repository")


@pytest.fixture(scope="session")
def _turned(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    repository = make_repository(tmp_path_factory.mktemp("turned") / "repository")
    repository.python("conf.choose", "smoke")
    repository.dvc("repro", "review")
    repository.commit("turned as far as review")
    return repository


@pytest.fixture
def turned(_turned: Repository, tmp_path: Path) -> Repository:
    """A copy in which `experiment/smoke` is chosen and the loop has run as far as review."""
    return _turned.copy(tmp_path / "repository")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that wait for the real photographs."""
    skipped = terminalreporter.stats.get("skipped", [])
    names = [r.nodeid for r in skipped if "real photographs" in str(r.longrepr)]
    if names:
        terminalreporter.section("not run: no real photographs")
        for name in names:
            terminalreporter.line(name)
