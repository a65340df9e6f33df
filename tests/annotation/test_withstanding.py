"""What goes wrong around a real server and its pictures, over HTTP."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from annotation.client import Server, ServerAwayError
from annotation.labelling import LabellingError
from annotation.regions import Size
from annotation.snapshot import read_head
from annotation.to_label_studio import annotations_to_results
from anonymization.taxonomy import ClassSpec, Taxonomy
from data.coco import Annotation
from data.layout import MANIFEST, PICTURES, REVIEWED, SNAPSHOT
from data.manifest import Manifest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("label_studio")]

FACES = Taxonomy({"face": ClassSpec(geometry="ellipse", shape="ellipse")})
SIZE = Size(160, 120)


def faces(*starts: float) -> list[dict]:
    """Regions of faces of 30 by 30 pixels, that start at these columns."""
    drawn = [
        Annotation(n, 1, "face", (x, 10, x + 30, 40), attributes={"identifiable": True})
        for n, x in enumerate(starts, start=1)
    ]
    return annotations_to_results(drawn, FACES, SIZE)


@pytest.mark.parametrize("delay_s", [0.0, 0.1])  # before the server has read it, and while it saves
def test_a_push_in_which_the_server_is_killed_is_completed_by_the_next(desk, monkeypatch, delay_s):
    count = 500
    sha256s = desk.collect(count)
    calls, add_tasks = [], Server.add_tasks

    def killing(*words):
        calls.append(words)
        if len(calls) == 12:
            pid = json.loads((desk.running.server.folder / "server.json").read_text())["pid"]
            threading.Timer(delay_s, os.kill, [pid, signal.SIGKILL]).start()
        add_tasks(*words)

    monkeypatch.setattr(Server, "add_tasks", killing)
    with pytest.raises(ServerAwayError, match=r"does not answer .*annotation\.sync: false"):
        desk.sync(tasks_per_turn=count)
    assert not SNAPSHOT.exists()
    monkeypatch.setattr(Server, "add_tasks", add_tasks)
    desk.running.server.start()
    assert 0 < len(desk.tasks()) < count
    desk.sync(tasks_per_turn=count)
    assert sorted(row.sha256 for row in desk.tasks()) == sorted(sha256s)


def test_second_opinions_of_two_accounts_are_compared(desk):
    desk.collect(2)
    desk.sync(annotators_per_picture=2)
    task, _ = desk.tasks()
    email = f"second-{os.getpid()}@example.com"
    second = desk.post("api/users/", {"email": email, "username": email, "first_name": "Second"})
    desk.submit(task.id, faces(10, 60))
    assert not desk.server._raw("GET", f"api/tasks/{task.id}/")["is_labeled"]  # wants another
    desk.submit(task.id, faces(10), completed_by=second["id"])
    desk.sync(annotators_per_picture=2)
    dataset, report = desk.annotated()
    # Two and one faces, of which one pair is the same: 2 * 1 / 3.
    assert report["agreement"] == {
        "pairs": 1,
        "classes": {"face": {"objects": 3, "agreement": 0.6667, "mean_iou": 1.0}},
        "identifiable": 1.0,
    }
    assert [a.attributes["annotator"] for a in dataset.annotations] == [second["id"]]
    assert report["problems"][0]["problem"] == (
        f"annotator 1 drew 1 face that annotator {second['id']} did not"
    )


def test_a_label_that_the_taxonomy_lacks_stops_the_loop_at_its_annotation(desk):
    desk.collect(1)
    desk.sync()
    (task,) = desk.tasks()
    wrong = faces(10)
    wrong[0]["value"]["ellipselabels"] = ["fce"]
    made = desk.submit(task.id, wrong)
    expected = (
        rf"no class 'fce', but 1 ellipse regions .*annotation {made['id']} of task {task.id}.*"
        "Keep the class in conf/taxonomy, or give these regions another label"
    )
    with pytest.raises(LabellingError, match=expected):
        desk.sync()


def test_a_draft_with_a_class_that_is_dropped_is_not_lost(desk):
    desk.collect(1)
    desk.sync()
    (task,) = desk.tasks()
    desk.post(f"api/tasks/{task.id}/drafts", {"result": faces(10), "lead_time": 1})
    persons = Taxonomy({"person": ClassSpec(geometry="mask", shape="outline")})
    with pytest.raises(LabellingError, match=r"no class 'face', but 1 ellipse regions .*in drafts"):
        desk.sync(taxonomy=persons)


def test_an_empty_region_is_named_with_its_task_and_annotation(desk):
    desk.collect(1)
    desk.sync()
    (task,) = desk.tasks()
    click = faces(10, 60)
    click[0]["value"] |= {"radiusX": 0, "radiusY": 0}
    made = desk.submit(task.id, click)
    desk.sync()
    dataset, report = desk.annotated()
    assert [a.box_xyxy for a in dataset.annotations] == [(60, 10, 90, 40)]
    (problem,) = report["problems"]
    assert (problem["task"], problem["annotation"]) == (task.id, made["id"])
    assert re.fullmatch(
        r"region object-1 \(face, at \d+ % from the left, \d+ % from the top\) is empty",
        problem["problem"],
    )


def test_tasks_whose_pictures_are_gone_are_named_and_the_rest_goes_on(desk, caplog):
    caplog.set_level(logging.WARNING)
    desk.collect(3)
    desk.sync()
    rejected, lost, kept = desk.tasks()
    for row in (rejected, kept):
        desk.submit(row.id, faces(10))
    manifest = Manifest.read(REVIEWED / MANIFEST)
    left = tuple(p for p in manifest.pictures if p.sha256 != rejected.sha256)
    replace(manifest, pictures=left).write(REVIEWED / MANIFEST)
    (PICTURES / f"{lost.sha256}.png").unlink()
    desk.sync()
    assert f"1 open tasks have no picture any more (first: task {lost.id}" in caplog.text
    assert read_head(SNAPSHOT).tasks == 2
    reviewed = desk.annotated()[0]
    assert kept.sha256 in {image.sha256 for image in reviewed.images}


def test_a_picture_that_is_gone_before_it_became_a_task_is_named(desk):
    (sha256,) = desk.collect(1)
    (PICTURES / f"{sha256}.png").unlink()
    with pytest.raises(Exception, match=rf"{sha256}\.png"):
        desk.sync()
    assert desk.tasks() == []


def test_the_champions_finds_are_what_annotators_correct(desk, constant_networks, tmp_path):
    from anonymization.bundle import write_bundle
    from anonymization.card import Card, GraphCard, GraphInput

    graph = constant_networks.constant_graph(
        constant_networks.mask_outputs([([20.0, 15.0, 60.0, 55.0], 0.9, 0)])
    )
    card = Card(
        FACES, {"face": 0.5}, {"mask_rcnn": GraphCard("m.onnx", "", GraphInput(160), ("face",))}
    )
    bundle = write_bundle(tmp_path / "bundle", card, {"mask_rcnn": graph})
    desk.collect(1)
    desk.sync(predictions=str(tmp_path / "bundle"))
    (row,) = desk.tasks()
    (prediction,) = desk.server._raw("GET", f"api/tasks/{row.id}/")["predictions"]
    assert prediction["model_version"].endswith(bundle.digest[:12])
    (region,) = prediction["result"]
    assert (region["type"], region["value"]["ellipselabels"]) == ("ellipselabels", ["face"])
    assert region["score"] == pytest.approx(0.9, abs=1e-3)
    # As an annotator submits what he finds right.
    desk.submit(row.id, prediction["result"])
    desk.sync(predictions=str(tmp_path / "bundle"))
    (face,) = desk.annotated()[0].annotations
    assert face.box_xyxy == pytest.approx((20, 15, 60, 55), abs=1)
    assert Path(SNAPSHOT / "tasks.jsonl").read_text().count(row.sha256) == 1
