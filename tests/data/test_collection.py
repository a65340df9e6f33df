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
    with pytest.raises(CollectionError, match="no usable picture in folder-drive"):
        collected("folder", tmp_path / "drive")


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
