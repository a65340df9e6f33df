"""Synthetic faces: a generator that draws faces of nobody and is given nothing of the picture.

A generator is a folder with `generator.json` and one ONNX graph, as `python -m training.zoo.faces`
writes it. What it draws follows from a seed of the run and from where the object lies; no function
here is ever given a pixel of the source.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anonymization.detection.runtime import (
    InferenceError,
    OnnxRuntime,
    Runtime,
    RuntimeLoadError,
)
from anonymization.errors import BlurloopError
from anonymization.files import FileError, read_json
from anonymization.obscuring.region import Region

Floats = NDArray[np.float32]
Rgb = NDArray[np.uint8]

SCHEMA_VERSION = 1
CARD = "generator.json"
GRAPH = "generator.onnx"
COMMAND = "python -m training.zoo.faces"
"""What makes such a folder."""

SIDE_MAX = 1024
LATENTS_MAX = 4096


class GeneratorError(BlurloopError):
    """A generator of synthetic faces is missing, damaged, or no such thing."""

    exit_code = 2


@dataclass(frozen=True)
class GeneratorCard:
    """What a generator is; the content of `generator.json`. Checked when made.

    The graph takes `latents`, float32 (1, latents), and returns `faces`, float32
    (1, 3, side, side), RGB in [-1, 1].

    Attributes:
        sha256: Digest of the graph's bytes.
        latents: Random numbers that make one face.
        scale: Standard deviation from which they are drawn; below 1, faces are more alike and have
            fewer faults.
        side: Pixels of a face's side.
        origin: Where the weights come from.
        note: What whoever uses it must know, such as licences; one line.
    """

    sha256: str
    latents: int
    scale: float
    side: int
    origin: str
    note: str

    def __post_init__(self) -> None:
        for name, top in (("latents", LATENTS_MAX), ("side", SIDE_MAX)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= top:
                raise GeneratorError(f"{name} is {value!r}; expected a whole number, 1 to {top}")
        if not isinstance(self.scale, int | float) or not 0 < self.scale <= 4:
            raise GeneratorError(f"scale is {self.scale!r}; expected a number above 0, up to 4")
        for name in ("sha256", "origin", "note"):
            value = getattr(self, name)
            if not isinstance(value, str) or "\n" in value:
                raise GeneratorError(f"{name} is {value!r}; expected one line of text")

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, for JSON."""
        return {"schema_version": SCHEMA_VERSION} | asdict(self)


class FaceGenerator:
    """Draws faces for regions; safe to call from several threads."""

    def __init__(
        self,
        card: GeneratorCard,
        graph: bytes,
        *,
        seed: int | None = None,
        name: str = "the face generator",
    ) -> None:
        """Load a graph and let it draw once.

        Args:
            card: What it is.
            graph: The ONNX file's bytes, whose digest the caller has checked.
            seed: Of the run; None draws one.
            name: What to call it in errors.

        Raises:
            GeneratorError: If the graph cannot be loaded, or does not return a face.
        """
        self.card = card
        self._name = name
        self._seed = secrets.randbits(64) if seed is None else seed
        try:
            # One thread: pictures run side by side, and one face takes milliseconds.
            self._runtime: Runtime = OnnxRuntime(graph, name=name, threads=1)
            self.draw(0)
        except (RuntimeLoadError, InferenceError) as error:
            reason = str(error).rstrip(".")
            raise GeneratorError(f"{reason}. Make it again: {COMMAND} FOLDER") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, seed: int | None = None) -> FaceGenerator:
        """Read a generator's folder and check the graph against its card.

        Raises:
            GeneratorError: If a file is missing or not what the card says.
        """
        folder = Path(path)
        again = f"Make it with: {COMMAND} {folder}"
        try:
            values = dict(read_json(folder / CARD, schema_version=SCHEMA_VERSION))
            values.pop("schema_version")
            card = GeneratorCard(**values)
            graph = (folder / GRAPH).read_bytes()
        except FileError as error:
            raise GeneratorError(
                f"{folder} is no generator of faces: {CARD} is missing or not readable. {again}"
            ) from error
        except (OSError, TypeError, GeneratorError) as error:
            raise GeneratorError(f"generator {folder} cannot be read: {error}. {again}") from error
        found = hashlib.sha256(graph).hexdigest()
        if found != card.sha256:
            raise GeneratorError(
                f"{folder / GRAPH} has sha256 {found}; its card says {card.sha256}: "
                f"it was changed or damaged. {again}"
            )
        return cls(card, graph, seed=seed, name=f"{folder}: the face generator")

    def draw(self, seed: int | list[int]) -> Rgb:
        """Draw the face of a seed; uint8 (side, side, 3), RGB.

        Raises:
            InferenceError: If the graph fails or answers with something impossible.
        """
        card = self.card
        latents = np.random.default_rng(seed).normal(0, card.scale, (1, card.latents))
        outputs = self._runtime.run({"latents": latents.astype(np.float32)})
        face = np.asarray(outputs.get("faces", np.zeros(0)))
        if face.shape != (1, 3, card.side, card.side) or not np.isfinite(face).all():
            raise InferenceError(
                f"{self._name} returned faces of shape {face.shape}; expected finite "
                f"(1, 3, {card.side}, {card.side})"
            )
        levels = np.rint(np.clip(face[0].transpose(1, 2, 0) * 127.5 + 127.5, 0, 255))
        return np.ascontiguousarray(levels.astype(np.uint8))

    def face_for(self, where: Region, box_xyxy: Floats, *, rows: Floats) -> Rgb:
        """Draw a face over a region.

        Args:
            where: The region, cut at the picture's edge.
            box_xyxy: float32, shape (4,), what the face fills, picture pixels, not cut.
            rows: float32, any shape, of the object. They choose the face, and columns do not: both
                sides of a panorama's seam show one.

        Returns:
            uint8, shape (h, w, 3) of the region, RGB, filled to its edges.

        Raises:
            InferenceError: As `draw`.
        """
        x0, y0, x1, y1 = (float(v) for v in box_xyxy)
        bits = np.ascontiguousarray(rows, np.float32).view(np.uint32).ravel()
        face = self.draw([self._seed, *(int(number) for number in bits)])
        side = max(x1 - x0, y1 - y0, 1.0)
        small = max(1, min(len(face), round(side)))
        # Averaged before it is shrunk: the warp takes single samples.
        if small < len(face):
            face = np.asarray(cv2.resize(face, (small, small), interpolation=cv2.INTER_AREA))
        scale = side / small
        left, top = (x0 + x1 - side) / 2 - where.x0, (y0 + y1 - side) / 2 - where.y0
        shift = scale / 2 - 0.5
        height, width = where.shape
        turned: Any = cv2.warpAffine(
            face,
            np.array([[scale, 0, left + shift], [0, scale, top + shift]]),
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return np.asarray(turned, np.uint8)
