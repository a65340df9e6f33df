"""Panorama presets: how much of a panorama's resolution the networks get to see.

A preset is a width and a shrinking factor. The views of the finest level are as wide as the
network's input covers at that resolution: at their centre, one pixel of the network is `shrink`
pixels of an equirectangular picture of that width. Coarser levels follow (`views`).
"""

from __future__ import annotations

from dataclasses import dataclass

from anonymization.errors import BlurloopError

AUTO = "auto"


class PresetError(BlurloopError):
    """There is no such preset."""


@dataclass(frozen=True)
class Preset:
    """How finely a panorama is looked at.

    Attributes:
        name: What to ask for.
        width: Columns of the panoramas that it is made for; larger ones are seen as if reduced
            to this width.
        shrink: Pixels of the panorama, at that width, per pixel of the network's input.
    """

    name: str
    width: int
    shrink: float


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("pano-2k", 2048, 1.0),
        Preset("pano-4k", 4096, 1.25),
        Preset("pano-5k", 5760, 1.5),
        Preset("pano-8k", 8192, 2.0),
        Preset("pano-11k", 11000, 2.0),
        Preset("pano-16k", 16384, 2.0),
    )
}
"""By name. At a shrinking factor of 2 a face of 20 px, the smallest that the gate counts, is 10
network pixels wide, the smallest that the default network's anchors are made for."""


def preset_for(width: float, name: str = AUTO) -> Preset:
    """Return a preset by name, or for `auto` the one nearest to a panorama's width.

    One that is made for wider panoramas is not taken where it would look more coarsely than that.

    >>> preset_for(8000).name
    'pano-8k'
    >>> preset_for(4096, "pano-16k").name
    'pano-4k'

    Raises:
        PresetError: If there is no such preset.
    """
    nearest = min(PRESETS.values(), key=lambda preset: abs(preset.width - width))
    if name == AUTO:
        return nearest
    check_preset(name)
    asked = PRESETS[name]
    return nearest if asked.width > width and asked.shrink > nearest.shrink else asked


def check_preset(name: str) -> None:
    """Refuse a name that is no preset.

    Raises:
        PresetError: If it is none.
    """
    if name != AUTO and name not in PRESETS:
        raise PresetError(
            f"panorama preset is {name!r}; expected {AUTO} or one of {', '.join(PRESETS)}"
        )
