"""Heads and faces: a head that turns, with hair, headgear and what hides a face."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.street.canvas import Canvas, Color, ellipse_points, shaded
from data.street.view import Points

SKINS: tuple[Color, ...] = (
    (245, 208, 178), (232, 186, 150), (214, 160, 120), (186, 130, 92), (150, 100, 66),
    (118, 76, 50), (92, 60, 42),
)  # fmt: skip
HAIRS: tuple[Color, ...] = (
    (30, 24, 22), (58, 38, 26), (96, 62, 36), (150, 104, 56), (206, 172, 110), (150, 62, 34),
    (140, 138, 136), (206, 204, 200),
)  # fmt: skip
HAIRSTYLES = ("short", "short", "short", "long", "long", "bun", "bald", "cap", "hat", "headscarf")
COVERS = ("helmet", "mask", "sunglasses", "scarf")
FACE_TURN_MAX_DEG = 100.0
"""Turned farther than this, a head shows no face."""
_ROUND = 0.125
"""Half width of a head in metres, about 1.5 times a real one: at a real head's size a face of
20 pixels would need a person taller than the picture."""


@dataclass(frozen=True)
class HeadLook:
    """What a head looks like; `cover` is one of COVERS or None."""

    skin: Color
    hair: Color
    hairstyle: str
    cover: str | None
    garment: Color
    beard: bool
    size: float


def draw_head_look(rng: np.random.Generator, *, hidden_share: float) -> HeadLook:
    """Draw a head's look at random."""
    cover = COVERS[int(rng.integers(len(COVERS)))] if rng.random() < hidden_share else None
    garment = rng.integers(30, 226, 3)
    return HeadLook(
        skin=SKINS[int(rng.integers(len(SKINS)))],
        hair=HAIRS[int(rng.integers(len(HAIRS)))],
        hairstyle=HAIRSTYLES[int(rng.integers(len(HAIRSTYLES)))],
        cover=cover,
        garment=(float(garment[0]), float(garment[1]), float(garment[2])),
        beard=bool(rng.random() < 0.18),
        size=float(rng.uniform(0.94, 1.08)),
    )


@dataclass(frozen=True)
class Head:
    """A head in the picture.

    Attributes:
        center: Pixel of its middle.
        scale: Pixels per metre, growth of the head included.
        turn: Radians; 0 looks at the camera, +pi/2 to the picture's right.
    """

    center: tuple[float, float]
    scale: float
    turn: float

    def at(self, angle_deg: float, y: float, *, reach: float = 1.0) -> tuple[float, float]:
        """Return the pixel of a point on the head, by its angle from the nose and height in m."""
        x = _ROUND * reach * np.sin(np.radians(angle_deg) + self.turn)
        return self.center[0] + self.scale * float(x), self.center[1] - self.scale * y

    def faces_camera(self, angle_deg: float) -> bool:
        """Return whether a point at this angle from the nose is on the near half."""
        return bool(np.cos(np.radians(angle_deg) + self.turn) > 0.05)

    @property
    def shows_face(self) -> bool:
        """Whether it is turned so that a face can be seen."""
        return bool(abs(np.degrees(np.angle(np.exp(1j * self.turn)))) <= FACE_TURN_MAX_DEG)


def head_keypoints(head: Head) -> Points:
    """Return nose, eyes and ears, shape (5, 3): x, y, 2 where on the near half, else 1."""
    places = ((0.0, -0.025), (28.0, 0.035), (-28.0, 0.035), (88.0, 0.01), (-88.0, 0.01))
    rows = []
    for angle, y in places:
        x, row = head.at(angle, y)
        near = head.faces_camera(angle * 0.95)
        rows.append((x, row, 2.0 if near else 1.0))
    return np.array(rows)


def paint_head(canvas: Canvas, head: Head, look: HeadLook, person: int) -> None:
    """Draw a head for a person; a face object is begun only where a face is visible."""
    _paint_skull(canvas, head, look, person)
    helmet = look.cover == "helmet"
    if head.shows_face and not helmet:
        face = canvas.begin("face", parent=person, view=_face_view(head), cover=look.cover)
        _paint_face(canvas, head, look, face)
        if look.cover == "scarf":
            low = _front_ellipse(head, 0.125, (0.9, 0.55))
            canvas.fill(low + np.array([0, 0.12 * head.scale]), look.garment, person)
    _paint_top(canvas, head, look, person, helmet=helmet)


def _face_view(head: Head) -> str:
    return "frontal" if abs(np.sin(head.turn)) < 0.75 and np.cos(head.turn) > 0 else "profile"


def _paint_skull(canvas: Canvas, head: Head, look: HeadLook, person: int) -> None:
    s, (x, y) = head.scale, head.center
    wide = _ROUND * (1.0 + 0.12 * abs(np.sin(head.turn)))
    bald = look.hairstyle == "bald"
    covered = look.hairstyle in ("headscarf",)
    color = shaded(look.skin, 0.92) if bald else (look.garment if covered else look.hair)
    if look.hairstyle == "long" or covered:
        drop = np.array([[-1.12, -0.2], [1.12, -0.2], [1.2, 2.1], [-1.2, 2.1]])
        canvas.fill(drop * wide * s + np.array([x, y]), shaded(color, 0.9), person)
    if look.hairstyle == "bun":
        bun = head.at(180, 0.15, reach=0.6)
        canvas.ellipse(bun, (0.06 * s, 0.06 * s), shaded(color, 0.9), person)
    canvas.ellipse((x, y), (wide * 1.06 * s, 0.182 * s), color, person)
    if not head.shows_face and not covered and look.hairstyle != "long":
        canvas.ellipse((x, y + 0.13 * s), (wide * 0.7 * s, 0.06 * s), look.skin, person)
    if abs(np.sin(head.turn)) < 0.95 and not covered and look.hairstyle != "long":
        for side in (-88.0, 88.0):
            canvas.ellipse(head.at(side, 0.0), (0.022 * s, 0.04 * s), look.skin, person)


def _front_ellipse(head: Head, radius: float, share: tuple[float, float]) -> Points:
    """Return an ellipse on the front of the head, pushed to where it looks."""
    lean = abs(np.sin(head.turn))
    x = head.center[0] + head.scale * 0.055 * float(np.sin(head.turn))
    y = head.center[1] + head.scale * 0.02
    radii = (radius * share[0] * (1 - 0.32 * lean) * head.scale, 0.152 * share[1] * head.scale)
    return ellipse_points((x, y), radii)


def _paint_face(canvas: Canvas, head: Head, look: HeadLook, face: int) -> None:
    s = head.scale
    outline = _front_ellipse(head, 0.113, (1.0, 1.0))
    canvas.fill(outline, look.skin, face)
    if abs(np.sin(head.turn)) > 0.6:
        nose = [head.at(0, 0.03, reach=0.95), head.at(0, -0.035, reach=1.2),
                head.at(0, -0.04, reach=0.85)]  # fmt: skip
        canvas.fill(np.array(nose), look.skin, face)
    if s < 22:
        return
    if look.beard:
        lower = outline[outline[:, 1] > head.center[1] + 0.06 * s]
        canvas.fill(lower, shaded(look.hair, 1.1), face)
    _paint_eyes(canvas, head, look, face)
    tip = head.at(0, -0.035, reach=1.05)
    bridge = head.at(-6, 0.04, reach=0.95)
    base = head.at(9, -0.045, reach=0.95)
    canvas.fill(np.array([bridge, tip, base]), shaded(look.skin, 0.78), face)
    mouth = [head.at(a, -0.088 - 0.012 * (abs(a) < 10)) for a in (-22, -8, 8, 22)]
    lips = np.array([*mouth, head.at(10, -0.078), head.at(-10, -0.078)])
    canvas.fill(lips, (150, 62, 62), face)
    _paint_cover(canvas, head, look, face)


def _paint_eyes(canvas: Canvas, head: Head, look: HeadLook, face: int) -> None:
    s = head.scale
    for angle in (-28.0, 28.0):
        if not head.faces_camera(angle * 1.2):
            continue
        squeeze = max(float(np.cos(np.radians(angle) + head.turn)), 0.35)
        eye = head.at(angle, 0.035)
        canvas.ellipse(eye, (0.027 * s * squeeze, 0.015 * s), (240, 240, 238), face)
        canvas.ellipse(eye, (0.013 * s, 0.015 * s), (34, 28, 26), face)
        brow = [head.at(angle - 15, 0.062), head.at(angle + 15, 0.062)]
        canvas.limb((brow[0], brow[1]), (0.007 * s, 0.007 * s), shaded(look.hair, 0.8), face)


def _paint_cover(canvas: Canvas, head: Head, look: HeadLook, face: int) -> None:
    s = head.scale
    if look.cover == "mask":
        rim = ((-62, -0.005), (62, -0.005), (48, -0.11), (0, -0.128), (-48, -0.11))
        corners = np.array([head.at(angle, y, reach=0.9) for angle, y in rim])
        canvas.fill(corners, (206, 224, 232), face)
    if look.cover == "sunglasses":
        for angle in (-30.0, 30.0):
            if head.faces_camera(angle):
                canvas.ellipse(head.at(angle, 0.033), (0.04 * s, 0.028 * s), (24, 24, 28), face)


def _paint_top(canvas: Canvas, head: Head, look: HeadLook, person: int, *, helmet: bool) -> None:
    """Draw hair above the forehead, or headgear; it belongs to the person, not to the face."""
    s, (x, y) = head.scale, head.center
    if helmet:
        canvas.ellipse((x, y - 0.005 * s), (0.152 * s, 0.195 * s), look.garment, person)
        if head.shows_face:
            canvas.fill(_front_ellipse(head, 0.12, (1.0, 0.42)), (32, 36, 44), person)
        return
    arc = np.linspace(np.pi, 2 * np.pi, 11)
    wide = 0.137 if look.hairstyle != "bald" else 0.0
    height, color = 0.186, look.hair
    if look.hairstyle in ("cap", "hat", "headscarf"):
        wide, height, color = 0.142, 0.2, look.garment
    if not wide:
        return
    line = y - 0.072 * s
    top = np.stack([x + wide * s * np.cos(arc), line + (height - 0.072) * s * np.sin(arc)], 1)
    canvas.fill(top, color, person)
    if look.hairstyle == "hat":
        canvas.ellipse((x, line), (0.21 * s, 0.026 * s), shaded(color, 0.75), person)
    if look.hairstyle == "cap" and head.shows_face:
        peak = head.at(0, 0.068, reach=1.1)
        canvas.ellipse(peak, (0.1 * s, 0.024 * s), shaded(color, 0.7), person)
