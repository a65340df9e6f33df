"""Which pictures people see first."""

from __future__ import annotations

from annotation.order import Candidate, doubt_key, doubts, ordered, sides
from data.grouping import Group


def names(*candidates: Candidate) -> list[str]:
    return [c.sha256 for c in ordered(candidates)]


def test_doubted_pictures_come_first_then_the_most_useful():
    assert names(
        Candidate("a", for_reference=False, usefulness=0.1),
        Candidate("b", for_reference=False, usefulness=0.9),
        Candidate("c", for_reference=False, doubt="two faces are one"),
    ) == ["c", "b", "a"]


def test_reference_pictures_are_mixed_in_by_digest_and_not_by_usefulness():
    taught = [
        Candidate(n, for_reference=False, usefulness=u)
        for n, u in zip("xyz", (3, 2, 1), strict=True)
    ]
    judged = [Candidate(n, for_reference=True, usefulness=9) for n in "cab"]
    assert names(*taught, *judged) == ["a", "x", "b", "y", "c", "z"]


def test_the_picture_that_draws_the_side_of_its_group_comes_before_the_others():
    follower = Candidate("a", for_reference=True, leads=False)
    assert names(follower, Candidate("b", for_reference=True)) == ["b", "a"]


def test_pictures_of_bridging_groups_may_be_judged_on():
    found = sides([Group(("a", "b"), "bridging"), Group(("c",), "train")])
    assert found == {"a": (True, True), "b": (True, False), "c": (False, True)}


def test_the_queue_of_validation_is_read():
    queue = {"reannotate": [{"sha256": "a", "reasons": ["too small", "doubled"]}]}
    assert doubts(queue) == {"a": "too small; doubled"}
    assert doubts(None) == {}


def test_a_doubt_is_the_same_when_only_its_place_shifts():
    assert doubt_key("face at 40 %, 1.5 x 3 px") == doubt_key("face at 41 %, 2 x 3 px")
    assert doubt_key("face at 40 %, 1.5 x 3 px") != doubt_key("person at 40 %, 1.5 x 3 px")


def test_a_doubt_that_somebody_stood_by_does_not_come_back_with_another_that_was_mended():
    first = doubt_key("face at 40 %; person of 3 px")
    assert doubt_key("person of 4 px", raised=first) == first
    assert doubt_key("person of 4 px; plate of 9 px", raised=first) != first
    assert doubt_key("person of 3 px; face at 40 %") == first
