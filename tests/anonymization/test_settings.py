"""Settings per class, from files and from the command line."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from anonymization.anonymizer import Anonymizer
from anonymization.bundle import Bundle
from anonymization.known_regions import DEFAULT_TAXONOMY
from anonymization.settings import ClassSettings, Settings, SettingsError
from anonymization.taxonomy import Taxonomy

REPOSITORY = Path(__file__).parents[2]


def test_the_built_in_classes_are_those_of_the_loop() -> None:
    values = yaml.safe_load((REPOSITORY / "params.yaml").read_text())["taxonomy"]
    assert Taxonomy.from_dict(values) == DEFAULT_TAXONOMY


def test_a_file_and_the_command_line_are_laid_on_top_of_each_other(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "schema_version: 1\nclasses:\n  face: {method: pixelate, margin: 0.3}\n"
        "  vehicle: {enabled: false}\n"
    )
    chosen = Settings.read(path).updated(Settings.of(["face.margin=0.5", "person.method=none"]))
    assert chosen.to_dict() == {
        "face": {"method": "pixelate", "margin": 0.5},
        "person": {"method": "none"},
        "vehicle": {"enabled": False},
    }
    assert chosen.disabled == {"vehicle"}
    spec = chosen.taxonomy(DEFAULT_TAXONOMY)["face"]
    assert (spec.method, spec.margin, spec.shape) == ("pixelate", 0.5, "ellipse")


def test_a_json_file_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text('{"schema_version": 1, "classes": {"face": {"threshold": 0.25}}}')
    assert Settings.read(path).classes["face"] == ClassSettings(threshold=0.25)


def test_a_threshold_goes_into_the_card(constant_bundle: Bundle) -> None:
    card = Settings.of(["face.threshold=0.25"]).card(constant_bundle.card)
    assert card.thresholds["face"] == 0.25
    assert card.thresholds["person"] == constant_bundle.card.thresholds["person"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("face", "expected CLASS.KEY=VALUE"),
        ("face=blur", "expected CLASS.KEY=VALUE"),
        ("face.colour=red", "setting 'colour'; known: enabled"),
        ("face.method=mosaic", "method is 'mosaic'; expected one of blur, pixelate"),
        ("face.shape=star", "shape is 'star'; expected one of"),
        ("face.margin=-1", "margin is -1.0; expected a number from 0 to 4"),
        ("face.margin=nan", "margin is nan; expected a number"),
        ("face.margin=wide", "margin is 'wide'; expected a number"),
        ("face.threshold=1.5", "threshold is 1.5; expected a number from 0 to 1"),
        ("face.enabled=maybe", "enabled is 'maybe'; expected true or false"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings.of([text])


def test_an_unknown_class_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"class 'fce'; known classes: face, person"):
        Settings.of(["fce.margin=1"]).taxonomy(DEFAULT_TAXONOMY)


@pytest.mark.parametrize("name", ["person", "vehicle"])
def test_synthetic_is_for_plates_and_faces_alone(name: str) -> None:
    with pytest.raises(SettingsError, match="synthetic draws license plates"):
        Settings.of([f"{name}.method=synthetic"]).taxonomy(DEFAULT_TAXONOMY)
    changed = Settings.of(["license_plate.method=synthetic"]).taxonomy(DEFAULT_TAXONOMY)
    assert changed["license_plate"].method == "synthetic"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: {}", "schema_version None; expected 1"),
        ("schema_version: 1\nclass: {}", "key 'class'; known: classes"),
        ("schema_version: 1\nclasses: [face]", "expected settings by class name"),
        ("schema_version: 1\nclasses: {face: blur}", "expected KEY: VALUE pairs"),
        ("a: 1\nb: [1", r"s.yaml, line 2: expected ',' or '\]', but got the end of the file"),
        ("a: \0", "s.yaml: unacceptable character"),
        ("- 1", "holds list"),
        ("!!python/object/apply:os.system ['true']", "s.yaml, line 1: could not determine a con"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=message):
        Settings.read(path)


def test_a_strength_below_the_floor_is_said_not_to_be_used() -> None:
    (line,) = Settings.of(["face.strength=0.05"]).warnings(DEFAULT_TAXONOMY)
    assert "0.7 is used" in line
    assert Settings.of(["face.strength=0.7"]).warnings(DEFAULT_TAXONOMY) == []


def test_other_names_of_a_class_mean_that_class_and_do_not_contradict_it() -> None:
    chosen = Settings.of(["plate.threshold=0.3", "license_plate.method=solid", "dog.method=none"])
    assert chosen.resolved(DEFAULT_TAXONOMY).to_dict() == {
        "license_plate": {"threshold": 0.3, "method": "solid"},
        "dog": {"method": "none"},
    }
    twice = Settings.of(["plate.method=none", "license_plate.method=solid"])
    with pytest.raises(SettingsError, match="'none' under another name of license_plate"):
        twice.resolved(DEFAULT_TAXONOMY)


def test_other_names_of_a_class_do_in_python_what_they_do_in_the_command(
    make_bundle: Callable[..., Bundle],
) -> None:
    bundle = make_bundle(taxonomy=DEFAULT_TAXONOMY)
    chosen = Settings.of(["plate.method=solid", "plate.margin=0.5", "car.enabled=false"])
    detecting = Anonymizer.from_bundle(
        bundle, settings=chosen, thresholds={"number_plate": 0.3}, threads=1
    )
    assert detecting.detector is not None
    assert detecting.detector.card.thresholds["license_plate"] == 0.3
    for anonymizer in (
        detecting,
        Anonymizer.for_known_regions(settings=chosen),
        Anonymizer.for_known_regions(bundle.card, settings=chosen),
    ):
        spec = anonymizer.taxonomy["license_plate"]
        assert (spec.method, spec.margin) == ("solid", 0.5)
        assert anonymizer.disabled == {"vehicle"}
    twice = Settings.of(["plate.method=none", "license_plate.method=solid"])
    with pytest.raises(SettingsError, match="'none' under another name of license_plate"):
        Anonymizer.from_bundle(bundle, settings=twice)
    with pytest.raises(SettingsError, match="'none' under another name of license_plate"):
        Anonymizer.for_known_regions(settings=twice)


def test_thresholds_in_python_are_settings_that_others_go_before(constant_bundle: Bundle) -> None:
    made = Anonymizer.from_bundle(
        constant_bundle,
        settings=Settings.of(["face.threshold=0.4"]),
        thresholds={"face": 0.2, "person": 0.2},
        threads=1,
    )
    assert made.detector is not None
    held = made.detector.card.thresholds
    assert (held["face"], held["person"], held["vehicle"]) == (0.4, 0.2, 0.5)
    with pytest.raises(SettingsError, match=r"class 'fce'; known classes: face, person"):
        Anonymizer.from_bundle(constant_bundle, thresholds={"fce": 0.2})
    with pytest.raises(SettingsError, match=r"class face: threshold is 2.0; expected a number"):
        Anonymizer.from_bundle(constant_bundle, thresholds={"face": 2})
