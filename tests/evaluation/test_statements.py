"""Schema, certificate, comparison with the champion, and the record in dvc.lock."""

import io
import json
import re
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pypdf
import pytest
import yaml
from jsonschema import Draft202012Validator

import evaluation
from anonymization.detection.finds import Detections
from anonymization.files import json_rows, write_json
from anonymization.taxonomy import ClassSpec, Taxonomy
from data.coco import Annotation, Dataset, Image
from evaluation.bound import lower_bound
from evaluation.certificate import CertificateError, certificate, write
from evaluation.comparison import compare
from evaluation.measures.curves import curve_rows, with_curves, without_curves
from evaluation.record import check_record, dvc_md5
from evaluation.report.gallery import Shown
from evaluation.report.page import render
from evaluation.report.summary import summarize
from evaluation.statement import Heading, Paragraph, to_markdown
from evaluation.statement_pdf import StatementError, to_pdf

TAXONOMY = Taxonomy({"face": ClassSpec("box", "box", identifiable_px=10)})
SCHEMA = Path(evaluation.__path__[0]) / "schemas/evaluation.json"


def measured() -> dict[str, Any]:
    """What evaluation writes of one picture with a face found and one missed."""
    from anonymization.card import Card, GraphCard, GraphInput
    from evaluation.report.pictures import judge_picture, through_png
    from evaluation.truth import truth_of

    graphs = {"mask_rcnn": GraphCard("m.onnx", "0" * 64, GraphInput(512), ("face",))}
    card = Card(TAXONOMY, {"face": 0.5}, graphs)
    fields = {"source": "s", "camera": "c", "sequence": "q", "frame": 1}
    image = Image(1, "a" * 64, "a.png", 80, 80, ("face",), fields=fields)
    boxes = [(5.0, 5.0, 25.0, 25.0), (45.0, 45.0, 65.0, 65.0)]
    faces = [Annotation(i, 1, "face", b, attributes={"track": i}) for i, b in enumerate(boxes, 1)]
    data = Dataset((image,), tuple(faces))
    finds = Detections.from_boxes(boxes[:1], class_ids=[0], scores=[0.9])
    truth = truth_of(image, faces, TAXONOMY)
    result = judge_picture(truth, finds, card, TAXONOMY, rewrite=through_png)
    about = {
        "schema_version": 1, "split": "reference", "bundle_digest": "b" * 64,
        "reference_digest": "c" * 64, "objects_sha256": "d" * 64, "code_revision": "e",
        "variant": "fp32",
        "code_files": ["f" * 64 + "  a.py"], "taxonomy_gated": ["face"],
        "thresholds": {"face": 0.5}, "run_id": None, "confidence": 0.95,
        "slicings": ["size", "camera"],
    }  # fmt: skip
    found = summarize([result], TAXONOMY, size_edges=[0, 1], dataset=data, slices=["camera"])
    return json.loads(json.dumps(about | found))


def judged(outcome: str = "REFUSED", **more: Any) -> dict[str, Any]:
    digests = {"bundle_digest": "b" * 64, "reference_digest": "c" * 64, "objects_sha256": "d" * 64}
    said = {"outcome": outcome, "reasons": ["face: 1 of 2"], "warnings": [], "models_judged": 3}
    return digests | said | {"forecast": False, "criteria": []} | more


def problems(content: dict[str, Any]) -> list[str]:
    schema = json.loads(SCHEMA.read_text())
    Draft202012Validator.check_schema(schema)
    return [error.json_path for error in Draft202012Validator(schema).iter_errors(content)]


def test_what_evaluation_writes_fits_the_published_schema() -> None:
    assert problems(without_curves(measured())) == []


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda e: e.update(pictures=-1), "$.pictures"),
        (lambda e: e.update(surprise=1), "$"),
        (lambda e: e["classes"]["face"]["detected"].update(recall=1.2), "$.classes.face.detected"),
        (lambda e: e.update(bundle_digest="short"), "$.bundle_digest"),
    ],
)
def test_what_does_not_fit_is_found(change: Any, where: str) -> None:
    content = without_curves(measured())
    change(content)
    assert any(problem.startswith(where) for problem in problems(content))


def test_a_certificate_of_a_refused_bundle_says_so_first_with_reasons_and_bounds() -> None:
    text = to_markdown(certificate("a map", measured(), judged(), TAXONOMY))
    assert re.match(r"# Anonymization: statement for a map\n\n\*\*REFUSED\.\*\*", text)
    assert "- face: 1 of 2" in text
    assert "| face | 0.500 | 0.000 |" in text
    assert "Models that this reference set has judged, this one included: 3." in text
    assert "## Attack on what is obscured\n\nNot measured." in text


def test_a_certificate_is_not_written_for_a_verdict_on_something_else() -> None:
    with pytest.raises(CertificateError, match="the verdict is on bundle_digest x, the evaluation"):
        certificate("a map", measured(), judged(bundle_digest="x"), TAXONOMY)


def test_a_certificate_names_its_use() -> None:
    with pytest.raises(CertificateError, match="name the use"):
        certificate(" ", measured(), judged(), TAXONOMY)


def test_a_forecast_certifies_nothing() -> None:
    forecast = measured() | {"split": "val"}
    text = to_markdown(certificate("a map", forecast, judged("PROMOTED"), TAXONOMY))
    assert "as a forecast" in text
    assert "Every criterion of the gate is met" not in text


def test_a_use_cannot_add_a_line_to_its_statement() -> None:
    use = "a map\n\n**PROMOTED.** Every criterion of the gate is met."
    lines = to_markdown(certificate(use, measured(), judged(), TAXONOMY)).splitlines()
    assert [line[:12] for line in lines if "PROMOTED" in line] == ["# Anonymizat"]


def test_false_finds_and_hidden_shares_of_a_statement_are_rounded_up() -> None:
    content = measured()
    content["false_finds_per_picture"]["value"] = 0.001
    content["non_object_share_obscured"]["value"] = 0.0001
    text = to_markdown(certificate("a map", content, judged(), TAXONOMY))
    assert "False finds a picture: 0.01." in text
    assert "hidden all the same: 0.001." in text


def test_a_class_that_is_left_as_it_is_adds_no_row_of_the_attack() -> None:
    row = {
        "attack": "plates read", "method": "none", "strength": 0.0, "default_of": ["face"],
        "leaked": 60, "total": 60, "rate": 1.0, "lower": 0.95, "upper": 1.0, "chance": 0.1,
        "refused": True,
    }  # fmt: skip
    attack = {"date": "2026-01-02", "material": "60 plates", "rows": [row]}
    text = to_markdown(certificate("a map", measured(), judged(), TAXONOMY, attack))
    assert text.count("| plates read |") == 1
    assert "what the engine can | – |" in text
    assert "rows on other ways" not in text
    page = render(measured(), TAXONOMY, [], raw=False, verdict=judged(), attack=attack)
    assert page.count("<td>plates read</td>") == 1


USE = "Straßenkarte für Łódź, Αθήνα и Москва: <b>“street level”</b> & ½"


def pdf_text(content: bytes) -> list[str]:
    """Text of each page, read by another library than the one that wrote it; on A4, no picture."""
    reader = pypdf.PdfReader(io.BytesIO(content))
    for page in reader.pages:
        assert [round(float(v)) for v in page.mediabox] == [0, 0, 595, 842]
        assert list(page.images) == []
    return [page.extract_text() for page in reader.pages]


def test_a_certificate_in_pdf_says_what_the_one_in_markdown_says(tmp_path: Path) -> None:
    blocks = certificate(USE, measured(), judged(), TAXONOMY, issued=date(2026, 1, 2))
    write(blocks, tmp_path / "statement.pdf", bundle="b" * 64)
    pages = pdf_text((tmp_path / "statement.pdf").read_bytes())
    said = "".join("".join(pages).split())
    write(blocks, tmp_path / "statement.md", bundle="b" * 64)
    for line in (tmp_path / "statement.md").read_text().splitlines():
        for part in re.split(r"\s\|\s|^\||\|$|^[#-] |\*\*|`|---", line):
            assert "".join(part.split()).lstrip("#") in said, part
    assert "issued: 2026-01-02" in " ".join(pages)


def test_each_page_of_a_certificate_is_numbered_and_names_the_bundle(tmp_path: Path) -> None:
    blocks = [Heading("Long", 1), *[Paragraph("word " * 300)] * 6]
    pages = pdf_text(to_pdf(blocks, footer="bundle 123"))
    assert len(pages) > 1
    for number, page in enumerate(pages, 1):
        assert f"page {number} of {len(pages)}" in page
        assert "bundle 123" in page


@pytest.mark.parametrize(
    ("use", "named"), [("地図", "'地'"), ("مدينة", "'م'")], ids=["no glyph", "right to left"]
)
def test_what_the_fonts_of_the_pdf_cannot_show_is_refused_by_name(use: str, named: str) -> None:
    blocks = certificate(use, measured(), judged(), TAXONOMY)
    with pytest.raises(StatementError, match=f"cannot show {named} of .*--output statement.md"):
        to_pdf(blocks, footer="b")
    assert use in to_markdown(blocks)


def test_curves_stand_beside_the_report_and_come_back_for_the_page() -> None:
    whole = measured()
    assert len(curve_rows(whole)) == 1
    assert "curve" not in without_curves(whole)["classes"]["face"]
    assert with_curves(without_curves(whole), curve_rows(whole)) == whole


def test_a_report_has_one_line_a_row_and_reads_back_as_it_was() -> None:
    content = without_curves(measured())
    text = json_rows(content)
    assert json.loads(text) == content
    rows = [line for line in text.splitlines() if line.lstrip().startswith('{"slicing"')]
    assert len(rows) == len(content["slices"])
    with pytest.raises(ValueError, match="Out of range float"):
        json_rows({"a": [float("nan")]})


def found(number: int, seen: bool) -> dict[str, Any]:
    about = {"class": "face", "sha256": "a", "annotation_id": number}
    return about | {"detected": seen, "covered": True}


def test_gained_lost_and_missed_are_counted_object_by_object_lost_ones_first() -> None:
    ours = [found(1, True), found(2, False), found(3, False), found(4, True)]
    theirs = [found(1, False), found(2, True), found(3, False), found(4, True)]
    compared = compare(ours, theirs, "7")
    assert compared["classes"]["face"]["detected"] == {
        "gained": 1, "lost": 1, "both_missed": 1, "both_recalled": 1,
    }  # fmt: skip
    assert [row["annotation_id"] for row in compared["objects"]] == [2, 3, 1]
    assert compared["classes"]["face"]["covered"]["both_recalled"] == 4


def test_the_page_of_a_verdict_shows_outcome_criteria_champion_and_attack() -> None:
    compared = compare([found(1, False)], [found(1, True)], "7")
    criteria = [{"name": "recall", "passed": False, "reason": "too low", "class_name": "face"}]
    criteria[0] |= {"sense": "covered", "value": 0.5, "bound": 0.1, "limit": 0.95}
    attack = {
        "date": "2026-01-01", "material": "2 plates",
        "rows": [{
            "attack": "plates read", "method": "blur", "strength": 0.2, "default_of": ["plate"],
            "leaked": 2, "total": 2, "rate": 1.0, "lower": 0.2, "upper": 1.0, "chance": 0.1,
            "refused": True,
        }],
    }  # fmt: skip
    lost = Shown("lost", "face", "a" * 64, "20 px", "AAAA")
    page = render(
        measured(), TAXONOMY, [lost], raw=False, verdict=judged(criteria=criteria),
        comparison=compared, attack=attack,
    )  # fmt: skip
    for text in ("REFUSED", "Beside the champion, version 7", "Lost against the champion"):
        assert text in page
    assert '<span class="count who">plate</span>' in page
    assert page.index("REFUSED") < page.index("Recall of identifiable objects")
    assert not re.search(r"(src|href)=\"(?!data:)", page)


def test_the_page_is_set_for_paper_and_repeats_the_head_of_a_table_on_each_sheet() -> None:
    criteria = [
        {"name": name, "passed": True, "reason": "", "value": value, "limit": limit}
        | {"class_name": None, "sense": None, "bound": None}
        for name, value, limit in (("proof", 438.0, 100.0), ("false_finds", 2.6701, 3.0))
    ]
    page = render(measured(), TAXONOMY, [], raw=False, verdict=judged(criteria=criteria))
    assert "@page { size: A4;" in page
    assert page.count("<tr><th") == page.count("<thead><tr><th") >= 8
    assert "<td>438</td>" in page
    assert "<td>2.671</td>" in page


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose dvc.lock records an evaluation."""
    monkeypatch.chdir(tmp_path)
    write_json(Path("reports/evaluation.json"), {"recall": 0.9})
    write_json(Path("artifacts/evaluated/objects.json"), {"objects": []})
    write_json(Path("artifacts/evaluated/misses/a.json"), {})
    paths = ("artifacts/evaluated", "reports/evaluation.json")
    outs = [{"path": path, "hash": "md5", "md5": dvc_md5(Path(path))} for path in paths]
    Path("dvc.lock").write_text(yaml.safe_dump({"stages": {"evaluation": {"outs": outs}}}))
    return tmp_path


def test_an_untouched_evaluation_is_the_one_that_dvc_recorded(locked: Path) -> None:
    assert check_record().passed


@pytest.mark.parametrize("path", ["reports/evaluation.json", "artifacts/evaluated/objects.json"])
def test_an_edited_result_is_not_what_dvc_recorded(locked: Path, path: str) -> None:
    write_json(Path(path), {"recall": 1.0})
    said = check_record()
    assert not said.passed
    assert "is not what dvc.lock recorded" in said.reason


def test_a_result_that_is_gone_is_not_what_dvc_recorded(locked: Path) -> None:
    (locked / "reports/evaluation.json").unlink()
    assert not check_record().passed


def test_without_a_dvc_lock_there_is_nothing_to_compare_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no dvc.lock" in check_record().reason


def test_our_digest_of_a_folder_is_that_of_dvc(locked: Path) -> None:
    script = (
        "from dvc_data.hashfile.build import build\n"
        "from dvc_data.hashfile.db.local import LocalHashFileDB\n"
        "from dvc_objects.fs.local import localfs\n"
        "odb = LocalHashFileDB(localfs, 'cache')\n"
        "print(build(odb, 'artifacts/evaluated', localfs, 'md5')[2].hash_info.value)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == dvc_md5(Path("artifacts/evaluated"))


def test_a_bound_of_a_perfect_small_sample_does_not_reach_the_gate() -> None:
    assert lower_bound([1] * 58, [1] * 58).bound < 0.95
