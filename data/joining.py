"""Labels of one picture that stands in several sets, each of which labels what its users need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from anonymization.taxonomy import Taxonomy
from data.sources.protocol import LabelledObject, Labels


def classes_of(labels: Iterable[str], taxonomy: Taxonomy) -> tuple[str, ...]:
    """Return the classes that labels stand for, in the taxonomy's order."""
    found = {taxonomy.resolve(label) for label in labels}
    return tuple(name for name in taxonomy.names if name in found)


def _coverage(labels: Labels, taxonomy: Taxonomy) -> dict[str, int]:
    """Return how far each class is labelled: 2 all objects, 1 some, 0 not at all."""
    partial = classes_of(labels.partial, taxonomy)
    known = dict.fromkeys(taxonomy.names, 0)
    known |= dict.fromkeys(classes_of(labels.labelled, taxonomy), 2)
    return known | dict.fromkeys(partial, 1)


def joined_labels(own: Labels, others: Sequence[Labels], taxonomy: Taxonomy) -> Labels:
    """Return the labels of a picture, each class from the set that labels it most completely.

    A class comes from one set alone: the same face in two of them would become two. Of equals, that
    with keypoints has it, then the picture's own set, then the first of the others.

    Args:
        own: Labels of the set that the picture was collected from.
        others: Labels of its duplicates.
        taxonomy: The classes.
    """
    if not others:
        return own
    every = [own, *others]
    coverage = [_coverage(labels, taxonomy) for labels in every]
    best = {
        name: max(
            range(len(every)),
            key=lambda i: (
                coverage[i][name],
                name == taxonomy.keypoint_class and every[i].keypoints_labelled,
                -i,
            ),
        )
        for name in taxonomy.names
    }

    def of(index: int, labels: Iterable[str]) -> tuple[str, ...]:
        return tuple(
            label for label in labels if best.get(taxonomy.resolve(label) or "", 0) == index
        )

    objects: list[LabelledObject] = []
    for index, labels in enumerate(every):
        wanted = set(of(index, {thing.label for thing in labels.objects}))
        objects += [thing for thing in labels.objects if thing.label in wanted]
    posed = every[best.get(taxonomy.keypoint_class or "", 0)]
    return replace(
        own,
        objects=tuple(objects),
        labelled=tuple(x for i, labels in enumerate(every) for x in of(i, labels.labelled)),
        partial=tuple(x for i, labels in enumerate(every) for x in of(i, labels.partial)),
        keypoints_labelled=posed.keypoints_labelled,
        problems=tuple(problem for labels in every for problem in labels.problems),
    )
