"""The attack on obscured pictures, with engines of paper, and the real ones where installed."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anonymization.taxonomy import STRENGTH_MIN, ClassSpec, Taxonomy
from evaluation import attack_engines
from evaluation.attack import (
    Setting,
    attacked,
    drawn_plates,
    faces_of,
    identified,
    main,
    matched,
    obscured,
    plates_look,
    settings_of,
)
from evaluation.attack_engines import AttackError, deconvolve, plain

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


def test_deconvolution_brings_a_weak_blur_closer_to_the_original() -> None:
    import cv2

    sharp = PLATES[0].crop(PLATES[0].pixels)
    blurred = cv2.GaussianBlur(sharp, (0, 0), 2.0, borderType=cv2.BORDER_REFLECT)
    before, after = (
        np.abs(sharp.astype(float) - each).mean() for each in (blurred, deconvolve(blurred, 2.0))
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
        main(["--plates", "1"])
    assert "--plates is 1" in capsys.readouterr().err


def test_letters_and_digits_are_all_that_counts_of_a_text() -> None:
    assert plain(" ab-12 é") == "AB12"
