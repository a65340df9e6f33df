"""Pictures a second of one joint network beside two networks, each a bundle of its own.

    python -m benchmarks.joint JOINT TWO [--pictures FOLDER] [--threads N]

JOINT and TWO are folders of bundles: one made with `training=joint`, one with Mask R-CNN and
Keypoint R-CNN at the same input size (refused otherwise: a smaller input is faster by itself).
Without a folder of pictures drawn scenes are shown. Both look at the same pictures in turns, so
that whatever else the machine does hits both; the median of the rounds counts. Time is that of
`Detector.detect`: resizing, networks, masks and heads, without files.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anonymization.bundle import Bundle
from anonymization.card import KEYPOINT_NETWORK
from anonymization.detection.detector import Detector
from anonymization.formats.picture import SUFFIXES, read_picture

ROUNDS = 5
DRAWN = 16

Pixels = NDArray[np.uint8]


def shown(folder: Path | None) -> list[Pixels]:
    """Return the photographs of a folder, or drawn scenes."""
    if folder is not None:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        return [read_picture(path).pixels for path in paths]
    from data.street import StreetConfig, draw_sequence

    street = StreetConfig(seed=101, scenes=DRAWN, sequence_length=1)
    return [draw_sequence(street, number)[0].pixels for number in range(DRAWN)]


def input_sizes(bundle: Bundle) -> dict[str, int]:
    """Return the longer side of each graph's input."""
    return {name: graph.input.long_side for name, graph in bundle.card.graphs.items()}


def check_same_size(joint: Bundle, two: Bundle) -> None:
    """Refuse bundles that the comparison would say nothing about.

    Raises:
        SystemExit: If the first holds more than one network, the second fewer than two, or their
            inputs differ in size.
    """
    sizes = {"joint": input_sizes(joint), "two": input_sizes(two)}
    if [len(own) for own in sizes.values()] != [1, 2]:
        raise SystemExit(f"expected a bundle of one network and one of two; found {sizes}")
    if len({size for own in sizes.values() for size in own.values()}) > 1:
        raise SystemExit(
            f"inputs differ in size: {sizes}. Train all with one input.long_side (docs/results.md)"
        )


def seconds(detector: Detector, pictures: list[Pixels]) -> float:
    """Return how long one look at each picture takes."""
    start = time.perf_counter()
    for pixels in pictures:
        detector.detect(pixels)
    return time.perf_counter() - start


def row(name: str, detector: Detector, pictures: list[Pixels], taken_s: list[float]) -> str:
    """Return one line of a Markdown table."""
    found = [detector.detect(pixels) for pixels in pictures]
    heads = sum(source == KEYPOINT_NETWORK for each in found for source in each.sources)
    heads += sum(int(np.isfinite(each.merged_xyxy[:, 0]).sum()) for each in found)
    speed = len(pictures) / statistics.median(taken_s)
    count = len(pictures)
    finds = sum(len(each) for each in found)
    return f"| {name} | {speed:.2f} | {finds / count:.1f} | {heads / count:.1f} |"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("joint", type=Path)
    parser.add_argument("two", type=Path)
    parser.add_argument("--pictures", type=Path, help="folder of photographs")
    parser.add_argument("--threads", type=int, help="threads of each network; default: all cores")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    bundles = {name: Bundle.load(getattr(options, name)) for name in ("joint", "two")}
    check_same_size(bundles["joint"], bundles["two"])
    detectors = {
        name: Detector.from_bundle(bundle, threads=options.threads)
        for name, bundle in bundles.items()
    }
    pictures = shown(options.pictures)
    taken: dict[str, list[float]] = {name: [] for name in detectors}
    for turn in range(options.rounds + 1):
        for name, detector in detectors.items():
            taken_s = seconds(detector, pictures)
            if turn:  # the first is for the caches
                taken[name].append(taken_s)
    size = bundles["joint"].card.graphs["mask_rcnn"].input.long_side
    print(f"{len(pictures)} pictures, input {size} px, load {os.getloadavg()[0]:.1f}\n")
    print("| bundle | pictures/s | finds a picture | heads a picture |")
    print("| --- | --- | --- | --- |")
    for name, detector in detectors.items():
        print(row(name, detector, pictures, taken[name]))


if __name__ == "__main__":
    main()
