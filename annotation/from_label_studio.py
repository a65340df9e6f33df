"""Label Studio to COCO: the regions of one person's annotation of one picture, pure.

What people get wrong in passing (an empty region, a keypoint that belongs to nobody) is left out
and named, so that the picture comes back to them; what nobody can have meant (a label that the
taxonomy lacks, another picture's size) is an error.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation.brush import BrushError
from annotation.labels import CHOICES, CROWD, IDENTIFIABLE, KINDS, OCCLUDED, TAGS
from annotation.regions import (
    Box,
    Brush,
    Point,
    Points,
    Polygon,
    Shape,
    Size,
    Turned,
    clipped_points,
    value_to_shape,
)
from annotation.regions import rounded as _rounded
from annotation.to_label_studio import NOT_VISIBLE, TURNED, VISIBLE
from anonymization.errors import BlurloopError
from anonymization.taxonomy import KEYPOINT_NAMES, Taxonomy
from data.coco import Annotation, mask_to_rle

_LABELS = "labels"
_MIN_SIDE_PX = 0.5
"""A region with a shorter side is a click, not an object."""


class ResultError(BlurloopError):
    """An annotation in Label Studio cannot be taken as it is."""


@dataclass(frozen=True)
class Labels:
    """What one annotation says of one picture.

    Attributes:
        objects: Objects with ids from 1, in the order in which they were drawn.
        problems: What was left out and why, one sentence each.
        lost: Whether something left out may have been an object.
    """

    objects: tuple[Annotation, ...]
    problems: tuple[str, ...] = ()
    lost: bool = False


@dataclass
class _Region:
    """One region with what was said of it; an empty one has no shape, and may join others."""

    id: str
    label: str
    shape: Shape | None
    place: str
    parents: set[str] = field(default_factory=set)
    words: dict[str, bool] = field(default_factory=dict)


@dataclass
class _Reading:
    """Gathers regions and problems of one annotation."""

    where: str
    taxonomy: Taxonomy
    size: Size
    regions: dict[str, _Region] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    lost: bool = False


def results_to_labels(
    results: Sequence[Mapping[str, Any]], taxonomy: Taxonomy, size: Size, *, where: str
) -> Labels:
    """Turn the `result` of an annotation into objects.

    Pieces of one object are joined by the parent that they name, or by a relation; a keypoint
    belongs to the person that it names so, else to the only person around it.

    Args:
        results: Of one annotation, as Label Studio exports it.
        taxonomy: Classes; aliases count as their class.
        size: The picture's size after EXIF orientation.
        where: Names task and annotation in errors.

    Raises:
        ResultError: If a label is unknown, a region was drawn on another size, or a region
            cannot be read.
    """
    reading = _Reading(where, taxonomy, size)
    for result in results:
        _read_region(result, reading)
    for result in results:
        _read_words(result, reading)
    parts = {i: r for i, r in reading.regions.items() if not isinstance(r.shape, Point)}
    objects: list[Annotation] = []
    owners: dict[str, int] = {}
    for group in _groups(parts):
        found = _object(group, reading, number=len(objects) + 1)
        if found is not None:
            objects.append(found)
            owners |= {region.id: found.id for region in group}
    objects = _with_keypoints(objects, owners, reading)
    return Labels(tuple(objects), tuple(reading.problems), reading.lost)


def _read_region(result: Mapping[str, Any], reading: _Reading) -> None:
    kind = KINDS.get(str(result.get("type")))
    if kind is None:
        if result.get("type") not in ("choices", "relation"):
            raise ResultError(
                f"{reading.where} has a region of type {result.get('type')!r}; expected one of "
                f"{', '.join(KINDS)}. Draw it with a tool of the project's configuration"
            )
        return
    region = str(result.get("id"))
    label = _label(result, kind, reading)
    if label is None:
        reading.problems.append(f"region {_place(result)} has no label")
        reading.lost = True
        return
    _check_size(result, reading)
    try:
        shape = value_to_shape(kind, result["value"], reading.size)
    except (KeyError, TypeError, ValueError, BrushError) as error:
        raise ResultError(
            f"{reading.where}, region {_place(result, label)}: {error}. Delete the region in Label "
            "Studio and draw it again"
        ) from error
    parent = result.get("parentID")
    parents = {str(parent)} if parent else set()
    place = _place(result, label)
    reading.regions[region] = _Region(
        region, label, None if _is_empty(shape) else shape, place, parents
    )


def _label(result: Mapping[str, Any], kind: str, reading: _Reading) -> str | None:
    value = result.get("value") or {}
    labels = value.get(TAGS[kind].lower()) or value.get(_LABELS) or []
    if not labels:
        return None
    label = str(labels[0])
    if kind == "keypoint":
        if label not in KEYPOINT_NAMES:
            raise ResultError(_unknown(reading, label, KEYPOINT_NAMES))
        return label
    known = reading.taxonomy.resolve(label)
    if known is None:
        raise ResultError(_unknown(reading, label, reading.taxonomy.names))
    return known


def _unknown(reading: _Reading, label: str, known: Iterable[str]) -> str:
    return (
        f"{reading.where} has label {label!r}; known labels: {', '.join(known)}. Correct it in "
        "Label Studio, or add the class in conf/taxonomy"
    )


def _place(result: Mapping[str, Any], label: str | None = None) -> str:
    """Name a region for people: its id, which shows once it is selected, its label, its place."""
    said = [label] if label else []
    value = result.get("value") or {}
    points = value.get("points") or [[value.get("x"), value.get("y")]]
    try:
        left, top = (sum(float(point[axis]) for point in points) / len(points) for axis in (0, 1))
    except (IndexError, KeyError, TypeError, ValueError):  # a brush, or no place at all
        pass
    else:
        said.append(f"at {left:.0f} % from the left, {top:.0f} % from the top")
    return f"{result.get('id')}" + (f" ({', '.join(said)})" if said else "")


def _check_size(result: Mapping[str, Any], reading: _Reading) -> None:
    region = _place(result)
    size = (result.get("original_width"), result.get("original_height"))
    if size != (reading.size.width, reading.size.height):
        raise ResultError(
            f"{reading.where}, region {region}: drawn on a picture of {size[0]}x{size[1]}; the "
            f"collected one has {reading.size.width}x{reading.size.height} after EXIF "
            "orientation. Let Label Studio serve the collected file, and draw the region again"
        )
    if result.get("image_rotation"):
        raise ResultError(
            f"{reading.where}, region {region}: drawn on the picture turned by "
            f"{result['image_rotation']} degrees. Turn it back in Label Studio"
        )


def _is_empty(shape: Shape) -> bool:
    if isinstance(shape, Brush):
        return not shape.mask.any()
    if isinstance(shape, Polygon):
        return len(shape.points) < 3 or _area(shape) < _MIN_SIDE_PX**2
    return isinstance(shape, Turned) and min(shape.width, shape.height) < _MIN_SIDE_PX


def _area(polygon: Polygon) -> float:
    x, y = np.asarray(polygon.points).T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)


def _read_words(result: Mapping[str, Any], reading: _Reading) -> None:
    if result.get("type") == "relation":
        one, other = str(result.get("from_id")), str(result.get("to_id"))
        if one in reading.regions and other in reading.regions:
            reading.regions[one].parents.add(other)
            reading.regions[other].parents.add(one)
        return
    region = reading.regions.get(str(result.get("id")))
    name = str(result.get("from_name"))
    if result.get("type") != "choices" or region is None or name not in CHOICES:
        return
    meanings = dict(CHOICES[name])
    for word in (result.get("value") or {}).get("choices") or []:
        if word not in meanings:
            raise ResultError(
                f"{reading.where}, region {_place(result)}: {name} is {word!r}; expected "
                f"{' or '.join(meanings)}. Choose again in Label Studio"
            )
        region.words[name] = meanings[word]


def _groups(parts: Mapping[str, _Region]) -> list[list[_Region]]:
    """Join the pieces of each object: regions of one class that name each other."""
    roots = {region: region for region in parts}

    def root(region: str) -> str:
        while roots[region] != region:
            region = roots[region]
        return region

    order = {region: number for number, region in enumerate(parts)}
    for region in parts.values():
        for parent in region.parents:
            if parent in parts and parts[parent].label == region.label:
                one, other = sorted((root(region.id), root(parent)), key=order.__getitem__)
                roots[other] = one
    found: dict[str, list[_Region]] = defaultdict(list)
    for region in parts.values():
        found[root(region.id)].append(region)
    return list(found.values())


def _object(group: Sequence[_Region], reading: _Reading, *, number: int) -> Annotation | None:
    words = {name: value for region in reversed(group) for name, value in region.words.items()}
    attributes: dict[str, Any] = {
        name: words[name] for name in (IDENTIFIABLE, OCCLUDED) if name in words
    }
    shapes = [region.shape for region in group if region.shape is not None]
    if not shapes:
        reading.problems += [f"region {region.place} is empty" for region in group]
        return None
    geometry = reading.taxonomy[group[0].label].geometry
    segmentation: list[list[float]] | dict[str, Any] | None = None
    if all(isinstance(shape, Polygon) for shape in shapes):
        pieces = [_flat(s.points, reading.size) for s in shapes if isinstance(s, Polygon)]
        segmentation = [piece for piece in pieces if piece]
        box = _box_of_points(segmentation)
    elif len(shapes) == 1 and isinstance(shapes[0], Turned):
        shape = shapes[0]
        box = shape.box_xyxy()
        if shape.is_turned:
            values = (shape.x, shape.y, shape.width, shape.height, shape.degrees)
            attributes[TURNED] = [_rounded(value) for value in values]
        piece = _flat(shape.outline(), reading.size)
        if not piece:  # past a corner of the picture, where its upright box is not
            box = (0.0, 0.0, 0.0, 0.0)
        elif geometry != "ellipse" and (shape.is_turned or shape.kind == "ellipse"):
            segmentation = [piece]
    else:
        mask = union(shapes, reading.size)
        segmentation = mask_to_rle(mask)
        box = _box_of_mask(mask)
    box = clipped(box, reading.size)
    if box[2] - box[0] < _MIN_SIDE_PX or box[3] - box[1] < _MIN_SIDE_PX:
        reading.problems.append(
            f"region {group[0].id} ({group[0].label}) lies outside of the picture"
        )
        return None
    return Annotation(
        id=number,
        image_id=0,
        class_name=group[0].label,
        box_xyxy=box,
        segmentation=segmentation,
        crowd=words.get(CROWD, False),
        attributes=attributes,
    )


def union(shapes: Iterable[Shape], size: Size) -> NDArray[np.bool_]:
    """Draw what any of the shapes covers; bool, shape (H, W)."""
    from pycocotools import mask as coco_mask

    drawn = np.zeros((size.height, size.width), dtype=bool)
    for shape in shapes:
        if isinstance(shape, Brush):
            drawn |= shape.mask
        elif isinstance(shape, Polygon | Turned):
            points = shape.points if isinstance(shape, Polygon) else shape.outline()
            flat = _flat(points, size)
            if flat:
                rles = coco_mask.frPyObjects([flat], size.height, size.width)
                drawn |= np.asarray(coco_mask.decode(coco_mask.merge(rles)), dtype=bool)
    return drawn


def clipped(box: Box, size: Size) -> Box:
    """Return the part of a box that lies in the picture."""
    x0, y0, x1, y1 = (_rounded(value) for value in box)
    width, height = float(size.width), float(size.height)
    return (max(x0, 0.0), max(y0, 0.0), min(x1, width), min(y1, height))


def _flat(points: Points, size: Size) -> list[float]:
    """Return x, y, x, y, ... of the part of an outline that lies in the picture."""
    return [_rounded(value) for point in clipped_points(points, size) for value in point]


def _box_of_points(polygons: Iterable[Sequence[float]]) -> Box:
    flat = [np.asarray(polygon) for polygon in polygons]
    if not flat:
        return (0.0, 0.0, 0.0, 0.0)
    x, y = (np.concatenate([polygon[start::2] for polygon in flat]) for start in (0, 1))
    return (float(x.min()), float(y.min()), float(x.max()), float(y.max()))


def _box_of_mask(mask: NDArray[np.bool_]) -> Box:
    if not mask.any():
        return (0.0, 0.0, 0.0, 0.0)
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return (
        float(columns[0]),
        float(rows[0]),
        float(columns[-1] + 1),
        float(rows[-1] + 1),
    )


def _with_keypoints(
    objects: Sequence[Annotation], owners: Mapping[str, int], reading: _Reading
) -> list[Annotation]:
    """Give each keypoint to its person; one that belongs to nobody is named as a problem."""
    points: dict[int, dict[str, tuple[float, float, int]]] = defaultdict(dict)
    persons = [o for o in objects if o.class_name == reading.taxonomy.keypoint_class]
    for region in reading.regions.values():
        shape = region.shape
        if not isinstance(shape, Point):
            continue
        named = {owners[p] for p in region.parents if p in owners} & {o.id for o in persons}
        around = {
            o.id for o in persons if _holds(o.box_xyxy, shape) and region.label not in points[o.id]
        }
        candidates = named or around
        if len(candidates) != 1:
            reason = "lies on no person" if not candidates else "may be of several persons"
            reading.problems.append(f"keypoint {region.label} ({region.id}) {reason}")
            continue
        owner = candidates.pop()
        if region.label in points[owner]:
            reading.problems.append(f"keypoint {region.label} ({region.id}) is drawn twice")
            continue
        visibility = NOT_VISIBLE if region.words.get(OCCLUDED) else VISIBLE
        points[owner][region.label] = (shape.x, shape.y, visibility)
    return [_placed(each, points.get(each.id)) for each in objects]


def _holds(box: Box, point: Point) -> bool:
    return box[0] <= point.x <= box[2] and box[1] <= point.y <= box[3]


def _placed(
    annotation: Annotation, points: Mapping[str, tuple[float, float, int]] | None
) -> Annotation:
    if not points:
        return annotation
    row = tuple(points.get(name, (0.0, 0.0, 0)) for name in KEYPOINT_NAMES)
    return replace(annotation, keypoints=row)
