"""Documents: the finds of a picture as JSON, written by this tool, edited by a person, read back.

One document per picture, or several under `pictures` in one file; `docs/detections.schema.json`
is its schema. Boxes are `x0, y0, x1, y1`, half-open, in pixels of the upright picture. What a
person draws (polygons, masks, rotated boxes) is hidden whatever shape the class has.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anonymization.detection.finds import NUM_KEYPOINTS, Detections
from anonymization.drawing import drawn_outline, numbers, rings_of
from anonymization.errors import BlurloopError
from anonymization.obscuring.region import Outline
from anonymization.obscuring.shapes import MASK_THRESHOLD, class_spec, region
from anonymization.panorama.gpano import EQUIRECTANGULAR, FISHEYE, PERSPECTIVE
from anonymization.taxonomy import ClassSpec, Taxonomy

SCHEMA_VERSION = 1
_DOCUMENT_KEYS = ("schema_version", "picture", "finds", "bundle")
PROJECTIONS = (PERSPECTIVE, EQUIRECTANGULAR, FISHEYE)
_PICTURE_KEYS = ("name", "width", "height", "projection", "sha256")
_FIND_KEYS = (
    "id",
    "class",
    "score",
    "box",
    "merged_box",
    "rotated_box",
    "polygons",
    "outline_box",
    "rle",
    "keypoints",
    "source",
    "spared_by",
)


class KnownRegionsError(BlurloopError):
    """A file of known regions is missing, cannot be understood, or is for another picture."""


@dataclass(frozen=True)
class KnownFinds:
    """What is known of one picture.

    Attributes:
        detections: The finds.
        outlines: Exact pixels of those that a person drew, by position.
    """

    detections: Detections
    outlines: Mapping[int, Outline] = field(default_factory=dict)


def check_version(values: Any, where: Path) -> None:
    """Raise `KnownRegionsError` where a document is of another version."""
    version = values.get("schema_version") if isinstance(values, Mapping) else None
    if version != SCHEMA_VERSION:
        raise KnownRegionsError(
            f"{where} has schema_version {version!r}; expected {SCHEMA_VERSION}"
        )


def picture_of(values: Any, where: Path) -> Mapping[str, Any]:
    """Return what a document says of its picture; raise `KnownRegionsError` without it."""
    picture = values.get("picture") if isinstance(values, Mapping) else None
    if not isinstance(picture, Mapping):
        raise KnownRegionsError(f"{where}: picture is {picture!r}; expected name, width and height")
    return picture


def projection_in(values: Any, where: Path) -> str | None:
    """Return how a document says that its picture was looked at; None where it does not.

    Raises:
        KnownRegionsError: If that is none of `PROJECTIONS`.
    """
    stated = picture_of(values, where).get("projection")
    if stated is None or stated in PROJECTIONS:
        return stated
    raise KnownRegionsError(
        f"{where}: picture has projection {stated!r}; expected one of {', '.join(PROJECTIONS)}"
    )


def document_to_finds(
    values: Any,
    taxonomy: Taxonomy,
    *,
    width: int,
    height: int,
    where: Path = Path("document"),
    projection: str = PERSPECTIVE,
) -> KnownFinds:
    """Check a document completely and build its finds.

    Args:
        values: What the JSON holds.
        taxonomy: Classes that finds may have.
        width: Columns of the upright picture.
        height: Rows of the upright picture.
        where: What to call it in errors.
        projection: How the picture is looked at, one of `PROJECTIONS`: what is drawn in an
            equirectangular one goes on beyond its columns.

    Raises:
        KnownRegionsError: With the find, counted from 1, and the key that is wrong. Or if the
            document was written of a picture that was looked at otherwise: what goes on beyond
            the columns of a panorama would be cut off.
    """
    picture = picture_of(values, where)
    if "schema_version" in values:
        check_version(values, where)
    _only_known(values, _DOCUMENT_KEYS, f"{where}")
    _only_known(picture, _PICTURE_KEYS, f"{where}: picture")
    size = (picture.get("width"), picture.get("height"))
    if None in size:
        lacking = " and ".join(key for key in ("width", "height") if picture.get(key) is None)
        raise KnownRegionsError(
            f"{where}: picture has no {lacking}; this one has {width}x{height} pixels (upright)"
        )
    if size != (width, height):
        raise KnownRegionsError(
            f"{where} is for a picture of {size[0]}x{size[1]} pixels; "
            f"this one has {width}x{height} (upright)"
        )
    stated = projection_in(values, where)
    if stated not in (None, projection):
        raise KnownRegionsError(
            f"{where} is of a picture that was looked at as {stated}, and this run looks at it as "
            f"{projection}; leave --projection out, or correct `projection` of `picture`"
        )
    wraps = projection == EQUIRECTANGULAR
    listed = values.get("finds")
    if not isinstance(listed, list):
        raise KnownRegionsError(f"{where}: finds is {listed!r}; expected a list")
    parts: list[Detections] = []
    outlines: dict[int, Outline] = {}
    for number, value in enumerate(listed, 1):
        try:
            found = _find(value, taxonomy, width, height, wraps=wraps)
            if stated is None and not wraps:
                _refuse_beyond(value, found, width)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise KnownRegionsError(f"{where}: find {number} cannot be read: {error}") from error
        for part, outline in found:
            if outline is not None:
                outlines[len(parts)] = outline
            parts.append(part)
    return KnownFinds(Detections.concatenate(parts), outlines)


def _refuse_beyond(
    value: Mapping[str, Any], found: Sequence[tuple[Detections, Outline | None]], width: int
) -> None:
    """Refuse what reaches beyond the columns of a picture of which nobody said that it is flat.

    Of a panorama it would be cut off, and stay visible on the other side.
    """
    boxes = np.concatenate([[*part.boxes_xyxy, *part.merged_xyxy] for part, _ in found])
    columns = [*boxes[:, 0], *boxes[:, 2], *(x for ring in rings_of(value) for x in ring[:, 0])]
    low, high = np.nanmin(columns), np.nanmax(columns)
    if low < -1 or high > width + 1:
        raise ValueError(
            f"it takes columns {low:g} to {high:g} of a picture of {width}, which is looked at as "
            f"flat; give --projection {EQUIRECTANGULAR} if it is a panorama, or add "
            f'"projection": "{PERSPECTIVE}" to `picture` if it is flat'
        )


def _only_known(values: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    for key in values:
        if key not in known:
            raise KnownRegionsError(f"{what} has key {key!r}; known: {', '.join(known)}")


def _find(
    value: Any, taxonomy: Taxonomy, width: int, height: int, *, wraps: bool
) -> list[tuple[Detections, Outline | None]]:
    """Return the find; two where its outline crosses a panorama's seam and its box does not."""
    if not isinstance(value, Mapping):
        raise ValueError(f"it is {value!r}; expected an object")
    for key in value:
        if key not in _FIND_KEYS:
            raise ValueError(f"it has key {key!r}; known: {', '.join(_FIND_KEYS)}")
    name = taxonomy.resolve(str(value["class"])) if "class" in value else None
    if name is None:
        raise ValueError(f"class is {value.get('class')!r}; known: {', '.join(taxonomy.names)}")
    score = numbers([value.get("score", 1.0)], 1, "score")[0]
    if not 0 <= score <= 1:
        raise ValueError(f"score is {score}; expected a number from 0 to 1")
    outline = drawn_outline(value, width, height, wraps=wraps)
    if "box" in value:
        box = _box(value["box"], width, height, wraps=wraps)
    elif outline is not None:
        box = [float(v) for v in outline.box_xyxy]
    else:
        raise ValueError("it has neither box, rotated_box, polygons nor rle")
    if outline is not None and "box" in value and value.get("outline_box") != value["box"]:
        columns = (-width, 2 * width) if wraps else (0, width)
        outline = _with_box(outline, box, taxonomy[name], columns, height)
    keypoints = None
    if value.get("keypoints") is not None:
        rows = [numbers(point, 3, "keypoint") for point in value["keypoints"]]
        if len(rows) != NUM_KEYPOINTS:
            raise ValueError(f"it has {len(rows)} keypoints; expected {NUM_KEYPOINTS}")
        keypoints = np.array([rows], np.float32)
    found = Detections.from_boxes(
        [box],
        class_ids=[taxonomy.class_id(name)],
        scores=[score],
        keypoints=keypoints,
        source=str(value.get("source", "person")),
    )
    if value.get("merged_box") is not None:
        merged = np.array([_ordered(value["merged_box"], "merged_box")], np.float32)
        found = dataclasses.replace(found, merged_xyxy=merged)
    if not wraps or outline is None:
        return [(found, outline)]
    x0, _, x1, _ = outline.box_xyxy
    crosses = x0 < min(0.0, box[0]) or x1 > max(float(width), box[2])
    if not crosses:
        return [(found, outline)]
    # By its own box it would not be copied, and by a larger one its shape would be another.
    drawn = dataclasses.replace(found, boxes_xyxy=np.array([outline.box_xyxy], np.float32))
    return [(found, None), (drawn, outline)]


def _with_box(
    outline: Outline, box: Sequence[float], spec: ClassSpec, limits: tuple[int, int], height: int
) -> Outline:
    """Return an outline with the box that a person gave beside it, or moved since it was drawn.

    Classes that are hidden along their outline are not hidden by their box.
    """
    if spec.shape not in ("outline", "rotated_box"):
        return outline
    x0, y0 = math.floor(min(box[0], outline.x0)), math.floor(min(box[1], outline.y0))
    rows, columns = outline.mask.shape
    x1 = math.ceil(max(box[2], outline.x0 + columns))
    y1 = math.ceil(max(box[3], outline.y0 + rows))
    x0, y0, x1, y1 = max(x0, limits[0]), max(y0, 0), min(x1, limits[1]), min(y1, height)
    mask = np.zeros((y1 - y0, x1 - x0), bool)
    left, top = outline.x0 - x0, outline.y0 - y0
    mask[top : top + rows, left : left + columns] = outline.mask
    left, top = max(math.floor(box[0]) - x0, 0), max(math.floor(box[1]) - y0, 0)
    mask[top : math.ceil(box[3]) - y0, left : math.ceil(box[2]) - x0] = True
    return Outline(x0, y0, mask)


def _ordered(values: Any, what: str) -> list[float]:
    """Return the sides of a box; one turned around would hide nothing inside of it."""
    x0, y0, x1, y1 = numbers(values, 4, what)
    if x1 <= x0 or y1 <= y0:
        raise ValueError(f"{what} is {values!r}; expected x0 < x1 and y0 < y1")
    return [x0, y0, x1, y1]


def _box(values: Any, width: int, height: int, *, wraps: bool) -> list[float]:
    x0, y0, x1, y1 = _ordered(values, "box")
    # Of a panorama a turn to either side is the picture once more.
    beyond = width if wraps else 0
    if x1 <= -beyond or y1 <= 0 or x0 >= width + beyond or y0 >= height:
        raise ValueError(f"box {values!r} lies outside of the picture ({width}x{height})")
    return [x0, y0, x1, y1]


def finds_to_document(
    finds: KnownFinds,
    taxonomy: Taxonomy,
    *,
    name: str,
    width: int,
    height: int,
    sha256: str,
    projection: str | None = None,
    bundle: str | None = None,
    mask_threshold: float = MASK_THRESHOLD,
    spared: Mapping[int, str] | None = None,
) -> dict[str, Any]:
    """Return the document of a picture's finds, which reads back as the same regions.

    Finds are numbered from 1 (`id`), for the reader: who adds one needs to give it none.

    Args:
        finds: What was found.
        taxonomy: Its classes.
        name: Path of the picture below its input folder, with `/`.
        width: Columns of the upright picture.
        height: Rows of the upright picture.
        sha256: Of the picture's file.
        projection: How the picture was looked at, one of `PROJECTIONS`; None leaves it out.
        bundle: Digest of the bundle that found them.
        mask_threshold: Least probability of a pixel of an outline.
        spared: Name of the region that spares a find, by position.
    """
    detections = finds.detections
    rows = []
    for index in range(len(detections)):
        row: dict[str, Any] = {
            "id": index + 1,
            "class": taxonomy.names[int(detections.class_ids[index])],
            "score": round(float(detections.scores[index]), 6),
            "box": _plain(detections.boxes_xyxy[index]),
        }
        if not np.isnan(detections.merged_xyxy[index, 0]):
            row["merged_box"] = _plain(detections.merged_xyxy[index])
        polygons = _polygons(finds, index, taxonomy, width, height, mask_threshold)
        if polygons:
            row["polygons"] = polygons
            row["outline_box"] = row["box"]
        if np.isfinite(detections.keypoints[index]).all():
            row["keypoints"] = [_plain(np.round(point, 2)) for point in detections.keypoints[index]]
        row["source"] = detections.sources[index]
        if spared and index in spared:
            row["spared_by"] = spared[index]
        rows.append(row)
    picture: dict[str, Any] = {"name": name, "width": width, "height": height}
    if projection is not None:
        picture["projection"] = projection
    picture["sha256"] = sha256
    return {
        "schema_version": SCHEMA_VERSION,
        "picture": picture,
        "bundle": bundle,
        "finds": rows,
    }


def _plain(values: NDArray[np.float32]) -> list[float]:
    """Return the shortest decimals that read back as the same 32-bit numbers.

    >>> _plain(np.float32([0.1, 700.25]))
    [0.1, 700.25]
    """
    return [float(str(value)) for value in values]


def document_text(document: Mapping[str, Any]) -> str:
    """Return a document as a person reads and edits it: JSON with one find on each line.

    >>> print(document_text({"schema_version": 1, "picture": {"width": 9}, "finds": [{"id": 1}]}))
    {
     "schema_version": 1,
     "picture": {"width": 9},
     "finds": [
      {"id": 1}
     ]
    }
    <BLANKLINE>

    Raises:
        ValueError: If it holds NaN or infinity.
    """
    parts = []
    for key, value in document.items():
        text = json.dumps(value, allow_nan=False)
        if key == "finds" and value:
            rows = ",\n".join("  " + json.dumps(find, allow_nan=False) for find in value)
            text = f"[\n{rows}\n ]"
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _polygons(
    finds: KnownFinds,
    index: int,
    taxonomy: Taxonomy,
    width: int,
    height: int,
    mask_threshold: float,
) -> list[list[list[float]]]:
    """Return the outline of one find as polygons, without margin.

    A find whose true shape is the ellipse in its box has none unless its outline is obscured: a
    face is hidden by its ellipse, and a polygon would be hidden besides.
    """
    spec = class_spec(finds.detections, index, taxonomy)
    by_mask = np.isfinite(finds.detections.masks[index]).all() and (
        spec.geometry != "ellipse" or spec.shape in ("outline", "rotated_box")
    )
    if index in finds.outlines:
        drawn: Outline | None = finds.outlines[index]
    elif by_mask:
        plain = dataclasses.replace(spec, shape="outline", margin=0.0, feather=0.0)
        alone = dataclasses.replace(
            finds.detections, merged_xyxy=np.full_like(finds.detections.merged_xyxy, np.nan)
        )
        where = region(
            alone, index, plain, height=height, width=width, mask_threshold=mask_threshold
        )
        mask = where.full
        drawn = Outline(where.x0, where.y0, mask) if mask.any() else None
    else:
        drawn = None
    if drawn is None:
        return []
    contours, _ = cv2.findContours(
        drawn.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    shift = np.array([drawn.x0 + 0.5, drawn.y0 + 0.5])
    rings = [(contour.reshape(-1, 2) + shift).tolist() for contour in contours]
    # One or two pixels make no polygon; a third corner on the same spot lets them be read back.
    return [ring + [ring[-1]] * max(0, 3 - len(ring)) for ring in rings]
