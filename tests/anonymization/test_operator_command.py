"""`anonymize` with what an operator adds to it: settings, known regions, resume, audit, extras."""

import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from anonymization import pipeline
from anonymization.bundle import Bundle
from anonymization.formats import picture as formats_picture
from anonymization.job import contact_sheet
from anonymization.job.cli import main
from anonymization.job.ledger import NAME as LEDGER

FACE = [10.0, 8.0, 30.0, 28.0]


def picture(path: Path, seed: int = 0) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def pixels_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def names(folder: Path) -> list[str]:
    found = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return sorted(name for name in found if name != LEDGER)


Run = Callable[..., int]


@pytest.fixture
def run(
    tmp_path: Path, constant_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
    """Run the command on `in` with the bundle; results go to `out`."""

    def command(*arguments: object, inputs: object = None, model: bool = True) -> int:
        words = ["anonymize", str(inputs or tmp_path / "in"), "-o", str(tmp_path / "out")]
        words += ["--model", str(constant_bundle.path)] if model else []
        monkeypatch.setattr(sys, "argv", [*words, *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    return command


def report(tmp_path: Path) -> dict[str, Any]:
    values = json.loads((tmp_path / "report.json").read_text())
    assert isinstance(values, dict)
    return values


def test_a_class_is_switched_off_hidden_otherwise_or_only_detected(
    tmp_path: Path, run: Run
) -> None:
    before = picture(tmp_path / "in/a.png")
    said = ("--report", tmp_path / "report.json", "--overwrite")
    assert run("--set", "face.enabled=off", *said) == 0
    np.testing.assert_array_equal(pixels_of(tmp_path / "out/a.png"), before)
    assert report(tmp_path)["finds"] == {}
    assert run("--set", "face.method=none", *said) == 0
    np.testing.assert_array_equal(pixels_of(tmp_path / "out/a.png"), before)
    assert report(tmp_path)["finds"] == {"face": 1}
    assert run("--set", "face.method=solid", "--set", "face.shape=box", *said) == 0
    assert (pixels_of(tmp_path / "out/a.png")[8:28, 10:30] == 0).all()
    assert report(tmp_path)["settings"] == {"face": {"method": "solid", "shape": "box"}}


def test_a_region_that_spares_a_find_is_in_the_report(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = picture(tmp_path / "in/cam0/a.png")
    picture(tmp_path / "in/cam1/a.png")
    corners = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]
    area = {"name": "poster", "kind": "ignore", "pictures": "cam0/*", "polygon": corners}
    (tmp_path / "r.json").write_text(json.dumps({"schema_version": 1, "regions": [area]}))
    assert run("--regions", tmp_path / "r.json", "--report", tmp_path / "report.json") == 0
    np.testing.assert_array_equal(pixels_of(tmp_path / "out/cam0/a.png"), before)
    values = report(tmp_path)
    assert values["spared"] == 1
    assert values["regions"][0]["spared"] == 1
    assert values["files"][0]["spared"][0]["region"] == "poster"
    assert values["files"][1]["spared"] == []
    assert "1 finds spared by regions" in capsys.readouterr().err


def test_detections_are_written_corrected_and_read_back_without_a_network(
    tmp_path: Path, run: Run
) -> None:
    before = picture(tmp_path / "in/x/a.png")
    assert run("--write-detections", tmp_path / "known") == 0
    path = tmp_path / "known/x/a.png.json"
    values = json.loads(path.read_text())
    assert values["finds"][0]["box"] == FACE
    values["finds"].append({"class": "license_plate", "box": [60, 30, 90, 50]})
    path.write_text(json.dumps(values))
    said = ("--detections", tmp_path / "known", "--set", "license_plate.method=solid")
    older = pixels_of(tmp_path / "out/x/a.png")
    assert run(*said, "--overwrite", model=False) == 1  # the bundle's margins are not the defaults
    np.testing.assert_array_equal(pixels_of(tmp_path / "out/x/a.png"), older)
    assert run(*said, "--overwrite") == 0
    values["bundle"] = None
    path.write_text(json.dumps(values))
    assert run(*said, "--overwrite", model=False) == 0
    after = pixels_of(tmp_path / "out/x/a.png")
    assert (after[30:50, 60:90] == 0).all()
    assert (after[8:28, 18:22] != before[8:28, 18:22]).any(axis=2).mean() > 0.95


def test_a_panorama_is_read_back_as_one_and_in_no_other_way(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """What goes on across the seam would be visible again on the other side."""
    pixels = np.random.default_rng(0).integers(0, 256, (100, 200, 3), dtype=np.uint8)
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels).save(tmp_path / "in/a.png")
    values = {
        "schema_version": 1,
        "picture": {"name": "a.png", "width": 200, "height": 100},
        "finds": [{"class": "face", "box": [180, 40, 230, 80]}],
    }
    (tmp_path / "a.json").write_text(json.dumps(values))
    solid = ("--set", "face.method=solid", "--overwrite")
    whole = ("--projection", "equirectangular")
    written = ("--detections", tmp_path / "a.json", "--write-detections", tmp_path / "known")
    assert run(*written, *solid, *whole, model=False) == 0
    first = pixels_of(tmp_path / "out/a.png")
    assert not first[55:65, :20].any()
    known = ("--detections", tmp_path / "known", *solid)
    for asked in ((), ("--projection", "auto"), whole):
        assert run(*known, *asked, model=False) == 0
        np.testing.assert_array_equal(pixels_of(tmp_path / "out/a.png"), first)
    assert run(*known, "--projection", "perspective", model=False) == 1
    assert "was looked at as equirectangular, and this run looks" in capsys.readouterr().err
    np.testing.assert_array_equal(pixels_of(tmp_path / "out/a.png"), first)
    assert run("--detections", tmp_path / "a.json", *solid, model=False) == 1
    assert "give --projection equirectangular if it is a panorama" in capsys.readouterr().err


def test_known_regions_need_neither_bundle_nor_network(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png")
    values = {
        "schema_version": 1,
        "picture": {"name": "a.png", "width": 100, "height": 60},
        "finds": [{"class": "face", "box": FACE}],
    }
    (tmp_path / "a.json").write_text(json.dumps(values))
    code = (
        "import sys; sys.modules['onnxruntime'] = None; sys.argv = ['anonymize', *sys.argv[1:]];"
        "from anonymization.job.cli import main; main()"
    )
    words = [tmp_path / "in/a.png", "-o", tmp_path / "out", "--detections", tmp_path / "a.json"]
    ended = subprocess.run([sys.executable, "-c", code, *map(str, words)], check=False)
    assert ended.returncode == 0
    assert names(tmp_path / "out") == ["a.png"]


def test_a_picture_without_known_regions_is_not_written(tmp_path: Path, run: Run) -> None:
    picture(tmp_path / "in/a.png")
    (tmp_path / "known").mkdir()
    assert run("--detections", tmp_path / "known", model=False) == 1
    assert not (tmp_path / "out").exists()


def test_resume_skips_what_is_proven_done_and_redoes_the_rest(tmp_path: Path, run: Run) -> None:
    for number, name in enumerate(("kept", "changed", "damaged", "lost")):
        picture(tmp_path / f"in/{name}.png", number)
    assert run() == 0
    before = {name: (tmp_path / "out" / name).read_bytes() for name in names(tmp_path / "out")}
    picture(tmp_path / "in/changed.png", 99)
    (tmp_path / "out/damaged.png").write_bytes(b"half")
    (tmp_path / "out/lost.png").unlink()
    said = ("--resume", "--report", tmp_path / "report.json")
    assert run(*said) == 0
    status = {Path(e["input"]).stem: e["status"] for e in report(tmp_path)["files"]}
    assert status == {
        "kept": "already_done", "changed": "anonymized",
        "damaged": "anonymized", "lost": "anonymized",
    }  # fmt: skip
    assert (tmp_path / "out/kept.png").read_bytes() == before["kept.png"]
    assert (tmp_path / "out/changed.png").read_bytes() != before["changed.png"]
    assert run(*said) == 0
    assert report(tmp_path)["counts"]["already_done"] == 4
    assert run(*said, "--set", "face.margin=0.4") == 0
    assert report(tmp_path)["counts"]["anonymized"] == 4


def test_resume_does_not_trust_a_ledger_that_was_cut_off(tmp_path: Path, run: Run) -> None:
    picture(tmp_path / "in/a.png")
    picture(tmp_path / "in/b.png", 1)
    assert run() == 0
    ledger = tmp_path / "out" / LEDGER
    ledger.write_bytes(ledger.read_bytes()[:-20])
    said = ("--resume", "--report", tmp_path / "report.json")
    assert run(*said) == 0
    assert report(tmp_path)["counts"]["already_done"] == 1
    assert run(*said) == 0
    assert report(tmp_path)["counts"]["already_done"] == 2


@pytest.mark.parametrize("pictures", [1, 2])
def test_opencv_has_the_cores_that_no_other_picture_asks_for(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, pictures: int
) -> None:
    given: list[int] = []
    monkeypatch.setattr(pipeline, "cores", lambda: 2)
    monkeypatch.setattr(cv2, "setNumThreads", given.append)
    for number in range(pictures):
        picture(tmp_path / f"in/{number}.png")
    assert run("--threads", "2") == 0
    assert given[0] == 2 // pictures


def test_a_missing_extra_is_made_again(tmp_path: Path, run: Run) -> None:
    picture(tmp_path / "in/a.png")
    extras = ("--extras", tmp_path / "extras", "--extra", "mask", "--mask-scale", "0.5")
    assert run(*extras) == 0
    assert names(tmp_path / "extras") == ["mask/a.png.png"]
    assert pixels_of(tmp_path / "extras/mask/a.png.png").shape == (30, 50)
    (tmp_path / "extras/mask/a.png.png").unlink()
    assert run(*extras, "--resume") == 0
    assert names(tmp_path / "extras") == ["mask/a.png.png"]


def test_all_extras_and_reports_are_written(tmp_path: Path, run: Run) -> None:
    before = picture(tmp_path / "in/x/a.jpg")
    page = tmp_path / "report.html"
    assert run("--extras", tmp_path / "extras", "--report-html", page) == 0
    assert names(tmp_path / "extras") == [
        "detections/x/a.jpg.json", "instances/x/a.jpg.png",
        "mask/x/a.jpg.png", "overlay/x/a.jpg.jpg",
    ]  # fmt: skip
    assert "data:image/jpeg;base64" in page.read_text()
    drawn = pixels_of(tmp_path / "extras/overlay/x/a.jpg.jpg").astype(int)
    source = np.asarray(Image.open(tmp_path / "in/x/a.jpg")).astype(int)
    assert drawn.shape == before.shape
    assert np.abs(drawn - source)[14:22, 15:25].mean() > 30  # the face is hidden there too


def test_the_audit_sends_what_is_still_visible_to_quarantine(
    tmp_path: Path,
    make_bundle: Callable[..., Bundle],
    run: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A second face of a score below its threshold is left; the audit looks lower and sees it."""
    seen = [([60.0, 20.0, 90.0, 50.0], 0.3, 0), (FACE, 0.9, 0)]
    bundle = make_bundle(seen, folder="unsure")
    picture(tmp_path / "in/a.png")
    said = ("--model", bundle.path, "--audit", "--report", tmp_path / "report.json")
    assert run(*said) == 3
    assert names(tmp_path / "out") == [] if (tmp_path / "out").exists() else True
    assert names(tmp_path / "out-quarantine") == ["a.png"]
    (entry,) = report(tmp_path)["files"]
    assert entry["status"] == "quarantined"
    assert entry["visible"][0]["box"] == [60, 20, 90, 50]
    assert entry["visible"][0]["covered"] == 0
    assert "the audit still sees 1 face; in quarantine at " in capsys.readouterr().err
    assert run(*said, "--threshold", "face=0.3", "--overwrite") == 0
    assert names(tmp_path / "out") == ["a.png"]


def test_quarantine_takes_an_older_result_away_when_told_to_replace(
    tmp_path: Path, make_bundle: Callable[..., Bundle], run: Run
) -> None:
    bundle = make_bundle([([60.0, 20.0, 90.0, 50.0], 0.3, 0)], folder="unsure")
    picture(tmp_path / "in/a.png")
    assert run("--model", bundle.path) == 0
    assert run("--model", bundle.path, "--audit") == 1  # nothing is replaced unless told
    assert names(tmp_path / "out") == ["a.png"]
    refused = ("--quarantine", tmp_path / "held", "--audit", "--overwrite")
    assert run("--model", bundle.path, *refused) == 3
    assert names(tmp_path / "out") == []
    assert names(tmp_path / "held") == ["a.png"]


def test_archives_come_out_as_folders(tmp_path: Path, run: Run) -> None:
    picture(tmp_path / "x/a.png")
    content = (tmp_path / "x/a.png").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("cam0/a.png", content)
        archive.writestr("cam0/bad.png", content[:100])
        archive.writestr("../evil.png", content)
    assert run("--report", tmp_path / "report.json", inputs=tmp_path / "a.zip") == 1
    assert names(tmp_path / "out") == ["cam0/a.png"]
    assert not (tmp_path / "evil.png").exists()
    assert report(tmp_path)["counts"]["failed"] == 2
    with tarfile.open(tmp_path / "b.tgz", "w:gz") as archive_:
        for number in range(5):
            info = tarfile.TarInfo(f"t/{number}.png")
            info.size = len(content)
            archive_.addfile(info, io.BytesIO(content))
    assert run("--workers", 2, inputs=tmp_path / "b.tgz") == 0
    assert names(tmp_path / "out") == ["cam0/a.png", *(f"t/{n}.png" for n in range(5))]
    assert run("--resume", "--report", tmp_path / "report.json", inputs=tmp_path / "b.tgz") == 0
    assert report(tmp_path)["counts"]["already_done"] == 5


def test_one_picture_goes_through_standard_streams(tmp_path: Path, constant_bundle: Bundle) -> None:
    before = picture(tmp_path / "a.png")
    words = [sys.executable, "-m", "anonymization", "-", "-o", "-"]
    words += ["--model", str(constant_bundle.path)]
    content = (tmp_path / "a.png").read_bytes()
    ended = subprocess.run(words, input=content, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr
    after = np.asarray(Image.open(io.BytesIO(ended.stdout)))
    assert (after[8:28, 18:22] != before[8:28, 18:22]).any(axis=2).mean() > 0.95
    broken = subprocess.run(words, input=content[:200], capture_output=True, check=False)
    assert (broken.returncode, broken.stdout) == (1, b"")
    assert b"standard input" in broken.stderr


def test_fisheye_pictures_are_looked_at_through_their_lens(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundle finds a face in each view that it is shown."""
    picture(tmp_path / "in/a.png")
    said = ("--projection", "fisheye", "--report", tmp_path / "report.json", "--resume")
    assert run("--report", tmp_path / "report.json") == 0
    assert report(tmp_path)["options"]["fisheye"] is None
    assert report(tmp_path)["finds"] == {"face": 1}
    assert run(*said) == 0
    assert report(tmp_path)["options"]["projection"] == "fisheye"
    assert report(tmp_path)["options"]["fisheye"] == {"fov_deg": 180, "circle": "diagonal"}
    assert report(tmp_path)["finds"]["face"] > 5
    lens = ("--fisheye-fov", "190", "--fisheye-circle", "50,30,28@100x60")
    capsys.readouterr()
    assert run(*said, *lens) == 0
    assert "1 done again" in capsys.readouterr().err
    stated = {"fov_deg": 190, "circle": "50,30,28@100x60"}
    assert report(tmp_path)["options"]["fisheye"] == stated
    assert run(*said, *lens) == 0
    assert report(tmp_path)["counts"]["already_done"] == 1


def test_a_picture_that_the_lens_cannot_have_made_fails(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "in/a.png")
    lens = ("--projection", "fisheye", "--fisheye-circle", "30,50,28@60x100")
    assert run(*lens) == 1
    assert "which does not fit a picture of 100x60" in capsys.readouterr().err
    assert names(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "face.method=magic"), "method is 'magic'"),
        (("--set", "dog.method=blur"), "class 'dog'; known classes"),
        (("--runtime", "abacus"), "runtime is 'abacus'; expected one of onnxruntime, openvino"),
        (("--extra", "mask"), "name the folder"),
        (("--quarantine", "q"), "give --audit too"),
        (("--extras", "x", "--extra", "sound"), "expected one of detections, instances"),
        (("--projection", "conic"), "expected one of perspective"),
        (("--fisheye-fov", "190"), "--fisheye-fov says what --projection fisheye looks through"),
        (("--fisheye-circle", "inscribed", "--projection", "auto"), "--fisheye-circle says what"),
        (("--projection", "fisheye", "--fisheye-fov", "20"), "field of view is 20; expected 60"),
        (("--projection", "fisheye", "--fisheye-circle", "1,2,3"), "as 960,540,820@1920x1080"),
        (("--projection", "fisheye", "--reduce", "1"), "takes none for flat"),
        (("--projection", "fisheye", "--detections", "k"), "fisheye says how networks look"),
        (("--panorama", "huge"), "expected auto or one of"),
        (("--metadata", "everything"), "is 'everything'; expected all, none, or a list of exif"),
        (("--settings", "none.yaml"), "cannot be read"),
        (("--regions", "none.yaml"), "cannot be read"),
        (("--detections", "none.json"), "is missing"),
    ],
)
def test_a_wrong_option_is_one_line_and_nothing_is_written(
    tmp_path: Path,
    run: Run,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    picture(tmp_path / "in/a.png")
    assert run(*arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("inputs", ["-", "in"])
def test_streams_take_one_picture(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, inputs: str
) -> None:
    picture(tmp_path / "in/a.png")
    monkeypatch.chdir(tmp_path)
    assert run(*(("-o", "-") if inputs == "in" else ()), inputs=inputs) == 2


def test_an_audit_of_known_regions_needs_a_model(tmp_path: Path, run: Run) -> None:
    picture(tmp_path / "in/a.png")
    (tmp_path / "known").mkdir()
    assert run("--audit", "--detections", tmp_path / "known", model=False) == 2


def test_a_folder_that_cannot_be_read_is_listed(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "in/a.png")
    picture(tmp_path / "in/secret/b.png")
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert run("--report", tmp_path / "report.json") == 1
    assert names(tmp_path / "out") == ["a.png"]
    assert "Permission denied" in report(tmp_path)["files"][0]["reason"]


def test_without_a_name_the_demo_bundle_is_used_and_said_to_be(
    tmp_path: Path,
    constant_bundle: Bundle,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)
    recall = {"detected": {"recall": 0.91}, "covered": {"recall": 0.93}}
    verdict = {
        "schema_version": 1, "outcome": "PROMOTED", "bundle_digest": constant_bundle.digest,
        "classes": {"face": recall},
    }  # fmt: skip
    (constant_bundle.path / "verdict.json").write_text(json.dumps(verdict))
    monkeypatch.setattr("anonymization.registry.DEMO", constant_bundle.path)
    picture(tmp_path / "in/a.png")
    assert run(model=False) == 0
    said = capsys.readouterr().err
    assert "this is the demo bundle, measured recall (detected/covered): face 0.910/0.930" in said


def test_a_registry_that_cannot_be_asked_is_an_error_and_no_reason_for_the_demo(
    tmp_path: Path,
    constant_bundle: Bundle,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///registry.db")
    monkeypatch.setattr("anonymization.registry.DEMO", constant_bundle.path)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    picture(tmp_path / "in/a.png")
    assert run(model=False) == 2
    said = capsys.readouterr().err
    assert "MLFLOW_TRACKING_URI names a registry, which needs blurloop[registry]" in said
    assert not (tmp_path / "out").exists()


def test_resume_makes_again_what_lies_beside_a_picture_and_is_of_another_run(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "in/a.png")
    beside = ("--extras", tmp_path / "beside", "--extra", "mask", "--resume")
    assert run(*beside) == 0
    mask = tmp_path / "beside/mask/a.png.png"
    whole = mask.read_bytes()
    assert run(*beside) == 0
    assert "1 already done" in capsys.readouterr().err
    mask.write_bytes(b"of another run")
    assert run(*beside) == 0
    assert mask.read_bytes() == whole


def test_what_goes_to_quarantine_leaves_nothing_of_an_older_run_beside(
    tmp_path: Path, run: Run, make_bundle: Callable[..., Bundle]
) -> None:
    seen = [([60.0, 20.0, 90.0, 50.0], 0.3, 0), (FACE, 0.9, 0)]
    bundle = make_bundle(seen, folder="unsure")
    picture(tmp_path / "in/a.png")
    beside = ("--extras", tmp_path / "beside", "--extra", "overlay", "--overwrite")
    assert run(*beside) == 0
    assert names(tmp_path / "beside") == ["overlay/a.png.jpg"]
    assert run(*beside, "--model", bundle.path, "--audit") == 3
    assert names(tmp_path / "beside") == []


def test_overlays_on_the_source_are_not_written_where_results_are_published(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "in/a.png")
    beside = ("--extras", tmp_path / "out", "--extra", "overlay", "--overlay-on-source")
    assert run(*beside) == 2
    assert "overlays on the source would be published" in capsys.readouterr().err
    assert names(tmp_path / "out") == []


def test_a_report_that_cannot_be_written_stops_the_run_before_it_begins(
    tmp_path: Path, run: Run
) -> None:
    picture(tmp_path / "in/a.png")
    (tmp_path / "file").write_bytes(b"")
    assert run("--report", tmp_path / "file/r.json") == 2
    assert not (tmp_path / "out/a.png").exists()


def test_a_report_that_fails_at_the_end_is_no_sign_that_nothing_was_done(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "in/a.png")

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("anonymization.job.report.write_json", full)
    assert run("--report", tmp_path / "r.json") == 1
    assert (tmp_path / "out/a.png").exists()


@pytest.mark.parametrize("name", ["s.yaml", "s.json"])
def test_a_key_given_twice_is_refused(
    tmp_path: Path, run: Run, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "in/a.png")
    text = '{"schema_version": 1, "classes": {"face": {"method": "solid"}, "face": {"feather": 0}}}'
    (tmp_path / name).write_text(text)
    assert run("--settings", tmp_path / name) == 2
    assert "key 'face' is given twice" in capsys.readouterr().err


def test_resume_and_quarantine_leave_alone_what_an_operator_edits(
    tmp_path: Path, run: Run, make_bundle: Callable[..., Bundle]
) -> None:
    picture(tmp_path / "in/a.png")
    known = ("--write-detections", tmp_path / "known")
    assert run(*known) == 0
    path = tmp_path / "known/a.png.json"
    values = json.loads(path.read_text())
    values["finds"].append({"class": "license_plate", "box": [60, 30, 90, 50]})
    path.write_text(json.dumps(values))
    assert run(*known, "--resume") == 0
    assert json.loads(path.read_text()) == values
    again = (*known, "--resume", "--set", "face.margin=0.5", "--report", tmp_path / "report.json")
    assert run(*again) == 0  # other settings: done again, and what was edited is told of
    assert json.loads(path.read_text()) == values
    assert "was edited, or is of another run" in report(tmp_path)["files"][0]["notes"][0]
    (tmp_path / "out" / LEDGER).unlink()
    assert run(*again) == 0
    assert json.loads(path.read_text()) == values
    seen = [([60.0, 20.0, 90.0, 50.0], 0.3, 0), (FACE, 0.9, 0)]
    unsure = make_bundle(seen, folder="unsure")
    assert run(*known, "--resume", "--audit", "--model", unsure.path) == 3
    assert json.loads(path.read_text()) == values


def test_an_archive_that_cannot_be_read_is_not_written_over(tmp_path: Path, run: Run) -> None:
    (tmp_path / "in.zip").write_bytes(b"PK damaged")
    assert run("--report", tmp_path / "in.zip", inputs=tmp_path / "in.zip") == 2
    assert (tmp_path / "in.zip").read_bytes() == b"PK damaged"


def test_what_is_written_is_decoded_once_for_all_that_look_at_it(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "in/a.png")
    decode, decoded = formats_picture._decode, []

    def counted(data: bytes, name: str, *rest: Any) -> Any:
        decoded.append(name.partition(" ")[0])
        return decode(data, name, *rest)

    monkeypatch.setattr(formats_picture, "_decode", counted)
    looking = ("--audit", "--extras", tmp_path / "beside", "--report-html", tmp_path / "r.html")
    assert run(*looking) == 0
    assert decoded == [str(tmp_path / "in/a.png"), "anonymized"]
    assert run("--overwrite") == 0
    assert len(decoded) == 3


def test_the_contact_sheet_has_no_more_small_copies_made_than_it_shows(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        picture(tmp_path / f"in/{number}.png", number)
    small, made = contact_sheet.thumbnail, []
    monkeypatch.setattr(contact_sheet, "PICTURES_MAX", 2)
    monkeypatch.setattr(contact_sheet, "thumbnail", lambda seen: made.append(1) or small(seen))
    assert run("--report-html", tmp_path / "r.html") == 0
    assert len(made) == 2
    page = (tmp_path / "r.html").read_text()
    assert page.count("data:image/jpeg") == 2
    assert "3 more are not shown" in page


def test_the_contact_sheet_of_a_stream_shows_its_picture(tmp_path: Path, run: Run) -> None:
    picture(tmp_path / "in/a.png")
    said = ("-o", "-", "--report-html", tmp_path / "r.html")
    assert run(*said, inputs=tmp_path / "in/a.png") == 0
    assert (tmp_path / "r.html").read_text().count("data:image/jpeg") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("--detections", "beside/detections", "--extras", "beside"),
        ("--detections", "known", "--write-detections", "known/../known"),
        ("--detections", "known", "--report", "known/a.png.json"),
        ("--settings", "settings.yaml", "--report", "settings.yaml"),
        ("--settings", "settings.yaml", "--report-html", "link"),
        ("--regions", "regions.json", "--report", "regions.json"),
        ("--regions", "regions.json", "--report", "masks/a.png"),
        ("--regions", "regions.json", "--output", "masks"),
        ("--set", "face.method=synthetic", "--set", "face.generator=faces", "--report",
         "faces/generator.json"),
        ("--report", "bundle/card.json"),
        ("--report", "in/a.png"),
    ],
)  # fmt: skip
def test_a_run_writes_over_nothing_that_it_reads(
    tmp_path: Path,
    run: Run,
    face_generator: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
) -> None:
    picture(tmp_path / "in/a.png")
    picture(tmp_path / "masks/a.png")
    (tmp_path / "settings.yaml").write_text("schema_version: 1\nclasses: {}\n")
    (tmp_path / "link").symlink_to("settings.yaml")
    area = {"name": "bonnet", "kind": "ignore", "mask": "masks/a.png"}
    (tmp_path / "regions.json").write_text(json.dumps({"schema_version": 1, "regions": [area]}))
    document = {"schema_version": 1, "picture": {"width": 100, "height": 60}, "finds": []}
    for folder in ("known", "beside/detections"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.png.json").write_text(json.dumps(document))
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert run("--resume", *arguments) == 2
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert "choose another" in capsys.readouterr().err
