"""COCO to Label Studio to COCO: exact for brushes and keypoints, half a pixel for the rest."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from annotation.from_label_studio import results_to_labels
from annotation.regions import Size, Turned, value_to_shape
from annotation.to_label_studio import annotations_to_results
from anonymization.taxonomy import ClassSpec, Taxonomy
from data.coco import Annotation, mask_to_rle

TAXONOMY = Taxonomy(
    {
        "face": ClassSpec(geometry="ellipse", shape="ellipse"),
        "person": ClassSpec(geometry="mask", shape="outline"),
        "plate": ClassSpec(geometry="box", shape="box"),
        "vehicle": ClassSpec(geometry="mask", shape="outline", aliases=["car"]),
    },
    keypoint_class="person",
)
SIZE = Size(width=641, height=479)
PIXEL = st.integers(0, 47900).map(lambda n: n / 100)


def there_and_back(*annotations: Annotation, size: Size = SIZE) -> tuple[Annotation, ...]:
    results = json.loads(json.dumps(annotations_to_results(annotations, TAXONOMY, size)))
    labels = results_to_labels(results, TAXONOMY, size, where="task 1, annotation 2")
    assert labels.problems == ()
    return labels.objects


def mask_of(annotation: Annotation, size: Size = SIZE) -> np.ndarray:
    return annotation.mask("mask", height=size.height, width=size.width)


def outlined(mask: np.ndarray, **changes: object) -> Annotation:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    values = {"class_name": "person", "segmentation": mask_to_rle(mask)} | changes
    return Annotation(1, 1, box_xyxy=tuple(float(v) for v in box), **values)


@settings(deadline=None, max_examples=50)
@given(mask=arrays.arrays(bool, (23, 31)).filter(np.any))
def test_run_lengths_come_back_exactly(mask):
    size = Size(31, 23)
    before = outlined(mask)
    (after,) = there_and_back(before, size=size)
    assert after.segmentation == before.segmentation
    assert after.box_xyxy == before.box_xyxy


@settings(deadline=None, max_examples=50)
@given(
    points=st.lists(st.tuples(PIXEL, PIXEL, st.sampled_from([0, 1, 2])), min_size=17, max_size=17)
)
def test_keypoints_come_back_exactly(points):
    wanted = tuple((x, y, v) if v else (0.0, 0.0, 0) for x, y, v in points)
    square = [[100.0, 100.0, 200.0, 100.0, 200.0, 200.0]]
    (after,) = there_and_back(
        Annotation(1, 1, "person", (100, 100, 200, 200), square, keypoints=wanted)
    )
    assert after.keypoints == (wanted if any(v for _, _, v in wanted) else None)


@settings(deadline=None, max_examples=50)
@given(
    flat=st.lists(st.tuples(PIXEL, PIXEL), min_size=3, max_size=12).map(
        lambda points: [v for point in points for v in point]
    )
)
def test_polygons_come_back_within_half_a_pixel(flat):
    x, y = np.asarray(flat[::2]), np.asarray(flat[1::2])
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    if area < 2 or np.ptp(x) < 1 or np.ptp(y) < 1:
        return
    box = (x.min(), y.min(), x.max(), y.max())
    (after,) = there_and_back(Annotation(1, 1, "vehicle", box, [flat]))
    assert np.abs(np.asarray(after.segmentation[0]) - flat).max() < 1e-3
    assert np.abs(np.asarray(after.box_xyxy) - box).max() < 1e-3


@settings(deadline=None, max_examples=50)
@given(x=PIXEL, y=PIXEL, width=st.floats(1, 200), height=st.floats(1, 200))
def test_ellipses_and_boxes_come_back_within_half_a_pixel(x, y, width, height):
    box = (x, y, min(x + width, SIZE.width), min(y + height, SIZE.height))
    if box[3] - box[1] < 1:
        return
    for name in ("face", "plate"):
        (after,) = there_and_back(Annotation(1, 1, name, box))
        assert np.abs(np.asarray(after.box_xyxy) - box).max() < 1e-3
        assert after.segmentation is None


@settings(deadline=None, max_examples=50)
@given(degrees=st.floats(-180, 180), width=st.floats(4, 90), height=st.floats(4, 90))
def test_turned_shapes_come_back_within_half_a_pixel(degrees, width, height):
    turned = Turned("box", 320, 240, width, height, degrees)
    for name in ("face", "plate"):
        kind = "ellipse" if name == "face" else "box"
        before = Annotation(
            1,
            1,
            name,
            replace(turned, kind=kind).box_xyxy(),
            attributes={"turned_box": [320, 240, width, height, degrees]},
        )
        (after,) = there_and_back(before)
        (again,) = there_and_back(after)
        assert np.abs(np.asarray(after.box_xyxy) - before.box_xyxy).max() < 0.01
        assert np.abs(np.asarray(again.box_xyxy) - after.box_xyxy).max() < 0.01


def test_a_turned_plate_has_its_four_corners_as_outline():
    results = [
        {
            "id": "a",
            "type": "rectanglelabels",
            "original_width": 100,
            "original_height": 200,
            # About its upper left corner (50, 100), a quarter turn to the right.
            "value": {
                "x": 50, "y": 50, "width": 20, "height": 5, "rotation": 90,
                "rectanglelabels": ["plate"],
            },
        }
    ]  # fmt: skip
    (found,) = results_to_labels(results, TAXONOMY, Size(100, 200), where="task 1").objects
    assert found.box_xyxy == (40, 100, 50, 120)
    assert found.segmentation == [[50, 100, 50, 120, 40, 120, 40, 100]]


def test_an_ellipse_turned_by_an_eighth_is_as_wide_as_worked_out_by_hand():
    value = {"x": 50, "y": 50, "radiusX": 30, "radiusY": 10, "rotation": 45}
    shape = value_to_shape("ellipse", value, Size(100, 100))
    half = np.sqrt((30**2 + 10**2) / 2)
    assert shape.box_xyxy() == pytest.approx((50 - half, 50 - half, 50 + half, 50 + half))


def test_an_object_in_several_pieces_stays_one_object():
    pieces = [[10.0, 10.0, 60.0, 10.0, 60.0, 90.0], [200.0, 10.0, 260.0, 10.0, 260.0, 90.0]]
    before = Annotation(1, 1, "person", (10, 10, 260, 90), pieces)
    (after,) = there_and_back(before, replace(before, id=2, class_name="vehicle"))[:1]
    assert after.segmentation == pieces
    mask = np.zeros((SIZE.height, SIZE.width), bool)
    mask[10:60, 5:20] = mask[10:60, 80:99] = True
    (after,) = there_and_back(outlined(mask))
    assert (mask_of(after) == mask).all()


def test_holes_survive():
    mask = np.zeros((SIZE.height, SIZE.width), bool)
    mask[100:200, 100:200] = True
    mask[130:160, 140:150] = False
    (after,) = there_and_back(outlined(mask, class_name="vehicle"))
    assert (mask_of(after) == mask).all()


def test_objects_at_every_edge_survive():
    mask = np.zeros((SIZE.height, SIZE.width), bool)
    mask[0, :] = mask[-1, :] = mask[:, 0] = mask[:, -1] = True
    (after,) = there_and_back(outlined(mask))
    assert (mask_of(after) == mask).all()
    assert after.box_xyxy == (0, 0, SIZE.width, SIZE.height)
    (face,) = there_and_back(Annotation(1, 1, "face", (0, 0, SIZE.width, 10)))
    assert face.box_xyxy == (0, 0, SIZE.width, 10)


def test_a_panorama_survives():
    size = Size(8192, 4096)
    mask = np.zeros((4096, 8192), bool)
    mask[2000:2050, :40] = mask[2000:2050, 8100:] = True  # over the seam: two pieces
    (after,) = there_and_back(outlined(mask), size=size)
    assert (mask_of(after, size) == mask).all()
    points = tuple((8191.25, 4095.5, 2) for _ in range(17))
    (after,) = there_and_back(outlined(mask, keypoints=points), size=size)
    assert after.keypoints == points


def test_a_jpeg_that_stands_on_its_side_is_measured_upright():
    from anonymization.formats.picture import decode

    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (60, 40)).save(buffer, "JPEG", exif=exif)
    picture = decode(buffer.getvalue())
    size = Size(picture.width, picture.height)
    assert size == Size(40, 60)  # as a browser shows it
    mask = np.zeros((60, 40), bool)
    mask[50:60, 2:9] = True
    (after,) = there_and_back(outlined(mask), size=size)
    assert after.box_xyxy == (2, 50, 9, 60)


@pytest.mark.parametrize("identifiable", [True, False, None])
@pytest.mark.parametrize("occluded", [True, False, None])
@pytest.mark.parametrize("crowd", [True, False])
def test_what_was_said_of_an_object_survives(identifiable, occluded, crowd):
    said = {"identifiable": identifiable, "occluded": occluded}
    said = {key: value for key, value in said.items() if value is not None}
    (after,) = there_and_back(
        Annotation(1, 1, "face", (5, 5, 50, 60), crowd=crowd, attributes=said)
    )
    assert after.attributes == said
    assert after.crowd is crowd


@settings(deadline=None, max_examples=10)
@given(st.permutations(["brush", "polygon", "pieces", "ellipse", "box", "crowd"]))
def test_every_mixture_of_regions_comes_back_in_order(kinds):
    mask = np.zeros((SIZE.height, SIZE.width), bool)
    mask[200:220, 200:250] = True
    flat = [300.0, 300.0, 350.0, 300.0, 350.0, 360.0]
    made = {
        "brush": outlined(mask),
        "polygon": Annotation(1, 1, "vehicle", (300, 300, 350, 360), [flat]),
        "pieces": Annotation(1, 1, "person", (1, 1, 350, 360), [flat, [1.0, 1, 9, 1, 9, 9]]),
        "ellipse": Annotation(1, 1, "face", (10, 20, 30, 50)),
        "box": Annotation(1, 1, "plate", (60, 20, 90, 30)),
        "crowd": Annotation(1, 1, "person", (300, 300, 350, 360), [flat], crowd=True),
    }
    before = [replace(made[kind], id=n) for n, kind in enumerate(kinds, start=1)]
    after = there_and_back(*before)
    assert [a.class_name for a in after] == [b.class_name for b in before]
    assert [a.crowd for a in after] == [b.crowd for b in before]
    assert [a.segmentation for a in after] == [b.segmentation for b in before]
    for a, b in zip(after, before, strict=True):
        assert a.box_xyxy == pytest.approx(b.box_xyxy)


def test_an_outline_that_leaves_the_picture_is_cut_at_its_edge():
    size = Size(100, 100)
    flat = [-100.0, 50.0, 60.0, 10.0, 60.0, 95.0]
    before = Annotation(1, 1, "person", (0, 10, 60, 95), segmentation=[flat])
    (after,) = there_and_back(before, size=size)
    one, other = mask_of(before, size), mask_of(after, size)
    assert (one & other).sum() / (one | other).sum() > 0.98
    assert all(0 <= value <= 100 for value in after.segmentation[0])
    away = replace(before, segmentation=[[*flat], [-9.0, 1.0, -1.0, 1.0, -1.0, 9.0]])
    (kept,) = there_and_back(away, size=size)
    assert len(kept.segmentation) == 1


def test_a_sliver_among_the_pieces_of_an_object_leaves_it_one_object():
    sliver = [10.0, 10.0, 10.1, 10.0, 10.1, 10.1]
    pieces = [[20.0, 20.0, 60.0, 20.0, 60.0, 60.0], [70.0, 20.0, 90.0, 20.0, 90.0, 60.0]]
    points = tuple((30.0 + i, 25.0, 2) for i in range(17))
    before = Annotation(
        1, 1, "person", (10, 10, 90, 60), segmentation=[sliver, *pieces], keypoints=points,
        attributes={"identifiable": False},
    )  # fmt: skip
    (after,) = there_and_back(before)
    assert after.segmentation == pieces
    assert after.keypoints == points
    assert after.attributes["identifiable"] is False


def test_an_object_of_slivers_alone_is_named_and_left_out():
    sliver = [10.0, 10.0, 10.1, 10.0, 10.1, 10.1]
    tiny = Annotation(1, 1, "person", (10, 10, 11, 11), segmentation=[sliver])
    results = annotations_to_results([tiny], TAXONOMY, SIZE)
    labels = results_to_labels(results, TAXONOMY, SIZE, where="here")
    assert labels.objects == ()
    assert "is empty" in labels.problems[0]


@pytest.mark.parametrize("name", ["plate", "vehicle", "person"])
def test_a_turned_box_past_a_corner_of_the_picture_is_left_out(name):
    attributes = {"turned_box": [-20, -20, 200, 20, -45]}
    away = Annotation(1, 1, "plate", (0, 0, 50, 50), attributes=attributes)
    results = json.loads(json.dumps(annotations_to_results([away], TAXONOMY, SIZE)))
    for result in results:
        if "rectanglelabels" in result["value"]:
            result["value"]["rectanglelabels"] = [name]
    labels = results_to_labels(results, TAXONOMY, SIZE, where="here")
    assert labels.objects == ()
    assert "lies outside of the picture" in labels.problems[0]
