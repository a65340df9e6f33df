"""What is blurred and overlaps is blurred as one: no edge inside, nothing hidden less."""

import numpy as np
import pytest

from anonymization.detection.finds import Detections
from anonymization.obscuring.groups import together
from anonymization.obscuring.obscure import obscure, obscured_mask, obscured_regions
from anonymization.taxonomy import ClassSpec, Taxonomy

SIDE = 200
BLURRED = ClassSpec("box", "box", margin=0.0)
MOSAIC = ClassSpec("box", "box", "pixelate", margin=0.0)
FACE = ClassSpec("ellipse", "ellipse", margin=0.1, feather=0.2)
CAR = ClassSpec("mask", "outline", margin=0.05)
STREET = Taxonomy({"box": BLURRED, "mosaic": MOSAIC, "face": FACE, "car": CAR})


def finds(*rows: tuple[list[float], int]) -> Detections:
    return Detections.from_boxes([box for box, _ in rows], class_ids=[kind for _, kind in rows])


def grouped(found: Detections) -> list[int]:
    regions = obscured_regions(found, STREET, SIDE, SIDE)
    return [len(group.regions) for group in together(regions)]


def test_finds_that_overlap_get_one_blur_in_the_coarsest_cells() -> None:
    found = finds(([20, 20, 120, 120], 0), ([80, 60, 160, 110], 0))
    (group,) = together(obscured_regions(found, STREET, SIDE, SIDE))
    assert (group.x0, group.y0, group.x1, group.y1) == (20, 20, 160, 120)
    assert group.cell == pytest.approx(35)
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    done = obscure(pixels, found, STREET, seed=4)
    whole = obscure(pixels[20:120, 20:160], finds(([0, 0, 140, 100], 0)), STREET, seed=4)
    hidden = obscured_mask(found, STREET, SIDE, SIDE)[20:120, 20:160]
    np.testing.assert_array_equal(done[20:120, 20:160][hidden], whole[hidden])


def test_what_lies_apart_or_would_take_in_too_much_stays_apart() -> None:
    assert grouped(finds(([10, 10, 40, 40], 0), ([60, 10, 90, 40], 0))) == [1, 1]
    thin = finds(
        ([0, 90, 200, 100], 0), ([95, 0, 105, 200], 0)
    )  # a cross fills a fifth of 200 x 200
    assert grouped(thin) == [1, 1]


def test_a_mosaic_keeps_its_edges() -> None:
    assert grouped(finds(([20, 20, 120, 120], 1), ([80, 60, 160, 110], 1))) == [1, 1]
    assert sorted(grouped(finds(([20, 20, 120, 120], 0), ([80, 60, 160, 110], 1)))) == [1, 1]


def test_in_a_crowd_only_so_many_groups_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anonymization.obscuring.groups.GROUPS_MAX", 1)
    rows = [([10.0, 10, 60, 60], 0), ([100.0, 100, 140, 140], 0), ([110.0, 110, 148, 148], 0)]
    assert grouped(finds(*rows)) == [1, 1, 1]


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_grouping_hides_every_pixel_that_is_to_be_hidden_and_no_other(kind: type) -> None:
    random = np.random.default_rng(7)
    for _ in range(40):
        count = int(random.integers(2, 9))
        corners = random.uniform(-20, 170, (count, 2))
        boxes = np.hstack([corners, corners + random.uniform(4, 90, (count, 2))])
        masks = (random.random((count, 4, 4)) > 0.2).repeat(7, axis=1).repeat(7, axis=2)
        found = Detections.from_boxes(
            boxes, class_ids=random.integers(0, 4, count), masks=masks.astype(np.float32)
        )
        pixels = random.integers(0, 65536, (SIDE, SIDE, 3)).astype(kind)
        regions: list = []
        done = obscure(pixels, found, STREET, regions=regions)
        changed = (done != pixels).any(axis=2)
        assert changed[obscured_mask(found, STREET, SIDE, SIDE)].all()
        touched = np.zeros((SIDE, SIDE), bool)
        for where in regions:
            touched[where.slices] |= where.touched
        assert not (changed & ~touched).any()
