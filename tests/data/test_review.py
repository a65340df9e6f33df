"""Review: a reason per rejected picture, and night streets stay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.manifest import Manifest, Picture
from data.review import (
    Measured,
    ReviewConfig,
    ReviewError,
    judge,
    measure_all,
    report,
    reviewed_manifest,
)

FINE = Measured(
    dark=0.9, light=0.9, blurry=0.9, low_information=0.9, aspect_ratio=0.7, pixels="", near=""
)


def picture(number: int, **changes: object) -> Picture:
    sha256 = f"{number:064x}"
    base = Picture(sha256, f"{sha256}.png", 640, 480, "folder-a", f"{number}.png")
    return replace(base, **changes)  # type: ignore[arg-type]


def reasons_of(
    measured: Measured, config: ReviewConfig | None = None, **changes: object
) -> list[str]:
    one = picture(1, **changes)
    return judge(Manifest((one,)), {one.sha256: measured}, config or ReviewConfig()).get(
        one.sha256, []
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dark": 0.05}, "dark 0.050 < 0.1"),
        ({"light": 0.01}, "light 0.010 < 0.02"),
        ({"blurry": 0.01}, "blurry 0.010 < 0.1"),
        ({"low_information": 0.1}, "low_information 0.100 < 0.3"),
        ({"aspect_ratio": 0.1}, "aspect_ratio 0.100 < 0.25"),
    ],
)
def test_a_score_below_its_limit_is_the_reason(changes: dict[str, float], reason: str) -> None:
    assert reasons_of(replace(FINE, **changes)) == [reason]  # type: ignore[arg-type]


def test_size_limits_are_absolute() -> None:
    assert reasons_of(FINE, height=30) == ["size 30 px < 64"]
    assert reasons_of(FINE, width=30000) == ["size 30000 px > 20000"]


def test_several_reasons_are_all_given() -> None:
    assert len(reasons_of(replace(FINE, dark=0.0, blurry=0.0))) == 2


def test_exact_duplicates_go_and_near_ones_stay_unless_asked() -> None:
    manifest = Manifest((picture(1, turn=1), picture(2), picture(3)))
    measured = {
        picture(1).sha256: replace(FINE, pixels="a", near="n"),
        picture(2).sha256: replace(FINE, pixels="a", near="n"),
        picture(3).sha256: replace(FINE, pixels="b", near="n"),
    }
    kept = judge(manifest, measured, ReviewConfig())
    assert kept == {picture(1).sha256: [f"exact_duplicate of {picture(2).sha256}"]}
    dropped = judge(manifest, measured, ReviewConfig(drop_near_duplicates=True))
    assert dropped[picture(3).sha256] == [f"near_duplicate of {picture(2).sha256}"]
    result = report(manifest, measured, kept)
    assert (result["kept"], result["counts"]) == (2, {"exact_duplicate": 1})
    assert len(reviewed_manifest(manifest, kept).rejected) == 1


def save(folder: Path, name: str, pixels: np.ndarray) -> Path:
    path = folder / f"{name}.png"
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def test_real_measurements_tell_bad_pictures_from_night_streets(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    street = rng.integers(0, 256, (12, 16, 3)).repeat(20, axis=0).repeat(20, axis=1)
    night = street * 0.08
    night[100:110, 200:210] = 200  # a lamp: 0.13 % of the pixels
    night[150:200, 50:120] = 90  # what it lights
    paths = {
        "street": save(tmp_path, "street", street),
        "night": save(tmp_path, "night", night),
        "black": save(tmp_path, "black", street * 0.02),
        "white": save(tmp_path, "white", np.full_like(street, 255)),
    }
    measured = measure_all(paths, tmp_path / "cache.json")
    found = {name: reasons_of(values) for name, values in measured.items()}
    assert found["street"] == found["night"] == []
    assert found["black"][0].startswith("dark")
    assert {reason.split()[0] for reason in found["white"]} >= {"light", "low_information"}
    for path in paths.values():
        path.unlink()
    assert measure_all(paths, tmp_path / "cache.json") == measured


def test_impossible_limits_are_refused() -> None:
    with pytest.raises(ReviewError, match=r"review\.dark is 32; expected 0 to 1"):
        ReviewConfig(dark=32)
