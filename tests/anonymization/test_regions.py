"""Regions that spare finds, each erring towards obscuring."""

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from anonymization.detection.finds import Detections
from anonymization.known_regions import DEFAULT_TAXONOMY
from anonymization.regions import Area, RegionError, Regions
from anonymization.settings import SettingsError

LEFT_HALF = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
FACE, PERSON, PLATE, VEHICLE = range(4)


def finds(*rows: tuple[list[float], int]) -> Detections:
    return Detections.from_boxes([r[0] for r in rows], class_ids=[r[1] for r in rows])


def spared(area: Area, found: Detections, name: str = "cam0/a.jpg") -> list[int]:
    regions = Regions([area])
    listed = regions.spared(found, DEFAULT_TAXONOMY, name=name, width=200, height=100)
    return [one.index for one in listed]


def test_an_ignored_region_spares_only_what_lies_wholly_inside() -> None:
    found = finds(([10, 10, 40, 40], FACE), ([90, 10, 110, 40], FACE), ([150, 10, 170, 40], FACE))
    assert spared(Area("poster", "ignore", polygon=LEFT_HALF), found) == [0]


def test_a_polygon_that_spares_holds_no_pixel_that_it_does_not_hold_whole() -> None:
    corners = ((100.0, 50.0), (200.0, 50.0), (200.0, 90.0), (100.9, 90.0))
    pixels = Area("a", "ignore", units="pixel", polygon=corners).drawn(200, 100)
    rows, columns = np.nonzero(pixels)
    assert (rows.min(), rows.max()) == (50, 89)
    assert (columns.min(), columns.max()) == (101, 199)  # of column 100 a part lies outside
    diagonal = Area("a", "ignore", polygon=((0.0, 0.0), (1.0, 0.0), (1.0, 1.0))).drawn(20, 20)
    assert not diagonal[np.tril_indices(20)].any()
    assert diagonal[np.triu_indices(20, 1)].all()
    wanted = Area("a", "interest", units="pixel", polygon=corners).drawn(200, 100)
    assert wanted[50:90, 100:].all()


@pytest.mark.parametrize("kind", ["ignore", "interest"])
def test_corners_that_no_picture_has_are_refused(kind: str) -> None:
    """Beyond 134,217,727 whole numbers of 32 bits wrapped, and the other side was spared."""
    far = ((200.0, 0.0), (999999999.0, 0.0), (999999999.0, 200.0), (200.0, 200.0))
    with pytest.raises(RegionError, match="corners in units of pixel are from 0 to 1000000"):
        Area("poster", kind, units="pixel", polygon=far)


def test_the_ego_vehicle_spares_vehicles_and_nobody_in_them() -> None:
    inside = [10.0, 10.0, 60.0, 60.0]
    found = finds((inside, VEHICLE), (inside, FACE), (inside, PERSON), (inside, PLATE))
    assert spared(Area("bonnet", "ego_vehicle", polygon=LEFT_HALF), found) == [0]
    both = Area("bonnet", "ego_vehicle", classes=("vehicle", "license_plate"), polygon=LEFT_HALF)
    assert spared(both, found) == [0, 3]


def test_a_region_of_interest_keeps_everything_that_touches_it() -> None:
    found = finds(([10, 10, 40, 40], FACE), ([95, 10, 130, 40], FACE), ([150, 10, 170, 40], FACE))
    assert spared(Area("pavement", "interest", polygon=LEFT_HALF), found) == [2]


def test_the_margin_counts_as_touching() -> None:
    found = finds(([101, 10, 141, 50], FACE))  # its margin of 6 px reaches into the left half
    assert spared(Area("pavement", "interest", polygon=LEFT_HALF), found) == []


@pytest.mark.parametrize(
    ("area", "name", "expected"),
    [
        (Area("a", "ignore", ("cam0/*",), polygon=LEFT_HALF), "cam0/a.jpg", [0]),
        (Area("a", "ignore", ("cam0/*",), polygon=LEFT_HALF), "cam1/a.jpg", []),
        (Area("a", "ignore", size=(200, 100), polygon=LEFT_HALF), "x.jpg", [0]),
        (Area("a", "ignore", size=(100, 200), polygon=LEFT_HALF), "x.jpg", []),
    ],
)
def test_a_region_is_for_its_pictures_alone(area: Area, name: str, expected: list[int]) -> None:
    assert spared(area, finds(([10, 10, 40, 40], FACE)), name) == expected


def test_pixels_and_fractions_draw_the_same() -> None:
    pixels = Area("a", "ignore", units="pixel", polygon=((0, 0), (100, 0), (100, 100), (0, 100)))
    np.testing.assert_array_equal(
        pixels.drawn(200, 100), Area("b", "ignore", polygon=LEFT_HALF).drawn(200, 100)
    )


def test_a_file_with_a_mask_is_read_and_stretched(tmp_path: Path) -> None:
    mask = np.zeros((50, 100), np.uint8)
    mask[:, :50] = 255
    Image.fromarray(mask).save(tmp_path / "bonnet.png")
    (tmp_path / "r.yaml").write_text(
        "schema_version: 1\nregions:\n"
        "- {name: bonnet, kind: ego_vehicle, pictures: 'cam0/*', mask: bonnet.png}\n"
        "- {name: sky, kind: ignore, polygon: [[0, 0], [1, 0], [1, 0.1]]}\n"
    )
    regions = Regions.read(tmp_path / "r.yaml")
    found = finds(([10, 10, 40, 40], VEHICLE), ([95, 10, 130, 40], VEHICLE))
    (one,) = regions.spared(found, DEFAULT_TAXONOMY, name="cam0/a", width=200, height=100)
    assert (one.index, one.region, one.kind) == (0, "bonnet", "ego_vehicle")
    with pytest.raises(RegionError, match="does not fit a picture of 100x100"):
        regions.spared(found, DEFAULT_TAXONOMY, name="cam0/a", width=100, height=100)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{kind: hide, polygon: [[0,0],[1,0],[1,1]]}", "kind is 'hide'"),
        ("{kind: ignore}", "either a polygon or a mask"),
        ("{kind: ignore, polygon: [[0,0],[1,0]]}", "has 2 corners"),
        ("{kind: ignore, polygon: [[0,0],[2,0],[1,1]]}", "leaves the picture"),
        ("{kind: ignore, polygon: [[0,0],[.nan,0],[1,1]]}", "not finite"),
        ("{kind: ignore, polygn: []}", "key 'polygn'"),
        ("{kind: ignore, mask: none.png}", "mask .*none.png cannot be read"),
        ("{kind: ignore, polygon: [[0,0],[1],[1,1]]}", "cannot be read"),
        ("{kind: ignore, units: cm, polygon: [[0,0],[1,0],[1,1]]}", "units is 'cm'"),
    ],
)
def test_a_wrong_region_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(f"schema_version: 1\nregions: [{text}]\n")
    with pytest.raises(SettingsError, match=message):
        Regions.read(path)


def test_a_region_about_an_unknown_class_is_refused() -> None:
    regions = Regions([Area("a", "ignore", classes=("dog",), polygon=LEFT_HALF)])
    with pytest.raises(RegionError, match="class 'dog'; known classes"):
        regions.check(DEFAULT_TAXONOMY)


def test_the_middle_of_a_star_is_of_interest_and_not_ignored() -> None:
    turn = np.arange(5) * 4 * np.pi / 5
    star = tuple(map(tuple, np.stack([30 + 25 * np.sin(turn), 30 - 25 * np.cos(turn)], 1).tolist()))
    kinds = {kind: Area("a", kind, polygon=star, units="pixel") for kind in ("interest", "ignore")}
    drawn = {kind: area.drawn(60, 60) for kind, area in kinds.items()}
    assert drawn["interest"][30, 30]
    assert not drawn["ignore"][30, 30]
    assert not (drawn["ignore"] & ~drawn["interest"]).any()


WHITE = {"8": np.uint8(255), "16": np.uint16(65535), "float": np.float32(1)}


@pytest.mark.parametrize("depth", WHITE)
@pytest.mark.parametrize("channels", [2, 4])
def test_what_is_see_through_in_a_mask_spares_nothing(
    tmp_path: Path, depth: str, channels: int
) -> None:
    pixels = np.full((100, 200, channels), WHITE[depth])
    pixels[:, 100:, -1] = 0  # erased, and white still
    if depth == "float":
        kind = "rgb" if channels == 4 else "minisblack"
        options = {"photometric": kind, "planarconfig": "contig", "extrasamples": ["unassalpha"]}
        tifffile.imwrite(tmp_path / "mask.png", pixels, **options)
    else:
        (tmp_path / "mask.png").write_bytes(imagecodecs.png_encode(pixels))
    found = finds(([10, 10, 40, 40], FACE), ([150, 10, 170, 40], FACE))
    for kind, expected in (("ignore", [0]), ("interest", [])):
        text = f"schema_version: 1\nregions: [{{name: a, kind: {kind}, mask: mask.png}}]\n"
        (tmp_path / "r.yaml").write_text(text)
        regions = Regions.read(tmp_path / "r.yaml")
        listed = regions.spared(found, DEFAULT_TAXONOMY, name="x", width=200, height=100)
        assert [one.index for one in listed] == expected


@pytest.mark.parametrize("key", ["pictures", "classes"])
def test_an_empty_list_does_not_mean_all(tmp_path: Path, key: str) -> None:
    area = f"name: a, kind: ignore, {key}: [], polygon: [[0, 0], [1, 0], [1, 1]]"
    (tmp_path / "r.yaml").write_text(f"schema_version: 1\nregions: [{{{area}}}]\n")
    with pytest.raises(RegionError, match=f"{key} is empty; name some, or leave it out"):
        Regions.read(tmp_path / "r.yaml")
