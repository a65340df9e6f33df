"""What evaluation remembers of each object and each find: flat rows, from which metrics follow."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from anonymization.panorama.projection import Equirectangular
from evaluation.measures.utility import Kept

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class ObjectRow:
    """One true object, judged at the shipped thresholds.

    Attributes:
        sha256: Its picture.
        class_name: Its class.
        annotation_id: Its annotation.
        cluster: Group of pictures that stand or fall together.
        box_xyxy: Its labelled box, picture pixels; beyond the width across a panorama's seam.
        counted: Whether it is identifiable and no crowd.
        crowd: Whether it is a crowd.
        side_px: Side that the size rule measures.
        detected_at: Highest threshold at which it is detected; None where it never is.
        detected: Whether it is at the shipped threshold.
        share: Share of its pixels that the regions hide.
        written_share: Share of its pixels that the written file hides; None where not checked.
        covered: Whether both shares suffice.
    """

    sha256: str
    class_name: str
    annotation_id: int
    cluster: str
    box_xyxy: Box
    counted: bool
    crowd: bool
    side_px: float
    detected_at: float | None
    detected: bool
    share: float
    written_share: float | None
    covered: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, the class under `class`."""
        values = asdict(self)
        values["class"] = values.pop("class_name")
        values["box_xyxy"] = list(self.box_xyxy)
        return values


@dataclass(frozen=True)
class FindRow:
    """One find.

    Attributes:
        sha256: Its picture.
        class_name: Its class.
        score: In [0, 1].
        box_xyxy: Picture pixels.
        source: Signal that made it.
        state: RIGHT, WRONG or NEITHER (evaluation/matching.py).
    """

    sha256: str
    class_name: str
    score: float
    box_xyxy: Box
    source: str
    state: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, the class under `class`."""
        values = asdict(self)
        values["class"] = values.pop("class_name")
        values["box_xyxy"] = list(self.box_xyxy)
        return values


@dataclass(frozen=True)
class PictureRow:
    """One picture.

    Attributes:
        sha256: The picture.
        labelled: Classes of which every object is labelled.
        background_px: Pixels in no true object; None where that cannot be known.
        background_hidden_px: Those of them that are fully obscured; None likewise.
        panorama: How it is projected; None for a flat picture.
        kept: What the written file keeps outside of true objects; None where that cannot be known.
    """

    sha256: str
    labelled: frozenset[str]
    background_px: int | None
    background_hidden_px: int | None
    panorama: Equirectangular | None = None
    kept: Kept | None = None
