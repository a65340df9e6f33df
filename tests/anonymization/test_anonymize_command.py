"""`anonymize` from the operator's side: a real command on real files."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anonymization.anonymizer import Anonymizer
from anonymization.bundle import Bundle
from anonymization.detection.detector import Detector
from anonymization.job.cli import main
from anonymization.registry import NoModelError, load_bundle


def picture(path: Path, seed: int = 0) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def visible(folder: Path) -> list[str]:
    """Names in a folder, the ledger aside."""
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["anonymize", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_a_tree_is_mirrored_and_only_the_face_changes(
    tmp_path: Path, constant_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = picture(tmp_path / "in/a/one.png")
    picture(tmp_path / "in/two.jpg")
    (tmp_path / "in/notes.txt").write_text("no picture")
    report = tmp_path / "report.json"
    code = run(
        monkeypatch, tmp_path / "in", "--output", tmp_path / "out", "--model",
        constant_bundle.path, "--report", report, "--threads", 1,
    )  # fmt: skip
    assert code == 0
    done = np.asarray(Image.open(tmp_path / "out/a/one.png"))
    assert (done[8:28, 18:22] != pixels[8:28, 18:22]).any(axis=2).mean() > 0.95
    np.testing.assert_array_equal(done[40:], pixels[40:])
    assert Image.open(tmp_path / "out/two.jpg").format == "JPEG"
    values = json.loads(report.read_text())
    assert values["counts"] == {
        "anonymized": 2, "already_done": 0, "quarantined": 0, "failed": 0, "skipped": 1
    }  # fmt: skip
    assert values["bundle"] == {
        "path": str(constant_bundle.path), "digest": constant_bundle.digest, "verdict": None
    }  # fmt: skip
    assert [Path(entry["input"]).name for entry in values["files"]] == [
        "notes.txt", "one.png", "two.jpg"
    ]  # fmt: skip
    assert values["files"][1]["detections"] == {"face": 1}


def test_a_damaged_picture_is_listed_and_the_rest_goes_on(
    tmp_path: Path,
    constant_bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    picture(tmp_path / "in/b.png")
    content = (tmp_path / "in/b.png").read_bytes()
    (tmp_path / "in/a\nname.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "in/c.jpg").symlink_to("nowhere")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    code = run(
        monkeypatch, tmp_path / "in", "-o", tmp_path / "out", "--model", constant_bundle.path
    )
    assert code == 1
    assert visible(tmp_path / "out") == ["b.png"]
    shown = capsys.readouterr().err
    assert "has no verdict" in shown
    assert "1 anonymized, 3 failed" in shown
    assert "is a link to a folder that holds it" in shown


def test_results_are_overwritten_only_when_told(
    tmp_path: Path, constant_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "in/a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.png").write_text("mine")
    given = (tmp_path / "in", "-o", tmp_path / "out", "--model", constant_bundle.path)
    assert run(monkeypatch, *given) == 1
    assert (tmp_path / "out/a.png").read_text() == "mine"
    assert run(monkeypatch, *given, "--overwrite") == 0
    assert Image.open(tmp_path / "out/a.png").size == (100, 60)


def test_an_input_is_never_written_over(
    tmp_path: Path, constant_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    given = (tmp_path / "a.png", "-o", tmp_path, "--model", constant_bundle.path, "--overwrite")
    assert run(monkeypatch, *given) == 2
    assert (tmp_path / "a.png").read_bytes() == before


def test_two_inputs_of_one_name_are_refused(
    tmp_path: Path, constant_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "x/a.png")
    picture(tmp_path / "y/A.png")
    given = (tmp_path / "x/a.png", tmp_path / "y/A.png", "-o", tmp_path / "out")
    assert run(monkeypatch, *given, "--model", constant_bundle.path) == 2


def test_an_output_folder_inside_the_input_is_not_worked_on_again(
    tmp_path: Path, constant_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "in/a.png")
    given = (tmp_path / "in", "-o", tmp_path / "in/out", "--model", constant_bundle.path)
    assert run(monkeypatch, *given) == 0
    assert run(monkeypatch, *given, "--overwrite") == 0
    assert not (tmp_path / "in/out/out").exists()


def test_a_threshold_can_be_raised(
    tmp_path: Path, constant_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = picture(tmp_path / "in/a.png")
    given = (tmp_path / "in", "-o", tmp_path / "out", "--model", constant_bundle.path)
    assert run(monkeypatch, *given, "--threshold", "face=0.95") == 0
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out/a.png")), pixels)
    assert run(monkeypatch, *given, "--threshold", "fce=0.95") == 2
    assert run(monkeypatch, *given, "--threshold", "face") == 2


def test_without_a_model_the_error_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anonymization.registry.DEMO", tmp_path / "not in this installation")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(NoModelError, match="--model BUNDLE_FOLDER"):
        load_bundle(None)


def test_a_failing_network_writes_nothing(
    tmp_path: Path, constant_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "in/a.png")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(Detector, "detect", fail)
    given = (tmp_path / "in", "-o", tmp_path / "out", "--model", constant_bundle.path)
    assert run(monkeypatch, *given) == 1
    assert not (tmp_path / "out").exists()


def test_one_anonymizer_serves_several_threads(constant_bundle: Bundle) -> None:
    from concurrent.futures import ThreadPoolExecutor

    anonymizer = Anonymizer.from_bundle(constant_bundle, threads=1, seed=7)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    alone = anonymizer(pixels).pixels
    with ThreadPoolExecutor(4) as pool:
        for done in pool.map(anonymizer, [pixels] * 16):
            np.testing.assert_array_equal(done.pixels, alone)


@pytest.mark.realdata
def test_real_photographs_come_out_of_the_same_size_with_their_exif(
    tmp_path: Path, realdata: Path, make_bundle: Callable[..., Bundle]
) -> None:
    anonymizer = Anonymizer.from_bundle(make_bundle(), threads=1)
    for folder in ("street_coco", "plates_openalpr", "faces"):
        found = [p for p in sorted((realdata / folder).rglob("*")) if p.suffix in (".jpg", ".png")]
        for source in found[:4]:
            target = tmp_path / folder / source.name
            done = anonymizer.anonymize_file(source, target)
            before, after = Image.open(source), Image.open(target)
            after.load()
            assert (after.size, after.format) == (before.size, before.format)
            assert len(done.detections) == 1
            # 0x8825 points at GPS fields, of which some of these photographs have none.
            kept = set(before.getexif()) - {0x02BC, 0x8649, 0x8825}
            assert set(after.getexif()) >= kept
            assert after.getexif().get_ifd(0x8825) == before.getexif().get_ifd(0x8825)


def test_help_starts_quickly() -> None:
    start = time.monotonic()
    text = subprocess.run(
        [sys.executable, "-m", "anonymization", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "--output" in text
    heavy = (
        "import sys, anonymization.job.cli;"
        "print([m for m in ('cv2', 'numpy', 'PIL', 'onnxruntime') if m in sys.modules])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", heavy], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "[]"
    assert time.monotonic() - start < 20
