"""The configuration that annotators work in."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from annotation.labelling import (
    EDITOR_KEYS,
    LabellingError,
    covered_classes,
    instructions,
    labelling,
    read_pairs,
    updated,
)
from annotation.labels import TAGS
from anonymization.taxonomy import ClassSpec, Taxonomy

FACE = ClassSpec(geometry="ellipse", shape="ellipse", color="#112233")
PLATE = ClassSpec(geometry="box", shape="box")
PERSON = ClassSpec(geometry="mask", shape="outline")
STREET = Taxonomy({"face": FACE, "person": PERSON, "plate": PLATE}, keypoint_class="person")
NOW = "2026-06-01T00:00:00Z"


def test_each_class_is_drawn_as_its_geometry_asks():
    pairs, since = read_pairs(labelling(STREET).xml)
    assert {p for p in pairs if p[0] != "keypoint"} == {
        ("ellipse", "face"), ("rectangle", "face"), ("brush", "person"), ("polygon", "person"),
        ("rectangle", "plate"), ("polygon", "plate"),
    }  # fmt: skip
    assert len({p for p in pairs if p[0] == "keypoint"}) == 17
    assert since == {"face": None, "person": None, "plate": None}


def test_colours_are_those_of_the_taxonomy_and_every_hotkey_is_used_once():
    root = ElementTree.fromstring(labelling(STREET).xml)
    colours = {e.get("background") for e in root.iter("Label") if e.get("value") == "face"}
    assert colours == {"#112233"}
    keys = [e.get("hotkey") for e in root.iter() if e.get("hotkey")]
    assert len(keys) == len(set(keys)) == 6 + 5 + 17
    assert not EDITOR_KEYS & set(keys)
    # The editor would give labels without a key one of its own, such as v, which is its own tool.
    assert all(e.get("hotkey") for e in root.iter("Label"))


def test_an_annotator_has_the_usual_tool_in_hand():
    names = [e.get("name") for e in ElementTree.fromstring(labelling(STREET).xml).iter()]
    assert [n for n in names if n in TAGS] == [
        "polygon", "ellipse", "rectangle", "brush", "keypoint",
    ]  # fmt: skip


def test_label_studio_finds_nothing_wrong_with_it():
    from label_studio_sdk.label_interface import LabelInterface

    LabelInterface(labelling(STREET).xml).validate()


def test_a_new_class_is_asked_for_from_now_on():
    old = labelling(Taxonomy({"face": FACE, "person": PERSON})).xml
    new = updated(old, STREET, keypoints=True, used={("ellipse", "face"): 9}, now=NOW)
    assert new.since == {"face": None, "person": None, "plate": NOW}
    assert covered_classes(STREET, new.since, "2026-05-31T23:59:59Z") == ("face", "person")
    again = updated(new.xml, STREET, keypoints=True, used={}, now="2027-01-01T00:00:00Z")
    assert again == new


def test_a_class_in_use_cannot_be_dropped():
    old = labelling(STREET).xml
    fewer = Taxonomy({"face": FACE})
    used = {("brush", "person"): 3, ("rectangle", "plate"): 0}
    with pytest.raises(LabellingError, match=r"no class 'person', but 3 brush regions"):
        updated(old, fewer, keypoints=True, used=used, now=NOW)
    assert updated(old, fewer, keypoints=True, used={}, now=NOW).since == {"face": None}


def test_a_tool_in_use_stays_when_the_geometry_changes():
    old = labelling(STREET).xml
    boxed = Taxonomy({**STREET.classes, "person": PLATE})
    new = updated(old, boxed, keypoints=False, used={("brush", "person"): 3}, now=NOW)
    assert ("brush", "person") in read_pairs(new.xml)[0]
    assert ("brush", "face") not in read_pairs(new.xml)[0]


def test_keypoints_in_use_stay():
    old = labelling(STREET).xml
    new = updated(old, STREET, keypoints=False, used={("keypoint", "nose"): 1}, now=NOW)
    assert ("keypoint", "nose") in read_pairs(new.xml)[0]
    without = Taxonomy(STREET.classes)
    with pytest.raises(LabellingError, match="has no keypoint_class, but the project has"):
        updated(old, without, keypoints=True, used={("keypoint", "nose"): 1}, now=NOW)


def test_a_configuration_that_is_no_xml_is_named():
    with pytest.raises(LabellingError, match="is no XML"):
        read_pairs("<View>")


def test_instructions_show_what_counts_as_identifiable():
    html = instructions(STREET, {"face": ("/a.png", "/b.png")})
    assert 'src="/a.png"' in html
    assert "20 px high" in html
    assert "person's keypoints" in html
