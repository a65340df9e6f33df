"""Kept engines that attack obscured pictures, and a deconvolution: the extra `attack`.

`rapidocr-onnxruntime` reads plates; `dlib-bin` with the weights of `face-recognition-models` turns
a face into 128 values. Both carry their weights, so nothing is fetched while they run.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from anonymization.errors import BlurloopError

Pixels = NDArray[np.uint8]
Vector = NDArray[np.float64]
Box = tuple[float, float, float, float]

READ_HEIGHT_PX = 64
"""Height to which a plate is enlarged before it is read, as engines expect print, not dots."""
ITERATIONS = 20
PACKAGES = (
    "dlib-bin",
    "face-recognition-models",
    "onnxruntime",
    "opencv-python-headless",
    "rapidocr-onnxruntime",
)
"""Whose versions an attack depends on."""
SPREAD_PX = 3.0
"""Blur of a wider spread is deconvolved in a smaller picture, in which it has this one: what such
a blur leaves of finer detail is e^-44 of it."""


class AttackError(BlurloopError):
    """An attack cannot be made."""

    exit_code = 2


class Reader(Protocol):
    """Reads the text on a plate."""

    def read(self, pixels: Pixels) -> str:
        """Return letters and digits in capitals; empty where nothing is read."""


class Embedder(Protocol):
    """Turns a face into values that lie close for one person."""

    def embed(self, pixels: Pixels, box_xyxy: Box, original: Pixels) -> Vector:
        """Return the values of a face; the attacker is told where eyes and nose were."""


def _need(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise AttackError(
            f"the attack needs {module}, which is not installed. Run pip install -c "
            "constraints.txt -e '.[attack]', then pip install --no-deps -c constraints.txt "
            "rapidocr-onnxruntime (docs/evaluation.md says why in two steps)"
        ) from error


def engine_versions() -> list[str]:
    """Return name and version of each package of the attack that is installed."""
    found = []
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    return found


def plain(text: str) -> str:
    """Return the letters and digits of a text, in capitals.

    >>> plain("mk 40-aca")
    'MK40ACA'
    """
    return "".join(c for c in text.upper() if c.isascii() and c.isalnum())


class RapidReader:
    """RapidOCR's recognition of one line."""

    def __init__(self) -> None:
        self._engine = _need("rapidocr_onnxruntime").RapidOCR()

    def read(self, pixels: Pixels) -> str:
        """Return what the engine reads."""
        scale = READ_HEIGHT_PX / pixels.shape[0]
        width = max(READ_HEIGHT_PX, round(pixels.shape[1] * scale))
        large = cv2.resize(pixels, (width, READ_HEIGHT_PX), interpolation=cv2.INTER_CUBIC)
        found, _ = self._engine(large, use_det=False, use_cls=False, use_rec=True)
        return plain("".join(text for text, _ in found or ()))


class DlibEmbedder:
    """dlib's ResNet of 128 values, aligned by five points (both weights CC0)."""

    def __init__(self) -> None:
        self._dlib = _need("dlib")
        # Not imported: its __init__ wants pkg_resources, which setuptools dropped.
        spec = importlib.util.find_spec("face_recognition_models")
        if spec is None or not spec.submodule_search_locations:
            _need("face_recognition_models")
            raise AttackError("face_recognition_models holds no weights; install it again")
        folder = Path(next(iter(spec.submodule_search_locations))) / "models"
        self._points = self._dlib.shape_predictor(
            str(folder / "shape_predictor_5_face_landmarks.dat")
        )
        self._network = self._dlib.face_recognition_model_v1(
            str(folder / "dlib_face_recognition_resnet_model_v1.dat")
        )

    def embed(self, pixels: Pixels, box_xyxy: Box, original: Pixels) -> Vector:
        """Return 128 values of the face, aligned as in the original."""
        box = self._dlib.rectangle(*(round(v) for v in box_xyxy))
        points = self._points(np.ascontiguousarray(original), box)
        found = self._network.compute_face_descriptor(np.ascontiguousarray(pixels), points)
        return np.asarray(found, dtype=np.float64)


def deconvolve(pixels: Pixels, sigma: float, iterations: int = ITERATIONS) -> Pixels:
    """Return a picture after Richardson and Lucy's deconvolution with a Gaussian of known sigma.

    Args:
        pixels: uint8, shape (H, W, 3).
        sigma: Spread of the blur in pixels, which the attacker is told.
        iterations: More sharpen further and raise noise.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, SPREAD_PX / sigma)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    seen: NDArray[Any] = pixels.astype(np.float32) + 1
    if scale < 1:
        seen, sigma = cv2.resize(seen, size, interpolation=cv2.INTER_AREA), SPREAD_PX
    guess: NDArray[Any] = seen.copy()
    for _ in range(iterations):
        again = cv2.GaussianBlur(guess, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
        ratio = seen / np.maximum(again, 1e-3)
        guess *= cv2.GaussianBlur(ratio, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    if scale < 1:
        guess = cv2.resize(guess, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(guess - 1, 0, 255).astype(np.uint8)
