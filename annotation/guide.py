"""Pictures for the annotators' instructions: drawn objects just above and far below the limit.

They come from the built-in street generator, so that nobody's face explains what a face is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anonymization.files import folder_in_one_step
from anonymization.taxonomy import ClassSpec, Taxonomy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WORDS = ("identifiable", "not-identifiable")
_SHARES = {"identifiable": (1.0, 1.6), "not-identifiable": (0.3, 0.6)}
"""Bounds of the measured side, over the limit of the class."""
_SEQUENCES = 24
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
    missing = {(name, word) for name in taxonomy.names for word in WORDS}
    for pixels, thing in _drawn():
        spec = taxonomy.classes.get(thing.class_name)
        word = None if spec is None else _word(thing, spec, pixels.shape)
        crops = found.setdefault(thing.class_name, {})
        if word is not None and word not in crops:
            crops[word] = _crop(pixels, thing.box_xyxy)
            missing.discard((thing.class_name, word))
        if not missing:
            break
    return found


def _drawn() -> Iterator[tuple[NDArray[np.uint8], Any]]:
    from data.street import StreetConfig, draw_sequence

    config = StreetConfig(
        scenes=_SEQUENCES, sequence_length=1, seed=5, night_share=0, blur_share=0,
        empty_share=0, hidden_face_share=0,
    )  # fmt: skip
    for index in range(_SEQUENCES):
        for scene in draw_sequence(config, index):
            for thing in scene.objects:
                yield scene.pixels, thing


def _word(thing: Any, spec: ClassSpec, shape: tuple[int, ...]) -> str | None:
    x0, y0, x1, y1 = thing.box_xyxy
    inside = x0 > 2 and y0 > 2 and x1 < shape[1] - 2 and y1 < shape[0] - 2
    if not inside or float(thing.attributes.get("occluded", 0)) > 0.1:
        return None
    side = x1 - x0 if spec.identifiable_side == "width" else y1 - y0
    for word, (low, high) in _SHARES.items():
        if low <= side / max(spec.identifiable_px, 1e-6) <= high:
            return word
    return None


def _crop(pixels: NDArray[np.uint8], box: tuple[float, float, float, float]) -> NDArray[np.uint8]:
    """Return the object with as much around it as it is large."""
    x0, y0, x1, y1 = (int(v) for v in box)
    pad = max(x1 - x0, y1 - y0) // 2
    return pixels[max(y0 - pad, 0) : y1 + pad, max(x0 - pad, 0) : x1 + pad]


def _save(crop: NDArray[np.uint8], path: Path) -> None:
    from PIL import Image

    scale = max(1, _SHOWN_PX // max(crop.shape[:2]))
    size = (crop.shape[1] * scale, crop.shape[0] * scale)
    Image.fromarray(crop).resize(size, Image.Resampling.NEAREST).save(path)
