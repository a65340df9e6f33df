"""COCO truth and COCO results of any detector: read, checked, and scored as COCO scores them.

Boxes are matched by array operations on all pictures at once (evaluation.metrics), masks and
keypoints by faster-coco-eval; the numbers of both equal pycocotools' (tests hold them together).
Truth may say what it labels: `labelled` and `partial` in an image or in `info`, as our own data
sets do. A class is then scored on the pictures that label it completely.
"""

from __future__ import annotations

import contextlib
import io
import math
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonymization.errors import BlurloopError
from anonymization.files import read_json
from evaluation.average_precision import BoxRows, coco_box_scores

SCORES = ("ap", "ap50", "ap75", "ar")


class CocoError(BlurloopError):
    """Truth or results cannot be measured; the message names file, image and annotation."""

    exit_code = 2


@dataclass(frozen=True)
class CocoSet:
    """A detector's finds beside the truth, checked.

    Attributes:
        images: COCO images by id, ids ascending.
        classes: Class names by category id, ids ascending.
        given: True objects as the file has them.
        detections: Finds as COCO results, each with a box.
        truth_rows: Places, boxes and areas of `given`.
        find_rows: Places, boxes and scores of `detections`.
        labelled: Ids of the images that label each category completely.
        keypoint_ids: Categories that have keypoints.
    """

    images: Mapping[int, Mapping[str, Any]]
    classes: Mapping[int, str]
    given: Sequence[dict[str, Any]]
    detections: Sequence[dict[str, Any]]
    truth_rows: BoxRows
    find_rows: BoxRows
    labelled: Mapping[int, frozenset[int]]
    keypoint_ids: frozenset[int]

    @cached_property
    def annotations(self) -> tuple[dict[str, Any], ...]:
        """True objects with mask and area; those that do not count have `iscrowd` 1."""
        return tuple(_truth(thing) for thing in self.given)

    def iou_types(self) -> tuple[str, ...]:
        """Return what the finds can be scored by: always boxes, masks and keypoints if given."""
        kinds = ["bbox"]
        if self.detections and all("segmentation" in d for d in self.detections):
            kinds.append("segm")
        if self.keypoint_ids and any("keypoints" in d for d in self.detections):
            kinds.append("keypoints")
        return tuple(kinds)


def read_coco(truth: Path, detections: Path) -> CocoSet:
    """Read and check a COCO data set and a COCO results file.

    Raises:
        CocoError: If a file is not COCO, or holds what cannot be measured.
        FileError: If a file is missing or no JSON.
    """
    return coco_set(read_json(truth), read_json(detections), names=(str(truth), str(detections)))


def coco_set(
    truth: Any, detections: Any, *, names: tuple[str, str] = ("truth", "detections")
) -> CocoSet:
    """Check COCO truth and results; `names` stand for the files in messages.

    Raises:
        CocoError: If there is no picture or no object, an id stands twice, a number is none, a
            box lies outside of its picture, or a find names an unknown picture or category.
    """
    if not isinstance(truth, Mapping) or not isinstance(truth.get("images"), list):
        raise CocoError(f"{names[0]} is no COCO data set; expected images, annotations, categories")
    if not isinstance(detections, list):
        raise CocoError(f"{names[1]} is no COCO results file; expected a list of finds")
    images = _by_id(truth["images"], names[0], "image")
    categories = _by_id(truth.get("categories", []), names[0], "category")
    given = truth.get("annotations", [])
    _by_id(given, names[0], "annotation")
    if not images or not given:
        what = "picture" if not images else "object"
        raise CocoError(f"{names[0]} holds no {what}; nothing can be measured on it")
    places = _Places(images, categories, names[0])
    named = f"{names[0]}: annotation "
    objects, truth_rows = places.rows(given, lambda i: f"{named}{given[i]['id']}", "area")
    finds, find_rows = places.rows(detections, lambda i: f"{names[1]}: find {i}", "score")
    return CocoSet(
        images=images,
        classes={i: str(category.get("name", i)) for i, category in categories.items()},
        given=objects,
        detections=finds,
        truth_rows=truth_rows,
        find_rows=find_rows,
        labelled=_labelled(truth, images, categories),
        keypoint_ids=frozenset(i for i, c in categories.items() if c.get("keypoints")),
    )


def _by_id(things: Any, name: str, what: str) -> dict[int, dict[str, Any]]:
    """Return things by ascending id; refuse what has none, and ids that stand twice."""
    if not isinstance(things, list):
        raise CocoError(f"{name}: expected a list of things with ids, one for each {what}")
    for thing in things:
        if not isinstance(thing, dict) or not isinstance(thing.get("id"), int):
            raise CocoError(f"{name}: an {what} has no id; expected a whole number")
    found = {thing["id"]: thing for thing in things}
    if len(found) < len(things):
        twice = Counter(thing["id"] for thing in things).most_common(1)[0][0]
        raise CocoError(f"{name}: {what} id {twice} stands twice; number them afresh")
    return {i: found[i] for i in sorted(found)}


class _Places:
    """The images and categories of a truth, at which its objects and finds are looked up."""

    def __init__(self, images: Mapping[int, Any], categories: Mapping[int, Any], name: str) -> None:
        self.images, self.categories = images, categories
        self.image_rows = {i: row for row, i in enumerate(images)}
        self.category_rows = {i: row for row, i in enumerate(categories)}
        sizes = [_size(image, f"{name}: image {i}") for i, image in images.items()]
        self.sizes = np.array(sizes, dtype=np.float64).reshape(-1, 2)

    def rows(
        self, things: Sequence[Any], where: Callable[[int], str], key: str
    ) -> tuple[Sequence[dict[str, Any]], BoxRows]:
        """Check annotations or finds and return them, each with a box, and as arrays.

        All are checked at once; only where that fails each by itself, to complete it or name it.
        """
        with contextlib.suppress(AttributeError, KeyError, OverflowError, TypeError):
            found = self._arrays(things, key)
            if self._right(found):
                return things, found
        for i, thing in enumerate(things):
            _check(thing, where(i), self.images, self.categories, key)
        things = [_with_box(thing) for thing in things]
        return things, self._arrays(things, key)

    def _arrays(self, things: Sequence[Any], key: str) -> BoxRows:
        """Return things as arrays; what they lack or what is no number raises."""
        boxes = [thing["bbox"] for thing in things]
        if {*map(len, boxes)} - {4}:
            raise TypeError
        values = [thing.get(key) for thing in things]
        if key == "area" and None in values:
            pairs = zip(values, boxes, strict=True)
            values = [box[2] * box[3] if value is None else value for value, box in pairs]
        pictures = (self.image_rows[thing["image_id"]] for thing in things)
        classes = (self.category_rows[thing["category_id"]] for thing in things)
        return BoxRows(
            np.fromiter(pictures, np.int64, len(boxes)),
            np.fromiter(classes, np.int64, len(boxes)),
            _numbers([*chain.from_iterable(boxes)]).reshape(-1, 4),
            _numbers(values),
        )

    def _right(self, rows: BoxRows) -> bool:
        """Return whether all numbers are finite and all boxes touch their pictures."""
        low, sides, sizes = (
            rows.boxes_xywh[:, :2],
            rows.boxes_xywh[:, 2:],
            self.sizes[rows.pictures],
        )
        known = ~np.isnan(sizes).any(axis=1, keepdims=True)
        outside = known & ((low >= sizes) | (low + sides <= 0))
        finite = np.isfinite(rows.boxes_xywh).all() and np.isfinite(rows.values).all()
        return bool(finite and (sides >= 0).all() and not outside.any())


def _numbers(values: Sequence[Any]) -> NDArray[np.float64]:
    if not all(issubclass(kind, int | float) and kind is not bool for kind in {*map(type, values)}):
        raise TypeError
    return np.array(values, dtype=np.float64)


def _size(image: Mapping[str, Any], where: str) -> tuple[float, float]:
    """Return an image's width and height in pixels, NaN where it does not say both."""
    width, height = image.get("width"), image.get("height")
    if width is None or height is None:
        return math.nan, math.nan
    if not (_is_number(width) and _is_number(height)):
        raise CocoError(f"{where} is {width!r} by {height!r}; expected pixels")
    return width, height


def _check(
    thing: Any, where: str, images: Mapping[int, Any], categories: Mapping[int, Any], key: str
) -> None:
    if not isinstance(thing, dict):
        raise CocoError(f"{where} is {thing!r}; expected an object")
    for place, known in (("image_id", images), ("category_id", categories)):
        value = thing.get(place)
        if not isinstance(value, Hashable) or value not in known:
            raise CocoError(f"{where} has {place} {value!r}, which the truth does not hold")
    value = thing.get(key)
    if not _is_number(value) and not (key == "area" and value is None):
        raise CocoError(f"{where} has {key} {value!r}; expected a number")
    box = thing.get("bbox")
    if box is None and ("segmentation" in thing or "keypoints" in thing) and key == "score":
        return
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(map(_is_number, box)):
        raise CocoError(f"{where} has bbox {box!r}; expected x, y, width, height")
    x, y, width, height = box
    if width < 0 or height < 0:
        raise CocoError(f"{where} has bbox {box!r}; width and height must not be negative")
    size = _size(images[thing["image_id"]], where)
    outside = x >= size[0] or y >= size[1] or x + width <= 0 or y + height <= 0
    if outside and not math.isnan(size[0]):
        raise CocoError(
            f"{where} has bbox {box!r} outside of image {thing['image_id']}, {size[0]}x{size[1]}; "
            "boxes are x, y, width, height in pixels of the whole picture"
        )


def _is_number(value: Any) -> bool:
    """Return whether a value is a number that float64 can hold; NaN compares false."""
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return known and bool(abs(value) <= sys.float_info.max)


def _counts(thing: Mapping[str, Any]) -> bool:
    said = thing.get("attributes")
    unidentifiable = isinstance(said, dict) and said.get("identifiable") is False
    return not (thing.get("iscrowd") or thing.get("ignore") or unidentifiable)


def _truth(thing: Mapping[str, Any]) -> dict[str, Any]:
    """Return an annotation with its area; objects that do not count become crowds."""
    points = thing.get("keypoints")
    # Where only the box is labelled, the box is the mask.
    x, y, width, height = thing["bbox"]
    area = width * height if thing.get("area") is None else thing["area"]
    outline = thing.get("segmentation") or [
        [x, y, x + width, y, x + width, y + height, x, y + height]
    ]
    counted = {} if not points else {"num_keypoints": sum(v > 0 for v in points[2::3])}
    own = {"segmentation": outline, "area": area, "iscrowd": int(not _counts(thing)), "ignore": 0}
    return {**counted, **thing, **own}


def _with_box(thing: dict[str, Any]) -> dict[str, Any]:
    """Return a thing with a box, which finds of masks or keypoints may leave out."""
    if thing.get("bbox") is not None:
        return thing
    if "segmentation" in thing:
        from pycocotools import mask as coco_mask

        return {**thing, "bbox": coco_mask.toBbox(_rle(thing["segmentation"])).tolist()}
    points = np.asarray(thing["keypoints"], dtype=np.float64).reshape(-1, 3)[:, :2]
    low, size = points.min(axis=0), np.ptp(points, axis=0)
    return {**thing, "bbox": [*low.tolist(), *size.tolist()]}


def _rle(segmentation: Any) -> Any:
    counts = segmentation["counts"]
    return {**segmentation, "counts": counts.encode() if isinstance(counts, str) else counts}


def _labelled(
    truth: Mapping[str, Any], images: Mapping[int, Any], categories: Mapping[int, Any]
) -> dict[int, frozenset[int]]:
    everywhere = (truth.get("info") or {}).get("labelled")
    names = {i: str(c.get("name", i)) for i, c in categories.items()}

    def labels(image: Mapping[str, Any], name: str) -> bool:
        known = image.get("labelled", everywhere)
        return known is None or name in known

    return {
        i: frozenset(n for n, image in images.items() if labels(image, name))
        for i, name in names.items()
    }


def coco_scores(data: CocoSet, iou_type: str = "bbox") -> dict[str, Any]:
    """Return COCO's scores: all classes together, and each by itself.

    Args:
        data: Truth and finds.
        iou_type: `bbox`, `segm`, or `keypoints` (object keypoint similarity).

    Returns:
        `all` and `classes`, by name; each with `ap`, `ap50`, `ap75` and `ar` (at most 100 finds a
        picture, 20 with keypoints); None where no object counts.
    """
    if iou_type == "bbox":
        return _summary(data, list(data.classes), _box_scored(data))
    wanted = sorted(data.keypoint_ids) if iou_type == "keypoints" else sorted(data.classes)
    groups: dict[frozenset[int], list[int]] = {}
    for category in wanted:
        groups.setdefault(data.labelled[category], []).append(category)
    by_class: dict[int, dict[str, float | None]] = {}
    for images, categories in groups.items():
        by_class |= _scored(data, iou_type, sorted(images), categories)
    return _summary(data, wanted, by_class)


def _summary(
    data: CocoSet, wanted: Sequence[int], by_class: Mapping[int, dict[str, float | None]]
) -> dict[str, Any]:
    return {
        "all": {key: _mean(by_class[i][key] for i in wanted) for key in SCORES},
        "classes": {data.classes[i]: by_class[i] for i in wanted},
    }


def _box_scored(data: CocoSet) -> dict[int, dict[str, float | None]]:
    complete = np.array(
        [[i in data.labelled[category] for i in data.images] for category in data.classes],
        dtype=bool,
    )
    crowd = np.array([not _counts(thing) for thing in data.given], dtype=bool)
    found = coco_box_scores(data.truth_rows, data.find_rows, crowd, complete)
    return dict(zip(data.classes, found, strict=True))


def _scored(
    data: CocoSet, iou_type: str, images: Sequence[int], categories: Sequence[int]
) -> dict[int, dict[str, float | None]]:
    """Score masks or keypoints of some categories on some images with faster-coco-eval."""
    from faster_coco_eval import COCO, COCOeval_faster

    chosen = set(images)
    finds = [dict(d) for d in data.detections if d["image_id"] in chosen]
    if not finds:
        return {i: _nothing_found(data, i, chosen) for i in categories}
    content = {
        "info": {},
        "images": [dict(data.images[i]) for i in images],
        "categories": [{"id": i, "name": name} for i, name in data.classes.items()],
        "annotations": [dict(a) for a in data.annotations if a["image_id"] in chosen],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(content)
        evaluator = COCOeval_faster(truth, truth.loadRes(finds), iou_type)
        asked = evaluator.params
        asked.imgIds, asked.catIds = list(images), list(categories)
        # Objects of every size, and the usual most finds of a picture: nothing else is asked for.
        asked.areaRng, asked.areaRngLbl = asked.areaRng[:1], asked.areaRngLbl[:1]
        asked.maxDets = asked.maxDets[-1:]
        evaluator.evaluate()
        evaluator.accumulate()
    # Axes: IoU thresholds, recall thresholds, classes, areas (0: all), most finds (-1: most).
    precision = evaluator.eval["precision"][:, :, :, 0, -1]
    recall = evaluator.eval["recall"][:, :, 0, -1]
    return {
        category: {
            "ap": _defined(precision[:, :, k]),
            "ap50": _defined(precision[0, :, k]),
            "ap75": _defined(precision[5, :, k]),
            "ar": _defined(recall[:, k]),
        }
        for k, category in enumerate(sorted(categories))
    }


def _nothing_found(data: CocoSet, category: int, images: set[int]) -> dict[str, float | None]:
    counts = any(
        a["category_id"] == category and a["image_id"] in images and not a["iscrowd"]
        for a in data.annotations
    )
    return dict.fromkeys(SCORES, 0.0 if counts else None)


def _defined(values: Any) -> float | None:
    """Return the mean of what COCO defines; it writes -1 where it does not."""
    known = values[values > -1]
    return float(known.mean()) if known.size else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
