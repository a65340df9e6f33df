"""Step 3, first half: exchanges pictures and annotations with the backend.

Writes `artifacts/snapshot/snapshot.json`; it always runs, and an unchanged snapshot reruns nothing.
"""

from __future__ import annotations

from annotation.backend import AnnotationConfig, open_backend
from anonymization.files import write_json
from conf import stage
from data.layout import SNAPSHOT

SCHEMA_VERSION = 1
FILE = "snapshot.json"


@stage
def main(annotation: AnnotationConfig) -> None:
    """Sync and write the snapshot."""
    snapshot = open_backend(annotation).sync()
    write_json(SNAPSHOT / FILE, {"schema_version": SCHEMA_VERSION, **snapshot})


if __name__ == "__main__":
    main()
