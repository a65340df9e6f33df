"""A real Label Studio server, shared by the tests of one session."""

from __future__ import annotations

import io
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from annotation.account import Account
from annotation.backend import AnnotationConfig
from annotation.client import KEY_VARIABLE, Server, TaskRow
from annotation.label_studio import sync
from annotation.reading import annotated
from annotation.server import LocalServer
from annotation.serving import ROOT_VARIABLE
from anonymization.files import write_json
from anonymization.taxonomy import ClassSpec, Taxonomy
from data.coco import Annotation, Dataset, Image
from data.layout import ANNOTATIONS, COLLECTED, MANIFEST, PICTURES, REVIEWED, SNAPSHOT
from data.manifest import Manifest, Picture
from data.preparation import PreparationConfig

REPOSITORY = Path(__file__).parents[2]
PROGRAM = REPOSITORY / ".venv-labelstudio/bin/label-studio"
TAXONOMY = Taxonomy(
    {
        "face": ClassSpec(geometry="ellipse", shape="ellipse"),
        "person": ClassSpec(geometry="mask", shape="outline"),
        "license_plate": ClassSpec(geometry="box", shape="box"),
    },
    keypoint_class="person",
)
WIDTH, HEIGHT = 160, 120
NO_REFERENCE = PreparationConfig(val=0.1, reference=0.0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Running:
    """The server of the session.

    Attributes:
        server: How it was started.
        account: Who may sign in.
        root: Folder that its local files start at.
    """

    server: LocalServer
    account: Account
    root: Path


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A fresh server on a free port of 127.0.0.1."""
    if not PROGRAM.is_file():
        pytest.skip("needs a Label Studio server: `make label-studio-install` puts it there")
    root = tmp_path_factory.mktemp("label-studio")
    server = LocalServer(folder=root / "server", program=PROGRAM, documents=root, port=free_port())
    with pytest.MonkeyPatch.context() as patch:
        # A test's object store stands on this machine, where the server would not look for one.
        patch.setenv("USE_DEFAULT_BANNED_SUBNETS", "false")
        account = server.start()
        yield Running(server, account, root)
        server.stop()


@pytest.fixture
def driver() -> str:
    """Path of the program that drives Chromium."""
    found = shutil.which("chromedriver")
    if found is None or shutil.which("chromium") is None:
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    return found


def picture_bytes(seed: int, *, on_its_side: bool = False) -> bytes:
    """Return a PNG, or a JPEG that EXIF turns by a quarter, of the same size when upright."""
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    size = (HEIGHT, WIDTH) if on_its_side else (WIDTH, HEIGHT)
    picture = Pillow.fromarray(blocks).resize(size, Pillow.Resampling.NEAREST)
    buffer = io.BytesIO()
    if on_its_side:
        exif = Pillow.Exif()
        exif[0x0112] = 6
        picture.save(buffer, "JPEG", exif=exif)
    else:
        picture.save(buffer, "PNG")
    return buffer.getvalue()


@dataclass
class Desk:
    """A working folder with collected pictures, and a project of its own on the server."""

    running: Running
    config: AnnotationConfig
    folder: Path

    def collect(
        self,
        count: int,
        labels: dict[int, list[Annotation]] | None = None,
        *,
        on_its_side: bool = False,
    ) -> list[str]:
        """Draw pictures with the labels of their source; return their SHA-256s."""
        import hashlib

        pictures, images, annotations = [], [], []
        for number in range(count):
            content = picture_bytes(number, on_its_side=on_its_side)
            sha256 = hashlib.sha256(content).hexdigest()
            path = PICTURES / f"{sha256}.{'jpg' if on_its_side else 'png'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            pictures.append(Picture(sha256, path.name, WIDTH, HEIGHT, "drawn", f"{number}.png"))
            found = (labels or {}).get(number, [])
            named = TAXONOMY.names if found else ()
            images.append(Image(number + 1, sha256, path.name, WIDTH, HEIGHT, named))
            annotations += [
                replace(a, id=len(annotations) + n, image_id=number + 1)
                for n, a in enumerate(found, start=1)
            ]
        Manifest(tuple(pictures)).write(REVIEWED / MANIFEST)
        Dataset(tuple(images), tuple(annotations)).write(COLLECTED / ANNOTATIONS, TAXONOMY)
        return [p.sha256 for p in pictures]

    def sync(self, *, taxonomy: Taxonomy = TAXONOMY, **changes: Any) -> None:
        sync(replace(self.config, **changes), SNAPSHOT, taxonomy, NO_REFERENCE)

    def annotated(self, **changes: Any) -> tuple[Dataset, dict[str, Any]]:
        collected = Dataset.read(COLLECTED / ANNOTATIONS, TAXONOMY)
        return annotated(replace(self.config, **changes), collected, SNAPSHOT, TAXONOMY)

    @property
    def server(self) -> Server:
        return Server(self.config.url, self.running.account.token)

    @property
    def project(self) -> int:
        (found,) = self.server.projects(self.config.project)
        return found

    def tasks(self) -> list[TaskRow]:
        return list(self.server.tasks(self.project))

    def submit(self, task: int, results: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
        """Submit an annotation as the browser does."""
        return self.post(f"api/tasks/{task}/annotations/", {"result": results, **fields})

    def post(self, path: str, body: dict[str, Any], *, method: str = "POST") -> dict[str, Any]:
        return dict(self.server._raw(method, path, json=body))

    def doubt(self, reasons: dict[str, str]) -> None:
        """Write validation's queue."""
        rows = [{"sha256": s, "origin": None, "reasons": [r]} for s, r in reasons.items()]
        write_json(
            Path("reports/queue.json"),
            {"schema_version": 1, "reannotate": rows, "collect": []},
        )

    def snapshot_bytes(self) -> list[tuple[str, bytes]]:
        return [(p.name, p.read_bytes()) for p in sorted(SNAPSHOT.iterdir())]


@pytest.fixture
def desk(
    label_studio: Running, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """A desk whose project is named after the test."""
    folder = label_studio.root / f"desk-{os.getpid()}-{request.node.name[-60:]}"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv(KEY_VARIABLE, label_studio.account.token)
    monkeypatch.setenv(ROOT_VARIABLE, str(label_studio.root))
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    # Drawing the instructions' pictures takes seconds and has a test of its own.
    monkeypatch.setattr("annotation.serving.draw_guide", lambda folder, taxonomy: {})
    config = AnnotationConfig(
        backend="label_studio",
        url=label_studio.server.url,
        project=f"{request.node.name[-40:]} {os.getpid()}",
        predictions=None,
    )
    return Desk(label_studio, config, folder)


@pytest.fixture
def drawn() -> Callable[[], list[Annotation]]:
    """Returns a face, a person in two pieces with keypoints, and a turned plate."""

    def make() -> list[Annotation]:
        pieces = [[10.0, 40, 40, 40, 40, 110], [50.0, 40, 60, 40, 60, 110]]
        points = ((20.0, 45.0, 2), (21.5, 44.0, 1), *[(0.0, 0.0, 0)] * 15)
        said = {"identifiable": True, "occluded": False}
        return [
            Annotation(1, 1, "face", (10, 10, 40, 40), attributes=said),
            Annotation(2, 1, "person", (10, 40, 60, 110), pieces, keypoints=points),
            Annotation(3, 1, "license_plate", (100, 80, 140, 90)),
        ]

    return make
