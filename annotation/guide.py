"""Pictures for the annotators' instructions: drawn objects just above and far below the limit.

They come from the built-in street generator, so that nobody's face explains what a face is. Both
pictures show the same object, seen from near and from afar, so that nothing but size differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anonymization.files import folder_in_one_step
from anonymization.taxonomy import ClassSpec, Taxonomy

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORDS = ("identifiable", "not-identifiable")
_SHARES = {"identifiable": 1.2, "not-identifiable": 0.4}
"""Measured side of the object shown, over the limit of its class."""
_SEQUENCES = 24
_SIDE_MIN_PX = 24
_FILLED_MIN = {"face": 0.6, "person": 0.3, "license_plate": 0.8, "vehicle": 0.6}
"""Least share of its box that is seen of a good example; what others hide has less."""
_ASPECT = {"face": (0.6, 1.0), "person": (0.2, 0.6), "license_plate": (1.5, 6), "vehicle": (0.8, 3)}
"""Width over height of a good example."""
_SHOWN_PX = 180


def draw_guide(folder: Path, taxonomy: Taxonomy) -> dict[str, tuple[str, str]]:
    """Draw the pictures where they are missing; return their file names, per class.

    Args:
        folder: Where they stand; written whole or not at all.
        taxonomy: Classes and limits. A class that the generator does not draw gets none.
    """
    if not folder.exists():
        with folder_in_one_step(folder) as work:
            for name, crops in _examples(taxonomy).items():
                for word, crop in crops.items():
                    _save(crop, work / f"{name}-{word}.png")
    names = {name: tuple(f"{name}-{word}.png" for word in WORDS) for name in taxonomy.names}
    return {
        name: (found[0], found[1])
        for name, found in names.items()
        if all((folder / each).is_file() for each in found)
    }


def _examples(taxonomy: Taxonomy) -> dict[str, dict[str, NDArray[np.uint8]]]:
    found: dict[str, dict[str, NDArray[np.uint8]]] = {}
    missing = set(_ASPECT) & set(taxonomy.names)
    for pixels, thing in _drawn() if missing else ():
        if thing.class_name in missing and _is_good(thing, pixels.shape):
            spec = taxonomy[thing.class_name]
            found[thing.class_name] = {
                word: _seen(pixels, thing.box_xyxy, share * spec.identifiable_px, spec)
                for word, share in _SHARES.items()
            }
            missing.discard(thing.class_name)
        if not missing:
            break
    return found


def _drawn() -> Iterator[tuple[NDArray[np.uint8], Any]]:
    from data.street import StreetConfig, draw_sequence

    config = StreetConfig(
        scenes=_SEQUENCES, sequence_length=1, seed=5, night_share=0, blur_share=0,
        empty_share=0, hidden_face_share=0, away_share=0, profile_share=0,
        people_in_vehicles_share=0,
    )  # fmt: skip
    for index in range(_SEQUENCES):
        for scene in draw_sequence(config, index):
            for thing in scene.objects:
                yield scene.pixels, thing


def _is_good(thing: Any, shape: tuple[int, ...]) -> bool:
    """Return whether an object is large, whole and seen as a person expects it."""
    x0, y0, x1, y1 = thing.box_xyxy
    inside = x0 > 2 and y0 > 2 and x1 < shape[1] - 2 and y1 < shape[0] - 2
    low, high = _ASPECT[thing.class_name]
    filled = float(thing.mask.sum()) / max((x1 - x0) * (y1 - y0), 1)
    return (
        inside
        and float(thing.attributes.get("occluded", 0)) <= 0.05
        and max(x1 - x0, y1 - y0) >= _SIDE_MIN_PX
        and low <= (x1 - x0) / (y1 - y0) <= high
        and filled >= _FILLED_MIN[thing.class_name]
    )


def _seen(
    pixels: NDArray[np.uint8],
    box: tuple[float, float, float, float],
    side_px: float,
    spec: ClassSpec,
) -> NDArray[np.uint8]:
    """Return the object with half as much around it, its measured side so many pixels long."""
    from PIL import Image

    x0, y0, x1, y1 = (int(v) for v in box)
    pad = max(x1 - x0, y1 - y0) // 2
    crop = Image.fromarray(pixels[max(y0 - pad, 0) : y1 + pad, max(x0 - pad, 0) : x1 + pad])
    scale = side_px / (x1 - x0 if spec.identifiable_side == "width" else y1 - y0)
    size = (max(1, round(crop.width * scale)), max(1, round(crop.height * scale)))
    near = crop.resize(size, Image.Resampling.BOX)
    shown = _SHOWN_PX / max(crop.size)
    size = (round(crop.width * shown), round(crop.height * shown))
    return np.asarray(near.resize(size, Image.Resampling.NEAREST))


def _save(picture: NDArray[np.uint8], path: Path) -> None:
    from PIL import Image

    Image.fromarray(picture).save(path)
