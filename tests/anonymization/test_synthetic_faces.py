"""Synthetic faces: drawn by a generator that is given nothing of the picture."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anonymization.anonymizer import Anonymizer
from anonymization.detection.finds import Detections
from anonymization.detection.runtime import InferenceError
from anonymization.known_regions import DEFAULT_TAXONOMY
from anonymization.obscuring.generator import COMMAND, FaceGenerator, GeneratorCard, GeneratorError
from anonymization.obscuring.obscure import obscured_regions
from anonymization.panorama.wrapping import wrapped_copies
from anonymization.settings import GENERATOR_COMMAND, Settings, SettingsError

HEIGHT, WIDTH = 80, 100
FACES = Detections.from_boxes(
    [[20.3, 10.2, 50.8, 49.6], [70, 55, 120, 120]], class_ids=[0, 0], scores=[0.9, 0.8]
)
"""One inside of the picture, one cut by two of its edges."""


def settings(folder: Path, *more: str) -> Settings:
    return Settings.of(["face.method=synthetic", f"face.generator={folder}", *more])


def drawing(folder: Path, *more: str, seed: int | None = 7) -> Anonymizer:
    return Anonymizer.for_known_regions(settings=settings(folder, *more), seed=seed)


def noise(seed: int, *, channels: tuple[int, ...] = (3,), kind: type = np.uint8) -> np.ndarray:
    top = np.iinfo(kind).max
    return np.random.default_rng(seed).integers(0, top, (HEIGHT, WIDTH, *channels), kind)


def hidden_fully(anonymizer: Anonymizer) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for _, where in obscured_regions(FACES, anonymizer.taxonomy, HEIGHT, WIDTH):
        mask[where.slices] |= where.weight >= 1
    return mask


@pytest.mark.parametrize(
    ("channels", "kind"),
    [
        pytest.param((3,), np.uint8, id="RGB"),
        pytest.param((4,), np.uint8, id="RGBA"),
        pytest.param((), np.uint8, id="gray"),
        pytest.param((3,), np.uint16, id="RGB of 16 bits"),
        pytest.param((), np.uint16, id="gray of 16 bits"),
    ],
)
@pytest.mark.parametrize("shape", ["ellipse", "box", "rotated_box", "outline"])
def test_nothing_under_a_face_comes_from_the_picture(
    face_generator: Path, channels: tuple[int, ...], kind: type, shape: str
) -> None:
    anonymizer = drawing(face_generator, f"face.shape={shape}")
    one, two = (
        anonymizer.obscure(noise(seed, channels=channels, kind=kind), FACES) for seed in (1, 2)
    )
    inside = hidden_fully(anonymizer)
    assert inside[15:45, 30:40].all()
    np.testing.assert_array_equal(one[inside], two[inside])
    assert one.dtype == kind
    assert np.ptp(one[inside].astype(float)) > 0.3 * np.iinfo(kind).max  # drawn, not painted over
    assert (one[:5, :5] == noise(1, channels=channels, kind=kind)[:5, :5]).all()


def test_ink_is_drawn_where_four_channels_are_inks(face_generator: Path) -> None:
    anonymizer = drawing(face_generator)
    one, two = (anonymizer.obscure(noise(s, channels=(4,)), FACES, cmyk=True) for s in (1, 2))
    inside = hidden_fully(anonymizer)
    np.testing.assert_array_equal(one[inside], two[inside])
    assert (one[inside][:, :3] == 0).all()
    assert np.ptp(one[inside][:, 3]) > 80


def test_a_run_draws_the_same_face_at_the_same_place_and_another_run_another(
    face_generator: Path,
) -> None:
    pixels = noise(1)
    of_run = drawing(face_generator, seed=None)
    first = of_run.obscure(pixels, FACES)
    np.testing.assert_array_equal(first, of_run.obscure(pixels, FACES))
    assert not np.array_equal(first, drawing(face_generator, seed=None).obscure(pixels, FACES))
    moved = Detections.from_boxes(FACES.boxes_xyxy + 1, class_ids=[0, 0])
    assert not np.array_equal(first[12:40, 30:40], of_run.obscure(pixels, moved)[13:41, 31:41])


def test_many_threads_draw_what_one_draws(face_generator: Path) -> None:
    anonymizer = drawing(face_generator)
    expected = anonymizer.obscure(noise(1), FACES)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: anonymizer.obscure(noise(1), FACES), range(16)):
            np.testing.assert_array_equal(found, expected)


def test_both_sides_of_a_seam_show_one_face(face_generator: Path) -> None:
    across = Detections.from_boxes([[80.3, 20.1, 130.7, 70.4]], class_ids=[0])
    anonymizer = drawing(face_generator)
    wrapped = anonymizer.obscure(noise(1), wrapped_copies(across, WIDTH))
    wider = np.concatenate([noise(1), noise(1)], axis=1)
    whole = anonymizer.obscure(wider, across)
    # Float32 columns of the copy differ in their last bits, and a pixel by a step of rounding.
    inside = slice(40, 50)
    seen = np.concatenate([wrapped[inside, 85:], wrapped[inside, :25]], axis=1).astype(int)
    assert np.abs(seen - whole[inside, 85:125].astype(int)).max() <= 1


def test_a_second_find_on_a_face_draws_none_into_its_middle(face_generator: Path) -> None:
    anonymizer = drawing(face_generator)
    twice = Detections.concatenate(
        [FACES, Detections.from_boxes([[28, 25, 42, 40]], class_ids=[0])]
    )
    np.testing.assert_array_equal(
        anonymizer.obscure(noise(1), twice), anonymizer.obscure(noise(1), FACES)
    )


def test_a_find_that_juts_out_of_a_drawn_face_is_drawn_where_it_does(face_generator: Path) -> None:
    anonymizer = drawing(face_generator, "face.shape=box", "face.margin=0", "face.feather=0")
    both = Detections.from_boxes([[10, 10, 50, 50], [40, 20, 60, 40]], class_ids=[0, 0])
    one, two = (anonymizer.obscure(noise(seed), both) for seed in (1, 2))
    np.testing.assert_array_equal(one[20:40, 10:60], two[20:40, 10:60])
    alone = anonymizer.obscure(noise(1), both.select([0]))
    np.testing.assert_array_equal(one[10:50, 10:50], alone[10:50, 10:50])


def test_a_face_without_a_generator_is_refused_with_the_command_that_makes_one() -> None:
    with pytest.raises(SettingsError, match=r"face.method=synthetic needs a generator .*zoo.faces"):
        Anonymizer.for_known_regions(settings=Settings.of(["face.method=synthetic"]))
    assert GENERATOR_COMMAND.startswith(COMMAND)


def test_a_generator_is_for_faces_alone(face_generator: Path) -> None:
    given = Settings.of(
        ["license_plate.method=synthetic", f"license_plate.generator={face_generator}"]
    )
    with pytest.raises(SettingsError, match="license_plate has geometry box"):
        Anonymizer.for_known_regions(settings=given)


def test_a_generator_without_its_method_is_said_not_to_be_used(face_generator: Path) -> None:
    given = Settings.of([f"face.generator={face_generator}"])
    assert given.warnings(DEFAULT_TAXONOMY) == [
        "face.generator is not used: it draws for face.method synthetic alone"
    ]
    assert Anonymizer.for_known_regions(settings=given).generators == {}


def test_a_relative_folder_in_a_settings_file_is_below_the_files_own(face_generator: Path) -> None:
    file = face_generator.parent / "settings.yaml"
    file.write_text("schema_version: 1\nclasses:\n  face: {method: synthetic, generator: faces}\n")
    assert Anonymizer.for_known_regions(settings=Settings.read(file)).generators.keys() == {"face"}


def changed(folder: Path, **values: object) -> Path:
    card = json.loads((folder / "generator.json").read_text())
    (folder / "generator.json").write_text(json.dumps(card | values))
    return folder


def test_a_changed_graph_is_refused(face_generator: Path) -> None:
    graph = face_generator / "generator.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    with pytest.raises(GeneratorError, match=r"its card says .* changed or damaged.*zoo.faces"):
        FaceGenerator.load(face_generator)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"side": 32}, r"returned faces of shape \(1, 3, 16, 16\)"),
        ({"latents": 9}, "face generator failed on input"),
        ({"latents": 0}, "latents is 0; expected a whole number"),
        ({"scale": -1}, "scale is -1; expected a number"),
        ({"note": "a\nb"}, "expected one line of text"),
        ({"more": 1}, "unexpected keyword argument 'more'"),
        ({"schema_version": 2}, "not readable"),
    ],
)
def test_a_wrong_card_is_refused(
    face_generator: Path, values: dict[str, object], message: str
) -> None:
    with pytest.raises(GeneratorError, match=message):
        FaceGenerator.load(changed(face_generator, **values))


def test_a_folder_without_a_generator_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GeneratorError, match=r"no generator of faces.*zoo.faces"):
        FaceGenerator.load(tmp_path)


def test_what_a_generator_cannot_do_is_said_with_its_folder(face_generator: Path) -> None:
    graph = face_generator / "generator.onnx"
    graph.write_bytes(b"no graph")
    changed(face_generator, sha256=hashlib.sha256(b"no graph").hexdigest())
    message = (
        f"^{re.escape(str(face_generator))}: the face generator cannot be loaded.*[^.]\\. Make"
    )
    with pytest.raises(GeneratorError, match=message):
        FaceGenerator.load(face_generator)


def test_what_is_no_graph_is_refused() -> None:
    card = GeneratorCard("", 8, 0.8, 16, "", "")
    with pytest.raises(GeneratorError, match="cannot be loaded"):
        FaceGenerator(card, b"no graph")


def test_a_generator_that_answers_with_nothing_finite_hides_nothing_in_silence(
    face_generator: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anonymizer = drawing(face_generator)

    class Broken:
        def run(self, feeds: object) -> dict[str, np.ndarray]:
            return {"faces": np.full((1, 3, 16, 16), np.nan, np.float32)}

    monkeypatch.setattr(anonymizer.generators["face"], "_runtime", Broken())
    with pytest.raises(InferenceError, match="returned faces"):
        anonymizer.obscure(noise(1), FACES)


def test_the_command_draws_faces_says_the_note_and_resumes_by_digest(
    tmp_path: Path, face_generator: Path
) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(noise(1)).save(tmp_path / "in" / "a.png")
    (tmp_path / "a.json").write_text(
        json.dumps(
            {
                "schema_version": 1,
                "picture": {"name": "a.png", "width": WIDTH, "height": HEIGHT},
                "finds": [{"class": "face", "box": [20, 10, 50, 50]}],
            }
        )
    )

    def run() -> str:
        command = [sys.executable, "-m", "anonymization", str(tmp_path / "in"), "--resume"]
        command += ["-o", str(tmp_path / "out"), "--detections", str(tmp_path / "a.json")]
        command += ["--set", "face.method=synthetic", "--set", f"face.generator={face_generator}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stderr

    said = run()
    assert "generator of face: made by a test" in said
    written = np.asarray(Image.open(tmp_path / "out" / "a.png"))
    assert (written[20:40, 30:40] != noise(1)[20:40, 30:40]).mean() > 0.9
    assert "1 already done" in run()
    changed(face_generator, scale=0.5)
    assert "1 anonymized" in run()
