"""`anonymize` against somebody who wants a face to come out, or a failure to look like success."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from anonymization.bundle import Bundle
from anonymization.documents import KnownRegionsError, document_to_finds
from anonymization.formats.metadata import MetadataPolicy, clean
from anonymization.job.cli import main
from anonymization.job.ledger import NAME as LEDGER
from anonymization.known_regions import DEFAULT_TAXONOMY, KnownRegions
from anonymization.obscuring.obscure import obscure

FACE = [10, 8, 30, 28]
Run = Callable[..., int]


def picture(path: Path, seed: int = 0, rows: int = 60) -> NDArray[np.uint8]:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (rows, 100, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def document(name: str | None, *finds: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {"width": 100, "height": 60}
    values |= {} if name is None else {"name": name}
    return {"schema_version": 1, "picture": values, "finds": list(finds)}


def known(path: Path, *names: str) -> Path:
    """Write a document for each picture, with one face."""
    for name in names:
        file = path / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(document(name, {"class": "face", "box": FACE})))
    return path


@pytest.fixture
def run(
    tmp_path: Path, constant_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
    """Run the command in `tmp_path`, with the bundle unless known regions are given."""

    def command(*arguments: object) -> int:
        words = ["anonymize", *map(str, arguments)]
        words += [] if "--detections" in words else ["--model", str(constant_bundle.path)]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    monkeypatch.chdir(tmp_path)
    return command


AUDIT = ("--audit", "--audit-threshold", "0.5")
VISIBLE = ("--set", "face.shape=ellipse", "--set", "face.threshold=0.95")
"""The first look takes finds from 0.95 on, and the bundle's only one has 0.9: all of it stays."""


@pytest.mark.parametrize("folder", ["in", "out/../in", "./in"])
def test_quarantine_never_replaces_an_input(tmp_path: Path, run: Run, folder: str) -> None:
    before = picture(tmp_path / "in/a.png")
    (tmp_path / "out").mkdir()
    code = run("in", "-o", "out", *AUDIT, *VISIBLE, "--quarantine", folder, "--overwrite")
    assert code == 2
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "in/a.png")), before)
    assert not list((tmp_path / "out").rglob("*.png"))


@pytest.mark.parametrize("folder", ["out", "out/../out", "out/held", "link"])
def test_quarantine_is_never_within_the_output(tmp_path: Path, run: Run, folder: str) -> None:
    picture(tmp_path / "in/a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    assert run("in", "-o", "out", *AUDIT, *VISIBLE, "--quarantine", folder) == 2
    assert not list((tmp_path / "out").rglob("*.png"))


def test_what_a_run_puts_beside_pictures_never_replaces_an_input(tmp_path: Path, run: Run) -> None:
    picture(tmp_path / "in/a.jpg")
    before = picture(tmp_path / "in/mask/a.jpg.png")
    code = run("in", "-o", "out", "--extras", "in/../in", "--extra", "mask", "--overwrite")
    assert code == 2
    after = np.asarray(Image.open(tmp_path / "in/mask/a.jpg.png"))
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("what", ["quarantine", "extras"])
def test_a_link_below_a_folder_of_results_never_leads_to_an_input(
    tmp_path: Path, run: Run, what: str
) -> None:
    picture(tmp_path / "in/sub/a.jpg")
    picture(tmp_path / "in/a.jpg.jpg")
    before = {path: path.read_bytes() for path in (tmp_path / "in").rglob("*.jpg")}
    place = tmp_path / ("held/sub" if what == "quarantine" else "beside/overlay/sub")
    place.parent.mkdir(parents=True)
    place.symlink_to(tmp_path / ("in/sub" if what == "quarantine" else "in"))
    given: dict[str, tuple[str, ...]] = {
        "quarantine": (*AUDIT, *VISIBLE, "--quarantine", "held"),
        "extras": ("--extras", "beside", "--extra", "overlay"),
    }
    assert run("in", "-o", "out", *given[what], "--overwrite") == 2
    assert {path: path.read_bytes() for path in before} == before


def test_a_ledger_that_is_a_link_is_not_written_to(tmp_path: Path, run: Run) -> None:
    picture(tmp_path / "in/a.png")
    before = (tmp_path / "in/a.png").read_bytes()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / LEDGER).symlink_to(tmp_path / "in/a.png")
    assert run("in", "-o", "out") == 2
    assert (tmp_path / "in/a.png").read_bytes() == before
    assert not (tmp_path / "out/a.png").exists()


def test_what_other_code_made_is_not_taken_for_done(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "in/a.png")
    assert run("in", "-o", "out", "--resume") == 0
    first = (tmp_path / "out" / LEDGER).read_text()
    assert run("in", "-o", "out", "--resume") == 0
    assert (tmp_path / "out" / LEDGER).read_text() == first
    monkeypatch.setattr("anonymization.job.run._code_digest", lambda: "of other code")
    assert run("in", "-o", "out", "--resume") == 0
    assert len((tmp_path / "out" / LEDGER).read_text().splitlines()) == 2


def test_an_overlay_on_the_source_never_replaces_a_result(tmp_path: Path, run: Run) -> None:
    picture(tmp_path / "in/a.jpg")
    picture(tmp_path / "in/overlay/a.jpg.jpg")
    given = ("--extras", "out", "--extra", "overlay", "--overlay-on-source", "--overwrite")
    assert run("in", "-o", "out", *given) == 2


@pytest.mark.parametrize("option", ["--report", "--report-html"])
def test_a_report_never_replaces_an_input_however_its_path_is_spelled(
    tmp_path: Path, run: Run, option: str
) -> None:
    picture(tmp_path / "in/a.png")
    before = (tmp_path / "in/a.png").read_bytes()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for path in ("in/../in/a.png", "link/a.png"):
        assert run("in", "-o", "out", option, path) == 2
        assert (tmp_path / "in/a.png").read_bytes() == before


def test_a_report_never_replaces_what_the_run_is_told_by(tmp_path: Path, run: Run) -> None:
    picture(tmp_path / "in/a.png")
    given = known(tmp_path / "found", "a.png") / "a.png.json"
    before = given.read_text()
    assert run("in", "-o", "out", "--detections", given, "--report", "found/a.png.json") == 2
    assert given.read_text() == before
    assert run("in", "-o", "out", "--report", "r", "--report-html", "./r") == 2


@pytest.mark.parametrize("given", ["found", "found/a.png.json"])
def test_corrected_detections_are_not_written_over_by_another_spelling(
    tmp_path: Path, run: Run, given: str
) -> None:
    picture(tmp_path / "in/a.png")
    known(tmp_path / "found", "a.png")
    before = (tmp_path / "found/a.png.json").read_text()
    words = ("--detections", given, "--write-detections", tmp_path / "in/../found", "--overwrite")
    assert run("in", "-o", "out", *words) == 2
    assert (tmp_path / "found/a.png.json").read_text() == before


def test_quarantine_and_extras_inside_the_input_are_not_taken_for_pictures(
    tmp_path: Path, run: Run
) -> None:
    """A second run without the audit must not publish what the first one held back."""
    picture(tmp_path / "a.png")
    beside = ("--extras", "beside", "--extra", "overlay", "--overlay-on-source")
    assert run(".", "-o", "out", *AUDIT, *VISIBLE, *beside) == 3
    assert (tmp_path / "out-quarantine/a.png").is_file()
    for inputs in (".", "**/*.png"):
        assert run(inputs, "-o", "out", "--extras", "beside", "--overwrite") == 0
        found = [p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*")]
        assert sorted(name for name in found if name != LEDGER) == ["a.png"]


def test_known_regions_of_one_picture_do_not_pass_for_those_of_its_namesake(
    tmp_path: Path, run: Run
) -> None:
    picture(tmp_path / "in/cam0/1.png")
    picture(tmp_path / "in/cam1/1.png", seed=1)
    (tmp_path / "k.json").write_text(json.dumps(document("cam0/1.png")))
    assert run("in", "-o", "out", "--detections", "k.json") == 1
    assert (tmp_path / "out/cam0/1.png").is_file()
    assert not (tmp_path / "out/cam1/1.png").exists()
    (tmp_path / "k.json").write_text(json.dumps(document(None)))
    assert run("in", "-o", "out2", "--detections", "k.json") == 1
    assert not list(tmp_path.glob("out2/**/*.png"))


def test_known_regions_without_a_name_serve_a_single_picture(tmp_path: Path) -> None:
    (tmp_path / "k.json").write_text(json.dumps(document(None)))
    one = KnownRegions(tmp_path / "k.json")
    one.of("any.png", DEFAULT_TAXONOMY, width=100, height=60)
    several = KnownRegions(tmp_path / "k.json", pictures=2)
    with pytest.raises(KnownRegionsError, match="states no name"):
        several.of("any.png", DEFAULT_TAXONOMY, width=100, height=60)


def test_what_is_drawn_larger_than_its_box_is_hidden_as_coarsely_as_its_size_asks() -> None:
    """A face of 80 px drawn around a box of 4 px: cells of 4 px would leave it readable."""
    stripes = np.zeros((100, 100, 3), np.uint8)
    stripes[:, (np.arange(100) // 8) % 2 == 0] = 255
    corners = [[10, 10], [90, 10], [90, 90], [10, 90]]
    value = document("a", {"class": "face", "box": [48, 48, 52, 52], "polygons": [corners]})
    value["picture"]["height"] = 100
    finds = document_to_finds(value, DEFAULT_TAXONOMY, width=100, height=100)
    hidden = obscure(
        stripes, finds.detections, DEFAULT_TAXONOMY, seed=1, outlines=finds.outlines
    ).astype(float)
    assert hidden[20:80, 20:80].std() < 30


def test_a_polygon_far_beyond_the_picture_hides_all_of_it() -> None:
    far = [[-9e5, -9e5], [9e5, -9e5], [9e5, 9e5], [-9e5, 9e5]]
    value = document("a", {"class": "face", "polygons": [far]})
    value["picture"]["projection"] = "perspective"
    finds = document_to_finds(value, DEFAULT_TAXONOMY, width=100, height=60)
    assert finds.outlines[0].on(0, 0, 100, 60).all()


@pytest.mark.parametrize(
    "find",
    [
        {"polygons": [[[90, 10], [112, 10], [112, 30], [90, 30]]]},
        {"rotated_box": {"center": [101, 20], "size": [22, 20], "angle": 0}},
    ],
    ids=["polygon", "rotated_box"],
)
def test_what_is_drawn_across_a_panoramas_seam_is_hidden_on_both_sides(
    tmp_path: Path, run: Run, find: dict[str, Any]
) -> None:
    before = picture(tmp_path / "in/a.png", rows=50)
    values = document("a.png", {"class": "face", **find})
    values["picture"]["height"] = 50
    (tmp_path / "k.json").write_text(json.dumps(values))
    words = ("--projection", "equirectangular", "--detections", "k.json")
    assert run("in", "-o", "out", *words, "--set", "face.method=solid") == 0
    after = np.asarray(Image.open(tmp_path / "out/a.png"))
    assert (after[11:29, 91:] == 0).all()
    assert (after[11:29, :11] == 0).all()
    np.testing.assert_array_equal(after[:, 40:60], before[:, 40:60])


@pytest.mark.parametrize("option", ["--audit-covered", "--audit-threshold"])
def test_an_audit_is_not_switched_off_by_a_number_that_is_none(
    tmp_path: Path, run: Run, option: str
) -> None:
    picture(tmp_path / "in/a.png")
    assert run("in", "-o", "out", "--audit", *VISIBLE, option, "nan") == 2
    assert not (tmp_path / "out/a.png").exists()


RECORD = {
    "schema_version": 1, "name": "a.png", "source_sha256": "", "source_bytes": 1,
    "source_mtime_ns": 1, "output_sha256": "", "work": "", "detections": {"face": 1}, "spared": [],
}  # fmt: skip


@pytest.mark.parametrize(
    "line",
    ["[" * 100_000, *(json.dumps(RECORD | {key: [1]}) for key in ("name", "detections", "spared"))],
    ids=["nested", "name", "detections", "spared"],
)
def test_a_damaged_ledger_only_means_that_pictures_are_done_again(
    tmp_path: Path, run: Run, line: str
) -> None:
    picture(tmp_path / "in/a.png")
    assert run("in", "-o", "out", "--resume") == 0
    path = tmp_path / "out" / LEDGER
    path.write_text(line + "\n" + path.read_text())
    assert run("in", "-o", "out", "--resume") == 0


def test_a_forged_count_in_the_ledger_does_not_pass(tmp_path: Path, run: Run) -> None:
    picture(tmp_path / "in/a.png")
    assert run("in", "-o", "out", "--resume") == 0
    path = tmp_path / "out" / LEDGER
    path.write_text(json.dumps(json.loads(path.read_text()) | {"detections": {"face": "x"}}) + "\n")
    assert run("in", "-o", "out", "--resume", "--report", "r.json") == 0
    assert json.loads((tmp_path / "r.json").read_text())["finds"] == {"face": 1}


def test_what_regions_spared_is_still_reported_when_a_run_is_resumed(
    tmp_path: Path, run: Run
) -> None:
    picture(tmp_path / "in/a.png")
    area = {"name": "poster", "kind": "ignore", "polygon": [[0, 0], [1, 0], [1, 1], [0, 1]]}
    (tmp_path / "r.json").write_text(json.dumps({"schema_version": 1, "regions": [area]}))
    words = ("--regions", "r.json", "--resume", "--report", "report.json")
    for status in ("anonymized", "already_done"):
        assert run("in", "-o", "out", *words) == 0
        values = json.loads((tmp_path / "report.json").read_text())
        assert values["files"][0]["status"] == status
        assert values["files"][0]["spared"][0]["region"] == "poster"
        assert values["spared"] == values["regions"][0]["spared"] == 1


def test_a_failure_says_that_an_older_result_is_still_at_its_place(
    tmp_path: Path, run: Run
) -> None:
    before = picture(tmp_path / "in/a.png")
    assert run("in", "-o", "out", "--set", "face.enabled=off") == 0
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out/a.png")), before)
    found = known(tmp_path / "found", "other.png")
    words = ("--detections", found, "--resume", "--report", "r.json")
    assert run("in", "-o", "out", *words) == 1
    entry = json.loads((tmp_path / "r.json").read_text())["files"][0]
    assert entry["status"] == "failed"
    assert "older" in entry["notes"][0]
    assert "out/a.png" in entry["notes"][0]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("name", ["a.png", "empty.png"])
def test_one_picture_to_standard_output_that_fails_is_reported(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "empty.png").write_bytes(b"")
    found = known(tmp_path / "found", "a.png", "empty.png")
    words = [sys.executable, "-m", "anonymization", name, "-o", "-", "--report", "r.json"]
    words += ["--detections", str(found)]
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            words, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, check=False, text=True
        )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    values = json.loads((tmp_path / "r.json").read_text())
    assert values["counts"]["failed"] == 1
    assert values["counts"]["anonymized"] == 0


def test_a_link_to_itself_is_listed_and_the_rest_goes_on(tmp_path: Path, run: Run) -> None:
    picture(tmp_path / "in/a.png")
    (tmp_path / "in/loop.png").symlink_to("loop.png")
    assert run("in", "-o", "out", "--report", "r.json") == 1
    assert (tmp_path / "out/a.png").is_file()


def test_the_place_that_a_range_finder_pointed_at_goes_with_the_position() -> None:
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf='
        b'"http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description xmlns:drone-dji='
        b'"http://www.dji.com/drone-dji/1.0/" drone-dji:LRFTargetLat="47.123456" '
        b'drone-dji:LRFTargetLon="8.654321" drone-dji:LRFTargetAlt="432.1" '
        b'drone-dji:LRFTargetDistance="9.5"/></rdf:RDF></x:xmpmeta>'
    )
    assert b"47.123456" in clean(MetadataPolicy(), xmp=xmp).xmp
    kept = clean(MetadataPolicy.parse("xmp"), xmp=xmp).xmp
    assert b"9.5" in kept
    for place in (b"47.123456", b"8.654321", b"432.1"):
        assert place not in kept
