"""Backend `files`: the labels that came with the source, for the pictures that review kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from annotation.__main__ import annotate
from annotation.backend import AnnotationConfig, AnnotationError
from annotation.sync import sync
from anonymization.files import FileError
from anonymization.taxonomy import ClassSpec, Taxonomy
from data.coco import Annotation, Dataset, Image
from data.layout import ANNOTATIONS, COLLECTED, MANIFEST, REVIEWED, SNAPSHOT
from data.manifest import Manifest, Picture
from data.preparation import PreparationConfig

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
    sync(AnnotationConfig(), PreparationConfig(), TAXONOMY)
    dataset, report = annotate(AnnotationConfig(), TAXONOMY)
    assert report["pictures"] == {"reviewed": 1, "from_source": 1}
    assert [i.sha256 for i in dataset.images] == [SHAS[1]]
    assert [a.image_id for a in dataset.annotations] == [2]


def test_the_snapshot_is_constant() -> None:
    found = []
    for _ in range(2):
        sync(AnnotationConfig(), PreparationConfig(), TAXONOMY)
        found.append([(p.name, p.read_bytes()) for p in SNAPSHOT.iterdir()])
    assert found[0] == found[1]


def test_without_a_snapshot_the_step_says_what_to_run() -> None:
    with pytest.raises(FileError, match=r"snapshot\.json is missing; run the stage"):
        annotate(AnnotationConfig(), TAXONOMY)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "fles"}, "'fles'; expected one of files, label_studio"),
        ({"url": "ftp://x"}, "expected http://host:port"),
        ({"url": "http://me:secret@host"}, "without a name or password"),
        ({"project": "ab"}, "3 to 50 characters"),
        ({"pictures": "http://public"}, "expected local_files or an address"),
        ({"annotators_per_picture": 0}, "annotators_per_picture is 0"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        AnnotationConfig(**settings)
