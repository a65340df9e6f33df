"""What `anonymize` tells its operator: what was not done, and options that would do nothing."""

import io
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anonymization.bundle import Bundle
from anonymization.job.cli import main

Run = Callable[..., int]


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (100, 60)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def run(
    tmp_path: Path, constant_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
    """Run the command in `tmp_path`; results of `in` go to `out` unless said otherwise."""

    def command(*arguments: object, inputs: str = "in", model: bool = True) -> int:
        words = ["anonymize", inputs, "-o", "out"]
        words += ["--model", str(constant_bundle.path)] if model else []
        monkeypatch.setattr(sys, "argv", [*words, *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    monkeypatch.chdir(tmp_path)
    return command


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """Return the lines on standard error since the last time, but for the verdict's."""
    return lambda: [
        line for line in capsys.readouterr().err.splitlines() if "has no verdict" not in line
    ]


Said = Callable[[], list[str]]


def test_pictures_that_are_not_read_count_as_failed_and_other_files_are_counted_by_kind(
    run: Run, said: Said
) -> None:
    picture(Path("in/a.png"))
    for name in ("b.HEIC", "c.dng", "d.gif", "e.mp4", "f.MP4", "g.zip", "README"):
        Path("in", name).write_bytes(b"")
    assert run("--report", "r.json", "--report-html", "r.html") == 1
    assert said() == [
        "failed: in/b.HEIC: HEIC is not read; convert it to JPEG",
        "failed: in/c.dng: DNG is not read; develop it to JPEG or TIFF",
        "failed: in/d.gif: GIF is not read; convert it to PNG",
        "1 anonymized, 3 failed, 4 skipped (2 .mp4, 1 without an ending, 1 .zip): 1 face",
    ]
    assert json.loads(Path("r.json").read_text())["counts"]["failed"] == 3
    assert "in/e.mp4" in Path("r.html").read_text()


def test_pictures_that_are_not_read_count_as_failed_in_patterns_and_archives(
    run: Run, said: Said
) -> None:
    picture(Path("in/a.png"))
    Path("in/b.avif").write_bytes(b"")
    with zipfile.ZipFile("a.zip", "w") as archive:
        archive.write("in/a.png", "z/a.png")
        archive.writestr("z/b.nef", b"")
    assert run(inputs="in/*") == 1
    assert "failed: in/b.avif: AVIF is not read; convert it to JPEG" in said()
    assert run(inputs="a.zip") == 1
    assert "failed: a.zip: z/b.nef: NEF is not read; develop it to JPEG or TIFF" in said()


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ("empty", (), "empty holds no picture; correct the input"),
        ("texts", (), "texts holds no picture (skipped: 1 .txt); correct"),
        ("deep", ("--no-recursive",), "deep holds no picture, folders inside of it aside"),
        ("zips", (), "zips holds no picture (skipped: 1 .zip); name archives by themselves"),
        ("texts/*", (), "texts/* holds no picture (skipped: 1 .txt)"),
        ("texts.zip", (), "texts.zip holds no picture (skipped: 1 .txt)"),
    ],
)
def test_an_input_without_a_picture_is_an_error(
    run: Run, said: Said, inputs: str, options: tuple[str, ...], message: str
) -> None:
    Path("empty").mkdir()
    picture(Path("deep/in/a.png"))
    for folder, name in (("texts", "a.txt"), ("zips", "a.zip")):
        Path(folder).mkdir()
        Path(folder, name).write_bytes(b"")
    with zipfile.ZipFile("texts.zip", "w") as archive:
        archive.writestr("a.txt", b"")
    assert run(*options, inputs=inputs) == 2
    (line,) = said()
    assert line.startswith(f"error: {message}")
    assert not Path("out").exists()


def test_a_line_of_a_failure_begins_with_the_file(run: Run, said: Said) -> None:
    picture(Path("in/a.png"))
    picture(Path("in/b.png"))
    Path("in/b.png").write_bytes(Path("in/b.png").read_bytes()[:100])
    assert run("--projection", "equirectangular") == 1
    first, second = sorted(said())[1:]
    assert first.startswith("failed: in/a.png: a picture of 100x60 is no whole equirectangular")
    assert second.startswith("failed: in/b.png")
    assert second.count("in/b.png") == 1


def test_a_line_of_a_failure_names_the_stream(
    run: Run, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(Path("in/a.png"))
    Path("r.yaml").write_text(
        "schema_version: 1\nregions:\n- {name: bonnet, kind: ignore, mask: m.png}\n"
    )
    picture(Path("m.png"), size=(64, 64))
    content = io.TextIOWrapper(io.BytesIO(Path("in/a.png").read_bytes()))
    monkeypatch.setattr(sys, "stdin", content)
    assert run("-o", "-", "--regions", "r.yaml", inputs="-") == 1
    assert said()[0].startswith("failed: standard input: region 'bonnet': its mask is 64x64")
