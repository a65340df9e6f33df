"""Projections: directions of pixels, and what GPano metadata says of a picture."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonymization.panorama.gpano import choose_projection, gpano_values, projection_of
from anonymization.panorama.lens import FisheyeLens, ImageCircle
from anonymization.panorama.projection import (
    Equirectangular,
    Fisheye,
    Projection,
    ProjectionError,
    angles_of,
)

WHOLE = Equirectangular(2048, 1024, 2048, 1024)
PART = Equirectangular(3000, 1000, 8192, 4096, left=7000, top=1500)
LENS = Fisheye(1000, 900, 510.5, 440, 430, 200)


def xmp(**values: Any) -> bytes:
    listed = " ".join(f'GPano:{name}="{value}"' for name, value in values.items())
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description '
        f'xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" {listed}/></x:xmpmeta>'
    ).encode()


def cropped(**changes: Any) -> bytes:
    values = {
        "ProjectionType": "equirectangular",
        "FullPanoWidthPixels": 8000,
        "FullPanoHeightPixels": 4000,
        "CroppedAreaImageWidthPixels": 4000,
        "CroppedAreaImageHeightPixels": 1000,
        "CroppedAreaLeftPixels": 2000,
        "CroppedAreaTopPixels": 1500,
    }
    return xmp(**values | changes)


@settings(max_examples=60, deadline=None)
@given(x=st.floats(0, 1), y=st.floats(0, 1))
@pytest.mark.parametrize("projection", [WHOLE, PART, LENS], ids=["whole", "part", "fisheye"])
def test_a_pixel_comes_back_from_its_direction(projection: Projection, x: float, y: float) -> None:
    point = np.array([x * projection.width, y * projection.height])
    if isinstance(projection, Fisheye) and not projection.shows(point):
        return
    rays = projection.to_rays(point)
    assert np.linalg.norm(rays) == pytest.approx(1)
    back = projection.to_pixels(rays)
    at_pole = projection is WHOLE and min(point[1], 1024 - point[1]) < 1e-6
    assert back[1] == pytest.approx(point[1], abs=1e-4)
    if not at_pole:  # every column of a pole is the same direction
        turn = getattr(projection, "turn", None) or math.inf
        off = abs(back[0] - point[0])
        assert min(off, turn - off) < 1e-3


@settings(max_examples=60, deadline=None)
@given(
    longitude=st.floats(-math.pi, math.pi),
    from_pole=st.floats(0, 1e-3),
    up=st.sampled_from([1.0, -1.0]),
)
def test_directions_at_the_poles_have_finite_pixels(
    longitude: float, from_pole: float, up: float
) -> None:
    ray = [from_pole * math.sin(longitude), -up, from_pole * math.cos(longitude)]
    for kind in (np.float32, np.float64):
        x, y = WHOLE.to_pixels(np.array(ray, kind))
        assert 0 <= x <= 2048
        assert y == pytest.approx(0 if up > 0 else 1024, abs=0.5)


@pytest.mark.parametrize(
    ("ray", "pixel"),
    [
        ([0, 0, 1], [1024, 512]),
        ([1, 0, 0], [1536, 512]),
        ([-1, 0, 0], [512, 512]),
        ([0, -1, 1], [1024, 256]),
        ([0, 1, 0], [1024, 1024]),
    ],
)
def test_directions_lie_where_the_metadata_standard_puts_them(
    ray: list[float], pixel: list[float]
) -> None:
    np.testing.assert_allclose(WHOLE.to_pixels(np.array(ray, float)), pixel, atol=1e-6)


def test_a_fisheye_is_equidistant() -> None:
    lens = Fisheye(1000, 1000, 500, 500, 400, 180)
    edge, halfway = [1.0, 0, 0], [math.sin(math.pi / 4), 0, math.cos(math.pi / 4)]
    found = lens.to_pixels(np.array([[0, 0, 1.0], halfway, edge]))
    np.testing.assert_allclose(found, [[500, 500], [700, 500], [900, 500]], atol=1e-9)


def test_latitude_and_longitude_of_boxes() -> None:
    boxes = np.array([[1023, 511, 1025, 513], [2040, 0, 2056, 512], [0, 1000, 2, 1024]])
    found = angles_of(boxes, WHOLE)
    expected = [[0, 0], [-180, 45], [-179.82, -87.89]]
    np.testing.assert_allclose(found, expected, atol=0.01)
    # Column 7000 + 1000 of 8192, row 1500 + 548 of 4096.
    found = angles_of(np.array([[999, 547, 1001, 549]]), PART)
    np.testing.assert_allclose(found, [[171.5625, 0]], atol=1e-6)


@pytest.mark.parametrize(
    "values",
    [
        {"width": 0},
        {"full_height": -1.0},
        {"left": 9000.0},
        {"width": 9000},
        {"top": 3500.0},
        {"full_width": math.nan},
    ],
)
def test_an_impossible_part_of_a_panorama_is_refused(values: dict[str, Any]) -> None:
    usual = {"width": 4000, "height": 1000, "full_width": 8192.0, "full_height": 4096.0}
    with pytest.raises(ProjectionError, match="panorama"):
        Equirectangular(**usual | values)


def test_an_impossible_fisheye_is_refused() -> None:
    with pytest.raises(ProjectionError, match="fov_deg of the fisheye is 400"):
        Fisheye(100, 100, 50, 50, 50, 400)
    with pytest.raises(ProjectionError, match="radius_px"):
        Fisheye(100, 100, 50, 50, 0, 180)


def test_the_part_that_the_metadata_states_is_read() -> None:
    found = projection_of(cropped(), 4000, 1000)
    assert found == Equirectangular(4000, 1000, 8000, 4000, 2000, 1500)


def test_sizes_of_a_picture_that_was_resized_are_scaled() -> None:
    found = projection_of(cropped(), 2000, 500)
    assert found == Equirectangular(2000, 500, 4000, 2000, 1000, 750)


@pytest.mark.parametrize(
    "changes",
    [
        {"FullPanoWidthPixels": "many"},
        {"FullPanoWidthPixels": 0},
        {"FullPanoWidthPixels": -8000},
        {"FullPanoHeightPixels": "1e400"},
        {"FullPanoHeightPixels": "nan"},
        {"CroppedAreaTopPixels": 3900},
        {"CroppedAreaLeftPixels": 99999},
    ],
)
def test_sizes_that_make_no_sense_leave_a_whole_turn(changes: dict[str, Any]) -> None:
    found = projection_of(cropped(**changes), 4000, 1000)
    assert found == Equirectangular(4000, 1000, 4000, 2000, 0, 500)


def test_properties_as_elements_and_under_another_prefix_are_read() -> None:
    text = (
        "<rdf:Description xmlns:pano='http://ns.google.com/photos/1.0/panorama/'>"
        "<pano:ProjectionType>equirectangular</pano:ProjectionType>"
        "<pano:FullPanoWidthPixels> 4096 </pano:FullPanoWidthPixels>"
        "<other:FullPanoHeightPixels>1</other:FullPanoHeightPixels></rdf:Description>"
    )
    for encoding in ("utf-8", "utf-16", "utf-16-be", "utf-32"):
        assert gpano_values(text.encode(encoding)) == {
            "ProjectionType": "equirectangular",
            "FullPanoWidthPixels": "4096",
        }
    assert projection_of(text.encode(), 4096, 2048) == Equirectangular(4096, 2048, 4096, 2048)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00" * 50,
        b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><x>&b;</x>',
        b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><GPano:ProjectionType>&e;',
        b"GPano:ProjectionType" + b" " * 200_000 + b'="equirectangular"',
        b'GPano:ProjectionType="' + b"e" * 200_000,
        b"xmlns:" * 100_000,
        b"GPano:" * 100_000,
        xmp(ProjectionType="cylindrical"),
    ],
)
def test_hostile_or_foreign_metadata_states_no_panorama(content: bytes) -> None:
    assert projection_of(content, 4096, 2048) is None


@settings(max_examples=60, deadline=None)
@given(
    content=st.binary(max_size=400),
    values=st.dictionaries(
        st.sampled_from(
            [
                "FullPanoWidthPixels",
                "FullPanoHeightPixels",
                "CroppedAreaLeftPixels",
                "CroppedAreaImageWidthPixels",
            ]
        ),
        st.text(max_size=12),
    ),
    width=st.integers(1, 20000),
    height=st.integers(1, 20000),
)
def test_no_metadata_makes_reading_it_fail(
    content: bytes, values: dict[str, str], width: int, height: int
) -> None:
    made = xmp(ProjectionType="equirectangular", **values)
    found = projection_of(made + content, width, height)
    assert isinstance(found, Equirectangular)
    assert (found.width, found.height) == (width, height)
    projection_of(content, width, height)


def test_what_was_asked_for_decides_and_guesses_are_warned_of() -> None:
    whole = Equirectangular(4096, 2048, 4096, 2048)
    assert (
        choose_projection(None, xmp(ProjectionType="equirectangular"), 4096, 2048).warning is None
    )
    assert choose_projection("perspective", cropped(), 4000, 1000).projection is None
    assert choose_projection("equirectangular", b"", 4096, 2048).projection == whole
    assert choose_projection("equirectangular", cropped(), 4000, 1000).projection == (
        projection_of(cropped(), 4000, 1000)
    )
    guessed = choose_projection("auto", b"", 4096, 2048)
    assert guessed.projection == whole
    assert "is taken for a whole panorama" in str(guessed.warning)
    unasked = choose_projection(None, b"", 4096, 2048)
    assert unasked.projection is None
    assert "Ask for equirectangular if it is one" in str(unasked.warning)
    flat = choose_projection("auto", b"", 4000, 3000)
    assert (flat.projection, flat.warning) == (None, None)
    foreign = choose_projection(None, xmp(ProjectionType="cylindrical"), 4000, 3000)
    assert foreign.projection is None
    assert "'cylindrical' is not handled" in str(foreign.warning)


def test_what_cannot_be_a_panorama_is_refused_when_asked_for() -> None:
    with pytest.raises(ProjectionError, match="taller than half its width"):
        choose_projection("equirectangular", b"", 4000, 3000)
    with pytest.raises(ProjectionError, match="expected one of perspective, equirectangular, auto"):
        choose_projection("cube", b"", 4000, 3000)


def test_a_lens_of_which_no_circle_is_said_shows_all_of_the_picture() -> None:
    """Whoever knows of the angle alone must not have parts of pictures passed over."""
    found = FisheyeLens.of(170).of_size(400, 300)
    assert found == Fisheye(400, 300, 200, 150, 250, 170)
    corners = np.array([[0.0, 0], [400, 0], [0, 300], [400, 300]])
    assert found.shows(corners).all()
    assert choose_projection("fisheye", b"", 400, 300).projection == FisheyeLens().of_size(400, 300)


def test_the_circle_of_a_lens_is_inscribed_or_stated_for_pictures_of_a_size() -> None:
    assert FisheyeLens.of(190, "inscribed").of_size(400, 300) == Fisheye(
        400, 300, 200, 150, 150, 190
    )
    stated = FisheyeLens.of(190, "652,470.5,620@1280x960")
    assert stated.circle == ImageCircle(652, 470.5, 620, 1280, 960)
    assert stated.of_size(1280, 960) == Fisheye(1280, 960, 652, 470.5, 620, 190)
    assert stated.of_size(640, 480) == Fisheye(640, 480, 326, 235.25, 310, 190)
    assert FisheyeLens.of(190, str(stated.circle)) == stated


@pytest.mark.parametrize(
    ("fov", "circle", "message"),
    [
        (400, None, "field of view is 400; expected 60 to 360 degrees"),
        (30, None, "field of view is 30"),
        (math.nan, None, "field of view is nan"),
        (190, "round", "image circle is 'round'; expected diagonal, inscribed, or its centre"),
        (190, "652,470,620", "as 960,540,820@1920x1080"),
        (190, "652,470,620@0x966", "of pictures of 0x966"),
        (190, "1652,470,620@1280x966", r"centre \(1652, 470\) lies outside"),
        (190, "652,470,62@1280x966", "radius is 62; expected one from 241.5 to 1604"),
        (190, "652,470,6200@1280x966", "radius is 6200"),
    ],
)
def test_what_is_no_lens_is_refused(fov: float, circle: str | None, message: str) -> None:
    with pytest.raises(ProjectionError, match=message):
        FisheyeLens.of(fov, circle)


def test_a_picture_that_a_lens_cannot_have_made_is_refused() -> None:
    """Outside of a circle in the wrong place nobody would be found."""
    lens = FisheyeLens.of(190, "652,470,620@1280x966")
    with pytest.raises(ProjectionError, match="1280x966, which does not fit a picture of 966x1280"):
        choose_projection(lens, b"", 966, 1280)
    for asked in (lens, "fisheye"):
        with pytest.raises(ProjectionError, match="state an equirectangular panorama"):
            choose_projection(asked, cropped(), 4000, 3019)


def test_metadata_that_state_a_fisheye_ask_for_its_lens() -> None:
    chosen = choose_projection(None, xmp(ProjectionType="fisheye"), 400, 300)
    assert chosen.projection is None
    assert "Ask for fisheye" in str(chosen.warning)
