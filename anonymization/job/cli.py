"""`anonymize INPUT... --output DIR`: the operator's command.

Everything heavy is imported after the arguments were understood, so that `--help` is quick.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anonymization.errors import BlurloopError
from anonymization.job.options import Job, UsageError
from anonymization.job.run import run, say

if TYPE_CHECKING:
    from anonymization.job.audit import AuditRule
    from anonymization.panorama.lens import FisheyeLens
    from anonymization.settings import Settings

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")

_FOUND = "What is found"
_HIDDEN = "How it is hidden and written"
_FILES = "Inputs and results"
_CHECKED = "Checking the result"
_BESIDE = "Beside the pictures"
_SPEED = "Speed"


_HELP = """Anonymize pictures: same names, same formats, in another folder.

A picture that cannot be fully processed is not written: it is listed with its reason, \
the rest goes on, and the exit code says so: 0 all done, 1 some failed, 2 wrong command, \
3 some in quarantine."""


def _path(text: str) -> Path:
    """Return a path; refuse an empty one, which would mean the current folder."""
    if not text:
        raise typer.BadParameter("it is empty, as of a variable that is not set; name a path")
    return Path(text)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"blurloop {importlib.metadata.version('blurloop')}")
        raise typer.Exit


@app.command(no_args_is_help=True, help=_HELP)
def anonymize(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT",
            parser=_path,
            help="Pictures, folders, patterns in quotes ('in/**/*.jpg'), zip and tar archives, "
            "or - for one picture on standard input.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            parser=_path,
            help="Folder for the results, or - for standard output.",
            rich_help_panel=_FILES,
        ),
    ],
    recursive: Annotated[
        bool, typer.Option(help="Look into folders inside folders.", rich_help_panel=_FILES)
    ] = True,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace results that are there.", rich_help_panel=_FILES),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Skip what is done and proven done; do and replace everything else.",
            rich_help_panel=_FILES,
        ),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="BUNDLE",
            help="Bundle folder, or models:/anonymizer@champion. "
            "[dim]\\[default: the configured registry's champion, else the demo bundle][/dim]",
            rich_help_panel=_FOUND,
        ),
    ] = None,
    detections: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR",
            help="Known regions instead of detecting; as --write-detections writes them.",
            rich_help_panel=_FOUND,
        ),
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS=SCORE",
            help="Least score of a class; the same as --set CLASS.threshold=SCORE.",
            rich_help_panel=_FOUND,
        ),
    ] = None,
    regions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Regions of interest, ignored regions, ego vehicle (YAML or JSON). They take "
            "protection away; the report lists what they spare.",
            rich_help_panel=_FOUND,
        ),
    ] = None,
    projection: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="equirectangular, fisheye, perspective, or auto, which takes 2:1 pictures for "
            "panoramas. "
            "[dim]\\[default: what the picture's metadata state][/dim]",
            rich_help_panel=_FOUND,
        ),
    ] = None,
    fisheye_fov: Annotated[
        float | None,
        typer.Option(
            metavar="DEGREES",
            help="Angle across a fisheye's image circle. [dim]\\[default: 180][/dim]",
            rich_help_panel=_FOUND,
        ),
    ] = None,
    fisheye_circle: Annotated[
        str | None,
        typer.Option(
            metavar="CIRCLE",
            help="A fisheye's image circle, outside of which nothing is looked at: inscribed, or "
            "X,Y,RADIUS@WIDTHxHEIGHT in pixels. [dim]\\[default: diagonal, through the "
            "corners][/dim]",
            rich_help_panel=_FOUND,
        ),
    ] = None,
    panorama: Annotated[
        str | None,
        typer.Option(
            metavar="PRESET",
            help="How finely panoramas are looked at: pano-2k, pano-4k, pano-5k, pano-8k, "
            "pano-11k, pano-16k. [dim]\\[default: as the model says][/dim]",
            rich_help_panel=_FOUND,
        ),
    ] = None,
    reduce: Annotated[
        float | None,
        typer.Option(
            metavar="FACTOR",
            help="Look at flat pictures in tiles where they are reduced by more than this for the "
            "network; 1 shows it every pixel, and takes longest. "
            "[dim]\\[default: as the model says][/dim]",
            rich_help_panel=_FOUND,
        ),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Largest picture that is decoded, in pixels. "
            "[dim]\\[default: 268435456, which is 16384x16384][/dim]",
            rich_help_panel=_FOUND,
        ),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Settings per class (YAML or JSON).", rich_help_panel=_HIDDEN
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="CLASS.KEY=VALUE",
            help="One setting; may be repeated. Keys: enabled, threshold, method (blur, pixelate, "
            "solid, synthetic, none), generator (folder that `python -m training.zoo.faces` made, "
            "for synthetic faces), shape (ellipse, box, rotated_box, outline), margin, feather, "
            "strength; of persons: head (never, unless_hidden, always), which hides the head that "
            "an outline implies.",
            rich_help_panel=_HIDDEN,
        ),
    ] = None,
    metadata: Annotated[
        str,
        typer.Option(
            metavar="GROUPS",
            help="What stays: all, none, or a list of exif, gps, xmp, icc, iptc, comment; never "
            "what could hold a second picture.",
            rich_help_panel=_HIDDEN,
        ),
    ] = "all",
    recompress: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100,
            metavar="QUALITY",
            help="Encode lossy pictures whole, in this quality. "
            "[dim]\\[default: only what was obscured changes][/dim]",
            rich_help_panel=_HIDDEN,
        ),
    ] = None,
    audit: Annotated[
        bool,
        typer.Option(
            "--audit",
            help="Detect again in what will be written; what is still visible goes to quarantine "
            "(exit code 3).",
            rich_help_panel=_CHECKED,
        ),
    ] = False,
    audit_threshold: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=1,
            help="Share of each class's threshold from which the audit looks. "
            "[dim]\\[default: 0.5][/dim]",
            rich_help_panel=_CHECKED,
        ),
    ] = None,
    audit_covered: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Share of a find's pixels that must be obscured. [dim]\\[default: 0.9][/dim]",
            rich_help_panel=_CHECKED,
        ),
    ] = None,
    quarantine: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where pictures go that the audit refuses. "
            "[dim]\\[default: OUTPUT-quarantine][/dim]",
            rich_help_panel=_CHECKED,
        ),
    ] = None,
    write_detections: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="One JSON per picture, to look at, correct and give back with --detections.",
            rich_help_panel=_BESIDE,
        ),
    ] = None,
    extras: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for detections, masks and overlays.",
            rich_help_panel=_BESIDE,
        ),
    ] = None,
    extra: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            help="What goes there: detections, instances, mask, overlay. "
            "[dim]\\[default: all][/dim]",
            rich_help_panel=_BESIDE,
        ),
    ] = None,
    mask_scale: Annotated[
        float,
        typer.Option(
            min=0.01, max=1, help="Factor on the sides of masks.", rich_help_panel=_BESIDE
        ),
    ] = 1.0,
    overlay_on_source: Annotated[
        bool,
        typer.Option(
            "--overlay-on-source",
            help="Draw overlays on the picture as it was, [bold]not anonymized[/bold].",
            rich_help_panel=_BESIDE,
        ),
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write report.json.", rich_help_panel=_BESIDE),
    ] = None,
    report_html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a contact sheet of the anonymized pictures, one HTML file.",
            rich_help_panel=_BESIDE,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Pictures at once. [dim]\\[default: as many as cores][/dim]",
            rich_help_panel=_SPEED,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Threads of one network run. [dim]\\[default: cores over workers][/dim]",
            rich_help_panel=_SPEED,
        ),
    ] = None,
    version: Annotated[  # noqa: ARG001 - its callback ends the command
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_say_version, help="Say the version and end."
        ),
    ] = False,
    runtime: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="onnxruntime or openvino. [dim]\\[default: onnxruntime][/dim]",
            rich_help_panel=_SPEED,
        ),
    ] = None,
) -> None:
    """Turn the command line into a job and run it."""
    from anonymization.job.outputs import EXTRAS
    from anonymization.settings import Settings

    chosen = Settings.read(settings) if settings is not None else Settings()
    asked = Settings.of(map(_threshold, threshold or [])).updated(Settings.of(assignments or []))
    _check_thresholds(asked, detections, audit=audit)
    chosen = chosen.updated(asked)
    kinds = tuple(dict.fromkeys(extra or (EXTRAS if extras is not None else ())))
    job = Job(
        inputs=tuple(inputs),
        output=output,
        recursive=recursive,
        overwrite=overwrite,
        resume=resume,
        model=model,
        runtime=runtime,
        detections=detections,
        settings=chosen,
        settings_file=settings,
        regions=regions,
        max_pixels=max_pixels,
        projection=projection,
        lens=_lens(projection, fisheye_fov, fisheye_circle),
        panorama=panorama,
        reduce=reduce,
        metadata=metadata,
        recompress=recompress,
        audit=_audit_rule(audit, audit_threshold, audit_covered),
        quarantine=quarantine,
        write_detections=write_detections,
        extras=extras,
        kinds=kinds,
        mask_scale=mask_scale,
        overlay_on_source=overlay_on_source,
        report=report,
        report_html=report_html,
        workers=workers,
        threads=threads,
    )
    raise typer.Exit(run(job))


def _audit_rule(audit: bool, threshold: float | None, covered: float | None) -> AuditRule | None:
    from anonymization.job.audit import COVERED_MIN, THRESHOLD_SHARE, AuditRule

    if audit:
        return AuditRule(
            THRESHOLD_SHARE if threshold is None else threshold,
            COVERED_MIN if covered is None else covered,
        )
    for option, value in (("--audit-threshold", threshold), ("--audit-covered", covered)):
        if value is not None:
            raise UsageError(f"{option} says how --audit looks; give --audit too")
    return None


def _lens(projection: str | None, fov: float | None, circle: str | None) -> FisheyeLens | None:
    from anonymization.panorama.gpano import FISHEYE
    from anonymization.panorama.lens import FisheyeLens

    if projection == FISHEYE:
        return FisheyeLens.of(fov, circle)
    for option, value in (("--fisheye-fov", fov), ("--fisheye-circle", circle)):
        if value is not None:
            raise UsageError(f"{option} says what --projection {FISHEYE} looks through; give both")
    return None


def _check_thresholds(asked: Settings, detections: Path | None, *, audit: bool) -> None:
    """Refuse thresholds of the command line where nothing is detected; a file may serve both."""
    if detections is None or audit:
        return
    for name, change in asked.classes.items():
        if change.threshold is not None:
            raise UsageError(
                f"the threshold of {name} says what is detected, and --detections runs no network; "
                "leave it out, or give --audit and --model too"
            )


def _threshold(given: str) -> str:
    """Turn CLASS=SCORE into the setting that it means."""
    name, equals, score = given.partition("=")
    if not equals or not name:
        raise UsageError(f"--threshold is {given!r}; expected CLASS=SCORE, as in face=0.3")
    return f"{name}.threshold={score}"


def main() -> None:
    """Run the command; errors raised on purpose end it with one line."""
    try:
        app()
    except BlurloopError as error:
        say(f"error: {error}")
        sys.exit(max(2, error.exit_code))  # 1 says that single pictures failed


if __name__ == "__main__":
    main()
