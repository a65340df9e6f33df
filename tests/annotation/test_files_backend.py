"""Backend `files`: the labels that came with the source, for the pictures that review kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from annotation.__main__ import annotate
from annotation.backend import AnnotationConfig, AnnotationError, open_backend
from annotation.sync import FILE
from anonymization.files import FileError, write_json
from anonymization.taxonomy import ClassSpec, Taxonomy
from data.coco import Annotation, Dataset, Image
from data.layout import ANNOTATIONS, COLLECTED, MANIFEST, REVIEWED, SNAPSHOT
from data.manifest import Manifest, Picture

TAXONOMY = Taxonomy({"face": ClassSpec(geometry="ellipse", shape="ellipse")})
SHAS = ("1" * 64, "2" * 64)


@pytest.fixture(autouse=True)
def _steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two collected pictures, of which review kept the second."""
    monkeypatch.chdir(tmp_path)
    images = tuple(Image(n + 1, sha, f"{sha}.png", 9, 9) for n, sha in enumerate(SHAS))
    boxes = tuple(Annotation(n, n, "face", (0, 0, 5, 5)) for n in (1, 2))
    Dataset(images, boxes).write(COLLECTED / ANNOTATIONS, TAXONOMY)
    kept = Picture(SHAS[1], f"{SHAS[1]}.png", 9, 9, "folder-a", "b.png")
    Manifest((kept,)).write(REVIEWED / MANIFEST)


def test_reviewed_pictures_keep_their_labels() -> None:
    snapshot = open_backend(AnnotationConfig()).sync()
    write_json(SNAPSHOT / FILE, {"schema_version": 1, **snapshot})
    dataset = annotate(AnnotationConfig(), TAXONOMY)
    assert [i.sha256 for i in dataset.images] == [SHAS[1]]
    assert [a.image_id for a in dataset.annotations] == [2]


def test_the_snapshot_is_constant() -> None:
    assert open_backend(AnnotationConfig()).sync() == {"backend": "files"}


def test_without_a_snapshot_the_step_says_what_to_run() -> None:
    with pytest.raises(FileError, match=r"snapshot\.json is missing; run the stage"):
        annotate(AnnotationConfig(), TAXONOMY)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(AnnotationError, match="'fles'; expected one of files"):
        AnnotationConfig(backend="fles")
