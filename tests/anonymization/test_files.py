"""Outputs appear whole or not at all."""

from pathlib import Path

import pytest

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
