"""A run of `anonymize`: plan, pictures, report; and its exit code.

Exit codes: 0 everything is done; 1 some picture failed; 2 the command was wrong; 3 nothing failed
but the audit put some picture into quarantine; 128 + n ended by signal n.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from anonymization.errors import BlurloopError
from anonymization.job.inputs import STREAM, Plan, Task, check_there, kinds_of, make_plan, one_line
from anonymization.job.interruption import Interruption
from anonymization.job.options import Job, UsageError, check

if TYPE_CHECKING:
    from anonymization.anonymizer import Anonymizer
    from anonymization.bundle import Bundle
    from anonymization.card import TilingCard
    from anonymization.job.processing import Processor
    from anonymization.job.results import FileResult, Processed
    from anonymization.pipeline import Cores
    from anonymization.regions import Regions


def run(job: Job) -> int:
    """Do a job; return the exit code.

    Raises:
        BlurloopError: If nothing can be done, in one line that says why.
    """
    from anonymization.formats.picture import SUFFIXES
    from anonymization.job.places import check_places, check_writable_folders, own_folders
    from anonymization.job.report import ReportError, check_writable
    from anonymization.memory import keep_freed_memory

    keep_freed_memory()
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    clock = time.monotonic()
    check(job)
    plan = (
        _stream_plan(job)
        if job.is_stream
        else make_plan(
            job.inputs,
            job.output,
            suffixes=SUFFIXES,
            recursive=job.recursive,
            leave_out=own_folders(job),
        )
    )
    check_places(job, plan)
    for path in filter(None, (job.report, job.report_html)):
        check_writable(path)
    check_writable_folders(job)
    bundle = _bundle(job)
    from anonymization.pipeline import Cores
    from anonymization.regions import Regions

    regions = Regions.read(job.regions) if job.regions is not None else Regions()
    cores = Cores.between(job.workers, job.threads, len(plan.tasks))
    anonymizer = _anonymizer(job, bundle, regions, cores)
    # As the anonymizer reads them: warnings and reports name no aliases.
    job = dataclasses.replace(job, settings=job.settings.resolved(anonymizer.taxonomy))
    for line in job.settings.warnings(anonymizer.taxonomy):
        say(f"warning: {line}")
    for name, generator in sorted(anonymizer.generators.items()):
        say(f"warning: generator of {name}: {generator.card.note}")
    interruption = Interruption()
    processor = _processor(job, bundle, anonymizer, interruption.stop, len(plan.tasks))
    with interruption.watched():
        if job.is_stream:
            done = _stream(plan.tasks[0], processor)
        else:
            done = _work_off(plan, processor, cores.workers, interruption.stop)
    results = [*_left_out(plan), *(done[i].result for i in sorted(done))]
    if interruption.signal:
        resumed = "" if job.is_stream else "; run the same command with --resume to go on"
        say(f"error: interrupted; what is written is whole, the rest is not written{resumed}")
    for area in regions.without_picture([task.name for task in plan.tasks]):
        globs = ", ".join(map(repr, area.pictures))
        say(f"warning: region {area.name!r} is for no picture of this run: none matches {globs}")
    _summarize(results, stream=job.is_stream)
    for line in _did_nothing(job, [*done.values()]):
        say(f"note: {line}")
    redone = sum(processed.redone for processed in done.values())
    if redone:
        known = "" if job.detections is None else ", known regions"
        say(f"{redone} done again: their results are of other options{known}, model or code")
    code = 128 + interruption.signal if interruption.signal else _exit_code(results)
    try:
        _write_reports(
            job,
            bundle,
            anonymizer,
            results,
            done,
            offset=len(results) - len(done),
            started=started,
            seconds=time.monotonic() - clock,
            complete=not interruption.signal,
        )
    except ReportError as error:
        # Pictures are written by now: the code for nothing done would be wrong.
        say(f"error: {error}")
        return code or 1
    return code


def _stream_plan(job: Job) -> Plan:
    source = job.inputs[0]
    if str(source) != STREAM:
        check_there(source)
    name = "standard input" if str(source) == STREAM else source.name
    return Plan((Task(source, Path("standard output"), name),), (), ())


def _bundle(job: Job) -> Bundle | None:
    """Load what detects; None where the regions are known and no model is named."""
    if job.detections is not None and job.model is None:
        return None
    from anonymization.registry import bounded_patience, load_bundle, warning_about

    with bounded_patience():
        bundle = load_bundle(job.model, tell=say)
    warning = warning_about(job.model, bundle)
    if warning:
        say(f"warning: {warning}")
    return bundle


def _anonymizer(job: Job, bundle: Bundle | None, regions: Regions, cores: Cores) -> Anonymizer:
    import cv2

    from anonymization.anonymizer import Anonymizer
    from anonymization.formats.picture import MAX_PIXELS

    cv2.setNumThreads(cores.beside)
    limit = job.max_pixels or MAX_PIXELS
    if bundle is None or (job.detections is not None and job.audit is None):
        card = None if bundle is None else bundle.card
        return Anonymizer.for_known_regions(
            card,
            settings=job.settings,
            regions=regions,
            projection=job.lens or job.projection,
            max_pixels=limit,
        )
    return Anonymizer.from_bundle(
        bundle,
        settings=job.settings,
        regions=regions,
        projection=job.lens or job.projection,
        tiling=_tiling(job, bundle),
        cores=cores,
        runtime=job.runtime,
        max_pixels=limit,
    )


def _tiling(job: Job, bundle: Bundle) -> TilingCard | None:
    """Return how finely to look, where the job says otherwise than the bundle's card."""
    changes: dict[str, Any] = {}
    if job.panorama:
        changes["panorama"] = job.panorama
    if job.reduce is not None:
        changes |= {"shrink_max": job.reduce, "tile_shrink": None}
    return dataclasses.replace(bundle.card.tiling, **changes) if changes else None


def _processor(
    job: Job,
    bundle: Bundle | None,
    anonymizer: Anonymizer,
    stop: threading.Event,
    pictures: int,
) -> Processor:
    from anonymization.files import sha256_of_json
    from anonymization.formats.metadata import MetadataPolicy
    from anonymization.job.ledger import Ledger
    from anonymization.job.processing import Processor
    from anonymization.job.results import Options
    from anonymization.known_regions import KnownRegions
    from anonymization.pipeline import Budget, pixel_budget

    options = Options(
        overwrite=job.overwrite,
        resume=job.resume,
        work=sha256_of_json(_work(job, bundle, anonymizer)),
        bundle=None if bundle is None else bundle.digest,
        metadata=MetadataPolicy.parse(job.metadata),
        recompress=job.recompress,
        audit=job.audit,
        quarantine=job.quarantine_folder,
        quarantine_extras=job.quarantine_extras,
        write_detections=job.write_detections,
        extras=job.extras,
        kinds=job.kinds,
        mask_scale=job.mask_scale,
        overlay_on_source=job.overlay_on_source,
        contact_sheet=job.report_html is not None,
    )
    return Processor(
        anonymizer,
        options,
        stop=stop,
        budget=Budget(pixel_budget()),
        known=None if job.detections is None else KnownRegions(job.detections, pictures=pictures),
        ledger=None if job.is_stream else Ledger(job.output),
    )


def _work(job: Job, bundle: Bundle | None, anonymizer: Anonymizer) -> dict[str, Any]:
    """Return everything that decides what results look like, for `--resume`."""
    card = None if anonymizer.detector is None else anonymizer.detector.card.to_dict()
    return {
        "version": importlib.metadata.version("blurloop"),
        "code": _code_digest(),
        "bundle": None if bundle is None else bundle.digest,
        "card": card,
        "taxonomy": anonymizer.taxonomy.to_dict(),
        "disabled": sorted(anonymizer.disabled),
        "generators": {n: g.card.to_dict() for n, g in sorted(anonymizer.generators.items())},
        "implying_head": anonymizer.implying_head,
        "regions": anonymizer.regions.to_dict(),
        "options": _options(job),
    }


def _code_digest() -> str:
    """Return the digest of the code that anonymizes: a version may hold several states of it."""
    from anonymization.files import sha256_of_file, sha256_of_json

    package = Path(__file__).parents[1]
    files = sorted(package.rglob("*.py"))
    return sha256_of_json({str(f.relative_to(package)): sha256_of_file(f) for f in files})


def _options(job: Job) -> dict[str, Any]:
    """Return the options that decide what is written, for reports and digests."""
    return {
        "runtime": job.runtime or "onnxruntime",
        "projection": job.projection,
        "fisheye": None if job.lens is None else job.lens.to_dict(),
        "panorama": job.panorama,
        "reduce": job.reduce,
        "metadata": job.metadata,
        "recompress": job.recompress,
        "audit": None if job.audit is None else dataclasses.asdict(job.audit),
        "known_regions": job.detections is not None,
        "extras": list(job.kinds),
        "mask_scale": job.mask_scale,
        "overlay_on_source": job.overlay_on_source,
    }


def _stream(task: Task, processor: Processor) -> dict[int, Processed]:
    """Anonymize the one picture of a stream; nothing is done where a signal ended that."""
    from anonymization.pipeline import StoppedError

    try:
        return {0: _streamed(task, processor)}
    except StoppedError:
        return {}


def _streamed(task: Task, processor: Processor) -> Processed:
    from anonymization.formats.picture import MAX_BYTES
    from anonymization.job.inputs import read_source
    from anonymization.job.results import FAILED, QUARANTINED, FileResult, Processed

    if sys.stdout is None or (sys.stdin is None and str(task.source) == STREAM):
        raise UsageError("standard input or output is closed; give a file, or a folder to --output")
    if str(task.source) == STREAM:
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
        if not data:
            failed = FileResult(task.shown, FAILED, reason="is empty (0 bytes)")
            say(failed.line)
            return Processed(failed)
        if len(data) > MAX_BYTES:
            raise UsageError(f"standard input has more than {MAX_BYTES} bytes")
    else:
        try:
            data = read_source(task.source)[0]
        except BlurloopError as error:
            failed = FileResult(task.shown, FAILED, reason=one_line(str(error)))
            say(failed.line)
            return Processed(failed)
    done = processor.stream(task, data)
    if done.content is not None:
        try:
            _write_whole(done.content)
        except OSError as error:
            # What is left in the buffer would fail once more when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            reason = f"standard output cannot be written whole: {error.strerror or error}"
            say(f"failed: {reason}")
            return Processed(FileResult(task.shown, FAILED, reason=reason))
    elif done.result.reason:
        line = done.result.line
        say(
            f"not written{line.removeprefix(QUARANTINED)}" if line.startswith(QUARANTINED) else line
        )
    return done


def _write_whole(content: bytes) -> None:
    """Write to standard output, which may take less at once where Python does not buffer it."""
    rest = memoryview(content)
    while rest:
        written = sys.stdout.buffer.write(rest)
        if not written:
            raise OSError("it takes nothing more")
        rest = rest[written:]
    sys.stdout.buffer.flush()


def _work_off(
    plan: Plan, processor: Processor, workers: int, stop: threading.Event
) -> dict[int, Processed]:
    from anonymization.job.progress import Bar
    from anonymization.pipeline import work_off

    done: dict[int, Processed] = {}
    with Bar(len(plan.tasks)) as bar:

        def collect(position: int, processed: Processed) -> None:
            done[position] = processed
            bar.advance(processed.result)

        work_off(plan.loaded(), processor, collect, workers=workers, stop=stop)
    return done


def _left_out(plan: Plan) -> list[FileResult]:
    """Return results for what is not even tried."""
    from anonymization.job.results import FAILED, SKIPPED, FileResult

    unreadable = [FileResult(path, FAILED, reason=reason) for path, reason in plan.unreadable]
    for result in unreadable:
        say(result.line)
    skipped = [FileResult(path, SKIPPED, reason=reason) for path, reason in plan.skipped]
    return unreadable + skipped


def _summarize(results: list[FileResult], *, stream: bool) -> None:
    from anonymization.job.results import ANONYMIZED, FAILED, QUARANTINED, SKIPPED, STATUSES

    words = {QUARANTINED: "refused by the audit"} if stream else {}

    counts = Counter(result.status for result in results)
    found: Counter[str] = Counter()
    spared = sum(len(result.spared) for result in results)
    for result in results:
        found.update(result.detections)
    kinds = kinds_of((r.input, r.reason or "") for r in results if r.status == SKIPPED)
    always = (ANONYMIZED, FAILED, SKIPPED)
    said = [
        f"{counts[status]} {words.get(status, status.replace('_', ' '))}"
        + (f" ({kinds})" if status == SKIPPED and kinds else "")
        for status in STATUSES
        if counts[status] or status in always
    ]
    finds = ", ".join(f"{n} {name}" for name, n in sorted(found.items()))
    say(
        ", ".join(said)
        + (f": {finds}" if finds else "")
        + (f"; {spared} finds spared by regions" if spared else "")
    )


def _did_nothing(job: Job, done: list[Processed]) -> list[str]:
    """Return a line for each option that no picture of the run was of a kind for."""
    from anonymization.job.results import ALREADY_DONE, ANONYMIZED, QUARANTINED

    made = [one for one in done if one.result.status in (ANONYMIZED, QUARANTINED)]
    if not made or any(one.result.status == ALREADY_DONE for one in done):
        return []  # of what an earlier run made nothing is known here
    lines = []
    if job.panorama and not any(one.panorama for one in made):
        lines.append(
            "--panorama did nothing: no picture was looked at as a panorama; give --projection "
            "equirectangular if they are panoramas"
        )
    if job.recompress and not any(one.lossy for one in made):
        lines.append("--recompress did nothing: no picture is lossy")
    return lines


def _write_reports(
    job: Job,
    bundle: Bundle | None,
    anonymizer: Anonymizer,
    results: list[FileResult],
    done: dict[int, Processed],
    *,
    offset: int,
    started: str,
    seconds: float,
    complete: bool,
) -> None:
    from anonymization.job.report import report_of, write_report, write_sheet

    if job.report is None and job.report_html is None:
        return
    report = report_of(
        results,
        bundle=bundle,
        settings=job.settings.to_dict(),
        regions=anonymizer.regions.to_dict(),
        options=_options(job),
        started=started,
        seconds=seconds,
        complete=complete,
    )
    if job.report is not None:
        write_report(job.report, report)
    if job.report_html is not None:
        small = {
            offset + place: done[position].thumbnail for place, position in enumerate(sorted(done))
        }
        write_sheet(job.report_html, report, {i: t for i, t in small.items() if t is not None})


def _exit_code(results: list[FileResult]) -> int:
    statuses = {result.status for result in results}
    if "failed" in statuses:
        return 1
    return 3 if "quarantined" in statuses else 0


def say(text: str) -> None:
    """Print one line on standard error; where it cannot be written to, the run goes on."""
    try:
        typer.echo(one_line(text), err=True)
    except OSError:
        from anonymization.job.progress import mute

        mute()
