"""The stages under DVC: what happens without the server, and inside an experiment."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from annotation.client import KEY_VARIABLE, Server
from annotation.regions import Size
from annotation.serving import ROOT_VARIABLE
from annotation.snapshot import Head, write_snapshot
from annotation.to_label_studio import annotations_to_results
from anonymization.taxonomy import ClassSpec, Taxonomy
from data.coco import Annotation

NOWHERE = "http://127.0.0.1:9"
TAXONOMY = Taxonomy({"face": ClassSpec(geometry="ellipse", shape="ellipse")})


def snapshot_line(picture: dict[str, Any]) -> dict[str, Any]:
    size = Size(picture["width"], picture["height"])
    face = Annotation(1, 1, "face", (10, 10, 40, 50))
    annotation = {
        "id": 5,
        "annotator": 2,
        "created_at": "2026-05-04T10:00:00Z",
        "updated_at": "2026-05-04T10:00:00Z",
        "lead_time": 3.0,
        "ground_truth": False,
        "skipped": False,
        "result": annotations_to_results([face], TAXONOMY, size),
    }
    return {"sha256": picture["sha256"], "task": 9, "annotations": [annotation]}


@pytest.mark.slow
def test_without_the_server_the_last_snapshot_goes_on_to_count(turned):
    """One story, as every `dvc repro` takes seconds."""
    name = "conf/annotation/label_studio.yaml"
    turned.edit("conf/config.yaml", "- annotation: files", "- annotation: label_studio")
    turned.edit(name, "url: http://127.0.0.1:8080", f"url: {NOWHERE}")
    turned.environment["LABEL_STUDIO_API_KEY"] = "0000secret0000"

    stopped = turned.dvc("repro", "annotation", check=False)
    assert stopped.returncode != 0
    assert "does not answer" in stopped.stderr
    assert "annotation.sync: false" in stopped.stderr

    turned.edit(name, "sync: true", "sync: false")
    stopped = turned.dvc("repro", "annotation", check=False)
    assert "holds no snapshot of Label Studio" in stopped.stderr

    manifest = json.loads(turned.read("artifacts/reviewed/manifest.json"))
    line = snapshot_line(manifest["pictures"][0])
    folder: Path = turned.path / "artifacts/snapshot"
    since = dict.fromkeys(["face", "person", "license_plate", "vehicle"])
    write_snapshot(folder, Head(NOWHERE, 1, "Blurloop", since), [line])
    turned.dvc("repro", "annotation")
    labelled = json.loads(turned.read("artifacts/annotated/annotations.json"))
    assert [image["sha256"] for image in labelled["images"]] == [line["sha256"]]
    assert [a["attributes"]["annotator"] for a in labelled["annotations"]] == [2]

    again = turned.dvc("repro", "annotation")
    assert "Stage 'annotation' didn't change, skipping" in again.stdout

    turned.edit(name, "sync: false", "sync: true")
    turned.python("conf")
    turned.commit("an experiment asks no server")
    turned.dvc("exp", "run", "--temp", "-S", "annotation.tasks_per_turn=1", "annotation")
    for path in ("params.yaml", "dvc.lock", "reports/annotation.json"):
        assert "0000secret0000" not in turned.read(path)


@pytest.mark.slow
@pytest.mark.xdist_group("label_studio")
def test_plain_dvc_repro_follows_the_annotators_and_tells_nobody_the_key(turned, label_studio):
    """One story: nobody is finished, one is, nothing new, an old revision, no trace of the key."""
    repository = turned.copy(label_studio.root / f"repository-{os.getpid()}")
    key = label_studio.account.token
    repository.environment |= {KEY_VARIABLE: key, ROOT_VARIABLE: str(label_studio.root)}
    title = f"Followed {os.getpid()}"
    name = "conf/annotation/label_studio.yaml"
    repository.edit("conf/config.yaml", "- annotation: files", "- annotation: label_studio")
    repository.edit(name, "url: http://127.0.0.1:8080", f"url: {label_studio.server.url}")
    repository.edit(name, "project: Blurloop", f"project: {title}")
    repository.edit(name, "tasks_per_turn: 200", "tasks_per_turn: 2")

    repository.dvc("repro", "annotation")
    assert images(repository) == []
    server = Server(label_studio.server.url, key)
    (project,) = server.projects(title)
    one, other = server.tasks(project)

    face = Annotation(1, 1, "face", (10, 10, 40, 50))
    manifest = json.loads(repository.read("artifacts/reviewed/manifest.json"))
    sizes = {p["sha256"]: Size(p["width"], p["height"]) for p in manifest["pictures"]}
    for task in (one, other):
        regions = annotations_to_results([face], TAXONOMY, sizes[task.sha256])
        server._raw("POST", f"api/tasks/{task.id}/annotations/", json={"result": regions})
        repository.dvc("repro", "annotation")
        assert task.sha256 in images(repository)
        repository.commit("one more picture is annotated")
    again = repository.dvc("repro", "annotation")
    assert "Stage 'annotation' didn't change, skipping" in again.stdout

    # The revision before, on a machine from which no server is reached.
    repository.run("git", "checkout", "--quiet", "HEAD~1")
    repository.dvc("checkout", "artifacts/annotated", "artifacts/snapshot")
    repository.edit(name, "sync: true", "sync: false")
    del repository.environment[KEY_VARIABLE]
    repository.dvc("repro", "annotation")
    assert images(repository) == [one.sha256]

    history = repository.run("git", "log", "--all", "-p").stdout
    assert key not in history
    for path in repository.path.rglob("*"):
        assert not path.is_file() or key.encode() not in path.read_bytes(), path


def images(repository: Any) -> list[str]:
    labelled = json.loads(repository.read("artifacts/annotated/annotations.json"))
    return [image["sha256"] for image in labelled["images"]]
