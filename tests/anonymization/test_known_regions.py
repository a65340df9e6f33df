"""Known regions: written by the tool, edited by a person, read back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anonymization.anonymizer import Anonymizer
from anonymization.detection.finds import Detections
from anonymization.documents import (
    KnownFinds,
    KnownRegionsError,
    document_text,
    document_to_finds,
    finds_to_document,
)
from anonymization.drawing import drawn_outline
from anonymization.known_regions import DEFAULT_TAXONOMY, KnownRegions
from anonymization.obscuring.obscure import obscured_mask
from data.coco import ellipse_to_mask

SCHEMA = Path(__file__).parents[2] / "docs" / "detections.schema.json"
WIDTH, HEIGHT = 120, 80
FACE = {"class": "face", "box": [0, 0, 9, 9]}


def document(*rows: dict[str, Any], **picture: Any) -> dict[str, Any]:
    stated = {"name": "a.jpg", "width": WIDTH, "height": HEIGHT} | picture
    return {"schema_version": 1, "picture": stated, "finds": list(rows)}


def read(values: dict[str, Any]) -> KnownFinds:
    return document_to_finds(values, DEFAULT_TAXONOMY, width=WIDTH, height=HEIGHT)


def hidden(found: KnownFinds) -> np.ndarray:
    return obscured_mask(found.detections, DEFAULT_TAXONOMY, HEIGHT, WIDTH, outlines=found.outlines)


def network_finds() -> KnownFinds:
    masks = np.full((4, 28, 28), np.nan, np.float32)
    y, x = np.mgrid[:28, :28]
    masks[1] = ((x - 14) ** 2 / 100 + (y - 14) ** 2 / 160 < 1).astype(np.float32)
    masks[3] = (x + y < 30).astype(np.float32)
    points = np.full((4, 17, 3), np.nan, np.float32)
    points[0] = 3.25
    return KnownFinds(
        Detections(
            np.float32([[5, 5, 25, 31], [40.5, 10, 70, 75], [80, 50, 110, 60], [60, 2, 119, 44]]),
            np.float32([0.9, 0.8, 0.7, 0.6]),
            np.arange(4),
            masks,
            points,
            ("keypoint_rcnn", "mask_rcnn", "mask_rcnn", "mask_rcnn"),
            np.float32([[8, 6, 27, 30], [np.nan] * 4, [np.nan] * 4, [np.nan] * 4]),
        )
    )


def written(found: KnownFinds) -> dict[str, Any]:
    return json.loads(
        json.dumps(
            finds_to_document(
                found,
                DEFAULT_TAXONOMY,
                name="a.jpg",
                width=WIDTH,
                height=HEIGHT,
                projection="perspective",
                sha256="0" * 64,
            )
        )
    )


def test_a_mask_of_runs_takes_no_more_memory_than_the_object() -> None:
    width, height = 400, 300
    runs = [100 * height + 40, 20, height - 20, 20]
    runs.append(width * height - sum(runs))
    value = {"rle": {"size": [height, width], "counts": runs}}
    outline = drawn_outline(value, width, height)
    assert outline is not None
    assert (outline.x0, outline.y0, outline.mask.shape) == (100, 40, (20, 2))
    assert outline.mask.all()


def test_what_is_written_reads_back_as_the_same_regions() -> None:
    before = network_finds()
    after = read(written(before))
    np.testing.assert_array_equal(hidden(after), hidden(before))
    assert after.detections.sources == before.detections.sources
    np.testing.assert_allclose(after.detections.boxes_xyxy, before.detections.boxes_xyxy)
    np.testing.assert_allclose(after.detections.keypoints[0], before.detections.keypoints[0])
    assert np.isnan(after.detections.keypoints[1]).all()


def test_what_a_person_drew_survives_a_second_round() -> None:
    drawn = read(document({"class": "face", "polygons": [[[10, 10], [50, 20], [20, 60]]]}))
    again = read(written(drawn))
    np.testing.assert_array_equal(hidden(again), hidden(drawn))


def test_the_schema_takes_what_is_written_and_refuses_a_typing_error() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(SCHEMA.read_text())
    values = written(network_finds())
    jsonschema.validate(values, schema)
    jsonschema.validate({"schema_version": 1, "pictures": [values]}, schema)
    values["finds"][0]["clas"] = "face"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, schema)


def test_a_document_holds_each_find_on_one_line_with_its_number() -> None:
    values = written(network_finds())
    text = document_text(values)
    assert json.loads(text) == values
    lines = text.splitlines()
    assert len(lines) == 11
    assert [json.loads(line.strip(" ,"))["id"] for line in lines[5:9]] == [1, 2, 3, 4]


def test_numbers_are_as_short_as_they_read_back() -> None:
    found = KnownFinds(Detections.from_boxes([[0.1, 3.3, 70.7, 33.333334]], class_ids=[0]))
    (row,) = written(found)["finds"]
    assert row["box"] == [0.1, 3.3, 70.7, 33.333336]
    np.testing.assert_array_equal(np.float32(row["box"]), found.detections.boxes_xyxy[0])


def test_a_drawn_polygon_is_hidden_whatever_the_class_shape_is() -> None:
    triangle = [[10, 10], [60, 10], [60, 60]]
    found = read(document({"class": "face", "box": [30, 20, 50, 40], "polygons": [triangle]}))
    mask = hidden(found)
    assert mask[11, 12]
    assert mask[58, 59]


def test_a_rotated_box_and_a_run_length_mask_are_hidden() -> None:
    turned = {"center": [60, 40], "size": [60, 10], "angle": 30}
    found = read(document({"class": "license_plate", "rotated_box": turned}))
    assert hidden(found)[40, 60]
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:20, 30:40] = True
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat.astype(int), [0]])))
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    rle = {"size": [HEIGHT, WIDTH], "counts": counts}
    found = read(document({"class": "person", "rle": rle}))
    assert found.outlines[0].box_xyxy.tolist() == [30, 10, 40, 20]
    np.testing.assert_array_equal(hidden(found) & mask, mask)


def test_coco_text_runs_are_decoded_as_pycocotools_does() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    from anonymization.drawing import rle_to_mask

    random = np.random.default_rng(0)
    for _ in range(20):
        mask = random.random((23, 31)) > 0.6
        encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        value = {"size": encoded["size"], "counts": encoded["counts"].decode()}
        np.testing.assert_array_equal(rle_to_mask(value, 31, 23), mask)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"class": "dog", "box": [0, 0, 9, 9]}, "class is 'dog'; known: face"),
        ({"box": [0, 0, 9, 9]}, "class is None"),
        ({"class": "face"}, "neither box"),
        ({"class": "face", "box": [9, 0, 0, 9]}, "expected x0 < x1"),
        (FACE | {"merged_box": [80, 60, 20, 20]}, "merged_box is .*expected x0 < x1"),
        (FACE | {"merged_box": [20, 60, 80, 60]}, "merged_box is .*expected x0 < x1"),
        (FACE | {"merged_box": [20, 60, 80]}, "merged_box is .*expected 4 numbers"),
        ({"class": "face", "box": [0, 0, 9]}, "expected 4 numbers"),
        ({"class": "face", "box": [0, 0, "9", 9]}, "finite number"),
        ({"class": "face", "box": [0, 0, float("inf"), 9]}, "finite number"),
        ({"class": "face", "box": [500, 0, 509, 9]}, "outside of the picture"),
        ({"class": "face", "box": [0, 0, 9, 9], "scor": 1}, "key 'scor'"),
        ({"class": "face", "box": [0, 0, 9, 9], "score": 2}, "score is 2"),
        ({"class": "face", "polygons": [[[1, 1], [2, 2]]]}, "fewer than 3 corners"),
        ({"class": "face", "polygons": [[[-9, -9], [-5, -9], [-5, -5]]]}, "outside of the picture"),
        ({"class": "face", "rle": {"size": [1, 1], "counts": [1]}}, "rle has size"),
        ({"class": "face", "rle": {"size": [80, 120], "counts": [5]}}, "rle fills 5 pixels"),
        ({"class": "face", "rotated_box": [1, 2, 3]}, "expected center, size and angle"),
        ({"class": "face", "box": [0, 0, 9, 9], "keypoints": [[0, 0, 0]]}, "1 keypoints"),
        ("face", "expected an object"),
    ],
)
def test_a_wrong_find_is_refused_by_position(row: Any, message: str) -> None:
    with pytest.raises(KnownRegionsError, match=f"find 1.*{message}"):
        read(document(row))


def test_a_picture_of_another_size_or_content_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KnownRegionsError, match="100x80 pixels; this one has 120x80"):
        read(document(width=100))
    unsized = document() | {"picture": {"name": "a.jpg", "height": HEIGHT}}
    with pytest.raises(KnownRegionsError, match="picture has no width; this one has 120x80"):
        read(unsized)
    (tmp_path / "a.jpg.json").write_text(json.dumps(document(sha256="1" * 64)))
    known = KnownRegions(tmp_path)
    with pytest.raises(KnownRegionsError, match="for a picture of sha256 111"):
        known.of("a.jpg", DEFAULT_TAXONOMY, width=WIDTH, height=HEIGHT, sha256="2" * 64)


def test_a_picture_that_nobody_looked_at_does_not_pass_as_empty(tmp_path: Path) -> None:
    with pytest.raises(KnownRegionsError, match="is missing; write it"):
        KnownRegions(tmp_path).of("b.jpg", DEFAULT_TAXONOMY, width=1, height=1)
    path = tmp_path / "all.json"
    path.write_text(json.dumps({"schema_version": 1, "pictures": [document()]}))
    known = KnownRegions(path)
    assert len(known.of("a.jpg", DEFAULT_TAXONOMY, width=WIDTH, height=HEIGHT).detections) == 0
    with pytest.raises(KnownRegionsError, match=r"no known regions of picture 'b.jpg'"):
        known.of("b.jpg", DEFAULT_TAXONOMY, width=WIDTH, height=HEIGHT)


def test_one_file_is_for_one_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document()))
    with pytest.raises(KnownRegionsError, match=r"of picture 'a.jpg', not of 'b.jpg'"):
        KnownRegions(path).of("b.jpg", DEFAULT_TAXONOMY, width=WIDTH, height=HEIGHT)


def test_what_a_ring_goes_around_is_hidden_however_it_crosses_itself() -> None:
    turn = np.arange(5) * 4 * np.pi / 5
    star = np.stack([30 + 25 * np.sin(turn), 30 - 25 * np.cos(turn)], axis=1).tolist()
    square = [[5.0, 5.0], [30.0, 5.0], [30.0, 30.0], [5.0, 30.0]]
    for ring, seen in ((star, (30, 30)), (square * 2, (15, 15)), (star[::-1], (30, 30))):
        outline = drawn_outline({"polygons": [ring]}, 60, 60)
        assert outline is not None
        assert outline.on(0, 0, 60, 60)[seen]


def test_every_pixel_whose_centre_lies_in_a_ring_is_hidden_at_the_pictures_edge_too() -> None:
    random = np.random.default_rng(3)
    y, x = np.mgrid[:40, :50] + 0.5
    for reach in (5, 60, 5000):
        for _ in range(60):
            corners = random.uniform(-reach, 50 + reach, (3, 2))
            (ax, ay), (bx, by), (cx, cy) = corners
            sides = [
                (qx - px) * (y - py) - (x - px) * (qy - py)
                for px, py, qx, qy in ((ax, ay, bx, by), (bx, by, cx, cy), (cx, cy, ax, ay))
            ]
            inside = (np.min(sides, axis=0) > 0) | (np.max(sides, axis=0) < 0)
            if inside.any():
                outline = drawn_outline({"polygons": [corners.tolist()]}, 50, 40)
                assert outline is not None
                assert not (inside & ~outline.on(0, 0, 50, 40)).any()


def test_a_document_of_a_bundle_asks_for_it(tmp_path: Path) -> None:
    values = written(network_finds()) | {"bundle": "b" * 64}
    (tmp_path / "a.json").write_text(json.dumps(values))
    known = KnownRegions(tmp_path / "a.json")
    size = {"width": WIDTH, "height": HEIGHT}
    with pytest.raises(KnownRegionsError, match="is of bundle bbbbbbbbbbbb, which has margins"):
        known.of("a.jpg", DEFAULT_TAXONOMY, **size)
    with pytest.raises(KnownRegionsError, match="of cccccccccccc; name its own with --model"):
        known.of("a.jpg", DEFAULT_TAXONOMY, **size, bundle="c" * 64)
    assert len(known.of("a.jpg", DEFAULT_TAXONOMY, **size, bundle="b" * 64).detections) == 4
    (tmp_path / "a.json").write_text(json.dumps(values | {"bundle": None}))
    freed = KnownRegions(tmp_path / "a.json")
    assert len(freed.of("a.jpg", DEFAULT_TAXONOMY, **size, bundle="c" * 64).detections) == 4


def test_a_document_in_a_folder_is_not_that_of_another_picture(tmp_path: Path) -> None:
    (tmp_path / "a.jpg.json").write_text(json.dumps(document(name="cam7/b.jpg")))
    (tmp_path / "c.jpg.json").write_text(json.dumps(document(name="above/c.jpg")))
    known, size = KnownRegions(tmp_path), {"width": WIDTH, "height": HEIGHT}
    with pytest.raises(KnownRegionsError, match=r"of picture 'cam7/b\.jpg', not of 'a\.jpg'"):
        known.of("a.jpg", DEFAULT_TAXONOMY, **size)
    assert not len(known.of("c.jpg", DEFAULT_TAXONOMY, **size).detections)


def test_a_find_with_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    polygons = '"polygons": [[[1,1],[9,1],[9,9]]]'
    find = f'{{"class": "person", {polygons}, {polygons}}}'
    text = json.dumps(document()).replace('"finds": []', f'"finds": [{find}]')
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(KnownRegionsError, match="key 'polygons' is given twice"):
        KnownRegions(tmp_path / "a.json")


def test_the_comma_that_a_deleted_last_line_leaves_is_named(tmp_path: Path) -> None:
    lines = document_text(written(network_finds())).splitlines()
    del lines[8]
    (tmp_path / "a.json").write_text("\n".join(lines))
    with pytest.raises(KnownRegionsError, match="line 8 ends in a comma, and nothing follows"):
        KnownRegions(tmp_path / "a.json")


def test_a_box_that_was_moved_is_hidden_besides_the_outline_that_was_not() -> None:
    values = written(network_finds())
    before = hidden(read(values))
    person = values["finds"][1]
    assert person["class"] == "person"
    assert person["outline_box"] == person["box"]
    person["box"] = [85.0, 5.0, 114.5, 70.0]
    after = hidden(read(values))
    assert after[5:70, 85:115].all()
    assert after[before].all()


def test_a_box_beside_a_polygon_is_hidden_too() -> None:
    line = [[20, 20], [40, 20], [40, 60], [20, 60]]
    found = read(document({"class": "person", "box": [70, 10, 110, 70], "polygons": [line]}))
    mask = hidden(found)
    assert mask[10:70, 70:110].all()
    assert mask[20:60, 20:40].all()
    assert not mask[:, 52:60].any()


def test_an_outline_across_the_seam_leaves_the_face_its_ellipse() -> None:
    box = [100.0, 30.0, 114.0, 50.0]
    over = [[107, 48], [130, 48], [130, 59], [107, 59]]
    size = {"width": WIDTH, "height": WIDTH // 2}
    values = document({"class": "face", "box": box, "polygons": [over]}, **size)
    anonymizer = Anonymizer.for_known_regions(projection="equirectangular")
    view = anonymizer.view(b"", **size)
    known = document_to_finds(values, DEFAULT_TAXONOMY, **size, projection="equirectangular")
    decided = anonymizer.decide(
        known.detections, name="", outlines=known.outlines, view=view, **size
    )
    stripes = np.full((WIDTH // 2, WIDTH, 3), 255, np.uint8)
    stripes[:, ::2] = 0
    changed = (anonymizer.hide(stripes, decided) != stripes).any(axis=2)
    face = ellipse_to_mask((100, 30, 114, 50), height=WIDTH // 2, width=WIDTH)
    assert changed[face].mean() > 0.95
    assert changed[50:59, 0:9].mean() > 0.9  # beyond the seam


def test_a_document_of_a_picture_that_was_looked_at_otherwise_is_refused() -> None:
    size = {"width": WIDTH, "height": HEIGHT}
    for stated in ("perspective", "equirectangular", "fisheye"):
        values = document(FACE, projection=stated)
        for projection in ("perspective", "equirectangular", "fisheye"):
            if stated == projection:
                document_to_finds(values, DEFAULT_TAXONOMY, **size, projection=projection)
                continue
            with pytest.raises(KnownRegionsError, match=f"looked at as {stated}.* {projection};"):
                document_to_finds(values, DEFAULT_TAXONOMY, **size, projection=projection)
    with pytest.raises(KnownRegionsError, match="projection 'round'; expected one of perspective"):
        read(document(FACE, projection="round"))


@pytest.mark.parametrize(
    "row",
    [
        {"class": "face", "box": [100, 10, WIDTH + 20, 40]},
        {"class": "face", "box": [-20, 10, 20, 40]},
        FACE | {"merged_box": [-20, 10, 20, 40]},
        {"class": "person", "polygons": [[[100, 10], [WIDTH + 20, 10], [100, 40]]]},
        {"class": "license_plate", "rotated_box": {"center": [0, 40], "size": [40, 9], "angle": 0}},
    ],
)
def test_what_goes_on_beyond_the_columns_of_a_picture_is_cut_only_where_it_is_said_to_be_flat(
    row: dict[str, Any],
) -> None:
    """Of a panorama whose document does not say so, it would be visible on the other side."""
    with pytest.raises(KnownRegionsError, match=r"find 1 .*give --projection equirectangular if"):
        read(document(row))
    read(document(row, projection="perspective"))  # as heads are found at a flat picture's edge
    size = {"width": WIDTH, "height": WIDTH // 2}
    values = document(row, **size)
    document_to_finds(values, DEFAULT_TAXONOMY, **size, projection="equirectangular")


def test_a_box_may_end_a_pixel_beyond_a_picture() -> None:
    assert len(read(document({"class": "face", "box": [-1, 0, WIDTH + 1, 9]})).detections) == 1
