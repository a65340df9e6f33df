"""The loop against a real Label Studio server, over HTTP."""

from __future__ import annotations

import base64
import json
import logging
import os
import signal
import subprocess
import sys
import tracemalloc
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotation.client import (
    KeyRefusedError,
    ProjectGoneError,
    Server,
    ServerAwayError,
)
from annotation.label_studio import DOUBTED
from annotation.labelling import LabellingError, read_pairs
from annotation.regions import Size
from annotation.snapshot import read_head
from annotation.to_label_studio import annotations_to_results
from anonymization.taxonomy import ClassSpec, Taxonomy
from data.coco import Annotation, mask_to_rle
from data.layout import PICTURES, SNAPSHOT

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("label_studio")]


@pytest.fixture
def results(desk, drawn):
    """Regions of the drawn objects."""
    return annotations_to_results(drawn(), _taxonomy(), Size(160, 120))


def _taxonomy() -> Taxonomy:
    return Taxonomy(
        {
            "face": ClassSpec(geometry="ellipse", shape="ellipse"),
            "person": ClassSpec(geometry="mask", shape="outline"),
            "license_plate": ClassSpec(geometry="box", shape="box"),
        },
        keypoint_class="person",
    )


def test_pictures_become_tasks_once_and_finished_ones_come_back(desk, results):
    sha256s = desk.collect(4)
    desk.sync(tasks_per_turn=3)
    assert len(desk.tasks()) == 3
    desk.sync()
    desk.sync()
    tasks = desk.tasks()
    assert sorted(row.sha256 for row in tasks) == sorted(sha256s)
    first, second, third, _ = tasks
    desk.submit(first.id, results, lead_time=12.5)
    desk.submit(second.id, [], was_cancelled=True)
    desk.post(f"api/tasks/{third.id}/drafts", {"result": results, "lead_time": 1})
    desk.sync()
    before = desk.snapshot_bytes()
    desk.sync()
    assert desk.snapshot_bytes() == before
    dataset, report = desk.annotated()
    assert [image.sha256 for image in dataset.images] == [first.sha256]
    assert Counter(a.class_name for a in dataset.annotations) == {
        "face": 1, "person": 1, "license_plate": 1,
    }  # fmt: skip
    face, person, plate = dataset.annotations
    assert (face.attributes["identifiable"], face.attributes["occluded"]) == (True, False)
    assert face.attributes["annotator"] == 1
    assert person.segmentation == [[10, 40, 40, 40, 40, 110], [50, 40, 60, 40, 60, 110]]
    assert person.keypoints[:2] == ((20, 45, 2), (21.5, 44, 1))
    assert plate.box_xyxy == (100, 80, 140, 90)
    assert report["pictures"]["skipped"] == 1
    assert report["pictures"]["waiting"] == 2


def test_pictures_are_served_to_members_of_the_project_alone(desk):
    desk.collect(1)
    desk.sync()
    (task,) = desk.tasks()
    url = desk.config.url + task.data["image"]
    signed_in = urllib.request.Request(
        url, headers={"Authorization": f"Token {desk.running.account.token}"}
    )
    with urllib.request.urlopen(signed_in) as answer:
        assert answer.read() == (PICTURES / f"{task.sha256}.png").read_bytes()
    with pytest.raises(urllib.error.HTTPError, match=r"401|403"):
        urllib.request.urlopen(url)


def test_people_correct_what_was_predicted_but_not_in_pictures_that_judge(desk, drawn):
    from data.preparation import PreparationConfig

    sha256s = desk.collect(2, {0: drawn(), 1: drawn()})
    desk.doubt(dict.fromkeys(sha256s, "the face is too small"))
    desk.sync(source_labels=True)
    for row in desk.tasks():
        task = desk.server._raw("GET", f"api/tasks/{row.id}/")
        (prediction,) = task["predictions"]
        assert len(prediction["result"]) >= 6
        assert row.data["doubt"] == "the face is too small"
    from annotation.label_studio import sync

    desk.config = type(desk.config)(
        **{**desk.config.__dict__, "project": "all reference", "source_labels": True}
    )
    everything = PreparationConfig(val=0.0, reference=0.99)
    sync(desk.config, Path("second"), _taxonomy(), everything)
    for row in desk.tasks():
        assert desk.server._raw("GET", f"api/tasks/{row.id}/")["predictions"] == []


def test_a_doubted_picture_comes_back_until_somebody_has_looked(desk, results):
    desk.collect(2)
    desk.sync()
    task = desk.tasks()[0]
    desk.submit(task.id, results)
    desk.sync()
    desk.doubt({task.sha256: "face 1 is 3.0 x 4.0 px"})
    desk.sync()
    again = desk.server._raw("GET", f"api/tasks/{task.id}/")
    assert again["data"]["doubt"] == "face 1 is 3.0 x 4.0 px"
    assert (again["is_labeled"], again["overlap"]) == (False, 2)
    views = desk.server._raw("GET", "api/dm/views/", params={"project": desk.project})
    doubted = next(view["id"] for view in views if view["data"]["title"] == DOUBTED)
    shown = desk.server._raw("GET", "api/tasks/", params={"view": doubted, "project": desk.project})
    assert [row["id"] for row in shown["tasks"]] == [task.id]
    (annotation,) = again["annotations"]
    path = f"api/annotations/{annotation['id']}/"
    desk.post(path, {"result": results[:1], "lead_time": 3}, method="PATCH")
    desk.doubt({task.sha256: "face 9 is 3.0 x 4.0 px"})  # the same doubt, numbered anew
    desk.sync()
    desk.sync()
    answered = desk.server._raw("GET", f"api/tasks/{task.id}/")
    assert (answered["data"]["doubt"], answered["is_labeled"]) == ("", True)
    assert len(desk.annotated()[0].annotations) == 1


def test_a_push_that_is_killed_is_completed_by_the_next(desk):
    count = 500
    sha256s = desk.collect(count)
    program = (
        "import json, os, signal, sys, threading\n"
        "from pathlib import Path\n"
        "from annotation.backend import AnnotationConfig\n"
        "from annotation.client import Server\n"
        "from annotation.label_studio import sync\n"
        "from anonymization.taxonomy import Taxonomy\n"
        "from data.preparation import PreparationConfig\n"
        "calls, add = [], Server.add_tasks\n"
        "def add_tasks(*words):\n"
        "    calls.append(words)\n"
        "    if len(calls) == 4:  # killed while the server is at work on the fourth batch\n"
        "        kill = lambda: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        threading.Timer(0.05, kill).start()\n"
        "    add(*words)\n"
        "Server.add_tasks = add_tasks\n"
        "config, taxonomy = json.loads(sys.argv[1]), json.loads(sys.argv[2])\n"
        "sync(AnnotationConfig(**config), Path('artifacts/snapshot'),\n"
        "     Taxonomy.from_dict(taxonomy), PreparationConfig(val=0.1, reference=0.0))\n"
    )
    config = desk.config.__dict__ | {"tasks_per_turn": count}
    words = [json.dumps(config), json.dumps(_taxonomy().to_dict())]
    ended = subprocess.run([sys.executable, "-c", program, *words], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert 0 < len(desk.tasks()) < count
    assert not SNAPSHOT.exists()
    desk.sync(tasks_per_turn=count)
    assert sorted(row.sha256 for row in desk.tasks()) == sorted(sha256s)


def test_a_second_task_of_one_picture_is_deleted_unless_somebody_worked_on_it(desk, results):
    desk.collect(2)
    desk.sync()
    one, other = desk.tasks()
    desk.server.add_tasks(desk.project, [{"data": one.data}, {"data": other.data}])
    *_, copy_of_other = desk.tasks()
    desk.submit(copy_of_other.id, results)
    desk.sync()
    assert [row.id for row in desk.tasks()] == [one.id, copy_of_other.id]


def test_a_server_that_is_away_is_named_with_the_switch(desk):
    desk.collect(1)
    with pytest.raises(ServerAwayError, match=r"does not answer .*annotation\.sync: false"):
        desk.sync(url="http://127.0.0.1:9")


def test_a_wrong_key_is_refused_and_never_shown(desk, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    desk.collect(1)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "0000wrong0000")
    with pytest.raises(KeyRefusedError, match="refuses the key") as failed:
        desk.sync()
    assert "0000wrong0000" not in str(failed.value)
    assert "0000wrong0000" not in caplog.text
    monkeypatch.delenv("LABEL_STUDIO_API_KEY")
    with pytest.raises(KeyRefusedError, match="set LABEL_STUDIO_API_KEY to the token"):
        desk.sync()


def test_the_key_is_in_no_file_and_no_log(desk, caplog):
    caplog.set_level(logging.DEBUG)
    desk.collect(1)
    desk.sync()
    token = desk.running.account.token
    assert token not in caplog.text
    for path in Path().rglob("*"):
        assert not path.is_file() or token.encode() not in path.read_bytes(), path


def test_personal_access_tokens_are_taken_and_expired_or_revoked_ones_named(
    desk, monkeypatch, caplog
):
    caplog.set_level(logging.DEBUG)
    desk.collect(1)
    token = desk.post("api/token/", {})["token"]
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", token)
    desk.sync()
    assert len(desk.tasks()) == 1
    old = base64.urlsafe_b64encode(b'{"token_type":"refresh","exp":1000000000}').rstrip(b"=")
    head, _, signature = token.split(".")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", f"{head}.{old.decode()}.{signature}")
    with pytest.raises(KeyRefusedError, match="expired"):
        desk.sync()
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", token)
    desk.server._client.tokens.blacklist(refresh=token)
    with pytest.raises(KeyRefusedError, match="refuses the key") as failed:
        desk.sync()
    assert token not in caplog.text + str(failed.value)


def test_a_deleted_project_is_not_begun_anew_by_itself(desk):
    desk.collect(1)
    desk.sync()
    desk.server._client.projects.delete(desk.project)
    with pytest.raises(ProjectGoneError, match=r"of the last snapshot.*Restore it from a backup"):
        desk.sync()


def test_the_taxonomy_may_grow_and_may_not_drop_what_people_drew(desk, results):
    desk.collect(1)
    desk.sync()
    task = desk.tasks()[0]
    desk.submit(task.id, results)
    dog = ClassSpec(geometry="mask", shape="outline")
    larger = Taxonomy({**_taxonomy().classes, "dog": dog}, keypoint_class="person")
    desk.sync(taxonomy=larger)
    pairs, since = read_pairs(desk.server.project(desk.project)["label_config"])
    assert ("brush", "dog") in pairs
    assert since["dog"]
    assert read_head(SNAPSHOT).since == since
    dataset, _ = desk.annotated()
    assert dataset.images[0].labelled == ("face", "person", "license_plate")
    fewer = Taxonomy({"face": larger["face"], "dog": larger["dog"]})
    with pytest.raises(LabellingError, match=r"no class '(person|license_plate)', but \d"):
        desk.sync(taxonomy=fewer)
    assert read_pairs(desk.server.project(desk.project)["label_config"])[0] == pairs


def test_no_server_is_asked_in_an_experiment_or_with_the_switch_off(desk, results, monkeypatch):
    desk.collect(1)
    desk.sync()
    desk.submit(desk.tasks()[0].id, results)
    before = desk.snapshot_bytes()
    nowhere = {"url": "http://127.0.0.1:9"}
    desk.sync(sync=False, **nowhere)
    monkeypatch.setenv("DVC_EXP_NAME", "fast-fox")
    desk.sync(**nowhere)
    assert desk.snapshot_bytes() == before
    monkeypatch.delenv("DVC_EXP_NAME")
    desk.sync()
    assert desk.snapshot_bytes() != before


def test_many_tasks_are_pulled_page_by_page_in_memory_that_does_not_grow_with_them(desk):
    desk.collect(1)
    desk.sync()
    noise = np.zeros((120, 160), bool)
    noise[:60] = np.random.default_rng(0).random((60, 160)) < 0.5
    brush = Annotation(1, 1, "person", (0, 0, 160, 120), mask_to_rle(noise))
    results = annotations_to_results([brush], _taxonomy(), Size(160, 120))

    def add(first: int, last: int) -> None:
        for start in range(first, last, 100):
            numbers = range(start, start + 100)
            desk.server.add_tasks(desk.project, [_annotated_task(n, results) for n in numbers])

    def pulled() -> tuple[float, float]:
        """Return the peak of memory, and the size of the snapshot."""
        tracemalloc.start()
        desk.sync()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak, (SNAPSHOT / "tasks.jsonl").stat().st_size

    add(0, 200)
    few, small = pulled()
    add(200, 600)
    many, large = pulled()
    assert read_head(SNAPSHOT).tasks == 600
    assert large - small > 10e6
    assert many - few < (large - small) / 5


def _annotated_task(number: int, results: list[dict[str, Any]]) -> dict[str, Any]:
    data = {"image": "x", "sha256": f"{number:064x}", "doubt": ""}
    return {"data": data, "annotations": [{"result": results}]}


def test_the_server_is_stopped_by_its_process_id_alone(label_studio):
    values = json.loads((label_studio.server.folder / "server.json").read_text())
    os.kill(values["pid"], 0)
    assert label_studio.server.start() == label_studio.account  # runs already, stays
    assert (label_studio.server.folder / "account.json").stat().st_mode & 0o077 == 0
    assert (
        Server(label_studio.server.url, label_studio.account.token).projects("none of these") == []
    )


def test_of_two_tasks_of_a_picture_that_stays_on_which_somebody_has_begun_to_draw(desk):
    desk.collect(1)
    desk.sync()
    (task,) = desk.tasks()
    desk.server.add_tasks(desk.project, [{"data": task.data}])
    second = max(row.id for row in desk.tasks())
    desk.post(f"api/tasks/{second}/drafts", {"result": [], "lead_time": 1.0})
    desk.sync()
    assert [row.id for row in desk.tasks()] == [second]
