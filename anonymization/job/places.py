"""Where a run writes: nothing of it may replace what it reads, nor one kind of result another.

Paths are compared after links and `..` were followed, as one file has many names.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from anonymization.job.inputs import STREAM, Plan, resolved
from anonymization.job.ledger import NAME as LEDGER
from anonymization.job.options import Job, UsageError
from anonymization.job.outputs import DETECTIONS, OVERLAY, SUFFIX
from anonymization.known_regions import SUFFIX as KNOWN
from anonymization.regions import SCHEMA_VERSION as REGIONS_VERSION
from anonymization.registry import DEMO, SCHEME
from anonymization.structured import read_structured


def own_folders(job: Job) -> tuple[Path, ...]:
    """Return folders that hold results of this command; inputs are not looked for in them."""
    kinds = () if job.extras is None else tuple(job.extras / kind for kind in SUFFIX)
    refused = tuple(job.quarantine_extras / kind for kind in SUFFIX)
    return (job.quarantine_folder, *refused, *kinds)


def check_places(job: Job, plan: Plan) -> None:
    """Refuse a run that would write one thing over another.

    Raises:
        UsageError: With the path and what it is.
    """
    read = _read(job, plan)
    output = resolved(job.output)
    results = set() if job.is_stream else {resolved(task.target) for task in plan.tasks}
    for path in sorted(results.intersection(read)):
        raise UsageError(
            f"--output {job.output} would write over {path}, which is {read[path]}; "
            "choose another folder"
        )
    _check_folders(job, output)
    beside: set[Path] = set()
    for option, path in _beside(job, plan):
        if path in read or path in results:
            raise UsageError(
                f"{option} would write over {path}, which is {read.get(path, 'a result')}; "
                "choose another folder"
            )
        beside.add(path)
    ledger = output / LEDGER
    for path in () if job.is_stream else (*results, *beside):
        if path == ledger or ledger in path.parents:
            raise UsageError(
                f"{path} would lie where the ledger of --resume lies; rename that input"
            )
    taken = {*read, *results, *beside, ledger}
    folders = () if job.is_stream else [resolved(folder) for _, folder in _folders(job)]
    for report in (job.report, job.report_html):
        if report is None:
            continue
        below = any(folder.is_relative_to(resolved(report)) for folder in folders)
        if resolved(report) in taken or report.is_dir() or below:
            raise UsageError(
                f"report {report} is a folder, an input, a result or another report; choose another"
            )
        taken.add(resolved(report))


def _read(job: Job, plan: Plan) -> dict[Path, str]:
    """Return every file that the run reads, with what it is."""
    named = [path for path in (job.detections, job.regions, job.settings_file) if path]
    if job.regions is not None:
        named += _masks(job.regions)
    if job.detections is not None and job.detections.is_dir():
        named += [job.detections / (task.name + KNOWN) for task in plan.tasks]
    folders = list(job.settings.generators.values())
    if not (job.model or "").startswith(SCHEME):
        folders.append(Path(job.model or DEMO))
    for folder in folders:
        with contextlib.suppress(OSError):  # told of when it is loaded
            named += folder.iterdir()
    read = {resolved(path): "read by this run" for path in named}
    # An archive that cannot be read has no tasks, and is an input all the same.
    inputs = (*job.inputs, *(task.source for task in plan.tasks))
    return read | {resolved(path): "an input" for path in inputs if str(path) != STREAM}


def _masks(path: Path) -> list[Path]:
    """Return the mask files that a regions file names; what is wrong with it is said later."""
    values = read_structured(path, schema_version=REGIONS_VERSION, keys=("regions",))
    listed = values.get("regions")
    areas = [area for area in listed if isinstance(area, dict)] if isinstance(listed, list) else []
    return [path.parent / str(area["mask"]) for area in areas if area.get("mask") is not None]


def check_writable_folders(job: Job) -> None:
    """See that results can be written before anything is done; nothing is left behind.

    Raises:
        UsageError: With the folder that cannot be made or written to.
    """
    for option, folder in _folders(job):
        # What is not there yet is made below the nearest folder that is.
        there = next(
            (p for p in (folder, *folder.absolute().parents) if os.path.lexists(p)), folder
        )
        if not there.is_dir():
            raise UsageError(
                f"{option} {folder} cannot be a folder: {there} is none; choose another"
            )
        try:
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            raise UsageError(
                f"{option} {folder} cannot be written to: {error.strerror or error}; choose another"
            ) from error


def _folders(job: Job) -> list[tuple[str, Path]]:
    """Return the folders that are written to, with the option that names each."""
    folders = [] if job.is_stream else [("--output", job.output)]
    if job.audit is not None and not job.is_stream:
        folders.append(("--quarantine", job.quarantine_folder))
    if job.write_detections is not None:
        folders.append(("--write-detections", job.write_detections))
    if job.extras is not None:
        folders += [("--extras", job.extras / kind) for kind in job.kinds]
    return folders


def _check_folders(job: Job, output: Path) -> None:
    searched = [resolved(path) for path in job.inputs if path.is_dir()]
    for option, folder in (("--quarantine", job.quarantine), ("--extras", job.extras)):
        if folder and any(path.is_relative_to(resolved(folder)) for path in searched):
            raise UsageError(f"{option} {folder} holds an input folder; choose another")
    if job.is_stream:
        return
    overlays = job.extras / OVERLAY if job.extras and job.overlay_on_source else None
    if overlays and OVERLAY in job.kinds and resolved(overlays).is_relative_to(output):
        raise UsageError(
            f"--extras {job.extras} lies in the output folder, where overlays on the source would "
            "be published; choose another"
        )
    if job.audit is None and job.quarantine is None:
        return
    if resolved(job.quarantine_extras).is_relative_to(output):
        raise UsageError(
            f"what lies beside refused pictures would go to {job.quarantine_extras}, where it "
            "would be published; choose another --quarantine"
        )
    if resolved(job.quarantine_folder).is_relative_to(output):
        raise UsageError(
            f"--quarantine {job.quarantine_folder} lies in the output folder, where it would be "
            "published; choose another"
        )


def _beside(job: Job, plan: Plan) -> Iterator[tuple[str, Path]]:
    """Yield what may be written besides results and reports, with the option that asks for it."""
    folders: list[tuple[str, Path, str]] = []
    if job.audit is not None and not job.is_stream:
        folders.append(("--quarantine", job.quarantine_folder, ""))
    if job.write_detections is not None:
        folders.append(("--write-detections", job.write_detections, SUFFIX[DETECTIONS]))
    if job.extras is not None:
        folders += [("--extras", job.extras / kind, SUFFIX[kind]) for kind in job.kinds]
    if job.extras is not None and job.audit is not None and not job.is_stream:
        refused = job.quarantine_extras
        folders += [("--extras", refused / kind, SUFFIX[kind]) for kind in job.kinds]
    known = None if job.detections is None else resolved(job.detections)
    for option, folder, suffix in folders:
        base = resolved(folder)
        if option == "--write-detections" and base == known:
            raise UsageError(
                "--write-detections would overwrite --detections; choose another folder"
            )
        for task in plan.tasks:
            yield option, resolved(base / (task.name + suffix))
