"""One picture from its bytes to its anonymized file, and what is reported of it.

Fail closed: a result appears at its output path after everything else has been done and checked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anonymization.anonymizer import Anonymizer
from anonymization.deciding import Decided
from anonymization.documents import KnownFinds
from anonymization.errors import BlurloopError
from anonymization.files import ExistsError, check_output, sha256_of_json, write_output
from anonymization.formats.picture import Picture, decode, is_lossy
from anonymization.formats.pixels import Rgb, TooLargeError
from anonymization.job.audit import (
    Visible,
    audited,
    counted,
    lowest_score,
    still_visible,
    without_copies,
)
from anonymization.job.beside import Beside, Made
from anonymization.job.inputs import Task, one_line, read_source, shown
from anonymization.job.ledger import Ledger, LedgerError, Record, is_file_of
from anonymization.job.outputs import OVERLAY, SUFFIX
from anonymization.job.results import (
    ALREADY_DONE,
    ANONYMIZED,
    FAILED,
    QUARANTINED,
    REPEATED,
    SHAPE_FLAT,
    SHAPE_WHOLE,
    TO_EDIT,
    FileResult,
    Note,
    Options,
    Processed,
)
from anonymization.job.room import room_of
from anonymization.known_regions import KnownRegions
from anonymization.panorama.gpano import ChosenProjection
from anonymization.pipeline import Budget, StoppedError


@dataclass(frozen=True)
class _Source:
    """What the ledger records of where a picture came from, and of what was done to it."""

    sha256: str
    size: int
    changed_ns: int
    work: str


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
        self._beside = Beside(anonymizer, options, ledger)
        self._thumbnails_left = _thumbnails_max() if options.contact_sheet else 0
        self._counting = threading.Lock()

    def __call__(self, loaded: tuple[Task, bytes | BlurloopError | None]) -> Processed:
        """Anonymize one task of a plan; what goes wrong is in the result."""
        task, data = loaded
        return self._guarded(task, lambda: self._to_file(task, data))

    def stream(self, task: Task, data: bytes) -> Processed:
        """Anonymize one picture into bytes; what goes wrong is in the result."""
        return self._guarded(task, lambda: self._to_bytes(task, data))

    def _guarded(self, task: Task, work: Callable[[], Processed]) -> Processed:
        start = time.monotonic()
        told = None
        try:
            done = work()
        except MemoryError:
            reason = f"{task.shown} does not fit into memory"
        except StoppedError:
            raise
        except BlurloopError as error:
            reason = one_line(_advised(error))
            if isinstance(error, ExistsError) and error.target == task.target:
                told = REPEATED
        except Exception as error:  # noqa: BLE001 - not written, listed; one picture stops no folder
            reason = one_line(f"{task.shown}: unexpected {type(error).__name__}: {error}")
        else:
            return done
        seconds = round(time.monotonic() - start, 3)
        older = [Note(text, told) for text in self._older(task)]
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
            self._beside.write(task, made, only=(TO_EDIT,))
            return _processed(made, self._result(task, made, QUARANTINED, start, output=None))
        self._beside.write(task, made)
        result = self._result(task, made, ANONYMIZED, start, output=task.target)
        return _processed(made, result, thumbnail=self._thumbnail(made), content=made.content)

    def _to_file(self, task: Task, data: bytes | BlurloopError | None) -> Processed:
        start, options = time.monotonic(), self._options
        self._go_on()
        replace = options.overwrite or options.resume
        check_output(task.file, task.target, overwrite=replace)
        if isinstance(data, BlurloopError):
            raise data
        content, changed_ns = (data, 0) if data is not None else read_source(task.source)
        sha256 = hashlib.sha256(content).hexdigest()
        source = _Source(sha256, len(content), changed_ns, self._work(task))
        same = {"source_sha256": sha256, "work": source.work}
        held, redone = None, False
        if self._ledger is not None and not options.overwrite:
            held = self._ledger.refused(task.name, **same)
        if options.resume and self._ledger is not None:
            before = self._done_before(task, self._ledger.proves(task.name, **same), held)
            if before is not None:
                return Processed(before)
            redone = self._ledger.is_of_other_work(task.name, **same)
        with self._budget.hold(room_of(content)):
            made = self._make(task, content, sha256)
            self._go_on()
            if held is not None and not made.visible:
                seen = [Visible.from_dict(one) for one in held.visible]
                made = dataclasses.replace(made, visible=seen)
            if made.visible:
                refused = self._quarantine(task, made, source, start, replace=replace)
                return _processed(made, refused, redone=redone)
            thumbnail = self._thumbnail(made)
            extras = self._beside.write(task, made)
        self._go_on()
        write_output(task.target, made.content, overwrite=replace)
        notes = self._taken_from_quarantine(task)
        notes += self._recorded(self._record(task, made, source, extras))
        notes += self._beside.left_to_edit(task, extras)
        beside = [shown(path) for path in self._beside.places(task).values()]
        result = self._result(
            task, made, ANONYMIZED, start, output=task.target, extras=beside, notes=notes
        )
        return _processed(made, result, thumbnail=thumbnail, redone=redone)

    def _done_before(
        self, task: Task, proven: Record | None, refused: Record | None
    ) -> FileResult | None:
        """Return the result of an earlier run that stands; None where the picture is to be made.

        What the audit refused stays refused: with other noise it might pass by luck. Where
        somebody moved it from quarantine to the output, that is a person's verdict.
        """
        if proven and (proven.visible or self._beside.is_intact(task, proven)):
            note = Note("the audit refused it, and somebody moved it here")
            return FileResult(
                task.shown,
                ALREADY_DONE,
                shown(task.target),
                detections=proven.detections,
                spared=proven.spared,
                notes=[note] if proven.visible else [],
            )
        where = self._options.quarantine / task.name
        if refused is None or not is_file_of(where, refused.output_sha256):
            return None
        if not self._beside.is_intact(task, refused):
            return None
        seen = [Visible.from_dict(one) for one in refused.visible]
        return FileResult(
            task.shown,
            QUARANTINED,
            shown(where),
            reason=f"{_reason(seen, where)} since an earlier run",
            detections=refused.detections,
            spared=refused.spared,
            visible=refused.visible,
            extras=[shown(path) for path in self._beside.places(task, refused=True).values()],
        )

    def _record(self, task: Task, made: Made, source: _Source, extras: dict[str, str]) -> Record:
        return Record(
            name=task.name,
            source_sha256=source.sha256,
            source_bytes=source.size,
            source_mtime_ns=source.changed_ns,
            output_sha256=hashlib.sha256(made.content).hexdigest(),
            work=source.work,
            detections=self._counts(made.decided),
            spared=self._spared(made.decided),
            extras=extras,
            visible=[one.to_dict() for one in made.visible],
        )

    def _taken_from_quarantine(self, task: Task) -> list[str]:
        """Take away what this output's runs put into quarantine of a picture that is written now.

        Nothing else: only what the ledger proves to be theirs, and no known regions that this run
        reads. Return what the operator should know of what stays.
        """
        where = self._options.quarantine / task.name
        record = None if self._ledger is None else self._ledger.last(task.name)
        if _same_file(where, task.file):
            return []
        if record is not None and record.visible:
            beside = self._options.quarantine_extras
            known = None if self._known is None else self._known.path
            kinds = [kind for kind in SUFFIX if not _same_file(beside / kind, known)]
            older = {beside / k / (task.name + SUFFIX[k]): k for k in kinds}
            proofs = {path: record.extras.get(kind) for path, kind in older.items()}
            for path, sha256 in {where: record.output_sha256, **proofs}.items():
                with contextlib.suppress(OSError):  # told of below
                    if is_file_of(path, sha256):
                        path.unlink()
        if not os.path.lexists(where):
            return []
        return [f"an older copy stays in quarantine at {shown(where)}; take it away"]

    def _make(self, task: Task, data: bytes, sha256: str) -> Made:
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
        stated = None if self._known is None else self._known.projection_of(task.name)
        view = anonymizer.view(picture.xmp, width, height, known=stated)
        finds = self._finds(task, picture, sha256, view)
        decided = anonymizer.decide(
            finds.detections,
            name=task.name,
            width=width,
            height=height,
            outlines=finds.outlines,
            view=view,
        )
        content = anonymizer.rewrite(
            picture,
            decided,
            recompress=self._options.recompress,
            keep=self._options.overlay_on_source,
        )[1]
        seen = self._seen(task, content)
        visible = [] if seen is None else self._audit(task, seen, decided, view)
        return Made(content, picture, seen, decided, visible, sha256, view)

    def _seen(self, task: Task, content: bytes) -> Rgb | None:
        """Decode the bytes that will be written where anything looks at them."""
        options = self._options
        draws = OVERLAY in options.kinds and not options.overlay_on_source
        if options.audit is None and not draws and self._thumbnails_left <= 0:
            return None
        self._go_on()
        limit = self._anonymizer.max_pixels
        return decode(content, name=f"anonymized {task.shown}", max_pixels=limit).pixels

    def _finds(
        self, task: Task, picture: Picture, sha256: str, view: ChosenProjection
    ) -> KnownFinds:
        if self._known is None:
            return KnownFinds(self._anonymizer.detect(picture.pixels, view=view, go_on=self._go_on))
        return self._known.of(
            task.name,
            self._anonymizer.taxonomy,
            width=picture.width,
            height=picture.height,
            sha256=sha256,
            projection=view.name,
            bundle=self._options.bundle,
        )

    def _audit(
        self, task: Task, seen: Rgb, decided: Decided, view: ChosenProjection
    ) -> list[Visible]:
        """Detect again in what will be written; regions spare what they spared before."""
        rule, anonymizer = self._options.audit, self._anonymizer
        if rule is None or anonymizer.detector is None:
            return []
        self._go_on()
        card = anonymizer.detector.card
        height, width = seen.shape[:2]
        least = lowest_score(card, rule)
        found = anonymizer.detect(seen, view=view, score_min=least, go_on=self._go_on)
        looked_at = anonymizer.decide(
            audited(found, card, rule, implying_head=anonymizer.implying_head),
            name=task.name,
            width=width,
            height=height,
            view=view,
        )
        visible = still_visible(
            looked_at.hidden,
            decided.hidden,
            anonymizer.taxonomy,
            height,
            width,
            rule=rule,
            mask_threshold=anonymizer.mask_threshold,
            outlines=decided.hidden_outlines,
        )
        return without_copies(visible, width)

    def _quarantine(
        self, task: Task, made: Made, source: _Source, start: float, *, replace: bool
    ) -> FileResult:
        """Write to quarantine; an older result at the output path is taken away where told to."""
        target = self._options.quarantine / task.name
        check_output(task.file, target, overwrite=replace)
        extras = self._beside.write(task, made)
        self._go_on()
        write_output(target, made.content, overwrite=replace)
        if replace:
            beside = (path for kind, path in self._beside.places(task).items() if kind != TO_EDIT)
            for older in (task.target, *beside):
                older.unlink(missing_ok=True)
        notes = self._recorded(self._record(task, made, source, extras))
        notes += self._beside.left_to_edit(task, extras)
        shown_extras = [shown(path) for path in self._beside.places(task, refused=True).values()]
        return self._result(
            task, made, QUARANTINED, start, output=target, extras=shown_extras, notes=notes
        )

    def _result(
        self,
        task: Task,
        made: Made,
        status: str,
        start: float,
        *,
        output: Path | None,
        extras: list[str] | None = None,
        notes: list[str] | None = None,
    ) -> FileResult:
        return FileResult(
            task.shown,
            status,
            output=None if output is None else shown(output),
            reason=_reason(made.visible, output) if made.visible else None,
            width=made.picture.width,
            height=made.picture.height,
            detections=self._counts(made.decided),
            spared=self._spared(made.decided),
            visible=[one.to_dict() for one in made.visible],
            extras=extras or [],
            notes=[*_notes_on(made.view), *map(Note, notes or [])],
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

    def _thumbnail(self, made: Made) -> bytes | None:
        """Return a small copy for the contact sheet, of as many pictures as it shows."""
        with self._counting:
            if made.seen is None or self._thumbnails_left <= 0:
                return None
            self._thumbnails_left -= 1
        from anonymization.job.contact_sheet import thumbnail

        return thumbnail(made.seen)

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


def _processed(
    made: Made,
    result: FileResult,
    *,
    thumbnail: bytes | None = None,
    content: bytes | None = None,
    redone: bool = False,
) -> Processed:
    panorama, lossy = made.view.projection is not None, is_lossy(made.picture.encoding)
    return Processed(result, thumbnail, content, panorama=panorama, lossy=lossy, redone=redone)


def _notes_on(view: ChosenProjection) -> list[Note]:
    if view.warning is None:
        return []
    shape = SHAPE_FLAT if view.projection is None else SHAPE_WHOLE
    return [Note(view.warning, shape if view.by_shape else None)]


def _advised(error: BlurloopError) -> str:
    """Return what an error says; what a program would pass is called as the command's option."""
    if isinstance(error, ExistsError):
        return f"{error.target} exists. --resume continues a run, --overwrite replaces it"
    if isinstance(error, TooLargeError):
        return f"{error.what}. Raise it with --max-pixels if the picture is to be trusted"
    return str(error)


def _thumbnails_max() -> int:
    from anonymization.job import contact_sheet

    return contact_sheet.PICTURES_MAX


def _same_file(path: Path, other: Path | None) -> bool:
    try:
        return other is not None and path.samefile(other)
    except OSError:
        return False


def _reason(visible: Sequence[Visible], where: Path | None) -> str:
    """Return why a picture is in quarantine, or nowhere, as on standard output."""
    place = "nothing was written" if where is None else f"in quarantine at {shown(where)}"
    return f"the audit still sees {counted(visible)}; {place}"
