"""The interchange: complete checks at the border, and a round trip that loses nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anonymization.taxonomy import ClassSpec, Taxonomy
from data.coco import (
    Annotation,
    Dataset,
    DatasetError,
    Image,
    box_to_mask,
    ellipse_to_mask,
    keypoints_from_flat,
    mask_to_rle,
)

TAXONOMY = Taxonomy(
    {
        "face": ClassSpec(geometry="ellipse", shape="ellipse"),
        "person": ClassSpec(geometry="mask", shape="outline"),
    },
    keypoint_class="person",
    head_class="face",
)
SHA = "a" * 64


def dataset() -> Dataset:
    outline = np.zeros((8, 10), dtype=bool)
    outline[2:6, 3:7] = True
    points = tuple((float(i), 1.0, i % 3) for i in range(17))
    return Dataset(
        (
            Image(1, SHA, f"{SHA}.jpg", 10, 8, ("person",), ("face",), True, {"camera": "front"}),
            Image(2, "b" * 64, "b.png", 10, 8),
        ),
        (
            Annotation(5, 1, "face", (1.5, 2, 4, 6), attributes={"identifiable": False}),
            Annotation(6, 1, "person", (3, 2, 7, 6), mask_to_rle(outline), points, crowd=True),
        ),
    )


def test_what_is_written_is_read_back_whole(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    dataset().write(path, TAXONOMY)
    assert Dataset.read(path, TAXONOMY) == dataset()


def test_equal_data_sets_have_equal_digests_and_others_do_not() -> None:
    first = dataset()
    other = Dataset(first.images, first.annotations[:1])
    assert first.digest(TAXONOMY) == dataset().digest(TAXONOMY) != other.digest(TAXONOMY)


def test_a_subset_keeps_only_its_images_and_their_objects() -> None:
    assert dataset().subset(["b" * 64]).annotations == ()
    assert len(dataset().subset([SHA]).annotations) == 2


def test_an_image_without_objects_has_an_empty_group() -> None:
    assert dataset().by_image[2] == ()


@pytest.mark.parametrize(
    ("where", "change", "message"),
    [
        pytest.param("images", {"width": 0}, "size 0x8 is empty", id="no pixels"),
        pytest.param("images", {"labelled": ["dog"]}, "'dog' is not in the taxonomy", id="class"),
        pytest.param("images", {"sha256": None, "id": "x"}, "image x", id="id is no number"),
        pytest.param("annotations", {"bbox": [1, 1, 0, 4]}, "annotation 5: box", id="no width"),
        pytest.param("annotations", {"bbox": [1, 1, float("nan"), 4]}, "not finite", id="nan"),
        pytest.param("annotations", {"category_id": 9}, "annotation 5: KeyError", id="category"),
        pytest.param("annotations", {"image_id": 7}, "image 7, annotation 5: no such", id="orphan"),
        pytest.param("annotations", {"keypoints": [1, 2]}, "2 keypoint numbers", id="keypoints"),
        pytest.param(
            "annotations",
            {"segmentation": {"size": [9, 9], "counts": "0"}},
            r"mask size \[9, 9\]; the picture has \[8, 10\]",
            id="mask of another size",
        ),
        pytest.param("annotations", {"id": 6}, "two annotations share an id", id="twice"),
    ],
)
def test_what_is_wrong_is_named(where: str, change: dict[str, Any], message: str) -> None:
    values = dataset().to_dict(TAXONOMY)
    values[where][0] |= change
    with pytest.raises(DatasetError, match=message):
        Dataset.from_dict(values, TAXONOMY, Path("train.json"))


def test_a_file_without_lists_is_no_coco() -> None:
    with pytest.raises(DatasetError, match="'categories' is not a list"):
        Dataset.from_dict({}, TAXONOMY, Path("train.json"))


def test_a_box_holds_the_pixels_whose_centre_it_holds() -> None:
    drawn = box_to_mask((0.5, 0.0, 2.4, 1.5), height=3, width=4)
    assert drawn.tolist() == [[True, True, False, False], [False] * 4, [False] * 4]


def test_a_face_is_the_ellipse_inscribed_in_its_box() -> None:
    drawn = ellipse_to_mask((0, 0, 100, 50), height=50, width=100)
    assert drawn.sum() / 5000 == pytest.approx(np.pi / 4, abs=0.002)
    assert not drawn[0, 0]
    assert drawn[25, 0]


def test_an_object_without_a_segmentation_falls_back_to_its_box() -> None:
    annotation = Annotation(1, 1, "person", (1, 1, 3, 3))
    assert annotation.mask("mask", height=4, width=4).sum() == 4


def test_polygons_in_several_pieces_are_one_mask() -> None:
    pieces = [[0.0, 0, 2, 0, 2, 2, 0, 2], [4.0, 4, 6, 4, 6, 6, 4, 6]]
    annotation = Annotation(1, 1, "person", (0, 0, 6, 6), pieces)
    drawn = annotation.mask("mask", height=8, width=8)
    assert drawn[:2, :2].all()
    assert drawn[4:6, 4:6].all()
    assert drawn.sum() == 8


def test_a_visibility_beyond_two_is_refused() -> None:
    with pytest.raises(ValueError, match="visibility"):
        keypoints_from_flat([0.0, 0.0, 3.0] * 17)
