"""Around how many labelled parts a bundle finds the whole, in pictures that do not label it.

    python -m benchmarks.wholes BUNDLE [BUNDLE ...] --truth TRUTH --pictures FOLDER

TRUTH is a data set of the loop, as `artifacts/prepared/val.json`; FOLDER holds its pictures, as
`artifacts/collected/pictures`.

A set of faces labels no persons, and a set of plates no vehicles; so recall says nothing of those
there. Yet around each face is a person and around each plate a vehicle: a find of that class counts
that holds the part and is as wide, in widths of the part, as such a whole can be. What a network
learns from an unlabelled person as background it shows here (docs/partial-labels.md).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anonymization.bundle import Bundle
from anonymization.detection.detector import Detector
from anonymization.detection.finds import Detections
from anonymization.formats.picture import read_picture
from data.coco import Dataset, Image

SCORES = (0.1, 0.3, 0.5)
INSIDE_MIN = 0.8
"""Share of a part inside a find's box from which on the box holds it."""


@dataclass(frozen=True)
class Around:
    """What lies around a part.

    Attributes:
        whole: Class that is looked for.
        part: Class that is labelled.
        widths: Least and largest width of the whole, in widths of the part.
        above: Share of the whole's height, from its top, in which the part's centre lies.
    """

    whole: str
    part: str
    widths: tuple[float, float]
    above: float = 1.0


PAIRS = (
    Around("person", "face", (1.0, 8.0), 0.45),
    Around("vehicle", "license_plate", (3.1, 14.0)),  # a car is 3.5 EU plates wide, 6 US plates
)


def best_around(part: NDArray[np.float32], found: Detections, rule: Around) -> float:
    """Return the score of the surest find around a part; 0 where there is none.

    Args:
        part: Box, xyxy, shape (4,).
        found: Finds of the whole's class.
        rule: What counts.
    """
    boxes = found.boxes_xyxy
    width, height = part[2:] - part[:2]
    shared = np.minimum(boxes[:, 2:], part[2:]) - np.maximum(boxes[:, :2], part[:2])
    holds = np.maximum(shared, 0).prod(axis=1) >= INSIDE_MIN * width * height
    sides = boxes[:, 2:] - boxes[:, :2]
    wide = (sides[:, 0] >= rule.widths[0] * width) & (sides[:, 0] <= rule.widths[1] * width)
    high = (part[1] + part[3]) / 2 <= boxes[:, 1] + rule.above * sides[:, 1]
    return float(found.scores[holds & wide & high].max(initial=0))


def wanted(image: Image, data: Dataset, rule: Around) -> list[NDArray[np.float32]]:
    """Return the boxes of labelled parts in a picture that does not label their wholes."""
    if rule.whole in (*image.labelled, *image.partial):
        return []
    parts = [a for a in data.by_image[image.id] if a.class_name == rule.part and not a.crowd]
    return [np.array(a.box_xyxy, np.float32) for a in parts]


def main() -> None:
    """Print one row for each bundle and pair."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wholes", description=__doc__)
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    parser.add_argument("--truth", type=Path, required=True, help="a data set of the loop")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of its pictures")
    given = parser.parse_args()
    print("bundle                whole   around         score 0.1  score 0.3  score 0.5")
    for path in given.bundles:
        bundle = Bundle.load(path)
        taxonomy = bundle.card.taxonomy
        data = Dataset.read(given.truth, taxonomy)
        detector = Detector.from_bundle(bundle)
        best: dict[Around, list[float]] = {rule: [] for rule in PAIRS}
        for image in data.images:
            parts = {rule: wanted(image, data, rule) for rule in PAIRS}
            if not any(parts.values()):
                continue
            pixels = read_picture(given.pictures / image.file_name).pixels
            found = detector.detect(pixels, score_min=min(SCORES))
            for rule, boxes in parts.items():
                own = found.select(found.class_ids == taxonomy.class_id(rule.whole))
                best[rule] += [best_around(box, own, rule) for box in boxes]
        for rule, scores in best.items():
            shares = [sum(s >= least for s in scores) / max(len(scores), 1) for least in SCORES]
            said = "".join(f"{share:11.3f}" for share in shares)
            print(f"{path.name:20}  {rule.whole:7} {len(scores):4} {rule.part:13}{said}")


if __name__ == "__main__":
    main()
