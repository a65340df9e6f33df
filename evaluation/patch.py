"""Masks that are drawn only where they are: a crop and its place in the picture.

A full-size mask for each of 200 objects of an 8192x4096 panorama would be 6.7 GB; their crops are
a few megabytes. Pure code: no files, no configuration.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonymization.errors import BlurloopError
from data.coco import Annotation

Box = tuple[float, float, float, float]


class PatchError(BlurloopError):
    """A true object cannot be drawn in its picture."""


@dataclass(frozen=True)
class Patch:
    """A mask inside a crop.

    Attributes:
        x0: Column of the picture that the crop's first column is.
        y0: Row of the picture that the crop's first row is.
        mask: bool, shape (h, w); pixels outside the crop are False.
    """

    x0: int
    y0: int
    mask: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.mask.ndim != 2 or self.mask.dtype != np.bool_:
            raise PatchError(
                f"mask is {self.mask.dtype} of shape {self.mask.shape}; expected bool (h, w)"
            )

    @property
    def x1(self) -> int:
        """Column after the crop's last."""
        return self.x0 + self.mask.shape[1]

    @property
    def y1(self) -> int:
        """Row after the crop's last."""
        return self.y0 + self.mask.shape[0]

    @property
    def area(self) -> int:
        """Number of pixels in the mask."""
        return int(np.count_nonzero(self.mask))

    def window(self, x0: int, y0: int, x1: int, y1: int) -> NDArray[np.bool_]:
        """Return the mask's pixels in a window that lies inside the crop (a view)."""
        return self.mask[y0 - self.y0 : y1 - self.y0, x0 - self.x0 : x1 - self.x0]

    def shifted(self, columns: int) -> Patch:
        """Return it moved to the right by some columns."""
        return Patch(self.x0 + columns, self.y0, self.mask)

    def within_turn(self, turn: int) -> Patch:
        """Return it with what lies more than a turn behind its first column folded onto that."""
        if self.mask.shape[1] <= turn:
            return self
        mask = self.mask[:, :turn].copy()
        over = self.mask[:, turn : 2 * turn]
        mask[:, : over.shape[1]] |= over
        return Patch(self.x0, self.y0, mask)

    def pieces(self, width: int) -> tuple[Patch, ...]:
        """Return its parts in a picture of this width, which go on at its first column.

        Itself where it ends in the picture, as all do in flat ones.

        >>> [p.x0 for p in Patch(3, 0, np.ones((1, 3), dtype=bool)).pieces(4)]
        [3, 0]
        """
        if self.x1 <= width:
            return (self,)
        inside = max(0, width - self.x0)
        parts = (
            Patch(self.x0, self.y0, self.mask[:, :inside]),
            Patch(max(0, self.x0 - width), self.y0, self.mask[:, inside:]),
        )
        return tuple(part for part in parts if part.mask.size)


def overlap(a: Patch, b: Patch) -> tuple[int, int, int, int] | None:
    """Return the window (x0, y0, x1, y1) that two crops share, or None."""
    x0, y0 = max(a.x0, b.x0), max(a.y0, b.y0)
    x1, y1 = min(a.x1, b.x1), min(a.y1, b.y1)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def intersection(a: Patch, b: Patch) -> int:
    """Return the number of pixels in both masks.

    >>> a = Patch(0, 0, np.ones((2, 4), dtype=bool))
    >>> intersection(a, Patch(3, 1, np.ones((5, 5), dtype=bool)))
    1
    """
    window = overlap(a, b)
    if window is None:
        return 0
    return int(np.count_nonzero(a.window(*window) & b.window(*window)))


def crop_of(box_xyxy: Box, *, height: int, width: int) -> tuple[int, int, int, int] | None:
    """Return the whole-pixel window around a box, cut at the picture's edge; None outside it."""
    x0, y0 = max(0, math.floor(box_xyxy[0])), max(0, math.floor(box_xyxy[1]))
    x1, y1 = min(width, math.ceil(box_xyxy[2])), min(height, math.ceil(box_xyxy[3]))
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def box_to_patch(box_xyxy: Box, *, height: int, width: int) -> Patch | None:
    """Draw the pixels whose centre lies in a box; None where the box misses the picture.

    >>> box_to_patch((1, 0, 3, 2), height=4, width=4).area
    4
    """
    crop = crop_of(box_xyxy, height=height, width=width)
    if crop is None:
        return None
    rows, columns = _centres(crop, box_xyxy)
    inside = (abs(rows) <= 1)[:, None] & (abs(columns) <= 1)[None, :]
    # Half-open: a centre on the far edge belongs to the neighbour.
    inside &= (rows < 1)[:, None] & (columns < 1)[None, :]
    return Patch(crop[0], crop[1], inside)


def ellipse_to_patch(box_xyxy: Box, *, height: int, width: int) -> Patch | None:
    """Draw the ellipse inscribed in a box; None where the box misses the picture.

    >>> ellipse_to_patch((0, 0, 4, 4), height=4, width=4).area
    12
    """
    crop = crop_of(box_xyxy, height=height, width=width)
    if crop is None:
        return None
    rows, columns = _centres(crop, box_xyxy)
    return Patch(crop[0], crop[1], rows[:, None] ** 2 + columns[None, :] ** 2 <= 1)


def _centres(
    crop: tuple[int, int, int, int], box: Box
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return rows and columns of pixel centres, -1 and 1 being the box's edges."""
    columns = (np.arange(crop[0], crop[2]) + 0.5 - (box[0] + box[2]) / 2) / ((box[2] - box[0]) / 2)
    rows = (np.arange(crop[1], crop[3]) + 0.5 - (box[1] + box[3]) / 2) / ((box[3] - box[1]) / 2)
    return rows.astype(np.float64), columns.astype(np.float64)


def annotation_to_patch(
    annotation: Annotation, geometry: str, *, height: int, width: int, wraps: bool = False
) -> Patch:
    """Draw a true object in its class's geometry, equal to `Annotation.mask` but cropped.

    An object too thin to hold a pixel's centre counts as every pixel that it touches, so that
    nothing labelled is too small to be missed.

    Args:
        annotation: The object.
        geometry: As in `Annotation.mask`.
        height: Rows of the picture.
        width: Columns of the picture.
        wraps: Whether the last column borders on the first. An object whose box ends beyond the
            width then goes on there, and its patch ends beyond the width too.

    Raises:
        PatchError: If the object lies outside the picture.
    """
    across = wraps and annotation.box_xyxy[2] > width
    outline = _unrolled_segmentation if across else _segmentation_to_patch
    patch = outline(annotation, height, width) if geometry == "mask" else None
    if patch is None:
        draw = ellipse_to_patch if geometry == "ellipse" else box_to_patch
        patch = draw(annotation.box_xyxy, height=height, width=2 * width if across else width)
    if patch is None:
        raise PatchError(
            f"annotation {annotation.id} of image {annotation.image_id} has box "
            f"{annotation.box_xyxy} outside the picture of {width}x{height}; correct its label"
        )
    if patch.area == 0:
        return Patch(patch.x0, patch.y0, np.ones_like(patch.mask))
    return patch


def _unrolled_segmentation(annotation: Annotation, height: int, width: int) -> Patch | None:
    """Draw an outline across the seam from its box's first column on, over the width's end."""
    rle = annotation.rle(height=height, width=width)
    if rle is None:
        return None
    from pycocotools import mask as coco_mask

    _, y, _, h = (int(v) for v in coco_mask.toBbox(rle))
    x0 = math.floor(annotation.box_xyxy[0])
    columns = np.arange(x0, min(math.ceil(annotation.box_xyxy[2]), x0 + width)) % width
    mask = coco_mask.decode(rle)[y : y + h][:, columns].astype(bool)
    return Patch(x0, y, mask) if mask.any() else None


def _segmentation_to_patch(annotation: Annotation, height: int, width: int) -> Patch | None:
    """Draw the segmentation in its own crop; None where there is none or it is empty."""
    if annotation.segmentation is None:
        return None
    from pycocotools import mask as coco_mask

    if isinstance(annotation.segmentation, dict):
        rle = annotation.rle(height=height, width=width)
        x, y, w, h = (int(v) for v in coco_mask.toBbox(rle))
        if w == 0 or h == 0:
            return None
        mask = coco_mask.decode(rle)[y : y + h, x : x + w]
        return Patch(x, y, np.ascontiguousarray(mask, dtype=bool))
    points = np.concatenate([np.reshape(p, (-1, 2)) for p in annotation.segmentation])
    low, high = points.min(axis=0), points.max(axis=0)
    # One pixel more: pycocotools rounds a polygon's edge outwards.
    bounds = (low[0] - 1, low[1] - 1, high[0] + 1, high[1] + 1)
    crop = crop_of(bounds, height=height, width=width)
    if crop is None:
        return None
    x0, y0, x1, y1 = crop
    moved = [(np.reshape(p, (-1, 2)) - (x0, y0)).ravel().tolist() for p in annotation.segmentation]
    rles = coco_mask.frPyObjects(moved, y1 - y0, x1 - x0)
    mask = coco_mask.decode(coco_mask.merge(rles)).astype(bool)
    return Patch(x0, y0, mask) if mask.any() else None
