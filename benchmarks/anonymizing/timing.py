"""What is measured, and how: work in turns, and decoding and encoding as it is compared with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anonymization.bundle import Bundle
from anonymization.formats.picture import decode, encode
from benchmarks.encoding import QUALITY

Run = tuple[str, Mapping[str, Any]]
"""One run of a network: its name, and its inputs."""

REPEATS = 3


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        bundle: The bundle.
        pictures: Photographs.
    """

    bundle: Bundle
    pictures: tuple[Path, ...]


def seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    """Return how long something takes."""
    start = clock()
    work()
    return clock() - start


def in_turns(
    *works: Callable[[], object], clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Return the least time of each, measured one after the other and again.

    What runs in one thread is measured by `time.thread_time`, which other load hardly lengthens.
    """
    rounds = [[seconds(work, clock) for work in works] for _ in range(REPEATS)]
    return [min(times) for times in zip(*rounds, strict=True)]


def codec(content: bytes) -> None:
    """Decode and encode a picture that nothing has changed in."""
    picture = decode(content)
    encode(picture, picture.native, hidden=())


def opened(content: bytes) -> NDArray[np.uint8]:
    """Decode with libjpeg-turbo through OpenCV."""
    return np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR), np.uint8)


def libjpeg(content: bytes) -> None:
    """Decode and encode with libjpeg-turbo."""
    pixels = opened(content)
    cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
