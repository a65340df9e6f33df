"""What can be wrong with a split data set; pure checks, each returning findings."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonymization.taxonomy import Taxonomy
from data.coco import Annotation, Dataset, Image, is_identifiable
from data.grouping import near_duplicates
from data.preparation import image_to_member

FAILS = "fails"
WARNS = "warns"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: `leak`, `thin_class`, `size_gap`, `bad_label`, `source_problem`.
        severity: `fails` (the gate refuses) or `warns`.
        message: What is wrong, and what to do.
        evidence: Numbers and pictures, plain types.
    """

    kind: str
    severity: str
    message: str
    evidence: dict[str, Any] = field(default_factory=dict)


def leaks(
    splits: Mapping[str, Dataset], hashes: Mapping[str, str], *, distance_max: int
) -> list[Finding]:
    """Find pictures, sequences and near-duplicates that stand on two sides.

    A leak into the reference set fails; one between train and val only flatters calibration.
    """
    found = []
    names = [name for name in ("train", "val", "reference") if name in splits]
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            pairs = _shared(splits[one], splits[other], lambda image: image.sha256)
            found += _leak(one, other, "picture", pairs)
            sequences = _shared(
                splits[one], splits[other], lambda image: image_to_member(image).sequence
            )
            found += _leak(one, other, "sequence", sequences)
            near = _near(splits[one], splits[other], hashes, distance_max)
            found += _leak(one, other, "near-duplicate", near)
    return found


def _leak(one: str, other: str, what: str, pairs: list[tuple[str, str]]) -> list[Finding]:
    if not pairs:
        return []
    return [
        Finding(
            "leak",
            FAILS if other == "reference" else WARNS,
            f"{len(pairs)} times the same {what} stands in {one} and in {other}; "
            "run preparation again, and report it if it stays",
            {"what": what, "between": [one, other], "pairs": pairs[:20], "count": len(pairs)},
        )
    ]


def _shared(
    one: Dataset, other: Dataset, key: Callable[[Image], str | None]
) -> list[tuple[str, str]]:
    first: dict[str | None, str] = {}
    for image in one.images:
        first.setdefault(key(image), image.sha256)
    return [
        (first[key(image)], image.sha256)
        for image in other.images
        if key(image) is not None and key(image) in first
    ]


def _near(
    one: Dataset, other: Dataset, hashes: Mapping[str, str], distance_max: int
) -> list[tuple[str, str]]:
    left = [image.sha256 for image in one.images]
    right = [image.sha256 for image in other.images if image.sha256 not in set(left)]
    both = left + right
    pairs = near_duplicates([hashes[sha256] for sha256 in both], distance_max)
    return [(both[i], both[j]) for i, j in pairs if i < len(left) <= j]


def thin_classes(
    splits: Mapping[str, Dataset], taxonomy: Taxonomy, objects_min: Mapping[str, int]
) -> list[Finding]:
    """Find classes with fewer identifiable objects in a split than asked for."""
    found = []
    for split, least in objects_min.items():
        counts = Counter(
            a.class_name
            for a in splits[split].annotations
            if not a.crowd and is_identifiable(a, taxonomy[a.class_name])
        )
        for name in taxonomy.names:
            count = counts[name]
            if count < least:
                message = (
                    f"{split} has {count} identifiable objects of class {name}; expected at "
                    f"least {least}. Collect or annotate more"
                )
                evidence = {"split": split, "class": name, "count": count, "expected": least}
                found.append(Finding("thin_class", WARNS, message, evidence))
    return found


def identifiable_sizes(dataset: Dataset, taxonomy: Taxonomy) -> dict[str, NDArray[np.float64]]:
    """Return, per class, the length in pixels of the side that its size rule measures."""
    sizes: dict[str, list[float]] = {name: [] for name in taxonomy.names}
    for annotation in dataset.annotations:
        if not annotation.crowd:
            side = taxonomy[annotation.class_name].identifiable_side
            value = annotation.width if side == "width" else annotation.height
            sizes[annotation.class_name].append(value)
    return {name: np.asarray(values, dtype=np.float64) for name, values in sizes.items()}


def size_gaps(
    train: Dataset, reference: Dataset, taxonomy: Taxonomy, *, outside_max: float, ks_max: float
) -> list[Finding]:
    """Find classes whose sizes in the reference set training does not share.

    Args:
        train: What is learned from.
        reference: What is judged on.
        taxonomy: Classes and the side of a box that counts.
        outside_max: Largest share of reference objects outside the sizes seen in training.
        ks_max: Largest two-sample Kolmogorov-Smirnov distance, where it is significant (p < 0.01).
    """
    learned = identifiable_sizes(train, taxonomy)
    judged = identifiable_sizes(reference, taxonomy)
    found = []
    for name in taxonomy.names:
        if not len(judged[name]) or not len(learned[name]):
            continue  # thin_classes tells
        evidence = _size_gap(learned[name], judged[name])
        too_far = evidence["distance"] > ks_max and evidence["p_value"] < 0.01
        if evidence["outside"] > outside_max or too_far:
            message = (
                f"sizes of class {name} differ: {evidence['outside']:.0%} of reference objects "
                f"lie outside those in training, Kolmogorov-Smirnov distance "
                f"{evidence['distance']:.2f}. Collect training pictures of the missing sizes"
            )
            found.append(Finding("size_gap", WARNS, message, {"class": name, **evidence}))
    return found


def _size_gap(learned: NDArray[np.float64], judged: NDArray[np.float64]) -> dict[str, float]:
    from scipy.stats import ks_2samp

    outside = (judged < learned.min()) | (judged > learned.max())
    test = ks_2samp(learned, judged)
    return {
        "outside": float(outside.mean()),
        "distance": float(test.statistic),
        "p_value": float(test.pvalue),
        "train_px": [float(learned.min()), float(learned.max())],  # type: ignore[dict-item]
        "reference_px": [float(judged.min()), float(judged.max())],  # type: ignore[dict-item]
    }


def suspicious_labels(dataset: Dataset) -> dict[str, list[str]]:
    """Return what looks wrong with the labels of each picture, by SHA-256."""
    found: dict[str, list[str]] = defaultdict(list)
    for image in dataset.images:
        found[image.sha256] += [str(p) for p in image.fields.get("label_problems", [])]
        annotations = dataset.by_image[image.id]
        for annotation in annotations:
            found[image.sha256] += _doubts(annotation, image)
        found[image.sha256] += _doubled(annotations, image)
    return {sha256: reasons for sha256, reasons in found.items() if reasons}


def place_in_picture(annotation: Annotation, image: Image) -> str:
    """Return where an object lies, in words that people find on the screen.

    The centre of its box in whole percent of the picture, as Label Studio counts, and its size.
    A number of the object would say nothing there: people see none.

    >>> image = Image(1, "aa", "a.png", 200, 100, (), (), False, {})
    >>> place_in_picture(Annotation(7, 1, "face", (60, 50, 100, 74)), image)
    'face at 40 % from the left, 62 % from the top, 40 x 24 px'
    """
    x0, y0, x1, y1 = annotation.box_xyxy
    across = min(max((x0 + x1) / 2 / image.width, 0), 1)
    down = min(max((y0 + y1) / 2 / image.height, 0), 1)
    size = f"{round(annotation.width, 1):g} x {round(annotation.height, 1):g} px"
    where = f"at {across:.0%} from the left, {down:.0%} from the top".replace("%", " %")
    return f"{annotation.class_name} {where}, {size}"


def _doubts(annotation: Annotation, image: Image) -> list[str]:
    x0, y0, x1, y1 = annotation.box_xyxy
    doubts = []
    # Half a pixel is rounding.
    if x0 < -0.5 or y0 < -0.5 or x1 > image.width + 0.5 or y1 > image.height + 0.5:
        doubts.append("reaches out of the picture")
    if min(annotation.width, annotation.height) < 2:
        doubts.append("too small to show anything")
    rle = annotation.rle(height=image.height, width=image.width)
    if rle is not None and not annotation.crowd:
        from pycocotools import mask as coco_mask

        x, y, w, h = (float(v) for v in coco_mask.toBbox(rle))
        if box_iou((x, y, x + w, y + h), annotation.box_xyxy) < 0.5 and w * h > 64:
            doubts.append("outline and box disagree")
    return [f"{place_in_picture(annotation, image)}: {doubt}" for doubt in doubts]


def _doubled(annotations: Iterable[Annotation], image: Image) -> list[str]:
    things = [a for a in annotations if not a.crowd]
    return [
        f"{place_in_picture(one, image)}: drawn twice, in nearly the same box"
        for i, one in enumerate(things)
        for other in things[i + 1 :]
        if one.class_name == other.class_name and box_iou(one.box_xyxy, other.box_xyxy) > 0.9
    ]


def box_iou(
    one: tuple[float, float, float, float], other: tuple[float, float, float, float]
) -> float:
    """Return intersection over union of two boxes.

    >>> box_iou((0, 0, 2, 2), (1, 0, 3, 2))
    0.3333333333333333
    """
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / (areas - width * height)
