"""What a bundle finds in large flat pictures, by how finely it looks at them.

    python -m benchmarks.sheets BUNDLE LABELS PICTURES [--shrink 3 2 1.5] [--sheets 4]

No set that is labelled whole has pictures of many megapixels. So labelled ones are laid out side
by side, at their own size, on sheets of 4000 x 3000: objects are as small beside the sheet as on
such photographs. LABELS is a set in the loop's own form (artifacts/prepared/val.json) whose
pictures lie in PICTURES. Identifiable objects are counted (IoU 0.5, shipped thresholds), first in
each picture by itself, then on the sheets, whose tiles are reduced by at most --shrink.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anonymization.bundle import Bundle
from anonymization.card import TilingCard
from anonymization.detection.detector import Detector
from anonymization.detection.finds import Detections
from anonymization.formats.picture import read_picture
from data.coco import Dataset, Image
from evaluation.judging import judge
from evaluation.truth import PictureTruth, truth_of

WIDTH, HEIGHT = 4000, 3000
SIDE_MAX = 700
"""Longer side of pictures that are laid out, in pixels; of larger ones a sheet holds few."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Laid:
    """A labelled picture on a sheet.

    Attributes:
        pixels: Its own.
        truth: Its labels.
        x0: First column of the sheet.
        y0: First row of the sheet.
    """

    pixels: Pixels
    truth: PictureTruth
    x0: int
    y0: int

    def own(self, found: Detections) -> Detections:
        """Return the finds of a sheet whose middle lies on this picture, in its own pixels."""
        height, width = self.pixels.shape[:2]
        middle = (found.boxes_xyxy[:, :2] + found.boxes_xyxy[:, 2:]) / 2 - [self.x0, self.y0]
        here = found.select(
            np.flatnonzero(((middle >= 0) & (middle < [width, height])).all(axis=1))
        )
        by = np.array([self.x0, self.y0] * 2, np.float32)
        return replace(here, boxes_xyxy=here.boxes_xyxy - by, merged_xyxy=here.merged_xyxy - by)


def laid_out(images: Sequence[Image]) -> Iterator[list[tuple[Image, int, int]]]:
    """Yield for each sheet its pictures and where each begins, row by row."""
    sheet: list[tuple[Image, int, int]] = []
    x = y = tallest = 0
    for image in images:
        if x + image.width > WIDTH:
            x, y, tallest = 0, y + tallest, 0
        if y + image.height > HEIGHT:
            yield sheet
            sheet, x, y, tallest = [], 0, 0, 0
        sheet.append((image, x, y))
        x, tallest = x + image.width, max(tallest, image.height)
    if sheet:
        yield sheet


def painted(sheet: Sequence[Laid]) -> Pixels:
    """Return a sheet's pixels, gray where no picture lies; uint8 (HEIGHT, WIDTH, 3)."""
    canvas = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    for one in sheet:
        height, width = one.pixels.shape[:2]
        canvas[one.y0 : one.y0 + height, one.x0 : one.x0 + width] = one.pixels
    return canvas


def row(name: str, seconds: float, found: Counter[str], of: Counter[str], finds: int) -> str:
    """Return a line of the table."""
    shares = [f"{found[label]}/{of[label]} = {found[label] / of[label]:.3f}" for label in of]
    return f"| {name} | {seconds:.1f} | {finds} | {' | '.join(shares)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sheets",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--shrink", type=float, nargs="+", default=[3.0, 2.0, 1.5, 1.0])
    parser.add_argument("--sheets", type=int, default=4, help="how many (default: %(default)s)")
    given = parser.parse_args()
    bundle = Bundle.load(given.bundle)
    taxonomy, detector = bundle.card.taxonomy, Detector.from_bundle(bundle)
    labels = Dataset.read(given.labels, taxonomy)
    small = [image for image in labels.images if max(image.width, image.height) <= SIDE_MAX]
    np.random.default_rng(0).shuffle(small)  # type: ignore[arg-type]  # a list is shuffled, too
    sheets = [
        [
            Laid(
                read_picture(given.pictures / image.file_name).pixels,
                truth_of(image, labels.by_image[image.id], taxonomy),
                x0,
                y0,
            )
            for image, x0, y0 in sheet
        ]
        for sheet in list(laid_out(small))[: given.sheets]
    ]

    def counted(found: Detections, truth: PictureTruth) -> tuple[Counter[str], Counter[str]]:
        judged = judge(truth, found, taxonomy, mask_threshold=bundle.card.mask_threshold)
        hits = {n: np.isfinite(j.detected_at[j.counted]) for n, j in judged.items()}
        return (
            Counter({name: int(hit.sum()) for name, hit in hits.items()}),
            Counter({name: len(hit) for name, hit in hits.items()}),
        )

    alone, total, finds, start = Counter[str](), Counter[str](), 0, time.perf_counter()
    for one in (one for sheet in sheets for one in sheet):
        found = detector.detect(one.pixels)
        hits, objects = counted(found, one.truth)
        alone, total, finds = alone + hits, total + objects, finds + len(found)
    names = [name for name in taxonomy.names if total[name]]
    total = Counter({name: total[name] for name in names})
    seconds = (time.perf_counter() - start) / len(sheets)
    print(f"{len(sheets)} sheets of {sum(map(len, sheets))} pictures\n")
    print(f"| reduced by at most | seconds a sheet | finds | {' | '.join(names)} |")
    print(f"| --- | --- | --- | {' | '.join('---' for _ in names)} |")
    print(row("each picture alone", seconds, alone, total, finds))
    for shrink in given.shrink:
        there, finds, start = Counter[str](), 0, time.perf_counter()
        for sheet in sheets:
            found = detector.detect(painted(sheet), tiling=TilingCard(shrink_max=shrink))
            finds += len(found)
            for one in sheet:
                there += counted(one.own(found), one.truth)[0]
        seconds = (time.perf_counter() - start) / len(sheets)
        print(row(f"{shrink:g}", seconds, there, total, finds), flush=True)


if __name__ == "__main__":
    main()
