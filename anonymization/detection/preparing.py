"""What a graph is shown: a picture resized and padded as its card says."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from anonymization.card import GraphCard

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class PreparedPicture:
    """A picture as a graph takes it.

    Attributes:
        image: float32 (1, 3, H, W), RGB in [0, 1], padded right and below.
        scale_xy: Graph pixels per picture pixel, in x and in y.
    """

    image: Floats
    scale_xy: tuple[float, float]


def prepare(pixels: Pixels, graph: GraphCard, *, look: float = 1.0) -> PreparedPicture:
    """Resize and pad a picture as the card says.

    Args:
        pixels: uint8, shape (H, W, 3), RGB.
        graph: The graph's part of the card.
        look: Factor on that size.
    """
    spec = graph.input
    height, width = pixels.shape[:2]
    scale = look * min(spec.long_side / max(height, width), spec.upscale_max)
    columns, rows = max(1, round(width * scale)), max(1, round(height * scale))
    # Area averaging does not alias when it shrinks; it cannot enlarge.
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    same = (rows, columns) == (height, width)
    resized = pixels if same else cv2.resize(pixels, (columns, rows), interpolation=how)
    padded = [-(-side // spec.multiple) * spec.multiple for side in (rows, columns)]
    image = np.empty((1, 3, *padded), np.float32)
    image[:] = np.asarray(spec.pad_rgb, np.float32)[None, :, None, None]
    np.multiply(resized.transpose(2, 0, 1), np.float32(1 / 255), out=image[0, :, :rows, :columns])
    return PreparedPicture(image, (columns / width, rows / height))
