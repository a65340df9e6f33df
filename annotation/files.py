"""Backend `files`: annotations are those that came with the source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from annotation.snapshot import FILE, SCHEMA_VERSION
from anonymization.files import folder_in_one_step, read_json, write_json
from data.coco import Dataset


def sync(folder: Path) -> None:
    """Write a constant snapshot: there is nothing to exchange."""
    with folder_in_one_step(folder) as work:
        write_json(work / FILE, {"schema_version": SCHEMA_VERSION, "backend": "files"})


def annotated(reviewed: Dataset, folder: Path) -> tuple[Dataset, dict[str, Any]]:
    """Return the reviewed pictures as they are: the collected labels are final."""
    read_json(folder / FILE, schema_version=SCHEMA_VERSION)
    pictures = {"reviewed": len(reviewed.images), "from_source": len(reviewed.images)}
    return reviewed, {"schema_version": SCHEMA_VERSION, "pictures": pictures}
