"""Pictures of the worst misses and false finds, for a report.

A picture of a miss shows somebody who was not protected. Every true object in it is therefore
obscured by its own truth, whatever the model found, unless a person asks otherwise. So is every
find: a false one may be somebody whom the annotator overlooked.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anonymization.taxonomy import Taxonomy
from data.coco import Dataset, Image
from evaluation.matching import WRONG
from evaluation.panoramas import panorama_of_image, seam_of
from evaluation.patch import Patch
from evaluation.report.rows import Box, FindRow, ObjectRow
from evaluation.truth import PictureTruth, truth_of

Pixels = NDArray[np.uint8]

CROP_SIDES = 3.0
"""Sides of a missed object that its picture shows: enough street around it to know where it is."""

CROP_MIN_PX = 96
THUMBNAIL_PX = 240

OBSCURED_CELLS = 4
"""Mosaic cells across an obscured object: 16 means, far below the 12x14 at which faces are known
(PEERS 3.2)."""


@dataclass(frozen=True)
class Shown:
    """One picture of a gallery.

    Attributes:
        kind: `miss`, `false_find` or `lost` (recalled by the champion, missed by this bundle).
        class_name: Class of the object or find.
        sha256: Its picture.
        text: What happened, in a few words.
        data: The picture, a base64 JPEG.
    """

    kind: str
    class_name: str
    sha256: str
    text: str
    data: str

    def to_dict(self) -> dict[str, str]:
        """Return plain types."""
        return asdict(self)


@dataclass(frozen=True)
class Album:
    """Where pictures of a gallery come from.

    Attributes:
        dataset: The judged pictures and labels.
        taxonomy: The classes.
        pictures: Folder of the pictures.
        found: Boxes of the shipped finds of each picture, which are obscured too.
    """

    dataset: Dataset
    taxonomy: Taxonomy
    pictures: Path
    found: Mapping[str, Sequence[Box]] = field(default_factory=dict)

    def show(
        self, kind: str, sha256: str, box: Box, class_name: str, text: str, *, raw: bool
    ) -> Shown:
        """Return one picture; `raw` leaves people as they are."""
        image = self._image(sha256)
        data = base64.b64encode(self._drawn(image, box, class_name, raw)).decode()
        return Shown(kind, class_name, sha256, text, data)

    def miss(self, row: ObjectRow, *, raw: bool, kind: str = "miss") -> Shown:
        """Return a picture of a missed object."""
        found = "detected" if row.detected else "not detected"
        text = f"{row.side_px:.0f} px, {row.share * 100:.0f} % hidden, {found}"
        return self.show(kind, row.sha256, row.box_xyxy, row.class_name, text, raw=raw)

    def false_find(self, find: FindRow, *, raw: bool) -> Shown:
        """Return a picture of a find where nothing of its class is."""
        text = f"score {find.score:.2f}, by {find.source}"
        return self.show("false_find", find.sha256, find.box_xyxy, find.class_name, text, raw=raw)

    def _image(self, sha256: str) -> Image:
        return next(image for image in self.dataset.images if image.sha256 == sha256)

    def _drawn(self, image: Image, box: Box, class_name: str, raw: bool) -> bytes:
        from PIL import Image as Pillow

        from anonymization.formats.picture import read_picture

        picture = read_picture(self.pictures / image.file_name)
        pixels, panorama = picture.pixels, panorama_of_image(image, picture.xmp)
        if not raw:
            truth = truth_of(image, self.dataset.by_image[image.id], self.taxonomy, panorama)
            labelled = truth.fully_labelled(self.taxonomy.names)
            found = self.found.get(image.sha256, ())
            pixels = published(pixels, truth, found, labelled=labelled)
        wraps = seam_of(panorama) is not None
        shown = around(pixels, box, self.taxonomy[class_name].color, wraps=wraps)
        file = io.BytesIO()
        Pillow.fromarray(shown).save(file, "JPEG", quality=85)
        return file.getvalue()


def gallery(
    rows: Sequence[ObjectRow], finds: Sequence[FindRow], album: Album, *, most: int, raw: bool
) -> list[Shown]:
    """Return pictures of the worst misses and the worst false finds, at most so many of each."""
    misses = [album.miss(row, raw=raw) for row in worst_misses(rows, most)]
    return misses + [album.false_find(find, raw=raw) for find in worst_finds(finds, most)]


def worst_finds(finds: Sequence[FindRow], most: int) -> list[FindRow]:
    """Return the false finds that the model is surest of."""
    return sorted((f for f in finds if f.state == WRONG), key=lambda find: -find.score)[:most]


def worst_misses(rows: Sequence[ObjectRow], most: int) -> list[ObjectRow]:
    """Return counted objects that were missed in either sense: least hidden first, then largest."""
    missed = [row for row in rows if row.counted and not (row.detected and row.covered)]
    return sorted(missed, key=lambda row: (round(row.share, 1), -row.side_px))[:most]


def published(
    pixels: Pixels, truth: PictureTruth, found_xyxy: Iterable[Box], *, labelled: bool
) -> Pixels:
    """Return a picture that may leave this machine.

    Where a class is not completely labelled, somebody nobody drew may stand anywhere: the whole
    picture is veiled then. A veil alone would leave a large face cells enough to be known by.
    """
    pixels = pixels if labelled else veiled(pixels)
    return obscure_boxes(obscure_truth(pixels, truth), found_xyxy)


def obscure_truth(pixels: Pixels, truth: PictureTruth) -> Pixels:
    """Return a copy in which every true object's whole crop is a coarse mosaic."""
    width = pixels.shape[1]
    pieces = (piece for thing in truth.objects for piece in thing.patch.pieces(width))
    return _coarse(pixels, pieces)


def obscure_boxes(pixels: Pixels, boxes_xyxy: Iterable[Box]) -> Pixels:
    """Return a copy in which every box is a coarse mosaic; one may end beyond a seam."""
    height, width = pixels.shape[:2]
    pieces: list[Patch] = []
    for x0, y0, x1, y1 in boxes_xyxy:
        left, top = max(0, int(x0)), max(0, int(y0))
        rows, columns = min(height, int(y1) + 1) - top, int(x1) + 1 - left
        if rows > 0 and columns > 0:
            pieces += Patch(left, top, np.ones((rows, columns), dtype=bool)).pieces(width)
    return _coarse(pixels, pieces)


def boxes_by_picture(finds: Iterable[tuple[str, Box]]) -> dict[str, list[Box]]:
    """Return the boxes of each picture, from pairs of picture and box."""
    boxes: dict[str, list[Box]] = {}
    for sha256, box in finds:
        boxes.setdefault(sha256, []).append(box)
    return boxes


def _coarse(pixels: Pixels, pieces: Iterable[Patch]) -> Pixels:
    """Return a copy in which the crop of each piece, and a little more, is a coarse mosaic."""
    done = pixels.copy()
    height, width = pixels.shape[:2]
    for piece in pieces:
        patch = grown(piece, height=height, width=width)
        crop = done[patch.y0 : patch.y1, patch.x0 : patch.x1]
        crop[:] = mosaic(crop)
    return done


def grown(patch: Patch, *, height: int, width: int) -> Patch:
    """Return a patch's whole crop with a tenth more on each side, as labels are not exact."""
    rows, columns = patch.mask.shape
    dy, dx = 1 + rows // 10, 1 + columns // 10
    x0, y0 = max(0, patch.x0 - dx), max(0, patch.y0 - dy)
    x1, y1 = min(width, patch.x1 + dx), min(height, patch.y1 + dy)
    return Patch(x0, y0, np.ones((y1 - y0, x1 - x0), dtype=bool))


def mosaic(crop: Pixels) -> Pixels:
    """Return a crop averaged in at most 4x4 cells, rounded to 16 levels."""
    done = np.empty_like(crop)
    rows = np.array_split(np.arange(crop.shape[0]), min(OBSCURED_CELLS, crop.shape[0]))
    columns = np.array_split(np.arange(crop.shape[1]), min(OBSCURED_CELLS, crop.shape[1]))
    for down in rows:
        for across in columns:
            cell = np.ix_(down, across)
            done[cell] = (crop[cell].mean(axis=(0, 1)) // 16 * 16).astype(np.uint8)
    return done


def veiled(pixels: Pixels) -> Pixels:
    """Return a whole picture averaged to cells of a thirtieth of its longer side."""
    from PIL import Image as Pillow

    height, width = pixels.shape[:2]
    cell = max(8, max(height, width) // 30)
    small = (max(1, width // cell), max(1, height // cell))
    coarse = Pillow.fromarray(pixels).resize(small, Pillow.Resampling.BOX)
    return np.asarray(coarse.resize((width, height), Pillow.Resampling.NEAREST))


def around(pixels: Pixels, box_xyxy: Box, color: str, *, wraps: bool = False) -> Pixels:
    """Return the surroundings of a box, which is drawn in its class's colour.

    Where the picture's last column borders on its first (`wraps`), the two sides of a box across
    that seam are put together.
    """
    x0, y0, x1, y1 = box_xyxy
    if wraps and (x0 < 0 or x1 > pixels.shape[1]):
        step = pixels.shape[1] // 2 - int((x0 + x1) / 2)
        pixels, x0, x1 = np.roll(pixels, step, axis=1), x0 + step, x1 + step
    half = max(CROP_MIN_PX, CROP_SIDES * max(x1 - x0, y1 - y0)) / 2
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    height, width = pixels.shape[:2]
    left, top = int(max(0, cx - half)), int(max(0, cy - half))
    right, bottom = int(min(width, cx + half)), int(min(height, cy + half))
    from PIL import Image as Pillow
    from PIL import ImageDraw

    crop = Pillow.fromarray(pixels[top:bottom, left:right])
    scale = THUMBNAIL_PX / max(crop.size)
    crop = crop.resize((max(1, round(crop.width * scale)), max(1, round(crop.height * scale))))
    box = [(x0 - left) * scale, (y0 - top) * scale, (x1 - left) * scale, (y1 - top) * scale]
    ImageDraw.Draw(crop).rectangle(box, outline=color, width=3)
    return np.asarray(crop)
