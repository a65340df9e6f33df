"""What collection asks of a source, and what a source answers.

A source lists its entries cheaply (`survey`, `entries`) and gives one picture at a time (`read`).
A new kind of source is one file with a class of these four methods and a line in `opening.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from anonymization.errors import BlurloopError


class SourceError(BlurloopError):
    """A source cannot be opened or listed; the message names it and what to set."""


class UnreadableEntryError(BlurloopError):
    """One entry of a source has no usable picture; it is listed with this reason and left out."""


@dataclass(frozen=True)
class Entry:
    """One picture that a source offers.

    Attributes:
        origin: Path inside its source, unique there.
        key: SHA-256 of the picture's bytes where the source knows it, else any shorter text that
            changes when the bytes would: an entry with the same key is not read again.
        labels_key: The same for the labels that come with it.
    """

    origin: str
    key: str
    labels_key: str = ""


@dataclass(frozen=True)
class LabelledObject:
    """One object as its source labels it, before the taxonomy maps the label.

    Attributes:
        label: The source's own word (`car`).
        box_xyxy: Absolute pixels of the displayed picture, half-open.
        segmentation: COCO polygons, COCO RLE with text `counts`, or None.
        keypoints: COCO's flat list of 51 numbers, or None.
        crowd: Whether the region holds several objects.
        attributes: Anything else the source knows of the object.
    """

    label: str
    box_xyxy: tuple[float, float, float, float]
    segmentation: list[list[float]] | dict[str, Any] | None = None
    keypoints: list[float] | None = None
    crowd: bool = False
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Labels:
    """The labels that came with one picture, in the source's own words.

    Attributes:
        objects: The labelled objects.
        labelled: Labels of which every object in the picture is labelled.
        partial: Labels of which only some objects are.
        keypoints_labelled: Whether persons have keypoints.
        problems: What was wrong with annotations that had to be left out, each named.
    """

    objects: tuple[LabelledObject, ...] = ()
    labelled: tuple[str, ...] = ()
    partial: tuple[str, ...] = ()
    keypoints_labelled: bool = False
    problems: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Labels:
        """Build from what `to_dict` returned, read back from JSON."""
        plain = dict(values)
        objects = tuple(
            LabelledObject(**{**o, "box_xyxy": tuple(o["box_xyxy"])}) for o in plain.pop("objects")
        )
        for name in ("labelled", "partial", "problems"):
            plain[name] = tuple(plain[name])
        return cls(objects=objects, **plain)


@dataclass(frozen=True)
class Found:
    """What reading one entry gave.

    Attributes:
        content: The picture file's bytes.
        fields: Manifest fields that the source knows (`camera`, `sequence`, `attributes`, ...).
        labels: The labels that came with it.
        size: Displayed width and height that the labels refer to, or None where unknown.
    """

    content: bytes
    fields: dict[str, Any] = field(default_factory=dict)
    labels: Labels = field(default_factory=Labels)
    size: tuple[int, int] | None = None


class Source(Protocol):
    """A place that pictures come from."""

    @property
    def id(self) -> str:
        """Identity: reference sets are released per source id, so it must not change."""

    def survey(self) -> dict[str, Any]:
        """Return plain facts that change whenever anything in the source does."""

    def entries(self, surveyed: Mapping[str, Any]) -> list[Entry]:
        """Return the entries of a survey, in an order that is quick to read."""

    def part(self, entries: Sequence[Entry]) -> Source:
        """Return a source that is quick to pickle and can read these entries at least."""

    def read(self, entry: Entry) -> Found:
        """Read one entry.

        Raises:
            UnreadableEntryError: If its bytes cannot be had.
        """
