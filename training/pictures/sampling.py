"""Which pictures an epoch shows, how often, and in which order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from anonymization.files import read_json
from data.coco import Annotation, Image
from training.errors import TrainingDataError

Key = tuple[int, int, int]
"""Epoch, position in the list of pictures, number of the repetition within the epoch."""


def repeat_factors(
    images: Sequence[Image],
    annotations: Mapping[int, Sequence[Annotation]],
    classes: Sequence[str],
    *,
    share: float,
) -> NDArray[np.float64]:
    """Return how often each picture is shown in an epoch, so that rare classes are seen enough.

    Repeat-factor sampling (Gupta et al., LVIS, 2019): a class that a share f of the pictures hold
    asks for sqrt(share / f), at least 1; a picture takes the most that one of its classes asks.

    Args:
        images: The pictures.
        annotations: Their objects, by image id.
        classes: The classes that count.
        share: Share of pictures below which a class is repeated; 0 repeats nothing.

    Returns:
        float64, one for each picture, at least 1.
    """
    held = [{a.class_name for a in annotations[i.id] if not a.crowd} for i in images]
    counts = Counter(name for names in held for name in names if name in classes)
    asked = {name: max(1.0, (share * len(images) / n) ** 0.5) for name, n in counts.items()}
    return np.array([max((asked.get(n, 1.0) for n in names), default=1.0) for names in held])


HARD_SCHEMA_VERSION = 1


def read_hard(path: Path) -> frozenset[str]:
    """Return the SHA-256s of the pictures that `python -m training.mining` found hard.

    Raises:
        TrainingDataError: If the file is missing.
    """
    if not path.is_file():
        raise TrainingDataError(
            f"loading.hard names {path}, which is missing; write it with "
            "`python -m training.mining`, or leave the setting empty"
        )
    return frozenset(read_json(path, schema_version=HARD_SCHEMA_VERSION)["pictures"])


def hard_factors(images: Sequence[Image], hard: Set[str], *, factor: float) -> NDArray[np.float64]:
    """Return the factor on each picture's number of showings: `factor` for hard ones, else 1."""
    return np.array([factor if image.sha256 in hard else 1.0 for image in images])


class EpochSampler(Sampler[Key]):
    """Keys in an order drawn from seed and epoch; Lightning tells it the epoch.

    A picture of factor 2.3 is shown two or three times in an epoch; the epoch's length is always
    the same. Of several processes each takes every n-th key, so that their batches together are
    those of one process with a batch n times as large; the last keys are dropped where they do
    not go round.

    A batch is as large as its largest picture, the rest is padding. Where `canvas` tells the size
    of each picture, batches hold pictures of one size and follow each other in any order; only the
    last of an epoch may be smaller.
    """

    def __init__(
        self,
        factors: Sequence[float] | NDArray[np.float64],
        seed: int,
        *,
        rank: int = 0,
        processes: int = 1,
        batch_size: int = 1,
        canvas: Callable[[Key], tuple[int, int]] | None = None,
    ) -> None:
        """Draw epochs.

        Args:
            factors: How often each picture is shown in an epoch.
            seed: Of all draws.
            rank: Number of this process among those that train together.
            processes: How many these are.
            batch_size: Pictures of a batch, of each process.
            canvas: (height, width) that a picture takes in its batch; None groups nothing.
        """
        self.factors = np.asarray(factors, np.float64)
        self.seed = seed
        self.epoch = 0
        self.rank = rank
        self.processes = processes
        self.batch = batch_size * processes
        self.canvas = canvas

    def set_epoch(self, epoch: int) -> None:
        """Draw another order from now on."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of pictures that this process shows."""
        return max(1, self._shown // self.processes)

    @property
    def _shown(self) -> int:
        return max(1, round(float(self.factors.sum())))

    def __iter__(self) -> Iterator[Key]:
        """Yield the keys of this epoch."""
        rng = np.random.default_rng([self.seed, self.epoch])
        # Systematic sampling: evenly spaced marks over the pictures, laid end to end in an order
        # of their own, so that a fraction is rounded by chance.
        laid = rng.permutation(len(self.factors))
        ends = np.cumsum(self.factors[laid])
        marks = (np.arange(self._shown) + rng.random()) * (ends[-1] / self._shown)
        shown = laid[np.minimum(np.searchsorted(ends, marks, side="right"), len(laid) - 1)]
        seen: Counter[int] = Counter()
        keys = []
        for position in rng.permutation(shown).tolist():
            keys.append((self.epoch, position, seen[position]))
            seen[position] += 1
        if self.canvas is not None:
            keys = self._grouped(keys, self.canvas, rng)
        return iter(keys[self.rank :: self.processes][: len(self)])

    def _grouped(
        self, keys: list[Key], canvas: Callable[[Key], tuple[int, int]], rng: np.random.Generator
    ) -> list[Key]:
        """Return the keys so that each batch in turn holds pictures of like size."""
        whole = len(keys) - len(keys) % self.batch
        sizes = {key: canvas(key) for key in keys[:whole]}
        # Upright pictures apart: beside wide ones they make the largest canvas of all.
        ordered = sorted(sizes, key=lambda key: (sizes[key][0] > sizes[key][1], sizes[key]))
        starts = rng.permutation(np.arange(0, whole, self.batch)).tolist()
        grouped = [key for start in starts for key in ordered[start : start + self.batch]]
        return grouped + keys[whole:]
