"""A COCO data set: `annotations.json` beside its pictures.

Beyond COCO, `info.labelled` names the categories of which every object is labelled and
`info.partial` those of which only some are. Where neither is given, all categories of the file
count as labelled. Annotations are taken to refer to the picture as it is displayed, EXIF
orientation applied, and a declared size that differs from the displayed one leaves the picture
out: its labels would lie in the wrong place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from anonymization.files import FileError, read_json, sha256_of_file, sha256_of_json
from data.manifest import Picture
from data.sources.coco_objects import annotation_to_object
from data.sources.listing import MISSING, Digests, is_inside, is_past, read_bytes
from data.sources.protocol import Entry, Found, Labels, SourceError, UnreadableEntryError

ANNOTATIONS = "annotations.json"
OUTSIDE = "outside"
_MANIFEST_FIELDS = {f.name for f in fields(Picture)} - {"sha256", "source", "origin", "turn"}
_COCO_FIELDS = {"id", "file_name", "width", "height", "keypoints_labelled", "license", "split_hint"}


def coco_folders(root: Path) -> list[Path]:
    """Return the COCO sets of a folder: itself, or those of its subfolders that are one.

    Raises:
        SourceError: If there is none.
    """
    if (root / ANNOTATIONS).is_file():
        return [root]
    found = sorted(path.parent for path in root.glob(f"*/{ANNOTATIONS}"))
    if not found:
        raise SourceError(
            f"{root} holds no COCO set; expected {ANNOTATIONS} in it or in its subfolders"
        )
    return found


@dataclass(frozen=True)
class _Record:
    """One image of the file with its checked labels."""

    values: dict[str, Any]
    labels: Labels

    @property
    def size(self) -> tuple[int, int]:
        return self.values["width"], self.values["height"]


class CocoSource:
    """One COCO set.

    Args:
        root: Folder that holds `annotations.json`; its name is part of the source's identity.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.id = f"coco-{root.name}"
        self._parsed: dict[str, _Record] | None = None

    def survey(self) -> dict[str, Any]:
        """List the pictures that the file names, with their digests, and the file's own."""
        digests = Digests()
        entries = [
            [name, digests.of_or_missing(self._root / name) if is_inside(name) else OUTSIDE]
            for name, record in sorted(self._records().items())
            if not is_past(record.values.get("retain_until"))
        ]
        digests.save()
        return {"entries": entries, "annotations": sha256_of_file(self._root / ANNOTATIONS)}

    def entries(self, surveyed: Mapping[str, Any]) -> list[Entry]:
        """Return one entry per surveyed picture.

        Raises:
            SourceError: If the annotation file changed since the survey.
        """
        if sha256_of_file(self._root / ANNOTATIONS) != surveyed["annotations"]:
            raise SourceError(f"{self._root / ANNOTATIONS} changed since the survey; run again")
        records = self._records()
        return [Entry(name, sha256, _digest(records[name])) for name, sha256 in surveyed["entries"]]

    def part(self, entries: Sequence[Entry]) -> CocoSource:
        """Return a source that knows the labels of these entries alone."""
        part = CocoSource(self._root)
        records = self._records()
        part._parsed = {entry.origin: records[entry.origin] for entry in entries}
        return part

    def read(self, entry: Entry) -> Found:
        """Read one picture; its labels were read with the file."""
        if entry.key == MISSING:
            raise UnreadableEntryError(f"named by {ANNOTATIONS}, but there is no such file here")
        record = self._records()[entry.origin]
        content = read_bytes(self._root, entry.origin)
        return Found(content, _manifest_fields(record.values), record.labels, record.size)

    def _records(self) -> dict[str, _Record]:
        if self._parsed is None:
            self._parsed = _parse(self._root / ANNOTATIONS)
        return self._parsed


def _digest(record: _Record) -> str:
    facts = [_manifest_fields(record.values), record.labels.to_dict(), record.size]
    return sha256_of_json(facts)


def _parse(path: Path) -> dict[str, _Record]:
    try:
        values = read_json(path)
    except FileError as error:
        raise SourceError(str(error)) from error
    categories = _categories(values, path)
    info = _checked_info(values.get("info") or {}, set(categories.values()), path)
    licences = _licences(values.get("licenses"))
    grouped = _grouped(values, path)
    records: dict[str, _Record] = {}
    for image in values["images"]:
        name = _checked_image(image, path)
        if name in records:
            raise SourceError(f"{path}: two images name the file {name!r}; give each its own")
        image = _with_licence(image, licences)
        labels = _labels(image, grouped[image["id"]], categories, info)
        records[name] = _Record(image, labels)
    return records


def _licences(listed: object) -> dict[Any, str]:
    """Return the name or address of each licence by its id, which means nothing in other sets."""
    rows = [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
    found = ((row.get("id"), row.get("name") or row.get("url")) for row in rows)
    return {
        key: name for key, name in found if isinstance(key, int | str) and isinstance(name, str)
    }


def _with_licence(image: dict[str, Any], licences: Mapping[Any, str]) -> dict[str, Any]:
    given = image.get("license")
    known = licences.get(given) if isinstance(given, int | str) else None
    return image if known is None else {**image, "license": known}


def _checked_info(info: object, names: set[str], path: Path) -> Mapping[str, Any]:
    if not isinstance(info, dict):
        raise SourceError(f"{path}: info is {type(info).__name__}; expected an object")
    for key in ("labelled", "partial"):
        given = info.get(key)
        if given is None:
            continue
        if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
            raise SourceError(f"{path}: info.{key} is {given!r}; expected a list of categories")
        if not names.issuperset(given):
            raise SourceError(
                f"{path}: info.{key} names {sorted(set(given) - names)}; "
                f"the file's categories are {', '.join(sorted(names))}"
            )
    return info


def _categories(values: object, path: Path) -> dict[Any, str]:
    keys = ("images", "annotations", "categories")
    if not isinstance(values, dict) or not all(isinstance(values.get(k), list) for k in keys):
        raise SourceError(f"{path} is not COCO: expected lists under {', '.join(keys)}")
    try:
        categories = {c["id"]: str(c["name"]) for c in values["categories"]}
    except (KeyError, TypeError) as error:
        raise SourceError(f"{path}: a category lacks its id or name: {error!r}") from error
    if len(categories) != len(values["categories"]):
        raise SourceError(f"{path}: two categories share an id")
    return categories


def _grouped(values: Mapping[str, Any], path: Path) -> dict[Any, list[dict[str, Any]]]:
    try:
        grouped: dict[Any, list[dict[str, Any]]] = {image["id"]: [] for image in values["images"]}
        if len(grouped) != len(values["images"]):
            raise SourceError(f"{path}: two images share an id")
        for annotation in values["annotations"]:
            grouped[annotation["image_id"]].append(annotation)
    except (KeyError, TypeError) as error:
        raise SourceError(
            f"{path}: an image or annotation lacks its id, or names no image: {error!r}"
        ) from error
    return grouped


def _checked_image(image: Mapping[str, Any], path: Path) -> str:
    where = f"{path}: image {image['id']}"
    name = image.get("file_name")
    if not isinstance(name, str) or not name:
        raise SourceError(f"{where} has file_name {name!r}; expected a path")
    for side in ("width", "height"):
        if not isinstance(image.get(side), int) or image[side] < 1:
            raise SourceError(f"{where} has {side} {image.get(side)!r}; expected whole pixels")
    for key in ("latitude", "longitude"):
        value = image.get(key)
        if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
            raise SourceError(f"{where} has {key} {value!r}; expected degrees")
    if not isinstance(image.get("attributes") or {}, dict):
        raise SourceError(f"{where} has attributes {image['attributes']!r}; expected an object")
    until = image.get("retain_until")
    try:
        is_past(until)
    except (TypeError, ValueError) as error:
        raise SourceError(f"{where} has retain_until {until!r}; expected YYYY-MM-DD") from error
    return name


def _labels(
    image: Mapping[str, Any],
    annotations: list[dict[str, Any]],
    categories: Mapping[Any, str],
    info: Mapping[str, Any],
) -> Labels:
    partial = set(info.get("partial") or [])
    default = [name for name in categories.values() if name not in partial]
    labelled = set(info["labelled"] if info.get("labelled") is not None else default)
    objects, problems = [], []
    for annotation in annotations:
        label = None
        try:
            label = categories.get(annotation.get("category_id"))
            if label is None:
                raise ValueError(f"unknown category {annotation.get('category_id')!r}")
            size = {"width": image["width"], "height": image["height"]}
            objects.append(annotation_to_object(annotation, label, **size))
        except (TypeError, ValueError) as error:
            problems.append(f"annotation {annotation.get('id')}: {error}")
            # An object that had to be left out is still in the picture: its class is no longer
            # completely labelled there.
            incomplete = labelled if label is None else labelled & {label}
            labelled, partial = labelled - incomplete, partial | incomplete
    keypoints = any(o.keypoints is not None for o in objects)
    return Labels(
        objects=tuple(objects),
        labelled=tuple(sorted(labelled)),
        partial=tuple(sorted(partial)),
        keypoints_labelled=bool(image.get("keypoints_labelled", keypoints)),
        problems=tuple(problems),
    )


def _manifest_fields(image: Mapping[str, Any]) -> dict[str, Any]:
    known = {k: v for k, v in image.items() if k in _MANIFEST_FIELDS - _COCO_FIELDS}
    attributes = dict(known.pop("attributes", None) or {})
    taken = _MANIFEST_FIELDS | _COCO_FIELDS
    attributes |= {k: v for k, v in image.items() if k not in taken and _is_plain(v)}
    if image.get("license") is not None and "licence" not in known:
        known["licence"] = str(image["license"])
    return known | {"attributes": attributes}


def _is_plain(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return isinstance(value, str | int | float | bool)
