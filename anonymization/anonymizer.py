"""The anonymizer: a picture in, the same picture without identifiable objects out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonymization.bundle import Bundle, Card
from anonymization.detection import Detections, Detector
from anonymization.errors import BlurloopError
from anonymization.files import write_bytes
from anonymization.obscuring import obscure
from anonymization.picture import MAX_PIXELS, encode, read_picture


class OutputError(BlurloopError):
    """An output path must not or cannot be written."""


@dataclass(frozen=True)
class AnonymizedImage:
    """What came out.

    Attributes:
        pixels: The anonymized picture, of the source's shape and type.
        detections: What was found and obscured.
    """

    pixels: NDArray[Any] = field(repr=False)
    detections: Detections


class Anonymizer:
    """Detects and obscures with one bundle; safe to call from several threads.

    >>> anonymizer = Anonymizer.from_bundle("artifacts/bundle")  # doctest: +SKIP
    >>> anonymizer(pixels).pixels  # doctest: +SKIP
    """

    def __init__(
        self,
        detector: Detector,
        card: Card,
        *,
        seed: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """Use a detector, and a card for how classes are obscured; see `from_bundle`."""
        self.detector = detector
        self.card = card
        self._seed = seed
        self._max_pixels = max_pixels

    @classmethod
    def from_bundle(
        cls,
        bundle: str | os.PathLike[str] | Bundle,
        *,
        thresholds: Mapping[str, float] | None = None,
        threads: int | None = None,
        seed: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Anonymizer:
        """Load a bundle.

        Args:
            bundle: Folder, or a bundle that was loaded before.
            thresholds: Scores per class that replace the calibrated ones.
            threads: Threads of one network run; None for all cores.
            seed: Makes the noise in obscured pixels repeatable; leave None when publishing.
            max_pixels: Largest picture that is decoded.

        Raises:
            BundleError: If the bundle is not what its card says.
            RuntimeLoadError: If a graph cannot be loaded.
            TaxonomyError: If a threshold names an unknown class.
        """
        loaded = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        card = loaded.card.with_thresholds(thresholds or {})
        detector = Detector.from_bundle(replace(loaded, card=card), threads=threads)
        return cls(detector, card, seed=seed, max_pixels=max_pixels)

    def __call__(self, pixels: NDArray[np.uint8]) -> AnonymizedImage:
        """Anonymize upright RGB pixels, uint8 (H, W, 3)."""
        detections = self.detector.detect(pixels)
        return AnonymizedImage(self.obscure(pixels, detections), detections)

    def obscure(self, pixels: NDArray[Any], detections: Detections) -> NDArray[Any]:
        """Obscure known finds as the card says; any channels, uint8 or uint16."""
        return obscure(
            pixels,
            detections,
            self.card.taxonomy,
            mask_threshold=self.card.mask_threshold,
            seed=self._seed,
        )

    def anonymize_file(
        self,
        source: str | os.PathLike[str],
        destination: str | os.PathLike[str],
        *,
        overwrite: bool = False,
    ) -> AnonymizedImage:
        """Anonymize a file into another, of the same format, which appears whole or not at all.

        Raises:
            PictureError: If the source cannot be read whole.
            OutputError: If the destination is the source, is there and may not be overwritten,
                or cannot be written.
            InferenceError: If a network fails.
        """
        target = Path(destination)
        check_output(Path(source), target, overwrite=overwrite)
        picture = read_picture(source, max_pixels=self._max_pixels)
        detections = self.detector.detect(picture.pixels)
        hidden = self.obscure(picture.native, detections)
        content = encode(picture, hidden)
        try:
            write_bytes(target, content)
        except OSError as error:
            raise OutputError(f"{target} cannot be written: {error.strerror or error}") from error
        return AnonymizedImage(hidden, detections)


def check_output(source: Path, target: Path, *, overwrite: bool) -> None:
    """Refuse an output that would destroy something.

    Raises:
        OutputError: If the target is the source, a folder, or there without leave to overwrite.
    """
    try:
        if target.exists() and target.samefile(source):
            raise OutputError(f"{target} is the input itself; choose another output folder")
        if target.is_dir():
            raise OutputError(f"{target} is a folder; a picture was to be written there")
        if target.exists() and not overwrite:
            raise OutputError(f"{target} exists; allow overwriting (--overwrite) or move it away")
    except OSError as error:
        raise OutputError(f"{target} cannot be looked at: {error.strerror or error}") from error
