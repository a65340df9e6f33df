"""What `anonymize` tells its operator: what was not done, and options that would do nothing."""

import dataclasses
import importlib.metadata
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow.artifacts
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from anonymization.bundle import Bundle
from anonymization.card import TilingCard
from anonymization.detection.detector import Detector
from anonymization.files import ExistsError
from anonymization.formats.picture import MAX_PIXELS
from anonymization.formats.pixels import TooLargeError
from anonymization.job.cli import main
from anonymization.job.progress import Bar
from anonymization.job.results import ANONYMIZED, FileResult
from anonymization.panorama.gpano import ChosenProjection, choose_projection
from anonymization.panorama.layout import tiles
from anonymization.panorama.views import Pyramid, Tile
from anonymization.registry import PATIENCE

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


@pytest.mark.parametrize("inputs", ["gone", "gone.png", "gone.zip", "gone/a.png", "gone*"])
@pytest.mark.parametrize("output", ["out", "-"])
def test_an_input_that_is_missing_is_an_error_however_it_is_named(
    run: Run, said: Said, inputs: str, output: str
) -> None:
    assert run("-o", output, inputs=inputs) == 2
    (line,) = said()
    pattern = inputs == "gone*" and output == "out"  # standard output takes one file, no pattern
    why = "matches nothing" if pattern else "cannot be read: No such file or directory"
    assert line.startswith(f"error: {inputs} {why}; correct the")


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--audit-threshold", "0.3"), "--audit-threshold says how --audit looks; give --audit"),
        (("--audit-covered", "0.5"), "--audit-covered says how --audit looks; give --audit"),
        (("--mask-scale", "0.5"), "--mask-scale is for masks; give --extras DIR"),
        (
            ("--mask-scale", "0.5", "--extras", "x", "--extra", "overlay"),
            "--mask-scale is for masks",
        ),
        (("--overlay-on-source",), "--overlay-on-source is for overlays; give --extras DIR"),
        (
            ("--overlay-on-source", "--extras", "x", "--extra", "mask"),
            "--overlay-on-source is for overlays",
        ),
        (
            ("--detections", "known", "--threshold", "face=0.3"),
            "the threshold of face says what is detected, and --detections runs no network",
        ),
        (("--detections", "known", "--set", "face.threshold=0.3"), "the threshold of face says"),
        (("--detections", "known", "--panorama", "pano-8k"), "--panorama says how networks look"),
        (("--detections", "known", "--reduce", "1"), "--reduce says how networks look, and --det"),
        (("--detections", "known", "--runtime", "openvino"), "--runtime says how networks look"),
        (
            ("--panorama", "pano-8k", "--projection", "perspective"),
            "--panorama says how panoramas are looked at, and --projection perspective takes no",
        ),
        (("--metadata", "none,exif"), "--metadata is 'none,exif'; expected all, none, or a list"),
        (("--metadata", "ALL"), "--metadata is 'ALL'; expected all, none, or a list of exif, gps"),
        (("--output", "file"), "--output file is a file"),
        (("--output", "file/out"), "--output file/out cannot be a folder: "),
        (("--extras", "file"), "--extras file/detections cannot be a folder: "),
        (("--write-detections", "file/x"), "--write-detections file/x cannot be a folder: "),
        (("--audit", "--quarantine", "file"), "--quarantine file cannot be a folder: "),
        (("--audit", "--quarantine", "loose"), "--quarantine loose cannot be a folder: "),
    ],
)
def test_an_option_that_could_do_nothing_is_one_error_before_the_run(
    run: Run, said: Said, arguments: tuple[str, ...], message: str
) -> None:
    picture(Path("in/a.png"))
    Path("known").mkdir()
    Path("file").write_bytes(b"")
    Path("loose").symlink_to("nowhere")
    assert run(*arguments) == 2
    (line,) = said()
    assert line.startswith(f"error: {message}")
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("option", "line"),
    [
        (("--panorama", "pano-8k"), "note: --panorama did nothing: no picture was looked at as a "
         "panorama; give --projection equirectangular if they are panoramas"),
        (("--recompress", "80"), "note: --recompress did nothing: no picture is lossy"),
    ],
)  # fmt: skip
def test_an_option_that_did_nothing_is_told_of_once_at_the_end(
    run: Run, said: Said, option: tuple[str, str], line: str
) -> None:
    for name in "ab":
        picture(Path(f"in/{name}.png"), size=(100, 50))
    assert run(*option) == 0
    assert said()[1:] == [line]
    assert run(*option, "--resume") == 0
    assert line not in said()
    picture(Path("in/c.jpg"))
    assert run(*option, "--overwrite") == 0
    assert (line in said()) == (option[0] == "--panorama")
    Path("in/c.jpg").unlink()
    assert run(*option, "--overwrite", "--projection", "equirectangular") == 0
    assert (line in said()) == (option[0] == "--recompress")


@pytest.mark.parametrize("inputs", ["-", "in/a.png"])
def test_the_report_of_a_stream_says_where_its_picture_went(
    run: Run, monkeypatch: pytest.MonkeyPatch, inputs: str
) -> None:
    picture(Path("in/a.png"))
    content = io.TextIOWrapper(io.BytesIO(Path("in/a.png").read_bytes()))
    monkeypatch.setattr(sys, "stdin", content)
    assert run("-o", "-", "--report", "r.json", inputs=inputs) == 0
    (file,) = json.loads(Path("r.json").read_text())["files"]
    assert file["input"] == ("standard input" if inputs == "-" else inputs)
    assert file["output"] == "standard output"


@pytest.mark.parametrize("value", ["NaN", "-Infinity"])
def test_a_value_of_known_regions_that_is_no_number_is_told_of_with_its_file_and_find(
    run: Run, said: Said, value: str
) -> None:
    picture(Path("in/a.png"))
    Path("known").mkdir()
    Path("known/a.png.json").write_text(
        '{"schema_version": 1, "picture": {"width": 100, "height": 60}, "finds": [\n'
        f'{{"class": "face", "box": [1, 2, 9, 9]}}, {{"class": "face", "box": [1, 2, {value}, 9]}}'
        "]}"
    )
    assert run("--detections", "known", model=False) == 1
    found = value.lower().replace("infinity", "inf")
    assert said()[0] == (
        "failed: in/a.png: known/a.png.json: find 2 cannot be read: "
        f"box holds {found}; expected a finite number"
    )


@pytest.mark.parametrize(
    ("option", "folder"), [("--output", "out"), ("--extras", "extras"), ("--quarantine", "held")]
)
def test_a_folder_that_cannot_be_written_to_is_one_error_before_the_run(
    run: Run, said: Said, monkeypatch: pytest.MonkeyPatch, option: str, folder: str
) -> None:
    picture(Path("in/a.png"))
    Path(folder).mkdir()
    temporary = tempfile.TemporaryFile

    def refuse(**where: Path) -> Any:
        if where["dir"].name == folder:
            raise PermissionError(13, "Permission denied")
        return temporary(**where)

    monkeypatch.setattr("anonymization.job.places.tempfile.TemporaryFile", refuse)
    assert run(option, folder, "--audit") == 2
    (line,) = said()
    assert line.startswith(f"error: {option} {folder}")
    assert line.endswith("cannot be written to: Permission denied; choose another")
    assert not list(Path(folder).iterdir())


def test_thresholds_of_a_settings_file_may_serve_a_run_that_detects_nothing(run: Run) -> None:
    picture(Path("in/a.png"))
    Path("s.yaml").write_text("schema_version: 1\nclasses: {face: {threshold: 0.2}}\n")
    assert run("--settings", "s.yaml", "--write-detections", "known") == 0
    assert run("--settings", "s.yaml", "--detections", "known", "--overwrite") == 0


@pytest.mark.parametrize("setting", ["enabled=false", "method=none"])
def test_a_run_that_hides_nothing_is_warned_of(run: Run, said: Said, setting: str) -> None:
    picture(Path("in/a.png"))
    three = [word for n in ("face", "person", "vehicle") for word in ("--set", f"{n}.{setting}")]
    line = "warning: nothing is hidden: every class is off or has method none"
    assert run(*three) == 0
    assert line not in said()
    assert run(*three, "--set", f"license_plate.{setting}", "--overwrite") == 0
    assert line in said()


def test_a_registry_that_is_not_configured_is_told_of_and_not_made(
    run: Run, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("mlflow.tracking.is_tracking_uri_set", lambda: False)
    picture(Path("in/a.png"))
    assert run("--model", "models:/anonymizer@champion", model=False) == 2
    (line,) = said()
    assert "none is configured: set MLFLOW_TRACKING_URI" in line
    assert sorted(path.name for path in Path().iterdir()) == ["bundle", "in"]


def test_a_registry_that_does_not_answer_is_told_of_in_a_sentence_and_soon(
    run: Run, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow would try for minutes; what the user has set of that holds."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://bob:s3cret@{address}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    seen = {}
    download = mlflow.artifacts.download_artifacts

    def downloading(**named: Any) -> Any:
        seen.update({name: os.environ[name] for name in PATIENCE})
        return download(**named)

    monkeypatch.setattr("mlflow.artifacts.download_artifacts", downloading)
    picture(Path("in/a.png"))
    assert run(model=False) == 2
    where = f"the MLflow registry at http://...@{address}"
    assert said() == [
        f"asking {where} for models:/anonymizer@champion",
        f"error: models:/anonymizer@champion cannot be had: {where} does not answer (Connection "
        "refused). Check MLFLOW_TRACKING_URI and the network, or give --model BUNDLE_FOLDER; a "
        "slow server gets more time by MLFLOW_HTTP_REQUEST_TIMEOUT, in seconds, and "
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES",
    ]
    expected = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
    assert seen == expected
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ


def test_a_database_of_a_registry_that_is_not_there_is_not_made(
    run: Run, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/x/ml.db")
    picture(Path("in/a.png"))
    assert run(model=False) == 2
    (line,) = said()
    assert f"{tmp_path}/x/ml.db, the database of the MLflow registry, is not there" in line
    assert not Path("x").exists()


def test_a_region_that_is_for_no_picture_is_told_of(run: Run, said: Said) -> None:
    picture(Path("in/cam0/a.png"))
    Path("r.yaml").write_text(
        "schema_version: 1\nregions:\n"
        "- {name: bonnet, kind: ignore, pictures: cam_front/*, polygon: [[0,0],[1,0],[1,1]]}\n"
        "- {name: poster, kind: ignore, pictures: cam0/*, polygon: [[0,0],[0.1,0],[0.1,0.1]]}\n"
    )
    assert run("--regions", "r.yaml") == 0
    assert said()[0] == (
        "warning: region 'bonnet' is for no picture of this run: none matches 'cam_front/*'"
    )


def test_other_names_of_a_class_are_understood_in_settings_and_regions(
    run: Run, said: Said
) -> None:
    picture(Path("in/a.png"))
    Path("known").mkdir()
    finds = [{"class": "plate", "box": [10, 10, 30, 20]}, {"class": "car", "box": [50, 10, 80, 40]}]
    values = {"schema_version": 1, "picture": {"width": 100, "height": 60}, "finds": finds}
    Path("known/a.png.json").write_text(json.dumps(values))
    Path("r.yaml").write_text(
        "schema_version: 1\nregions:\n"
        "- {kind: ignore, classes: van, polygon: [[0,0],[1,0],[1,1],[0,1]]}\n"
    )
    known = ("--detections", "known", "--regions", "r.yaml", "--report", "r.json")
    assert run(*known, "--set", "number_plate.method=none", model=False) == 0
    written = json.loads(Path("r.json").read_text())
    assert written["settings"] == {"license_plate": {"method": "none"}}
    (spared,) = written["files"][0]["spared"]
    assert (spared["class"], spared["region"]) == ("vehicle", "number 1")
    before, after = (np.asarray(Image.open(Path(f, "a.png"))) for f in ("in", "out"))
    np.testing.assert_array_equal(after, before)


def test_a_result_that_exists_is_one_line_with_both_ways_on(run: Run, said: Said) -> None:
    picture(Path("in/a.png"))
    assert run() == 0
    said()
    assert run() == 1
    assert said() == [
        "failed: in/a.png: out/a.png exists. --resume continues a run, --overwrite replaces it",
        "0 anonymized, 1 failed, 0 skipped",
    ]


def test_another_failure_still_tells_of_an_older_result(run: Run, said: Said) -> None:
    picture(Path("in/a.png"))
    assert run() == 0
    Path("in/a.png").write_bytes(b"")
    said()
    assert run("--overwrite") == 1
    assert said()[:2] == [
        "failed: in/a.png is empty (0 bytes)",
        "note: in/a.png: an older file is still at out/a.png; this run did not write it",
    ]


def test_an_empty_stream_and_an_empty_member_are_called_empty(
    run: Run, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert run("-o", "-", inputs="-") == 1
    assert said()[0] == "failed: standard input: is empty (0 bytes)"
    with zipfile.ZipFile("a.zip", "w") as archive:
        archive.writestr("b.png", b"")
    assert run(inputs="a.zip") == 1
    assert said()[0] == "failed: a.zip: b.png is empty (0 bytes)"


def test_a_limit_on_pixels_names_its_option(run: Run, said: Said) -> None:
    picture(Path("in/a.png"))
    assert run("--max-pixels", 100) == 1
    assert said()[0] == (
        "failed: in/a.png has 100x60 pixels; at most 100 are decoded. "
        "Raise it with --max-pixels if the picture is to be trusted"
    )


def test_the_help_states_the_limit_on_pixels_that_holds(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    assert run("--help") == 0
    assert f"default: {MAX_PIXELS}, which is 16384x16384" in capsys.readouterr().out


def test_the_version_is_said_without_an_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["anonymize", "--version"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert capsys.readouterr().out == f"blurloop {importlib.metadata.version('blurloop')}\n"


def test_a_damaged_archive_is_named_once_and_without_numbers_of_the_system(
    run: Run, said: Said
) -> None:
    Path("a.zip").write_bytes(b"PK")
    assert run(inputs="a.zip") == 1
    assert said()[0] == "failed: a.zip is no readable archive: File is not a zip file"
    picture(Path("in/a.png"))
    assert run("--settings", "none.yaml") == 2
    assert said() == ["error: none.yaml cannot be read: No such file or directory"]


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        (None, "2 pictures of 2:1 shape without GPano metadata were looked at as flat; give "
         "--projection equirectangular if they are panoramas"),
        ("auto", "2 pictures without GPano metadata were taken for panoramas for their 2:1 shape; "
         "give --projection perspective if they are flat"),
    ],
)  # fmt: skip
def test_the_shape_of_panoramas_is_told_of_once_a_run(
    run: Run, said: Said, asked: str | None, line: str
) -> None:
    for name, width in (("a", 512), ("b", 512), ("c", 500)):
        picture(Path(f"in/{name}.png"), size=(width, width // 2))
    assert run(*(("--projection", asked) if asked else ())) == 0
    assert [one for one in said() if "note" in one] == [f"note: {line}"]


def test_what_is_said_once_or_otherwise_does_not_hang_on_the_words_of_others(
    run: Run, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reworded(*given: Any) -> ChosenProjection:
        chosen = choose_projection(*given)
        return dataclasses.replace(chosen, warning=chosen.warning and "anything else")

    monkeypatch.setattr("anonymization.anonymizer.choose_projection", reworded)
    monkeypatch.setattr(TooLargeError, "__str__", lambda _: "too large")
    monkeypatch.setattr(ExistsError, "__str__", lambda _: "there already")
    picture(Path("in/a.png"), size=(512, 256))
    assert run() == 0
    assert said()[0].startswith("note: 1 pictures of 2:1 shape")
    assert run() == 1
    first, *others = said()
    assert "--overwrite replaces it" in first
    assert others == ["0 anonymized, 1 failed, 0 skipped"]
    assert run("--overwrite", "--max-pixels", 100) == 1
    assert "--max-pixels" in said()[0]


def test_without_a_terminal_a_line_now_and_then_says_how_far_it_is(
    run: Run, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        picture(Path(f"in/{number}.png"), number)
    Path("in/1.png").write_bytes(b"")
    assert run("--workers", 1) == 1
    assert not [line for line in said() if " of 3 done" in line]
    monkeypatch.setattr("anonymization.job.progress.LINE_SECONDS", 0.0)
    assert run("--workers", 1, "--overwrite") == 1
    lines = [line for line in said() if " of 3 done" in line]
    assert len(lines) == 3
    form = r"3 of 3 done, 1 failed, 0 quarantined, [\d.]+ pictures/s, [\d.]+ MP/s, 0:00:00 left"
    assert re.fullmatch(form, lines[2])


def test_on_a_terminal_the_bar_counts_what_failed(
    run: Run, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    picture(Path("in/a.png"))
    Path("in/b.png").write_bytes(b"")
    assert run() == 1
    assert any("1 failed, 0 quarantined" in line for line in said())


@pytest.mark.parametrize("columns", [80, 200])
def test_the_bar_has_room_for_all_that_it_says_and_a_right_estimate(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """Two workers end their first pictures at nearly the same time: they took 0.35 s, not 1 ms."""
    clock = [100.0]
    monkeypatch.setattr("anonymization.job.progress.time.monotonic", lambda: clock[0])
    bar = Bar(60000)
    for moment in (100.35, 100.351):
        clock[0] = moment
        bar.advance(FileResult("a.png", ANONYMIZED, width=4000, height=3000))
    screen = Console(width=columns, file=io.StringIO(), force_terminal=True, color_system=None)
    screen.print(bar._progress)
    (line,) = screen.file.getvalue().splitlines()
    said = "2/60000 0 failed, 0 quarantined, 5.7/s, 68.4 MP/s, 2:55:30 left"
    assert line.rstrip().endswith(f" {said}")
    assert 15 <= line.index(said) <= 41


def test_the_time_left_follows_the_last_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `--resume` skips takes next to no time, and says nothing of the rest."""
    clock = [0.0]
    monkeypatch.setattr("anonymization.job.progress.time.monotonic", lambda: clock[0])
    bar = Bar(1200)
    for number in range(1100):
        clock[0] += 0.001 if number < 1000 else 2
        bar.advance(FileResult("a.png", ANONYMIZED))
    assert bar._left(clock[0]) == pytest.approx(200)


def test_an_interrupted_run_says_how_to_go_on(
    run: Run, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(Path("in/a.png"))

    def interrupt(*_: object) -> dict[int, Any]:
        os.kill(os.getpid(), signal.SIGTERM)
        return {}

    monkeypatch.setattr("anonymization.job.run._work_off", interrupt)
    assert run() == 128 + signal.SIGTERM
    assert said()[0] == (
        "error: interrupted; what is written is whole, the rest is not written; "
        "run the same command with --resume to go on"
    )


@pytest.mark.parametrize("stream", [False, True])
def test_a_signal_ends_a_picture_between_two_of_its_views(
    run: Run, said: Said, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """All views of a huge picture take minutes, and what they found is thrown away."""
    picture(Path("in/a.png"), size=(900, 600))
    looked, render = [], Tile.render

    def interrupting(self: Tile, pyramid: Pyramid) -> Any:
        if not looked:
            os.kill(os.getpid(), signal.SIGTERM)
        looked.append(self)
        return render(self, pyramid)

    monkeypatch.setattr(Tile, "render", interrupting)
    words = ("--reduce", "0.25", "--report", "r.json", "--threads", 1)
    assert len(tiles(900, 600, tiling=TilingCard(shrink_max=0.25), long_side=512)) > 50
    if stream:
        assert run(*words, "-o", "-", inputs="in/a.png") == 128 + signal.SIGTERM
    else:
        assert run(*words) == 128 + signal.SIGTERM
    assert len(looked) < 10
    assert said()[0].startswith("error: interrupted; what is written is whole")
    written = json.loads(Path("r.json").read_text())
    assert (written["complete"], written["files"]) == (False, [])
    assert not Path("out/a.png").exists()


def test_an_empty_path_is_not_the_current_folder(run: Run, said: Said) -> None:
    picture(Path("a.png"))
    assert run(inputs="") == 2
    picture(Path("in/a.png"))
    assert run("--output", "") == 2
    assert sum("it is empty, as of a variable" in line for line in said()) == 2
    assert not Path("out").exists()


def test_a_report_in_place_of_a_folder_of_results_is_refused_before_the_run(
    run: Run, said: Said
) -> None:
    picture(Path("in/a.png"))
    assert run("--report", "out") == 2
    assert "report out is a folder, an input, a result or another report" in said()[-1]
    assert not Path("out").exists()


def test_nothing_is_written_where_the_ledger_lies(run: Run, said: Said) -> None:
    with zipfile.ZipFile("in.zip", "w") as archive:
        buffer = io.BytesIO()
        Image.new("RGB", (9, 9)).save(buffer, "PNG")
        archive.writestr(".blurloop-ledger.jsonl/x.png", buffer.getvalue())
    assert run(inputs="in.zip") == 2
    assert "where the ledger of --resume lies" in said()[-1]
    assert not Path("out").exists()


def test_a_chain_of_folders_with_two_links_each_is_walked_in_bounded_time(
    run: Run, said: Said
) -> None:
    """It has 4,194,304 paths to one picture."""
    depth = 22
    for level in range(depth):
        Path(f"c{level}").mkdir()
        for name in "ab":
            Path(f"c{level}", name).symlink_to(f"../c{level + 1}")
    picture(Path(f"c{depth}/p.png"))
    Path("in").symlink_to("c0")
    assert run() == 1
    assert len(list(Path("out").rglob("*.png"))) == 16
    assert any("is a link to a folder to which 16 others led already" in line for line in said())


def test_a_reduction_is_checked_and_makes_tiles(
    run: Run, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(Path("in/a.png"), size=(900, 600))
    assert run("--reduce", "0.1") == 2
    assert "--reduce is 0.1; expected a number from 0.25 to 64" in said()[-1]
    tilings = []
    found = Detector.detect

    def detect(self: Detector, *values: Any, **named: Any) -> Any:
        tilings.append(named["tiling"])
        return found(self, *values, **named)

    monkeypatch.setattr(Detector, "detect", detect)
    assert run("--reduce", "1.5") == 0
    assert tilings == [TilingCard(shrink_max=1.5)]


class Slow(io.RawIOBase):
    """Takes little at once, and nothing when it is full, as a raw standard output may."""

    def __init__(self, room: int) -> None:
        self.taken = bytearray()
        self._room = room

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        part = bytes(data[: min(100, self._room - len(self.taken))])
        self.taken += part
        return len(part)


@pytest.mark.parametrize(("room", "code"), [(10**6, 0), (150, 1)])
def test_standard_output_that_takes_little_at_once_gets_all_or_the_run_fails(
    run: Run, said: Said, monkeypatch: pytest.MonkeyPatch, room: int, code: int
) -> None:
    picture(Path("in.png"))
    slow = Slow(room)

    class Output:
        buffer = slow

        def fileno(self) -> int:
            return os.open(os.devnull, os.O_WRONLY)

    monkeypatch.setattr(sys, "stdout", Output())
    assert run("--output", "-", inputs="in.png") == code
    lines = said()
    if code:
        assert any("standard output cannot be written whole" in line for line in lines)
    else:
        assert Image.open(io.BytesIO(bytes(slow.taken))).size == (100, 60)


def test_a_full_log_does_not_end_a_run(tmp_path: Path, constant_bundle: Bundle) -> None:
    picture(tmp_path / "in/a.png")
    words = [sys.executable, "-m", "anonymization", str(tmp_path / "in"), "-o"]
    words += [str(tmp_path / "out"), "--model", str(constant_bundle.path)]
    for unbuffered in ("", "1"):
        with Path("/dev/full").open("wb") as full:
            ended = subprocess.run(
                [*words, "--overwrite"],
                stderr=full,
                check=False,
                env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            )
        assert ended.returncode == 0
        assert (tmp_path / "out/a.png").is_file()


def test_a_closed_standard_output_is_told_in_a_sentence(
    run: Run, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(Path("in.png"))
    monkeypatch.setattr(sys, "stdout", None)
    assert run("--output", "-", inputs="in.png") == 2
    assert "standard input or output is closed" in said()[-1]
