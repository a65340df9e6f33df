"""One picture from its bytes to its anonymized file, and what is reported of it.

Fail closed: a result appears at its output path after everything else has been done and checked.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anonymization.anonymizer import Anonymizer, Decided
from anonymization.documents import KnownFinds, document_text, finds_to_document
from anonymization.errors import BlurloopError
from anonymization.files import check_output, sha256_of_file, sha256_of_json, write_output
from anonymization.formats.picture import Picture, decode, encode
from anonymization.job.audit import Visible, audited, lowest_score, still_visible
from anonymization.job.inputs import Task, one_line, pixels_in, read_source, shown
from anonymization.job.ledger import Ledger, LedgerError, Record
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
from anonymization.job.results import (
    ALREADY_DONE,
    ANONYMIZED,
    FAILED,
    QUARANTINED,
    TO_EDIT,
    FileResult,
    Options,
    Processed,
)
from anonymization.known_regions import KnownRegions
from anonymization.obscuring.region import Region, hidden_parts
from anonymization.panorama.gpano import ChosenProjection
from anonymization.panorama.projection import Equirectangular
from anonymization.pipeline import Budget, StoppedError


@dataclass(frozen=True)
class _Made:
    """An anonymized picture that is not written yet."""

    content: bytes
    picture: Picture
    decided: Decided
    visible: list[Visible]
    sha256: str
    note: str | None


class Processor:
    """Works on one picture after the other; safe to call from several threads."""

    def __init__(
        self,
        anonymizer: Anonymizer,
        options: Options,
        *,
        stop: threading.Event,
        budget: Budget,
        known: KnownRegions | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        """Use an anonymizer, or known regions instead of its network."""
        self._anonymizer = anonymizer
        self._options = options
        self._stop = stop
        self._budget = budget
        self._known = known
        self._ledger = ledger

    def __call__(self, loaded: tuple[Task, bytes | BlurloopError | None]) -> Processed:
        """Anonymize one task of a plan; what goes wrong is in the result."""
        task, data = loaded
        return self._guarded(task, lambda: self._to_file(task, data))

    def stream(self, task: Task, data: bytes) -> Processed:
        """Anonymize one picture into bytes; what goes wrong is in the result."""
        return self._guarded(task, lambda: self._to_bytes(task, data))

    def _guarded(self, task: Task, work: Callable[[], Processed]) -> Processed:
        start = time.monotonic()
        try:
            done = work()
        except MemoryError:
            reason = f"{task.shown} does not fit into memory"
        except StoppedError:
            raise
        except BlurloopError as error:
            reason = one_line(str(error))
        except Exception as error:  # noqa: BLE001 - not written, listed; one picture stops no folder
            reason = one_line(f"{task.shown}: unexpected {type(error).__name__}: {error}")
        else:
            return done
        seconds = round(time.monotonic() - start, 3)
        older = self._older(task)
        return Processed(FileResult(task.shown, FAILED, None, reason, notes=older, seconds=seconds))

    def _older(self, task: Task) -> list[str]:
        """Return what the operator should know of a result that this run did not write."""
        if self._ledger is None or not os.path.lexists(task.target):
            return []
        return [f"an older file is still at {shown(task.target)}; this run did not write it"]

    def _to_bytes(self, task: Task, data: bytes) -> Processed:
        start = time.monotonic()
        made = self._make(task, data, hashlib.sha256(data).hexdigest())
        if made.visible:
            return Processed(self._result(task, made, QUARANTINED, start))
        self._write_extras(task, made)
        return Processed(self._result(task, made, ANONYMIZED, start), content=made.content)

    def _to_file(self, task: Task, data: bytes | BlurloopError | None) -> Processed:
        start, options = time.monotonic(), self._options
        self._go_on()
        replace = options.overwrite or options.resume
        check_output(task.file, task.target, overwrite=replace)
        if isinstance(data, BlurloopError):
            raise data
        content, changed_ns = (data, 0) if data is not None else read_source(task.source)
        sha256 = hashlib.sha256(content).hexdigest()
        work = self._work(task)
        if options.resume and self._ledger is not None:
            record = self._ledger.proves(task.name, source_sha256=sha256, work=work)
            if record and self._extras_intact(task, record):
                done = FileResult(task.shown, ALREADY_DONE, shown(task.target))
                found, spared = record.detections, record.spared
                return Processed(dataclasses.replace(done, detections=found, spared=spared))
        with self._budget.hold(pixels_in(content)):
            made = self._make(task, content, sha256)
            self._go_on()
            if made.visible:
                return self._quarantine(task, made, start, replace=replace)
            thumbnail = self._thumbnail(made)
            extras = self._write_extras(task, made)
        self._go_on()
        write_output(task.target, made.content, overwrite=replace)
        record = Record(
            name=task.name,
            source_sha256=sha256,
            source_bytes=len(content),
            source_mtime_ns=changed_ns,
            output_sha256=hashlib.sha256(made.content).hexdigest(),
            work=work,
            detections=self._counts(made.decided),
            spared=self._spared(made.decided),
            extras=extras,
        )
        notes = self._recorded(record)
        if TO_EDIT in self._extras(task) and TO_EDIT not in extras:
            path = shown(self._extras(task)[TO_EDIT])
            notes.append(
                f"{path} was edited, or is of another run, and stays; --overwrite replaces it"
            )
        beside = [shown(path) for path in self._extras(task).values()]
        result = self._result(task, made, ANONYMIZED, start, extras=beside, notes=notes)
        return Processed(result, thumbnail)

    def _make(self, task: Task, data: bytes, sha256: str) -> _Made:
        """Decode, detect, decide, obscure, encode and look again."""
        anonymizer = self._anonymizer
        picture = decode(
            data,
            name=task.shown,
            max_pixels=anonymizer.max_pixels,
            metadata=self._options.metadata,
        )
        self._go_on()
        width, height = picture.width, picture.height
        view = anonymizer.view(picture.xmp, width, height)
        finds = self._finds(task, picture, sha256, view)
        decided = anonymizer.decide(
            finds.detections,
            name=task.name,
            width=width,
            height=height,
            outlines=finds.outlines,
            view=view,
        )
        regions: list[Region] = []
        hidden = anonymizer.hide(
            picture.native,
            decided,
            cmyk=picture.encoding.mode.startswith("CMYK"),
            regions=regions,
        )
        content = encode(
            picture, hidden, recompress=self._options.recompress, hidden=hidden_parts(regions)
        )
        visible = self._audit(task, content, decided, view)
        return _Made(content, picture, decided, visible, sha256, view.warning)

    def _finds(
        self, task: Task, picture: Picture, sha256: str, view: ChosenProjection
    ) -> KnownFinds:
        if self._known is None:
            return KnownFinds(self._anonymizer.detect(picture.pixels, view=view))
        return self._known.of(
            task.name,
            self._anonymizer.taxonomy,
            width=picture.width,
            height=picture.height,
            sha256=sha256,
            wraps=isinstance(view.projection, Equirectangular),
            bundle=self._options.bundle,
        )

    def _audit(
        self, task: Task, content: bytes, decided: Decided, view: ChosenProjection
    ) -> list[Visible]:
        """Detect again in the bytes that will be written; regions spare what they spared before."""
        rule, anonymizer = self._options.audit, self._anonymizer
        if rule is None or anonymizer.detector is None:
            return []
        self._go_on()
        card = anonymizer.detector.card
        again = decode(content, name=f"anonymized {task.shown}", max_pixels=anonymizer.max_pixels)
        found = anonymizer.detect(again.pixels, view=view, score_min=lowest_score(card, rule))
        looked_at = anonymizer.decide(
            audited(found, card, rule, implying_head=anonymizer.implying_head),
            name=task.name,
            width=again.width,
            height=again.height,
            view=view,
        )
        return still_visible(
            looked_at.hidden,
            decided.hidden,
            anonymizer.taxonomy,
            again.height,
            again.width,
            rule=rule,
            mask_threshold=anonymizer.mask_threshold,
            outlines=decided.hidden_outlines,
        )

    def _quarantine(self, task: Task, made: _Made, start: float, *, replace: bool) -> Processed:
        """Write to quarantine; an older result at the output path is taken away where told to."""
        target = self._options.quarantine / task.name
        check_output(task.file, target, overwrite=replace)
        write_output(target, made.content, overwrite=replace)
        if replace:
            beside = (path for kind, path in self._extras(task).items() if kind != TO_EDIT)
            for older in (task.target, *beside):
                older.unlink(missing_ok=True)
        return Processed(self._result(task, made, QUARANTINED, start, output=target))

    def _result(
        self,
        task: Task,
        made: _Made,
        status: str,
        start: float,
        *,
        output: Path | None = None,
        extras: list[str] | None = None,
        notes: list[str] | None = None,
    ) -> FileResult:
        visible = len(made.visible)
        return FileResult(
            task.shown,
            status,
            output=shown(output or task.target),
            reason=f"the audit still sees {visible} objects" if visible else None,
            width=made.picture.width,
            height=made.picture.height,
            detections=self._counts(made.decided),
            spared=self._spared(made.decided),
            visible=[one.to_dict() for one in made.visible],
            extras=extras or [],
            notes=[*([made.note] if made.note else []), *(notes or [])],
            seconds=round(time.monotonic() - start, 3),
        )

    def _spared(self, decided: Decided) -> list[dict[str, Any]]:
        """Return what regions spared, for the report."""
        names, finds = self._anonymizer.taxonomy.names, decided.detections
        return [
            {
                "class": names[int(finds.class_ids[one.index])],
                "score": round(float(finds.scores[one.index]), 4),
                "box": [round(float(v), 1) for v in finds.boxes_xyxy[one.index]],
                "region": one.region,
                "kind": one.kind,
            }
            for one in decided.spared
        ]

    def _counts(self, decided: Decided) -> dict[str, int]:
        names = self._anonymizer.taxonomy.names
        counts = Counter(names[int(i)] for i in decided.detections.class_ids)
        return dict(sorted(counts.items()))

    def _extras(self, task: Task) -> dict[str, Path]:
        """Return where each thing beside the picture goes."""
        options = self._options
        where = {}
        if options.extras is not None:
            for kind in options.kinds:
                where[kind] = options.extras / kind / (task.name + SUFFIX[kind])
        if options.write_detections is not None:
            where[TO_EDIT] = options.write_detections / (task.name + SUFFIX[DETECTIONS])
        return where

    def _extras_intact(self, task: Task, record: Record) -> bool:
        """Tell whether what lies beside a picture is what the recorded run wrote there.

        Known regions that are written to be edited may be another's work by now.
        """
        try:
            return all(
                path.is_file()
                and (kind == TO_EDIT or sha256_of_file(path) == record.extras.get(kind))
                for kind, path in self._extras(task).items()
            )
        except OSError:
            return False

    def _write_extras(self, task: Task, made: _Made) -> dict[str, str]:
        """Write what goes beside the picture; return the SHA-256 of each kind."""
        replace = self._options.overwrite or self._options.resume
        written = {}
        for kind, target in self._extras(task).items():
            if kind == TO_EDIT and self._is_edited(task, target):
                continue
            check_output(task.file, target, overwrite=replace)
            content = self._extra(kind, task, made)
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

    def _extra(self, kind: str, task: Task, made: _Made) -> bytes:
        anonymizer, decided = self._anonymizer, made.decided
        height, width = made.picture.height, made.picture.width
        threshold = anonymizer.mask_threshold
        if kind in (DETECTIONS, TO_EDIT):
            return self._detections_json(task, made)
        if kind == INSTANCES:
            numbers = instance_mask(
                decided.drawn,
                anonymizer.taxonomy,
                height,
                width,
                numbers=decided.owners + 1,
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

    def _overlay(self, made: _Made) -> bytes:
        on_source = self._options.overlay_on_source
        pixels = made.picture.pixels if on_source else self._decoded(made).pixels
        drawn = overlay(
            pixels,
            made.decided.drawn,
            self._anonymizer.taxonomy,
            numbers=made.decided.owners + 1,
            spared={one.index: one.region for one in made.decided.spared},
            mask_threshold=self._anonymizer.mask_threshold,
            outlines=made.decided.outlines,
        )
        return overlay_jpeg(drawn)

    def _decoded(self, made: _Made) -> Picture:
        limit = self._anonymizer.max_pixels
        return decode(made.content, name="anonymized picture", max_pixels=limit)

    def _thumbnail(self, made: _Made) -> bytes | None:
        if not self._options.contact_sheet:
            return None
        from anonymization.job.contact_sheet import thumbnail

        return thumbnail(self._decoded(made).pixels)

    def _detections_json(self, task: Task, made: _Made) -> bytes:
        document = finds_to_document(
            KnownFinds(made.decided.detections, made.decided.outlines),
            self._anonymizer.taxonomy,
            name=task.name,
            width=made.picture.width,
            height=made.picture.height,
            sha256=made.sha256,
            bundle=self._options.bundle,
            mask_threshold=self._anonymizer.mask_threshold,
            spared={one.index: one.region for one in made.decided.spared},
        )
        return document_text(document).encode()

    def _work(self, task: Task) -> str:
        """Return the digest of everything that decides what this picture's result looks like."""
        if self._known is None:
            return self._options.work
        return sha256_of_json([self._options.work, self._known.digest_of(task.name)])

    def _recorded(self, record: Record) -> list[str]:
        """Write a line into the ledger; return what the operator should know where it fails."""
        if self._ledger is None:
            return []
        try:
            self._ledger.add(record)
        except LedgerError as error:
            return [f"{error}; --resume will do this picture again"]
        return []

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise StoppedError("interrupted before it was done; not written")
