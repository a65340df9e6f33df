"""What one run writes beside a picture: documents to edit, masks, overlays.

Beside a picture that the audit refused, all of it but the document to edit goes to a folder of its
own: overlays show what is still visible there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anonymization.anonymizer import Anonymizer, Decided
from anonymization.detection.finds import Detections
from anonymization.documents import KnownFinds, document_text, finds_to_document
from anonymization.files import check_output, sha256_of_file, write_output
from anonymization.formats.picture import Picture
from anonymization.formats.pixels import Rgb
from anonymization.job.audit import Visible, visible_finds
from anonymization.job.inputs import Task, shown
from anonymization.job.ledger import Ledger, Record
from anonymization.job.outputs import (
    DETECTIONS,
    INSTANCES,
    MASK,
    SUFFIX,
    binary_mask,
    instance_mask,
    overlay,
    overlay_jpeg,
    scaled_png,
)
from anonymization.job.results import TO_EDIT, Options
from anonymization.panorama.gpano import ChosenProjection


@dataclass(frozen=True)
class Made:
    """An anonymized picture that is not written yet.

    Attributes:
        content: Bytes of its file.
        picture: What it was made from.
        seen: RGB of its file as who reads it sees it, uint8 (H, W, 3), decoded once for all that
            look at it; None where nothing does.
        decided: What was found and hidden.
        visible: What the audit still sees.
        sha256: Of the source's file.
        view: How the picture was looked at.
    """

    content: bytes
    picture: Picture
    seen: Rgb | None
    decided: Decided
    visible: list[Visible]
    sha256: str
    view: ChosenProjection


class Beside:
    """Writes what a run asks for beside its pictures; safe to call from several threads."""

    def __init__(self, anonymizer: Anonymizer, options: Options, ledger: Ledger | None) -> None:
        """Draw as an anonymizer hides; a ledger tells what somebody has edited since."""
        self._anonymizer = anonymizer
        self._options = options
        self._ledger = ledger

    def places(self, task: Task, *, refused: bool = False) -> dict[str, Path]:
        """Return where each thing beside the picture goes.

        Beside one that the audit refused, overlays show what is still visible: they keep away
        from those of pictures that passed. Known regions to edit are coordinates alone.
        """
        options = self._options
        where = {}
        if options.extras is not None:
            folder = options.quarantine_extras if refused else options.extras
            for kind in options.kinds:
                where[kind] = folder / kind / (task.name + SUFFIX[kind])
        if options.write_detections is not None:
            where[TO_EDIT] = options.write_detections / (task.name + SUFFIX[DETECTIONS])
        return where

    def is_intact(self, task: Task, record: Record) -> bool:
        """Tell whether what lies beside a picture is what the recorded run wrote there.

        Known regions that are written to be edited may be another's work by now.
        """
        try:
            return all(
                path.is_file()
                and (kind == TO_EDIT or sha256_of_file(path) == record.extras.get(kind))
                for kind, path in self.places(task, refused=bool(record.visible)).items()
            )
        except OSError:
            return False

    def write(
        self, task: Task, made: Made, *, only: Collection[str] | None = None
    ) -> dict[str, str]:
        """Write what goes beside the picture, or some kinds of it; return the SHA-256 of each."""
        replace = self._options.overwrite or self._options.resume
        written = {}
        for kind, target in self.places(task, refused=bool(made.visible)).items():
            if only is not None and kind not in only:
                continue
            if kind == TO_EDIT and self._is_edited(task, target):
                continue
            check_output(task.file, target, overwrite=replace)
            content = self._content(kind, task, made)
            write_output(target, content, overwrite=replace)
            written[kind] = hashlib.sha256(content).hexdigest()
        return written

    def _is_edited(self, task: Task, path: Path) -> bool:
        """Tell whether known regions are not as the recorded run wrote them, and are kept.

        Where no run is recorded, too: nobody knows whose work they are.
        """
        if self._options.overwrite or self._ledger is None or not path.is_file():
            return False
        record = self._ledger.last(task.name)
        return record is None or sha256_of_file(path) != record.extras.get(TO_EDIT)

    def _content(self, kind: str, task: Task, made: Made) -> bytes:
        anonymizer, decided = self._anonymizer, made.decided
        height, width = made.picture.height, made.picture.width
        threshold = anonymizer.mask_threshold
        if kind in (DETECTIONS, TO_EDIT):
            return self._detections_json(task, made)
        if kind == INSTANCES:
            drawn, given = self._drawn(made)
            numbers = instance_mask(
                drawn,
                anonymizer.taxonomy,
                height,
                width,
                numbers=given,
                mask_threshold=threshold,
                outlines=decided.outlines,
            )
            return scaled_png(numbers, self._options.mask_scale)
        if kind == MASK:
            mask = binary_mask(
                decided.hidden,
                anonymizer.taxonomy,
                height,
                width,
                mask_threshold=threshold,
                outlines=decided.hidden_outlines,
            )
            return scaled_png(mask, self._options.mask_scale)
        return self._overlay(made)

    def _drawn(self, made: Made) -> tuple[Detections, NDArray[np.int64]]:
        """Return what is drawn beside the picture, what the audit still sees last, and its numbers.

        Numbers are those of the document: both sides of a find across the seam have one.
        """
        decided = made.decided
        seen = visible_finds(made.visible, self._anonymizer.taxonomy)
        first = len(decided.detections) + 1
        numbers = np.concatenate([decided.owners + 1, np.arange(first, first + len(seen))])
        return Detections.concatenate([decided.drawn, seen]), numbers

    def _overlay(self, made: Made) -> bytes:
        pixels = made.picture.pixels if self._options.overlay_on_source else made.seen
        assert pixels is not None
        finds, numbers = self._drawn(made)
        drawn = overlay(
            pixels,
            finds,
            self._anonymizer.taxonomy,
            numbers=numbers,
            spared={one.index: one.region for one in made.decided.spared},
            visible=range(len(made.decided.drawn), len(finds)),
            mask_threshold=self._anonymizer.mask_threshold,
            outlines=made.decided.outlines,
        )
        return overlay_jpeg(drawn)

    def _detections_json(self, task: Task, made: Made) -> bytes:
        """Return the document; what the audit still sees stands last in it, as finds to accept."""
        taxonomy, found = self._anonymizer.taxonomy, made.decided.detections
        finds = Detections.concatenate([found, visible_finds(made.visible, taxonomy)])
        own = {i: outline for i, outline in made.decided.outlines.items() if i < len(found)}
        document = finds_to_document(
            KnownFinds(finds, own),
            taxonomy,
            name=task.name,
            width=made.picture.width,
            height=made.picture.height,
            sha256=made.sha256,
            projection=made.view.name,
            bundle=self._options.bundle,
            mask_threshold=self._anonymizer.mask_threshold,
            spared={one.index: one.region for one in made.decided.spared},
        )
        return document_text(document).encode()

    def left_to_edit(self, task: Task, extras: dict[str, str]) -> list[str]:
        """Return what the operator should know of known regions that were not written."""
        path = self.places(task).get(TO_EDIT)
        if path is None or TO_EDIT in extras:
            return []
        stays = "was edited, or is of another run, and stays; --overwrite replaces it"
        return [f"{shown(path)} {stays}"]
