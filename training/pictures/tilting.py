"""Small turns and slants of a picture: cameras are not held level.

Own code where Albumentations would do all but one thing: of an object labelled by its box it
turns the box, and an upright box around that is right for a plate and too large for a face.
Points are x, y in pixels, pixel i reaching from i to i + 1. Costs a second interpolation.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from training.config import AugmentationConfig
from training.pictures.samples import Sample, box_of_mask, hide_outside

CORNERS = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=np.float64)
_TURN = np.linspace(0, 2 * np.pi, 32, endpoint=False)
AROUND = (np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1) + 1) / 2
"""Points of an ellipse inscribed in the unit square."""

Matrix = NDArray[np.float64]


def draw_tilt(
    size: tuple[int, int], config: AugmentationConfig, rng: np.random.Generator
) -> Matrix:
    """Draw a turn about the middle and a slant.

    Args:
        size: (height, width) of the picture.
        config: `rotation`: degrees to either side; `perspective`: share of the sides by which
            each corner moves at most.
        rng: Gives the draw.

    Returns:
        Homography from old to new points, shape (3, 3).
    """
    height, width = size
    angle = float(rng.uniform(-config.rotation, config.rotation))
    turn = np.eye(3)
    turn[:2] = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
    corners = CORNERS * (width, height)
    reach = config.perspective * np.array([width, height])
    moved = corners + rng.uniform(-1, 1, (4, 2)) * reach
    slant = cv2.getPerspectiveTransform(corners.astype(np.float32), moved.astype(np.float32))
    return np.asarray(slant @ turn, dtype=np.float64)


def tilt(
    sample: Sample, matrix: Matrix, *, geometries: tuple[str, ...], visible_min: float
) -> Sample:
    """Turn and slant picture, boxes, masks and keypoints together; what comes into view is black.

    Args:
        sample: Any sample.
        matrix: Of `draw_tilt`.
        geometries: Geometry of each class: the box of an ellipse is that of the turned ellipse.
        visible_min: Objects of which a smaller share stays in the picture are ignored.
    """
    height, width = sample.size
    limits = np.array([width, height, width, height], dtype=np.float32)
    whole = np.array(
        [
            _turned_box(box, geometries[label], matrix)
            for box, label in zip(sample.boxes, sample.labels, strict=True)
        ],
        dtype=np.float32,
    ).reshape(-1, 4)
    boxes = np.clip(whole, 0, limits)
    share = _areas(boxes) / np.maximum(_areas(whole), 1e-6)
    masks = tuple(None if m is None else _warped_mask(m, matrix) for m in sample.masks)
    for row, mask in enumerate(masks):
        if mask is not None:
            share[row] = share[row] if mask.any() else 0
            boxes[row] = box_of_mask(mask) if mask.any() else boxes[row]
    points = sample.keypoints.copy()
    points[..., :2] = _moved(points[..., :2].reshape(-1, 2), matrix).reshape(points[..., :2].shape)
    return replace(
        sample,
        pixels=_warped(sample.pixels, matrix),
        boxes=boxes,
        masks=masks,
        keypoints=hide_outside(points, sample.size),
        ignored=sample.ignored | (share < visible_min),
    ).select(np.flatnonzero(share > 0))


def _moved(points: NDArray[np.floating], matrix: Matrix) -> NDArray[np.float64]:
    """Return points of shape (P, 2) where the homography puts them."""
    moved = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ matrix.T
    return np.asarray(moved[:, :2] / moved[:, 2:])


def _turned_box(box: NDArray[np.float32], geometry: str, matrix: Matrix) -> NDArray[np.float64]:
    form = AROUND if geometry == "ellipse" else CORNERS
    moved = _moved(box[:2] + form * (box[2:] - box[:2]), matrix)
    return np.concatenate([moved.min(axis=0), moved.max(axis=0)])


def _areas(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))


def _warped(pixels: NDArray[np.uint8], matrix: Matrix) -> NDArray[np.uint8]:
    # OpenCV counts from the middle of a pixel, not from its edge.
    shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    own = np.linalg.inv(shift) @ matrix @ shift
    height, width = pixels.shape[:2]
    return np.asarray(cv2.warpPerspective(pixels, own, (width, height)), dtype=np.uint8)


def _warped_mask(mask: NDArray[np.bool_], matrix: Matrix) -> NDArray[np.bool_]:
    return np.asarray(_warped(mask.astype(np.uint8) * 255, matrix) >= 128)
