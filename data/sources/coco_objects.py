"""One annotation of a foreign COCO file, checked completely before anything believes it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from anonymization.taxonomy import KEYPOINT_NAMES
from data.coco import keypoints_from_flat
from data.sources.protocol import LabelledObject

KEYPOINT_NUMBERS = 3 * len(KEYPOINT_NAMES)


def annotation_to_object(
    values: Mapping[str, Any], label: str, *, width: int, height: int
) -> LabelledObject:
    """Check one COCO annotation and clip its box to the picture.

    Args:
        values: The annotation as it stands in the file.
        label: Name of its category.
        width: Pixels of the displayed picture.
        height: Pixels of the displayed picture.

    Raises:
        ValueError: If it cannot be used; the message says which value is wrong.
    """
    _check_finite(values)
    attributes = values.get("attributes") or {}
    if not isinstance(attributes, dict):
        raise ValueError(f"attributes are {attributes!r}; expected an object")
    return LabelledObject(
        label=label,
        box_xyxy=_clipped_box(values.get("bbox"), width=width, height=height),
        segmentation=_segmentation(values.get("segmentation"), width=width, height=height),
        keypoints=_keypoints(values.get("keypoints")),
        crowd=bool(values.get("iscrowd", 0)),
        attributes=attributes,
    )


def _keypoints(value: object) -> list[float] | None:
    """Return COCO's 51 numbers; another skeleton (landmarks of a face, say) is left out."""
    if not value:
        return None
    if isinstance(value, list) and len(value) % 3 == 0 and len(value) != KEYPOINT_NUMBERS:
        return None
    keypoints_from_flat(value)  # type: ignore[arg-type]
    return [float(v) for v in value]  # type: ignore[attr-defined]


def _check_finite(values: Mapping[str, Any]) -> None:
    try:
        json.dumps(values, allow_nan=False)
    except ValueError as error:
        raise ValueError("holds a number that is not finite") from error


def _clipped_box(bbox: object, *, width: int, height: int) -> tuple[float, float, float, float]:
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(_is_number, bbox)):
        raise ValueError(f"box {bbox} is not four numbers")
    x, y, w, h = (float(v) for v in bbox)
    if w <= 0 or h <= 0:
        raise ValueError(f"box {bbox} is empty")
    box = (max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height)))
    if box[0] >= box[2] or box[1] >= box[3]:
        raise ValueError(f"box {bbox} lies outside the picture of {width}x{height}")
    return box


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _segmentation(
    value: object, *, width: int, height: int
) -> list[list[float]] | dict[str, Any] | None:
    if not value:
        return None
    if isinstance(value, dict):
        return _rle(value, width=width, height=height)
    if not isinstance(value, list):
        raise ValueError(f"segmentation is {type(value).__name__}; expected polygons or RLE")
    for polygon in value:
        _check_polygon(polygon, width=width, height=height)
    # A point or a line shows no outline; the box of such an object is as good as any other.
    return [polygon for polygon in value if len(polygon) >= 6] or None


def _check_polygon(polygon: object, *, width: int, height: int) -> None:
    if not isinstance(polygon, list) or not all(map(_is_number, polygon)):
        raise ValueError("a polygon is not a flat list of numbers")
    if len(polygon) % 2:
        raise ValueError(f"a polygon has {len(polygon)} numbers; expected an even count")
    if not polygon:
        return
    # Far-off corners make the rasterizer allocate memory for the whole way there.
    for values, size in ((polygon[::2], width), (polygon[1::2], height)):
        if min(values) < -size or max(values) > 2 * size:
            raise ValueError(f"a polygon reaches far outside the picture of {width}x{height}")


def _rle(value: Mapping[str, Any], *, width: int, height: int) -> dict[str, Any]:
    size, counts = value.get("size"), value.get("counts")
    if size != [height, width]:
        raise ValueError(f"mask size {size}; the picture has {[height, width]}")
    runs = counts if isinstance(counts, list) else rle_runs(str(counts))
    if not all(isinstance(n, int) and n >= 0 for n in runs) or sum(runs) != width * height:
        raise ValueError(f"mask runs do not add up to the picture's {width * height} pixels")
    if isinstance(counts, str):
        return {"size": [height, width], "counts": counts}
    from pycocotools import mask as coco_mask

    packed = coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return {"size": [height, width], "counts": packed["counts"].decode()}


def rle_runs(counts: str) -> list[int]:
    """Decode the run lengths of compressed COCO RLE, without trusting them.

    The format is pycocotools' `rleFrString`: 5 bits a character, offset 48, bit 6 continues; from
    the fourth run on the difference to the run two before.

    >>> rle_runs("62")
    [6, 2]
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"mask counts hold {character!r}; they are not compressed COCO RLE")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("mask counts end in the middle of a number")
    return runs
