"""What can be written beside an anonymized picture: masks and an overlay for the eye.

Masks follow the regions with their margins: the instance mask numbers every find (1 is the first
find of the detections JSON, 0 is none), the binary mask is 255 where pixels were obscured fully.
The overlay is drawn on the anonymized picture.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from anonymization.detection.finds import Detections
from anonymization.errors import BlurloopError
from anonymization.obscuring.obscure import obscured_mask
from anonymization.obscuring.region import Outline
from anonymization.obscuring.shapes import MASK_THRESHOLD, NO_OUTLINES, class_spec, region
from anonymization.taxonomy import Taxonomy

Rgb = NDArray[np.uint8]

DETECTIONS, INSTANCES, MASK, OVERLAY = "detections", "instances", "mask", "overlay"
EXTRAS = (DETECTIONS, INSTANCES, MASK, OVERLAY)
SUFFIX = {DETECTIONS: ".json", INSTANCES: ".png", MASK: ".png", OVERLAY: ".jpg"}
FINDS_MAX = 2**16 - 1
LABEL_MAX = 0.6
"""Largest font scale of an overlay: letters of some 13 pixels, also on a panorama."""
EDGE_MAX = 4
"""Widest edge that an overlay draws, in pixels."""
OVERLAY_QUALITY = 90


class ExtraError(BlurloopError):
    """Something beside the picture cannot be made."""


def instance_mask(
    detections: Detections,
    taxonomy: Taxonomy,
    height: int,
    width: int,
    *,
    numbers: NDArray[np.int64] | None = None,
    mask_threshold: float = MASK_THRESHOLD,
    outlines: Mapping[int, Outline] = NO_OUTLINES,
) -> NDArray[np.uint16]:
    """Return the number of the find that each pixel belongs to, uint16 (H, W); small ones on top.

    Also finds of classes that are only detected have their pixels here.

    Args:
        detections: The finds.
        taxonomy: Their classes.
        height: Rows of the picture.
        width: Columns of the picture.
        numbers: Number of each find; None counts from 1.
        mask_threshold: Least probability of a pixel of an outline.
        outlines: Exact pixels of finds, by position.

    Raises:
        ExtraError: If there are more finds than 16 bits can number.
    """
    if len(detections) > FINDS_MAX:
        raise ExtraError(f"{len(detections)} finds; an instance mask numbers {FINDS_MAX} at most")
    canvas = np.zeros((height, width), np.uint16)
    given = np.arange(1, len(detections) + 1) if numbers is None else numbers
    boxes = detections.boxes_xyxy
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for index in np.argsort(-areas, kind="stable"):
        where = region(
            detections,
            int(index),
            class_spec(detections, int(index), taxonomy),
            height=height,
            width=width,
            mask_threshold=mask_threshold,
            outline=outlines.get(int(index)),
        )
        canvas[where.slices][where.full] = given[index]
    return canvas


def binary_mask(
    detections: Detections,
    taxonomy: Taxonomy,
    height: int,
    width: int,
    *,
    mask_threshold: float = MASK_THRESHOLD,
    outlines: Mapping[int, Outline] = NO_OUTLINES,
) -> Rgb:
    """Return 255 where pixels were obscured fully, else 0; uint8 (H, W)."""
    hidden = obscured_mask(
        detections, taxonomy, height, width, mask_threshold=mask_threshold, outlines=outlines
    )
    return hidden.astype(np.uint8) * np.uint8(255)


def scaled_png(mask: NDArray[np.uint8] | NDArray[np.uint16], scale: float) -> bytes:
    """Return a mask as PNG, its sides scaled; numbers are picked, never mixed.

    Raises:
        ExtraError: If it cannot be encoded.
    """
    if scale != 1:
        height, width = mask.shape
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        return _encoded(".png", cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), [])
    return _encoded(".png", mask, [])


def overlay(
    pixels: Rgb,
    detections: Detections,
    taxonomy: Taxonomy,
    *,
    numbers: NDArray[np.int64] | None = None,
    spared: Mapping[int, str] | None = None,
    visible: Collection[int] = (),
    mask_threshold: float = MASK_THRESHOLD,
    outlines: Mapping[int, Outline] = NO_OUTLINES,
) -> Rgb:
    """Draw the edge of each find's region, its number, class and score.

    Args:
        pixels: uint8, shape (H, W, 3), RGB; what it is drawn on.
        detections: The finds.
        taxonomy: Their classes and colours.
        numbers: Number of each find; None counts from 1.
        spared: Regions that spare finds, by position; their edges are thin.
        visible: Positions of what the audit still sees; told of in the label.
        mask_threshold: Least probability of a pixel of an outline.
        outlines: Exact pixels of finds, by position.
    """
    height, width = pixels.shape[:2]
    drawn = pixels.copy()
    thick = min(EDGE_MAX, max(1, round(max(height, width) / 700)))
    size = min(LABEL_MAX, max(0.35, max(height, width) / 2400))
    given = np.arange(1, len(detections) + 1) if numbers is None else numbers
    for index in range(len(detections)):
        spec = class_spec(detections, index, taxonomy)
        where = region(
            detections,
            index,
            dataclasses.replace(spec, feather=0.0),
            height=height,
            width=width,
            mask_threshold=mask_threshold,
            outline=outlines.get(index),
        )
        contours, _ = cv2.findContours(
            where.full.astype(np.uint8),
            cv2.RETR_EXTERNAL,
            cv2.CHAIN_APPROX_SIMPLE,
            offset=(where.x0, where.y0),
        )
        colour = _rgb(spec.color)
        kept_out = bool(spared) and index in (spared or {})
        cv2.drawContours(drawn, contours, -1, colour, 1 if kept_out else thick)
        name = taxonomy.names[int(detections.class_ids[index])]
        text = f"{given[index]} {name} {detections.scores[index]:.2f}"
        text += (" spared" if kept_out else "") + (" visible" if index in visible else "")
        _label(drawn, text, (where.x0, where.y0), colour, size, thick)
    return drawn


def overlay_jpeg(pixels: Rgb) -> bytes:
    """Return RGB pixels as JPEG.

    Raises:
        ExtraError: If they cannot be encoded.
    """
    return _encoded(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, OVERLAY_QUALITY])


def _encoded(kind: str, pixels: NDArray[np.generic], options: list[int]) -> bytes:
    try:
        done, content = cv2.imencode(kind, np.ascontiguousarray(pixels), options)
    except cv2.error as error:
        raise ExtraError(f"a {kind} of {pixels.shape} cannot be encoded: {error}") from error
    if not done:
        raise ExtraError(f"a {kind} of {pixels.shape} cannot be encoded")
    return bytes(content)


def _rgb(color: str) -> tuple[int, int, int]:
    """Return `#rrggbb` as numbers; gray for anything else.

    >>> _rgb("#ff0010")
    (255, 0, 16)
    """
    try:
        value = int(color.removeprefix("#"), 16)
    except ValueError:
        return (128, 128, 128)
    return (value >> 16 & 255, value >> 8 & 255, value & 255)


def _label(
    drawn: Rgb,
    text: str,
    corner: tuple[int, int],
    colour: tuple[int, int, int],
    size: float,
    thick: int,
) -> None:
    font = cv2.FONT_HERSHEY_SIMPLEX
    (width, height), below = cv2.getTextSize(text, font, size, 1)
    x = max(0, min(corner[0], drawn.shape[1] - width))
    y = max(height + below, corner[1] - thick)
    cv2.rectangle(drawn, (x, y - height - below), (x + width, y + below // 2), colour, -1)
    ink = (0, 0, 0) if sum(colour) > 380 else (255, 255, 255)
    cv2.putText(drawn, text, (x, y - below // 2), font, size, ink, 1, cv2.LINE_AA)
