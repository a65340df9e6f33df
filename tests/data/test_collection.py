"""Collection: each picture once, with its labels, and only what is new is touched."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from anonymization.formats.picture import read_picture
from anonymization.taxonomy import ClassSpec, Taxonomy
from data.coco import Dataset
from data.collection import CollectionError, State, derive
from data.layout import ANNOTATIONS, COLLECTED, MANIFEST, PICTURES
from data.manifest import Manifest
from data.sources.listing import ROOT_VARIABLE
from data.sources.opening import CollectionConfig, open_sources
from data.sources.protocol import SourceError

Run = Callable[..., State]


def dataset(taxonomy: Taxonomy) -> Dataset:
    return Dataset.read(COLLECTED / ANNOTATIONS, taxonomy)


def manifest() -> Manifest:
    return Manifest.read(COLLECTED / MANIFEST)


def test_a_second_run_touches_only_what_is_new(
    coco_set: Callable[..., Path], collected: Run
) -> None:
    coco_set([1, 2])
    collected()
    before = {p.name: p.stat().st_mtime_ns for p in PICTURES.iterdir()}
    coco_set([1, 2, 3])
    collected()
    after = {p.name: p.stat().st_mtime_ns for p in PICTURES.iterdir()}
    assert len(after) == 3
    assert before.items() <= after.items()
    assert sorted(p.turn for p in manifest().pictures) == [0, 0, 1]


def test_a_removed_picture_leaves_with_its_annotation(
    coco_set: Callable[..., Path], collected: Run, taxonomy: Taxonomy
) -> None:
    coco_set([1, 2])
    collected()
    coco_set([2])
    collected()
    assert len(list(PICTURES.iterdir())) == 1
    assert [a.image_id for a in dataset(taxonomy).annotations] == [1]


def test_an_expired_picture_leaves(coco_set: Callable[..., Path], collected: Run) -> None:
    image = {"id": 1, "file_name": "images/1.png", "width": 80, "height": 64}
    coco_set([1, 2])
    collected()
    images = [
        {**image, "retain_until": "2001-01-01"},
        {**image, "id": 2, "file_name": "images/2.png"},
    ]
    coco_set([1, 2], images=images)
    collected()
    assert [p.origin for p in manifest().pictures] == ["images/2.png"]


def test_the_second_of_two_equal_files_is_rejected_by_name(
    tmp_path: Path, draw: Callable[..., bytes], collected: Run
) -> None:
    root = tmp_path / "drive"
    root.mkdir()
    for name in ("a.png", "b.png"):
        (root / name).write_bytes(draw(1))
    collected("folder", root)
    assert [p.origin for p in manifest().pictures] == ["a.png"]
    assert [r.reason for r in manifest().rejected] == ["duplicate of folder-drive/a.png"]
    (root / "a.png").unlink()
    collected("folder", root)
    assert [(p.origin, p.turn) for p in manifest().pictures] == [("b.png", 0)]
    assert manifest().rejected == ()


def bomb() -> bytes:
    """A PNG of 60,000 x 60,000 pixels in a few hundred bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_what_cannot_be_decoded_is_listed_and_left_out(
    tmp_path: Path, draw: Callable[..., bytes], collected: Run
) -> None:
    root = tmp_path / "drive"
    root.mkdir()
    (root / "good.png").write_bytes(draw(1))
    (root / "cut.jpg").write_bytes(draw(2, kind="JPEG")[:400])
    (root / "bomb.png").write_bytes(bomb())
    (root / "text.jpg").write_text("no picture")
    (root / "empty.jpg").write_bytes(b"")
    collected("folder", root)
    assert [p.origin for p in manifest().pictures] == ["good.png"]
    assert [r.origin for r in manifest().rejected] == [
        "bomb.png",
        "cut.jpg",
        "empty.jpg",
        "text.jpg",
    ]
    assert all(r.reason for r in manifest().rejected)


def test_a_wrong_extension_is_corrected(
    tmp_path: Path, draw: Callable[..., bytes], collected: Run
) -> None:
    root = tmp_path / "drive"
    root.mkdir()
    (root / "wrong.jpg").write_bytes(draw(1))
    collected("folder", root)
    assert manifest().pictures[0].file_name.endswith(".png")


def test_a_class_is_added_by_the_taxonomy_alone(
    coco_set: Callable[..., Path], collected: Run, taxonomy: Taxonomy
) -> None:
    dog = {"id": 9, "image_id": 1, "category_id": 2, "bbox": [1, 1, 9, 9]}
    coco_set([1], annotations=[dog], info={"labelled": ["dog"]})
    state = collected()
    assert dataset(taxonomy).annotations == ()
    with_dog = Taxonomy({**taxonomy.classes, "dog": ClassSpec(geometry="mask", shape="outline")})
    derive(state, with_dog, COLLECTED)
    assert [a.class_name for a in dataset(with_dog).annotations] == ["dog"]
    assert dataset(with_dog).images[0].labelled == ("dog",)


def test_coverage_of_labels_differs_by_set(
    coco_set: Callable[..., Path], collected: Run, taxonomy: Taxonomy
) -> None:
    coco_set([1], name="complete")
    coco_set([2], name="some", info={"labelled": [], "partial": ["person"]})
    collected()
    coverage = {i.fields["source"]: (i.labelled, i.partial) for i in dataset(taxonomy).images}
    assert coverage == {"coco-complete": (("person",), ()), "coco-some": ((), ("person",))}


def test_labels_of_another_size_leave_the_picture_out(
    coco_set: Callable[..., Path], collected: Run
) -> None:
    wrong = {"id": 1, "file_name": "images/1.png", "width": 64, "height": 80}
    right = {"id": 2, "file_name": "images/2.png", "width": 80, "height": 64}
    coco_set([1, 2], images=[wrong, right])
    collected()
    assert "64x80" in manifest().rejected[0].reason
    assert [p.origin for p in manifest().pictures] == ["images/2.png"]


def test_corrected_labels_are_taken_without_a_new_picture(
    coco_set: Callable[..., Path], collected: Run, taxonomy: Taxonomy
) -> None:
    coco_set([1])
    collected()
    before = next(PICTURES.iterdir()).stat().st_mtime_ns
    coco_set([1], annotations=[{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 7, 7]}])
    collected()
    assert dataset(taxonomy).annotations[0].box_xyxy == (0, 0, 7, 7)
    assert next(PICTURES.iterdir()).stat().st_mtime_ns == before


def test_a_run_killed_before_its_state_is_mended_by_the_next(
    coco_set: Callable[..., Path], collected: Run
) -> None:
    coco_set([1, 2])
    collected()
    whole = {p.name: p.read_bytes() for p in COLLECTED.glob("*.json")}
    (COLLECTED / "manifest.json").unlink()
    (PICTURES / "half-made").write_bytes(b"x")
    collected()
    assert {p.name: p.read_bytes() for p in COLLECTED.glob("*.json")} == whole
    assert len(list(PICTURES.iterdir())) == 2


def test_nothing_usable_is_an_error(tmp_path: Path, collected: Run) -> None:
    (tmp_path / "drive").mkdir()
    with pytest.raises(CollectionError, match="folder-drive offers no picture"):
        collected("folder", tmp_path / "drive")


def test_what_was_left_out_is_named_where_nothing_is_left(
    coco_set: Callable[..., Path], collected: Run
) -> None:
    coco_set([1], images=[{"id": 1, "file_name": "1.png", "width": 80, "height": 64}])
    with pytest.raises(CollectionError, match=r"all 1 were left out.*1\.png: named by"):
        collected()


def test_a_folder_past_its_date_is_deleted_before_the_loop_stops(
    tmp_path: Path, draw: Callable[..., bytes], collected: Run
) -> None:
    (tmp_path / "drive").mkdir()
    (tmp_path / "drive/1.png").write_bytes(draw(1))
    collected("folder", tmp_path / "drive", retain_until="2999-01-01")
    assert len(list(PICTURES.iterdir())) == 1
    with pytest.raises(CollectionError, match="1 entries of the last turn, expired or gone"):
        collected("folder", tmp_path / "drive", retain_until="2001-01-01")
    assert list(PICTURES.iterdir()) == []
    assert manifest().pictures == ()


def test_a_date_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(SourceError, match=r"retain_until is '31\.12\.2026'; expected YYYY-MM-DD"):
        CollectionConfig(kind="folder", retain_until="31.12.2026")


def test_a_corrected_size_brings_the_picture_back(
    coco_set: Callable[..., Path], collected: Run
) -> None:
    image = {"id": 1, "file_name": "images/1.png", "width": 80, "height": 64}
    right = {"id": 2, "file_name": "images/2.png", "width": 80, "height": 64}
    coco_set([1, 2], images=[{**image, "width": 90}, right])
    collected()
    assert len(manifest().pictures) == 1
    coco_set([1, 2], images=[image, right])
    collected()
    assert len(manifest().pictures) == 2


def test_sets_that_label_one_picture_differently_are_joined_class_by_class(
    coco_set: Callable[..., Path], collected: Run, taxonomy: Taxonomy
) -> None:
    categories = [{"id": 1, "name": "person"}, {"id": 2, "name": "car"}]
    box = {"id": 1, "image_id": 1}
    coco_set([1], name="a", info={"labelled": ["person"], "partial": ["car"]},
             categories=categories,
             annotations=[{**box, "category_id": 1, "bbox": [5, 6, 20, 30]},
                          {**box, "id": 2, "category_id": 2, "bbox": [1, 1, 9, 9]}])  # fmt: skip
    coco_set([1], name="b", info={"labelled": ["car"], "partial": ["person"]},
             categories=categories,
             annotations=[{**box, "category_id": 1, "bbox": [5, 6, 21, 30]},
                          {**box, "id": 2, "category_id": 2, "bbox": [1, 1, 9, 9]},
                          {**box, "id": 3, "category_id": 2, "bbox": [30, 1, 9, 9]}])  # fmt: skip
    for _ in range(2):  # the second run remembers the duplicate's labels
        collected()
        (image,) = dataset(taxonomy).images
        assert (image.labelled, image.partial) == (("person", "vehicle"), ())
        boxes = [
            (a.class_name, a.box_xyxy[0], a.box_xyxy[2]) for a in dataset(taxonomy).annotations
        ]
        assert boxes == [("person", 5, 25), ("vehicle", 1, 10), ("vehicle", 30, 39)]
    assert [p.source for p in manifest().pictures] == ["coco-a"]


def test_mended_labels_leave_the_picture_to_its_owner(
    coco_set: Callable[..., Path], collected: Run, taxonomy: Taxonomy
) -> None:
    coco_set([1], name="zzz")
    collected()
    coco_set([1], name="aaa")
    mended = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 7, 7]}]
    coco_set([1], name="zzz", annotations=mended)
    collected()
    assert [p.source for p in manifest().pictures] == ["coco-zzz"]
    assert dataset(taxonomy).annotations[0].box_xyxy == (0, 0, 7, 7)


def test_a_link_to_nowhere_is_listed_and_linked_folders_are_followed_once(
    tmp_path: Path, draw: Callable[..., bytes], collected: Run
) -> None:
    for number, folder in enumerate(("drive", "elsewhere")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.png").write_bytes(draw(number))
    (tmp_path / "drive/gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "drive/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "drive")
    (tmp_path / "drive/real").mkdir()
    (tmp_path / "drive/real/2.png").write_bytes(draw(2))
    (tmp_path / "drive/alias").symlink_to(tmp_path / "drive/real")
    collected("folder", tmp_path / "drive")
    found = sorted(p.origin for p in manifest().pictures)
    assert found == ["1.png", "more/1.png", "real/2.png"]
    assert [r.origin for r in manifest().rejected] == ["gone.png"]


def test_a_missing_root_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ROOT_VARIABLE, raising=False)
    with pytest.raises(SourceError, match=ROOT_VARIABLE):
        open_sources(CollectionConfig(kind="folder"))


def test_an_unknown_kind_of_source_is_refused() -> None:
    with pytest.raises(SourceError, match="'vdieo'; expected one of street"):
        CollectionConfig(kind="vdieo")


def test_drawn_scenes_grow_without_changing(tmp_path: Path, collected: Run) -> None:
    from data.street import StreetConfig

    small = {"width": 96, "height": 64}
    first = collected("street", street=StreetConfig(scenes=2, **small))
    second = collected("street", street=StreetConfig(scenes=4, **small))
    names = [{i.picture.sha256 for i in s.items if i.picture} for s in (first, second)]
    assert names[0] < names[1]
    assert {i.source for i in first.items} == {i.source for i in second.items}
    json.dumps([i.to_dict() for i in second.items], allow_nan=False)


def test_a_picture_that_is_stored_turned_has_labels_as_it_is_displayed(
    coco_set: Callable[..., Path], collected: Run, taxonomy: Taxonomy
) -> None:
    root = coco_set([1])
    stored = np.zeros((64, 80, 3), np.uint8)
    stored[40:60, 10:30] = 255  # after a quarter turn to the right: rows 10 to 30, columns 4 to 24
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    PillowImage.fromarray(stored).save(root / "images/1.png", exif=exif)
    coco_set(
        [],
        images=[{"id": 1, "file_name": "images/1.png", "width": 64, "height": 80}],
        annotations=[{"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 10, 20, 20]}],
    )
    collected()
    (picture,) = manifest().pictures
    assert (picture.width, picture.height) == (64, 80)
    x0, y0, x1, y1 = (int(v) for v in dataset(taxonomy).annotations[0].box_xyxy)
    displayed = read_picture(PICTURES / picture.file_name).pixels
    assert displayed[y0:y1, x0:x1].min() == 255
    assert displayed.sum() == displayed[y0:y1, x0:x1].sum()


@pytest.mark.realdata
def test_real_sets_are_collected_with_what_each_of_them_labels(
    realdata: Path, tmp_path: Path, collected: Run
) -> None:
    for name in ("faces", "plates_openalpr", "street_coco"):
        values = json.loads((realdata / name / "annotations.json").read_text())
        kept = {image["id"] for image in values["images"][:6]}
        values["images"] = values["images"][:6]
        values["annotations"] = [a for a in values["annotations"] if a["image_id"] in kept]
        folder = tmp_path / "sets" / name
        folder.mkdir(parents=True)
        (folder / "images").symlink_to(realdata / name / "images")
        (folder / "annotations.json").write_text(json.dumps(values))
    state = collected()
    assert len(manifest().pictures) == 18
    by_source = {item.source: item.labels for item in state.items}
    assert "face" not in by_source["coco-street_coco"].labelled
    assert {"person", "vehicle"} <= set(by_source["coco-street_coco"].labelled)
    assert by_source["coco-faces"].labelled == ("face",)
    assert "license_plate" in by_source["coco-plates_openalpr"].partial
