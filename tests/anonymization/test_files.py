"""Outputs appear whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from anonymization import files
from anonymization.files import (
    FileError,
    folder_in_one_step,
    read_json,
    sha256_of_file,
    write_bytes,
    write_json,
)


def test_a_folder_replaces_the_old_one_only_when_the_block_ends_well(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with folder_in_one_step(target) as work:
        (work / "a").write_text("1")

    def half() -> None:
        with folder_in_one_step(target) as work:
            (work / "b").write_text("2")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        half()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert [p.name for p in target.iterdir()] == ["a"]


@pytest.mark.parametrize("steps", range(4))
def test_a_kill_at_any_point_of_the_exchange_loses_neither_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """A killed process renames and removes nothing any more."""
    target = tmp_path / "out"
    with folder_in_one_step(target) as work:
        (work / "a").write_text("1")
    left = iter(range(steps))

    def until_killed(change: Callable[..., None]) -> Callable[..., None]:
        def step(*paths: Path, **options: bool) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            change(*paths, **options)

        return step

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", until_killed(os.replace))
        patched.setattr(shutil, "rmtree", until_killed(shutil.rmtree))
        with contextlib.suppress(KeyboardInterrupt), folder_in_one_step(target) as work:
            (work / "b").write_text("2")

    def stopped() -> None:
        with folder_in_one_step(target):
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stopped()
    assert [p.name for p in target.iterdir()] == (["b"] if steps >= 2 else ["a"])
    assert not (tmp_path / ".out.old").exists()


def test_a_folder_takes_the_place_of_a_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("file", "link"):
        with pytest.raises(NotADirectoryError), folder_in_one_step(tmp_path / name):
            pass
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "link"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_where_no_file_is_nameless_permissions_are_those_of_a_plain_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    """And nobody asks for the umask, which would set it for the other threads meanwhile."""
    (tmp_path / "plain").write_bytes(b"")
    monkeypatch.setattr(files, "_nameless_file", lambda folder: None)
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask was set"))
    write_bytes(tmp_path / "new", b"whole", overwrite=overwrite)
    assert (tmp_path / "new").read_bytes() == b"whole"
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "plain"]
    with pytest.raises(FileExistsError):
        write_bytes(tmp_path / "new", b"other", overwrite=False)
    assert (tmp_path / "new").read_bytes() == b"whole"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "plain"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "x.json"
    write_json(target, {"a": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(target, {"a": float("nan")})
    assert read_json(target) == {"a": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_another_schema_version_is_refused_by_number(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"schema_version": 2})
    with pytest.raises(FileError, match="schema version 2; expected 1"):
        read_json(tmp_path / "x.json", schema_version=1)


def test_a_missing_file_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="dvc repro"):
        read_json(tmp_path / "none.json")


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    write_bytes(tmp_path / "abc", b"abc")
    assert sha256_of_file(tmp_path / "abc").startswith("ba7816bf8f01cfea")
