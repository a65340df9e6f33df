"""The painter: what is drawn is what is owned."""

from __future__ import annotations

import numpy as np

from data.street.canvas import Canvas
from data.street.plate import plate_texture
from data.street.scene import canvas_to_objects


def square(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=float)


def test_an_object_alone_changes_exactly_the_pixels_it_owns():
    canvas = Canvas(60, 40)
    owner = canvas.begin("person")
    canvas.ellipse((30.3, 20.7), (11.2, 8.9), (255, 0, 0), owner)
    canvas.limb(((30, 20), (55, 39)), (4, 2), (0, 255, 0), owner)
    assert np.array_equal(canvas.pixels.any(axis=2), canvas.owners == owner)


def test_a_pasted_plate_changes_exactly_the_pixels_it_owns():
    from data.street.plate import draw_plate

    canvas = Canvas(60, 40)
    owner = canvas.begin("license_plate")
    corners = np.array([[10.0, 10], [40, 14], [38, 26], [12, 20]])
    texture = plate_texture(draw_plate(np.random.default_rng(0)))
    canvas.paste(texture, corners, owner)
    assert np.array_equal(canvas.pixels.any(axis=2), canvas.owners == owner)


def test_half_of_a_square_behind_another_is_half_occluded():
    canvas = Canvas(40, 40)
    far = canvas.begin("vehicle")
    canvas.fill(square(10, 10, 30, 30), (200, 0, 0), far)
    canvas.complete(far)
    near = canvas.begin("vehicle")
    canvas.fill(square(20, 5, 38, 35), (0, 200, 0), near)
    canvas.complete(near)
    hidden, seen = canvas_to_objects(canvas)
    assert abs(hidden.attributes["occluded"] - 0.5) < 0.06
    assert seen.attributes["occluded"] == 0
    assert not (hidden.mask & seen.mask).any()


def test_what_the_background_paints_over_an_object_is_lost_to_it():
    canvas = Canvas(40, 40)
    owner = canvas.begin("vehicle")
    canvas.fill(square(10, 10, 30, 30), (200, 0, 0), owner)
    canvas.complete(owner)
    canvas.fill(square(0, 0, 40, 26), (0, 0, 200))
    (item,) = canvas_to_objects(canvas)
    assert item.box_xyxy[1] >= 26
    assert item.attributes["identifiable"] is False


def test_an_object_of_two_pixels_carries_no_label():
    canvas = Canvas(40, 40)
    owner = canvas.begin("face")
    canvas.fill(square(10, 10, 12, 11), (200, 0, 0), owner)
    canvas.complete(owner)
    assert canvas_to_objects(canvas) == ()
