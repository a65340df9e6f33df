"""What the street generator promises of its pictures and their truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from data.street import (
    Scene,
    StreetConfig,
    StreetError,
    draw_sequence,
    encode_scene,
    sequence_count,
    settings_digest,
    source_id,
)

CONFIG = StreetConfig(scenes=24, seed=7, width=256, height=160)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [s for i in range(sequence_count(CONFIG)) for s in draw_sequence(CONFIG, i)]


def same(a: Scene, b: Scene) -> bool:
    return np.array_equal(a.pixels, b.pixels) and len(a.objects) == len(b.objects) and all(
        np.array_equal(x.mask, y.mask) and x.keypoints == y.keypoints
        and x.attributes == y.attributes
        for x, y in zip(a.objects, b.objects, strict=True)
    )  # fmt: skip


def test_a_sequence_drawn_twice_is_the_same():
    first, second = draw_sequence(CONFIG, 3), draw_sequence(CONFIG, 3)
    assert all(same(a, b) for a, b in zip(first, second, strict=True))


def test_asking_for_more_scenes_changes_no_earlier_one():
    few = replace(CONFIG, scenes=3)
    more = replace(CONFIG, scenes=40)
    for index, count in ((0, 2), (1, 1)):
        drawn = draw_sequence(few, index)
        assert len(drawn) == count
        assert all(same(a, b) for a, b in zip(drawn, draw_sequence(more, index), strict=False))


def test_another_seed_draws_another_street():
    other = replace(CONFIG, seed=8)
    assert not np.array_equal(draw_sequence(CONFIG, 0)[0].pixels, draw_sequence(other, 0)[0].pixels)


@pytest.mark.parametrize("size", [(256, 160), (97, 131)])
def test_pictures_have_the_size_asked_for(size: tuple[int, int]):
    config = replace(CONFIG, width=size[0], height=size[1])
    for scene in draw_sequence(config, 0):
        assert scene.pixels.shape == (size[1], size[0], 3)
        assert scene.pixels.dtype == np.uint8
        assert all(o.mask.shape == (size[1], size[0]) for o in scene.objects)


def test_boxes_are_tight_around_visible_masks(scenes: list[Scene]):
    for item in (o for s in scenes for o in s.objects):
        rows, columns = np.nonzero(item.mask)
        tight = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert item.box_xyxy == tight


def test_objects_of_one_class_never_share_a_pixel(scenes: list[Scene]):
    for scene in scenes:
        for name in ("face", "person", "license_plate", "vehicle"):
            masks = [o.mask for o in scene.objects if o.class_name == name]
            assert not masks or np.sum(masks, axis=0).max() == 1


def test_faces_lie_inside_persons_and_plates_inside_vehicles(scenes: list[Scene]):
    for scene in scenes:
        for part, whole in (("face", "person"), ("license_plate", "vehicle")):
            owners = [o.mask for o in scene.objects if o.class_name == whole]
            for item in (o for o in scene.objects if o.class_name == part):
                assert any(not (item.mask & ~owner).any() for owner in owners)


def test_seen_keypoints_lie_on_their_person_and_inside_the_picture(scenes: list[Scene]):
    for scene in scenes:
        height, width = scene.pixels.shape[:2]
        for item in scene.objects:
            assert (item.keypoints is not None) == (item.class_name == "person")
            for x, y, visibility in item.keypoints or ():
                assert visibility in (0, 1, 2)
                assert (x, y) == (0, 0) if visibility == 0 else 0 <= x < width and 0 <= y < height
                assert visibility < 2 or item.mask[int(y), int(x)]


def test_all_classes_occur_and_some_scenes_have_nobody(scenes: list[Scene]):
    found = {o.class_name for s in scenes for o in s.objects}
    assert found == {"face", "person", "license_plate", "vehicle"}
    empty = draw_sequence(replace(CONFIG, empty_share=1.0, lookalikes=12.0), 0)
    assert all(not s.objects and s.attributes["empty"] for s in empty)


def test_mostly_hidden_objects_are_not_identifiable(scenes: list[Scene]):
    for item in (o for s in scenes for o in s.objects):
        assert 0 <= item.attributes["occluded"] <= 1
        if item.class_name in ("face", "license_plate") and item.attributes["occluded"] > 0.85:
            assert item.attributes["identifiable"] is False


def test_nobody_who_turns_the_back_has_a_face():
    config = replace(CONFIG, away_share=1.0, profile_share=0.0, near_vehicles=0.0, far_vehicles=0.0)
    objects = [o for i in range(4) for s in draw_sequence(config, i) for o in s.objects]
    assert {o.class_name for o in objects} == {"person"}


def test_night_is_darker_than_day():
    day = draw_sequence(replace(CONFIG, night_share=0.0), 1)[0]
    night = draw_sequence(replace(CONFIG, night_share=1.0), 1)[0]
    assert (day.attributes["daylight"], night.attributes["daylight"]) == ("day", "night")
    assert night.pixels.mean() < 0.8 * day.pixels.mean()


def test_the_source_id_follows_settings_but_not_the_scene_count():
    assert source_id(CONFIG) == source_id(replace(CONFIG, scenes=99))
    assert settings_digest(CONFIG) != settings_digest(replace(CONFIG, jpeg_quality=70))
    assert source_id(CONFIG).startswith("street-")
    assert len(source_id(CONFIG)) == len("street-") + 8


def test_scenes_are_encoded_as_jpeg(scenes: list[Scene]):
    assert encode_scene(scenes[0], CONFIG)[:2] == b"\xff\xd8"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"night_share": 1.5}, "night_share is 1.5; expected 0 to 1"),
        ({"jpeg_quality": 0}, "jpeg_quality is 0; expected 1 to 100"),
        ({"noise": float("nan")}, "noise is nan"),
        ({"profile_share": 0.6, "away_share": 0.6}, "add up to more than 1"),
    ],
)
def test_settings_out_of_range_are_named(changes: dict[str, float], message: str):
    with pytest.raises(StreetError, match=message):
        replace(CONFIG, **changes)


def test_a_sequence_that_does_not_exist_is_refused():
    with pytest.raises(StreetError, match="sequence 12 of 12"):
        draw_sequence(CONFIG, 12)
