"""Which projection a picture has: from its GPano metadata, from its size, or as asked for.

GPano is Google's Photo Sphere XMP (https://developers.google.com/streetview/spherical-metadata).
XMP comes from strangers. It is searched for a few short values by patterns of bounded length and
never parsed, so that no entity of it is expanded and nothing of it is fetched.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from anonymization.panorama.lens import FisheyeLens
from anonymization.panorama.projection import Equirectangular, Projection, ProjectionError

NAMESPACE = "http://ns.google.com/photos/1.0/panorama/"
XMP_MAX_BYTES = 4 * 2**20
"""Bytes of XMP that are searched; GPano stands in the standard packet, of at most 64 KB in JPEG."""

PERSPECTIVE, EQUIRECTANGULAR, AUTO = "perspective", "equirectangular", "auto"
FISHEYE = "fisheye"
NAMES = (PERSPECTIVE, EQUIRECTANGULAR, AUTO, FISHEYE)

_PREFIX = re.compile(rf"xmlns:([A-Za-z_][\w.-]{{0,63}})\s{{0,8}}=\s{{0,8}}[\"']{NAMESPACE}[\"']")
_SIZES = (
    "CroppedAreaImageWidthPixels",
    "CroppedAreaImageHeightPixels",
    "FullPanoWidthPixels",
    "FullPanoHeightPixels",
    "CroppedAreaLeftPixels",
    "CroppedAreaTopPixels",
)


@dataclass(frozen=True)
class ChosenProjection:
    """How a picture is looked at.

    Attributes:
        projection: None for a flat picture (perspective).
        warning: One line about a choice that may be wrong, or None.
        by_shape: Whether that is for its 2:1 shape alone, which many pictures of a run may have.
    """

    projection: Projection | None
    warning: str | None = None
    by_shape: bool = False

    @property
    def name(self) -> str:
        """What documents call it: `perspective`, `equirectangular` or `fisheye`."""
        if self.projection is None:
            return PERSPECTIVE
        return EQUIRECTANGULAR if isinstance(self.projection, Equirectangular) else FISHEYE


def gpano_values(xmp: bytes) -> dict[str, str]:
    """Return the GPano properties of an XMP packet as text, by name; empty where it has none.

    >>> gpano_values(b'<x GPano:ProjectionType="equirectangular"/>')
    {'ProjectionType': 'equirectangular'}
    """
    text = _text(xmp[:XMP_MAX_BYTES])
    named = {match.group(1) for match in _PREFIX.finditer(text)} or {"GPano"}
    prefix = "|".join(re.escape(name) for name in sorted(named)[:8])
    pattern = re.compile(
        rf"(?<![\w.-])(?:{prefix}):([A-Za-z]{{1,64}})\s{{0,8}}"
        r"(?:=\s{0,8}(?:\"([^\"<]{0,64})\"|'([^'<]{0,64})')|>([^<]{0,64})</)"
    )
    found: dict[str, str] = {}
    for match in pattern.finditer(text):
        value = next(group for group in match.groups()[1:] if group is not None)
        found.setdefault(match.group(1), value.strip())
    return found


def _text(xmp: bytes) -> str:
    """Decode XMP: UTF-8 mostly, UTF-16 and UTF-32 by their zero bytes."""
    head = xmp[:64]
    if b"\0" not in head:
        return xmp.decode("utf-8", "replace")
    # ASCII letters of UTF-16 and UTF-32 differ from themselves in UTF-8 by zero bytes alone.
    return xmp.replace(b"\0", b"").decode("utf-8", "replace")


def projection_of(xmp: bytes, width: int, height: int) -> Projection | None:
    """Return the projection that a picture's GPano metadata states, or None.

    A picture that was resized after stitching keeps sizes of the larger one; they are scaled to
    the picture. Sizes that are missing or contradict each other are left aside: then the picture
    is taken for a whole turn.

    Args:
        xmp: The picture's XMP packet, empty where it has none.
        width: Columns of the picture, upright.
        height: Its rows.
    """
    values = gpano_values(xmp)
    if values.get("ProjectionType", "").lower() != EQUIRECTANGULAR:
        return None
    try:
        return _stated(values, width, height) or Equirectangular.of_size(width, height)
    except ProjectionError:
        # Taller than a panorama can be and no usable sizes: a full sphere, squeezed.
        return Equirectangular(width, height, width, height)


def _stated(values: dict[str, str], width: int, height: int) -> Equirectangular | None:
    """Return the panorama that the sizes describe; None where they do not."""
    crop_width, crop_height, full_width, full_height, left, top = (
        _number(values.get(name)) for name in _SIZES
    )
    crop_width, crop_height = crop_width or width, crop_height or height
    if not full_width or not full_height:
        return None
    sx, sy = width / crop_width, height / crop_height
    try:
        return Equirectangular(
            width, height, full_width * sx, full_height * sy, (left or 0) * sx, (top or 0) * sy
        )
    except ProjectionError:
        return None


def _number(value: str | None) -> float | None:
    try:
        found = float(value or "")
    except ValueError:
        return None
    return found if math.isfinite(found) and 0 <= found <= 1e7 else None


def choose_projection(
    asked: str | FisheyeLens | None, xmp: bytes, width: int, height: int
) -> ChosenProjection:
    """Decide how a picture is looked at.

    Args:
        asked: None takes what the metadata states, else perspective. `auto` also takes a 2:1
            picture without metadata for a panorama, and warns. `equirectangular` and
            `perspective` are orders; a panorama's crop is still read from the metadata. A lens,
            or `fisheye` for the usual one, is an order too, of pictures that state no panorama.
        xmp: The picture's XMP packet, empty where it has none.
        width: Columns of the picture, upright.
        height: Its rows.

    Raises:
        ProjectionError: If the name is unknown, or the picture cannot be what was asked for.
    """
    if asked == FISHEYE:
        asked = FisheyeLens()
    if isinstance(asked, FisheyeLens):
        return _seen_through(asked, xmp, width, height)
    if asked is not None and asked not in NAMES:
        raise ProjectionError(f"projection is {asked!r}; expected one of {', '.join(NAMES)}")
    if asked == PERSPECTIVE:
        return ChosenProjection(None)
    stated = projection_of(xmp, width, height)
    if stated is not None:
        return ChosenProjection(stated)
    if asked == EQUIRECTANGULAR:
        return ChosenProjection(Equirectangular.of_size(width, height))
    kind = gpano_values(xmp).get("ProjectionType")
    if kind and kind.lower() == FISHEYE:
        return ChosenProjection(
            None, "its metadata state a fisheye; it is looked at as flat. Ask for fisheye"
        )
    if kind:
        return ChosenProjection(
            None, f"panorama of projection {kind[:32]!r} is not handled; it is looked at as flat"
        )
    if abs(width - 2 * height) > 2:
        return ChosenProjection(None)
    if asked == AUTO:
        return ChosenProjection(
            Equirectangular.of_size(width, height),
            f"{width}x{height} without GPano metadata is taken for a whole panorama for its 2:1 "
            "shape; ask for perspective if it is flat",
            by_shape=True,
        )
    return ChosenProjection(
        None,
        f"{width}x{height} has the 2:1 shape of a panorama but no GPano metadata; it is looked "
        "at as flat. Ask for equirectangular if it is one",
        by_shape=True,
    )


def _seen_through(lens: FisheyeLens, xmp: bytes, width: int, height: int) -> ChosenProjection:
    if projection_of(xmp, width, height) is not None:
        raise ProjectionError(
            "its metadata state an equirectangular panorama, which no fisheye picture is; look at "
            "it without the projection fisheye"
        )
    return ChosenProjection(lens.of_size(width, height))
