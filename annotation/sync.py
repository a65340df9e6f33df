"""Step 3, first half: exchanges pictures and annotations with the backend.

Writes `artifacts/snapshot`; it always runs, and an unchanged snapshot reruns nothing. Inside an
experiment and with `annotation.sync: false` it touches no server and leaves the snapshot as it is.
"""

from __future__ import annotations

from annotation.backend import AnnotationConfig
from anonymization.taxonomy import Taxonomy
from conf import stage
from data.layout import SNAPSHOT
from data.preparation import PreparationConfig


def sync(annotation: AnnotationConfig, preparation: PreparationConfig, taxonomy: Taxonomy) -> None:
    """Bring the snapshot up to date with the configured backend."""
    if annotation.backend == "label_studio":
        from annotation import label_studio

        label_studio.sync(annotation, SNAPSHOT, taxonomy, preparation)
    else:
        from annotation import files

        files.sync(SNAPSHOT)


@stage
def main(annotation: AnnotationConfig, preparation: PreparationConfig, taxonomy: Taxonomy) -> None:
    """Sync and write the snapshot."""
    sync(annotation, preparation, taxonomy)


if __name__ == "__main__":
    main()
