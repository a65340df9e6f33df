"""The audit: what counts as still visible."""

from dataclasses import replace

import numpy as np

from anonymization.anonymizer import Anonymizer
from anonymization.bundle import Bundle
from anonymization.detection.finds import Detections
from anonymization.job.audit import (
    AuditRule,
    Visible,
    audited,
    still_visible,
    visible_finds,
    without_copies,
)
from anonymization.known_regions import DEFAULT_TAXONOMY as TAXONOMY
from anonymization.settings import Settings
from anonymization.taxonomy import Taxonomy

FACE, PERSON, PLATE, VEHICLE = range(4)


def find(box: list[float], class_id: int, score: float = 0.9) -> Detections:
    return Detections.from_boxes([box], class_ids=[class_id], scores=[score])


def visible(found: Detections, hidden: Detections, taxonomy: Taxonomy = TAXONOMY) -> list[float]:
    listed = still_visible(found, hidden, taxonomy, 400, 400, rule=AuditRule(), mask_threshold=0.4)
    return [one.covered for one in listed]


def test_an_obscured_object_that_is_found_again_is_not_visible() -> None:
    person = find([100, 100, 200, 300], PERSON)
    assert visible(person, person) == []


def test_an_object_that_nothing_hides_is_visible() -> None:
    assert visible(find([100, 100, 200, 300], PERSON), Detections.empty()) == [0.0]


def test_an_object_that_is_half_hidden_is_visible() -> None:
    (covered,) = visible(find([100, 100, 200, 300], PLATE), find([100, 100, 150, 300], PLATE))
    assert 0.5 < covered < 0.7


def test_a_face_under_an_obscured_person_is_hidden() -> None:
    assert visible(find([130, 110, 170, 160], FACE), find([100, 100, 200, 300], PERSON)) == []


def test_a_class_that_is_only_detected_hides_nothing() -> None:
    classes = dict(TAXONOMY.classes) | {"person": replace(TAXONOMY["person"], method="none")}
    shown = replace(TAXONOMY, classes=classes)
    assert visible(find([130, 110, 170, 160], FACE), find([100, 100, 200, 300], PERSON), shown)


def test_a_large_object_under_cells_made_for_small_ones_is_visible() -> None:
    """Blur cells of 4 px for a dozen small finds keep a face of 300 px readable."""
    grid = [[x, y, x + 20.0, y + 20.0] for x in range(40, 360, 18) for y in range(40, 360, 18)]
    small = Detections.from_boxes(grid, class_ids=[PLATE] * len(grid))
    large = find([50, 50, 350, 350], FACE)
    assert visible(large, small) == [0.0]
    assert visible(find([60, 60, 80, 80], FACE), small) == []


def test_a_find_across_the_seam_of_a_panorama_is_listed_once() -> None:
    both = find([380, 100, 420, 140], FACE), find([-20, 100, 20, 140], FACE)
    found = Detections.concatenate([*both, find([180, 100, 220, 140], FACE)])
    listed = still_visible(
        found, Detections.empty(), TAXONOMY, 400, 400, rule=AuditRule(), mask_threshold=0.4
    )
    assert [one.box[0] for one in without_copies(listed, 400)] == [380, 180]


def test_what_is_visible_is_a_find_of_both_boxes_that_saw_it() -> None:
    merged = np.float32([[50, 80, 90, 130]])
    seen = replace(find([60, 100, 100, 140], FACE), merged_xyxy=merged)
    (one,) = still_visible(
        seen, Detections.empty(), TAXONOMY, 400, 400, rule=AuditRule(), mask_threshold=0.4
    )
    again = visible_finds([Visible.from_dict(one.to_dict())], TAXONOMY)
    assert again.boxes_xyxy.tolist() == [[50, 80, 100, 140]]
    assert again.sources == ("audit",)
    assert visible(seen, again) == []


def test_finds_are_looked_at_from_a_share_of_their_threshold(constant_bundle: Bundle) -> None:
    found = Detections.concatenate(
        [
            find([0, 0, 9, 9], FACE, 0.26),
            find([0, 0, 9, 9], FACE, 0.24),
            find([0, 0, 9, 9], VEHICLE, 0.9),  # only detected by this bundle
        ]
    )
    kept = audited(found, constant_bundle.card, AuditRule(threshold_share=0.5))
    np.testing.assert_allclose(kept.scores, [0.26])


def test_persons_who_stay_visible_are_looked_at_for_the_heads_that_they_imply(
    constant_bundle: Bundle,
) -> None:
    settings = Settings.of(["person.method=none", "person.head=unless_hidden"])
    card, rule = settings.card(constant_bundle.card), AuditRule()
    missed = find([100, 100, 150, 300], PERSON)
    assert len(audited(missed, card, rule)) == 0
    kept = audited(missed, card, rule, implying_head=True)
    anonymizer = Anonymizer.for_known_regions(card=constant_bundle.card, settings=settings)
    looked_at = anonymizer.decide(kept, name="a", width=400, height=400).hidden
    assert [TAXONOMY.names[i] for i in looked_at.class_ids] == ["person", "face"]
    assert visible(looked_at, Detections.empty(), anonymizer.taxonomy) == [0.0]
    assert visible(looked_at, looked_at.select([1]), anonymizer.taxonomy) == []
