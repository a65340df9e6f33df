"""Layout: into which views a picture is cut, by its size, projection and the network's input.

Levels from fine to coarse: the finest shows the network small objects at the wanted resolution,
each further one sees `LEVEL_STEP` times as far, and the whole picture comes last. Views of a level
overlap by a share of their side: an object no larger than that is seen whole by one of them.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from anonymization.card import TilingCard
from anonymization.panorama.presets import preset_for
from anonymization.panorama.projection import Equirectangular, Projection
from anonymization.panorama.views import Reprojection, Tile, View

Reals = NDArray[np.float64]

LEVEL_STEP = 2.5
"""With an overlap of a quarter, an object too large to be whole in one level fills at most 0.63 of
a view of the next."""

FOV_MAX = math.radians(90)
"""Widest perspective view. Beyond it, objects at its borders are stretched to twice their size and
more, as no network has seen them."""

FOV_MIN = math.radians(4)
ENOUGH = 0.75
"""Levels end where a view sees this share of the widest view, or of the longer side of a flat
picture: what a further level would add, the whole picture shows."""

MORE_ROWS = 4
"""Rows beyond the fewest possible that are tried: more rows can take fewer views in all."""

SIDE_MIN = 32


def views_of(
    width: int,
    height: int,
    *,
    projection: Projection | None,
    tiling: TilingCard,
    long_side: int,
) -> tuple[View, ...]:
    """Return the views of a picture, finest first.

    Args:
        width: Columns of the picture.
        height: Its rows.
        projection: None for a flat picture.
        tiling: How finely to look.
        long_side: Pixels of the network's input.
    """
    whole: tuple[View, ...] = (Tile(0, 0, width, height, width, height),)
    if projection is None:
        return tiles(width, height, tiling=tiling, long_side=long_side) + whole
    if isinstance(projection, Equirectangular) and projection.wraps:
        whole = _across_the_seam(width, height, projection.turn)
    return reprojections(projection, tiling=tiling, long_side=long_side) + whole


def _across_the_seam(width: int, height: int, turn: float) -> tuple[View, ...]:
    """Return the whole panorama, and half of it around its seam, where the whole one cuts."""
    return (
        Tile(width - width // 4, 0, max(1, width // 2), height, width, height, turn),
        Tile(0, 0, width, height, width, height, turn),
    )


def tiles(width: int, height: int, *, tiling: TilingCard, long_side: int) -> tuple[View, ...]:
    """Return the tiles of a flat picture, without the whole; none where it needs no tiles."""
    found: list[View] = []
    longest = max(width, height)
    if tiling.shrink_max is None:
        return ()
    if longest <= max(SIDE_MIN, round(long_side * tiling.shrink_max)):
        return ()
    side = max(SIDE_MIN, round(long_side * (tiling.tile_shrink or tiling.shrink_max)))
    # Where tiles are as large as the picture, the whole picture shows all of it.
    while side < longest * (ENOUGH if found else 1):
        found += _tiles(width, height, side, tiling.overlap)
        side = round(side * LEVEL_STEP)
    return tuple(found)


def _tiles(width: int, height: int, side: int, overlap: float) -> list[View]:
    return [
        Tile(x0, y0, min(side, width), min(side, height), width, height)
        for y0 in _starts(height, side, overlap)
        for x0 in _starts(width, side, overlap)
    ]


def _starts(length: int, side: int, overlap: float) -> list[int]:
    """Return where tiles of a side start so that they fill a length evenly."""
    if side >= length:
        return [0]
    count = math.ceil((length - side) / (side * (1 - overlap))) + 1
    return [round(start) for start in np.linspace(0, length - side, count)]


def reprojections(
    projection: Projection, *, tiling: TilingCard, long_side: int
) -> tuple[View, ...]:
    """Return the perspective views of a panorama or fisheye picture, all levels."""
    found: list[View] = []
    for fov in fields_of_view(projection, tiling=tiling, long_side=long_side):
        native = 2 * math.tan(fov / 2) * projection.px_per_radian
        side = max(SIDE_MIN, min(long_side, math.ceil(native)))
        found += [
            view
            for yaw, pitch in sphere_grid(fov, tiling.overlap)
            if _shows_something(view := Reprojection(projection, yaw, pitch, fov, side))
        ]
    return tuple(found)


def fields_of_view(
    projection: Projection, *, tiling: TilingCard, long_side: int
) -> tuple[float, ...]:
    """Return the field of view of each level in radians, finest first."""
    turn = projection.px_per_radian * math.tau
    preset = preset_for(turn, tiling.panorama)
    resolution = min(turn, preset.width) / math.tau
    finest = 2 * math.atan(preset.shrink * long_side / 2 / resolution)
    found = [min(max(finest, FOV_MIN), FOV_MAX)]
    while found[-1] < FOV_MAX * ENOUGH:
        found.append(min(found[-1] * LEVEL_STEP, FOV_MAX))
    return tuple(found)


def _shows_something(view: Reprojection) -> bool:
    """Tell whether any part of the picture lies in a view: crops and fisheyes leave some empty."""
    steps = (np.arange(24) + 0.5) / 24 * view.side
    points = view.to_picture(np.stack(np.meshgrid(steps, steps), axis=-1))
    return bool(view.projection.shows(points).any())


@functools.lru_cache(maxsize=32)
def sphere_grid(fov: float, overlap: float) -> tuple[tuple[float, float], ...]:
    """Return yaw and pitch of square views that see the whole sphere, in radians.

    Every direction lies in the core of a view, which is its middle without half the overlap on
    each side. Rows of views at equal steps of pitch, one row along the horizon and one view at
    each pole; of all numbers of rows, the one that takes the fewest views.

    Args:
        fov: Field of view across and down, radians, at most 90 degrees.
        overlap: Share of a view's side, at least 0 and below 1.
    """
    core = (1 - overlap) * math.tan(fov / 2)
    fewest = math.ceil(math.pi / 4 / math.atan(core))
    tried = (_views_per_row(rows, core) for rows in range(fewest, fewest + 1 + MORE_ROWS))
    best = min((counts for counts in tried if counts is not None), key=_total)
    step = math.pi / 2 / (len(best) - 1)
    return tuple(
        (math.tau * i / count, row * step * side)
        for row, count in enumerate(best)
        for side in ((1, -1) if row else (1,))
        for i in range(count)
    )


def _total(counts: list[int]) -> int:
    return counts[0] + 2 * sum(counts[1:])


def _views_per_row(rows: int, core: float) -> list[int] | None:
    """Return how many views each row needs from the horizon to the pole; None if none suffice."""
    step = math.pi / 2 / rows
    counts = [_views_around(row * step, step, core) for row in range(rows)]
    enough = [count for count in counts if count]
    return [*enough, 1] if len(enough) == rows else None


def _views_around(pitch: float, step: float, core: float) -> int:
    """Return how many views of a pitch see all of their band of latitudes in their cores.

    Returns:
        0 if no number does.
    """
    latitudes = np.linspace(pitch - step / 2, pitch + step / 2, 33)[:, None]
    halves = np.linspace(0, math.pi / 2, 512)
    level = np.cos(latitudes) * np.cos(halves)
    ahead = level * math.cos(pitch) + np.sin(latitudes) * math.sin(pitch)
    up = np.sin(latitudes) * math.cos(pitch) - level * math.sin(pitch)
    limit = core * ahead * (1 + 1e-9)
    inside = (ahead > 0) & (np.cos(latitudes) * np.sin(halves) <= limit) & (np.abs(up) <= limit)
    around = inside.all(axis=0)
    reached = float(halves[around.argmin() - 1]) if around[0] and not around.all() else 0.0
    return math.ceil(math.pi / reached) if reached else 0
