"""COCO files from elsewhere: what is wrong is named, nothing is believed unchecked."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.coco import mask_to_rle
from data.sources.coco import CocoSource, coco_folders
from data.sources.coco_objects import annotation_to_object, rle_runs
from data.sources.listing import picture_files
from data.sources.protocol import Labels, SourceError, UnreadableEntryError

IMAGE = {"id": 1, "file_name": "images/1.png", "width": 80, "height": 64}
GOOD = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 6, 20, 30]}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bbox": [float("nan"), 0, 5, 5]}, "not finite"),
        ({"bbox": [1, 2, 0, 5]}, "is empty"),
        ({"bbox": [90, 2, 5, 5]}, "outside the picture of 80x64"),
        ({"bbox": [1, 2, 3]}, "not four numbers"),
        ({"bbox": None}, "not four numbers"),
        ({"segmentation": {"size": [10, 10], "counts": [100]}}, "mask size"),
        ({"segmentation": {"size": [64, 80], "counts": [7]}}, "do not add up"),
        ({"segmentation": {"size": [64, 80], "counts": "~~~"}}, "not compressed COCO RLE"),
        ({"segmentation": [[1, 2, 3]]}, "a polygon has 3 numbers"),
        ({"segmentation": [[0, 0, 1e9, 0, 5, 5]]}, "far outside"),
        ({"keypoints": [1, 2, 2, 4]}, "4 keypoint numbers; expected 51"),
        ({"segmentation": {"size": [64, 80], "counts": "P`1P"}}, "middle of a number"),
        ({"attributes": "face"}, "expected an object"),
    ],
)
def test_a_wrong_annotation_is_refused_with_its_reason(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        annotation_to_object({**GOOD, **change}, "person", width=80, height=64)


@pytest.mark.parametrize(
    "extra",
    [
        {"keypoints": [1, 2, 2] * 5},
        {"segmentation": [[]]},
        {"segmentation": [[1, 2, 3, 4]]},
    ],
)
def test_an_extra_that_nobody_uses_costs_no_box(extra: dict[str, Any]) -> None:
    thing = annotation_to_object({**GOOD, **extra}, "face", width=80, height=64)
    assert thing.box_xyxy == (5, 6, 25, 36)
    assert (thing.keypoints, thing.segmentation) == (None, None)


def test_a_line_beside_an_outline_is_left_out_of_it() -> None:
    polygons = [[1, 2, 3, 4], [5, 6, 25, 6, 25, 36]]
    thing = annotation_to_object({**GOOD, "segmentation": polygons}, "face", width=80, height=64)
    assert thing.segmentation == polygons[1:]


def test_a_box_is_clipped_to_the_picture() -> None:
    box = annotation_to_object({**GOOD, "bbox": [-3, 60, 10, 10]}, "person", width=80, height=64)
    assert box.box_xyxy == (0, 60, 7, 64)


def test_runs_of_packed_masks_are_those_of_the_mask() -> None:
    mask = np.random.default_rng(1).random((64, 80)) > 0.5
    runs = rle_runs(mask_to_rle(mask)["counts"])
    assert sum(runs) == mask.size
    assert sum(runs[1::2]) == mask.sum()


def test_a_left_out_annotation_makes_its_class_partial(coco_set: Callable[..., Path]) -> None:
    root = coco_set([1], annotations=[GOOD, {**GOOD, "id": 2, "bbox": [1, 1, 0, 0]}])
    labels = labels_of(root)
    assert (labels.labelled, labels.partial) == ((), ("person",))
    assert labels.problems == ("annotation 2: box [1, 1, 0, 0] is empty",)
    assert len(labels.objects) == 1


def test_an_unknown_category_makes_every_class_partial(coco_set: Callable[..., Path]) -> None:
    info = {"labelled": ["person", "dog"]}
    labels = labels_of(coco_set([1], info=info, annotations=[{**GOOD, "category_id": 7}]))
    assert (labels.labelled, labels.partial) == ((), ("dog", "person"))
    assert "unknown category 7" in labels.problems[0]


def test_all_categories_count_as_labelled_where_nothing_is_said(
    coco_set: Callable[..., Path],
) -> None:
    assert labels_of(coco_set([1], info={})).labelled == ("dog", "person")


def test_labels_survive_json(coco_set: Callable[..., Path]) -> None:
    labels = labels_of(coco_set([1]))
    assert Labels.from_dict(labels.to_dict()) == labels


def labels_of(root: Path) -> Labels:
    source = CocoSource(root)
    return source.read(source.entries(source.survey())[0]).labels


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"images": [{"id": 1}]}, "file_name None"),
        ({"images": [{"id": 1, "file_name": "x", "width": 0, "height": 2}]}, "width 0"),
        ({"annotations": [{"id": 4, "image_id": 99}]}, "names no image"),
        ({"categories": [{"id": 1}]}, "lacks its id or name"),
        ({"images": None}, "is not COCO"),
        ({"info": {"labelled": "person"}}, "expected a list of categories"),
        ({"info": {"partial": ["persons"]}}, r"names \['persons'\]; the file's categories are dog"),
        ({"info": [1]}, "info is list"),
        ({"images": [{**IMAGE, "latitude": float("nan")}]}, "latitude nan"),
        ({"images": [{**IMAGE, "attributes": ["wet"]}]}, r"attributes \['wet'\]"),
    ],
)
def test_a_broken_file_is_refused_by_name(
    coco_set: Callable[..., Path], change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(SourceError, match=rf"annotations\.json.*{reason}"):
        CocoSource(coco_set([1], **{"annotations": [], **change})).survey()


def test_a_folder_without_sets_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"expected annotations\.json"):
        coco_folders(tmp_path)


def test_a_name_that_leads_out_of_the_set_is_not_read(coco_set: Callable[..., Path]) -> None:
    image = {"id": 1, "file_name": "../first/images/1.png", "width": 80, "height": 64}
    source = CocoSource(coco_set([1], images=[image]))
    with pytest.raises(UnreadableEntryError, match="leads out of the source folder"):
        source.read(source.entries(source.survey())[0])


def test_a_file_outside_the_set_is_not_even_digested(coco_set: Callable[..., Path]) -> None:
    image = {**IMAGE, "file_name": "../first/images/1.png"}
    entries = CocoSource(coco_set([1], images=[image])).survey()["entries"]
    assert [len(digest) for _, digest in entries] != [64]


def test_a_category_that_is_no_number_leaves_its_annotation_out(
    coco_set: Callable[..., Path],
) -> None:
    labels = labels_of(coco_set([1], annotations=[{**GOOD, "category_id": [1]}]))
    assert (labels.objects, labels.labelled) == ((), ())
    assert "annotation 1" in labels.problems[0]


def test_a_part_of_a_set_holds_the_labels_of_that_part_alone(
    coco_set: Callable[..., Path],
) -> None:
    source = CocoSource(coco_set([1, 2, 3]))
    entries = source.entries(source.survey())
    part = pickle.loads(pickle.dumps(source.part(entries[1:2])))
    assert part.read(entries[1]) == source.read(entries[1])
    assert len(pickle.dumps(part)) < len(pickle.dumps(source))


def test_links_that_lead_nowhere_or_around_end(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b/1.JPG").write_bytes(b"")
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b/up").symlink_to(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / ".hidden").mkdir()
    assert picture_files(tmp_path) == ["b/1.JPG", "loop.png"]
    (tmp_path / "root").symlink_to(tmp_path / "b")
    assert picture_files(tmp_path / "root") == ["1.JPG", "up/loop.png"]


def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "locked").mkdir()
    listed = Path.iterdir

    def refusing(folder: Path) -> Iterator[Path]:
        if folder.name == "locked":
            raise PermissionError(13, "Permission denied")
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", refusing)
    with pytest.raises(SourceError, match="locked cannot be read: Permission denied; mend"):
        picture_files(tmp_path)
