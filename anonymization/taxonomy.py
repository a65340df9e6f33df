"""The taxonomy: which classes get anonymized, how truth is drawn and how each is obscured.

Read by every step and written into the bundle's card; it needs no library but the standard one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from anonymization.errors import BlurloopError

GEOMETRIES = ("mask", "box", "ellipse")
SHAPES = ("outline", "box", "rotated_box", "ellipse")
METHODS = ("blur", "pixelate", "solid", "synthetic", "none")
SIDES = ("width", "height")

STRENGTH_MIN = 0.7
"""Least strength of blur and mosaic: less than three cells across the shorter side. A lower setting
is raised to it: attacked (docs/evaluation.md), blur of 0.2 left plates readable, and up to 0.6 more
faces were matched than by chance."""

KEYPOINT_NAMES = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)
"""COCO person keypoints, in COCO order."""

MIRRORED = tuple(
    KEYPOINT_NAMES.index(
        name.replace("left_", "right_")
        if name.startswith("left_")
        else name.replace("right_", "left_")
    )
    for name in KEYPOINT_NAMES
)
"""Where each keypoint's counterpart stands: a mirrored left eye is a right eye."""


class TaxonomyError(BlurloopError):
    """A class is defined or named wrongly."""


def _one_of(what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise TaxonomyError(f"{what} is {value!r}; expected one of {', '.join(allowed)}")


@dataclass(frozen=True)
class ClassSpec:
    """How one class is labelled, judged and obscured.

    Attributes:
        geometry: Shape of a true object: its `mask`, its whole `box`, or the `ellipse`
            inscribed in its box.
        shape: Shape that is obscured: `outline` (the found mask), `box`, `rotated_box` (the
            smallest one around the found mask) or `ellipse`.
        method: `blur`, `pixelate`, `solid`, `synthetic` (a drawn plate; for classes of geometry
            `box`), or `none` (detect only).
        margin: Growth of the obscured region on each side, as a share of the shorter side of
            the object's box. Bundles carry the calibrated value.
        feather: Width of the faded edge outside the region, as a share of the same side.
        strength: Size of the blur kernel or mosaic cell as a share of the same side.
        gated: Whether the gate asks for this class.
        identifiable_side: Side of the box that the size rule measures.
        identifiable_px: Smallest length of that side, in source pixels, at which an object is
            identifiable when no annotator has said otherwise (DESIGN section 7).
        color: Colour in overlays, reports and Label Studio, as `#rrggbb`.
        aliases: Names under which sources label this class (`car`, `truck`, ...).
    """

    geometry: str
    shape: str
    method: str = "blur"
    margin: float = 0.1
    feather: float = 0.0
    strength: float = STRENGTH_MIN
    gated: bool = True
    identifiable_side: str = "height"
    identifiable_px: float = 20.0
    color: str = "#e6194b"
    aliases: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        _one_of("geometry", self.geometry, GEOMETRIES)
        _one_of("shape", self.shape, SHAPES)
        _one_of("method", self.method, METHODS)
        _one_of("identifiable_side", self.identifiable_side, SIDES)
        if self.method == "synthetic" and self.geometry != "box":
            raise TaxonomyError(
                f"method synthetic draws license plates, for classes of geometry box; this class "
                f"has geometry {self.geometry}. Choose blur, pixelate or solid"
            )
        for name in ("margin", "feather", "strength", "identifiable_px"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise TaxonomyError(f"{name} is {getattr(self, name)}; expected a number >= 0")

    def is_identifiable(self, width_px: float, height_px: float) -> bool:
        """Return whether an object of this box size could single somebody out.

        >>> ClassSpec(geometry="box", shape="box", identifiable_px=12).is_identifiable(60, 11)
        False
        """
        side = width_px if self.identifiable_side == "width" else height_px
        return side >= self.identifiable_px


@dataclass(frozen=True)
class Taxonomy:
    """The classes in order; a class's id is its position, its COCO category id that plus one.

    Attributes:
        classes: Specification per class name, in order.
        keypoint_class: Class that carries the 17 COCO keypoints, or None.
        head_class: Class that a head region drawn from keypoints counts as, or None.
    """

    classes: dict[str, ClassSpec]
    keypoint_class: str | None = None
    head_class: str | None = None

    def __post_init__(self) -> None:
        if not self.classes:
            raise TaxonomyError("the taxonomy has no class; add one in conf/taxonomy")
        for role in ("keypoint_class", "head_class"):
            name = getattr(self, role)
            if name is not None and name not in self.classes:
                raise TaxonomyError(f"{role} is {name!r}; known classes: {', '.join(self.names)}")
        seen: dict[str, str] = {}
        for name, spec in self.classes.items():
            for label in (name, *spec.aliases):
                if label in seen:
                    raise TaxonomyError(f"label {label!r} means both {seen[label]} and {name}")
                seen[label] = name

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in order."""
        return tuple(self.classes)

    @property
    def gated(self) -> tuple[str, ...]:
        """Names of the classes that the gate asks for."""
        return tuple(name for name, spec in self.classes.items() if spec.gated)

    def __getitem__(self, name: str) -> ClassSpec:
        try:
            return self.classes[name]
        except KeyError:
            raise TaxonomyError(
                f"unknown class {name!r}; known classes: {', '.join(self.names)}. "
                "Correct the name, or add the class in conf/taxonomy"
            ) from None

    def class_id(self, name: str) -> int:
        """Return the position of a class."""
        self[name]
        return self.names.index(name)

    def resolve(self, label: str) -> str | None:
        """Return the class that a source's label means, or None if the taxonomy lacks it."""
        for name, spec in self.classes.items():
            if label == name or label in spec.aliases:
                return name
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Taxonomy:
        """Build from what `to_dict` returned.

        Raises:
            TaxonomyError: If a key is unknown or a value is out of range.
        """
        try:
            classes = {name: ClassSpec(**spec) for name, spec in values["classes"].items()}
            return cls(classes, values.get("keypoint_class"), values.get("head_class"))
        except (KeyError, TypeError) as error:
            raise TaxonomyError(f"the taxonomy cannot be read: {error}") from error
