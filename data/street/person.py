"""People: a skeleton that turns and walks, dressed, with 17 COCO keypoints.

A carried bag belongs to the person's mask; an umbrella does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.street.canvas import BACKGROUND, Canvas, Color, ellipse_points, shaded
from data.street.face import Head, HeadLook, draw_head_look, head_keypoints, paint_head
from data.street.view import Points, View

CLOTHES: tuple[Color, ...] = (
    (196, 52, 48), (46, 92, 168), (44, 122, 74), (226, 184, 62), (232, 228, 220), (48, 50, 58),
    (128, 70, 140), (222, 122, 60), (92, 152, 176), (146, 146, 150), (206, 132, 156), (106, 82, 58),
)  # fmt: skip
TROUSERS: tuple[Color, ...] = (
    (38, 46, 74), (48, 48, 50), (106, 96, 78), (82, 98, 128), (60, 42, 36), (168, 160, 146),
)  # fmt: skip
_LEFT, _RIGHT = 1.0, -1.0


@dataclass(frozen=True)
class PersonLook:
    """What a person looks like.

    Attributes:
        head: Look of the head.
        height_m: Height.
        build: Width relative to the average.
        top, bottom, shoe: Colours of clothes.
        dress: `trousers`, `shorts`, `skirt` or `coat`.
        sleeves: Whether they reach the wrists.
        pattern: `plain`, `stripes` or `logo`.
        bag: `none`, `hand`, `shoulder` or `backpack`.
        umbrella: Whether one is held up.
        head_turn: Radians by which the head is turned from the body.
    """

    head: HeadLook
    height_m: float
    build: float
    top: Color
    bottom: Color
    shoe: Color
    dress: str
    sleeves: bool
    pattern: str
    bag: str
    umbrella: bool
    head_turn: float


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def draw_person_look(rng: np.random.Generator, *, hidden_share: float) -> PersonLook:
    """Draw a person's look at random; one in fourteen is a child."""
    child = rng.random() < 0.07
    return PersonLook(
        head=draw_head_look(rng, hidden_share=hidden_share),
        height_m=float(rng.uniform(1.15, 1.4) if child else rng.uniform(1.58, 1.9)),
        build=float(rng.uniform(0.88, 1.18)),
        top=CLOTHES[int(rng.integers(len(CLOTHES)))],
        bottom=TROUSERS[int(rng.integers(len(TROUSERS)))],
        shoe=(40, 36, 34) if rng.random() < 0.6 else (214, 210, 204),
        dress=_pick(rng, ("trousers", "trousers", "shorts", "skirt", "coat")),
        sleeves=bool(rng.random() < 0.6),
        pattern=_pick(rng, ("plain", "plain", "stripes", "logo")),
        bag=_pick(rng, ("none", "none", "hand", "shoulder", "backpack")),
        umbrella=bool(rng.random() < 0.05),
        head_turn=float(rng.normal(0, 0.2)),
    )


@dataclass(frozen=True)
class Pose:
    """A body in the picture.

    Attributes:
        feet: Pixel of the ground point below the body.
        scale: Pixels per metre, for a body of 1.75 m.
        turn: Radians; 0 faces the camera, +pi/2 the picture's right.
        joints: Street metres (x to the person's left, y up, z ahead of them) by COCO order from
            shoulders to ankles, shape (12, 3).
    """

    feet: tuple[float, float]
    scale: float
    turn: float
    joints: Points

    def pixel(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Return the pixel of a point in the person's own metres."""
        across = x * np.cos(self.turn) + z * np.sin(self.turn)
        return self.feet[0] + self.scale * float(across), self.feet[1] - self.scale * y

    def nearness(self, x: float, z: float) -> float:
        """Return metres by which a point is nearer to the camera than the body's axis."""
        return float(-x * np.sin(self.turn) + z * np.cos(self.turn))


SHOULDER, ELBOW, WRIST, HIP, KNEE, ANKLE = 0, 2, 4, 6, 8, 10


def walking_joints(phase: float, build: float) -> Points:
    """Return the 12 joints of a walker of 1.75 m, shape (12, 3), left before right."""
    swing = np.sin(phase)
    rows: list[tuple[float, float, float]] = []
    arms = {side: -side * swing for side in (_LEFT, _RIGHT)}
    legs = {side: side * swing for side in (_LEFT, _RIGHT)}
    sides = (_LEFT, _RIGHT)
    rows += [(s * 0.185 * build, 1.31, 0.0) for s in sides]
    rows += [(s * 0.245 * build, 1.05, 0.10 * arms[s]) for s in sides]
    rows += [(s * 0.255 * build, 0.82, 0.24 * arms[s] + 0.05) for s in sides]
    rows += [(s * 0.10 * build, 0.84, 0.0) for s in sides]
    rows += [(s * 0.11 * build, 0.46, 0.15 * legs[s] + 0.03) for s in sides]
    rows += [(s * 0.11 * build, 0.08 + 0.05 * max(-legs[s], 0), 0.25 * legs[s]) for s in sides]
    return np.array(rows)


def riding_joints(build: float) -> Points:
    """Return the 12 joints of somebody on a saddle, hands on the bar, shape (12, 3)."""
    rows: list[tuple[float, float, float]] = []
    sides = (_LEFT, _RIGHT)
    rows += [(s * 0.19 * build, 1.38, 0.1) for s in sides]
    rows += [(s * 0.29 * build, 1.17, 0.28) for s in sides]
    rows += [(s * 0.28, 1.06, 0.5) for s in sides]
    rows += [(s * 0.12 * build, 0.92, -0.12) for s in sides]
    rows += [(s * 0.2, 0.72, 0.26) for s in sides]
    rows += [(s * 0.17, 0.34, 0.06) for s in sides]
    return np.array(rows)


def paint_person(
    canvas: Canvas,
    view: View,
    look: PersonLook,
    *,
    place: tuple[float, float],
    turn: float,
    phase: float,
    riding: bool = False,
) -> int:
    """Draw a person on the ground point `place` (x, z) and return the owner number."""
    scale = view.scale(place[1]) * look.height_m / 1.75
    joints = riding_joints(look.build) if riding else walking_joints(phase, look.build)
    pose = Pose(view.ground(*place), scale, turn, joints)
    person = canvas.begin("person", pose="riding" if riding else "walking")
    lean = 0.12 if riding else 0.0
    head_y = 1.57 + (0.07 if riding else 0.0)
    center = pose.pixel(0, head_y, lean)
    head = Head(center, scale * look.head.size, turn + look.head_turn)
    if look.umbrella and not riding:
        _paint_umbrella(canvas, pose, look)
    _paint_body(canvas, pose, look, person)
    paint_head(canvas, head, look.head, person)
    canvas.painted[person].keypoints = np.concatenate([head_keypoints(head), _body_keypoints(pose)])
    return person


def _paint_umbrella(canvas: Canvas, pose: Pose, look: PersonLook) -> None:
    s = pose.scale
    hand = pose.pixel(-0.22, 1.1, 0.1)
    tip = (hand[0], pose.feet[1] - 2.1 * s)
    canvas.limb((hand, tip), (0.012 * s, 0.012 * s), (60, 56, 54), BACKGROUND)
    arc = np.linspace(np.pi, 2 * np.pi, 15)
    dome = np.stack([tip[0] + 0.5 * s * np.cos(arc), tip[1] + 0.28 * s * (1 + np.sin(arc))], 1)
    canvas.fill(dome, shaded(look.bottom, 1.4), BACKGROUND)


def _paint_body(canvas: Canvas, pose: Pose, look: PersonLook, person: int) -> None:
    """Draw what is far from the camera first: far arm, legs, trunk, near arm."""
    sides = sorted((0, 1), key=lambda i: pose.nearness(*_flat(pose.joints[SHOULDER + i])))
    away = np.cos(pose.turn) < 0
    if look.bag == "backpack" and not away:
        _paint_backpack(canvas, pose, look, person)
    _paint_arm(canvas, pose, look, person, side=sides[0])
    for side in sides:
        _paint_leg(canvas, pose, look, person, side=side)
    _paint_trunk(canvas, pose, look, person)
    if look.bag == "backpack" and away:
        _paint_backpack(canvas, pose, look, person)
    _paint_arm(canvas, pose, look, person, side=sides[1])
    if look.bag in ("hand", "shoulder"):
        _paint_bag(canvas, pose, look, person, side=sides[1])


def _flat(joint: Points) -> tuple[float, float]:
    return float(joint[0]), float(joint[2])


def _joint(pose: Pose, index: int) -> tuple[float, float]:
    x, y, z = pose.joints[index]
    return pose.pixel(float(x), float(y), float(z))


def _paint_arm(canvas: Canvas, pose: Pose, look: PersonLook, person: int, *, side: int) -> None:
    s, skin = pose.scale, look.head.skin
    shoulder, elbow, wrist = (_joint(pose, j + side) for j in (SHOULDER, ELBOW, WRIST))
    sleeve = shaded(look.top, 0.86)
    lower = sleeve if look.sleeves else skin
    canvas.limb((elbow, wrist), (0.047 * s, 0.036 * s), lower, person)
    canvas.limb((shoulder, elbow), (0.066 * s, 0.052 * s), sleeve, person)
    canvas.ellipse((wrist[0], wrist[1] + 0.03 * s), (0.042 * s, 0.052 * s), skin, person)


def _paint_leg(canvas: Canvas, pose: Pose, look: PersonLook, person: int, *, side: int) -> None:
    s = pose.scale
    hip, knee, ankle = (_joint(pose, j + side) for j in (HIP, KNEE, ANKLE))
    bare = look.dress in ("shorts", "skirt")
    gain = 0.92 if side else 1.0
    lower = look.head.skin if bare else look.bottom
    canvas.limb((knee, ankle), (0.062 * s, 0.046 * s), shaded(lower, gain), person)
    canvas.limb((hip, knee), (0.092 * s, 0.068 * s), shaded(look.bottom, gain), person)
    toe = float(np.sin(pose.turn)) * 0.09 * s
    foot = ((ankle[0], ankle[1] + 0.035 * s), (ankle[0] + toe, ankle[1] + 0.04 * s))
    canvas.limb(foot, (0.05 * s, 0.042 * s), look.shoe, person)


def _trunk_points(pose: Pose, look: PersonLook) -> Points:
    side_on = abs(float(np.sin(pose.turn)))
    broad = look.build * (1 - 0.38 * side_on)
    top = (pose.joints[SHOULDER] + pose.joints[SHOULDER + 1]) / 2
    low = (pose.joints[HIP] + pose.joints[HIP + 1]) / 2
    neck = pose.pixel(0, float(top[1]) + 0.06, float(top[2]))
    waist = pose.pixel(0, float(low[1]), float(low[2]))
    s = pose.scale
    bottom = {"coat": 0.36, "skirt": 0.02}.get(look.dress, 0.04) * s
    hem = (0.2 if look.dress == "coat" else 0.16) * broad
    half = np.array([
        [neck[0] + 0.07 * s, neck[1] - 0.02 * s], [neck[0] + 0.2 * broad * s, neck[1] + 0.04 * s],
        [neck[0] + 0.205 * broad * s, neck[1] + 0.16 * s],
        [(neck[0] + waist[0]) / 2 + 0.16 * broad * s, (neck[1] + waist[1]) / 2],
        [waist[0] + hem * s, waist[1] + bottom],
    ])  # fmt: skip
    axis = np.array([neck[0], neck[0], neck[0], (neck[0] + waist[0]) / 2, waist[0]])
    other = half.copy()
    other[:, 0] = 2 * axis - half[:, 0]
    return np.concatenate([half, other[::-1]])


def _paint_trunk(canvas: Canvas, pose: Pose, look: PersonLook, person: int) -> None:
    s = pose.scale
    outline = _trunk_points(pose, look)
    if look.dress == "skirt":
        waist = pose.pixel(0, 0.86, 0)
        flare = np.array([[-0.15, 0], [0.15, 0], [0.25, 0.36], [-0.25, 0.36]]) * s
        canvas.fill(flare + np.array(waist), look.bottom, person)
    neck = outline[[0, -1]].mean(axis=0)
    nape, collar = neck + np.array([0, -0.06 * s]), neck + np.array([0, 0.03 * s])
    canvas.limb((nape, collar), (0.055 * s, 0.06 * s),
                shaded(look.head.skin, 0.85), person)  # fmt: skip
    canvas.fill(outline, look.top, person)
    if look.pattern == "stripes" and s > 25:
        _paint_stripes(canvas, outline, look, person)
    if look.pattern == "logo" and s > 25 and np.cos(pose.turn) > 0.3:
        chest = neck + np.array([0, 0.2 * s])
        canvas.ellipse(chest, (0.07 * s, 0.05 * s), shaded(look.bottom, 1.5), person)
    if look.dress == "coat" and np.cos(pose.turn) > 0.3:
        hem = outline[[4, 5]].mean(axis=0)
        canvas.limb((neck, hem), (0.008 * s, 0.008 * s), shaded(look.top, 0.6), person)


def _paint_stripes(canvas: Canvas, outline: Points, look: PersonLook, person: int) -> None:
    right, left = outline[:5], outline[9:4:-1]
    for i in range(1, 5):
        a, b = i - 0.18, i + 0.02
        stripe = np.array([_along(right, a), _along(right, b), _along(left, b), _along(left, a)])
        canvas.fill(stripe, shaded(look.top, 0.55), person)


def _along(line: Points, at: float) -> Points:
    index = min(int(at), len(line) - 2)
    point: Points = line[index] + (line[index + 1] - line[index]) * (at - index)
    return point


def _paint_backpack(canvas: Canvas, pose: Pose, look: PersonLook, person: int) -> None:
    s = pose.scale
    center = pose.pixel(0, 1.12, -0.15)
    canvas.ellipse(center, (0.17 * s, 0.22 * s), shaded(look.bottom, 1.3), person)
    canvas.ellipse((center[0], center[1] + 0.07 * s), (0.1 * s, 0.09 * s), look.bottom, person)


def _paint_bag(canvas: Canvas, pose: Pose, look: PersonLook, person: int, *, side: int) -> None:
    s = pose.scale
    x, y = _joint(pose, WRIST + side)
    if look.bag == "shoulder":
        shoulder = _joint(pose, SHOULDER + side)
        canvas.limb((shoulder, (x, y)), (0.012 * s, 0.012 * s), (50, 40, 34), person)
    box = np.array([[-0.11, 0.06], [0.11, 0.06], [0.13, 0.3], [-0.13, 0.3]]) * s
    canvas.fill(box + np.array([x, y]), shaded(look.top, 0.6), person)


def _body_keypoints(pose: Pose) -> Points:
    """Return the 12 body keypoints, shape (12, 3); 1 where the own trunk is in front."""
    rows = []
    for x, y, z in pose.joints:
        px, py = pose.pixel(float(x), float(y), float(z))
        behind = pose.nearness(float(x), float(z)) < -0.06
        inside = abs(px - pose.feet[0]) < 0.13 * pose.scale and y > 0.8
        rows.append((px, py, 1.0 if behind and inside else 2.0))
    return np.array(rows)


def paint_occupant(
    canvas: Canvas,
    look: PersonLook,
    *,
    head_at: tuple[float, float],
    scale: float,
    window: Points,
    vehicle: int,
) -> int:
    """Draw head and shoulders behind a window, clipped by it, as part of the vehicle."""
    canvas.clip_to(window)
    person = canvas.begin("person", parent=vehicle, pose="in_vehicle")
    x, y = head_at
    s = scale
    trunk = np.array([[-0.06, 0.14], [0.06, 0.14], [0.22, 0.22], [0.27, 0.7], [-0.27, 0.7],
                      [-0.22, 0.22]]) * s + np.array(head_at)  # fmt: skip
    canvas.fill(trunk, look.top, person)
    canvas.limb(((x, y + 0.12 * s), (x, y + 0.2 * s)), (0.055 * s, 0.055 * s),
                shaded(look.head.skin, 0.85), person)  # fmt: skip
    head = Head(head_at, s * look.head.size, look.head_turn)
    paint_head(canvas, head, look.head, person)
    canvas.clip_to(None)
    points = np.zeros((17, 3))
    points[:5] = head_keypoints(head)
    points[5] = (x + 0.19 * s, y + 0.25 * s, 2)
    points[6] = (x - 0.19 * s, y + 0.25 * s, 2)
    canvas.painted[person].keypoints = points
    return person


def shadow_points(view: View, place: tuple[float, float], radius_m: float) -> Points:
    """Return the outline of a round shadow on the ground, shape (24, 2)."""
    flat = ellipse_points(place, (radius_m, radius_m))
    return view.project(np.stack([flat[:, 0], np.zeros(len(flat)), flat[:, 1]], axis=1))
