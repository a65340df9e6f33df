"""Which pictures may be joined with another, and whose objects may be pasted into it.

What a picture is labelled for holds for all of it: everything of a labelled class that no object
covers is taught as background. So whatever is added to a picture must be labelled for at least
the classes that the picture is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from anonymization.taxonomy import Taxonomy
from data.coco import Annotation, Image

Donor = tuple[int, int]
"""Position of a picture, and row of the object among those of its sample."""


class Companions:
    """Draws companions of a picture.

    Args:
        images: The training pictures.
        annotations: Their objects, by image id.
        classes: The network's classes.
        taxonomy: Says which classes have outlines.
        factors: How often each picture is shown: rare classes are drawn more often here, too.
    """

    def __init__(
        self,
        images: Sequence[Image],
        annotations: Mapping[int, Sequence[Annotation]],
        *,
        classes: Sequence[str],
        taxonomy: Taxonomy,
        factors: NDArray[np.float64],
    ) -> None:
        self.classes = tuple(classes)
        self.factors = factors
        self.labelled = [frozenset(c for c in classes if c in image.labelled) for image in images]
        groups: dict[frozenset[str], list[int]] = defaultdict(list)
        for position, labelled in enumerate(self.labelled):
            groups[labelled].append(position)
        self.groups = {labelled: np.array(own) for labelled, own in groups.items()}
        outlined = {name for name in classes if taxonomy[name].geometry == "mask"}
        self.outlines = {
            labelled: _outlines(own, images, annotations, classes, outlined)
            for labelled, own in groups.items()
        }

    def number_alike(self, position: int) -> int:
        """Return how many pictures are labelled for the same classes, this one included."""
        return len(self.groups[self.labelled[position]])

    def draw_alike(self, position: int, count: int, rng: np.random.Generator) -> list[int]:
        """Draw other pictures that are labelled for the same classes, each once."""
        alike = self.groups[self.labelled[position]]
        others = alike[alike != position]
        weights = self.factors[others]
        drawn = rng.choice(others, size=count, replace=False, p=weights / weights.sum())
        return [int(each) for each in drawn]

    def draw_donor(self, position: int, rng: np.random.Generator) -> Donor | None:
        """Draw an object that may be pasted into a picture, each class as often as the others.

        Returns:
            None where there is none.
        """
        needed = self.labelled[position]
        found: dict[str, list[list[Donor]]] = defaultdict(list)
        for labelled, by_class in self.outlines.items():
            if labelled >= needed:
                for name, donors in by_class.items():
                    found[name].append(donors)
        draws = rng.random(2)
        if not found:
            return None
        parts = found[sorted(found)[int(draws[0] * len(found))]]
        number = int(draws[1] * sum(map(len, parts)))
        for part in parts:
            if number < len(part):
                return part[number]
            number -= len(part)
        raise AssertionError("a share below 1 of the number of donors lies within them")


def _outlines(
    positions: Sequence[int],
    images: Sequence[Image],
    annotations: Mapping[int, Sequence[Annotation]],
    classes: Sequence[str],
    outlined: set[str],
) -> dict[str, list[Donor]]:
    found: dict[str, list[Donor]] = defaultdict(list)
    for position in positions:
        # Rows as `training.pictures.samples.make_sample` numbers them.
        objects = [a for a in annotations[images[position].id] if a.class_name in classes]
        for row, each in enumerate(objects):
            if each.class_name in outlined and each.segmentation is not None and not each.crowd:
                found[each.class_name].append((position, row))
    return dict(found)
