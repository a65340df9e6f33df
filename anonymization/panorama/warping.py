"""Warping: finds of a view brought into the picture, conservatively.

A box of a perspective view has curved sides in a panorama. Its box there encloses them; where the
class is obscured by an ellipse, that box is large enough for the ellipse in it to enclose the
warped ellipse. Masks are sampled anew with the largest value near each cell, so that no pixel of
the object is lost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from anonymization.detection.finds import MASK_SIDE, Detections
from anonymization.panorama.projection import Equirectangular
from anonymization.panorama.views import Reprojection, Tile, View

Floats = NDArray[np.float32]
Reals = NDArray[np.float64]

SIDE_POINTS = 32
"""Points on each side of a box whose images bound it."""

PER_CELL = 3
"""Samples across a mask cell; odd, so that one lies in its middle."""

NEAR_POLE = math.cos(math.radians(75))
"""Length of a direction's level part from which on it is near a pole: a pixel of a view then takes
four columns and more of the panorama, and so does what a network leaves open of an edge."""

JUMP = 1 / 8
"""Share of a turn between neighbouring points of an outline from which on it passes so close to a
pole that it counts as over it."""


def with_open_edges(boxes_xyxy: Floats, view: View, pixel: Floats) -> Floats:
    """Return a view's boxes, those near a pole grown on each side by a pixel that the network saw.

    Elsewhere the class's margin holds what a network leaves open of an edge. Near a pole that is
    more columns than the margin, which goes by the shorter side: the rows.

    Args:
        boxes_xyxy: float32, shape (N, 4), view pixels.
        view: The view.
        pixel: float32 (N,), pixels of the view per pixel of the network's input.

    Returns:
        float32, shape (N, 4), view pixels.
    """
    if not isinstance(view, Reprojection) or not isinstance(view.projection, Equirectangular):
        return boxes_xyxy
    grown = boxes_xyxy + pixel[:, None] * np.array([-1, -1, 1, 1], np.float32)
    rays = [view.projection.to_rays(view.to_picture(_sides(box))) for box in grown]
    near = [bool((np.hypot(ray[:, 0], ray[:, 2]) < NEAR_POLE).any()) for ray in rays]
    chosen = np.where(np.array(near, bool)[:, None], grown, boxes_xyxy)
    return np.asarray(chosen, np.float32)


def picture_box(box_xyxy: Floats, view: View, *, ellipse: bool) -> Floats:
    """Return the box in the picture of a box in a view.

    Args:
        box_xyxy: float32, shape (4,), view pixels.
        view: The view.
        ellipse: Whether the object is the ellipse in the box and is obscured by one.

    Returns:
        float32, shape (4,). In a panorama it may reach beyond the picture, at most by a turn; an
        object over a pole gets all columns.
    """
    if not isinstance(view, Reprojection):
        return np.asarray(_corners(box_xyxy, view), np.float32)
    outline = view.to_picture(_ellipse(box_xyxy) if ellipse else _sides(box_xyxy))
    projection = view.projection
    if not isinstance(projection, Equirectangular):
        return _enclosing(outline, ellipse=ellipse)
    pole = _pole_row(box_xyxy, view, projection, outline)
    if pole is not None:
        return _around_pole(outline, pole, projection, ellipse=ellipse)
    outline[:, 0] = np.unwrap(outline[:, 0], period=projection.turn)
    return _enclosing(outline, ellipse=ellipse)


def _corners(box_xyxy: Floats, view: View) -> Reals:
    return np.asarray(view.to_picture(box_xyxy.astype(np.float64).reshape(2, 2))).reshape(4)


def _sides(box_xyxy: Floats) -> Reals:
    x0, y0, x1, y1 = (float(v) for v in box_xyxy)
    steps = np.arange(SIDE_POINTS) / SIDE_POINTS
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    following = np.roll(corners, -1, axis=0)
    points = corners[:, None] + (following - corners)[:, None] * steps[None, :, None]
    return np.asarray(points.reshape(-1, 2))


def _ellipse(box_xyxy: Floats) -> Reals:
    low, high = box_xyxy[:2].astype(np.float64), box_xyxy[2:].astype(np.float64)
    around = np.arange(4 * SIDE_POINTS) * (math.tau / (4 * SIDE_POINTS))
    unit = np.stack([np.cos(around), np.sin(around)], axis=-1)
    return np.asarray((low + high) / 2 + unit * (high - low) / 2)


def _enclosing(outline: Reals, *, ellipse: bool) -> Floats:
    """Return the points' box, or one whose ellipse holds them all."""
    low, high = outline.min(axis=0), outline.max(axis=0)
    middle, half = (low + high) / 2, np.maximum((high - low) / 2, 1e-6)
    if ellipse:
        half = half * max(1.0, float(np.hypot(*((outline - middle) / half).T).max()))
    return np.asarray(np.concatenate([middle - half, middle + half]), np.float32)


def _pole_row(
    box_xyxy: Floats, view: Reprojection, projection: Equirectangular, outline: Reals
) -> float | None:
    """Return the picture's row of the pole that an object lies over, or None."""
    rows = (-projection.top, projection.full_height - projection.top)
    for row, down in zip(rows, (-1.0, 1.0), strict=True):
        x, y = view.to_plane(np.array([0.0, down, 0.0]))
        if box_xyxy[0] <= x <= box_xyxy[2] and box_xyxy[1] <= y <= box_xyxy[3]:
            return row
    steps = np.diff(outline[:, 0], append=outline[:1, 0])
    half = projection.turn / 2
    if (np.abs(np.mod(steps + half, projection.turn) - half) > projection.turn * JUMP).any():
        return rows[int(outline[:, 1].mean() > sum(rows) / 2)]
    return None


def _around_pole(
    outline: Reals, pole: float, projection: Equirectangular, *, ellipse: bool
) -> Floats:
    """Return the box of an object over a pole: all columns, from the pole to its farthest row."""
    far = float(np.abs(outline[:, 1] - pole).max())
    turn = projection.turn
    if ellipse:
        # Around the pole's row itself: this ellipse holds the rectangle of all columns. The wider
        # it is, the fewer rows beyond the object does it take, here 6 % of them.
        a = 1.5 * turn
        b = far / math.sqrt(1 - (turn / 2 / a) ** 2)
        return np.array([turn / 2 - a, pole - b, turn / 2 + a, pole + b], np.float32)
    low, high = (pole, pole + far) if pole <= 0 else (pole - far, pole)
    return np.array([0, low, turn, high], np.float32)


def picture_mask(
    box_xyxy: Floats, masks: Sequence[Floats], boxes: Sequence[Floats], views: Sequence[View]
) -> Floats:
    """Return the mask of one object in the picture from its masks in one or more views.

    Args:
        box_xyxy: float32, shape (4,), box in the picture that the mask is to span.
        masks: float32, shape (28, 28) each, probability inside the view's box.
        boxes: float32, shape (4,) each, box in its view.
        views: The views.

    Returns:
        float32, shape (28, 28); NaN where no view has a mask.
    """
    if all(np.isnan(mask).any() for mask in masks):
        return np.full((MASK_SIDE, MASK_SIDE), np.nan, np.float32)
    steps = (np.arange(MASK_SIDE * PER_CELL) + 0.5) / (MASK_SIDE * PER_CELL)
    x = box_xyxy[0] + steps * (box_xyxy[2] - box_xyxy[0])
    y = box_xyxy[1] + steps * (box_xyxy[3] - box_xyxy[1])
    points = np.stack(np.meshgrid(x, y), axis=-1).astype(np.float64)
    found = np.zeros(points.shape[:2], np.float32)
    for mask, box, view in zip(masks, boxes, views, strict=True):
        known = mask if np.isfinite(mask).all() else np.ones_like(mask)
        np.maximum(found, _sampled(known, box, _in_plane(points, view, box)), out=found)
    # A cell and half of each neighbour: pasting interpolates between cells, and whatever cell a
    # pixel of the object takes part of is then no lower than the pixel itself.
    reach = 2 * PER_CELL + 1
    highest = cv2.dilate(found, np.ones((reach, reach), np.uint8))
    return np.asarray(highest[PER_CELL // 2 :: PER_CELL, PER_CELL // 2 :: PER_CELL], np.float32)


def _in_plane(points: Reals, view: View, box_xyxy: Floats) -> Reals:
    """Return points of the picture in a view's pixels, also beyond its borders."""
    if isinstance(view, Reprojection):
        return view.to_plane(view.projection.to_rays(points))
    origin = view.to_picture(np.zeros(2))
    moved = points - origin
    if isinstance(view, Tile) and view.turn is not None:
        # The copy nearest to the find's middle.
        middle = (box_xyxy[0] + box_xyxy[2]) / 2
        moved[..., 0] -= np.rint((moved[..., 0] - middle) / view.turn) * view.turn
    return np.asarray(moved)


def _sampled(mask: Floats, box_xyxy: Floats, points: Reals) -> Floats:
    """Sample a mask at points of its view, bilinear; 0 outside of its box and at NaN."""
    low, high = box_xyxy[:2].astype(np.float64), box_xyxy[2:].astype(np.float64)
    cells = (points - low) / np.maximum(high - low, 1e-6) * MASK_SIDE - 0.5
    # Far away is as good as unseen, and remap takes 16-bit cells.
    cells = np.clip(np.nan_to_num(cells, nan=-2.0), -2, MASK_SIDE + 1).astype(np.float32)
    across, down = np.ascontiguousarray(cells[..., 0]), np.ascontiguousarray(cells[..., 1])
    sampled = cv2.remap(
        mask, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0
    )
    return np.asarray(sampled, np.float32)


def picture_points(finds: Detections, index: int, view: View) -> Floats:
    """Return a find's keypoints in the picture; float32 (17, 3)."""
    points = finds.keypoints[index].copy()
    if np.isfinite(points).all():
        points[:, :2] = view.to_picture(points[:, :2].astype(np.float64))
    return np.asarray(points, np.float32)
