"""Head regions: a face's box from a person's nose, eyes, ears and shoulders.

The second signal for faces: a person whose nose or an eye is seen has a face there, even where
the face class missed it. A head seen from behind shows ears but neither nose nor eyes; it is no
face, and drawing it would be a false find, so it makes none unless the card asks for it.

Proportions of an adult face in millimetres, for a width over the cheekbones of 140 and a height
from hairline to chin of 1.3 times that: pupils 63 apart, tragus to tragus 145, eye to ear of the
same side 40 (frontal) to 90 (profile), nose tip to eye 50, nose tip to ear 75 (frontal) to 120
(profile), shoulder joints 330 apart, nose to the middle between the shoulders 250 (averages as in
Young, Head and Face Anthropometry of Adult U.S. Civilians, FAA 1993, rounded).
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from anonymization.card import HeadCard

Floats = NDArray[np.float32]

NOSE, LEFT_EYE, RIGHT_EYE, LEFT_EAR, RIGHT_EAR, LEFT_SHOULDER, RIGHT_SHOULDER = range(7)
FACE_POINTS = (NOSE, LEFT_EYE, RIGHT_EYE, LEFT_EAR, RIGHT_EAR)
EYES = (LEFT_EYE, RIGHT_EYE)
EARS = (LEFT_EAR, RIGHT_EAR)

WIDTH_PER_DISTANCE = {
    frozenset((LEFT_EYE, RIGHT_EYE)): 140 / 63,
    frozenset((LEFT_EAR, RIGHT_EAR)): 140 / 145,
    frozenset((LEFT_EYE, LEFT_EAR)): 140 / 90,
    frozenset((RIGHT_EYE, RIGHT_EAR)): 140 / 90,
    frozenset((NOSE, LEFT_EYE)): 140 / 50,
    frozenset((NOSE, RIGHT_EYE)): 140 / 50,
    frozenset((NOSE, LEFT_EAR)): 140 / 120,
    frozenset((NOSE, RIGHT_EAR)): 140 / 120,
}
"""Face width over the distance of two points where that distance is seen in full.

Turning the head shortens distances and never lengthens them, so the largest estimate is taken.
"""

SHOULDER_SHARE = (0.3, 0.8)
"""Bounds of face width over the larger of shoulder distance and nose-to-shoulders distance: 140
over 330 is 0.42 and over 250 is 0.56; the bounds leave room for children and for leaning."""

BODY_SHARE = (1 / 16, 1.0)
"""Bounds of face width over the longer, and over the shorter, side of the person's box: a
standing adult is 12 face widths tall, and no face is wider than its person."""


def head_box(points: Floats, person_xyxy: Floats, card: HeadCard) -> Floats | None:
    """Return the box of a person's face, or None where the points see no face.

    Args:
        points: float32, shape (17, 3): x, y, heat-map value in COCO order.
        person_xyxy: float32, shape (4,), box of the person.
        card: Which points count as seen, and how large to draw.

    Returns:
        float32, shape (4,), xyxy in the points' pixels.
    """
    seen = points[:, 2] >= card.keypoint_score_min
    frontal = seen[NOSE] or seen[LEFT_EYE] or seen[RIGHT_EYE]
    from_behind = card.ears_only and seen[LEFT_EAR] and seen[RIGHT_EAR]
    if not (frontal or from_behind):
        return None
    xy = points[:, :2]
    width = _face_width(xy, seen, person_xyxy) * card.scale
    height = width * card.aspect
    x, y = _centre(xy, seen, height)
    return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2], np.float32)


def _face_width(xy: Floats, seen: NDArray[np.bool_], person_xyxy: Floats) -> float:
    estimates = [
        WIDTH_PER_DISTANCE[frozenset((a, b))] * float(np.hypot(*(xy[a] - xy[b])))
        for a, b in combinations(FACE_POINTS, 2)
        if seen[a] and seen[b] and frozenset((a, b)) in WIDTH_PER_DISTANCE
    ]
    sides = np.sort(person_xyxy[2:] - person_xyxy[:2])
    low, high = BODY_SHARE[0] * float(sides[1]), BODY_SHARE[1] * float(sides[0])
    body = _shoulder_scale(xy, seen)
    if body is not None:
        low, high = max(low, SHOULDER_SHARE[0] * body), min(high, SHOULDER_SHARE[1] * body)
    guess = max(estimates, default=low * 1.4)
    return float(np.clip(guess, min(low, high), high))


def _shoulder_scale(xy: Floats, seen: NDArray[np.bool_]) -> float | None:
    """Return the larger of shoulder distance and face-to-shoulders distance; None if unseen."""
    if not (seen[LEFT_SHOULDER] and seen[RIGHT_SHOULDER]):
        return None
    shoulders = xy[[LEFT_SHOULDER, RIGHT_SHOULDER]]
    face = xy[[p for p in FACE_POINTS if seen[p]]].mean(axis=0)
    across = float(np.hypot(*(shoulders[0] - shoulders[1])))
    return max(across, float(np.hypot(*(face - shoulders.mean(axis=0)))))


def _centre(xy: Floats, seen: NDArray[np.bool_], height: float) -> tuple[float, float]:
    """Return the middle of the face.

    Across, the middle of what is seen: in profile that is between nose and ear. Down, eyes lie
    0.12 face heights above the middle, the nose tip 0.1 below it, ears level with it.
    """
    face = [p for p in FACE_POINTS if seen[p]]
    x = (xy[face, 0].min() + xy[face, 0].max()) / 2
    below = {NOSE: -0.1, LEFT_EYE: 0.12, RIGHT_EYE: 0.12, LEFT_EAR: 0.0, RIGHT_EAR: 0.0}
    y = np.mean([xy[p, 1] + below[p] * height for p in face])
    return float(x), float(y)
