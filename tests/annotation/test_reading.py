"""What counts of the annotations that people made, and what comes back to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from annotation.backend import AnnotationConfig, AnnotationError
from annotation.from_label_studio import ResultError, results_to_labels
from annotation.reading import annotated, begun
from annotation.regions import Size
from annotation.snapshot import Head, read_head, read_lines, task_to_line, write_snapshot
from annotation.to_label_studio import annotations_to_results
from anonymization.files import FileError
from anonymization.taxonomy import ClassSpec, Taxonomy
from data.coco import Annotation, Dataset, Image
from data.findings import suspicious_labels

TAXONOMY = Taxonomy(
    {
        "face": ClassSpec(geometry="ellipse", shape="ellipse"),
        "person": ClassSpec(geometry="mask", shape="outline"),
        "vehicle": ClassSpec(geometry="mask", shape="outline", aliases=["car"]),
    },
    keypoint_class="person",
)
SIZE = Size(200, 100)
LABEL_STUDIO = AnnotationConfig(backend="label_studio")
MONDAY, TUESDAY = "2026-05-04T10:00:00.000000Z", "2026-05-05T10:00:00.000000Z"


def sha(number: int) -> str:
    return f"{number:064x}"


def face(x: float, **said: Any) -> Annotation:
    return Annotation(int(x) + 1, 1, "face", (x, 10, x + 20, 40), attributes=said)


def regions(*objects: Annotation) -> list[dict[str, Any]]:
    return annotations_to_results(objects, TAXONOMY, SIZE)


def opinion(number: int, *objects: Annotation, **changes: Any) -> dict[str, Any]:
    values = {
        "id": number,
        "annotator": number,
        "created_at": MONDAY,
        "updated_at": MONDAY,
        "lead_time": 5.0,
        "ground_truth": False,
        "skipped": False,
        "result": regions(*objects),
    }
    return values | changes


@pytest.fixture
def read(tmp_path: Path):
    """Writes a snapshot of these opinions on picture 1, and reads it as the stage does."""

    def run(
        *opinions: dict[str, Any],
        since: dict[str, str | None] | None = None,
        config: AnnotationConfig = LABEL_STUDIO,
        picture: int = 1,
    ) -> tuple[Dataset, dict[str, Any]]:
        since = since or dict.fromkeys(TAXONOMY.names)
        line = {"sha256": sha(picture), "task": 12, "annotations": list(opinions)}
        head = Head("http://127.0.0.1:1", 1, "Street", since)
        write_snapshot(tmp_path / "snapshot", head, [line])
        images = tuple(
            Image(n, sha(n), f"{sha(n)}.png", SIZE.width, SIZE.height, ("face",)) for n in (1, 2)
        )
        reviewed = Dataset(images, (Annotation(1, 2, "face", (1, 1, 9, 9)),))
        return annotated(config, reviewed, tmp_path / "snapshot", TAXONOMY)

    return run


def test_a_finished_picture_has_labels_annotator_and_time(read):
    dataset, report = read(opinion(7, face(20, identifiable=True)))
    (image,), (found,) = dataset.images, dataset.annotations
    assert image.sha256 == sha(1)
    assert image.labelled == TAXONOMY.names
    assert found.box_xyxy == (20, 10, 40, 40)
    assert found.attributes == {
        "identifiable": True,
        "source": "label_studio",
        "annotator": 7,
        "annotated_at": MONDAY,
        "task": 12,
        "annotation": 7,
    }
    assert report["pictures"] == {
        "reviewed": 2, "finished": 1, "from_source": 0, "skipped": 0, "waiting": 1,
        "not_reviewed": 0,
    }  # fmt: skip


def test_a_picture_submitted_empty_shows_nothing(read):
    dataset, _ = read(opinion(7))
    assert dataset.images[0].labelled == TAXONOMY.names
    assert dataset.annotations == ()


def test_a_picture_that_was_skipped_has_no_labels(read):
    dataset, report = read(opinion(7, skipped=True))
    assert dataset.images == ()
    assert report["pictures"]["skipped"] == 1


def test_the_finished_opinion_counts_where_another_person_skipped(read):
    dataset, _ = read(opinion(7, skipped=True, updated_at=TUESDAY), opinion(8, face(20)))
    assert [a.attributes["annotator"] for a in dataset.annotations] == [8]


def test_the_newest_opinion_counts_and_starred_ones_before_all(read):
    older, newer = opinion(7, face(20)), opinion(8, face(60), updated_at=TUESDAY)
    dataset, _ = read(newer, older)
    assert [a.attributes["annotation"] for a in dataset.annotations] == [8]
    dataset, _ = read(newer, older | {"ground_truth": True})
    assert [a.attributes["annotation"] for a in dataset.annotations] == [7]


def test_agreement_of_two_people_is_measured_by_class(read):
    one = opinion(7, face(20, identifiable=True), face(60))
    other = opinion(8, face(20, identifiable=False), updated_at=TUESDAY)
    _, report = read(one, other)
    # Two and one faces, of which one pair matches: 2 * 1 / 3.
    assert report["agreement"] == {
        "pairs": 1,
        "classes": {"face": {"objects": 3, "agreement": 0.6667, "mean_iou": 1.0}},
        "identifiable": 0.0,
    }


def test_nobody_agrees_with_himself(read):
    again = opinion(8, face(20), annotator=7, updated_at=TUESDAY)
    _, report = read(opinion(7, face(60)), again)
    assert report["agreement"]["pairs"] == 0


def test_what_only_another_person_saw_comes_back_to_people(read):
    one, other = opinion(7, face(20), face(60)), opinion(8, face(20), updated_at=TUESDAY)
    dataset, _ = read(one, other)
    assert suspicious_labels(dataset) == {
        sha(1): ["annotator 7 drew 1 face that annotator 8 did not"]
    }


def test_an_empty_region_is_left_out_and_comes_back_to_people(read):
    result = regions(face(20))
    result[0]["value"]["radiusX"] = 0
    dataset, report = read(opinion(7, result=result))
    assert dataset.annotations == ()
    place = "face, at 15 % from the left, 25 % from the top"
    problem = f"region object-21 ({place}) is empty"
    assert report["problems"] == [{"task": 12, "annotation": 7, "problem": problem}]
    assert sha(1) in suspicious_labels(dataset)


def test_a_region_without_a_label_leaves_the_picture_partly_labelled(read):
    result = regions(face(20))
    del result[0]["value"]["ellipselabels"]
    dataset, report = read(opinion(7, result=result))
    assert (dataset.images[0].labelled, dataset.images[0].partial) == ((), TAXONOMY.names)
    assert "has no label" in report["problems"][0]["problem"]


def test_an_unknown_label_names_task_annotation_and_the_next_step(read):
    result = regions(face(20))
    result[0]["value"]["ellipselabels"] = ["fce"]
    expected = (
        r"annotation 7 of task 12 has label 'fce'; known labels: face, person, vehicle\. "
        r"Correct it in Label Studio, or add the class in conf/taxonomy"
    )
    with pytest.raises(ResultError, match=expected):
        read(opinion(7, result=result))


def test_an_alias_of_a_class_is_that_class(read):
    result = regions(face(20))
    result[0]["value"]["ellipselabels"] = ["car"]
    dataset, _ = read(opinion(7, result=result))
    assert [a.class_name for a in dataset.annotations] == ["vehicle"]


def test_a_region_of_another_size_is_refused(read):
    result = regions(face(20))
    result[0]["original_width"], result[0]["original_height"] = 100, 200
    with pytest.raises(ResultError, match="drawn on a picture of 100x200; the collected one has"):
        read(opinion(7, result=result))


def test_a_picture_that_is_gone_is_left_out_and_counted(read, caplog):
    dataset, report = read(opinion(7, face(20)), picture=9)
    assert dataset.images == ()
    assert report["pictures"]["not_reviewed"] == 1
    assert "task 12 is annotated, but its picture" in caplog.text


def test_labels_of_the_source_stay_where_they_are_trusted(read):
    config = AnnotationConfig(backend="label_studio", source_labels=True)
    dataset, report = read(opinion(7, face(20)), config=config)
    assert [(a.id, a.image_id) for a in dataset.annotations] == [(1, 1), (2, 2)]
    assert report["pictures"]["from_source"] == 1


def test_a_class_that_was_asked_for_later_is_not_labelled(read):
    since = {"face": None, "person": TUESDAY, "vehicle": MONDAY}
    # Begun five seconds before it was submitted on Monday at ten.
    dataset, _ = read(opinion(7, face(20)), since=since)
    assert dataset.images[0].labelled == ("face",)
    assert begun(MONDAY, None) == "2026-05-04T10:00:00Z"


def test_keypoints_go_to_the_person_that_they_name_or_lie_on():
    square = [[10.0, 10.0, 60.0, 10.0, 60.0, 90.0, 10.0, 90.0]]
    points = [(0.0, 0.0, 0)] * 17
    points[0] = (30.0, 20.0, 2)
    person = Annotation(1, 1, "person", (10, 10, 60, 90), square, keypoints=tuple(points))
    for drop in (False, True):
        results = regions(person)
        if drop:
            del results[-1]["parentID"]
        (found,) = results_to_labels(results, TAXONOMY, SIZE, where="task 1").objects
        assert found.keypoints is not None
        assert found.keypoints[0] == (30.0, 20.0, 2)


def test_a_keypoint_on_nobody_is_left_out_and_named():
    results = regions(face(20))
    results.append(
        {
            "id": "k", "type": "keypointlabels", "original_width": 200, "original_height": 100,
            "value": {"x": 50, "y": 50, "keypointlabels": ["nose"]},
        }
    )  # fmt: skip
    labels = results_to_labels(results, TAXONOMY, SIZE, where="task 1")
    assert labels.problems == ("keypoint nose (k) lies on no person",)


def test_pieces_may_be_joined_by_a_relation_and_mixed():
    brush = Annotation(1, 1, "person", (0, 0, 1, 1), {"size": [100, 200], "counts": [0, 1, 19999]})
    polygon = Annotation(2, 1, "person", (50, 50, 90, 90), [[50.0, 50, 90, 50, 90, 90, 50, 90]])
    results = regions(brush, polygon)
    assert len(results_to_labels(results, TAXONOMY, SIZE, where="task 1").objects) == 2
    results.append({"type": "relation", "from_id": "object-2", "to_id": "object-1"})
    (found,) = results_to_labels(results, TAXONOMY, SIZE, where="task 1").objects
    assert int(found.mask("mask", height=100, width=200).sum()) == 1 + 40 * 40


def test_a_face_grouped_under_its_person_stays_an_object_of_its_own():
    person = Annotation(1, 1, "person", (10, 10, 60, 90), [[10.0, 10, 60, 10, 60, 90, 10, 90]])
    results = regions(person, face(20))
    results[-1]["parentID"] = "object-1"
    found = results_to_labels(results, TAXONOMY, SIZE, where="task 1").objects
    assert [a.class_name for a in found] == ["person", "face"]


def test_equal_work_makes_equal_bytes(tmp_path):
    head = Head("http://127.0.0.1:1", 1, "Street", {"face": None})
    lines = [{"sha256": sha(n), "task": n, "annotations": [opinion(n)]} for n in range(30)]
    write_snapshot(tmp_path / "one", head, lines)
    write_snapshot(tmp_path / "two", head, reversed(lines))
    for name in ("snapshot.json", "tasks.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert [line["sha256"] for line in read_lines(tmp_path / "two")] == [sha(n) for n in range(30)]
    assert read_head(tmp_path / "one") == Head(head.url, 1, "Street", {"face": None}, 30)


def test_drafts_and_what_changes_by_itself_are_not_in_the_snapshot():
    task = {"id": 1, "data": {"sha256": sha(1)}, "annotations": [], "drafts": [{"id": 3}]}
    assert task_to_line(task) is None
    submitted = {"id": 4, "completed_by": 2, "was_cancelled": False, "result_count": 9}
    line = task_to_line(task | {"annotations": [submitted], "updated_at": TUESDAY})
    assert line is not None
    assert set(line) == {"sha256", "task", "annotations"}
    assert "result_count" not in line["annotations"][0]


def test_a_damaged_snapshot_says_how_to_get_it_back(tmp_path):
    head = Head("http://127.0.0.1:1", 1, "Street", {})
    write_snapshot(tmp_path / "s", head, [{"sha256": sha(1), "task": 1, "annotations": []}])
    (tmp_path / "s" / "tasks.jsonl").write_text("{")
    with pytest.raises(FileError, match="line 1 is damaged; run dvc checkout"):
        list(read_lines(tmp_path / "s"))


def test_without_a_snapshot_the_stage_says_how_to_get_one(tmp_path):
    with pytest.raises(AnnotationError, match=r"dvc checkout .*annotation\.sync: true"):
        annotated(LABEL_STUDIO, Dataset((), ()), tmp_path, TAXONOMY)


def test_a_skipped_picture_that_keeps_its_sources_labels_is_counted_once(read):
    config = AnnotationConfig(backend="label_studio", source_labels=True)
    _, report = read(opinion(7, skipped=True), config=config, picture=2)
    counts = report["pictures"]
    assert counts["reviewed"] == 2
    assert counts["skipped"] + counts["from_source"] + counts["waiting"] == 2
    assert (counts["from_source"], counts["skipped"]) == (2, 0)
