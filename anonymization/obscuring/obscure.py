"""Obscuring: every find of a picture, in order.

Pure code over arrays. `shapes` says where an object is hidden, `replacement` what takes the place
of its pixels; here is in which order, and how both are mixed into the picture.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anonymization.detection.finds import Detections, ShapeError
from anonymization.obscuring.generator import FaceGenerator
from anonymization.obscuring.groups import Group, together
from anonymization.obscuring.region import FULL, Outline, Region
from anonymization.obscuring.replacement import (
    TOP,
    CellNoise,
    drawn_on,
    plate_on,
    replacement,
)
from anonymization.obscuring.shapes import (
    MASK_THRESHOLD,
    NO_OUTLINES,
    Find,
    largest_first,
    region_of,
)
from anonymization.taxonomy import Taxonomy

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Pixels = NDArray[Any]

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
    in_place: bool = False,
) -> Pixels:
    """Return the picture with every find obscured as its class says.

    Larger objects come first, and each works on what is already obscured: where objects overlap,
    nothing that one hid comes back with the next. What lies inside of what is hidden at least as
    coarsely is left at that (`obscured_regions`), and what is blurred and overlaps is blurred as
    one (`together`). What is drawn, and takes nothing from the
    picture, comes last.

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
        in_place: Whether the pixels given, which lie in rows in memory, are changed, in place of a
            copy of them.

    Raises:
        ShapeError: If the pixels are of another type or shape, or a class is not in the taxonomy;
            or if they cannot be changed in place.
        InferenceError: If a generator fails.
    """
    if pixels.dtype not in (np.uint8, np.uint16, np.float32) or pixels.ndim not in (2, 3):
        raise ShapeError(
            f"pixels are {pixels.dtype} {pixels.shape}; "
            "expected uint8, uint16 or float32, (H, W[, C])"
        )
    if in_place and not (pixels.flags.c_contiguous and pixels.flags.writeable):
        raise ShapeError("pixels that are changed in place must be writeable and C-contiguous")
    random = _own_noise() if seed is None else np.random.default_rng(seed)
    noise = CellNoise(pixels, random, cmyk=cmyk)
    done: Pixels = pixels if in_place else np.array(pixels, order="C")
    drawn: list[tuple[Find, Region, FaceGenerator | None]] = []
    averaged: list[tuple[Find, Region]] = []
    for find, where in obscured_regions(
        detections,
        taxonomy,
        *pixels.shape[:2],
        mask_threshold=mask_threshold,
        outlines=outlines,
    ):
        if regions is not None:
            regions.append(where)
        generator = None
        if generators:
            generator = generators.get(taxonomy.names[int(detections.class_ids[find.position])])
        if generator is not None or find.spec.method == "synthetic":
            drawn.append((find, where, generator))
        else:
            averaged.append((find, where))
    for group in together(averaged):
        _hide(done, group, noise)
    # Last, or an average beside a drawn plate would take on its colour.
    for number, (find, where, generator) in enumerate(drawn):
        if generator is None:
            picture = plate_on(where, random)
        else:
            rows = detections.boxes_xyxy[find.position, 1::2]
            picture = generator.face_for(where, _hidden_box(find), rows=rows)
        # A second find on the same plate or face would else put a smaller one into its middle.
        place = where.without([region for _, region, _ in drawn[:number]])
        crop = done[where.slices]
        blend(crop, drawn_on(crop, picture, noise), place)
    return done


def _hide(done: Pixels, group: Group, noise: CellNoise) -> None:
    """Put one replacement in the place of all finds of a group, in place."""
    crop = done[group.y0 : group.y1, group.x0 : group.x1]
    hidden = replacement(crop, group.method, group.cell, noise)
    for where in _united(group):
        rows, columns = where.shape
        top, left = where.y0 - group.y0, where.x0 - group.x0
        blend(done[where.slices], hidden[top : top + rows, left : left + columns], where)


def _united(group: Group) -> list[Region]:
    """Return the regions of a group, those without a faded edge as one: most of them overlap."""
    sharp = [where for where in group.regions if where.faded is None]
    if len(sharp) < 2:
        return group.regions
    union = np.zeros((group.y1 - group.y0, group.x1 - group.x0), np.bool_)
    for where in sharp:
        rows, columns = where.shape
        top, left = where.y0 - group.y0, where.x0 - group.x0
        union[top : top + rows, left : left + columns] |= where.full
    faded = [where for where in group.regions if where.faded is not None]
    return [Region(group.x0, group.y0, union), *faded]


_OF_THREAD = threading.local()
if hasattr(os, "register_at_fork"):  # a child must not draw what its parent draws
    os.register_at_fork(after_in_child=lambda: setattr(_OF_THREAD, "noise", None))


def _own_noise() -> np.random.Generator:
    """Return this thread's noise, drawn from the system once: that takes as long as an object."""
    noise: np.random.Generator | None = getattr(_OF_THREAD, "noise", None)
    if noise is None:
        noise = _OF_THREAD.noise = np.random.default_rng()
    return noise


def obscured_regions(
    detections: Detections,
    taxonomy: Taxonomy,
    height: int,
    width: int,
    *,
    mask_threshold: float = MASK_THRESHOLD,
    outlines: Mapping[int, Outline] = NO_OUTLINES,
) -> Iterator[tuple[Find, Region]]:
    """Yield each find that is obscured and its region, the largest first.

    A find all of whose pixels one before it replaces in cells at least as large is left out: a
    plate in a car, a part found beside the whole.
    """
    before: list[tuple[float, Region]] = []
    for find in largest_first(detections, taxonomy, height, width, outlines=outlines):
        if any(coarse >= find.cell and where.holds(*find.grid) for coarse, where in before):
            continue
        where = region_of(find, detections, mask_threshold=mask_threshold)
        if where.empty:
            continue
        if len(before) < HOLDERS_MAX:
            before.append((find.cell, where))
        yield find, where


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


def _hidden_box(find: Find) -> Floats:
    """Return the box around all that is hidden of one find, with its margin; float32 (4,)."""
    left, top, right, bottom = zip(*find.extent, strict=True)
    low = min(left) - find.margin, min(top) - find.margin
    high = max(right) + find.margin, max(bottom) + find.margin
    return np.array([*low, *high], np.float32)


def blend(crop: Pixels, hidden: Pixels, where: Region) -> None:
    """Mix into a part of the picture by weight; exactly `hidden` where the weight is 1."""
    if where.faded is None:
        _put(hidden, where, crop)
    elif crop.dtype != np.float32:
        _mix(hidden, where.faded, crop)
    else:
        weight = where.weight
        mixed = cv2.blendLinear(hidden, crop, weight, 1 - weight).reshape(crop.shape)
        _put(mixed, Region(where.x0, where.y0, where.touched), crop)
        # What was no number before is one now.
        _put(hidden, Region(where.x0, where.y0, where.full), crop)


def _mix(hidden: Pixels, faded: Bytes, crop: Pixels) -> None:
    """Mix whole numbers into a part of the picture, in place; exact where the weight is 0 or full.

    What a pixel loses is taken away, then what it gains is added: no sum leaves the type's range.
    With weights of whole numbers OpenCV takes a fifth of the time that `blendLinear` takes.
    """
    top = TOP[crop.dtype]
    weight: Pixels = faded if top == FULL else faded * crop.dtype.type(top // FULL)
    channels = 1 if crop.ndim == 2 else crop.shape[2]
    if channels == 3:
        weight = cv2.cvtColor(weight, cv2.COLOR_GRAY2RGB)
    elif channels > 1:
        weight = cv2.merge([weight] * channels)
    # NumPy adds: OpenCV takes 4 us for a call whatever the size.
    crop -= cv2.multiply(crop, weight, scale=1 / top).reshape(crop.shape)
    crop += cv2.multiply(hidden, weight, scale=1 / top).reshape(crop.shape)


def _put(values: Pixels, where: Region, crop: Pixels) -> None:
    """Write values into a part of the picture, in place, where a region is full."""
    if where.whole:
        crop[...] = values
        return
    # Ten times as fast as assigning through a bool index.
    if cv2.copyTo(values, where.full.view(np.uint8), crop) is not crop:
        full = where.full.reshape(*where.shape, *[1] * (crop.ndim - 2))
        np.copyto(crop, values, where=full)
