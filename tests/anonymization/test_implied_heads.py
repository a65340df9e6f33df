"""The head that a person's outline implies, on drawn persons whose head is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import pytest

from anonymization.anonymizer import Anonymizer
from anonymization.bundle import Bundle
from anonymization.detection.finds import Detections
from anonymization.documents import KnownFinds, document_to_finds, finds_to_document
from anonymization.implied_heads import SOURCE, Cut, head_of
from anonymization.known_regions import DEFAULT_TAXONOMY
from anonymization.obscuring.obscure import obscured_mask
from anonymization.obscuring.region import Outline
from anonymization.settings import Settings, SettingsError

HEIGHT, WIDTH = 300, 400
PERSON = DEFAULT_TAXONOMY.class_id("person")
FACE = DEFAULT_TAXONOMY.class_id("face")
SCHEMA = Path(__file__).parents[2] / "docs" / "detections.schema.json"

TALL = 225
"""Pixels of a standing person: 7.5 heads of 30."""


def standing(*, arm: str = "down") -> tuple[np.ndarray, np.ndarray]:
    """Draw a person of 7.5 heads; return the person's pixels and the head's, each (262, 140).

    The head's crown is at row 37, its middle at column 70.
    """
    person, head = (np.zeros((262, 140), np.uint8) for _ in range(2))
    cv2.ellipse(head, (70, 52), (11, 15), 0, 0, 360, 1, -1)
    person |= head
    cv2.rectangle(person, (64, 64), (76, 72), 1, -1)  # neck
    cv2.rectangle(person, (41, 72), (99, 145), 1, -1)  # shoulders to hips
    cv2.rectangle(person, (48, 145), (66, 261), 1, -1)
    cv2.rectangle(person, (74, 145), (92, 261), 1, -1)
    if arm == "up":
        cv2.line(person, (96, 76), (104, 6), 1, 9)
    if arm == "both up":
        cv2.line(person, (96, 76), (104, 6), 1, 9)
        cv2.line(person, (44, 76), (36, 6), 1, 9)
    return person.astype(bool), head.astype(bool)


def on_picture(pixels: np.ndarray, x: int, y: int, size: tuple[int, int]) -> np.ndarray:
    """Place pixels on an empty picture (H, W); what lies outside is lost."""
    canvas = np.zeros(size, bool)
    rows, columns = np.nonzero(pixels)
    rows, columns = rows + y, columns + x
    kept = (rows >= 0) & (rows < size[0]) & (columns >= 0) & (columns < size[1])
    canvas[rows[kept], columns[kept]] = True
    return canvas


def as_found(pixels: np.ndarray) -> Detections:
    """Return a find as a network makes it: the box, and 28x28 cells of it."""
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    y0, y1, x0, x1 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    cells = cv2.resize(
        pixels[y0:y1, x0:x1].astype(np.float32), (28, 28), interpolation=cv2.INTER_AREA
    )
    return Detections.from_boxes(
        [[x0, y0, x1, y1]], class_ids=[PERSON], scores=[0.7], masks=cells[None]
    )


def showing_persons(*more: str) -> Anonymizer:
    settings = Settings.of(["person.method=none", "person.head=unless_hidden", *more])
    return Anonymizer.for_known_regions(settings=settings)


def hidden(
    anonymizer: Anonymizer,
    found: Detections,
    *,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    outlines: dict[int, Outline] | None = None,
) -> np.ndarray:
    height, width = size
    view = anonymizer.view(b"", width, height)
    decided = anonymizer.decide(
        found, name="", width=width, height=height, view=view, outlines=outlines or {}
    )
    return obscured_mask(decided.hidden, anonymizer.taxonomy, height, width)


@pytest.mark.parametrize("arm", ["down", "up", "both up"])
@pytest.mark.parametrize("known_by", ["network", "drawn outline"])
def test_the_head_of_a_standing_person_is_hidden_and_the_body_is_not(
    arm: str, known_by: str
) -> None:
    person, head = standing(arm=arm)
    truth, skull = (on_picture(part, 120, 20, (HEIGHT, WIDTH)) for part in (person, head))
    found, outlines = as_found(truth), None
    if known_by == "drawn outline":
        outlines = {0: Outline(0, 0, truth)}
        found = Detections.from_boxes([[130, 20, 240, 290]], class_ids=[PERSON])
    covered = hidden(showing_persons(), found, outlines=outlines)
    assert covered[skull].all()
    assert covered.sum() < (6 if arm == "down" else 18) * skull.sum()
    assert not covered[20 + 130 :].any()


@pytest.mark.parametrize("gone", [0.2, 0.5, 0.8])
def test_a_head_that_the_pictures_top_cuts_is_hidden(gone: float) -> None:
    person, head = standing()
    y = -37 - round(30 * gone)
    truth, skull = (on_picture(part, 120, y, (HEIGHT, WIDTH)) for part in (person, head))
    assert hidden(showing_persons(), as_found(truth))[skull].all()


def test_a_box_that_reaches_above_the_picture_is_looked_at_from_the_pictures_top() -> None:
    person, _ = standing()
    whole = as_found(np.pad(person, ((10, 10), (10, 10))))
    above = Detections.from_boxes(
        whole.boxes_xyxy + np.float32([100, -120, 100, -120]),
        class_ids=[PERSON],
        masks=whole.masks,
    )
    covered = hidden(showing_persons(), above)
    assert covered[0, 160:200].all()  # the chest that is left, on the picture's first row


@pytest.mark.parametrize(
    ("x", "side"), [(-70, "left"), (WIDTH - 70, "right")], ids=["left", "right"]
)
def test_a_head_that_the_pictures_side_cuts_is_hidden(x: int, side: str) -> None:
    person, head = standing()
    truth, skull = (on_picture(part, x, 20, (HEIGHT, WIDTH)) for part in (person, head))
    assert skull[:, 0 if side == "left" else -1].any()
    assert hidden(showing_persons(), as_found(truth))[skull].all()


@pytest.mark.parametrize("turns", [1, 3], ids=["head to the left", "head to the right"])
def test_a_lying_person_is_hidden_whole(turns: int) -> None:
    person, _ = standing()
    truth = on_picture(np.rot90(person, turns), 60, 80, (HEIGHT, WIDTH))
    assert hidden(showing_persons(), as_found(truth))[truth].all()


def test_half_a_person_behind_a_car_has_as_large_a_head() -> None:
    person, head = standing()
    person[150:] = False
    truth, skull = (on_picture(part, 120, 20, (HEIGHT, WIDTH)) for part in (person, head))
    covered = hidden(showing_persons(), as_found(truth))
    assert covered[skull].all()


def test_arms_that_reach_out_make_no_larger_head() -> None:
    person, head = standing()
    cv2.rectangle(arms := person.astype(np.uint8), (1, 76), (138, 88), 1, -1)
    truth, skull = (on_picture(part, 120, 20, (HEIGHT, WIDTH)) for part in (arms > 0, head))
    covered = hidden(showing_persons(), as_found(truth))
    assert covered[skull].all()
    assert covered.sum() < 12 * skull.sum()


def test_without_an_outline_the_uppermost_part_of_the_box_is_taken() -> None:
    (found,) = [head_of(np.float32([100, 50, 160, 290]), None, Cut())]
    # 240 high and 60 wide: a head of 40, grown by 10 on each side.
    assert found.tolist() == [90, 40, 170, 100]


@pytest.mark.parametrize("x", [-60, -70, -85], ids=["right half", "middle", "left half"])
def test_a_person_across_the_seam_has_one_head_on_both_sides(x: int) -> None:
    width, height = 600, 300
    anonymizer = Anonymizer.for_known_regions(
        settings=Settings.of(["person.method=none", "person.head=always"]),
        projection="equirectangular",
    )
    person, head = standing()
    wide = on_picture(person, width + x, 20, (height, 2 * width))
    found = as_found(wide)
    assert found.boxes_xyxy[0, 0] < width < found.boxes_xyxy[0, 2]
    skull = on_picture(head, width + x, 20, (height, 2 * width))
    folded = skull[:, :width] | skull[:, width:]
    assert hidden(anonymizer, found, size=(height, width))[folded].all()
    view = anonymizer.view(b"", width, height)
    decided = anonymizer.decide(found, name="", width=width, height=height, view=view)
    assert decided.detections.sources == ("mask_rcnn", SOURCE)
    assert 0 <= decided.detections.boxes_xyxy[1, 0] < width


def test_nothing_is_implied_unless_asked_for() -> None:
    truth = on_picture(standing()[0], 120, 20, (HEIGHT, WIDTH))
    found = as_found(truth)

    def listed(*given: str) -> tuple[str, ...]:
        anonymizer = Anonymizer.for_known_regions(settings=Settings.of(given))
        return anonymizer.decide(found, name="", width=WIDTH, height=HEIGHT).detections.sources

    both = ("mask_rcnn", SOURCE)
    assert listed("person.method=none") == ("mask_rcnn",)
    assert listed("person.method=none", "person.head=never") == ("mask_rcnn",)
    assert listed("person.head=unless_hidden") == ("mask_rcnn",)
    assert listed("person.head=always") == both
    assert listed("person.method=none", "person.head=unless_hidden") == both
    assert listed("person.enabled=false", "person.head=unless_hidden") == (SOURCE,)
    assert listed("person.head=always", "face.enabled=false") == ("mask_rcnn",)


def test_only_persons_have_heads() -> None:
    with pytest.raises(
        SettingsError, match=r"head is a setting of person: --set person.head=always"
    ):
        Settings.of(["vehicle.head=always"]).taxonomy(DEFAULT_TAXONOMY)
    with pytest.raises(SettingsError, match="head is 'often'; expected one of never"):
        Settings.of(["person.head=often"])


@pytest.mark.parametrize("face", ["face.enabled=false", "face.method=none"])
def test_heads_that_are_asked_for_and_not_hidden_are_warned_of(face: str) -> None:
    asked = Settings.of(["person.method=none", "person.head=unless_hidden"])
    assert asked.warnings(asked.taxonomy(DEFAULT_TAXONOMY)) == []
    given = asked.updated(Settings.of([face]))
    assert given.warnings(given.taxonomy(DEFAULT_TAXONOMY)) == [
        "person.head hides no head: class face, which heads get, is not hidden"
    ]


def test_a_document_says_where_a_head_comes_from_and_is_read_back_without_a_second_one() -> None:
    truth = on_picture(standing()[0], 120, 20, (HEIGHT, WIDTH))
    anonymizer = showing_persons()
    decided = anonymizer.decide(as_found(truth), name="", width=WIDTH, height=HEIGHT)
    document = finds_to_document(
        KnownFinds(decided.detections),
        anonymizer.taxonomy,
        name="a.jpg",
        width=WIDTH,
        height=HEIGHT,
        sha256="0" * 64,
    )
    jsonschema.validate(document, json.loads(SCHEMA.read_text()))
    assert [row["source"] for row in document["finds"]] == ["mask_rcnn", SOURCE]
    assert document["finds"][1]["class"] == "face"
    assert document["finds"][1]["score"] == pytest.approx(0.7)
    known = document_to_finds(document, anonymizer.taxonomy, width=WIDTH, height=HEIGHT)
    again = anonymizer.decide(
        known.detections, name="", width=WIDTH, height=HEIGHT, outlines=known.outlines
    )
    assert again.detections.sources == ("mask_rcnn", SOURCE)


def test_a_bundle_finds_persons_and_hides_their_heads(make_bundle: Callable[..., Bundle]) -> None:
    given = Settings.of(["person.method=none", "person.head=unless_hidden", "face.method=solid"])
    bundle = make_bundle([([100.0, 60.0, 160.0, 240.0], 0.9, 1)])
    done = Anonymizer.from_bundle(bundle, settings=given)(np.full((256, 256, 3), 200, np.uint8))
    assert done.detections.sources == ("mask_rcnn", SOURCE)
    assert (done.pixels[60:85, 120:140] == 0).all()
    assert (done.pixels[225:] == 200).all()
