"""Nothing un-anonymized or half-written at an output path, whatever comes in or goes wrong."""

import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anonymization.anonymizer import Anonymizer, OutputError
from anonymization.bundle import Bundle
from anonymization.detection.finds import Detections, ShapeError
from anonymization.job.ledger import NAME as LEDGER

FORMATS = {
    "jpg": "JPEG",
    "png": "PNG",
    "webp": "WEBP",
    "bmp": "BMP",
    "tif": "TIFF",
    "jp2": "JPEG2000",
}
FACE = (slice(8, 28), slice(10, 30))
WHITE = 255


def face_picture(kind: str, size: tuple[int, int] = (100, 60)) -> bytes:
    """A gray picture whose face region has white stripes, which no blur of it keeps."""
    pixels = np.full((size[1], size[0], 3), 90, np.uint8)
    pixels[FACE] = (40, 40, 40)
    for row in range(10, 26, 4):
        pixels[row : row + 2, 10:30] = WHITE
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, FORMATS[kind])
    return buffer.getvalue()


def shows_the_face(path: Path) -> bool:
    """Tell whether a written picture still has white stripes."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L")).astype(int)
    if pixels.shape[0] < 28 or pixels.shape[1] < 30:
        return False
    # Damaged files turn white in places; only stripes change from row to row.
    return bool(np.abs(np.diff(pixels[12:24, 14:26], axis=0)).mean() > 40)


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """Return a file that was cut, overwritten, filled up, or had its header changed."""
    data = bytearray(content)
    way = int(random.integers(6))
    at = int(random.integers(len(data)))
    if way == 0:
        return bytes(data[:at])
    if way == 1:
        for place in random.integers(0, len(data), 8):
            data[place] = int(random.integers(256))
    elif way == 2:
        for place in random.integers(0, min(64, len(data)), 3):
            data[place] = int(random.integers(256))
    elif way == 3:
        data[at:at] = random.bytes(int(random.integers(1, 200)))
    elif way == 4:
        del data[at : at + int(random.integers(1, 50))]
    else:
        data[at : at + 4] = b"\xff\xff\xff\xff"
    return bytes(data)


def anonymize(*words: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "anonymization", *map(str, words)]
    return subprocess.run(command, capture_output=True, check=False, timeout=500, **options)


def check_mutated(folder: Path, bundle: Bundle, count: int) -> None:
    random = np.random.default_rng(7)
    sources = {kind: face_picture(kind) for kind in FORMATS}
    kinds = list(FORMATS)
    (folder / "in").mkdir()
    for number in range(count):
        kind = kinds[number % len(kinds)]
        suffix = kinds[int(random.integers(len(kinds)))] if number % 11 == 0 else kind
        content = mutated(sources[kind], random)
        (folder / f"in/{number:04}.{suffix}").write_bytes(content)
    ended = anonymize(
        folder / "in", "-o", folder / "out", "--model", bundle.path, "--workers", 2,
        "--report", folder / "report.json", "--max-pixels", 10**7,
    )  # fmt: skip
    assert ended.returncode == 1, ended.stderr[-2000:]
    assert b"Traceback" not in ended.stderr
    report = json.loads((folder / "report.json").read_text())
    assert len(report["files"]) == count
    written = {path.name for path in (folder / "out").iterdir()} - {LEDGER}
    named = {Path(e["output"]).name for e in report["files"] if e["status"] == "anonymized"}
    assert written == named
    assert report["counts"]["failed"] == count - len(named)
    assert named
    assert all("unexpected" not in (entry["reason"] or "") for entry in report["files"])
    leaking = [name for name in sorted(written) if shows_the_face(folder / "out" / name)]
    assert leaking == []


def test_mutated_pictures_are_anonymized_or_refused(
    tmp_path: Path, constant_bundle: Bundle
) -> None:
    check_mutated(tmp_path, constant_bundle, 120)


@pytest.mark.slow
def test_two_thousand_mutated_pictures_are_anonymized_or_refused(
    tmp_path: Path, constant_bundle: Bundle
) -> None:
    check_mutated(tmp_path, constant_bundle, 2000)


@pytest.mark.parametrize("kind", list(FORMATS))
def test_the_check_for_leaks_sees_a_face_that_is_not_hidden(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_bytes(face_picture(kind))
    assert shows_the_face(path)


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, constant_bundle: Bundle) -> None:
    """A limit on file sizes stands for the disk: small results fit, large ones do not."""
    (tmp_path / "in").mkdir()
    random = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(random).save(tmp_path / "in/large.png")
    (tmp_path / "in/small.png").write_bytes(face_picture("png"))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    ended = anonymize(
        tmp_path / "in", "-o", tmp_path / "out", "--model", constant_bundle.path, preexec_fn=limit
    )
    assert ended.returncode == 1
    assert b"large.png cannot be written: File too large" in ended.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"small.png", LEDGER}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_whole_files_and_resume_ends_the_work(
    tmp_path: Path, constant_bundle: Bundle, number: signal.Signals
) -> None:
    (tmp_path / "in").mkdir()
    for position in range(150):
        random = np.random.default_rng(position).integers(0, 256, (240, 320, 3), dtype=np.uint8)
        Image.fromarray(random).save(tmp_path / f"in/{position:03}.png")
    out, report = tmp_path / "out", tmp_path / "report.json"
    words = [tmp_path / "in", "-o", out, "--model", constant_bundle.path, "--workers", 2]
    command = [sys.executable, "-m", "anonymization", *map(str, words), "--report", str(report)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 120
        while len(list(out.glob("0*.png"))) < 6 and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(number)
        process.communicate(timeout=120)
    expected = 128 + number if number == signal.SIGTERM else -number
    assert process.returncode == expected
    written = {path.name for path in out.iterdir()} - {LEDGER}
    assert 5 < len(written) < 150
    assert all(not name.startswith(".") for name in written)
    for name in written:
        Image.open(out / name).load()
    if number == signal.SIGTERM:
        values = json.loads(report.read_text())
        assert values["complete"] is False
        done = {Path(e["output"]).name for e in values["files"] if e["status"] == "anonymized"}
        assert done == written
    assert anonymize(*words, "--resume", "--report", report).returncode == 0
    counts = json.loads(report.read_text())["counts"]
    assert counts["already_done"] + counts["anonymized"] == 150
    assert counts["already_done"] >= len(written) - 2


def test_links_are_followed_and_never_written_through(
    tmp_path: Path, constant_bundle: Bundle
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "real.png").write_bytes(face_picture("png"))
    (tmp_path / "in/link.png").symlink_to(tmp_path / "real.png")
    (tmp_path / "in/broken.png").symlink_to("nowhere")
    (tmp_path / "in/with\nnewline.png").write_bytes(face_picture("png"))
    os.mkfifo(tmp_path / "in/pipe.png")
    before = (tmp_path / "real.png").read_bytes()
    ended = anonymize(tmp_path / "in", "-o", tmp_path / "out", "--model", constant_bundle.path)
    assert ended.returncode == 1
    assert (tmp_path / "real.png").read_bytes() == before
    written = {path.name for path in (tmp_path / "out").iterdir()} - {LEDGER}
    assert written == {"link.png", "with\nnewline.png"}
    assert not (tmp_path / "out/link.png").is_symlink()
    assert b"pipe.png is not a regular file" in ended.stderr


def test_an_output_that_appears_meanwhile_is_not_replaced(
    tmp_path: Path, constant_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else writes the file after it was found to be missing."""
    (tmp_path / "a.png").write_bytes(face_picture("png"))
    target = tmp_path / "out/a.png"
    anonymizer = Anonymizer.from_bundle(constant_bundle, threads=1)
    detect = anonymizer.detect

    def slow(pixels: Any, **options: Any) -> Detections:
        target.parent.mkdir()
        target.write_text("mine")
        return detect(pixels, **options)

    monkeypatch.setattr(anonymizer, "detect", slow)
    with pytest.raises(Exception, match=r"a\.png exists; overwrite=True replaces it"):
        anonymizer.anonymize_file(tmp_path / "a.png", target)
    assert target.read_text() == "mine"


def test_a_bundle_that_finds_nothing_still_writes(
    tmp_path: Path, make_bundle: Callable[..., Bundle]
) -> None:
    (tmp_path / "a.png").write_bytes(face_picture("png"))
    anonymizer = Anonymizer.from_bundle(make_bundle([], folder="blind"), threads=1)
    assert len(anonymizer.anonymize_file(tmp_path / "a.png", tmp_path / "b.png").detections) == 0
    assert shows_the_face(tmp_path / "b.png")


@pytest.mark.parametrize(
    "pixels",
    [
        pytest.param(np.zeros((0, 5, 3), np.uint8), id="empty"),
        pytest.param(np.zeros((5, 5), np.uint8), id="gray"),
        pytest.param(np.zeros((5, 5, 4), np.uint8), id="with alpha"),
        pytest.param(np.zeros((5, 5, 3), np.float32), id="float"),
        pytest.param([[0, 0, 0]], id="a list"),
        pytest.param(None, id="nothing"),
    ],
)
def test_what_is_no_picture_is_told_to_programs(constant_bundle: Bundle, pixels: Any) -> None:
    anonymizer = Anonymizer.from_bundle(constant_bundle)
    for look in (anonymizer, anonymizer.detect):
        with pytest.raises(ShapeError, match=r"expected uint8 \(H, W, 3\), RGB"):
            look(pixels)


def test_a_file_is_not_written_under_a_name_for_another_format(
    tmp_path: Path, constant_bundle: Bundle
) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg")
    anonymizer = Anonymizer.from_bundle(constant_bundle)
    with pytest.raises(OutputError, match=r"b\.png has a name for PNG; the source is JPEG"):
        anonymizer.anonymize_file(tmp_path / "a.jpg", tmp_path / "b.png")
    assert not (tmp_path / "b.png").exists()
    for name in ("b.jpeg", "b", "b.photo"):
        anonymizer.anonymize_file(tmp_path / "a.jpg", tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(b"\xff\xd8")
