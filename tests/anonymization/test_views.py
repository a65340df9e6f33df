"""Panoramas and big pictures: every object is found once, wherever it lies, and hidden whole."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from anonymization.anonymizer import Anonymizer
from anonymization.card import Card, GraphCard, GraphInput, TilingCard
from anonymization.detection.applying import apply_card, merge_heads
from anonymization.detection.detector import Detector
from anonymization.detection.finds import Detections, ShapeError
from anonymization.detection.networks import Networks
from anonymization.obscuring.obscure import obscured_mask
from anonymization.panorama.layout import sphere_grid, views_of
from anonymization.panorama.lens import FisheyeLens
from anonymization.panorama.presets import PRESETS, PresetError, preset_for
from anonymization.panorama.projection import Equirectangular, Fisheye, Projection, ProjectionError
from anonymization.panorama.views import Pyramid, Reprojection, Tile
from anonymization.panorama.wrapping import beside_their_faces, wrapped_copies
from anonymization.pipeline import Cores, StoppedError
from anonymization.taxonomy import ClassSpec, Taxonomy

LONG_SIDE = 128
FACE, PERSON, PLATE = 0, 1, 2
COLOURS = {FACE: (230, 20, 20), PERSON: (20, 230, 20), PLATE: (20, 20, 230)}
TAXONOMY = Taxonomy(
    {
        "face": ClassSpec("ellipse", "ellipse", margin=0.1),
        "person": ClassSpec("mask", "outline", margin=0.1),
        "license_plate": ClassSpec("box", "box", margin=0.1),
    },
    keypoint_class="person",
    head_class="face",
)
TILES = TilingCard(shrink_max=1.0)
Pixels = NDArray[np.uint8]
Bools = NDArray[np.bool_]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """OpenCV's threads wait for each other on a busy machine; the views are small."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(threads)


class Painted:
    """A network that finds every connected region of red, green or blue that it sees.

    It draws the masks that it is asked for, as exported graphs do.
    """

    def __init__(self, score: float = 0.9, skip_whole: bool = False) -> None:
        self.score = score
        self.skip_whole = skip_whole
        self.views = 0

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        self.views += 1
        image = feeds["image"][0]
        boxes, labels, masks = [], [], []
        # Whole pictures of these tests are wider than high, tiles and reprojections are square.
        if not (self.skip_whole and image.shape[1] != image.shape[2]):
            for label in COLOURS:
                others = np.delete(image, label, axis=0).max(axis=0)
                seen = (image[label] - others > 0.35).astype(np.uint8)
                count, numbers, stats, _ = cv2.connectedComponentsWithStats(seen)
                for i in range(1, count):
                    x, y, w, h, area = stats[i]
                    if area < 6:
                        continue
                    own = (numbers[y : y + h, x : x + w] == i).astype(np.float32)
                    how = cv2.INTER_AREA if min(w, h) >= 28 else cv2.INTER_LINEAR
                    masks.append(cv2.resize(own, (28, 28), interpolation=how))
                    boxes.append([x, y, x + w, y + h])
                    labels.append(label)
        n = len(boxes)
        drawn = [mask for mask, label in zip(masks, labels, strict=True) if feeds["draw"][label]]
        return {
            "boxes": np.array(boxes, np.float32).reshape(n, 4),
            "scores": np.full(n, self.score, np.float32),
            "labels": np.array(labels, np.int64),
            "masks": np.array(drawn, np.float32).reshape(-1, 28, 28),
        }


def detector(**options: Any) -> Detector:
    graph = GraphCard("mask_rcnn.onnx", "", GraphInput(LONG_SIDE), TAXONOMY.names)
    thresholds = dict.fromkeys(TAXONOMY.names, 0.5)
    card = Card(TAXONOMY, thresholds, {"mask_rcnn": graph}, **options.pop("card", {}))
    return Detector(card, {"mask_rcnn": Painted(**options)})


def gray(width: int, height: int) -> Pixels:
    return np.full((height, width, 3), 110, np.uint8)


def around(projection: Projection, longitude: float, latitude: float, radius: float) -> Bools:
    """Pixels within an angle of a direction, all in degrees."""
    rows, columns = np.mgrid[0 : projection.height, 0 : projection.width] + 0.5
    points = np.stack([columns, rows], axis=-1)
    rays = projection.to_rays(points)
    lon, lat = math.radians(longitude), math.radians(latitude)
    ahead = [math.cos(lat) * math.sin(lon), -math.sin(lat), math.cos(lat) * math.cos(lon)]
    near = rays @ np.array(ahead) >= math.cos(math.radians(radius))
    return np.asarray(near & projection.shows(points))


def ellipse_in(x0: int, y0: int, x1: int, y1: int, shape: tuple[int, ...]) -> Bools:
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]] + 0.5
    across, down = (columns * 2 - x0 - x1) / (x1 - x0), (rows * 2 - y0 - y1) / (y1 - y0)
    return np.asarray(across**2 + down**2 <= 1)


def paint(pixels: Pixels, where: Bools, label: int) -> None:
    pixels[where] = COLOURS[label]


def hidden(found: Detections, width: int, height: int, turn: float | None = None) -> Bools:
    drawn = wrapped_copies(found, width, turn=turn) if turn is not None else found
    return np.asarray(obscured_mask(drawn, TAXONOMY, height, width))


def found_and_hidden(pixels: Pixels, where: Bools, projection: Projection, **options: Any) -> None:
    """Assert that one object is one find and covered."""
    found = detector(**options).detect(pixels, projection=projection)
    turn = projection.turn if isinstance(projection, Equirectangular) else None
    assert len(found) == 1, found.boxes_xyxy
    covered = hidden(found, projection.width, projection.height, turn)
    assert covered[where].mean() >= 0.99


PANO = Equirectangular(1024, 512, 1024, 512)
PLACES = [
    pytest.param(0, 0, id="ahead"),
    pytest.param(180, 0, id="on the seam"),
    pytest.param(176, -35, id="just before the seam"),
    pytest.param(-178, 40, id="just after the seam"),
    pytest.param(0, 90, id="over the upper pole"),
    pytest.param(0, -90, id="over the lower pole"),
    pytest.param(100, 84, id="beside the upper pole, over it by its edge"),
    pytest.param(-130, -75, id="near the lower pole"),
    pytest.param(180, -80, id="near the lower pole on the seam"),
    pytest.param(22.5, 22.5, id="between views"),
    pytest.param(45, -45, id="in the corner of a cube's face"),
]


@pytest.mark.parametrize("label", [FACE, PERSON, PLATE])
@pytest.mark.parametrize(("longitude", "latitude"), PLACES)
def test_an_object_anywhere_in_a_panorama_is_one_find_and_hidden(
    longitude: float, latitude: float, label: int
) -> None:
    pixels = gray(1024, 512)
    where = around(PANO, longitude, latitude, 6)
    paint(pixels, where, label)
    found_and_hidden(pixels, where, PANO)


@pytest.mark.parametrize("radius", [2, 12, 25, 40])
@pytest.mark.parametrize(("longitude", "latitude"), [(180, 0), (10, 20), (90, -60), (0, 90)])
def test_small_and_very_large_objects_are_one_find(
    longitude: float, latitude: float, radius: float
) -> None:
    pixels = gray(1024, 512)
    where = around(PANO, longitude, latitude, radius)
    paint(pixels, where, PERSON)
    found_and_hidden(pixels, where, PANO)


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    longitude=st.floats(-180, 180),
    latitude=st.floats(-90, 90),
    radius=st.floats(4, 20),
    label=st.sampled_from([FACE, PERSON, PLATE]),
)
def test_a_disc_at_random_is_one_find_and_hidden(
    longitude: float, latitude: float, radius: float, label: int
) -> None:
    pixels = gray(512, 256)
    pano = Equirectangular(512, 256, 512, 256)
    where = around(pano, longitude, latitude, radius)
    paint(pixels, where, label)
    found_and_hidden(pixels, where, pano)


@pytest.mark.parametrize("label", [FACE, PERSON, PLATE])
@pytest.mark.parametrize("radius", [1.5, 3])
@pytest.mark.parametrize(("longitude", "latitude"), [(0, 86), (123, 86), (0, -86), (123, 83)])
def test_every_pixel_of_a_small_object_near_a_pole_is_hidden(
    longitude: float, latitude: float, radius: float, label: int
) -> None:
    # At 86 degrees a pixel of a view is 14 columns wide, and the margin of a row or two less.
    pano = Equirectangular(512, 256, 512, 256)
    pixels = gray(512, 256)
    where = around(pano, longitude, latitude, radius)
    paint(pixels, where, label)
    found = detector().detect(pixels, projection=pano)
    assert len(found) == 1, found.boxes_xyxy
    assert hidden(found, 512, 256, 512)[where].all()


def test_a_picture_that_needs_tiles_is_looked_at_as_finely_as_tiles_are() -> None:
    tiling = TilingCard(shrink_max=3.0, tile_shrink=1.5)

    def sides(width: int, height: int) -> list[int]:
        views = views_of(width, height, projection=None, tiling=tiling, long_side=LONG_SIDE)
        return sorted({max(view.width, view.height) for view in views})

    assert sides(3 * LONG_SIDE, LONG_SIDE) == [3 * LONG_SIDE]
    assert sides(3 * LONG_SIDE + 1, LONG_SIDE) == [192, 385]
    assert sides(2000, 1500) == [192, 480, 1200, 2000]
    plain = TilingCard(shrink_max=1.5)
    assert views_of(2000, 1500, projection=None, tiling=tiling, long_side=LONG_SIDE) == views_of(
        2000, 1500, projection=None, tiling=plain, long_side=LONG_SIDE
    )


def test_a_preset_for_wider_panoramas_never_looks_more_coarsely_than_auto() -> None:
    for width in (1000, 2048, 4096, 6000, 8192, 16384, 30000):
        auto = preset_for(width)
        for name, preset in PRESETS.items():
            taken = preset_for(width, name)
            seen = min(width, taken.width) / taken.shrink
            if preset.width > width:
                assert seen >= min(width, auto.width) / auto.shrink
            else:
                assert taken is preset


def test_an_object_over_a_pole_takes_hardly_more_rows_than_it_has() -> None:
    pixels = gray(1024, 512)
    where = around(PANO, 0, -90, 20)
    paint(pixels, where, FACE)
    covered = hidden(detector().detect(pixels, projection=PANO), 1024, 512, 1024)
    assert covered[where].all()
    # 57 rows from the pole to 20 degrees, a margin of a tenth of both halves, and the ellipse.
    assert not covered[: 512 - 57 - 12 - 8].any()


def test_neighbours_stay_apart() -> None:
    pixels = gray(1024, 512)
    for longitude in (-180, -160, 60, 80, 100):
        paint(pixels, around(PANO, longitude, 10, 6), FACE)
    found = detector().detect(pixels, projection=PANO)
    middles = np.sort((found.boxes_xyxy[:, 0] + found.boxes_xyxy[:, 2]) / 2)
    np.testing.assert_allclose(middles, [512 / 9, 6144 / 9, 6656 / 9, 7168 / 9, 1024], atol=1)


def test_an_object_across_the_seam_ends_beyond_the_width() -> None:
    pixels = gray(1024, 512)
    paint(pixels, around(PANO, 180, 0, 6), FACE)
    found = detector().detect(pixels, projection="equirectangular")
    x0, _, x1, _ = found.boxes_xyxy[0]
    assert x0 == pytest.approx(1024 - 6 / 360 * 1024, abs=2)
    assert x1 == pytest.approx(1024 + 6 / 360 * 1024, abs=2)


def test_a_rectangle_across_the_seam_is_hidden_on_both_sides() -> None:
    pixels = gray(1024, 512)
    where = np.zeros((512, 1024), bool)
    where[240:290, -30:] = where[240:290, :50] = True
    paint(pixels, where, PLATE)
    found_and_hidden(pixels, where, PANO)


@pytest.mark.parametrize("left", [0, 300, 900])
def test_a_part_of_a_panorama_is_looked_at_as_what_it_is(left: int) -> None:
    part = Equirectangular(600, 200, 1024, 512, left=left, top=100)
    pixels = gray(600, 200)
    where = np.zeros((200, 600), bool)
    where[80:120, 290:330] = True
    paint(pixels, where, PERSON)
    found_and_hidden(pixels, where, part)


def test_both_ends_of_a_part_of_nearly_a_turn_are_hidden() -> None:
    # 24 columns are missing, an object lies to both sides of them.
    part = Equirectangular(1000, 512, 1024, 512, left=12, top=0)
    pixels = gray(1000, 512)
    where = np.zeros((512, 1000), bool)
    where[230:280, :30] = where[230:280, -30:] = True
    paint(pixels, where, PERSON)
    found = detector().detect(pixels, projection=part)
    assert hidden(found, 1000, 512, 1024)[where].mean() >= 0.99


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(angle=st.floats(0, 80), turned=st.floats(0, 360), label=st.sampled_from([FACE, PLATE]))
def test_an_object_in_a_fisheye_picture_is_one_find_and_hidden(
    angle: float, turned: float, label: int
) -> None:
    lens = Fisheye(400, 360, 200.5, 180, 175, 190)
    up, right = math.sin(math.radians(turned)), math.cos(math.radians(turned))
    ray = np.array(
        [
            math.sin(math.radians(angle)) * right,
            -math.sin(math.radians(angle)) * up,
            math.cos(math.radians(angle)),
        ]
    )
    longitude = math.degrees(math.atan2(ray[0], ray[2]))
    latitude = math.degrees(math.asin(-ray[1]))
    pixels = gray(400, 360)
    where = around(lens, longitude, latitude, 8)
    paint(pixels, where, label)
    found_and_hidden(pixels, where, lens)


def through(lens: Fisheye, photo: Pixels, yaw: float, pitch: float, fov: float) -> Pixels:
    """Render a photograph that hangs around the camera, all in degrees; gray where it is not."""
    rows, columns = np.mgrid[0 : lens.height, 0 : lens.width] + 0.5
    shape = (lens, math.radians(yaw), math.radians(pitch), math.radians(fov), len(photo))
    points = Reprojection(*shape).to_view(np.stack([columns, rows], axis=-1))
    seen = np.isfinite(points[..., 0])
    across, down = (np.nan_to_num(points[..., i]).astype(np.float32) - 0.5 for i in (0, 1))
    found = cv2.remap(photo, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.where(seen[..., None], found, gray(lens.width, lens.height))


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    angle=st.floats(0, 75),
    turned=st.floats(0, 360),
    label=st.sampled_from([FACE, PERSON, PLATE]),
    asked=st.sampled_from(["200,180,175@400x360", "206,175,190@400x360", "inscribed", "diagonal"]),
    fov=st.sampled_from([170, 190, 210]),
)
def test_a_photographed_object_is_hidden_also_through_a_lens_that_is_not_quite_the_cameras(
    angle: float, turned: float, label: int, asked: str, fov: float
) -> None:
    """An operator may know the lens by its data sheet alone."""
    lens = Fisheye(400, 360, 200, 180, 175, 190)
    across = math.sin(math.radians(angle)) * math.cos(math.radians(turned))
    down = math.sin(math.radians(angle)) * math.sin(math.radians(turned))
    yaw = math.degrees(math.atan2(across, math.cos(math.radians(angle))))
    photo = gray(200, 200)
    paint(photo, ellipse_in(70, 60, 130, 140, photo.shape[:2]), label)
    pixels = through(lens, photo, yaw, -math.degrees(math.asin(down)), 40)
    where = (pixels != gray(400, 360)).any(axis=-1)
    tool = Anonymizer(detector(skip_whole=True), TAXONOMY, projection=FisheyeLens.of(fov, asked))
    view = tool.view(b"", 400, 360)
    decided = tool.decide(
        tool.detect(pixels, view=view), name="a", width=400, height=360, view=view
    )
    assert hidden(decided.hidden, 400, 360)[where].mean() >= 0.97


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    x=st.integers(0, 630),
    y=st.integers(0, 430),
    width=st.integers(8, 400),
    height=st.integers(8, 300),
    label=st.sampled_from([FACE, PERSON, PLATE]),
)
def test_an_object_anywhere_in_tiles_is_one_find_and_hidden(
    x: int, y: int, width: int, height: int, label: int
) -> None:
    pixels, where = gray(640, 440), np.zeros((440, 640), bool)
    where[y : y + height, x : x + width] = True
    if label == FACE:  # the ellipse in the part of the box that the picture shows
        where &= ellipse_in(x, y, min(x + width, 640), min(y + height, 440), where.shape)
    paint(pixels, where, label)
    found = detector(card={"tiling": TILES}).detect(pixels)
    assert len(found) == 1, found.boxes_xyxy
    assert hidden(found, 640, 440)[where].mean() >= 0.99


@pytest.mark.parametrize("label", [FACE, PERSON, PLATE])
def test_pieces_of_an_object_that_no_view_sees_whole_become_one(label: int) -> None:
    pixels, where = gray(640, 440), np.zeros((440, 640), np.uint8)
    cv2.ellipse(where, (320, 220), (250, 40), 0, 0, 360, 1, -1)
    paint(pixels, where > 0, label)
    found = detector(skip_whole=True, card={"tiling": TILES}).detect(pixels)
    covering = found.boxes_xyxy[:, 2] - found.boxes_xyxy[:, 0]
    assert len(found) == 1
    assert covering[0] == pytest.approx(500, abs=8)
    assert hidden(found, 640, 440)[where > 0].mean() >= 0.99


def test_small_objects_are_seen_at_the_resolution_that_the_card_asks_for() -> None:
    pixels = gray(1600, 1000)
    for x in range(40, 1600, 160):
        pixels[500:504, x : x + 4] = COLOURS[FACE]
    assert not len(detector().detect(pixels))
    assert len(detector(card={"tiling": TILES}).detect(pixels)) == 10
    assert len(detector().detect(pixels, tiling=TILES)) == 10


def test_without_tiling_the_whole_picture_is_the_only_view() -> None:
    plain = detector()
    plain.detect(gray(3000, 2000))
    assert [(v.width, v.height) for v in plain.views(3000, 2000)] == [(3000, 2000)]
    assert plain.views(100, 100, tiling=TILES) == (Tile(0, 0, 100, 100, 100, 100),)


def test_what_ships_is_what_is_judged() -> None:
    class Unsure(Painted):
        """Scores that differ from view to view, some below the threshold."""

        def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
            outputs = super().run(feeds)
            spread = np.random.default_rng(self.views).uniform(0.2, 0.9, len(outputs["scores"]))
            spread[outputs["labels"] == PLATE] = 0.3
            return outputs | {"scores": spread.astype(np.float32)}

    pixels = gray(640, 440)
    for i in range(12):
        x, y = 50 * i, 33 * i
        pixels[y : y + 60, x : x + 40] = COLOURS[PERSON]
        pixels[y : y + 20, x : x + 14] = COLOURS[FACE]
        pixels[y + 70 : y + 76, x : x + 20] = COLOURS[PLATE]
    card = detector(card={"tiling": TILES}).card
    shipped = Detector(card, {"mask_rcnn": Unsure()}).detect(pixels)
    raw = Detector(card, {"mask_rcnn": Unsure()}).detect(pixels, score_min=0.01)
    judged = apply_card(raw, card)
    assert len(raw) > len(judged)
    np.testing.assert_array_equal(shipped.boxes_xyxy, judged.boxes_xyxy)
    np.testing.assert_array_equal(shipped.masks, judged.masks)
    np.testing.assert_array_equal(shipped.scores, judged.scores)


@settings(max_examples=30, deadline=None)
@given(
    fov=st.floats(15, 90),
    overlap=st.floats(0.05, 0.6),
    longitude=st.floats(-math.pi, math.pi),
    latitude=st.floats(-math.pi / 2, math.pi / 2),
)
def test_every_direction_lies_in_the_core_of_a_view(
    fov: float, overlap: float, longitude: float, latitude: float
) -> None:
    ray = np.array(
        [
            math.cos(latitude) * math.sin(longitude),
            -math.sin(latitude),
            math.cos(latitude) * math.cos(longitude),
        ]
    )
    angle = math.radians(fov)
    offsets = [
        np.abs(Reprojection(PANO, yaw, pitch, angle, 2).to_plane(ray) - 1).max()
        for yaw, pitch in sphere_grid(angle, overlap)
    ]
    assert np.nanmin(offsets) <= 1 - overlap + 0.01


@settings(max_examples=30, deadline=None)
@given(
    yaw=st.floats(-4, 4),
    pitch=st.floats(-math.pi / 2, math.pi / 2),
    fov=st.floats(0.1, 1.57),
    x=st.floats(0, 200),
    y=st.floats(0, 200),
)
@pytest.mark.parametrize(
    "projection",
    [PANO, Equirectangular(8192, 2000, 8192, 4096, top=900), Fisheye(900, 900, 450, 440, 400, 360)],
    ids=["panorama", "part", "fisheye"],
)
def test_points_come_back_from_the_picture_to_where_they_were(
    projection: Projection, yaw: float, pitch: float, fov: float, x: float, y: float
) -> None:
    view = Reprojection(projection, yaw, pitch, fov, 200)
    point = np.array([[x, y]])
    back = view.to_plane(projection.to_rays(view.to_picture(point)))
    np.testing.assert_allclose(back, point, atol=1e-4)


@pytest.mark.parametrize(
    ("yaw", "pitch"), [(0, 0), (math.pi, 0), (1, 0.7), (2, -math.pi / 2), (0, math.pi / 2)]
)
def test_what_a_view_shows_is_where_the_picture_has_it(yaw: float, pitch: float) -> None:
    # The picture's red is its direction to the right, green the one down, blue the one ahead.
    rows, columns = np.mgrid[0:1024, 0:2048] + 0.5
    pano = Equirectangular(2048, 1024, 2048, 1024)
    rays = pano.to_rays(np.stack([columns, rows], axis=-1))
    pixels = np.rint(rays * 120 + 128).astype(np.uint8)
    view = Reprojection(pano, yaw, pitch, math.radians(80), 300)
    shown = view.render(Pyramid(pixels)).astype(float)
    rows, columns = np.mgrid[0:300, 0:300] + 0.5
    expected = pano.to_rays(view.to_picture(np.stack([columns, rows], axis=-1))) * 120 + 128
    # Half a pixel of 2048 in a turn changes a channel by less than 0.2.
    assert np.abs(shown - expected).max() <= 1.2


def test_rows_that_a_part_of_a_panorama_lacks_are_black() -> None:
    part = Equirectangular(2048, 200, 2048, 1024, top=412)
    view = Reprojection(part, 0.0, 0.0, math.radians(90), 100)
    shown = view.render(Pyramid(np.full((200, 2048, 3), 200, np.uint8)))
    assert (shown[50] == 200).all()
    assert (shown[5] == 0).all()
    assert (shown[-5] == 0).all()


@pytest.mark.parametrize("name", list(PRESETS))
@pytest.mark.parametrize("long_side", [448, 1333])
def test_presets_show_the_network_the_resolution_that_they_promise(
    name: str, long_side: int
) -> None:
    preset = PRESETS[name]
    width, height = preset.width, preset.width // 2
    pano = Equirectangular(width, height, width, height)
    views = views_of(width, height, projection=pano, tiling=TilingCard(), long_side=long_side)
    first = views[0]
    assert isinstance(first, Reprojection)
    assert first.side <= long_side
    per_radian = first.side / 2 / math.tan(first.fov / 2)
    native = width / math.tau
    assert native / per_radian <= preset.shrink * 1.01
    assert preset_for(width) is preset
    assert len(views) < 400


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(PresetError, match="expected auto or one of pano-2k"):
        preset_for(4096, "pano-3k")


def test_a_projection_of_another_size_is_refused() -> None:
    with pytest.raises(ShapeError, match="of a picture of 1024x512; this one is 100x50"):
        detector().detect(gray(100, 50), projection=PANO)
    with pytest.raises(ProjectionError, match="projection is 'mercator'"):
        detector().detect(gray(100, 50), projection="mercator")


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 1), (3, 3)])
def test_the_smallest_panoramas_are_looked_at(size: tuple[int, int]) -> None:
    width, height = size
    projection = Equirectangular(width, height, width, height)
    assert len(detector().detect(gray(width, height), projection=projection)) == 0


def test_finds_without_a_seam_have_no_copies() -> None:
    inside = Detections.from_boxes([[0, 0, 10, 10], [990, 0, 1000, 10]], class_ids=[0, 0])
    assert len(wrapped_copies(inside, 1000)) == 2
    across = Detections.from_boxes([[990, 0, 1010, 10], [-5, 0, 5, 10]], class_ids=[0, 0])
    starts = wrapped_copies(across, 1000).boxes_xyxy[:, 0]
    assert starts.tolist() == [990, -5, -10, 995]
    all_around = Detections.from_boxes([[0, 0, 1000, 10]], class_ids=[0])
    assert len(wrapped_copies(all_around, 1000)) == 1


def test_an_ellipse_wider_than_the_turn_is_hidden_at_both_of_its_ends() -> None:
    wide = Detections.from_boxes([[-63, 20, 652, 60]], class_ids=[0])
    spec = ClassSpec("ellipse", "ellipse", margin=0.0)
    hidden = obscured_mask(wrapped_copies(wide, 640), Taxonomy({"face": spec}), 80, 640)
    y, x = np.mgrid[:80, :640] + 0.5
    for turn in (-640, 0, 640):
        inside = ((x + turn - 294.5) / 357.5) ** 2 + ((y - 40) / 20) ** 2 <= 1
        assert not (inside & ~hidden).any()


class Posed(Painted):
    """A keypoint network: persons are green, and where their heads are red they show a face."""

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        image = feeds["image"][0]
        red, green = (image[c] - image[2] > 0.35 for c in (0, 1))
        count, _, stats, _ = cv2.connectedComponentsWithStats((red | green).astype(np.uint8))
        heatmaps = np.full((count - 1, 17, 56, 56), -10, np.float32)
        boxes = np.zeros((count - 1, 4), np.float32)
        for i, (x, y, w, h, _) in enumerate(stats[1:]):
            boxes[i] = x, y, x + w, y + h
            rows, columns = np.nonzero(red[y : y + h, x : x + w])
            if len(rows) >= 6 and rows.min() > 0:  # the border cuts off no forehead
                middle, face = (columns.min() + columns.max() + 1) / 2, np.ptp(columns) + 1
                for k, side, down in ((0, 0, 0.6), (1, 0.225, 0.38), (2, -0.225, 0.38)):
                    column = int((middle + side * face) / w * 56)
                    row = int((rows.min() + down * (np.ptp(rows) + 1)) / h * 56)
                    heatmaps[i, k, row, min(max(column, 0), 55)] = 10
        scores, labels = np.full(count - 1, 0.9), np.zeros(count - 1, np.int64)
        return {"boxes": boxes, "scores": scores, "labels": labels, "heatmaps": heatmaps}


@pytest.mark.parametrize("longitude", [0, 180, -179])
def test_heads_from_keypoints_lie_on_their_persons_across_the_seam_too(longitude: float) -> None:
    pixels = gray(1024, 512)
    pixels[216:300, 482:542] = COLOURS[PERSON]
    pixels[220:252, 500:524] = COLOURS[FACE]
    column = round((longitude + 180) / 360 * 1024)
    pixels = np.roll(pixels, column - 512, axis=1)
    posed = GraphCard("keypoint_rcnn.onnx", "", GraphInput(LONG_SIDE), ("person",))
    card = Card(TAXONOMY, dict.fromkeys(TAXONOMY.names, 0.5), {"keypoint_rcnn": posed})
    found = Detector(card, {"keypoint_rcnn": Posed()}).detect(pixels, projection=PANO)
    assert found.sources == ("keypoint_rcnn",)
    middle = float(found.boxes_xyxy[0, 0] + found.boxes_xyxy[0, 2]) / 2
    assert min(abs(middle - column), 1024 - abs(middle - column)) < 3
    nose = found.keypoints[0, 0]
    assert abs(nose[0] - middle) < 3
    assert nose[1] == pytest.approx(220 + 0.6 * 32, abs=4)


def test_a_head_goes_to_the_side_of_the_seam_on_which_its_face_lies() -> None:
    faces = Detections.from_boxes([[990, 10, 1010, 30]], class_ids=[FACE])
    heads = Detections.from_boxes([[-8, 10, 12, 30]], class_ids=[FACE], source="keypoint_rcnn")
    both = Detections.concatenate([faces, heads])
    aligned = beside_their_faces(both, 1000)
    np.testing.assert_array_equal(aligned.boxes_xyxy[1], [992, 10, 1012, 30])
    merged = merge_heads(aligned, iou=0.5)
    assert len(merged) == 1
    np.testing.assert_array_equal(wrapped_copies(merged, 1000).merged_xyxy[1], [-8, 10, 12, 30])


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@example(seed=6)  # over a pole, of which a view that looks past it sees a strip
@example(seed=708)
@given(seed=st.integers(0, 10_000))
def test_many_objects_of_a_panorama_are_each_found_once(seed: int) -> None:
    noise = np.random.default_rng(seed)
    pano = Equirectangular(768, 384, 768, 384)
    pixels, taken, objects = gray(768, 384), np.zeros((384, 768), bool), []
    for _ in range(8):
        place = noise.uniform(-180, 180), math.degrees(math.asin(noise.uniform(-1, 1)))
        radius = noise.uniform(2.5, 12)
        if not (taken & around(pano, *place, radius + 4)).any():
            objects.append(around(pano, *place, radius))
            taken |= objects[-1]
            paint(pixels, objects[-1], int(noise.integers(0, 3)))
    found = detector().detect(pixels, projection=pano)
    assert len(found) == len(objects)
    covered = hidden(found, 768, 384, 768)
    assert min(covered[where].mean() for where in objects) >= 0.99


@pytest.mark.parametrize("runs", [1, 2])
def test_looking_at_views_ends_when_it_is_told_not_to_go_on(runs: int) -> None:
    network = Painted()
    card = detector().card
    networks = Networks(("mask_rcnn",), lambda *_: network, Cores(1, runs, runs))
    asked: list[int] = []

    def go_on() -> None:
        asked.append(1)
        if len(asked) > 3:
            raise StoppedError("told to")

    tool = Detector(card, networks)
    assert len(tool.views(600, 400, tiling=TILES)) > 10
    with pytest.raises(StoppedError, match="told to"):
        tool.detect(gray(600, 400), tiling=TILES, go_on=go_on)
    assert network.views <= 3
