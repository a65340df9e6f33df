"""`anonymize INPUT... --output DIR`: the operator's command.

Everything heavy is imported after the arguments were understood, so that `--help` is quick.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anonymization.errors import BlurloopError

if TYPE_CHECKING:
    from anonymization.anonymizer import Anonymizer
    from anonymization.bundle import Bundle
    from anonymization.inputs import Plan, Task

REPORT_SCHEMA_VERSION = 1
ANONYMIZED, FAILED, SKIPPED = "anonymized", "failed", "skipped"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class UsageError(BlurloopError):
    """The command line contradicts itself."""

    exit_code = 2


class Interrupted(BaseException):
    """A signal asked the command to end; not an `Exception`, so that nothing goes on after it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


@dataclass(frozen=True)
class FileResult:
    """What became of one file; one entry of the report."""

    input: str
    status: str
    output: str | None = None
    reason: str | None = None
    detections: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


@app.command()
def anonymize(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT...", help="Pictures, or folders of pictures.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    model: Annotated[
        str | None,
        typer.Option(help="Bundle folder or models:/anonymizer@champion. [default: the champion]"),
    ] = None,
    recursive: Annotated[bool, typer.Option(help="Look into folders inside folders.")] = True,
    overwrite: Annotated[bool, typer.Option(help="Replace results that are there.")] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the network. [default: all cores]")
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS=SCORE", help="Least score of a class; may be repeated."),
    ] = None,
    max_pixels: Annotated[
        int | None, typer.Option(min=1, help="Largest picture that is decoded, in pixels.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Where to write a JSON report.")] = None,
) -> None:
    """Anonymize pictures: same names, same formats, in another folder.

    A picture that cannot be fully processed is not written; it is listed with the reason, the
    rest goes on, and the command ends with exit code 1.
    """
    from anonymization.inputs import make_plan
    from anonymization.picture import MAX_PIXELS, SUFFIXES
    from anonymization.registry import load_bundle

    plan = make_plan(inputs, output, suffixes=SUFFIXES, recursive=recursive)
    _check_report(report, plan)
    thresholds = _thresholds(threshold or [])
    bundle = load_bundle(model)
    if bundle.warning:
        _say(f"warning: {bundle.warning}")
    from anonymization.anonymizer import Anonymizer

    anonymizer = Anonymizer.from_bundle(
        bundle, thresholds=thresholds, threads=threads, max_pixels=max_pixels or MAX_PIXELS
    )
    results = _left_out(plan)
    exit_code = 0
    try:
        with _signals_raise():
            _work_off(plan, anonymizer, results, overwrite=overwrite)
    except Interrupted as signalled:
        exit_code = signalled.exit_code
        _say("error: interrupted; what is written is whole, the rest is not written")
    _summarize(results)
    if report is not None:
        _write_report(report, bundle, results, complete=exit_code == 0)
    failed = any(result.status == FAILED for result in results)
    raise typer.Exit(exit_code or int(failed))


def _thresholds(given: list[str]) -> dict[str, float]:
    """Read CLASS=SCORE settings."""
    found: dict[str, float] = {}
    for setting in given:
        name, _, score = setting.partition("=")
        try:
            found[name] = float(score)
        except ValueError as error:
            raise UsageError(
                f"--threshold is {setting!r}; expected CLASS=SCORE, as in face=0.3"
            ) from error
    return found


def _check_report(report: Path | None, plan: Plan) -> None:
    if report is None:
        return
    taken = {path.resolve() for task in plan.tasks for path in (task.source, task.target)}
    if report.resolve() in taken or report.is_dir():
        raise UsageError(f"--report {report} is a folder, an input or a result; choose another")


def _left_out(plan: Plan) -> list[FileResult]:
    """Return results for what is not even tried."""
    unreadable = [FileResult(shown(p), FAILED, reason=reason) for p, reason in plan.unreadable]
    for result in unreadable:
        _say(f"failed: {result.input}: {result.reason}")
    skipped = [
        FileResult(shown(path), SKIPPED, reason="its name is not that of a picture")
        for path in plan.skipped
    ]
    return unreadable + skipped


def _work_off(
    plan: Plan, anonymizer: Anonymizer, results: list[FileResult], *, overwrite: bool
) -> None:
    """Anonymize one picture after the other; appends to `results` as it goes."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    columns = (TextColumn("anonymizing"), BarColumn(), MofNCompleteColumn(), TimeLeft())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=len(plan.tasks))
        for task in plan.tasks:
            result = _anonymize_one(task, anonymizer, overwrite=overwrite)
            results.append(result)
            if result.status == FAILED:
                progress.print(f"failed: {result.reason}", markup=False, highlight=False)
            progress.advance(bar)


def _anonymize_one(task: Task, anonymizer: Anonymizer, *, overwrite: bool) -> FileResult:
    start = time.monotonic()
    source = shown(task.source)
    try:
        done = anonymizer.anonymize_file(task.source, task.target, overwrite=overwrite)
    except MemoryError:
        return FileResult(source, FAILED, reason=f"{source} does not fit into memory")
    except BlurloopError as error:
        return FileResult(source, FAILED, reason=_one_line(str(error)))
    except Exception as error:  # noqa: BLE001 - not written, listed; one picture stops no folder
        reason = f"{source}: unexpected {type(error).__name__}: {error}"
        return FileResult(source, FAILED, reason=_one_line(reason))
    names = anonymizer.card.taxonomy.names
    counts = Counter(names[i] for i in done.detections.class_ids)
    return FileResult(
        source,
        ANONYMIZED,
        output=shown(task.target),
        detections=dict(sorted(counts.items())),
        seconds=round(time.monotonic() - start, 3),
    )


def _summarize(results: list[FileResult]) -> None:
    counts = Counter(result.status for result in results)
    found: Counter[str] = Counter()
    for result in results:
        found.update(result.detections)
    _say(
        f"{counts[ANONYMIZED]} anonymized, {counts[FAILED]} failed, {counts[SKIPPED]} skipped"
        + (": " + ", ".join(f"{n} {name}" for name, n in sorted(found.items())) if found else "")
    )


def _write_report(path: Path, bundle: Bundle, results: list[FileResult], *, complete: bool) -> None:
    """Write what was done as JSON; it holds counts and paths, and nothing of a picture."""
    from dataclasses import asdict

    from anonymization.files import write_json

    counts = Counter(result.status for result in results)
    values: dict[str, Any] = {
        "schema_version": REPORT_SCHEMA_VERSION,
        "complete": complete,
        "bundle": {
            "path": str(bundle.path),
            "digest": bundle.digest,
            "verdict": None if bundle.verdict is None else bundle.verdict.outcome,
        },
        "counts": {status: counts[status] for status in (ANONYMIZED, FAILED, SKIPPED)},
        "files": [asdict(result) for result in results],
    }
    try:
        write_json(path, values)
    except OSError as error:
        raise UsageError(f"report {path} cannot be written: {error}") from error


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into `Interrupted`, so that temporary files are taken away."""

    def interrupt(number: int, _frame: object) -> None:
        raise Interrupted(number)

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def shown(path: Path) -> str:
    """Return a path as text that any terminal and JSON takes, on one line."""
    return _one_line(os.fsencode(path).decode("utf-8", "replace"))


def _one_line(text: str) -> str:
    printable = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in printable)


def _say(text: str) -> None:
    typer.echo(_one_line(text), err=True)


def main() -> None:
    """Run the command; errors raised on purpose end it with one line."""
    try:
        app()
    except BlurloopError as error:
        _say(f"error: {error}")
        sys.exit(max(2, error.exit_code))  # 1 says that single pictures failed


if __name__ == "__main__":
    main()
