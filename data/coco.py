"""The interchange between steps: COCO JSON, read and written here and nowhere else.

Beyond COCO, an image carries its manifest fields and its label coverage (`labelled`: classes of
which every object is labelled; `partial`: classes of which only some are; every other class is
unlabelled, not absent), and an annotation carries `attributes`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonymization.errors import BlurloopError
from anonymization.files import read_json, sha256_of_json, write_json
from anonymization.taxonomy import KEYPOINT_NAMES, ClassSpec, Taxonomy

SCHEMA_VERSION = 1


class DatasetError(BlurloopError):
    """A COCO file is wrong; the message names file, image and annotation."""


@dataclass(frozen=True)
class Annotation:
    """One labelled object.

    Attributes:
        id: Unique inside its data set.
        image_id: Image it lies in.
        class_name: Class of the taxonomy.
        box_xyxy: Absolute pixels, half-open.
        segmentation: COCO polygons (list of flat x, y lists), COCO RLE (dict with `size` and
            `counts`), or None where only the box is labelled.
        keypoints: 17 x, y, visibility triples in COCO order, or None where unlabelled.
        crowd: A region that holds several objects; ignored by metrics as COCO ignores crowds.
        attributes: `identifiable` (annotator's word, bool), `occluded` (bool or share), `source`,
            `annotator`, and whatever the source knows.
    """

    id: int
    image_id: int
    class_name: str
    box_xyxy: tuple[float, float, float, float]
    segmentation: list[list[float]] | dict[str, Any] | None = None
    keypoints: tuple[tuple[float, float, int], ...] | None = None
    crowd: bool = False
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def width(self) -> float:
        """Width of the box in pixels."""
        return self.box_xyxy[2] - self.box_xyxy[0]

    @property
    def height(self) -> float:
        """Height of the box in pixels."""
        return self.box_xyxy[3] - self.box_xyxy[1]

    def rle(self, *, height: int, width: int) -> dict[str, Any] | None:
        """Return the segmentation as compressed COCO RLE (`counts` as bytes), or None."""
        if self.segmentation is None:
            return None
        from pycocotools import mask as coco_mask

        if isinstance(self.segmentation, dict):
            counts = self.segmentation["counts"]
            if isinstance(counts, list):
                return coco_mask.frPyObjects(self.segmentation, height, width)  # type: ignore[no-any-return]
            raw = counts if isinstance(counts, bytes) else counts.encode()
            return {"size": self.segmentation["size"], "counts": raw}
        return coco_mask.merge(coco_mask.frPyObjects(self.segmentation, height, width))  # type: ignore[no-any-return]

    def mask(self, geometry: str, *, height: int, width: int) -> NDArray[np.bool_]:
        """Draw the true object in the geometry that its class has.

        Args:
            geometry: `mask` (the segmentation; the box where there is none), `box`, or
                `ellipse` (inscribed in the box).
            height: Rows of the picture.
            width: Columns of the picture.

        Returns:
            bool, shape (height, width).
        """
        rle = self.rle(height=height, width=width) if geometry == "mask" else None
        if rle is not None:
            from pycocotools import mask as coco_mask

            return coco_mask.decode(rle).astype(bool)  # type: ignore[no-any-return]
        if geometry == "ellipse":
            return ellipse_to_mask(self.box_xyxy, height=height, width=width)
        return box_to_mask(self.box_xyxy, height=height, width=width)


def is_identifiable(annotation: Annotation, spec: ClassSpec) -> bool:
    """Return the annotator's word, or where there is none what the class's size rule says.

    Raises:
        DatasetError: If the annotator's word is neither true, false nor null.
    """
    word = annotation.attributes.get("identifiable")
    if word is None:
        return spec.is_identifiable(annotation.width, annotation.height)
    if not isinstance(word, bool):
        raise DatasetError(
            f"annotation {annotation.id} of image {annotation.image_id} has identifiable "
            f"{word!r}; expected true, false or null. Correct its label"
        )
    return word


def box_to_mask(
    box_xyxy: tuple[float, float, float, float], *, height: int, width: int
) -> NDArray[np.bool_]:
    """Draw the pixels whose centre lies in a half-open box; bool, shape (height, width).

    >>> int(box_to_mask((1, 0, 3, 2), height=4, width=4).sum())
    4
    """
    x0, y0, x1, y1 = box_xyxy
    columns = (np.arange(width) + 0.5 >= x0) & (np.arange(width) + 0.5 < x1)
    rows = (np.arange(height) + 0.5 >= y0) & (np.arange(height) + 0.5 < y1)
    return rows[:, None] & columns[None, :]


def ellipse_to_mask(
    box_xyxy: tuple[float, float, float, float], *, height: int, width: int
) -> NDArray[np.bool_]:
    """Draw the pixels whose centre lies in the ellipse inscribed in a box.

    >>> int(ellipse_to_mask((0, 0, 4, 4), height=4, width=4).sum())
    12
    """
    x0, y0, x1, y1 = box_xyxy
    if x1 <= x0 or y1 <= y0:
        return np.zeros((height, width), dtype=bool)
    dx = (np.arange(width) + 0.5 - (x0 + x1) / 2) / ((x1 - x0) / 2)
    dy = (np.arange(height) + 0.5 - (y0 + y1) / 2) / ((y1 - y0) / 2)
    return dy[:, None] ** 2 + dx[None, :] ** 2 <= 1


def mask_to_rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Encode a bool mask of shape (H, W) as compressed COCO RLE with `counts` as text."""
    from pycocotools import mask as coco_mask

    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode()}


@dataclass(frozen=True)
class Image:
    """One picture of a data set.

    Attributes:
        id: Unique inside its data set.
        sha256: Identity of the picture.
        file_name: Name inside `artifacts/collected/pictures`.
        width: Pixels, after EXIF orientation.
        height: Pixels, after EXIF orientation.
        labelled: Classes of which every object is labelled.
        partial: Classes of which only some objects are labelled.
        keypoints_labelled: Whether the persons in it have keypoints.
        fields: Manifest fields (`source`, `camera`, `sequence`, ...) and attributes, flat.
    """

    id: int
    sha256: str
    file_name: str
    width: int
    height: int
    labelled: tuple[str, ...] = ()
    partial: tuple[str, ...] = ()
    keypoints_labelled: bool = False
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """Images and their annotations."""

    images: tuple[Image, ...]
    annotations: tuple[Annotation, ...]

    @cached_property
    def by_image(self) -> dict[int, tuple[Annotation, ...]]:
        """Annotations of each image id, in order; empty for images without any."""
        found: dict[int, list[Annotation]] = {image.id: [] for image in self.images}
        for annotation in self.annotations:
            found[annotation.image_id].append(annotation)
        return {image_id: tuple(group) for image_id, group in found.items()}

    def subset(self, sha256s: Iterable[str]) -> Dataset:
        """Return the images with these SHA-256s, in this data set's order."""
        wanted = set(sha256s)
        images = tuple(image for image in self.images if image.sha256 in wanted)
        ids = {image.id for image in images}
        return Dataset(images, tuple(a for a in self.annotations if a.image_id in ids))

    def to_dict(self, taxonomy: Taxonomy) -> dict[str, Any]:
        """Return the COCO form, plain types."""
        return {
            "schema_version": SCHEMA_VERSION,
            "info": {"description": "Blurloop data set"},
            "categories": [
                {"id": i + 1, "name": name}
                | ({"keypoints": KEYPOINT_NAMES} if name == taxonomy.keypoint_class else {})
                for i, name in enumerate(taxonomy.names)
            ],
            "images": [_image_to_dict(image) for image in self.images],
            "annotations": [_annotation_to_dict(a, taxonomy) for a in self.annotations],
        }

    def digest(self, taxonomy: Taxonomy) -> str:
        """Return the SHA-256 of the COCO form: same pictures and labels, same digest."""
        return sha256_of_json(self.to_dict(taxonomy))

    def write(self, path: Path, taxonomy: Taxonomy) -> None:
        """Write as COCO JSON."""
        write_json(path, self.to_dict(taxonomy), indent=None)

    @classmethod
    def read(cls, path: Path, taxonomy: Taxonomy) -> Dataset:
        """Read and check COCO JSON that a step of the loop wrote.

        Raises:
            DatasetError: If anything in it is wrong.
        """
        return cls.from_dict(read_json(path, schema_version=SCHEMA_VERSION), taxonomy, path)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], taxonomy: Taxonomy, path: Path) -> Dataset:
        """Check and build from the COCO form; `path` names the file in errors."""
        names = {c["id"]: c["name"] for c in _list(values, "categories", path)}
        images = tuple(_image_from_dict(i, taxonomy, path) for i in _list(values, "images", path))
        sizes = {image.id: image for image in images}
        if len(sizes) != len(images):
            raise DatasetError(f"{path}: two images share an id")
        annotations = tuple(
            _annotation_from_dict(a, names, sizes, taxonomy, path)
            for a in _list(values, "annotations", path)
        )
        if len({a.id for a in annotations}) != len(annotations):
            raise DatasetError(f"{path}: two annotations share an id")
        return cls(images, annotations)


def _list(values: Mapping[str, Any], key: str, path: Path) -> list[Any]:
    found = values.get(key)
    if not isinstance(found, list):
        raise DatasetError(f"{path}: {key!r} is not a list; expected COCO JSON")
    return found


def _image_to_dict(image: Image) -> dict[str, Any]:
    return {
        "id": image.id,
        "sha256": image.sha256,
        "file_name": image.file_name,
        "width": image.width,
        "height": image.height,
        "labelled": list(image.labelled),
        "partial": list(image.partial),
        "keypoints_labelled": image.keypoints_labelled,
        "fields": image.fields,
    }


def _image_from_dict(values: Mapping[str, Any], taxonomy: Taxonomy, path: Path) -> Image:
    where = f"{path}: image {values.get('id')}"
    try:
        image = Image(
            id=int(values["id"]),
            sha256=str(values["sha256"]),
            file_name=str(values["file_name"]),
            width=int(values["width"]),
            height=int(values["height"]),
            labelled=tuple(values["labelled"]),
            partial=tuple(values["partial"]),
            keypoints_labelled=bool(values["keypoints_labelled"]),
            fields=dict(values["fields"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{where}: {error!r}") from error
    if image.width < 1 or image.height < 1:
        raise DatasetError(f"{where}: size {image.width}x{image.height} is empty")
    unknown = [name for name in (*image.labelled, *image.partial) if name not in taxonomy.classes]
    if unknown:
        raise DatasetError(
            f"{where}: labelled class {unknown[0]!r} is not in the taxonomy; "
            f"known classes: {', '.join(taxonomy.names)}"
        )
    return image


def _annotation_to_dict(annotation: Annotation, taxonomy: Taxonomy) -> dict[str, Any]:
    x0, y0, x1, y1 = annotation.box_xyxy
    values: dict[str, Any] = {
        "id": annotation.id,
        "image_id": annotation.image_id,
        "category_id": taxonomy.class_id(annotation.class_name) + 1,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": (x1 - x0) * (y1 - y0),
        "segmentation": [] if annotation.segmentation is None else annotation.segmentation,
        "iscrowd": int(annotation.crowd),
        "attributes": annotation.attributes,
    }
    if annotation.keypoints is not None:
        values["keypoints"] = [v for point in annotation.keypoints for v in point]
        values["num_keypoints"] = sum(point[2] > 0 for point in annotation.keypoints)
    return values


def _annotation_from_dict(
    values: Mapping[str, Any],
    names: Mapping[int, str],
    images: Mapping[int, Image],
    taxonomy: Taxonomy,
    path: Path,
) -> Annotation:
    where = f"{path}: image {values.get('image_id')}, annotation {values.get('id')}"
    try:
        name = names[values["category_id"]]
        x, y, width, height = (float(v) for v in values["bbox"])
        flat = values.get("keypoints")
        annotation = Annotation(
            id=int(values["id"]),
            image_id=int(values["image_id"]),
            class_name=name,
            box_xyxy=(x, y, x + width, y + height),
            segmentation=values.get("segmentation") or None,
            keypoints=None if not flat else keypoints_from_flat(flat),
            crowd=bool(values.get("iscrowd", 0)),
            attributes=dict(values.get("attributes") or {}),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{where}: {error!r}") from error
    if name not in taxonomy.classes:
        raise DatasetError(
            f"{where} has class {name!r}; known classes: {', '.join(taxonomy.names)}. "
            "Correct the label, or add the class in conf/taxonomy"
        )
    if annotation.image_id not in images:
        raise DatasetError(f"{where}: no such image")
    if not all(math.isfinite(v) for v in annotation.box_xyxy) or width <= 0 or height <= 0:
        raise DatasetError(f"{where}: box {values['bbox']} is empty or not finite")
    segmentation = annotation.segmentation
    image = images[annotation.image_id]
    if isinstance(segmentation, dict) and list(segmentation.get("size", [])) != [
        image.height,
        image.width,
    ]:
        raise DatasetError(
            f"{where}: mask size {segmentation.get('size')}; "
            f"the picture has {[image.height, image.width]}"
        )
    return annotation


def keypoints_from_flat(flat: list[float]) -> tuple[tuple[float, float, int], ...]:
    """Group COCO's flat list of 51 numbers into 17 (x, y, visibility) triples.

    Raises:
        ValueError: If there are not 51 numbers, or a visibility is not 0, 1 or 2.
    """
    if len(flat) != 3 * len(KEYPOINT_NAMES):
        raise ValueError(f"{len(flat)} keypoint numbers; expected {3 * len(KEYPOINT_NAMES)}")
    points = tuple(
        (float(flat[i]), float(flat[i + 1]), int(flat[i + 2])) for i in range(0, len(flat), 3)
    )
    if any(point[2] not in (0, 1, 2) for point in points):
        raise ValueError("a keypoint visibility is not 0, 1 or 2")
    return points
