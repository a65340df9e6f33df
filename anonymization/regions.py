"""Regions that decide whether a find is obscured: of interest, ignored, and the ego vehicle.

Read from a YAML or JSON file (`--regions`); each is a polygon or a PNG mask, for the pictures
that its globs and its size name. All three kinds take protection away from somebody, so each
rule errs towards obscuring, and what a region spares is listed in the report:

- `ignore`: a find is spared only where every pixel of it lies inside;
- `ego_vehicle`: the same, for vehicles alone unless `classes` says more: a face behind the
  windscreen, a person mirrored in the bonnet and the own plate are still obscured;
- `interest`: where a picture has such regions, a find is spared only if neither it nor its margin
  touches any of them.
"""

from __future__ import annotations

import fnmatch
import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anonymization.detection.finds import Detections
from anonymization.drawing import COORDINATE_MAX, goes_around, lies_within
from anonymization.files import sha256_of_file
from anonymization.obscuring.region import Outline, Region
from anonymization.obscuring.shapes import MASK_THRESHOLD, NO_OUTLINES, class_spec, region
from anonymization.structured import SettingsError, read_structured
from anonymization.taxonomy import ClassSpec, Taxonomy

Bools = NDArray[np.bool_]

SCHEMA_VERSION = 1
INTEREST, IGNORE, EGO = "interest", "ignore", "ego_vehicle"
KINDS = (INTEREST, IGNORE, EGO)
UNITS = ("fraction", "pixel")
EGO_CLASSES = ("vehicle",)
_KEYS = ("name", "kind", "pictures", "size", "classes", "units", "polygon", "mask")
ASPECT_TOLERANCE = 0.02
"""A mask is stretched to a picture of the same proportions up to this share, and to no other."""


class RegionError(SettingsError):
    """A region is defined wrongly, or does not fit a picture."""


@dataclass(frozen=True)
class Area:
    """One region; checked when made.

    Attributes:
        name: What the report calls it.
        kind: One of `KINDS`.
        pictures: Globs on a picture's path below its input folder, with `/`; none mean all.
        size: Width and height in pixels of the pictures it is for; None means any.
        classes: Classes that it is about, or aliases of them; none mean all, and `EGO_CLASSES` for
            an ego vehicle.
        units: Of the polygon: `fraction` of the picture's width and height, or `pixel`.
        polygon: Corners x, y; upright.
        mask: Pixels of a mask picture, bool (h, w), upright; instead of a polygon.
        digest: SHA-256 of the mask file, or empty.
    """

    name: str
    kind: str
    pictures: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    classes: tuple[str, ...] = ()
    units: str = "fraction"
    polygon: tuple[tuple[float, float], ...] = ()
    mask: Bools | None = field(default=None, repr=False, compare=False)
    digest: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            self._refuse(f"kind is {self.kind!r}; expected one of {', '.join(KINDS)}")
        if self.units not in UNITS:
            self._refuse(f"units is {self.units!r}; expected one of {', '.join(UNITS)}")
        if bool(self.polygon) == (self.mask is not None):
            self._refuse("expected either a polygon or a mask")
        if self.polygon and len(self.polygon) < 3:
            self._refuse(f"its polygon has {len(self.polygon)} corners; expected at least 3")
        if not all(math.isfinite(v) for corner in self.polygon for v in corner):
            self._refuse("its polygon has a corner that is not finite")
        top = 1.0 if self.units == "fraction" else COORDINATE_MAX
        if not all(0 <= v <= top for corner in self.polygon for v in corner):
            self._refuse(
                f"its polygon leaves the picture; corners in units of {self.units} are from 0 to "
                f"{top:.0f}"
            )
        if self.kind == EGO and not self.classes:
            object.__setattr__(self, "classes", EGO_CLASSES)

    def _refuse(self, why: str) -> None:
        raise RegionError(f"region {self.name!r}: {why}")

    def is_for(self, name: str, width: int, height: int) -> bool:
        """Tell whether this region is for a picture.

        >>> corners = ((0, 0), (1, 0), (1, 1))
        >>> Area("a", "ignore", ("cam0/*",), polygon=corners).is_for("cam0/x.jpg", 9, 9)
        True
        """
        if self.size is not None and self.size != (width, height):
            return False
        return not self.pictures or any(fnmatch.fnmatchcase(name, g) for g in self.pictures)

    def drawn(self, width: int, height: int) -> Bools:
        """Return the region's pixels in a picture; bool (height, width).

        Raises:
            RegionError: If a mask has other proportions than the picture.
        """
        if self.mask is None:
            scale = (width, height) if self.units == "fraction" else (1, 1)
            corners = np.array(self.polygon) * scale
            # Of a polygon that crosses itself, all that protects: what it goes around is of
            # interest, and what it goes around twice is not ignored.
            if self.kind != INTEREST:
                return lies_within(corners, height, width)
            canvas = goes_around(corners, height, width).view(np.uint8)
            cv2.fillPoly(canvas, [np.rint((corners - 0.5) * 16).astype(np.int32)], 1, shift=4)
            return canvas.view(np.bool_)
        rows, columns = self.mask.shape
        if abs(columns / rows * height / width - 1) > ASPECT_TOLERANCE:
            self._refuse(
                f"its mask is {columns}x{rows} pixels, which does not fit a picture of "
                f"{width}x{height}; name its pictures by `pictures` or `size`"
            )
        stretched = cv2.resize(
            self.mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST
        )
        return np.asarray(stretched.astype(bool))

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, for reports and digests."""
        return {
            "name": self.name,
            "kind": self.kind,
            "pictures": list(self.pictures),
            "size": None if self.size is None else list(self.size),
            "classes": list(self.classes),
            "units": self.units,
            "polygon": [list(corner) for corner in self.polygon],
            "mask_sha256": self.digest,
        }


@dataclass(frozen=True)
class Spared:
    """A find that a region took out.

    Attributes:
        index: Its position among the finds.
        region: Name of the region.
        kind: Kind of the region.
    """

    index: int
    region: str
    kind: str


class Regions:
    """The regions of a run; safe to use from several threads."""

    def __init__(self, areas: Sequence[Area] = ()) -> None:
        """Use these regions."""
        self.areas = tuple(areas)
        self._drawn: dict[tuple[int, int, int], Bools] = {}
        self._lock = threading.Lock()

    @classmethod
    def read(cls, path: Path) -> Regions:
        """Read a regions file.

        Raises:
            RegionError: If a region has an unknown key, a wrong value, or an unreadable mask.
            SettingsError: If the file cannot be read.
        """
        values = read_structured(path, schema_version=SCHEMA_VERSION, keys=("regions",))
        listed = values.get("regions")
        if not isinstance(listed, list):
            raise RegionError(f"{path}: regions is {listed!r}; expected a list")
        try:
            return cls([_area(value, i, path.parent) for i, value in enumerate(listed, start=1)])
        except RegionError as error:
            raise RegionError(f"{path}: {error}") from error

    def to_dict(self) -> list[dict[str, Any]]:
        """Return plain types, for reports."""
        return [area.to_dict() for area in self.areas]

    def check(self, taxonomy: Taxonomy) -> None:
        """Refuse regions about classes that there are not.

        Raises:
            RegionError: With the region and the class.
        """
        for area in self.areas:
            for name in area.classes:
                if taxonomy.resolve(name) is None:
                    raise RegionError(
                        f"region {area.name!r} is about class {name!r}; "
                        f"known classes: {', '.join(taxonomy.names)}"
                    )

    def without_picture(self, names: Sequence[str]) -> list[Area]:
        """Return the regions whose globs name none of the pictures of a run.

        Args:
            names: Paths of the pictures below their input folders, with `/`.
        """
        return [
            area
            for area in self.areas
            if area.pictures
            and not any(fnmatch.fnmatchcase(name, g) for name in names for g in area.pictures)
        ]

    def spared(
        self,
        detections: Detections,
        taxonomy: Taxonomy,
        *,
        name: str,
        width: int,
        height: int,
        mask_threshold: float = MASK_THRESHOLD,
        outlines: Mapping[int, Outline] = NO_OUTLINES,
    ) -> list[Spared]:
        """Return the finds of one picture that are not to be obscured, in order.

        Args:
            detections: The finds.
            taxonomy: How their classes are obscured.
            name: Path of the picture below its input folder, with `/`.
            width: Columns of the picture.
            height: Rows of the picture.
            mask_threshold: Least probability of a pixel of an outline.
            outlines: Exact pixels of finds, by position.

        Raises:
            RegionError: If a mask does not fit the picture.
        """
        here = [(i, a) for i, a in enumerate(self.areas) if a.is_for(name, width, height)]
        classes = {i: {taxonomy.resolve(c) for c in a.classes} for i, a in here}
        found = []
        for index in range(len(detections)) if here else ():
            spec = class_spec(detections, index, taxonomy)

            def covers(spec: ClassSpec, index: int = index) -> Region:
                return region(
                    detections,
                    index,
                    spec,
                    height=height,
                    width=width,
                    mask_threshold=mask_threshold,
                    outline=outlines.get(index),
                )

            name_of_class = taxonomy.names[int(detections.class_ids[index])]
            about = [(i, a) for i, a in here if not a.classes or name_of_class in classes[i]]
            own = covers(replace(spec, margin=0.0, feather=0.0))
            by = self._out_of_interest(about, covers(spec), width, height)
            by = by or self._inside(about, own, width, height)
            if by is not None:
                found.append(Spared(index, by.name, by.kind))
        return found

    def _out_of_interest(
        self, here: Iterable[tuple[int, Area]], found: Region, width: int, height: int
    ) -> Area | None:
        wanted = [(i, area) for i, area in here if area.kind == INTEREST]
        touched = any(
            (self._pixels(i, width, height)[found.slices] & found.touched).any() for i, _ in wanted
        )
        return wanted[0][1] if wanted and not touched else None

    def _inside(
        self, here: Iterable[tuple[int, Area]], found: Region, width: int, height: int
    ) -> Area | None:
        touched = found.touched
        if not touched.any():
            return None
        for i, area in here:
            if area.kind == INTEREST:
                continue
            if not (touched & ~self._pixels(i, width, height)[found.slices]).any():
                return area
        return None

    def _pixels(self, position: int, width: int, height: int) -> Bools:
        """Return a region's pixels, drawn once for each size of picture."""
        key = (position, width, height)
        with self._lock:
            if key not in self._drawn:
                if len(self._drawn) >= 4 * len(self.areas):
                    self._drawn.clear()
                self._drawn[key] = self.areas[position].drawn(width, height)
            return self._drawn[key]


def _area(values: Any, position: int, folder: Path) -> Area:
    name = f"number {position}"
    if not isinstance(values, Mapping):
        raise RegionError(f"region {name} is {values!r}; expected KEY: VALUE pairs")
    rest = dict(values)
    for key in rest:
        if key not in _KEYS:
            raise RegionError(f"region {name} has key {key!r}; known: {', '.join(_KEYS)}")
    rest["name"] = str(rest.get("name", name))
    mask = rest.pop("mask", None)
    if mask is not None:
        opaque = rest.get("kind") != INTEREST
        rest["mask"], rest["digest"] = _read_mask(folder / str(mask), rest["name"], opaque=opaque)
    for key in ("pictures", "classes"):
        if key in rest and not rest[key]:
            raise RegionError(
                f"region {rest['name']!r}: {key} is empty; name some, or leave it out to mean all"
            )
    try:
        rest["polygon"] = tuple((float(x), float(y)) for x, y in rest.get("polygon") or ())
        pictures = rest.get("pictures") or ()
        rest["pictures"] = (pictures,) if isinstance(pictures, str) else tuple(map(str, pictures))
        classes = rest.get("classes") or ()
        rest["classes"] = (classes,) if isinstance(classes, str) else tuple(map(str, classes))
        size = rest.get("size")
        if size is not None:
            width, height = size
            rest["size"] = (int(width), int(height))
        return Area(**rest)
    except (TypeError, ValueError, OverflowError) as error:
        raise RegionError(f"region {rest['name']!r} cannot be read: {error}") from error


def _read_mask(path: Path, name: str, *, opaque: bool) -> tuple[Bools, str]:
    """Read where a mask is bright; where it spares objects, what is see-through does not count.

    Programs often keep erased pixels white.
    """
    from anonymization.formats.picture import PictureError, read_picture
    from anonymization.formats.pixels import has_alpha

    try:
        picture = read_picture(path)
        mask = np.asarray(picture.pixels.max(axis=2) >= 128)
        if opaque and has_alpha(picture.encoding.mode):
            alpha = picture.native[..., -1]
            full = np.iinfo(alpha.dtype).max if alpha.dtype.kind == "u" else 1.0
            mask &= alpha >= full / 2
        return mask, sha256_of_file(path)
    except OSError as error:
        why = f"{path} cannot be read: {error.strerror or error}"
        raise RegionError(f"region {name!r}: mask {why}") from error
    except PictureError as error:
        raise RegionError(f"region {name!r}: mask {error}") from error
