"""Pictures are joined and objects pasted so that labels stay true."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("albumentations")

from anonymization.taxonomy import ClassSpec, Taxonomy
from data.coco import Annotation, Image
from training.config import AugmentationConfig
from training.pictures.companions import Companions
from training.pictures.mosaic import draw_tile_view, draw_tiles, join
from training.pictures.pasting import cut_out, draw_paste, paste
from training.pictures.samples import Sample, show
from training.pictures.tilting import draw_tilt, tilt

PERSON, FACE = 0, 1
WHITE, GRAY = 255, 100


def sample(
    boxes: list[list[int]],
    labels: list[int],
    *,
    size: tuple[int, int] = (60, 100),
    value: int = WHITE,
    labelled: tuple[bool, bool] = (True, True),
) -> Sample:
    """Rectangles: persons have masks, faces have boxes; one keypoint in the middle of each."""
    pixels = np.zeros((*size, 3), dtype=np.uint8)
    masks = []
    points = np.zeros((len(boxes), 17, 3), dtype=np.float32)
    for row, (x0, y0, x1, y1) in enumerate(boxes):
        pixels[y0:y1, x0:x1] = value
        mask = np.zeros(size, dtype=bool)
        mask[y0:y1, x0:x1] = True
        masks.append(mask if labels[row] == PERSON else None)
        points[row, 0] = ((x0 + x1) / 2, (y0 + y1) / 2, 2)
    return Sample(
        name="drawn.png",
        pixels=pixels,
        base_size=size,
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        labels=np.array(labels, dtype=np.int64),
        masks=tuple(masks),
        keypoints=points,
        ignored=np.zeros(len(boxes), dtype=bool),
        identifiable=np.ones(len(boxes), dtype=bool),
        labelled=np.array(labelled),
    )


@pytest.mark.parametrize("seed", range(5))
def test_a_mosaic_is_full_and_every_object_lies_on_its_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = (120, 200)
    parts = [sample([[20, 20, 70, 50]], [PERSON], value=60 * (n + 1)) for n in range(4)]
    tiles = draw_tiles(size, rng)
    views = [
        draw_tile_view(p, t, AugmentationConfig(), rng) for p, t in zip(parts, tiles, strict=True)
    ]
    shown = [show(p, v, visible_min=0.3) for p, v in zip(parts, views, strict=True)]

    joined = join(shown, tiles, size)

    filled = np.zeros(size, dtype=int)
    for x0, y0, x1, y1 in tiles:
        filled[y0:y1, x0:x1] += 1
    assert (filled == 1).all()
    assert len(joined.boxes) == sum(len(s.boxes) for s in shown) >= 3
    for row, mask in enumerate(joined.masks):
        assert mask is not None
        x0, y0, x1, y1 = joined.boxes[row].round().astype(int)
        assert mask[y0:y1, x0:x1].mean() > 0.9
        values = joined.pixels[mask][:, 0]
        assert np.median(values) in (60, 120, 180, 240)
        x, y, seen = joined.keypoints[row, 0]
        if seen:
            assert mask[int(y), int(x)]


def test_pictures_that_are_not_labelled_alike_are_never_joined() -> None:
    parts = [sample([], []), sample([], [], labelled=(True, False))] * 2
    with pytest.raises(ValueError, match="are not labelled alike"):
        join(parts, [(0, 0, 100, 60)] * 4, (120, 200))


def test_a_pasted_person_brings_its_face_and_leaves_the_neighbour() -> None:
    # The neighbour stands beside the person; both faces have boxes alone.
    donor = sample(
        [[10, 10, 30, 50], [15, 12, 25, 22], [40, 10, 60, 50], [45, 12, 55, 22]],
        [PERSON, FACE, PERSON, FACE],
    )

    found = cut_out(donor, 0, scale=0.5, mirrored=False, visible_min=0.3)

    assert found is not None
    cut, outline = found
    assert outline.shape == (20, 10)
    assert outline.all()
    assert cut.labels.tolist() == [PERSON, FACE]
    np.testing.assert_allclose(cut.boxes, [[0, 0, 10, 20], [2.5, 1, 7.5, 6]], atol=0.01)
    assert not cut.ignored.any()


def test_what_lies_below_is_cut_ignored_or_gone() -> None:
    below = sample(
        [[10, 10, 30, 30], [50, 10, 60, 20], [66, 10, 86, 20], [0, 40, 8, 50]],
        [PERSON, FACE, FACE, FACE],
        value=GRAY,
    )
    # 50 x 30 pixels put at (20, 5): over half of the person, the whole first face, a fifth of
    # the second one.
    donor = sample([[0, 0, 50, 30]], [PERSON])
    found = cut_out(donor, 0, scale=1.0, mirrored=False, visible_min=0.3)
    assert found is not None

    pasted = paste(below, *found, at=(20, 5), visible_min=0.3)

    assert pasted.labels.tolist() == [PERSON, FACE, FACE, PERSON]
    expected = [[10, 10, 20, 30], [66, 10, 86, 20], [0, 40, 8, 50], [20, 5, 70, 35]]
    assert pasted.boxes.tolist() == expected
    assert pasted.ignored.tolist() == [False] * 4
    left, above = pasted.masks[0], pasted.masks[3]
    assert left is not None
    assert above is not None
    assert int(left.sum()) == 200
    assert int(above.sum()) == 1500
    assert pasted.keypoints[0, 0, 2] == 0, "the middle of the person is hidden"
    assert pasted.keypoints[2, 0, 2] == 2
    assert pasted.pixels[20, 25, 0] == WHITE
    assert pasted.pixels[20, 15, 0] == GRAY
    assert below.pixels[20, 25, 0] == GRAY, "the picture in the cache stays"


def test_an_object_of_which_little_stays_visible_is_ignored() -> None:
    below = sample([[10, 10, 30, 30]], [PERSON])
    found = cut_out(sample([[0, 0, 16, 30]], [PERSON]), 0, scale=1, mirrored=False, visible_min=0.3)
    assert found is not None

    pasted = paste(below, *found, at=(14, 5), visible_min=0.3)

    assert pasted.boxes[0].tolist() == [10, 10, 14, 30]
    assert pasted.ignored.tolist() == [True, False]


def test_an_object_larger_than_the_picture_is_not_pasted() -> None:
    small = sample([], [], size=(20, 20))
    donor = sample([[10, 10, 60, 40]], [PERSON])
    options = {"mirrored": False, "visible_min": 0.3, "rng": np.random.default_rng(0)}

    assert draw_paste(small, donor, 0, scale=1.0, **options) is small  # type: ignore[arg-type]
    assert len(draw_paste(small, donor, 0, scale=0.3, **options).boxes) == 1  # type: ignore[arg-type]


TAXONOMY = Taxonomy(
    {
        "person": ClassSpec(geometry="mask", shape="outline", identifiable_px=8),
        "face": ClassSpec(geometry="ellipse", shape="ellipse", identifiable_px=8),
    }
)


def companions(*labelled: tuple[str, ...]) -> Companions:
    """Pictures with a person and a face each, labelled for these classes."""
    images = [
        Image(n, f"{n:064d}", f"{n}.png", 100, 60, labelled=names, partial=("person", "face"))
        for n, names in enumerate(labelled)
    ]
    square: list[list[float]] = [[0.0, 0.0, 9.0, 0.0, 9.0, 9.0, 0.0, 9.0]]
    objects = {
        n: (
            Annotation(2 * n, n, "face", (0, 0, 4, 4)),
            Annotation(2 * n + 1, n, "person", (0, 0, 9, 9), segmentation=square),
        )
        for n in range(len(images))
    }
    return Companions(
        images,
        objects,
        classes=("person", "face"),
        taxonomy=TAXONOMY,
        factors=np.ones(len(images)),
    )


BOTH, ONE, NONE = ("person", "face"), ("person",), ()


@pytest.mark.parametrize(
    ("receiver", "allowed", "reason"),
    [
        (0, {0, 1}, "its faces are labelled: a person with an unlabelled face would be background"),
        (2, {0, 1, 2, 3}, "labelled for persons: donors need no faces"),
        (4, {0, 1, 2, 3, 4}, "labelled for nothing: nothing becomes background"),
    ],
)
def test_an_object_goes_only_where_nothing_in_it_becomes_background(
    receiver: int, allowed: set[int], reason: str
) -> None:
    drawn = companions(BOTH, BOTH, ONE, ONE, NONE)
    rng = np.random.default_rng(0)

    donors = [drawn.draw_donor(receiver, rng) for _ in range(200)]

    assert {donor[0] for donor in donors if donor} == allowed, reason
    assert {donor[1] for donor in donors if donor} == {1}, "the outlined one"


def test_companions_of_a_mosaic_are_labelled_alike_and_drawn_once() -> None:
    drawn = companions(BOTH, ONE, BOTH, ONE, BOTH, BOTH, NONE)
    for seed in range(20):
        others = drawn.draw_alike(0, 3, np.random.default_rng(seed))
        assert sorted(others) == [2, 4, 5]
    assert drawn.number_alike(1) == 2


def test_nothing_is_pasted_where_no_picture_qualifies() -> None:
    bare = companions(NONE, BOTH)
    bare.outlines.pop(frozenset(BOTH))
    assert bare.draw_donor(1, np.random.default_rng(0)) is None


GEOMETRIES = ("mask", "ellipse")


def test_no_tilt_leaves_everything_where_it_was() -> None:
    before = sample([[10, 20, 50, 40], [60, 20, 80, 40]], [PERSON, FACE])
    after = tilt(before, np.eye(3), geometries=GEOMETRIES, visible_min=0.3)
    assert (after.pixels == before.pixels).all()
    np.testing.assert_allclose(after.boxes, before.boxes, atol=1e-4)
    np.testing.assert_allclose(after.keypoints, before.keypoints, atol=1e-4)


def test_a_quarter_turn_is_exact() -> None:
    # Of a square picture, about its middle: (x, y) goes to (y, 60 - x).
    before = sample([[10, 20, 50, 40], [0, 0, 10, 20]], [PERSON, FACE], size=(60, 60))
    quarter = np.array([[0.0, 1, 0], [-1, 0, 60], [0, 0, 1]])
    after = tilt(before, quarter, geometries=GEOMETRIES, visible_min=0.3)
    np.testing.assert_allclose(after.boxes, [[20, 10, 40, 50], [0, 50, 20, 60]], atol=1e-4)
    assert (after.pixels == np.rot90(before.pixels)).all()
    np.testing.assert_allclose(after.keypoints[0, 0], [30, 30, 2], atol=1e-4)


def test_a_turned_disc_keeps_its_box_and_a_turned_plate_does_not() -> None:
    before = sample([[40, 20, 60, 40]], [FACE])
    around = draw_tilt((60, 100), AugmentationConfig(rotation=0), np.random.default_rng(0))
    np.testing.assert_allclose(around, np.eye(3), atol=1e-6)
    turn = np.eye(3)
    angle = np.radians(10)
    turn[:2, :2] = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    turn[:2, 2] = np.array([50, 30]) - turn[:2, :2] @ [50, 30]
    disc = tilt(before, turn, geometries=("mask", "ellipse"), visible_min=0.3)
    plate = tilt(before, turn, geometries=("mask", "box"), visible_min=0.3)
    np.testing.assert_allclose(disc.boxes, before.boxes, atol=0.2)
    wide = 20 * (np.cos(angle) + np.sin(angle))
    assert plate.boxes[0, 2] - plate.boxes[0, 0] == pytest.approx(wide, abs=1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_any_tilt_keeps_picture_mask_and_box_together(seed: int) -> None:
    config = AugmentationConfig(rotation=8, perspective=0.05)
    before = sample([[20, 15, 70, 45]], [PERSON])
    matrix = draw_tilt(before.size, config, np.random.default_rng(seed))
    after = tilt(before, matrix, geometries=GEOMETRIES, visible_min=0.3)
    mask, bright = after.masks[0], after.pixels[..., 0] > 127
    assert mask is not None
    assert (mask & bright).sum() / (mask | bright).sum() > 0.99
    assert after.boxes[0, 0] == np.flatnonzero(mask.any(0))[0]
    assert (matrix != draw_tilt(before.size, config, np.random.default_rng(seed + 50))).any()


def test_what_is_turned_out_of_the_picture_is_gone_or_ignored() -> None:
    before = sample([[0, 0, 10, 10], [90, 50, 100, 60]], [FACE, PERSON])
    away = np.eye(3)
    away[0, 2] = -8
    after = tilt(before, away, geometries=("mask", "box"), visible_min=0.3)
    assert after.ignored.tolist() == [True, False]
    away[0, 2] = -10
    gone = tilt(before, away, geometries=("mask", "box"), visible_min=0.3)
    assert gone.labels.tolist() == [PERSON]


def test_a_crowd_stays_ignored_when_pasted_upon() -> None:
    crowd = replace(sample([[10, 10, 50, 50]], [FACE]), ignored=np.array([True]))
    found = cut_out(sample([[0, 0, 10, 10]], [PERSON]), 0, scale=1, mirrored=True, visible_min=0.3)
    assert found is not None
    pasted = paste(crowd, *found, at=(20, 20), visible_min=0.3)
    assert pasted.ignored.tolist() == [True, False]
