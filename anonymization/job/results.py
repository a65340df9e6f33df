"""How pictures are worked on, and what becomes of each; for the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anonymization.formats.metadata import MetadataPolicy
from anonymization.job.audit import AuditRule

ANONYMIZED, ALREADY_DONE, QUARANTINED = "anonymized", "already_done", "quarantined"
FAILED, SKIPPED = "failed", "skipped"
TO_EDIT = "to_edit"
"""The detections file of `--write-detections`, apart from the one among the extras."""

SHAPE_FLAT, SHAPE_WHOLE, REPEATED = "shape_flat", "shape_whole", "repeated"
"""Kinds of notes that are not said of each file by itself: looked at as flat, or as a whole
panorama, for a 2:1 shape alone, which is said once of all; and what the reason says too."""

STATUSES = (ANONYMIZED, ALREADY_DONE, QUARANTINED, FAILED, SKIPPED)


@dataclass(frozen=True)
class Options:
    """How pictures are worked on.

    Attributes:
        overwrite: Replace results that are there.
        resume: Skip what the ledger proves done; redo and replace everything else.
        work: Digest of all settings that decide what a result looks like.
        bundle: Digest of the bundle, for detections files.
        metadata: Which groups of metadata stay.
        recompress: Quality in which a lossy picture is encoded whole; None changes only what was
            obscured.
        audit: How strictly to look again at what is written; None does not.
        quarantine: Where pictures go that the audit refuses.
        quarantine_extras: Where goes what is written beside those.
        write_detections: Folder for detections files; None writes none.
        extras: Folder for what is written beside the pictures; None writes none.
        kinds: Which of `outputs.EXTRAS` go there.
        mask_scale: Factor on the sides of masks.
        overlay_on_source: Draw overlays on the un-anonymized picture.
        contact_sheet: Keep small copies of as many anonymized pictures as one shows.
    """

    overwrite: bool = False
    resume: bool = False
    work: str = ""
    bundle: str | None = None
    metadata: MetadataPolicy = field(default_factory=MetadataPolicy)
    recompress: int | None = None
    audit: AuditRule | None = None
    quarantine: Path = Path("quarantine")
    quarantine_extras: Path = Path("quarantine-extras")
    write_detections: Path | None = None
    extras: Path | None = None
    kinds: tuple[str, ...] = ()
    mask_scale: float = 1.0
    overlay_on_source: bool = False
    contact_sheet: bool = False


@dataclass(frozen=True)
class Note:
    """What the operator should know of a file besides.

    Attributes:
        text: One line, for the report.
        kind: `SHAPE_FLAT`, `SHAPE_WHOLE`, `REPEATED`, or None.
    """

    text: str
    kind: str | None = None


@dataclass(frozen=True)
class FileResult:
    """What became of one file; one entry of the report.

    Attributes:
        input: The file.
        status: One of `STATUSES`.
        output: Where the result is, also in quarantine.
        reason: Why there is none, or why it is in quarantine.
        width: Columns of the upright picture.
        height: Rows of it.
        detections: Number of finds per class.
        spared: Finds that a region left as they were.
        visible: What the audit still saw.
        extras: Files written beside it.
        notes: What the operator should know besides.
        seconds: How long it took.
    """

    input: str
    status: str
    output: str | None = None
    reason: str | None = None
    width: int | None = None
    height: int | None = None
    detections: dict[str, int] = field(default_factory=dict)
    spared: list[dict[str, Any]] = field(default_factory=list)
    visible: list[dict[str, Any]] = field(default_factory=list)
    extras: list[str] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def line(self) -> str:
        """Status and reason for the terminal, with the file's name once, before the reason."""
        reason = self.reason or ""
        named = reason if reason.startswith(self.input) else f"{self.input}: {reason}"
        return f"{self.status}: {named}"


@dataclass(frozen=True)
class Processed:
    """A result and what is kept of the picture until the end of the run.

    Attributes:
        result: For the report.
        thumbnail: Small JPEG of the anonymized picture, where a contact sheet shows it.
        content: The anonymized file's bytes, where they were not written to a file.
        panorama: Whether it was looked at as a panorama or fisheye; False where nothing was made.
        lossy: Whether its file is of a lossy format; False where nothing was made.
        redone: Whether `--resume` found a result that is proven but for options, model or code.
    """

    result: FileResult
    thumbnail: bytes | None = None
    content: bytes | None = None
    panorama: bool = False
    lossy: bool = False
    redone: bool = False
