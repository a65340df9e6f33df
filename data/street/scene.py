"""A finished scene and its truth: what stays visible of each object."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.street.canvas import Canvas, Painted, Pixels

HIDDEN_MAX = 0.6
"""Of which more than this is hidden, by others or beyond the picture's edge, singles nobody out:
`identifiable` is False. A face or plate on it is an object of its own."""
AREA_MIN_PX = 6
SIDE_MIN_PX = 3
"""Less than this of an object is clutter without a label: nobody could annotate it."""


@dataclass(frozen=True)
class SceneObject:
    """One labelled object.

    Attributes:
        class_name: `face`, `person`, `license_plate` or `vehicle`.
        mask: Visible pixels, bool, shape (H, W); a person's include the face, a vehicle's the
            plate and who is seen through its windows.
        box_xyxy: Half-open box around the mask.
        keypoints: 17 x, y, visibility triples (persons), else None.
        attributes: `occluded` (share hidden), `identifiable` (False, or absent), and more.
    """

    class_name: str
    mask: NDArray[np.bool_]
    box_xyxy: tuple[float, float, float, float]
    keypoints: tuple[tuple[float, float, int], ...] | None
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Scene:
    """One picture with everything in it that carries a label.

    Attributes:
        pixels: uint8 RGB, shape (H, W, 3).
        objects: Labelled objects, farthest first.
        camera: Name of the camera.
        sequence: Name of the sequence.
        frame: Position in the sequence, from 0.
        attributes: `daylight`, `blur` and others, usable as evaluation slices.
    """

    pixels: Pixels
    objects: tuple[SceneObject, ...]
    camera: str
    sequence: str
    frame: int
    attributes: dict[str, Any] = field(default_factory=dict)


def canvas_to_objects(canvas: Canvas) -> tuple[SceneObject, ...]:
    """Read the labelled objects off a finished canvas; too small ones are left out."""
    owners = canvas.finished_owners()
    counts = np.bincount(canvas.owners.ravel(), minlength=len(canvas.painted))
    objects = []
    for owner in range(1, len(canvas.painted)):
        family = _family(canvas.painted, owner)
        seen = _visible(canvas, owners, family, canvas.painted[owner].extent)
        if seen is not None:
            drawn = sum(canvas.painted[member].area for member in family)
            left = sum(int(counts[member]) for member in family) / max(drawn, 1)
            objects.append(_to_object(canvas, owner, seen, left, owners, family))
    return tuple(objects)


def _family(painted: list[Painted], owner: int) -> list[int]:
    """Return an object and its parts; parts are numbered after what they belong to."""
    family = [owner]
    for other in range(owner + 1, len(painted)):
        if painted[other].parent in family:
            family.append(other)
    return family


_Seen = tuple[NDArray[np.bool_], tuple[int, int, int, int]]


def _visible(
    canvas: Canvas, owners: NDArray[np.uint16], family: list[int], extent: list[float]
) -> _Seen | None:
    x0, y0 = (max(int(v) - 1, 0) if np.isfinite(v) else 0 for v in extent[:2])
    x1, y1 = (int(v) + 2 if np.isfinite(v) and v > -2 else 0 for v in extent[2:])
    belongs = np.zeros(len(canvas.painted), dtype=bool)
    belongs[family] = True
    window = belongs[owners[y0:y1, x0:x1]]
    if window.sum() < AREA_MIN_PX:
        return None
    rows, columns = np.flatnonzero(window.any(axis=1)), np.flatnonzero(window.any(axis=0))
    x0, x1 = x0 + int(columns[0]), x0 + int(columns[-1]) + 1
    y0, y1 = y0 + int(rows[0]), y0 + int(rows[-1]) + 1
    window = window[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    box = (x0, y0, x1, y1)
    if min(box[2] - box[0], box[3] - box[1]) < SIDE_MIN_PX:
        return None
    mask = np.zeros(owners.shape, dtype=bool)
    mask[y0:y1, x0:x1] = window
    return mask, box


def _to_object(
    canvas: Canvas, owner: int, seen: _Seen, left: float, owners: NDArray[np.uint16],
    family: list[int],
) -> SceneObject:  # fmt: skip
    painted = canvas.painted[owner]
    mask, box = seen
    cut = _cut_share(canvas, painted.extent)
    hidden = 1 - left * (1 - cut)
    attributes = {**painted.attributes, "occluded": round(float(np.clip(hidden, 0, 1)), 3)}
    if hidden > HIDDEN_MAX:
        attributes["identifiable"] = False
    return SceneObject(
        class_name=painted.class_name,
        mask=mask,
        box_xyxy=(float(box[0]), float(box[1]), float(box[2]), float(box[3])),
        keypoints=_keypoints(canvas, painted, owners, family),
        attributes={k: v for k, v in attributes.items() if v is not None},
    )


def _cut_share(canvas: Canvas, extent: list[float]) -> float:
    """Return the share of an object's box that lies outside of the picture."""
    width = min(extent[2], canvas.width) - max(extent[0], 0)
    height = min(extent[3], canvas.height) - max(extent[1], 0)
    whole = (extent[2] - extent[0]) * (extent[3] - extent[1])
    return 1 - max(width, 0) * max(height, 0) / max(whole, 1e-6)


def _keypoints(
    canvas: Canvas, painted: Painted, owners: NDArray[np.uint16], family: list[int]
) -> tuple[tuple[float, float, int], ...] | None:
    """Return keypoints as COCO counts visibility: 0 outside, 1 hidden, 2 seen."""
    if painted.keypoints is None:
        return None
    points = []
    for x, y, visibility in painted.keypoints.round(2).tolist():
        inside = 0 <= x < canvas.width and 0 <= y < canvas.height
        if not inside or visibility == 0:
            points.append((0.0, 0.0, 0))
            continue
        own = int(owners[int(y), int(x)]) in family
        points.append((x, y, int(visibility) if own else 1))
    return tuple(points)
