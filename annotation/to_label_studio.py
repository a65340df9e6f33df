"""COCO to Label Studio: pure, proved by round trips (tests/annotation/test_round_trip.py)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from annotation.labels import CHOICES, CROWD, IDENTIFIABLE, IMAGE, OCCLUDED, TAGS, result_type
from annotation.regions import (
    Brush,
    Point,
    Polygon,
    Shape,
    Size,
    Turned,
    clipped_points,
    shape_to_value,
)
from anonymization.taxonomy import KEYPOINT_NAMES, ClassSpec, Taxonomy
from data.coco import Annotation

TURNED = "turned_box"
"""Attribute of a turned rectangle or ellipse: [centre x, centre y, width, height, degrees]."""
NOT_VISIBLE, VISIBLE = 1, 2
"""COCO's visibility of a keypoint that was labelled."""


def annotations_to_results(
    annotations: Iterable[Annotation],
    taxonomy: Taxonomy,
    size: Size,
    *,
    scores: Mapping[int, float] | None = None,
    keypoints: bool = True,
) -> list[dict[str, Any]]:
    """Return the `result` of a prediction or annotation that shows these objects.

    An object in several pieces becomes several regions that name the first as their parent, as
    do the keypoints of a person. Holes and run lengths become a brush. A class whose geometry is
    a box or an ellipse keeps that, whatever outline came with it; a box that should have been an
    outline becomes its four corners.

    Args:
        annotations: Objects of one picture.
        taxonomy: Gives each class its geometry.
        size: The picture's size.
        scores: Confidence by annotation id.
        keypoints: Whether the project has keypoints.
    """
    results: list[dict[str, Any]] = []
    for annotation in annotations:
        spec = taxonomy[annotation.class_name]
        score = (scores or {}).get(annotation.id)
        name = f"object-{annotation.id}"
        for number, shape in enumerate(annotation_to_shapes(annotation, spec, size)):
            parent = name if number else None
            region = f"{name}-{number}" if number else name
            results += _region(region, shape, annotation.class_name, size, parent, score)
            results += [] if number else _choices(results[-1], annotation)
        if keypoints and annotation.keypoints and annotation.class_name == taxonomy.keypoint_class:
            results += _keypoints(annotation, size, name)
    return results


def annotation_to_shapes(annotation: Annotation, spec: ClassSpec, size: Size) -> list[Shape]:
    """Return the regions that show one object, without its keypoints."""
    x0, y0, x1, y1 = annotation.box_xyxy
    upright = Turned("box", (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0)
    turned = annotation.attributes.get(TURNED)
    shape = upright if turned is None else Turned("box", *(float(v) for v in turned))
    segmentation = annotation.segmentation
    if spec.geometry == "ellipse":
        return [Turned("ellipse", shape.x, shape.y, shape.width, shape.height, shape.degrees)]
    if spec.geometry == "box" and (turned is not None or not isinstance(segmentation, list)):
        return [shape]
    if isinstance(segmentation, dict):
        from pycocotools import mask as coco_mask

        rle = annotation.rle(height=size.height, width=size.width)
        return [Brush(np.asarray(coco_mask.decode(rle), dtype=bool))]
    if segmentation:
        found = [_polygon(flat, size) for flat in segmentation]
        return [polygon for polygon in found if polygon.points] or [Polygon(upright.corners())]
    return [Polygon(shape.corners())]


def _polygon(flat: list[float], size: Size) -> Polygon:
    points = tuple((float(x), float(y)) for x, y in zip(flat[::2], flat[1::2], strict=True))
    return Polygon(clipped_points(points, size))


def _region(
    region: str, shape: Shape, label: str, size: Size, parent: str | None, score: float | None
) -> list[dict[str, Any]]:
    kind, value = shape_to_value(shape, size)
    values: dict[str, Any] = {
        "id": region,
        "type": result_type(kind),
        "from_name": kind,
        "to_name": IMAGE,
        "original_width": size.width,
        "original_height": size.height,
        "image_rotation": 0,
        "value": {**value, TAGS[kind].lower(): [label]},
    }
    if parent is not None:
        values["parentID"] = parent
    if score is not None:
        values["score"] = round(score, 4)
    return [values]


def _choice(region: Mapping[str, Any], name: str, meaning: bool) -> list[dict[str, Any]]:
    """Say something of a region: a result of its own under the region's id."""
    words = [word for word, value in CHOICES[name] if value is meaning]
    if not words:
        return []
    shape = {k: v for k, v in region["value"].items() if k not in ("rle", "format")}
    shape = {k: v for k, v in shape.items() if not k.endswith("labels")}
    about = {k: region[k] for k in ("id", "to_name", "original_width", "original_height")}
    return [
        about
        | {"type": "choices", "from_name": name, "image_rotation": 0}
        | {"value": {**shape, "choices": words}}
    ]


def _choices(region: Mapping[str, Any], annotation: Annotation) -> list[dict[str, Any]]:
    found = []
    identifiable = annotation.attributes.get("identifiable")
    if isinstance(identifiable, bool):
        found += _choice(region, IDENTIFIABLE, identifiable)
    occluded = annotation.attributes.get("occluded")
    if occluded is not None:
        found += _choice(region, OCCLUDED, bool(occluded))
    if annotation.crowd:
        found += _choice(region, CROWD, True)
    return found


def _keypoints(annotation: Annotation, size: Size, parent: str) -> list[dict[str, Any]]:
    results = []
    for name, (x, y, visibility) in zip(KEYPOINT_NAMES, annotation.keypoints or (), strict=True):
        if visibility:
            region = f"{parent}-{name}"
            made = _region(region, Point(x, y), name, size, parent, None)
            if visibility == NOT_VISIBLE:
                made += _choice(made[0], OCCLUDED, True)
            results += made
    return results
