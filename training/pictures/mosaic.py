"""Four pictures in one: objects seen smaller, and beside what they never stood beside.

Mosaic (Bochkovskiy et al., YOLOv4, 2020). What is labelled holds for a whole picture, so only
pictures of which the same classes are labelled completely are joined (`companions`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from training.config import AugmentationConfig
from training.pictures.samples import Sample, View

TILES = 4
MIDDLE = (0.35, 0.65)
"""Where the four meet, as a share of the sides: about half, so that none is a sliver."""

Tile = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels of the whole."""


def draw_tiles(size: tuple[int, int], rng: np.random.Generator) -> list[Tile]:
    """Draw where four pictures meet in one of this (height, width)."""
    height, width = size
    x, y = (round(side * float(rng.uniform(*MIDDLE))) for side in (width, height))
    return [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]


def draw_tile_view(
    sample: Sample, tile: Tile, config: AugmentationConfig, rng: np.random.Generator
) -> View:
    """Draw what a tile shows of a picture: as much of it as fills the tile."""
    tile_height, tile_width = tile[3] - tile[1], tile[2] - tile[0]
    height, width = sample.size
    scale = max(tile_height / height, tile_width / width)
    window_height = min(height, max(1, round(tile_height / scale)))
    window_width = min(width, max(1, round(tile_width / scale)))
    y0 = int(rng.integers(0, height - window_height + 1))
    x0 = int(rng.integers(0, width - window_width + 1))
    return View(
        (x0, y0, x0 + window_width, y0 + window_height),
        (tile_height, tile_width),
        bool(rng.random() < config.flip),
    )


def join(samples: Sequence[Sample], tiles: Sequence[Tile], size: tuple[int, int]) -> Sample:
    """Put samples side by side.

    Args:
        samples: Each of its tile's size; the same classes are labelled in all.
        tiles: Where each goes; together they fill the whole.
        size: (height, width) of the whole.

    Raises:
        ValueError: If other classes are labelled in one than in another.
    """
    first = samples[0]
    if any((s.labelled != first.labelled).any() for s in samples):
        raise ValueError(f"{[s.name for s in samples]} are not labelled alike")
    pixels = np.zeros((*size, 3), dtype=np.uint8)
    for sample, (x0, y0, x1, y1) in zip(samples, tiles, strict=True):
        pixels[y0:y1, x0:x1] = sample.pixels
    moved = [placed(s, (t[0], t[1]), size) for s, t in zip(samples, tiles, strict=True)]
    return replace(
        together(moved),
        name=" with ".join(s.name for s in samples),
        pixels=pixels,
        base_size=size,
    )


def placed(sample: Sample, at: tuple[int, int], size: tuple[int, int]) -> Sample:
    """Return a sample with its objects where they lie in a whole of this size; pixels stay.

    Args:
        sample: Lies inside the whole.
        at: x, y of its upper left corner.
        size: (height, width) of the whole.
    """
    points = sample.keypoints.copy()
    points[..., :2] += np.array(at, dtype=np.float32)
    return replace(
        sample,
        boxes=sample.boxes + np.array([*at, *at], dtype=np.float32),
        masks=tuple(None if m is None else _placed_mask(m, at, size) for m in sample.masks),
        keypoints=points,
    )


def _placed_mask(
    mask: NDArray[np.bool_], at: tuple[int, int], size: tuple[int, int]
) -> NDArray[np.bool_]:
    whole = np.zeros(size, dtype=bool)
    whole[at[1] : at[1] + mask.shape[0], at[0] : at[0] + mask.shape[1]] = mask
    return whole


def together(samples: Sequence[Sample]) -> Sample:
    """Return the first sample with the objects of all, in order."""
    return replace(
        samples[0],
        boxes=np.concatenate([s.boxes for s in samples]),
        labels=np.concatenate([s.labels for s in samples]),
        masks=tuple(mask for s in samples for mask in s.masks),
        keypoints=np.concatenate([s.keypoints for s in samples]),
        ignored=np.concatenate([s.ignored for s in samples]),
        identifiable=np.concatenate([s.identifiable for s in samples]),
    )
