"""Step 3, second half: turns reviewed pictures and the snapshot into COCO.

Reads `artifacts/reviewed`, `artifacts/collected` and `artifacts/snapshot`; writes
`artifacts/annotated/annotations.json` and `reports/annotation.json`: how many pictures wait, how
far annotators agree, what was wrong. It asks no server.
"""

from __future__ import annotations

import logging
from typing import Any

from annotation.backend import AnnotationConfig
from anonymization.files import folder_in_one_step, write_json
from anonymization.taxonomy import Taxonomy
from conf import stage
from data.coco import Dataset
from data.layout import ANNOTATED, ANNOTATIONS, COLLECTED, MANIFEST, REPORTS, REVIEWED, SNAPSHOT
from data.manifest import Manifest

log = logging.getLogger(__name__)


def annotate(annotation: AnnotationConfig, taxonomy: Taxonomy) -> tuple[Dataset, dict[str, Any]]:
    """Return the reviewed pictures with the backend's annotations, and the report."""
    reviewed = Manifest.read(REVIEWED / MANIFEST)
    collected = Dataset.read(COLLECTED / ANNOTATIONS, taxonomy)
    pictures = collected.subset(picture.sha256 for picture in reviewed.pictures)
    if annotation.backend == "label_studio":
        from annotation.reading import annotated

        return annotated(annotation, pictures, SNAPSHOT, taxonomy)
    from annotation import files

    return files.annotated(pictures, SNAPSHOT)


@stage
def main(annotation: AnnotationConfig, taxonomy: Taxonomy) -> None:
    """Annotate the reviewed pictures."""
    dataset, report = annotate(annotation, taxonomy)
    with folder_in_one_step(ANNOTATED) as work:
        dataset.write(work / ANNOTATIONS, taxonomy)
    write_json(REPORTS / "annotation.json", report)
    log.info("%d pictures, %d annotations", len(dataset.images), len(dataset.annotations))


if __name__ == "__main__":
    main()
