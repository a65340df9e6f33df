"""The manifest: one record for each collected picture, and the reason for each one left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from anonymization.errors import BlurloopError
from anonymization.files import read_json, write_json

SCHEMA_VERSION = 1
PROJECTIONS = ("perspective", "equirectangular", "fisheye")


class ManifestError(BlurloopError):
    """A manifest record is wrong."""


@dataclass(frozen=True)
class Picture:
    """One picture, identified by the SHA-256 of its bytes.

    Attributes:
        sha256: 64 hexadecimal digits.
        file_name: `<sha256>.<extension>`, inside `artifacts/collected/pictures`.
        width: Pixels, after EXIF orientation is applied.
        height: Pixels, after EXIF orientation is applied.
        source: Identity of the source (DESIGN section 5); reference sets are released per source.
        origin: Path inside its source.
        turn: Number of the collection that first brought it in, from 0.
        camera, sequence, frame, time, latitude, longitude, projection, licence, retain_until:
            What the source knows; None where it does not. `time` and `retain_until` are ISO 8601.
        attributes: Any further field (weather, `daylight`, ...), usable as an evaluation slice.
    """

    sha256: str
    file_name: str
    width: int
    height: int
    source: str
    origin: str
    turn: int = 0
    camera: str | None = None
    sequence: str | None = None
    frame: int | None = None
    time: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    projection: str = "perspective"
    licence: str | None = None
    retain_until: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.sha256) != 64:
            raise ManifestError(f"picture {self.origin}: sha256 {self.sha256!r} is not 64 digits")
        if self.width < 1 or self.height < 1:
            raise ManifestError(f"picture {self.origin}: size {self.width}x{self.height} is empty")
        if self.projection not in PROJECTIONS:
            raise ManifestError(
                f"picture {self.origin}: projection {self.projection!r}; "
                f"expected one of {', '.join(PROJECTIONS)}"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Picture:
        """Build from one JSON record.

        Raises:
            ManifestError: If a key is unknown or missing, or a value is out of range.
        """
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise ManifestError(f"picture {values.get('origin')}: unknown {sorted(unknown)}")
        try:
            return cls(**values)
        except TypeError as error:
            raise ManifestError(f"picture {values.get('origin')}: {error}") from error


@dataclass(frozen=True)
class Rejected:
    """A picture that was left out, and why."""

    source: str
    origin: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """All pictures of a state of the loop, sorted by turn and SHA-256."""

    pictures: tuple[Picture, ...]
    rejected: tuple[Rejected, ...] = ()

    def write(self, path: Path) -> None:
        """Write as JSON, sorted, so that equal manifests are equal files."""
        write_json(
            path,
            {
                "schema_version": SCHEMA_VERSION,
                "pictures": [
                    asdict(p) for p in sorted(self.pictures, key=lambda p: (p.turn, p.sha256))
                ],
                "rejected": [
                    asdict(r) for r in sorted(self.rejected, key=lambda r: (r.source, r.origin))
                ],
            },
        )

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read and check a manifest.

        Raises:
            ManifestError: If a record is wrong or a picture is listed twice.
        """
        values = read_json(path, schema_version=SCHEMA_VERSION)
        pictures = tuple(Picture.from_dict(p) for p in values["pictures"])
        if len({p.sha256 for p in pictures}) != len(pictures):
            raise ManifestError(f"{path} lists a picture twice; run the collection again")
        return cls(pictures, tuple(Rejected(**r) for r in values["rejected"]))
