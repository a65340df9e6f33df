"""The network runs of one panorama, side by side and one after the other."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anonymization.card import MASK_NETWORK
from anonymization.detection.detector import Detector
from anonymization.panorama.gpano import choose_projection
from anonymization.pipeline import cores
from benchmarks.anonymizing.timing import Setting, in_turns, opened

PANORAMA = (4096, 2048)


class Silent:
    """A network that takes no time and finds nothing."""

    def __init__(self, name: str) -> None:
        """Answer as the network of that name."""
        maps = (0, 28, 28) if name == MASK_NETWORK else (0, 17, 56, 56)
        self._answer: dict[str, NDArray[Any]] = {
            "boxes": np.zeros((0, 4), np.float32),
            "scores": np.zeros(0, np.float32),
            "labels": np.zeros(0, np.int64),
            "masks" if name == MASK_NETWORK else "heatmaps": np.zeros(maps, np.float32),
        }

    def run(self, feeds: object) -> dict[str, NDArray[Any]]:
        """Return no finds."""
        del feeds
        return self._answer


def measure_panorama(setting: Setting) -> None:
    """Print what the views of a panorama cost, run by run and side by side."""
    pixels = opened(setting.pictures[0].read_bytes())
    width, height = PANORAMA
    panorama = cv2.resize(pixels, PANORAMA, interpolation=cv2.INTER_LINEAR)
    card = setting.bundle.card
    one_by_one = Detector.from_bundle(setting.bundle, threads=cores())
    side_by_side = Detector.from_bundle(setting.bundle)
    silent = Detector(card, {name: Silent(name) for name in card.graphs})
    views = side_by_side.views(
        width,
        height,
        projection=choose_projection("equirectangular", b"", width, height).projection,
    )
    before, after, rest = in_turns(
        *(
            lambda d=detector: d.detect(panorama, projection="equirectangular")
            for detector in (one_by_one, side_by_side, silent)
        )
    )
    print(
        f"panorama    {width}x{height}, {len(views)} views: one after the other with {cores()} "
        f"threads {before:.2f} s, side by side {after:.2f} s; without networks {rest:.2f} s"
    )
