"""Recall by slice: size, occlusion, latitude in panoramas, and any field of the manifest.

A slice is flagged where its recall falls short of the rest of its class by more than chance.
Fisher's exact test asks how often a slice that is no worse would recall so few, on the effective
numbers of objects (evaluation/bound.py), since objects of one cluster are found or missed together.
Holm's correction over every test of an evaluation keeps the chance of one wrong flag at most
`ALPHA`; a simulation in the tests holds it to that.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from anonymization.panorama.projection import Equirectangular, angles_of
from anonymization.taxonomy import ClassSpec, Taxonomy
from data.coco import Annotation, Dataset, Image
from evaluation.bound import CONFIDENCE, clustered_lower
from evaluation.panoramas import panorama_of_image
from evaluation.recall import recall
from evaluation.report.rows import Box, ObjectRow

ALPHA = 0.05
SENSES = ("detected", "covered")
OCCLUSION = ((0.05, "free"), (0.3, "to 30 %"), (0.6, "30 to 60 %"), (math.inf, "above 60 %"))
LATITUDES = ((30, "within 30° of the horizon"), (60, "30° to 60°"), (91, "beyond 60°"))

Values = Mapping[int, Mapping[str, str]]


def slice_values(
    dataset: Dataset,
    taxonomy: Taxonomy,
    fields: Iterable[str],
    size_edges: Sequence[float],
    panoramas: Mapping[str, Equirectangular | None] | None = None,
) -> dict[int, dict[str, str]]:
    """Return what each annotation is in each slicing, by annotation id.

    Args:
        dataset: Pictures and labels.
        taxonomy: The classes.
        fields: Manifest fields and picture attributes to slice by.
        size_edges: Edges of the size bins, multiples of a class's identifiable line.
        panoramas: Projection of each picture by SHA-256, None for flat ones; without it what
            the manifest alone says.
    """
    names = tuple(fields)
    found = {}
    for image in dataset.images:
        panorama = panorama_of_image(image) if panoramas is None else panoramas.get(image.sha256)
        for thing in dataset.by_image[image.id]:
            spec = taxonomy[thing.class_name]
            found[thing.id] = _values(image, thing, spec, names, size_edges)
            if panorama is not None:
                found[thing.id]["latitude"] = latitude_name(thing.box_xyxy, panorama)
    return found


def latitude_name(box_xyxy: Box, panorama: Equirectangular) -> str:
    """Return the bin of 30 degrees, from the horizon up or down, of the middle of a box.

    >>> latitude_name((0, 0, 50, 10), Equirectangular.of_size(400, 200))
    'beyond 60°'
    """
    latitude = abs(float(angles_of(np.array([box_xyxy]), panorama)[0, 1]))
    return next(name for limit, name in LATITUDES if latitude < limit)


def _values(
    image: Image,
    thing: Annotation,
    spec: ClassSpec,
    fields: Sequence[str],
    size_edges: Sequence[float],
) -> dict[str, str]:
    found = {
        name: str(value)
        for name in fields
        if (value := image.fields.get(name)) not in (None, "") and not isinstance(value, dict)
    }
    side = thing.width if spec.identifiable_side == "width" else thing.height
    edges = [edge * spec.identifiable_px for edge in size_edges]
    low = max((edge for edge in edges if edge <= side), default=0.0)
    above = [edge for edge in edges if edge > low]
    found["size"] = f"{low:g} to {above[0]:g} px" if above else f"{low:g} px and more"
    if (hidden := thing.attributes.get("occluded")) is not None:
        found["occlusion"] = occlusion_name(hidden)
    return found


def occlusion_name(hidden: Any) -> str:
    """Return the occlusion slice of an annotator's word: a share, or just yes or no.

    >>> occlusion_name(0.4), occlusion_name(False), occlusion_name(True)
    ('30 to 60 %', 'free', 'occluded')
    """
    if isinstance(hidden, bool):
        return "occluded" if hidden else "free"
    if not isinstance(hidden, int | float) or not math.isfinite(hidden):
        return "unknown"
    return next(name for limit, name in OCCLUSION if hidden <= limit)


@dataclass(frozen=True)
class _Part:
    """One class in one slice, beside the whole class."""

    key: tuple[str, str, str]
    rows: list[ObjectRow]
    whole: list[ObjectRow]


def slice_table(
    rows: Iterable[ObjectRow],
    values: Values,
    *,
    confidence: float = CONFIDENCE,
    seed: int = 0,
    alpha: float = ALPHA,
) -> list[dict[str, Any]]:
    """Return the recalls of every class in every slice that holds counted objects.

    Args:
        rows: True objects.
        values: What each annotation is in each slicing (`slice_values`).
        confidence: One-sided, of the bounds.
        seed: Of the bootstrap.
        alpha: Chance of any wrong flag.

    Returns:
        Rows with `slicing`, `slice`, `class`, `detected`, `covered` (as `metrics.recall`),
        `clusters`, and `flagged`: senses in which the slice falls short by more than chance.
        Slicings in which a class has one value only are left out: they say nothing new.
    """
    parts = list(_parts(rows, values))
    chances = {
        (part.key, sense): chance_of_so_few(part.rows, part.whole, sense)
        for part in parts
        for sense in SENSES
    }
    flags = holm(chances, alpha)
    return [
        {
            "slicing": part.key[0],
            "slice": part.key[1],
            "class": part.key[2],
            **{s: recall(part.rows, s, confidence=confidence, seed=seed) for s in SENSES},
            "clusters": len({row.cluster for row in part.rows}),
            "flagged": [sense for sense in SENSES if (part.key, sense) in flags],
        }
        for part in parts
    ]


def _parts(rows: Iterable[ObjectRow], values: Values) -> Iterator[_Part]:
    wholes: dict[tuple[str, str], list[ObjectRow]] = defaultdict(list)
    inside: dict[tuple[str, str, str], list[ObjectRow]] = defaultdict(list)
    for row in rows:
        if not row.counted:
            continue
        for slicing, value in values.get(row.annotation_id, {}).items():
            wholes[slicing, row.class_name].append(row)
            inside[slicing, value, row.class_name].append(row)
    for key in sorted(inside):
        whole = wholes[key[0], key[2]]
        if len(inside[key]) < len(whole):
            yield _Part(key, inside[key], whole)


def chance_of_so_few(part: Sequence[ObjectRow], whole: Sequence[ObjectRow], sense: str) -> float:
    """Return how often a slice no worse than the rest would recall so few of its objects.

    Args:
        part: Counted objects of the slice.
        whole: Counted objects of the class, the slice's included.
        sense: `detected` or `covered`.
    """
    from scipy.stats import hypergeom

    ids = {row.annotation_id for row in part}
    rest = [row for row in whole if row.annotation_id not in ids]
    least = min(1.0, _effective(whole, sense) / len(whole))
    hits, total = _shrunk(part, sense, least, up=True)
    rest_hits, rest_total = _shrunk(rest, sense, least, up=False)
    if not total or not rest_total:
        return 1.0
    return float(hypergeom.cdf(hits, total + rest_total, hits + rest_hits, total))


def _effective(rows: Sequence[ObjectRow], sense: str) -> float:
    clusters: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        clusters[row.cluster].append(bool(getattr(row, sense)))
    hits = [sum(group) for group in clusters.values()]
    return float(clustered_lower(hits, [len(group) for group in clusters.values()])[1])


def _shrunk(rows: Sequence[ObjectRow], sense: str, least: float, *, up: bool) -> tuple[int, int]:
    """Return recalled and total objects in effective numbers, rounded against a flag."""
    if not rows:
        return 0, 0
    total = math.floor(min(_effective(rows, sense), len(rows) * least) + 1e-9)
    share = sum(bool(getattr(row, sense)) for row in rows) / len(rows)
    hits = total * share
    return (math.ceil(hits - 1e-9) if up else math.floor(hits + 1e-9)), total


def holm(chances: Mapping[Any, float], alpha: float) -> set[Any]:
    """Return the tests that Holm's step-down correction calls more than chance.

    >>> sorted(holm({"a": 0.001, "b": 0.02, "c": 0.9}, 0.05))
    ['a', 'b']
    """
    flagged = set()
    for rank, (key, chance) in enumerate(sorted(chances.items(), key=lambda pair: pair[1])):
        if chance > alpha / (len(chances) - rank):
            break
        flagged.add(key)
    return flagged
