"""Recall, size and speed of one bundle's variants, in both runtimes, on the same pictures.

    python -m benchmarks.variants BUNDLE PICTURES [--truth LABELS] [--ranges FOLDER]

BUNDLE is a float32 bundle, of which the variants are made with the same thresholds and input size,
or a folder of bundles, which are taken as they are. PICTURES is a folder. LABELS is a set in the
loop's own form (artifacts/prepared/reference.json) whose pictures lie in PICTURES: only these are
looked at, and recall is of their identifiable objects (IoU 0.5, shipped thresholds). INT8 observes
its ranges on pictures of FOLDER; without it on PICTURES, and its recall flatters.

Rows are measured in turns, picture by picture, so that whatever else the machine does hits all of
them; of each picture the best time of all rounds counts. Networks alone: reading files is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anonymization.bundle import Bundle
from anonymization.card import CARD, FP32, VARIANTS
from anonymization.detection.detector import Detector
from anonymization.detection.finds import Detections
from anonymization.detection.runtime import ONNXRUNTIME, OPENVINO, RuntimeLoadError, load_graph
from anonymization.formats.picture import SUFFIXES, read_picture
from anonymization.taxonomy import Taxonomy
from data.coco import Dataset
from evaluation.judging import judge
from evaluation.truth import PictureTruth, truth_of
from training.bundle.config import BundleConfig
from training.bundle.variants import as_variant, evenly, inputs_of

DEFAULTS = BundleConfig()
Pixels = NDArray[np.uint8]


@dataclass
class Row:
    """One bundle in one runtime.

    Attributes:
        name: Variant, or the folder that the bundle was read from.
        runtime: One of `anonymization.detection.runtime.RUNTIMES`.
        bundle: The bundle.
        detector: Its networks, loaded.
        best_s: Least seconds per picture.
        finds: Number of finds.
        recalled: Identifiable objects that were found, per class.
        total: Identifiable objects, per class.
    """

    name: str
    runtime: str
    bundle: Bundle
    detector: Detector
    best_s: dict[int, float] = field(default_factory=dict)
    finds: int = 0
    recalled: Counter[str] = field(default_factory=Counter)
    total: Counter[str] = field(default_factory=Counter)

    @property
    def size_mb(self) -> float:
        """Size of all graphs."""
        return sum(map(len, self.bundle.graphs.values())) / 1e6

    @property
    def pictures_per_s(self) -> float:
        """Pictures a second, the best time of each."""
        return len(self.best_s) / sum(self.best_s.values())

    def detect(self, pixels: Pixels, number: int) -> Detections:
        """Find everything in a picture, as shipped, and remember the best time."""
        start = time.perf_counter()
        found = self.detector.detect(pixels)
        taken = time.perf_counter() - start
        self.best_s[number] = min(taken, self.best_s.get(number, taken))
        return found

    def count(self, found: Detections, truth: PictureTruth, taxonomy: Taxonomy) -> None:
        """Add what was found of the true objects of a picture."""
        mask_threshold = self.bundle.card.mask_threshold
        for name, judged in judge(truth, found, taxonomy, mask_threshold=mask_threshold).items():
            # At any score: what was given is what ships, heads by a threshold of their own.
            detected = np.isfinite(judged.detected_at[judged.counted])
            self.recalled[name] += int(detected.sum())
            self.total[name] += len(detected)


def bundles_of(
    path: Path, ranges: Sequence[Path], work: Path, *, float_first: int = DEFAULTS.float_first
) -> dict[str, Bundle]:
    """Return the bundles in a folder by its name, or the variants of one bundle.

    Raises:
        SystemExit: If there is none, or variants are to be made of a variant.
    """
    if not (path / CARD).is_file():
        found = {
            card.parent.name: Bundle.load(card.parent) for card in sorted(path.glob(f"*/{CARD}"))
        }
        if not found:
            raise SystemExit(f"{path} holds no bundle: expected {CARD} in it or in its folders")
        return found
    base = Bundle.load(path)
    if base.card.variant != FP32:
        raise SystemExit(f"{path} is {base.card.variant}; variants are made of a {FP32} bundle")
    inputs = inputs_of(evenly(ranges, DEFAULTS.quantization_pictures))
    return {
        name: as_variant(base, name, work / name, inputs=inputs, float_first=float_first)
        for name in VARIANTS
    }


def rows_of(bundles: Mapping[str, Bundle]) -> list[Row]:
    """Load every bundle into every runtime that is installed and takes it."""
    installed = [ONNXRUNTIME, *([OPENVINO] if importlib.util.find_spec(OPENVINO) else [])]
    rows = []
    for name, bundle in bundles.items():
        for runtime in installed:
            try:
                rows.append(Row(name, runtime, bundle, _detector(bundle, runtime)))
            except RuntimeLoadError as error:
                sys.stderr.write(f"{name} in {runtime}: {error}\n")
    return rows


def _detector(bundle: Bundle, runtime: str) -> Detector:
    graphs = bundle.graphs.items()
    loaded = {name: load_graph(graph, name=name, runtime=runtime) for name, graph in graphs}
    return Detector(bundle.card, loaded)


def pictures_of(
    folder: Path, truth: Path | None, taxonomy: Taxonomy
) -> Iterator[tuple[Path, PictureTruth | None]]:
    """Yield each picture with its truth, where there is one."""
    if truth is None:
        paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
        yield from ((path, None) for path in paths)
        return
    dataset = Dataset.read(truth, taxonomy)
    for image in dataset.images:
        yield (
            folder / image.file_name,
            truth_of(image, dataset.by_image[image.id], taxonomy),
        )


def measure(
    rows: Sequence[Row], pictures: Sequence[tuple[Path, PictureTruth | None]], rounds: int
) -> None:
    """Show every picture to every row, in turns."""
    for number, (path, truth) in enumerate(pictures):
        pixels = read_picture(path).pixels
        for turn in range(rounds):
            for row in rows:
                found = row.detect(pixels, number)
                if turn == 0:
                    row.finds += len(found)
                    if truth is not None:
                        row.count(found, truth, row.bundle.card.taxonomy)


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a Markdown table; speed is also given as a multiple of the first row's."""
    classes = [name for name in rows[0].bundle.card.taxonomy.names if rows[0].total[name]]
    head = ["variant", "runtime", "MB", "pictures/s", "times", "finds", *classes]
    yield f"| {' | '.join(head)} |"
    yield f"| {' | '.join('---' for _ in head)} |"
    for row in rows:
        cells = [row.name, row.runtime, f"{row.size_mb:.1f}", f"{row.pictures_per_s:.2f}"]
        cells += [f"{row.pictures_per_s / rows[0].pictures_per_s:.2f}", f"{row.finds}"]
        for name in classes:
            share = row.recalled[name] / row.total[name]
            cells.append(f"{row.recalled[name]}/{row.total[name]} = {share:.3f}")
        yield f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.variants",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--truth", type=Path, help="labels of pictures in PICTURES")
    parser.add_argument("--ranges", type=Path, help="pictures that INT8 observes ranges on")
    parser.add_argument(
        "--float-first",
        type=int,
        default=DEFAULTS.float_first,
        help="first layers that INT8 leaves in float32 (default: %(default)s)",
    )
    parser.add_argument("--most", type=int, help="no more pictures than this, spread over all")
    parser.add_argument("--rounds", type=int, default=3, help="how often (default: %(default)s)")
    given = parser.parse_args(arguments)
    source = given.ranges or given.pictures
    ranges = sorted(p for p in source.iterdir() if p.suffix.lower() in SUFFIXES)
    with tempfile.TemporaryDirectory() as work:
        bundles = bundles_of(given.bundle, ranges, Path(work), float_first=given.float_first)
        rows = rows_of(bundles)
        taxonomy = next(iter(bundles.values())).card.taxonomy
        pictures = list(pictures_of(given.pictures, given.truth, taxonomy))
        step = max(1, len(pictures) // given.most) if given.most else 1
        pictures = pictures[::step][: given.most]
        measure(rows, pictures, given.rounds)
    print(*table(rows), sep="\n")
    load = os.getloadavg()[0]
    print(f"\n{len(pictures)} pictures, {given.rounds} rounds, load {load:.1f}")
    if given.ranges is None:
        print("INT8 observed its ranges on these same pictures: its recall flatters (--ranges)")


if __name__ == "__main__":
    main()
