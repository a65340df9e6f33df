"""Rules of the house that no tool checks by itself."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PICTURES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".tif", ".tiff", ".bmp", ".mp4", ".avi")
PACKAGES = ("annotation", "anonymization", "conf", "data", "evaluation", "training")


def tracked() -> list[str]:
    """Return what Git knows and the working tree still has."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    names = [name for name in listed.stdout.split("\0") if name]
    return [name for name in names if (REPOSITORY / name).is_file()]


def make_targets() -> set[str]:
    text = (REPOSITORY / "Makefile").read_text()
    return set(re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE))


def test_git_holds_no_pictures_but_those_of_the_docs():
    found = [name for name in tracked() if name.lower().endswith(PICTURES)]
    assert [name for name in found if not name.startswith("docs/")] == []


def test_git_holds_no_results_but_reports_and_reference():
    assert [name for name in tracked() if name.startswith(("artifacts/", "mlruns"))] == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_make_command_of_the_pages_exists(page):
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", (REPOSITORY / page).read_text()))
    assert named <= make_targets()


def test_every_module_that_the_readme_starts_exists():
    named = set(re.findall(r"python -m ([a-z_.]+)", (REPOSITORY / "README.md").read_text()))
    for name in named:
        path = REPOSITORY.joinpath(*name.split("."))
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), name


def test_ci_and_the_workflow_call_make_targets():
    for path in (".ci/run", ".github/workflows/loop.yml"):
        text = (REPOSITORY / path).read_text()
        assert {"check", "test"} <= set(re.findall(r"make ([a-z-]+)", text)) <= make_targets()


def test_every_package_stands_in_pyproject():
    listed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    found = {
        ".".join(path.parent.relative_to(REPOSITORY).parts)
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*.py")
    }
    assert found == set(listed["tool"]["setuptools"]["packages"])


def test_constraints_name_versions_and_nothing_of_a_machine():
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line) for line in pins)


@pytest.mark.slow
def test_the_wheel_holds_code_and_configuration_only(tmp_path):
    source = tmp_path / "source"
    for name in [*tracked(), *_untracked()]:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((REPOSITORY / name).read_bytes())
    (source / "data" / "street.png").write_bytes(b"a stray picture")
    words = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    code = [name for name in names if ".dist-info/" not in name]
    assert {Path(name).suffix for name in code} <= {".py", ".yaml", ".html", ".json", ".typed"}
    assert {name.split("/")[0] for name in code} == set(PACKAGES)
    assert "conf/config.yaml" in code
    assert "conf/taxonomy/street.yaml" in code
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(code)  # else mypy sees Any


def _untracked() -> list[str]:
    words = ["git", "ls-files", "-z", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if name]


@pytest.mark.slow
def test_packages_import_each_other_in_the_agreed_directions_only():
    ended = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout


def test_the_doctor_says_what_to_do_about_what_is_missing(monkeypatch):
    from conf import doctor

    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    assert doctor.program("git").remedy == "apt install git"
    assert "python3.11-venv" in doctor.venv().remedy
    assert "dvc gc" in doctor.disk(10**9).remedy


def test_the_doctor_mends_what_a_killed_dvc_leaves(tmp_path, monkeypatch):
    from conf import doctor

    monkeypatch.setattr(doctor, "REPOSITORY", tmp_path)
    assert not doctor.lock_of_dvc().remedy
    lock = tmp_path / ".dvc/tmp/rwlock"
    lock.parent.mkdir(parents=True)
    lock.write_text('{"write": {}}')
    assert not doctor.lock_of_dvc().remedy
    lock.write_text('{"write": {')
    assert f"rm {lock}" in doctor.lock_of_dvc().remedy


def test_the_doctor_names_a_registry_that_cannot_be_written(tmp_path, monkeypatch):
    import sqlite3

    from conf import doctor

    path = tmp_path / "mlruns.db"
    monkeypatch.setattr(doctor, "TIMEOUT_S", 0.1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE a (b)")
    assert not doctor.registry().remedy
    held = sqlite3.connect(path, isolation_level=None)
    held.execute("BEGIN IMMEDIATE")
    assert "cannot be written: database is locked" in doctor.registry().what
    held.close()
