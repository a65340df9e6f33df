"""The snapshot: what people finished, sorted, so that equal work is equal bytes.

`artifacts/snapshot/snapshot.json` says what it is a snapshot of; `tasks.jsonl` beside it has one
line per task with a submitted or skipping annotation, sorted by the picture's SHA-256. Both are
written and read line by line: a project of any size fits.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annotation.backend import AnnotationError
from anonymization.files import FileError, folder_in_one_step, read_json, write_json

SCHEMA_VERSION = 1
FILE = "snapshot.json"
TASKS = "tasks.jsonl"
_ANNOTATION_FIELDS = ("id", "created_at", "updated_at", "lead_time", "ground_truth", "result")


@dataclass(frozen=True)
class Head:
    """What a snapshot is of.

    Attributes:
        url: The server.
        project: Id of the project on it.
        title: Title of the project.
        since: Since when each class is asked for; None where from the start.
        tasks: Lines in `tasks.jsonl`.
    """

    url: str
    project: int
    title: str
    since: dict[str, str | None] = field(default_factory=dict)
    tasks: int = 0


def task_to_line(task: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the snapshot keeps of an exported task; None where nobody has finished.

    Drafts stay on the server. What changes by itself (counters, times of the task) is left out.
    """
    annotations = []
    for annotation in task.get("annotations") or []:
        by = annotation.get("completed_by")
        kept = {name: annotation.get(name) for name in _ANNOTATION_FIELDS}
        kept["annotator"] = by.get("id") if isinstance(by, dict) else by
        kept["skipped"] = bool(annotation.get("was_cancelled"))
        annotations.append(kept)
    if not annotations:
        return None
    return {
        "sha256": task["data"]["sha256"],
        "task": task["id"],
        "annotations": sorted(annotations, key=lambda a: int(a["id"])),
    }


def write_snapshot(folder: Path, head: Head, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write a snapshot in one step, sorting on disk.

    Args:
        folder: `artifacts/snapshot`; replaced when all is written.
        head: What it is of; the number of tasks is counted here.
        lines: What `task_to_line` returned, in any order.
    """
    with folder_in_one_step(folder) as work, tempfile.TemporaryFile(dir=work) as unsorted:
        places: list[tuple[str, int, int]] = []
        for line in lines:
            raw = json.dumps(line, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
            places.append((f"{line['sha256']}:{line['task']:012d}", unsorted.tell(), len(raw)))
            unsorted.write(raw)
        with (work / TASKS).open("wb") as file:
            for _, start, length in sorted(places):
                unsorted.seek(start)
                file.write(unsorted.read(length) + b"\n")
        values = {"schema_version": SCHEMA_VERSION, "backend": "label_studio"}
        about = {"url": head.url, "project": head.project, "title": head.title}
        write_json(work / FILE, values | about | {"since": head.since, "tasks": len(places)})
        os.chmod(work / TASKS, 0o644)


def read_head(folder: Path) -> Head | None:
    """Return what the snapshot in a folder is of; None where there is none of Label Studio.

    Raises:
        FileError: If there is one that cannot be read.
    """
    if not (folder / FILE).exists():
        return None
    values = read_json(folder / FILE, schema_version=SCHEMA_VERSION)
    if values.get("backend") != "label_studio":
        return None
    try:
        return Head(**{k: values[k] for k in ("url", "project", "title", "since", "tasks")})
    except KeyError as error:
        raise FileError(f"{folder / FILE} lacks {error}; run dvc checkout {folder}") from error


def existing_head(folder: Path) -> Head:
    """Return what the snapshot is of, where one must be there.

    Raises:
        AnnotationError: If there is none; the message says how to get one.
    """
    head = read_head(folder)
    if head is None:
        raise AnnotationError(
            f"{folder} holds no snapshot of Label Studio, and the server is not asked "
            "(annotation.sync is false, or this is an experiment). Bring the last one back with "
            f"`dvc checkout {folder}`, or run `dvc repro` with annotation.sync: true"
        )
    return head


def read_lines(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the tasks of a snapshot.

    Raises:
        FileError: If a line is damaged.
    """
    path = folder / TASKS
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise FileError(
                        f"{path}, line {number} is damaged; run dvc checkout {folder}"
                    ) from error
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error}; run dvc checkout {folder}") from error
