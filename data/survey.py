"""Step 1, first half: looks at the sources and writes what is there to `artifacts/survey.json`.

It runs at every `dvc repro`; collection depends on its output, so new, changed, removed and
expired pictures are noticed at the cost of a listing.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from anonymization.files import read_json, write_json
from conf import stage
from data.layout import SURVEY
from data.sources.opening import CollectionConfig, open_sources

SCHEMA_VERSION = 1
log = logging.getLogger(__name__)


def survey(config: CollectionConfig, path: Path = SURVEY) -> dict[str, Any]:
    """Survey the configured sources and write the result if it differs from the last one."""
    sources = [{"id": s.id, "survey": s.survey()} for s in open_sources(config)]
    values = {"schema_version": SCHEMA_VERSION, "sources": sources}
    if not path.exists() or read_json(path) != values:
        write_json(path, values, indent=None)
    return values


@stage
def main(collection: CollectionConfig) -> None:
    """Survey the sources."""
    values = survey(collection)
    for source in values["sources"]:
        entries = source["survey"].get("entries")
        log.info("%s: %s", source["id"], f"{len(entries)} pictures" if entries else "surveyed")


if __name__ == "__main__":
    main()
