"""Obscuring: every find of a picture, in order.

Pure code over arrays. `shapes` says where an object is hidden, `replacement` what takes the place
of its pixels; here is in which order, and how both are mixed into the picture.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anonymization.detection.finds import Detections, ShapeError
from anonymization.obscuring.figures import FULL
from anonymization.obscuring.generator import FaceGenerator
from anonymization.obscuring.replacement import (
    cell_px,
    drawn_on,
    full_scale,
    plate_on,
    replacement,
)
from anonymization.obscuring.shapes import (
    MASK_THRESHOLD,
    Outline,
    Region,
    bounds,
    region,
    shorter_side,
)
from anonymization.taxonomy import ClassSpec, Taxonomy

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Pixels = NDArray[Any]

NO_OUTLINES: Mapping[int, Outline] = MappingProxyType({})
NO_GENERATORS: Mapping[str, FaceGenerator] = MappingProxyType({})

HOLDERS_MAX = 64
"""Largest objects of a picture that are asked whether they hide a smaller one already: enough for
a street, and few enough that a crowd of a thousand does not compare each with each."""


def obscure(
    pixels: Pixels,
    detections: Detections,
    taxonomy: Taxonomy,
    *,
    mask_threshold: float = MASK_THRESHOLD,
    seed: int | None = None,
    outlines: Mapping[int, Outline] = NO_OUTLINES,
    cmyk: bool = False,
    generators: Mapping[str, FaceGenerator] = NO_GENERATORS,
    regions: list[Region] | None = None,
) -> Pixels:
    """Return the picture with every find obscured as its class says.

    Larger objects come first, and each works on what is already obscured: where objects overlap,
    nothing that one hid comes back with the next. What lies inside of what is hidden at least as
    coarsely is left at that (`obscured_regions`).

    Args:
        pixels: uint8, uint16 or float32, shape (H, W) or (H, W, C), any colour model.
        detections: What to hide.
        taxonomy: How; classes with method `none` stay.
        mask_threshold: Least probability of a pixel of an outline.
        seed: Makes the noise repeatable, for tests and reports. None draws it from the system,
            so that nobody can subtract it.
        outlines: Exact pixels of finds, by position, where a person drew them.
        cmyk: Whether four channels are inks; else the fourth is alpha.
        generators: What draws the replacement, by class name; of other classes, the method.
        regions: Where each region that is obscured is added.

    Raises:
        ShapeError: If the pixels are of another type or shape, or a class is not in the taxonomy.
        InferenceError: If a generator fails.
    """
    if pixels.dtype not in (np.uint8, np.uint16, np.float32) or pixels.ndim not in (2, 3):
        raise ShapeError(
            f"pixels are {pixels.dtype} {pixels.shape}; "
            "expected uint8, uint16 or float32, (H, W[, C])"
        )
    done: Pixels = np.array(pixels, order="C")
    noise = _own_noise() if seed is None else np.random.default_rng(seed)
    scale = full_scale(pixels)
    drawn: list[Region] = []
    for index, where in obscured_regions(
        detections,
        taxonomy,
        *pixels.shape[:2],
        mask_threshold=mask_threshold,
        outlines=outlines,
    ):
        if regions is not None:
            regions.append(where)
        spec = class_spec(detections, index, taxonomy)
        crop = done[where.slices]
        class_name = taxonomy.names[int(detections.class_ids[index])] if generators else ""
        generator = generators.get(class_name)
        if generator is not None:
            extent = _extent(detections, index, spec, outlines)
            rows = detections.boxes_xyxy[index, 1::2]
            face = generator.face_for(where, extent, rows=rows)
            hidden = drawn_on(crop, face, scale, cmyk=cmyk)
        elif spec.method == "synthetic":
            hidden = drawn_on(crop, plate_on(where, noise), scale, cmyk=cmyk)
        else:
            side = hidden_side(detections, index, outlines)
            hidden = replacement(crop, spec, side, noise, scale=scale)
        if generator is not None or spec.method == "synthetic":
            drawn.append(where)
            where = _not_in(drawn[:-1], where)
        _blend(crop, hidden, where)
    return done


_OF_THREAD = threading.local()
if hasattr(os, "register_at_fork"):  # a child must not draw what its parent draws
    os.register_at_fork(after_in_child=lambda: setattr(_OF_THREAD, "noise", None))


def _own_noise() -> np.random.Generator:
    """Return this thread's noise, drawn from the system once: that takes as long as an object."""
    noise: np.random.Generator | None = getattr(_OF_THREAD, "noise", None)
    if noise is None:
        noise = _OF_THREAD.noise = np.random.default_rng()
    return noise


def _not_in(drawn: list[Region], where: Region) -> Region:
    """Return a region without the pixels that another hides fully for which something was drawn.

    A second find on the same plate or face would else put a smaller one into its middle.
    """
    full = where.full.copy()
    faded = None if where.faded is None else where.faded.copy()
    height, width = full.shape
    for other in drawn:
        x, y = other.x0 - where.x0, other.y0 - where.y0
        rows, columns = other.full.shape
        top, left = max(y, 0), max(x, 0)
        bottom, right = min(y + rows, height), min(x + columns, width)
        if top < bottom and left < right:
            hides = other.full[top - y : bottom - y, left - x : right - x]
            full[top:bottom, left:right][hides] = False
            if faded is not None:
                faded[top:bottom, left:right][hides] = 0
    return replace(where, full=full, faded=faded)


def obscured_regions(
    detections: Detections,
    taxonomy: Taxonomy,
    height: int,
    width: int,
    *,
    mask_threshold: float = MASK_THRESHOLD,
    outlines: Mapping[int, Outline] = NO_OUTLINES,
) -> Iterator[tuple[int, Region]]:
    """Yield position and region of each find that is obscured, the largest first.

    A find all of whose pixels one before it replaces in cells at least as large is left out: a
    plate in a car, a part found beside the whole.
    """
    before: list[tuple[float, Region]] = []
    for index in _largest_first(detections):
        spec = class_spec(detections, index, taxonomy)
        if spec.method == "none":
            continue
        outline = outlines.get(index)
        within = bounds(detections, index, spec, height=height, width=width, outline=outline)
        cell = cell_px(spec, hidden_side(detections, index, outlines))
        if any(coarse >= cell and _holds(where, within) for coarse, where in before):
            continue
        where = region(
            detections,
            index,
            spec,
            height=height,
            width=width,
            mask_threshold=mask_threshold,
            outline=outline,
            within=within,
        )
        if not where.full.size:
            continue
        if len(before) < HOLDERS_MAX:
            before.append((cell, where))
        yield index, where


def _holds(where: Region, box: tuple[int, int, int, int]) -> bool:
    """Tell whether a region replaces all of a part of the picture: x0, y0, x1, y1, half-open."""
    left, top = box[0] - where.x0, box[1] - where.y0
    right, bottom = box[2] - where.x0, box[3] - where.y0
    rows, columns = where.full.shape
    if left < 0 or top < 0 or right > columns or bottom > rows:
        return False
    return bool(where.full[top:bottom, left:right].all())


def obscured_mask(
    detections: Detections,
    taxonomy: Taxonomy,
    height: int,
    width: int,
    *,
    mask_threshold: float = MASK_THRESHOLD,
    outlines: Mapping[int, Outline] = NO_OUTLINES,
) -> Bools:
    """Return the pixels that `obscure` replaces fully, by whatever class; bool, shape (H, W)."""
    union = np.zeros((height, width), bool)
    for _, where in obscured_regions(
        detections, taxonomy, height, width, mask_threshold=mask_threshold, outlines=outlines
    ):
        union[where.slices] |= where.full
    return union


def class_spec(detections: Detections, index: int, taxonomy: Taxonomy) -> ClassSpec:
    """Return how the class of one find is obscured.

    Raises:
        ShapeError: If the taxonomy has no class of that position.
    """
    position = int(detections.class_ids[index])
    if position >= len(taxonomy.names):
        raise ShapeError(
            f"find {index} has class id {position}; the taxonomy has {len(taxonomy.names)} classes"
        )
    return taxonomy[taxonomy.names[position]]


def hidden_side(
    detections: Detections, index: int, outlines: Mapping[int, Outline] = NO_OUTLINES
) -> float:
    """Return the side in pixels that the strength of one find is relative to.

    The shorter side of its box; of the box merged with it and of what a person drew where those
    are larger, or a large face drawn around a small box would come out in cells for a small one.
    """
    side = shorter_side(detections.boxes_xyxy[index])
    merged = shorter_side(detections.merged_xyxy[index])
    side = side if math.isnan(merged) else max(side, merged)
    drawn = outlines.get(index)
    return side if drawn is None else max(side, shorter_side(drawn.box_xyxy))


def _extent(
    detections: Detections, index: int, spec: ClassSpec, outlines: Mapping[int, Outline]
) -> Floats:
    """Return the box around all that is hidden of one find, with its margin; float32 (4,)."""
    boxes = [detections.boxes_xyxy[index], detections.merged_xyxy[index]]
    drawn = outlines.get(index)
    boxes += [] if drawn is None else [drawn.box_xyxy]
    margin = spec.margin * max(shorter_side(boxes[0]), 0.0)
    low = np.fmin.reduce(boxes)[:2] - margin
    high = np.fmax.reduce(boxes)[2:] + margin
    return np.asarray(np.concatenate([low, high]), np.float32)


def _largest_first(detections: Detections) -> list[int]:
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in detections.boxes_xyxy.tolist()]
    return sorted(range(len(areas)), key=areas.__getitem__, reverse=True)


def _blend(crop: Pixels, hidden: Pixels, where: Region) -> None:
    """Mix into a part of the picture by weight; exactly `hidden` where the weight is 1."""
    if where.faded is None:
        _put(hidden, where.full, crop)
    elif crop.dtype == np.float32:
        weight = where.weight
        mixed = cv2.blendLinear(hidden, crop, weight, 1 - weight).reshape(crop.shape)
        _put(mixed, where.touched, crop)
        _put(hidden, where.full, crop)  # what was no number before is one now
    else:
        _mix(hidden, where.faded, crop)


def _mix(hidden: Pixels, faded: Bytes, crop: Pixels) -> None:
    """Mix whole numbers into a part of the picture, in place; exact where the weight is 0 or full.

    With weights of whole numbers OpenCV takes a fifth of the time that `blendLinear` takes.
    """
    top = int(np.iinfo(crop.dtype).max)
    weight: Pixels = faded if top == FULL else faded * crop.dtype.type(top // FULL)
    channels = 1 if crop.ndim == 2 else crop.shape[2]
    if channels == 3:
        weight = cv2.cvtColor(weight, cv2.COLOR_GRAY2RGB)
    elif channels > 1:
        weight = cv2.merge([weight] * channels)
    new = cv2.multiply(hidden, weight, scale=1 / top)
    old = cv2.multiply(crop, cv2.bitwise_not(weight), scale=1 / top)
    if cv2.add(new, old, dst=crop) is not crop:
        crop[...] = cv2.add(new, old).reshape(crop.shape)


def _put(values: Pixels, where: Bools, crop: Pixels) -> None:
    """Write values into a part of the picture, in place."""
    if where.all():
        crop[...] = values
        return
    # Ten times as fast as assigning through a bool index.
    if cv2.copyTo(values, where.view(np.uint8), crop) is not crop:
        np.copyto(crop, values, where=where.reshape(*where.shape, *[1] * (crop.ndim - 2)))
