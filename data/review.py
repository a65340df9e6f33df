"""Step 2: leaves out pictures of low value, each with its reasons.

Reads `artifacts/collected`; writes `artifacts/reviewed/manifest.json` and `reports/review.json`.
The measurements are CleanVision's; they are made once per picture and remembered, so that a turn
that adds ten pictures measures ten. The limits are absolute: CleanVision's own rule for odd sizes
compares a picture with all others, which would let it come and go as others are added.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from anonymization.errors import BlurloopError
from anonymization.files import read_json, write_json
from conf import stage
from data.layout import COLLECTED, MANIFEST, PICTURES, REPORTS, REVIEWED, WORK
from data.manifest import Manifest, Picture, Rejected

SCHEMA_VERSION = 1
CACHE = WORK / "review.json"
log = logging.getLogger(__name__)


class ReviewError(BlurloopError):
    """The review cannot go on."""


@dataclass(frozen=True)
class ReviewConfig:
    """Limits; a picture beyond one of them is left out. The defaults' sources: conf/review.

    Attributes:
        dark: Lowest brightness of the brightest 1 % of pixels, in [0, 1].
        light: Lowest darkness (1 - brightness) of the darkest 5 % of pixels, in [0, 1].
        blurry: Lowest CleanVision sharpness score, in [0, 1].
        low_information: Lowest tenth of the entropy in bits.
        aspect_ratio: Lowest ratio of the shorter to the longer side.
        side_min_px: Shortest side in pixels.
        side_max_px: Longest side in pixels.
        drop_near_duplicates: Whether all but the first of near-duplicates are left out. They are
            kept by default: preparation keeps them on one side, and frames of a sequence differ
            in what matters.
    """

    dark: float = 0.1
    light: float = 0.02
    blurry: float = 0.1
    low_information: float = 0.3
    aspect_ratio: float = 0.25
    side_min_px: int = 64
    side_max_px: int = 20000
    drop_near_duplicates: bool = False

    def __post_init__(self) -> None:
        for name in ("dark", "light", "blurry", "low_information", "aspect_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise ReviewError(f"review.{name} is {getattr(self, name)}; expected 0 to 1")
        if not 0 <= self.side_min_px < self.side_max_px:
            raise ReviewError(
                f"review.side_min_px {self.side_min_px} must lie below "
                f"review.side_max_px {self.side_max_px}"
            )


@dataclass(frozen=True)
class Measured:
    """CleanVision's measurements of one picture.

    Attributes:
        dark, light, blurry, low_information, aspect_ratio: Scores in [0, 1]; low is bad.
        pixels: Digest of the decoded pixels: equal for exact duplicates in different files.
        near: CleanVision's 64-bit perceptual hash: equal for near-duplicates.
    """

    dark: float
    light: float
    blurry: float
    low_information: float
    aspect_ratio: float
    pixels: str
    near: str


class Meter:
    """Measures pictures with CleanVision's own code and parameters."""

    def __init__(self) -> None:
        from cleanvision.issue_managers.image_property_issue_manager import (
            ImagePropertyIssueManager,
        )

        manager = ImagePropertyIssueManager()
        self._properties = manager.image_properties
        self._parameters = manager.params

    def measure(self, path: Path) -> Measured:
        """Measure one picture, EXIF orientation applied."""
        from cleanvision.issue_managers.duplicate_issue_manager import get_hash
        from PIL import Image

        from anonymization.formats.picture import read_picture

        image = Image.fromarray(read_picture(path).pixels)
        return Measured(
            dark=self._score("dark", image),
            light=self._score("light", image),
            blurry=self._score("blurry", image),
            low_information=self._score("low_information", image),
            aspect_ratio=self._score("odd_aspect_ratio", image),
            pixels=f"{image.size} {get_hash(image, {'hash_type': 'md5'})}",
            near=get_hash(image, {"hash_type": "phash", "hash_size": 8}),
        )

    def _score(self, issue: str, image: Any) -> float:
        import pandas

        rule = self._properties[issue]
        raw = pandas.DataFrame([rule.calculate(image)])[rule.score_columns]
        scores = rule.get_scores(raw_scores=raw, issue_type=issue, **self._parameters[issue])
        return float(scores[f"{issue}_score"].iloc[0])


def measure_all(pictures: Mapping[str, Path], cache: Path = CACHE) -> dict[str, Measured]:
    """Measure pictures by SHA-256; those measured before are not read again."""
    from importlib.metadata import version

    from tqdm import tqdm

    names = ("cleanvision", "pillow", "imagecodecs")
    made_by = ", ".join(f"{name} {version(name)}" for name in names)
    known = _read_cache(cache, made_by)
    missing = [sha256 for sha256 in pictures if sha256 not in known]
    meter = Meter() if missing else None
    for sha256 in tqdm(missing, desc="reviewing", unit="picture", mininterval=1.0, disable=None):
        known[sha256] = meter.measure(pictures[sha256])  # type: ignore[union-attr]
    if missing:
        values = {sha256: asdict(measured) for sha256, measured in known.items()}
        content = {"schema_version": SCHEMA_VERSION, "made_by": made_by, "pictures": values}
        write_json(cache, content, indent=None)
    return {sha256: known[sha256] for sha256 in pictures}


def _read_cache(cache: Path, made_by: str) -> dict[str, Measured]:
    if not cache.exists():
        return {}
    try:
        values = read_json(cache, schema_version=SCHEMA_VERSION)
        if values["made_by"] != made_by:
            return {}
        return {sha256: Measured(**found) for sha256, found in values["pictures"].items()}
    except (BlurloopError, KeyError, TypeError):
        return {}  # only a cache: a damaged one is made again


def reasons(picture: Picture, measured: Measured, config: ReviewConfig) -> list[str]:
    """Return why a picture should be left out; empty if it should not."""
    found = []
    for name in ("dark", "light", "blurry", "low_information", "aspect_ratio"):
        value, limit = getattr(measured, name), getattr(config, name)
        if value < limit:
            found.append(f"{name} {value:.3f} < {limit:g}")
    shorter, longer = sorted((picture.width, picture.height))
    if shorter < config.side_min_px:
        found.append(f"size {shorter} px < {config.side_min_px}")
    if longer > config.side_max_px:
        found.append(f"size {longer} px > {config.side_max_px}")
    return found


def judge(
    manifest: Manifest, measured: Mapping[str, Measured], config: ReviewConfig
) -> dict[str, list[str]]:
    """Return the reasons of each picture that is left out, by SHA-256.

    The first of several duplicates, by turn and SHA-256, is kept.
    """
    ordered = sorted(manifest.pictures, key=lambda p: (p.turn, p.sha256))
    found: dict[str, list[str]] = defaultdict(list)
    pixels: dict[str, str] = {}
    near: dict[str, str] = {}
    for picture in ordered:
        values = measured[picture.sha256]
        found[picture.sha256] += reasons(picture, values, config)
        if values.pixels in pixels:
            found[picture.sha256].append(f"exact_duplicate of {pixels[values.pixels]}")
        elif config.drop_near_duplicates and values.near in near:
            found[picture.sha256].append(f"near_duplicate of {near[values.near]}")
        elif not found[picture.sha256]:
            pixels[values.pixels] = picture.sha256
            near.setdefault(values.near, picture.sha256)
    return {sha256: why for sha256, why in found.items() if why}


def report(
    manifest: Manifest, measured: Mapping[str, Measured], found: Mapping[str, list[str]]
) -> dict[str, Any]:
    """Return `reports/review.json`."""
    counts = Counter(reason.split()[0] for why in found.values() for reason in why)
    near = Counter(measured[p.sha256].near for p in manifest.pictures)
    by_sha256 = {p.sha256: p for p in manifest.pictures}
    return {
        "schema_version": SCHEMA_VERSION,
        "pictures": len(manifest.pictures),
        "kept": len(manifest.pictures) - len(found),
        "rejected": len(found),
        "counts": dict(sorted(counts.items())),
        "near_duplicate_sets": sum(n > 1 for n in near.values()),
        "list": [
            {
                "sha256": sha256,
                "source": by_sha256[sha256].source,
                "origin": by_sha256[sha256].origin,
                "reasons": why,
            }
            for sha256, why in sorted(found.items())
        ],
    }


def reviewed_manifest(manifest: Manifest, found: Mapping[str, list[str]]) -> Manifest:
    """Return the manifest of what is kept; the rest is listed with its reasons."""
    kept = tuple(p for p in manifest.pictures if p.sha256 not in found)
    rejected = tuple(
        Rejected(p.source, p.origin, "; ".join(found[p.sha256]))
        for p in manifest.pictures
        if p.sha256 in found
    )
    return Manifest(kept, rejected)


@stage
def main(review: ReviewConfig) -> None:
    """Review the collected pictures."""
    manifest = Manifest.read(COLLECTED / MANIFEST)
    measured = measure_all({p.sha256: PICTURES / p.file_name for p in manifest.pictures})
    found = judge(manifest, measured, review)
    if len(found) == len(manifest.pictures):
        raise ReviewError("every picture was rejected; see the limits in conf/review")
    reviewed_manifest(manifest, found).write(REVIEWED / MANIFEST)
    result = report(manifest, measured, found)
    write_json(REPORTS / "review.json", result)
    counts = ", ".join(f"{name} {n}" for name, n in result["counts"].items()) or "none"
    log.info("%d of %d pictures kept; left out: %s", result["kept"], result["pictures"], counts)


if __name__ == "__main__":
    main()
