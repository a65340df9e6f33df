"""What a run of `anonymize` is asked for, and which options contradict each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from anonymization.errors import BlurloopError
from anonymization.job.inputs import STREAM
from anonymization.settings import Settings

if TYPE_CHECKING:
    from anonymization.job.audit import AuditRule
    from anonymization.panorama.lens import FisheyeLens


REDUCE_MIN, REDUCE_MAX = 0.25, 64.0
"""Of how far the network may see a flat picture reduced; as a card's `tiling` has it."""


class UsageError(BlurloopError):
    """The command line contradicts itself."""

    exit_code = 2


@dataclass(frozen=True)
class Job:
    """What the command line asks for; see its `--help`."""

    inputs: tuple[Path, ...]
    output: Path
    recursive: bool = True
    overwrite: bool = False
    resume: bool = False
    model: str | None = None
    runtime: str | None = None
    detections: Path | None = None
    settings: Settings = field(default_factory=Settings)
    settings_file: Path | None = None
    regions: Path | None = None
    max_pixels: int | None = None
    projection: str | None = None
    lens: FisheyeLens | None = None
    panorama: str | None = None
    reduce: float | None = None
    metadata: str = "all"
    recompress: int | None = None
    audit: AuditRule | None = None
    quarantine: Path | None = None
    write_detections: Path | None = None
    extras: Path | None = None
    kinds: tuple[str, ...] = ()
    mask_scale: float = 1.0
    overlay_on_source: bool = False
    report: Path | None = None
    report_html: Path | None = None
    workers: int | None = None
    threads: int | None = None

    @property
    def is_stream(self) -> bool:
        """Whether one picture goes to standard output."""
        return str(self.output) == STREAM

    @property
    def quarantine_folder(self) -> Path:
        """Where refused pictures go: beside the output folder if nothing else is said."""
        return self.quarantine or _beside(self.output, "quarantine")

    @property
    def quarantine_extras(self) -> Path:
        """Where goes what is written beside refused pictures: beside their folder."""
        return _beside(self.quarantine_folder, "extras")


def _beside(folder: Path, what: str) -> Path:
    """Return the folder beside another that is named after it, relative where that is."""
    named = folder if folder.name not in ("", "..") else folder.resolve()
    return named.parent / f"{named.name}-{what}"


def check(job: Job) -> None:
    """Refuse options that contradict each other, before anything is loaded.

    Raises:
        BlurloopError: With the option and what it needs.
    """
    from anonymization.formats.metadata import MetadataError, MetadataPolicy
    from anonymization.job.outputs import EXTRAS, INSTANCES, MASK, OVERLAY
    from anonymization.panorama.gpano import NAMES, PERSPECTIVE
    from anonymization.panorama.presets import AUTO, check_preset

    try:
        MetadataPolicy.parse(job.metadata)
    except MetadataError as error:
        raise UsageError(f"--{error}") from error
    check_preset(job.panorama or AUTO)
    if job.projection is not None and job.projection not in NAMES:
        raise UsageError(f"--projection is {job.projection!r}; expected one of {', '.join(NAMES)}")

    if job.panorama is not None and job.projection == PERSPECTIVE:
        raise UsageError(
            "--panorama says how panoramas are looked at, and --projection perspective takes no "
            "picture for one; leave one of them out"
        )
    if job.reduce is not None and not REDUCE_MIN <= job.reduce <= REDUCE_MAX:
        raise UsageError(
            f"--reduce is {job.reduce:g}; expected a number from {REDUCE_MIN:g} to {REDUCE_MAX:g}"
        )
    fisheye = "--projection fisheye"
    if job.lens is not None and job.reduce is not None:
        raise UsageError(f"--reduce is for flat pictures, and {fisheye} takes none for flat")
    looks: dict[str, object] = {
        "--panorama": job.panorama,
        "--reduce": job.reduce,
        "--runtime": job.runtime,
        fisheye: job.lens,
    }
    for option, value in looks.items():
        if value is not None and job.detections is not None and job.audit is None:
            raise UsageError(
                f"{option} says how networks look, and --detections runs none; leave it out, or "
                "give --audit and --model too"
            )
    stream_in = [path for path in job.inputs if str(path) == STREAM]
    if stream_in and (len(job.inputs) > 1 or not job.is_stream):
        raise UsageError("standard input (-) is one picture; give it alone, with --output -")
    if job.is_stream and (len(job.inputs) != 1 or job.inputs[0].is_dir()):
        raise UsageError("standard output (--output -) takes one picture; give one file or -")
    if not job.is_stream and job.output.exists() and not job.output.is_dir():
        raise UsageError(f"--output {job.output} is a file; name a folder")
    if job.is_stream and job.resume:
        raise UsageError("--resume needs an output folder")
    if job.audit is not None and job.detections is not None and job.model is None:
        raise UsageError("--audit detects again; name a model with --model")
    if job.quarantine is not None and job.audit is None and job.detections is None:
        raise UsageError(
            "--quarantine is for what --audit refuses, or what --detections takes out of it; "
            "give --audit too"
        )
    unknown = [kind for kind in job.kinds if kind not in EXTRAS]
    if unknown:
        raise UsageError(f"--extra is {unknown[0]!r}; expected one of {', '.join(EXTRAS)}")
    if job.kinds and job.extras is None:
        raise UsageError("--extra says what goes into --extras DIR; name the folder")
    if job.mask_scale != 1 and not {MASK, INSTANCES}.intersection(job.kinds):
        raise UsageError("--mask-scale is for masks; give --extras DIR, with --extra mask if any")
    if job.overlay_on_source and OVERLAY not in job.kinds:
        raise UsageError(
            "--overlay-on-source is for overlays; give --extras DIR, with --extra overlay if any"
        )
