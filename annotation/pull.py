"""Pulling: what people finished, page by page onto the disk."""

from __future__ import annotations

import json
import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annotation.client import Server, TaskRow
from annotation.labelling import Pair
from annotation.labels import KINDS
from annotation.snapshot import task_to_line

log = logging.getLogger(__name__)


@dataclass
class Pulled:
    """What pushing needs to know of what was pulled.

    Attributes:
        lines: Reads the lines of the snapshot again from the start.
        used: Number of regions per tool and label.
        found_in: Where the first region of each tool and label stands, in words.
        finished: Time of the newest annotation, by SHA-256; None where a task was only skipped.
    """

    lines: Callable[[], Iterator[dict[str, Any]]]
    used: Counter[Pair] = field(default_factory=Counter)
    found_in: dict[Pair, str] = field(default_factory=dict)
    finished: dict[str, str | None] = field(default_factory=dict)


@contextmanager
def pulled(server: Server, project: int, rows: list[TaskRow], folder: Path) -> Iterator[Pulled]:
    """Pull every task that somebody finished or skipped; memory holds one page at a time.

    Args:
        server: Where.
        project: Of which project.
        rows: Its tasks.
        folder: Where the lines may stand until the block ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile("w+", dir=folder, encoding="utf-8") as file:

        def lines() -> Iterator[dict[str, Any]]:
            file.seek(0)
            yield from map(json.loads, file)

        found = Pulled(lines)
        for line in _lines(server, project, rows):
            file.write(json.dumps(line) + "\n")
            _note(line, found)
        yield found


def _lines(server: Server, project: int, rows: list[TaskRow]) -> Iterator[dict[str, Any]]:
    from tqdm import tqdm

    tasks = [row.id for row in rows if row.annotated or row.cancelled]
    exported = server.annotations(project, tasks)
    bar = {"desc": "pulling", "unit": "task", "mininterval": 1.0, "disable": None}
    for task in tqdm(exported, total=len(tasks), **bar):
        line = task_to_line(task)
        if line is not None:
            yield line


def _note(line: dict[str, Any], found: Pulled) -> None:
    times = [str(a["updated_at"]) for a in line["annotations"] if not a["skipped"]]
    found.finished[line["sha256"]] = max(times, default=None)
    for annotation in line["annotations"]:
        for result in annotation["result"] or []:
            kind = KINDS.get(str(result.get("type")))
            labels = (result.get("value") or {}).get(str(result.get("type"))) or []
            for pair in ((kind, str(label)) for label in labels if kind is not None):
                found.used[pair] += 1
                where = f"annotation {annotation['id']} of task {line['task']}"
                found.found_in.setdefault(pair, where)


def without_duplicates(server: Server, rows: list[TaskRow]) -> list[TaskRow]:
    """Remove tasks of a picture that has one already, unless somebody has worked on them.

    A push that was killed may have been finished by the server after the next one had looked.
    Tasks that the loop did not make are left alone.
    """
    others = [row for row in rows if row.sha256 is None]
    if others:
        text = "%d tasks are not the loop's (no sha256), such as task %d; left alone"
        log.warning(text, len(others), others[0].id)
    counts = Counter(row.sha256 for row in rows)
    open_twice = [
        r for r in rows if r.sha256 and counts[r.sha256] > 1 and not r.annotated + r.cancelled
    ]
    drafted = {row.id for row in open_twice if server.has_drafts(row.id)}

    def worth(row: TaskRow) -> tuple[int, int, bool, int]:
        return (-row.annotated, -row.cancelled, row.id not in drafted, row.id)

    kept: dict[str, TaskRow] = {}
    for row in sorted(rows, key=worth):
        if row.sha256 is None:
            continue
        if row.sha256 not in kept:
            kept[row.sha256] = row
        elif row.annotated + row.cancelled == 0 and row.id not in drafted:
            server.delete_task(row.id)
            log.warning("deleted task %d: its picture has task %d", row.id, kept[row.sha256].id)
        else:
            text = "tasks %d and %d are of one picture; the second is left out. Delete one of them"
            log.warning(text, kept[row.sha256].id, row.id)
    return sorted(kept.values(), key=lambda row: row.id)
