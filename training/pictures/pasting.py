"""Objects cut out of one picture and pasted into another, with what lies in them.

Copy-paste (Ghiasi et al., Simple Copy-Paste, 2021). Only outlined objects are cut out: a face or
a plate alone on a wall teaches nothing, so faces come with their persons and plates with their
vehicles. That is also what partial labels demand: a person pasted into a picture whose faces are
all labelled brings a face, which would be background there if nobody had labelled it. So an
object goes only into pictures of which no class is labelled that its own picture leaves unlabelled
(`companions`). A class that the receiving picture does not label is no obstacle: what is
pasted is a positive, the rest stays unknown.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from training.pictures.mosaic import placed, together
from training.pictures.samples import Sample, View, box_of_mask, resize_pixels, show

REACH = 2
"""Pixels by which a keypoint may miss the outline that it was labelled in."""

Mask = NDArray[np.bool_]


def cut_out(
    donor: Sample, row: int, *, scale: float, mirrored: bool, visible_min: float
) -> tuple[Sample, Mask] | None:
    """Cut an object out of a picture.

    Args:
        donor: The picture.
        row: Its object, which has a mask.
        scale: Factor on its size.
        mirrored: Whether left and right change places.
        visible_min: What lies in the object with a smaller share of its area is ignored.

    Returns:
        A sample of the object's size with everything that shows within its outline, and that
        outline; None where no pixel of it is left.
    """
    mask = donor.masks[row]
    if mask is None or not mask.any():
        return None
    left, top, right, bottom = box_of_mask(mask)
    size = max(1, round((bottom - top) * scale)), max(1, round((right - left) * scale))
    view = View((left, top, right, bottom), size, mirrored)
    inside = resize_pixels(mask[top:bottom, left:right].astype(np.uint8) * 255, size) >= 128
    outline: Mask = inside[:, ::-1] if mirrored else inside
    if not outline.any():
        return None
    cut = show(donor, view, visible_min=visible_min)
    return _only(cut, outline, shown=outline, visible_min=visible_min), outline


def paste(
    sample: Sample, cut: Sample, outline: Mask, *, at: tuple[int, int], visible_min: float
) -> Sample:
    """Paste what was cut out; what lies below is hidden.

    Args:
        sample: The picture pasted into.
        cut: Of `cut_out`.
        outline: Its pixels; bool, shape (h, w), no larger than the picture.
        at: x, y of its upper left corner.
        visible_min: Objects of which a smaller share stays visible are ignored; those of which
            nothing does are gone.
    """
    x, y = at
    height, width = outline.shape
    pixels = sample.pixels.copy()
    pixels[y : y + height, x : x + width][outline] = cut.pixels[outline]
    uncovered = np.ones(sample.size, dtype=bool)
    uncovered[y : y + height, x : x + width] = ~outline
    below = _only(sample, uncovered, shown=uncovered, visible_min=visible_min, reach=0)
    return replace(together([below, placed(cut, at, sample.size)]), pixels=pixels)


def draw_paste(
    sample: Sample,
    donor: Sample,
    row: int,
    *,
    scale: float,
    mirrored: bool,
    visible_min: float,
    rng: np.random.Generator,
) -> Sample:
    """Paste an object at a place drawn at random; not where it is larger than the picture."""
    found = cut_out(donor, row, scale=scale, mirrored=mirrored, visible_min=visible_min)
    place = rng.random(2)
    if found is None:
        return sample
    cut, outline = found
    room = [all_ - own for all_, own in zip(sample.size, outline.shape, strict=True)]
    if min(room) < 0:
        return sample
    at = int(place[0] * (room[1] + 1)), int(place[1] * (room[0] + 1))
    return paste(sample, cut, outline, at=at, visible_min=visible_min)


def _only(
    sample: Sample, kept: Mask, *, shown: Mask, visible_min: float, reach: int = REACH
) -> Sample:
    """Return the objects as far as they lie in the pixels kept.

    Masks are cut and get the box of what is left; boxes alone stay whole, as annotators draw them
    around objects that are half hidden.
    """
    boxes, masks = sample.boxes.copy(), list(sample.masks)
    share = np.ones(len(boxes))
    for row in range(len(boxes)):
        mask = masks[row]
        if mask is None:
            share[row] = _share_of_box(boxes[row], kept)
            continue
        left = mask & kept
        share[row] = left.sum() / max(1, mask.sum())
        if 0 < share[row] < 1:
            masks[row], boxes[row] = left, box_of_mask(left)
    points = sample.keypoints.copy()
    points[~_near(points, shown, reach), 2] = 0
    result = replace(
        sample,
        boxes=boxes,
        masks=tuple(masks),
        keypoints=points,
        ignored=sample.ignored | (share < visible_min),
    )
    return result.select(np.flatnonzero(share > 0))


def _share_of_box(box_xyxy: NDArray[np.float32], kept: Mask) -> float:
    x0, y0 = np.floor(box_xyxy[:2]).astype(int).clip(0)
    x1, y1 = np.ceil(box_xyxy[2:]).astype(int)
    part = kept[y0:y1, x0:x1]
    return float(part.mean()) if part.size else 0.0


def _near(points: NDArray[np.float32], kept: Mask, reach: int) -> Mask:
    """Tell which of (G, 17, 3) points lie in the pixels kept, or that near."""
    if reach:
        side = 2 * reach + 1
        kept = cv2.dilate(kept.astype(np.uint8), np.ones((side, side), np.uint8)).astype(bool)
    height, width = kept.shape
    x = np.floor(points[..., 0]).astype(int).clip(0, width - 1)
    y = np.floor(points[..., 1]).astype(int).clip(0, height - 1)
    return np.asarray(kept[y, x])
