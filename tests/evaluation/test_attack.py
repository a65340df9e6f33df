"""The attack on obscured pictures, with engines of paper, and the real ones where installed."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anonymization.taxonomy import STRENGTH_MIN, ClassSpec, Taxonomy
from evaluation import attack_engines
from evaluation.attack import (
    Setting,
    Target,
    attacked,
    drawn_plates,
    faces_of,
    identified,
    main,
    matched,
    obscured,
    obscuring_digest,
    plates_look,
    plates_of,
    settings_of,
)
from evaluation.attack_engines import AttackError, deconvolve, plain
from evaluation.attack_gate import attack_warnings, check_attack
from evaluation.measures.leaks import not_attacked, read_attack

PLATES = drawn_plates(12)


class PixelReader:
    """Knows every plate by its pixels: reads a picture as the plate that it differs least from."""

    def __init__(self, *, limit: float) -> None:
        self._known = {t.text: t.crop(t.pixels).astype(float) for t in PLATES}
        self._limit = limit

    def read(self, pixels: Any) -> str:
        for text, known in self._known.items():
            if known.shape == pixels.shape and np.abs(known - pixels).mean() < self._limit:
                return text
        return ""


def rows(limit: float, *settings: Setting) -> list[dict[str, Any]]:
    look = plates_look(PixelReader(limit=limit), PLATES)
    return list(attacked("plates read", PLATES, look, settings, {settings[-1]: ["license_plate"]}))


def test_what_is_left_as_it_is_leaks_and_is_refused() -> None:
    (row,) = rows(1.0, Setting("none", 0.0))
    assert (row["leaked"], row["rate"], row["refused"]) == (12, 1.0, True)
    assert row["chance"] == 1 / 12


def test_what_is_painted_over_leaks_nothing_and_has_an_upper_bound() -> None:
    (row,) = rows(1.0, Setting("solid", 0.0))
    assert (row["leaked"], row["refused"], row["default_of"]) == (0, False, ["license_plate"])
    assert row["upper"] == pytest.approx(1 - 0.05 ** (1 / 12))


def test_blur_is_attacked_once_more_after_deconvolution() -> None:
    names = [row["attack"] for row in rows(1.0, Setting("blur", 0.4))]
    assert names == ["plates read", "plates read, deconvolved"]


def test_the_surroundings_are_obscured_with_the_object() -> None:
    target = PLATES[0]
    hidden = obscured(target, Setting("solid", 0.0))
    x0, y0, x1, y1 = (round(v) for v in target.box_xyxy)
    assert not hidden[y0 - 10 : y1 + 10, x0 - 10 : x1 + 10].any()


@pytest.mark.parametrize(("sigma", "times"), [(2.0, 1), (8.0, 4)], ids=["weak", "in a smaller one"])
def test_deconvolution_brings_a_blur_closer_to_the_original(sigma: float, times: int) -> None:
    import cv2

    sharp = PLATES[0].crop(PLATES[0].pixels)
    sharp = cv2.resize(sharp, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC)
    blurred = cv2.GaussianBlur(sharp, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    before, after = (
        np.abs(sharp.astype(float) - each).mean() for each in (blurred, deconvolve(blurred, sigma))
    )
    assert after < 0.8 * before


def test_a_reading_that_fits_two_plates_alike_identifies_neither() -> None:
    assert identified(["AB", "AB"], ["AB1", "AB2"]) == [False, False]


def test_a_probe_is_matched_to_its_nearest_original() -> None:
    gallery = [np.array([0.0, 0]), np.array([1.0, 0])]
    assert matched([np.array([0.2, 0]), np.array([0.1, 0])], gallery) == [True, False]


def test_the_defaults_of_the_taxonomy_are_among_what_is_attacked() -> None:
    spec = ClassSpec("box", "box", "blur", strength=0.77)
    settings, defaults = settings_of(Taxonomy({"plate": spec}))
    assert defaults[Setting("blur", 0.77)] == ["plate"]
    assert Setting("blur", 0.77) in settings
    assert settings[0].method == "none"


def test_no_strength_is_named_that_obscuring_would_raise() -> None:
    spec = ClassSpec("box", "box", "blur", strength=STRENGTH_MIN / 2)
    settings, defaults = settings_of(Taxonomy({"plate": spec}))
    assert defaults == {Setting("blur", STRENGTH_MIN): ["plate"]}
    weak = [s for s in settings if s.method in ("blur", "pixelate") and s.strength < STRENGTH_MIN]
    assert weak == []


def test_a_missing_engine_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AttackError, match=r"needs no_such_engine.*pip install"):
        attack_engines._need("no_such_engine")


def test_a_strength_below_the_floor_is_attacked_as_it_is_and_on_the_same_region() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (120, 240, 3), np.uint8)
    target = Target(noise, (80.0, 50.0, 160.0, 70.0))
    weak, floor = (obscured(target, Setting("pixelate", s)) for s in (0.2, STRENGTH_MIN))
    changed = [(each != noise).any(axis=2) for each in (weak, floor)]
    # 20 px around a plate of 80x20: 120x60; a pixel may keep its value by chance.
    for each in changed:
        rows, columns = each.any(axis=1).nonzero()[0], each.any(axis=0).nonzero()[0]
        assert (rows[0], rows[-1], columns[0], columns[-1]) == (30, 89, 60, 179)
    # Cells of 0.2 x 20 = 4 px and of 0.7 x 20 = 14 px: eight of 15 px in 120.
    steps = [
        np.diff((np.diff(each[60, 60:180].astype(int), axis=0) != 0).any(axis=1).nonzero()[0])
        for each in (weak, floor)
    ]
    assert [int(np.median(each)) for each in steps] == [4, 15]


def coco(folder: Path, texts: list[str | None], height: int) -> Path:
    """A COCO folder with one plate of each text, in one grey picture."""
    from PIL import Image as Pillow

    (folder / "images").mkdir()
    Pillow.fromarray(np.full((80, 300, 3), 99, np.uint8)).save(folder / "images/a.png")
    plates = [
        {"id": i, "image_id": 1, "category_id": 1, "bbox": [50.0 * i, 20.0, 40.0, height]}
        | ({} if text is None else {"attributes": {"text": text}})
        for i, text in enumerate(texts)
    ]
    content = {
        "images": [{"id": 1, "file_name": "images/a.png"}],
        "annotations": plates,
        "categories": [{"id": 1, "name": "license_plate"}],
    }
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


def test_photographed_plates_are_taken_once_each_where_their_text_is_known(tmp_path: Path) -> None:
    folder = coco(tmp_path, ["AB-1", "ab 1", "CD-2", None], 24)
    plates = plates_of(folder, 9)
    assert sorted(plate.text for plate in plates) == ["AB1", "CD2"]
    assert all(plate.crop(plate.pixels).shape == (24, 40, 3) for plate in plates)


def test_a_folder_without_texts_or_with_low_plates_only_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AttackError, match="holds 0 plates of 20 px or higher"):
        plates_of(coco(tmp_path, ["AB1", "CD2"], 19), 9)


def test_a_folder_without_large_faces_is_refused(tmp_path: Path) -> None:
    coco = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "face"}]}
    (tmp_path / "annotations.json").write_text(json.dumps(coco))
    with pytest.raises(AttackError, match="holds 0 faces of 40 px or wider"):
        faces_of(tmp_path, 5)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("rapidocr_onnxruntime") is None, reason="needs the extra attack"
)
def test_the_real_reader_reads_drawn_plates_and_none_that_is_painted_over() -> None:
    reader = attack_engines.RapidReader()
    plates = PLATES[:6]
    read = [reader.read(t.crop(t.pixels)) == t.text for t in plates]
    assert sum(read) >= 4
    assert not any(reader.read(t.crop(obscured(t, Setting("solid", 0.0)))) for t in plates)


def test_one_plate_is_too_few(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--drawn", "1"])
    assert "--drawn is 1" in capsys.readouterr().err


def test_letters_and_digits_are_all_that_counts_of_a_text() -> None:
    assert plain(" ab-12 é") == "AB12"


def attack_on(*rows: dict[str, Any]) -> dict[str, Any]:
    content = {"schema_version": 1, "date": "2026-01-01", "material": "2 plates"}
    return content | {"rows": list(rows)}


def measured_row(strength: float, leaked: int) -> dict[str, Any]:
    about = {"attack": "plates read", "method": "blur", "strength": strength, "default_of": []}
    return about | {"leaked": leaked, "total": 60, "refused": False}


BLURRED = Taxonomy({"plate": ClassSpec("box", "box", "blur", strength=0.8)})


@pytest.mark.parametrize(
    ("attack", "passed", "said"),
    [
        (attack_on(measured_row(0.8, 9)), False, "worst of 1 attacks on it: plates read 9 of 60"),
        (attack_on(measured_row(0.8, 3)), True, "worst of 1 attacks on it: plates read 3 of 60"),
        (
            attack_on(measured_row(0.6, 9)),
            False,
            "not attacked (plates read). Run python -m",
        ),
        (attack_on(measured_row(0.8, 0) | {"total": 0}), False, "blur 0.8 was not attacked"),
        (attack_on(measured_row(0.8, 2) | {"total": 2}), False, "blur 0.8 was not attacked"),
        (attack_on(measured_row(0.8, 0) | {"total": 19}), False, "blur 0.8 was not attacked"),
        (attack_on(measured_row(0.8, 5) | {"total": 5}), False, "plates read 5 of 5"),
        (None, False, "blur 0.8 was not attacked"),
    ],
    ids=[
        "above chance, whatever it says",
        "within noise",
        "another strength",
        "of nothing",
        "so few that chance is one in two",
        "too few to tell",
        "few, and all of them leak",
        "none",
    ],
)
def test_the_gate_asks_whether_the_way_of_obscuring_withstood_the_attack(
    attack: Any, passed: bool, said: str
) -> None:
    (criterion,) = check_attack(attack, BLURRED)
    assert (criterion.name, criterion.passed, criterion.class_name) == ("attack", passed, "plate")
    assert said in criterion.reason


def test_a_face_is_hidden_only_where_faces_were_attacked() -> None:
    spec = ClassSpec("mask", "outline", "blur", strength=0.8)
    taxonomy = Taxonomy({"person": spec, "vehicle": spec}, keypoint_class="person")
    plates = measured_row(0.8, 0)
    faces = plates | {"attack": "faces matched, deconvolved"}

    person, vehicle = check_attack(attack_on(plates), taxonomy)
    assert (person.passed, vehicle.passed) == (False, True)
    assert "person: blur 0.8 was not attacked (faces matched)" in person.reason
    bare, undated = attack_warnings(attack_on(plates), taxonomy)
    assert bare.startswith("blur 0.8, by which person is obscured, was not attacked")
    assert "does not say what obscured" in undated, "what was attacked is warned of all the same"
    assert all(c.passed for c in check_attack(attack_on(plates, faces), taxonomy))
    # Whatever leaks counts against all that are hidden so.
    leaking = attack_on(plates | {"leaked": 9}, faces)
    assert not any(c.passed for c in check_attack(leaking, taxonomy))


def test_where_the_attack_is_optional_the_verdict_warns_of_what_was_not_attacked() -> None:
    (criterion,) = check_attack(None, BLURRED, required=False)
    assert (criterion.passed, criterion.reason) == (
        True,
        "plate: blur 0.8 was not attacked (plates read)",
    )
    said = "blur 0.8, by which plate is obscured, was not attacked: whether it hides"
    assert [w.startswith(said) for w in attack_warnings(None, BLURRED)] == [True]
    leaking = attack_on(measured_row(0.8, 9))
    assert not any(c.passed for c in check_attack(leaking, BLURRED, required=False))


@pytest.mark.parametrize("attack", [None, attack_on(measured_row(0.8, 0))])
@pytest.mark.parametrize("required", [True, False])
def test_a_gated_class_that_is_left_as_it_is_is_refused(attack: Any, required: bool) -> None:
    taxonomy = Taxonomy({"plate": replace(BLURRED["plate"], method="none")})
    (criterion,) = check_attack(attack, taxonomy, required=required)
    assert not criterion.passed
    assert criterion.reason.startswith("plate: none leaves every pixel as it is.")
    assert list(attack_warnings(attack, taxonomy)) == []


@pytest.mark.parametrize("method", ["solid", "synthetic"])
def test_a_way_that_shows_nothing_of_what_it_hides_needs_no_attack(method: str) -> None:
    taxonomy = Taxonomy({"plate": replace(BLURRED["plate"], method=method)})
    (criterion,) = check_attack(None, taxonomy)
    assert criterion.passed
    assert "shows no pixel of what it hides" in criterion.reason
    assert list(attack_warnings(None, taxonomy)) == []


def test_an_attack_on_other_obscuring_code_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = attack_on(measured_row(0.8, 0))
    now = {"method": "blur", "strength": 0.8, "sha256": obscuring_digest(Setting("blur", 0.8))}
    assert list(attack_warnings(rows | {"obscuring": [now]}, BLURRED)) == []
    (said,) = attack_warnings(rows, BLURRED)
    assert said.startswith("the attack of 2026-01-01 does not say what obscured: blur 0.8, by")
    monkeypatch.setattr("anonymization.obscuring.replacement.NOISE_SHARE", 0.0)
    (said,) = attack_warnings(rows | {"obscuring": [now]}, BLURRED)
    assert said.startswith("the attack of 2026-01-01 was measured on other code: blur 0.8, by")
    assert "gives other pixels now" in said


def test_each_method_and_strength_has_a_digest_of_its_own() -> None:
    settings = [Setting(m, s) for m in ("blur", "pixelate") for s in (0.2, 0.6, 0.8)]
    digests = [obscuring_digest(s) for s in (*settings, Setting("solid", 0.0))]
    assert len(set(digests)) == len(digests)
    assert obscuring_digest(settings[0]) == digests[0]


def test_an_attack_keeps_what_it_attacked_and_with_what(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plates = drawn_plates(20)
    paper = [("plates read", "20 plates", plates, plates_look(PixelReader(limit=1.0), plates))]
    monkeypatch.setattr("evaluation.attack.materials", lambda given: iter(paper))
    monkeypatch.setattr("data.reference.frozen_taxonomy", lambda: BLURRED)
    main(["--json", str(tmp_path / "attack.json")])
    kept = read_attack(BLURRED, tmp_path / "attack.json")
    assert kept is not None
    assert any(each.startswith("opencv-python-headless ") for each in kept["engines"])
    assert list(attack_warnings(kept, BLURRED)) == []
    assert all(c.passed for c in check_attack(kept, BLURRED))


def test_what_was_not_attacked_is_named_in_reports() -> None:
    (said,) = not_attacked(attack_on(measured_row(STRENGTH_MIN, 0)), BLURRED)
    assert said == "Attack on blur 0.8, by which plate is obscured: not made."
    assert list(not_attacked(attack_on(measured_row(0.8, 9)), BLURRED)) == []


def test_a_kept_attack_names_the_classes_of_this_taxonomy(tmp_path: Path) -> None:
    path = tmp_path / "attack.json"
    rows = [measured_row(strength, 0) for strength in (STRENGTH_MIN, 0.8)]
    path.write_text(json.dumps(attack_on(*rows)))
    kept = read_attack(BLURRED, path)
    assert kept is not None
    assert [row["default_of"] for row in kept["rows"]] == [[], ["plate"]]


ATTACK = Path(__file__).parents[2] / "reports/attack.json"


def test_every_way_in_which_the_default_taxonomy_obscures_was_attacked_and_held() -> None:
    import conf

    taxonomy = conf.section(conf.compose(), "taxonomy", Taxonomy)
    criteria = list(check_attack(read_attack(taxonomy, ATTACK), taxonomy))
    assert [c.class_name for c in criteria] == list(taxonomy.gated)
    assert all(c.passed and c.value is not None for c in criteria), criteria
    assert list(attack_warnings(read_attack(taxonomy, ATTACK), taxonomy)) == []


def test_the_floor_held_against_everything_and_what_leaked_lies_below_it() -> None:
    rows = json.loads(ATTACK.read_text())["rows"]
    weak = {row["strength"] for row in rows if row["refused"] and row["method"] == "blur"}
    held = {row["strength"] for row in rows if row["method"] == "blur"} - weak
    assert held >= {STRENGTH_MIN, 0.8, 1.0}
    assert weak
    assert max(weak) < STRENGTH_MIN
