"""Step 3, second half: turns reviewed pictures and the snapshot into COCO.

Reads `artifacts/reviewed`, `artifacts/collected` and `artifacts/snapshot`; writes
`artifacts/annotated/annotations.json`.
"""

from __future__ import annotations

import logging

from annotation.backend import AnnotationConfig, open_backend
from annotation.sync import FILE, SCHEMA_VERSION
from anonymization.files import read_json
from anonymization.taxonomy import Taxonomy
from conf import stage
from data.coco import Dataset
from data.layout import ANNOTATED, ANNOTATIONS, COLLECTED, MANIFEST, REVIEWED, SNAPSHOT
from data.manifest import Manifest

log = logging.getLogger(__name__)


def annotate(annotation: AnnotationConfig, taxonomy: Taxonomy) -> Dataset:
    """Return the reviewed pictures with the backend's annotations."""
    snapshot = read_json(SNAPSHOT / FILE, schema_version=SCHEMA_VERSION)
    reviewed = Manifest.read(REVIEWED / MANIFEST)
    collected = Dataset.read(COLLECTED / ANNOTATIONS, taxonomy)
    pictures = collected.subset(picture.sha256 for picture in reviewed.pictures)
    return open_backend(annotation).annotated(pictures, snapshot)


@stage
def main(annotation: AnnotationConfig, taxonomy: Taxonomy) -> None:
    """Annotate the reviewed pictures."""
    dataset = annotate(annotation, taxonomy)
    dataset.write(ANNOTATED / ANNOTATIONS, taxonomy)
    log.info("%d pictures, %d annotations", len(dataset.images), len(dataset.annotations))


if __name__ == "__main__":
    main()
