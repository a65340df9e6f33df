"""The evaluation as one HTML page that needs no network, and the pictures of its worst misses.

A picture of a miss shows somebody who was not protected. Every true object in it is therefore
obscured by its own truth, whatever the model found, unless a person asks otherwise.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonymization.taxonomy import Taxonomy
from data.coco import Dataset, Image
from evaluation.patch import Patch
from evaluation.rows import ObjectRow
from evaluation.truth import PictureTruth, truth_of

Pixels = NDArray[np.uint8]

TEMPLATES = Path(__file__).parent / "templates"

CROP_SIDES = 3.0
"""Sides of a missed object that its picture shows: enough street around it to know where it is."""

CROP_MIN_PX = 96
THUMBNAIL_PX = 240

OBSCURED_CELLS = 4
"""Mosaic cells across an obscured object: 16 means, far below the 12x14 at which faces are known
(PEERS 3.2)."""


def worst_misses(rows: Sequence[ObjectRow], most: int) -> list[ObjectRow]:
    """Return counted objects that were missed in either sense: least hidden first, then largest."""
    missed = [row for row in rows if row.counted and not (row.detected and row.covered)]
    return sorted(missed, key=lambda row: (round(row.share, 1), -row.side_px))[:most]


def obscure_truth(pixels: Pixels, truth: PictureTruth) -> Pixels:
    """Return a copy in which every true object's whole crop is a coarse mosaic."""
    done = pixels.copy()
    for thing in truth.objects:
        patch = grown(thing.patch, height=pixels.shape[0], width=pixels.shape[1])
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


def miss_picture(pixels: Pixels, row: ObjectRow, color: str) -> Pixels:
    """Return the surroundings of a missed object with its box drawn in its class's colour."""
    x0, y0, x1, y1 = row.box_xyxy
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


def write_report(
    folder: Path,
    summary: Mapping[str, Any],
    rows: Sequence[ObjectRow],
    dataset: Dataset,
    taxonomy: Taxonomy,
    *,
    pictures: Path,
    misses_max: int,
    unobscured: bool = False,
) -> None:
    """Write `report.html` and `misses/*.jpg`.

    Args:
        folder: Where to.
        summary: Content of reports/evaluation.json.
        rows: Every true object.
        dataset: The judged pictures and labels.
        taxonomy: The classes.
        pictures: Folder of the pictures.
        misses_max: Number of misses to show.
        unobscured: Whether to show them as they are.
    """
    misses = []
    (folder / "misses").mkdir()
    images = {image.sha256: image for image in dataset.images}
    for number, row in enumerate(worst_misses(rows, misses_max), start=1):
        shown = _miss(row, images[row.sha256], dataset, taxonomy, pictures, unobscured)
        name = f"{number:03d}-{row.class_name}.jpg"
        (folder / "misses" / name).write_bytes(shown)
        misses.append({"row": row, "data": base64.b64encode(shown).decode(), "name": name})
    page = render(summary, taxonomy, misses, unobscured=unobscured)
    (folder / "report.html").write_text(page, encoding="utf-8")


def _miss(
    row: ObjectRow,
    image: Image,
    dataset: Dataset,
    taxonomy: Taxonomy,
    pictures: Path,
    unobscured: bool,
) -> bytes:
    from PIL import Image as Pillow

    from anonymization.picture import read_picture

    pixels = read_picture(pictures / image.file_name).pixels
    if not unobscured:
        truth = truth_of(image, dataset.by_image[image.id], taxonomy)
        # Where a class is not completely labelled, somebody nobody drew may stand beside the miss.
        labelled = truth.fully_labelled(taxonomy.names)
        pixels = obscure_truth(pixels, truth) if labelled else veiled(pixels)
    shown = miss_picture(pixels, row, taxonomy[row.class_name].color)
    file = io.BytesIO()
    Pillow.fromarray(shown).save(file, "JPEG", quality=85)
    return file.getvalue()


def render(
    summary: Mapping[str, Any],
    taxonomy: Taxonomy,
    misses: Sequence[Mapping[str, Any]],
    *,
    unobscured: bool,
) -> str:
    """Return the page."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["ratio"] = ratio
    environment.globals["polyline"] = polyline
    template = environment.get_template("report.html")
    return template.render(summary=summary, taxonomy=taxonomy, misses=misses, unobscured=unobscured)


def ratio(value: float | None, digits: int = 3) -> str:
    """Return a number as text, rounded down so that 0.9499 never reads as 0.95; a dash for None.

    >>> ratio(0.94996), ratio(None)
    ('0.949', '–')
    """
    if value is None:
        return "–"
    scale = 10**digits
    return f"{np.floor(value * scale + 1e-9) / scale:.{digits}f}"


def polyline(curve: Sequence[Mapping[str, float]], *, width: float, height: float) -> str:
    """Return a recall-precision curve as the points of an SVG polyline, the origin below left.

    >>> polyline([{"recall": 0.5, "precision": 1.0}], width=100, height=50)
    '50.0,0.0'
    """
    return " ".join(
        f"{point['recall'] * width:.1f},{(1 - point['precision']) * height:.1f}" for point in curve
    )
