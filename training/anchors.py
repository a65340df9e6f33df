"""Whether the anchors fit the objects, and which would: `python -m training.anchors`.

Reads `artifacts/prepared/train.json` and the section `training`; prints, per class, the share of
objects that some anchor overlaps by an IoU of 0.5 and of 0.6, for the anchors configured and for
fitted ones, and the lines for `conf/` to paste. Changes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonymization.taxonomy import Taxonomy
from conf import stage
from data.coco import Dataset
from data.layout import PREPARED
from training.config import NETWORKS, InputConfig, NetworkConfig, ProposalConfig, TrainingConfig
from training.errors import NetworkConfigError, TrainingDataError

OVERLAPS = (0.5, 0.6)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Objects:
    """Boxes at input size.

    Attributes:
        boxes: float64, shape (G, 4), xyxy in input pixels.
        labels: int64, shape (G,).
        limits: float64, shape (G, 2): width and height of the picture that each lies in.
    """

    boxes: Floats
    labels: NDArray[np.int64]
    limits: Floats


def objects_of(dataset: Dataset, classes: Sequence[str], config: InputConfig) -> Objects:
    """Return the objects that a network learns from, at the size it sees them without augmentation.

    Crowds, and objects too small to learn from, are left out as in training.

    Raises:
        TrainingDataError: If there is none.
    """
    # As training/pictures/samples.py; importing it would bring albumentations.
    rows = []
    for image in dataset.images:
        scale = min(config.upscale_max, config.long_side / max(image.height, image.width))
        for each in dataset.by_image[image.id]:
            small = min(each.width, each.height) * scale < config.min_side_px
            if each.class_name in classes and not each.crowd and not small:
                box = [side * scale for side in each.box_xyxy]
                limit = [image.width * scale, image.height * scale]
                rows.append([*box, *limit, classes.index(each.class_name)])
    if not rows:
        raise TrainingDataError(
            f"none of {len(dataset.images)} pictures holds an object of {', '.join(classes)}; "
            "run the preparation with data that does"
        )
    values = np.array(rows, dtype=np.float64)
    return Objects(values[:, :4], values[:, 6].astype(np.int64), values[:, 4:6])


def best_overlaps(
    objects: Objects, sizes: Sequence[float], ratios: Sequence[float], strides: Sequence[int]
) -> Floats:
    """Return the highest IoU of each object with any anchor, where anchors really lie.

    Of the anchors of one form, the one whose middle is nearest overlaps most.

    Args:
        objects: G objects.
        sizes: Square root of the anchors' area, one for each stride.
        ratios: Height over width.
        strides: Distance of anchors, in input pixels; they start at 0.

    Returns:
        float64, shape (G,).
    """
    middle = (objects.boxes[:, :2] + objects.boxes[:, 2:]) / 2
    side = objects.boxes[:, 2:] - objects.boxes[:, :2]
    best = np.zeros(len(side))
    for size, stride in zip(sizes, strides, strict=True):
        last = np.ceil(objects.limits / stride) - 1
        offset = np.abs(np.clip(np.round(middle / stride), 0, last) * stride - middle)
        for ratio in ratios:
            anchor = np.array([size / ratio**0.5, size * ratio**0.5])
            shared = np.clip((side + anchor) / 2 - offset, 0, np.minimum(side, anchor)).prod(axis=1)
            union = side.prod(axis=1) + anchor.prod() - shared
            best = np.maximum(best, shared / union)
    return best


def shares(best: Floats, labels: NDArray[np.int64], overlap: float) -> dict[int, float]:
    """Return per label the share of objects whose best anchor overlaps by at least so much."""
    found = {}
    for label in np.unique(labels):
        found[int(label)] = float((best[labels == label] >= overlap).mean())
    return found


def fit(objects: Objects, config: ProposalConfig, strides: Sequence[int], *, seed: int) -> Any:
    """Return (sizes, ratios), as many as configured, that overlap the objects most.

    Differential evolution (Storn and Price 1997) over their logarithms, as the best IoU is no
    smooth function of them; from the configured ones, so that the result is no worse. Each class
    counts alike; of a class at most 500 objects are looked at.
    """
    from scipy.optimize import differential_evolution

    number = len(config.anchor_sizes)
    rng = np.random.default_rng(seed)
    rows = np.concatenate(
        [
            rng.permutation(np.flatnonzero(objects.labels == label))[:500]
            for label in np.unique(objects.labels)
        ]
    )
    some = Objects(objects.boxes[rows], objects.labels[rows], objects.limits[rows])
    start = np.log([*config.anchor_sizes, *config.anchor_ratios])
    # Anchors of a level stay between a quarter and four times of what they are: a level whose
    # cells see 8 pixels cannot tell objects of 300.
    reach = np.log([4.0] * (number + len(config.anchor_ratios)))

    def lack(values: Floats) -> float:
        sizes, ratios = _split(values, number)
        best = best_overlaps(some, sizes, ratios, strides)
        return -float(np.mean([best[some.labels == x].mean() for x in np.unique(some.labels)]))

    result = differential_evolution(
        lack,
        list(zip(start - reach, start + reach, strict=True)),
        x0=start,
        popsize=8,
        maxiter=60,
        tol=1e-4,
        rng=np.random.default_rng(seed),
        polish=False,
    )
    sizes, ratios = _split(result.x, number)
    return sorted(round(s, 1) for s in sizes), sorted(round(r, 2) for r in ratios)


def _split(values: Floats, number: int) -> tuple[list[float], list[float]]:
    plain = np.exp(values).tolist()
    return sorted(plain[:number]), plain[number:]


def table(
    classes: Sequence[str], objects: Objects, columns: dict[str, Floats]
) -> list[tuple[str, ...]]:
    """Return rows of a table: a class, its objects, and shares for each kind of anchors."""
    head = [f"{name}, IoU {overlap}" for name in columns for overlap in OVERLAPS]
    rows = [("class", "objects", *head)]
    for label, name in enumerate(classes):
        count = int((objects.labels == label).sum())
        if count:
            values = [
                f"{shares(best, objects.labels, overlap)[label]:.3f}"
                for best in columns.values()
                for overlap in OVERLAPS
            ]
            rows.append((name, str(count), *values))
    return rows


def report(
    network: str, config: NetworkConfig, dataset: Dataset, taxonomy: Taxonomy, *, seed: int
) -> str:
    """Return what is printed for one network.

    Raises:
        TrainingDataError: If no picture holds an object of its classes.
    """
    person = taxonomy.keypoint_class
    classes = taxonomy.names if network == "mask_rcnn" or person is None else (person,)
    objects = objects_of(dataset, classes, config.input)
    strides = [*config.backbone.strides, 2 * config.backbone.strides[-1]]
    now = config.proposals
    sizes, ratios = fit(objects, now, strides, seed=seed)
    columns = {
        "configured": best_overlaps(objects, now.anchor_sizes, now.anchor_ratios, strides),
        "fitted": best_overlaps(objects, sizes, ratios, strides),
    }
    rows = ["| " + " | ".join(row) + " |" for row in table(classes, objects, columns)]
    rows.insert(1, "|" + " --- |" * (2 + len(columns) * len(OVERLAPS)))
    return "\n".join(
        [
            f"{network}, longer side {config.input.long_side}: configured anchor_sizes "
            f"{list(now.anchor_sizes)}, anchor_ratios {list(now.anchor_ratios)}",
            *rows,
            f"training:\n  {network}:\n    proposals:\n      anchor_sizes: {sizes}",
            f"      anchor_ratios: {ratios}",
        ]
    )


@stage
def main(training: TrainingConfig, network: str, taxonomy: Taxonomy, seed: int) -> None:
    """Print the report of the named network, or of all."""
    if network not in (*NETWORKS, "all"):
        raise NetworkConfigError(f"network is {network!r}; expected {', '.join(NETWORKS)} or all")
    dataset = Dataset.read(PREPARED / "train.json", taxonomy)
    for name in NETWORKS if network == "all" else (network,):
        text = report(name, getattr(training, name), dataset, taxonomy, seed=seed)
        sys.stdout.write(f"{text}\n\n")


if __name__ == "__main__":
    main()
