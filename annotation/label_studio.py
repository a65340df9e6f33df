"""Backend `label_studio`: a project in which people annotate; the loop feeds it and reads it."""

from __future__ import annotations

import html
import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from annotation.backend import AnnotationConfig
from annotation.client import ProjectGoneError, Server, TaskRow, api_key
from annotation.labelling import instructions, labelling, updated
from annotation.labels import TAGS
from annotation.pull import Pulled, pulled, without_duplicates
from annotation.push import Push
from annotation.serving import Serving
from annotation.snapshot import (
    Head,
    existing_head,
    read_head,
    write_snapshot,
)
from anonymization.files import read_json
from anonymization.taxonomy import Taxonomy
from data.coco import Dataset
from data.layout import ANNOTATIONS, COLLECTED, MANIFEST, PICTURES, REPORTS, REVIEWED
from data.manifest import Manifest
from data.preparation import PreparationConfig

QUEUE = REPORTS / "queue.json"
DOUBTED = "Doubted"
"""Title of the tab that lists the tasks with a doubt."""
log = logging.getLogger(__name__)


def sync(
    config: AnnotationConfig, folder: Path, taxonomy: Taxonomy, preparation: PreparationConfig
) -> None:
    """Pull what is finished, bring the project up to date, push, and write the snapshot.

    Raises:
        ServerAwayError, KeyRefusedError, ProjectGoneError, ServerRefusedError: As they say.
        LabellingError: If the taxonomy cannot be had without losing work.
    """
    if config.offline:
        head = existing_head(folder)
        log.info("no server is asked; the snapshot of %d tasks stays", head.tasks)
        return
    server = Server(config.url, api_key(config.url))
    last = read_head(folder)
    project = _project(server, last, config, taxonomy)
    rows = without_duplicates(server, list(server.tasks(project)))
    head = Head(server.url, project, config.project)
    with pulled(server, project, rows, folder.parent) as found:
        since = _bring_up_to_date(server, project, config, taxonomy, found)
        reviewed = Manifest.read(REVIEWED / MANIFEST)
        _warn_of_gone(rows, reviewed)
        push = Push(server, project, config, taxonomy, preparation)
        push.run(
            rows,
            reviewed,
            Dataset.read(COLLECTED / ANNOTATIONS, taxonomy),
            queue=read_json(QUEUE) if QUEUE.exists() else None,
            finished=found.finished,
        )
        write_snapshot(folder, replace(head, since=since), found.lines())
    _log(last, found, len(rows))


def _project(
    server: Server, last: Head | None, config: AnnotationConfig, taxonomy: Taxonomy
) -> int:
    """Return the project's id; the first time, make it."""
    found = server.projects(config.project)
    if last is not None and (last.url, last.title) == (server.url, config.project):
        if last.project in found:
            return last.project
        raise ProjectGoneError(
            f"project {last.project} ({last.title!r}) of the last snapshot, with "
            f"{last.tasks} annotated tasks, is not on {server.url} any more. Restore it from "
            "a backup of the server; or name another annotation.project; or remove "
            "artifacts/snapshot/snapshot.json to begin anew with this title"
        )
    if len(found) > 1:
        raise ProjectGoneError(
            f"{server.url} has {len(found)} projects called {config.project!r} (ids "
            f"{', '.join(map(str, found))}); rename all but one, or name another in "
            "annotation.project"
        )
    if found:
        return found[0]
    made = labelling(taxonomy, keypoints=config.keypoints)
    project = server.create_project(config.project, label_config=made.xml)
    log.info("made project %d (%s) on %s", project, config.project, server.url)
    return project


def _bring_up_to_date(
    server: Server,
    project: int,
    config: AnnotationConfig,
    taxonomy: Taxonomy,
    found: Pulled,
) -> dict[str, str | None]:
    """Give the project today's taxonomy, instructions and pictures; return the moments."""
    there = server.project(project)
    drafts = server.draft_labels(project)
    used = Counter(found.used)
    for kind in TAGS.keys() & drafts.keys():
        used.update({(kind, label): count for label, count in drafts[kind].items()})
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    new = updated(
        there["label_config"],
        taxonomy,
        keypoints=config.keypoints,
        used=used,
        now=now,
        found_in=found.found_in,
    )
    serving = Serving.of(config)
    serving.open(server, project)
    wanted = {
        "label_config": new.xml,
        "expert_instruction": instructions(taxonomy, serving.guide(taxonomy)),
        "show_instruction": True,
        "sampling": "Sequential sampling",
        "maximum_annotations": config.annotators_per_picture,
        "show_collab_predictions": True,
        "enable_empty_annotation": True,
    }
    changed = {k: v for k, v in wanted.items() if _differs(k, there.get(k), v)}
    if changed:
        server.update_project(project, **changed)
        log.info("project %d: changed %s", project, ", ".join(changed))
    doubted = {"filter": "filter:tasks:data.doubt", "operator": "empty", "type": "String"}
    server.add_view(project, DOUBTED, [doubted | {"value": "false"}])
    return new.since


def _differs(name: str, there: Any, wanted: Any) -> bool:
    if name == "expert_instruction":
        # The server rewrites the tags of HTML; the words and the pictures' addresses stay.
        return _words(there) != _words(wanted)
    return bool(there != wanted)


def _words(text: Any) -> list[str]:
    plain = html.unescape(str(text))
    return re.findall(r'src="([^"]*)"', plain) + re.sub(r"<[^>]*>", " ", plain).split()


def _warn_of_gone(rows: Sequence[TaskRow], reviewed: Manifest) -> None:
    """Name open tasks that show annotators nothing; people may be at work on them: they stay."""
    there = {p.sha256 for p in reviewed.pictures if (PICTURES / p.file_name).is_file()}
    gone = [row for row in rows if not row.annotated + row.cancelled and row.sha256 not in there]
    if gone:
        log.warning(
            "%d open tasks have no picture any more (first: task %d, picture %s): it was collected "
            "no more, or rejected since. Delete these tasks in Label Studio, or bring the pictures "
            "back (dvc checkout artifacts/collected artifacts/reviewed)",
            len(gone),
            gone[0].id,
            str(gone[0].sha256)[:12],
        )


def _log(last: Head | None, found: Pulled, tasks: int) -> None:
    log.info("%d tasks before this turn, %d with annotations", tasks, len(found.finished))
    if last is not None and len(found.finished) < last.tasks:
        log.warning(
            "%d tasks that were annotated in the last snapshot are not any more; "
            "`dvc checkout artifacts/snapshot` at an earlier revision has them",
            last.tasks - len(found.finished),
        )
