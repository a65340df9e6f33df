"""Panoramas as the anonymizer treats them: which projection, and objects across the seam.

A panorama of the whole turn has a seam where its last column borders on its first. A true object
across it is one object whose box starts in the picture and ends beyond its width, as a find does.
Truth says so in one of three ways: pieces of one class with the same `object` (else `track`) at
both edges; one outline with parts at both edges; a box that reaches beyond an edge.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonymization.errors import BlurloopError
from anonymization.panorama.gpano import EQUIRECTANGULAR, ChosenProjection, choose_projection
from anonymization.panorama.projection import Equirectangular, ProjectionError
from data.coco import Annotation, Dataset, Image

IDENTITIES = ("object", "track")
"""Attributes that name an object; pieces with the same name in one picture are one object."""

EDGE_SHARE = 1 / 360
"""Pieces that end within this share of the width (one degree) touch the picture's edge: labels
are not exact."""

Arc = tuple[float, float]


class PanoramaError(BlurloopError):
    """A picture of the set cannot have the projection that its manifest states."""


def projection_of_image(image: Image, xmp: bytes) -> ChosenProjection:
    """Return how the anonymizer looks at a picture of a data set.

    Args:
        image: Its record; `projection` of the manifest makes it a panorama if it says
            `equirectangular`, as `--projection equirectangular` does. Anything else leaves the
            choice to the picture's GPano metadata: the manifest says `perspective` also where
            nothing is known.
        xmp: XMP of its file, empty where it has none.

    Raises:
        PanoramaError: If the picture cannot be a panorama.
    """
    asked = EQUIRECTANGULAR if image.fields.get("projection") == EQUIRECTANGULAR else None
    try:
        return choose_projection(asked, xmp, image.width, image.height)
    except ProjectionError as error:
        raise PanoramaError(
            f"picture {image.sha256} is {EQUIRECTANGULAR} in its manifest: {error}. "
            "Correct the manifest, or collect the picture again"
        ) from error


def panorama_of_image(image: Image, xmp: bytes = b"") -> Equirectangular | None:
    """Return the panorama that a picture is, or None; as `projection_of_image`."""
    return as_panorama(projection_of_image(image, xmp))


def as_panorama(chosen: ChosenProjection) -> Equirectangular | None:
    """Return the panorama of a choice, or None for a flat picture."""
    return chosen.projection if isinstance(chosen.projection, Equirectangular) else None


def seam_of(panorama: Equirectangular | None) -> int | None:
    """Return the column at which a picture goes on at its first one; None where it does not.

    >>> seam_of(Equirectangular.of_size(200, 100)), seam_of(None)
    (200, None)
    """
    return panorama.width if panorama is not None and panorama.wraps else None


def on_circle(boxes_xyxy: NDArray[Any], seam: int) -> NDArray[np.float64]:
    """Return boxes that start in the picture and are at most a turn wide, float64 (N, 4).

    >>> on_circle(np.array([[-10, 0, 10, 5], [-3, 0, 400, 5]]), 100).tolist()
    [[90.0, 0.0, 110.0, 5.0], [0.0, 0.0, 100.0, 5.0]]
    """
    boxes = np.array(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    width = boxes[:, 2] - boxes[:, 0]
    start = np.where(width < seam, np.mod(boxes[:, 0], seam), 0)
    boxes[:, 0], boxes[:, 2] = start, start + np.minimum(width, seam)
    return boxes


def span_of(arcs: Iterable[Arc], seam: float) -> Arc:
    """Return the shortest span around arcs of a circle: start in [0, seam), end beyond it.

    Args:
        arcs: First column and column after the last, of any turn.
        seam: Columns of the whole turn.

    >>> span_of([(90, 100), (0, 10)], 100), span_of([(0, 60), (50, 100)], 100)
    ((90.0, 110.0), (0.0, 100.0))
    """
    ordered = sorted((x0 % seam, x0 % seam + x1 - x0) for x0, x1 in arcs)
    reach = max(end for _, end in ordered) - seam
    gap, start = 0.0, None
    for x0, x1 in ordered:
        if x0 - reach > gap:
            gap, start = x0 - reach, x0
        reach = max(reach, x1)
    return (0.0, float(seam)) if start is None else (float(start), float(start + seam - gap))


def joined(
    annotations: Iterable[Annotation], image: Image, panorama: Equirectangular | None
) -> tuple[Annotation, ...]:
    """Return the true objects of a picture, those across its seam as one each.

    An object across the seam has the id and attributes of its first piece, a box that ends beyond
    the width, and the outlines of all pieces, folded into the picture; no outline where one of
    them has none. It is identifiable if any annotator said so, and a crowd if all pieces are.
    Flat pictures, and panoramas of less than a turn, keep what they have.

    Args:
        annotations: Of the picture, as labelled.
        image: The picture.
        panorama: Its projection; None for a flat picture.
    """
    seam = seam_of(panorama)
    if seam is None:
        return tuple(annotations)
    pieces = [_unrolled(piece, image, seam) for piece in annotations]
    groups: dict[Any, list[Annotation]] = defaultdict(list)
    for piece in pieces:
        groups[_identity(piece)].append(piece)
    done: list[Annotation] = []
    for group in groups.values():
        across = len(group) > 1 and _touch_both_edges(group, seam)
        done += [_one(group, image, seam)] if across else group
    order = {piece.id: position for position, piece in enumerate(pieces)}
    return tuple(sorted(done, key=lambda piece: order[piece.id]))


def joined_dataset(dataset: Dataset, panoramas: Mapping[str, Equirectangular | None]) -> Dataset:
    """Return a data set with the objects across seams joined; the same one where it has none.

    Args:
        dataset: As labelled.
        panoramas: Projection of each picture, by SHA-256.
    """
    if not any(panoramas.values()):
        return dataset
    objects = (
        joined(dataset.by_image[image.id], image, panoramas.get(image.sha256))
        for image in dataset.images
    )
    return Dataset(dataset.images, tuple(piece for group in objects for piece in group))


def _identity(piece: Annotation) -> tuple[Any, ...]:
    """Return what pieces of one object share; something of its own where nothing is said."""
    for key in IDENTITIES:
        name = piece.attributes.get(key)
        if name is not None and name != "":
            return piece.class_name, key, str(name)
    return (piece.id,)


def _touch_both_edges(group: Sequence[Annotation], seam: int) -> bool:
    near = seam * EDGE_SHARE
    first = any(piece.box_xyxy[0] <= near for piece in group)
    return first and any(piece.box_xyxy[2] >= seam - near for piece in group)


def _unrolled(piece: Annotation, image: Image, seam: int) -> Annotation:
    """Return a label that reaches beyond an edge, or lies at both, as one across the seam."""
    x0, y0, x1, y1 = piece.box_xyxy
    if x0 < 0 or x1 > seam:
        box = on_circle(np.array([piece.box_xyxy]), seam)[0]
        outline = _folded(piece.segmentation, seam)
        return dataclasses.replace(
            piece, box_xyxy=(float(box[0]), y0, float(box[2]), y1), segmentation=outline
        )
    if piece.segmentation is None or not _touch_both_edges([piece], seam):
        return piece
    start, end = span_of(_occupied(piece, image) or [(x0, x1)], seam)
    return dataclasses.replace(piece, box_xyxy=(start, y0, end, y1)) if end > seam else piece


def _folded(segmentation: Any, seam: int) -> Any:
    """Return polygons beyond an edge also where they come in on the other side."""
    if not isinstance(segmentation, list):
        return segmentation
    done = []
    for polygon in segmentation:
        points = np.reshape(np.asarray(polygon, dtype=np.float64), (-1, 2))
        done.append(points.ravel().tolist())
        for step in (-seam, seam):
            moved = points + np.array([step, 0])
            if moved[:, 0].max() > 0 and moved[:, 0].min() < seam:
                done.append(moved.ravel().tolist())
    return done


def _occupied(piece: Annotation, image: Image) -> list[Arc]:
    """Return the runs of columns that an outline touches."""
    mask = piece.mask("mask", height=image.height, width=image.width)
    steps = np.diff(np.concatenate([[0], mask.any(axis=0).astype(np.int8), [0]]))
    runs = zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1), strict=True)
    return [(float(x0), float(x1)) for x0, x1 in runs]


def _one(group: Sequence[Annotation], image: Image, seam: int) -> Annotation:
    boxes = [piece.box_xyxy for piece in group]
    start, end = span_of([(box[0], box[2]) for box in boxes], seam)
    words = [piece.attributes.get("identifiable") for piece in group]
    said = [word for word in words if word is not None]
    attributes = dict(group[0].attributes)
    if said:
        attributes["identifiable"] = said[0] if said[0] not in (True, False) else any(said)
    return dataclasses.replace(
        group[0],
        box_xyxy=(start, min(box[1] for box in boxes), end, max(box[3] for box in boxes)),
        segmentation=_united(group, image),
        keypoints=next((piece.keypoints for piece in group if piece.keypoints), None),
        crowd=all(piece.crowd for piece in group),
        attributes=attributes,
    )


def _united(group: Sequence[Annotation], image: Image) -> dict[str, Any] | None:
    """Return the union of all outlines, as COCO RLE; None where one is missing."""
    from pycocotools import mask as coco_mask

    rles = [piece.rle(height=image.height, width=image.width) for piece in group]
    known = [rle for rle in rles if rle is not None]
    return coco_mask.merge(known) if len(known) == len(rles) else None
