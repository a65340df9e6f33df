"""The anonymizer: a picture in, the same picture without identifiable objects out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonymization.bundle import Bundle
from anonymization.card import Card, TilingCard
from anonymization.deciding import Decided, Rules, decide
from anonymization.detection.detector import Detector
from anonymization.detection.finds import Detections, ShapeError
from anonymization.errors import BlurloopError
from anonymization.files import OutputError, check_output, write_output
from anonymization.formats.picture import (
    FORMATS,
    MAX_PIXELS,
    MetadataPolicy,
    Picture,
    encode,
    read_picture,
)
from anonymization.known_regions import DEFAULT_TAXONOMY
from anonymization.obscuring.generator import FaceGenerator
from anonymization.obscuring.obscure import NO_GENERATORS, obscure
from anonymization.obscuring.region import Outline, Region, hidden_parts
from anonymization.obscuring.seam import obscure_wrapped
from anonymization.obscuring.shapes import MASK_THRESHOLD, NO_OUTLINES
from anonymization.panorama.gpano import (
    AUTO,
    FISHEYE,
    NAMES,
    ChosenProjection,
    choose_projection,
)
from anonymization.panorama.lens import FisheyeLens
from anonymization.panorama.projection import Equirectangular, ProjectionError
from anonymization.pipeline import Cores
from anonymization.regions import Regions, Spared
from anonymization.settings import Settings
from anonymization.taxonomy import Taxonomy

__all__ = ["AnonymizedImage", "Anonymizer", "Decided", "NoNetworkError", "OutputError"]


FLAT = ChosenProjection(None)


class NoNetworkError(BlurloopError):
    """Detection was asked of an anonymizer that has no network."""


@dataclass(frozen=True)
class AnonymizedImage:
    """What came out.

    Attributes:
        pixels: The anonymized picture, of the source's shape and type.
        detections: What was found.
        spared: Which of it regions left as it was.
        warning: What its metadata say of its projection and could not be followed; None if nothing.
    """

    pixels: NDArray[Any] = field(repr=False)
    detections: Detections
    spared: tuple[Spared, ...] = ()
    warning: str | None = None


class Anonymizer:
    """Detects and obscures with one bundle; safe to call from several threads.

    >>> anonymizer = Anonymizer.from_bundle("artifacts/bundle")  # doctest: +SKIP
    >>> anonymizer(pixels).pixels  # doctest: +SKIP
    """

    def __init__(
        self,
        detector: Detector | None,
        taxonomy: Taxonomy,
        *,
        mask_threshold: float = MASK_THRESHOLD,
        disabled: frozenset[str] = frozenset(),
        regions: Regions | None = None,
        projection: str | FisheyeLens | None = None,
        tiling: TilingCard | None = None,
        seed: int | None = None,
        max_pixels: int = MAX_PIXELS,
        generators: Mapping[str, FaceGenerator] = NO_GENERATORS,
        implying_head: bool = False,
    ) -> None:
        """Use a detector, and a taxonomy for how classes are obscured; see `from_bundle`."""
        self.detector = detector
        self.taxonomy = taxonomy
        self.mask_threshold = mask_threshold
        self.disabled = disabled
        self.regions = regions or Regions()
        self.regions.check(taxonomy)
        self._projection = projection
        self._tiling = tiling
        self.max_pixels = max_pixels
        self.generators = generators
        self.implying_head = implying_head
        self._seed = seed

    @classmethod
    def from_bundle(
        cls,
        bundle: str | os.PathLike[str] | Bundle,
        *,
        thresholds: Mapping[str, float] | None = None,
        settings: Settings | None = None,
        regions: Regions | None = None,
        projection: str | FisheyeLens | None = None,
        tiling: TilingCard | None = None,
        threads: int | None = None,
        cores: Cores | None = None,
        runtime: str | None = None,
        seed: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Anonymizer:
        """Load a bundle.

        Args:
            bundle: Folder, or a bundle that was loaded before.
            thresholds: Scores per class, or alias of one, that replace the calibrated ones.
            settings: What else is changed per class, or alias of one.
            regions: Regions of interest, ignored ones, and the ego vehicle.
            projection: How pictures are projected, see `choose_projection`, or through which
                lens; None takes what their metadata state.
            tiling: Into which views pictures are cut, in place of the card's.
            threads: Threads of one network run; None for what suits the number of runs.
            cores: How the cores are shared between pictures and runs, in place of `threads`;
                None gives all to one picture after the other.
            runtime: `onnxruntime` or `openvino`; None for the first.
            seed: Makes the noise in obscured pixels repeatable; leave None when publishing.
            max_pixels: Largest picture that is decoded.

        Raises:
            BundleError: If the bundle is not what its card says.
            RuntimeLoadError: If a graph cannot be loaded.
            SettingsError: If a threshold, setting or region does not fit the bundle's classes, or
                two names of one class contradict each other.
            GeneratorError: If a generator of faces is missing or damaged.
        """
        loaded = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        scores = Settings.of(f"{name}.threshold={s}" for name, s in (thresholds or {}).items())
        taxonomy = loaded.card.taxonomy
        changed = (settings or Settings()).resolved(taxonomy)
        settings = scores.resolved(taxonomy).updated(changed)
        card = settings.card(loaded.card)
        return cls(
            Detector.from_bundle(loaded, card=card, threads=threads, cores=cores, runtime=runtime),
            card.taxonomy,
            mask_threshold=card.mask_threshold,
            disabled=settings.disabled,
            regions=regions,
            projection=projection,
            tiling=tiling,
            seed=seed,
            max_pixels=max_pixels,
            generators=_generators(settings, seed),
            implying_head=settings.implying_head(card.taxonomy),
        )

    @classmethod
    def for_known_regions(
        cls,
        card: Card | None = None,
        *,
        settings: Settings | None = None,
        regions: Regions | None = None,
        projection: str | FisheyeLens | None = None,
        seed: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Anonymizer:
        """Make an anonymizer without a network, for finds that are known.

        Args:
            card: Classes and how they are obscured; None for those of street imagery.
            settings: What is changed per class, or alias of one.
            regions: Regions of interest, ignored ones, and the ego vehicle.
            projection: How pictures are projected, see `choose_projection`, or through which
                lens; None takes what their metadata state.
            seed: Makes the noise in obscured pixels repeatable; leave None when publishing.
            max_pixels: Largest picture that is decoded.

        Raises:
            SettingsError: If a setting or region does not fit the classes, or two names of one
                class contradict each other.
            GeneratorError: If a generator of faces is missing or damaged.
        """
        taxonomy = DEFAULT_TAXONOMY if card is None else card.taxonomy
        settings = (settings or Settings()).resolved(taxonomy)
        taxonomy = settings.taxonomy(taxonomy)
        return cls(
            None,
            taxonomy,
            mask_threshold=MASK_THRESHOLD if card is None else card.mask_threshold,
            disabled=settings.disabled,
            regions=regions,
            projection=projection,
            seed=seed,
            max_pixels=max_pixels,
            generators=_generators(settings, seed),
            implying_head=settings.implying_head(taxonomy),
        )

    def __call__(
        self, pixels: NDArray[np.uint8], *, name: str = "", xmp: bytes = b""
    ) -> AnonymizedImage:
        """Anonymize upright RGB pixels, uint8 (H, W, 3).

        Args:
            pixels: The picture.
            name: Path that the globs of regions are compared with.
            xmp: Its XMP, as `Picture.xmp`, by which a panorama is known as one.
        """
        _check_rgb(pixels)
        height, width = pixels.shape[:2]
        view = self.view(xmp, width, height)
        found = self.detect(pixels, view=view)
        decided = self.decide(found, name=name, width=width, height=height, view=view)
        hidden = self.hide(pixels, decided)
        return AnonymizedImage(hidden, decided.detections, decided.spared, view.warning)

    def view(
        self, xmp: bytes, width: int, height: int, *, known: str | None = None
    ) -> ChosenProjection:
        """Decide how a picture is looked at: flat, as a panorama, or through a fisheye.

        Args:
            xmp: Its XMP, as `Picture.xmp`; empty where it has none.
            width: Columns of the picture.
            height: Rows of the picture.
            known: What the document of its known regions says that it was looked at as; holds
                where this anonymizer was told nothing but to take what the picture suggests.

        Raises:
            ProjectionError: If it cannot be what this anonymizer was told to expect.
        """
        free = self._projection in (None, AUTO) and known in NAMES
        if free and known == FISHEYE and self.detector is not None:
            raise ProjectionError(
                "its document says that it was looked at through a fisheye, and not through which; "
                f"give --projection {FISHEYE} and the lens of the run that wrote it"
            )
        return choose_projection(known if free else self._projection, xmp, width, height)

    def detect(
        self,
        pixels: NDArray[np.uint8],
        *,
        view: ChosenProjection = FLAT,
        score_min: float | None = None,
        go_on: Callable[[], None] = lambda: None,
    ) -> Detections:
        """Find objects in upright RGB pixels, uint8 (H, W, 3).

        Args:
            pixels: The picture.
            view: How it is looked at.
            score_min: As in `Detector.detect`.
            go_on: As in `Detector.detect`.

        Raises:
            NoNetworkError: If this anonymizer has none.
            ShapeError: If the pixels are of another type or shape, or there are none.
            InferenceError: If a network fails.
        """
        if self.detector is None:
            raise NoNetworkError("this anonymizer has no network; make it with `from_bundle`")
        _check_rgb(pixels)
        return self.detector.detect(
            pixels,
            score_min=score_min,
            projection=view.projection,
            tiling=self._tiling,
            go_on=go_on,
        )

    def decide(
        self,
        detections: Detections,
        *,
        name: str,
        width: int,
        height: int,
        outlines: Mapping[int, Outline] = NO_OUTLINES,
        view: ChosenProjection = FLAT,
    ) -> Decided:
        """Add implied heads, take out classes that are off, and tell which finds are obscured.

        Args:
            detections: The finds.
            name: Path of the picture below its input folder, with `/`.
            width: Columns of the picture.
            height: Rows of the picture.
            outlines: Exact pixels of finds, by position.
            view: How the picture is looked at: finds go on across a panorama's seam.

        Raises:
            RegionError: If a region's mask does not fit the picture.
        """
        rules = Rules(
            self.taxonomy, self.regions, self.disabled, self.mask_threshold, self.implying_head
        )
        turn = view.projection.turn if isinstance(view.projection, Equirectangular) else None
        return decide(
            detections, rules, name=name, width=width, height=height, outlines=outlines, turn=turn
        )

    def obscure(
        self,
        pixels: NDArray[Any],
        detections: Detections,
        *,
        outlines: Mapping[int, Outline] = NO_OUTLINES,
        cmyk: bool = False,
        regions: list[Region] | None = None,
        in_place: bool = False,
    ) -> NDArray[Any]:
        """Obscure finds as the taxonomy says; any channels, uint8, uint16 or float32."""
        return obscure(
            pixels,
            detections,
            self.taxonomy,
            mask_threshold=self.mask_threshold,
            seed=self._seed,
            outlines=outlines,
            cmyk=cmyk,
            generators=self.generators,
            regions=regions,
            in_place=in_place,
        )

    def hide(
        self,
        pixels: NDArray[Any],
        decided: Decided,
        *,
        cmyk: bool = False,
        regions: list[Region] | None = None,
        in_place: bool = False,
    ) -> NDArray[Any]:
        """Obscure what was decided, over a panorama's seam too; as `obscure_wrapped`.

        Args:
            pixels: As for `obscure`.
            decided: From `decide`.
            cmyk: Whether four channels are inks.
            regions: Where the regions that are obscured are added, for `formats.encode`.
            in_place: Whether the pixels given are changed, in place of a copy of them.
        """
        return obscure_wrapped(
            pixels,
            decided.hidden,
            lambda shown, finds, drawn, where: self.obscure(
                shown, finds, outlines=drawn, cmyk=cmyk, regions=where, in_place=in_place
            ),
            self.taxonomy,
            across=decided.across,
            outlines=decided.hidden_outlines,
            regions=regions,
        )

    def rewrite(
        self,
        picture: Picture,
        decided: Decided,
        *,
        recompress: int | None = None,
        keep: bool = False,
    ) -> tuple[NDArray[Any], bytes]:
        """Obscure what was decided in a picture's own channels, and encode it as its source was.

        Args:
            picture: What was read; its pixels are used up, as `Picture.taken` says.
            decided: From `decide`.
            recompress: As in `anonymize_file`.
            keep: Leave the picture's pixels as they are, at the price of a copy.

        Returns:
            The new pixels, of the shape and type of `picture.native`; and the bytes of the file.

        Raises:
            PictureWriteError: As `formats.encode`.
        """
        cmyk = picture.encoding.mode.startswith("CMYK")
        regions: list[Region] = []
        pixels = picture.native if keep else picture.taken()
        hidden = self.hide(pixels, decided, cmyk=cmyk, regions=regions, in_place=not keep)
        return hidden, encode(picture, hidden, recompress=recompress, hidden=hidden_parts(regions))

    def anonymize_file(
        self,
        source: str | os.PathLike[str],
        destination: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        metadata: MetadataPolicy | None = None,
        recompress: int | None = None,
    ) -> AnonymizedImage:
        """Anonymize a file into another, of the same format, which appears whole or not at all.

        Args:
            source: A picture file.
            destination: Where the result goes; not under a name for another format.
            overwrite: Replace what is there.
            metadata: Which groups of metadata stay; None keeps all, without what could hold a
                picture.
            recompress: Quality in which a lossy picture is encoded whole; None changes only what
                was obscured.

        Raises:
            PictureError: If the source cannot be read whole.
            OutputError: If the destination is the source, is there and may not be overwritten,
                or cannot be written.
            InferenceError: If a network fails.
        """
        file, target = Path(source), Path(destination)
        check_output(file, target, overwrite=overwrite)
        policy = MetadataPolicy() if metadata is None else metadata
        picture = read_picture(file, max_pixels=self.max_pixels, metadata=policy)
        _check_name(target, picture.encoding.format)
        height, width = picture.height, picture.width
        view = self.view(picture.xmp, width, height)
        found = self.detect(picture.pixels, view=view)
        decided = self.decide(found, name=file.name, width=width, height=height, view=view)
        hidden, content = self.rewrite(picture, decided, recompress=recompress)
        write_output(target, content, overwrite=overwrite)
        return AnonymizedImage(hidden, decided.detections, decided.spared, view.warning)


def _check_rgb(pixels: NDArray[Any]) -> None:
    """Refuse what is not a picture in RGB.

    Raises:
        ShapeError: If it is none.
    """
    given = getattr(pixels, "shape", None), getattr(pixels, "dtype", type(pixels).__name__)
    shape, kind = given
    if kind != np.uint8 or shape is None or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise ShapeError(f"pixels are {kind} {shape}; expected uint8 (H, W, 3), RGB, not empty")


def _check_name(target: Path, kind: str) -> None:
    """Refuse a name that promises another format than the one that is written.

    Raises:
        OutputError: If it does.
    """
    from PIL import Image

    Image.init()
    promised = Image.EXTENSION.get(target.suffix.lower(), kind)
    if promised != kind and promised in FORMATS:
        raise OutputError(
            f"{target} has a name for {promised}; the source is {kind}, and so is its result"
        )


def _generators(settings: Settings, seed: int | None) -> dict[str, FaceGenerator]:
    """Load the generator of each class that has one."""
    return {name: FaceGenerator.load(path, seed=seed) for name, path in settings.generators.items()}
