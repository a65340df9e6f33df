"""Quarantine: what lies in it, what leads out of it, and that luck does not."""

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anonymization.bundle import Bundle
from anonymization.job.cli import main
from anonymization.job.ledger import NAME as LEDGER

FACE, UNSURE = [10.0, 8.0, 30.0, 28.0], [60.0, 20.0, 90.0, 50.0]

Run = Callable[..., int]


def picture(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def names(folder: Path) -> list[str]:
    found = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return sorted(name for name in found if name != LEDGER)


@pytest.fixture
def bundle(make_bundle: Callable[..., Bundle]) -> Bundle:
    """A bundle whose second face is left, and seen by the audit, which looks lower."""
    return make_bundle([(UNSURE, 0.3, 0), (FACE, 0.9, 0)])


@pytest.fixture
def run(tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command on `in` from its folder; results go to `out`."""
    picture(tmp_path / "in/x/a.png")
    monkeypatch.chdir(tmp_path)

    def command(*arguments: object) -> int:
        words = ["anonymize", "in", "-o", "out", "--model", str(bundle.path), "--report", "r.json"]
        monkeypatch.setattr(sys, "argv", [*words, *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    return command


def entry() -> dict[str, Any]:
    (found,) = json.loads(Path("r.json").read_text())["files"]
    assert isinstance(found, dict)
    return found


def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the audit see nothing, as other noise may."""
    monkeypatch.setattr("anonymization.job.processing.still_visible", lambda *_, **__: [])


def test_the_document_of_a_quarantined_picture_hides_what_the_audit_saw(run: Run) -> None:
    known = ("--write-detections", "known")
    assert run("--audit", *known) == 3
    values = json.loads(Path("known/x/a.png.json").read_text())
    assert [(f["id"], f["source"], f["box"]) for f in values["finds"]] == [
        (1, "mask_rcnn", FACE), (2, "audit", UNSURE)
    ]  # fmt: skip
    assert run("--detections", "known", "--set", "face.method=solid") == 0
    after = np.asarray(Image.open("out/x/a.png"))
    assert (after[30:40, 70:80] == 0).all()
    assert names(Path("out-quarantine")) == []
    assert run("--detections", "known", "--audit", "--overwrite") == 0


def test_what_lies_beside_a_quarantined_picture_keeps_away_from_what_passed(run: Run) -> None:
    beside = ("--extras", "beside")
    assert run("--audit", *beside) == 3
    assert names(Path("beside")) == []
    assert names(Path("out-quarantine-extras")) == [
        "detections/x/a.png.json", "instances/x/a.png.png",
        "mask/x/a.png.png", "overlay/x/a.png.jpg",
    ]  # fmt: skip
    assert entry()["extras"][0] == "out-quarantine-extras/detections/x/a.png.json"
    numbers = np.asarray(Image.open("out-quarantine-extras/instances/x/a.png.png"))
    assert (numbers[18, 20], numbers[35, 75]) == (1, 2)
    mask = np.asarray(Image.open("out-quarantine-extras/mask/x/a.png.png"))
    assert (mask[18, 20], mask[35, 75]) == (255, 0)
    assert run("--audit", *beside, "--resume", "--threshold", "face=0.3") == 0
    assert names(Path("out-quarantine-extras")) == []
    assert len(names(Path("beside"))) == 4


def test_a_picture_that_passes_leaves_quarantine_and_only_what_this_tool_put_there(
    run: Run,
) -> None:
    assert run("--audit") == 3
    passing = ("--audit", "--threshold", "face=0.3", "--overwrite")
    assert run(*passing) == 0
    assert names(Path("out")) == ["x/a.png"]
    assert names(Path("out-quarantine")) == []
    assert run("--audit", "--overwrite") == 3
    Path("out-quarantine/x/a.png").write_bytes(b"somebody's own")
    assert run(*passing) == 0
    assert names(Path("out-quarantine")) == ["x/a.png"]
    assert "an older copy stays in quarantine at out-quarantine/x/a.png" in entry()["notes"][0]


def test_documents_that_a_run_reads_in_quarantine_are_not_taken_away(run: Run) -> None:
    assert run("--audit", "--extras", "beside", "--extra", "detections") == 3
    known = "out-quarantine-extras/detections"
    for _ in range(2):
        assert run("--detections", known, "--resume") == 0
        assert names(Path("out-quarantine-extras")) == ["detections/x/a.png.json"]


def test_an_input_in_quarantine_is_not_taken_away(run: Run, bundle: Bundle) -> None:
    assert run("--audit") == 3
    before = Path("out-quarantine/x/a.png").read_bytes()
    sys.argv = ["anonymize", "out-quarantine", "-o", "out", "--model", str(bundle.path)]
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert names(Path("out")) == ["x/a.png"]
    assert Path("out-quarantine/x/a.png").read_bytes() == before


def test_resume_keeps_in_quarantine_what_is_unchanged(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--audit") == 3
    before = Path("out-quarantine/x/a.png").read_bytes()
    seen = entry()["visible"]
    blind(monkeypatch)
    assert run("--audit", "--resume") == 3
    assert entry()["status"] == "quarantined"
    assert entry()["visible"] == seen
    assert entry()["output"] == "out-quarantine/x/a.png"
    assert (
        "sees 1 face; in quarantine at out-quarantine/x/a.png since an" in capsys.readouterr().err
    )
    assert Path("out-quarantine/x/a.png").read_bytes() == before
    # What is asked for besides is made, and the verdict stays.
    assert run("--audit", "--resume", "--write-detections", "known") == 3
    values = json.loads(Path("known/x/a.png.json").read_text())
    assert values["finds"][1]["source"] == "audit"
    assert names(Path("out")) == []
    assert run("--audit", "--resume", "--overwrite") == 0
    assert names(Path("out")) == ["x/a.png"]


def test_the_same_command_again_does_not_let_a_refused_picture_pass_by_luck(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("--audit") == 3
    blind(monkeypatch)
    assert run("--audit") == 1  # its copy in quarantine is not replaced unless told
    assert "out-quarantine/x/a.png exists" in entry()["reason"]
    Path("out-quarantine/x/a.png").unlink()
    assert run("--audit") == 3
    assert names(Path("out")) == []
    assert run("--audit", "--overwrite") == 0


def test_resume_tries_again_with_other_options_or_with_a_document(run: Run) -> None:
    assert run("--audit", "--write-detections", "known") == 3
    assert run("--audit", "--resume", "--set", "face.margin=0.2") == 3
    assert "earlier" not in entry()["reason"]
    assert run("--resume", "--detections", "known") == 0
    assert names(Path("out")) == ["x/a.png"]
    assert names(Path("out-quarantine")) == []


def test_what_a_person_moves_out_of_quarantine_is_done(run: Run) -> None:
    assert run("--audit") == 3
    Path("out/x").mkdir()
    Path("out-quarantine/x/a.png").rename("out/x/a.png")
    assert run("--audit", "--resume") == 0
    assert entry()["status"] == "already_done"
    assert entry()["notes"] == ["the audit refused it, and somebody moved it here"]


def test_a_quarantine_of_another_name_is_left_by_its_name(run: Run) -> None:
    held = ("--quarantine", "held")
    assert run("--audit", *held, "--write-detections", "known") == 3
    assert names(Path("held")) == ["x/a.png"]
    assert run("--detections", "known", "--quarantine", "out") == 2
    assert run("--detections", "known", *held) == 0
    assert names(Path("held")) == []


def test_resume_says_why_it_does_pictures_again(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    assert run("--resume") == 0
    assert "done again" not in capsys.readouterr().err
    assert run("--resume", "--set", "face.margin=0.2") == 0
    said = "1 done again: their results are of other options, model or code"
    assert said in capsys.readouterr().err
    Path("out/x/a.png").unlink()
    assert run("--resume", "--set", "face.margin=0.3") == 0
    assert "done again" not in capsys.readouterr().err


def test_standard_output_has_no_quarantine(
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    picture(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    words = ["anonymize", "a.png", "-o", "-", "--audit", "--model", str(bundle.path)]
    monkeypatch.setattr(sys, "argv", [*words, "--report", "r.json", "--write-detections", "known"])
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 3
    said = capsys.readouterr().err
    assert "not written: a.png: the audit still sees 1 face; nothing was written" in said
    assert "1 refused by the audit" in said
    assert not re.search("quarantine", said)
    assert entry()["output"] is None
    assert json.loads(Path("known/a.png.json").read_text())["finds"][1]["source"] == "audit"


def test_the_page_of_a_run_says_where_a_quarantined_picture_is(run: Run) -> None:
    assert run("--audit", "--report-html", "r.html") == 3
    page = Path("r.html").read_text()
    assert "the audit still sees 1 face; in quarantine at out-quarantine/x/a.png" in page
