"""What another object hides already is not hidden again, and nothing else is left out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonymization.detection.finds import Detections
from anonymization.obscuring.obscure import obscure, obscured_mask, obscured_regions
from anonymization.obscuring.shapes import region
from anonymization.taxonomy import ClassSpec, Taxonomy

SIDE = 96
CAR = ClassSpec("mask", "outline", margin=0.02, strength=0.7)
PLATE = ClassSpec("box", "box", margin=0.0, strength=0.7)
STREET = Taxonomy({"car": CAR, "plate": PLATE})
WHOLE, INNER = [4, 4, 92, 92], [30, 40, 50, 50]


def left(finds: Detections, taxonomy: Taxonomy) -> list[int]:
    return [find.position for find, _ in obscured_regions(finds, taxonomy, SIDE, SIDE)]


def car_and_plate(mask: np.ndarray) -> Detections:
    masks = np.stack([mask, np.full((28, 28), np.nan)]).astype(np.float32)
    return Detections.from_boxes([WHOLE, INNER], class_ids=[0, 1], masks=masks)


def test_a_plate_inside_of_a_hidden_car_is_left_at_that() -> None:
    finds = car_and_plate(np.ones((28, 28)))
    assert left(finds, STREET) == [0]
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    done = obscure(pixels, finds, STREET, seed=0)
    alone = obscure(pixels, finds.select([0]), STREET, seed=0)
    np.testing.assert_array_equal(done, alone)
    assert (done[40:50, 30:50] != pixels[40:50, 30:50]).any(axis=2).mean() > 0.9


def test_a_plate_where_the_outline_has_a_hole_is_hidden() -> None:
    mask = np.ones((28, 28))
    mask[12:15, 9:12] = 0  # a part of the plate
    assert left(car_and_plate(mask), STREET) == [0, 1]


@pytest.mark.parametrize(
    "plate",
    [
        pytest.param(ClassSpec("box", "box", strength=10.0), id="coarser than the car"),
        pytest.param(ClassSpec("box", "box", method="solid"), id="painted over"),
        pytest.param(ClassSpec("box", "box", method="synthetic"), id="drawn anew"),
    ],
)
def test_what_must_be_hidden_more_strongly_is_hidden_again(plate: ClassSpec) -> None:
    finds = car_and_plate(np.ones((28, 28)))
    assert left(finds, Taxonomy({"car": CAR, "plate": plate})) == [0, 1]


def test_a_face_that_fades_out_of_the_car_is_hidden_again() -> None:
    face = ClassSpec("ellipse", "ellipse", margin=0.0, feather=2.0)  # 20 px, over the car's edge
    finds = Detections.from_boxes([WHOLE, [6, 40, 16, 50]], class_ids=[0, 1])
    assert left(finds, Taxonomy({"car": PLATE, "face": face})) == [0, 1]


def test_more_finds_than_are_asked_are_all_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anonymization.obscuring.obscure.HOLDERS_MAX", 1)
    apart = [[4.0, 60.0, 30.0, 90.0], [40, 60, 60, 80], [42, 62, 50, 70]]
    finds = Detections.from_boxes(apart, class_ids=[1, 1, 1])
    assert left(finds, STREET) == [0, 1, 2]


boxes = st.tuples(*[st.floats(-10, 90) for _ in "xy"], *[st.floats(1, 80) for _ in "wh"])


@given(st.lists(st.tuples(boxes, st.integers(0, 1), st.integers(0, 9)), min_size=1, max_size=12))
def test_the_hidden_pixels_are_those_of_every_find(
    rows: list[tuple[tuple[float, float, float, float], int, int]],
) -> None:
    corners = [[x, y, x + width, y + height] for (x, y, width, height), _, _ in rows]
    masks = np.stack([np.random.default_rng(seed).random((4, 4)) > 0.1 for *_, seed in rows])
    masks = masks.repeat(7, axis=1).repeat(7, axis=2).astype(np.float32)
    finds = Detections.from_boxes(corners, class_ids=[kind for _, kind, _ in rows], masks=masks)
    expected = np.zeros((SIDE, SIDE), bool)
    for index, (_, kind, _) in enumerate(rows):
        spec = STREET[STREET.names[kind]]
        where = region(finds, index, spec, height=SIDE, width=SIDE)
        if where.full.size:
            expected[where.slices] |= where.full
    np.testing.assert_array_equal(obscured_mask(finds, STREET, SIDE, SIDE), expected)
