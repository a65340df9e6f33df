"""Metrics of COCO results against pycocotools, and worked out by hand."""

import contextlib
import io
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation import average_precision
from evaluation.coco_results import CocoError, coco_scores, coco_set
from evaluation.matching import RIGHT, WRONG
from evaluation.measures.calibration import calibration_error, reliability
from evaluation.measures.confusion import confusion_matrix
from evaluation.metrics import main, measure
from evaluation.report.rows import FindRow, ObjectRow, PictureRow

SIZE = 200
KEYS = ("ap", "ap50", "ap75", "ar")


def random_coco(seed: int, *, kind: str = "bbox") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Truth with crowds, an empty picture and a class without objects; finds with tied scores."""
    generator = np.random.default_rng(seed)
    corners = generator.uniform(0, 120, (60, 2)).round(1)
    boxes = np.hstack([corners, generator.uniform(6, 70, (60, 2)).round(1)])
    names = [f"k{i}" for i in range(17)]
    truth: dict[str, Any] = {
        "info": {},
        "images": [{"id": i, "width": SIZE, "height": SIZE} for i in (3, 5, 8, 13)],
        "categories": [{"id": i, "name": f"c{i}", "keypoints": names} for i in (1, 2, 7)],
        "annotations": [],
    }
    finds = []
    for i, box in enumerate(boxes.tolist()):
        place = {"image_id": int(generator.choice([3, 5, 8])), "category_id": 1 + i % 2}
        crowd = int(generator.random() < 0.15)
        thing = {"id": i + 1, **place, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
        shift = [*generator.normal(0, 5, 2), 0, 0]
        near = np.clip(np.add(box, shift), 0.5, 190).tolist()
        find = {**place, "bbox": near, "score": float(generator.random().__round__(1))}
        if kind == "segm":
            thing["segmentation"], find["segmentation"] = rle(box), rle(near)
            del find["bbox"]
        if kind == "keypoints":
            points = generator.uniform(0, 1, (17, 2)) * box[2:] + box[:2]
            seen = generator.integers(0, 3, 17) * (generator.random() > 0.1)
            thing["keypoints"] = np.column_stack([points, seen]).ravel().tolist()
            thing["num_keypoints"] = int((seen > 0).sum())
            moved = points + generator.normal(0, 2, points.shape)
            find["keypoints"] = np.column_stack([moved, np.ones(17)]).ravel().tolist()
        truth["annotations"].append(thing)
        finds += [find, find | {"image_id": int(generator.choice([5, 8, 13]))}]
    return truth, finds


def rle(box: list[float]) -> dict[str, Any]:
    from pycocotools import mask as coco_mask

    x, y, width, height = (round(v) for v in box)
    mask = np.zeros((SIZE, SIZE), np.uint8, order="F")
    mask[y : y + height, x : x + width] = 1
    mask[y, x : x + width // 2] = 0
    found = coco_mask.encode(mask)
    return {"size": found["size"], "counts": found["counts"].decode()}


def oracle(
    truth: dict[str, Any],
    finds: list[dict[str, Any]],
    kind: str,
    *,
    images: list[int] | None = None,
    classes: list[int] | None = None,
) -> list[float]:
    """Return pycocotools' AP, AP50, AP75 and AR, on all images and classes or on some."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = json.loads(json.dumps(truth))
        coco.createIndex()
        found = COCOeval(coco, coco.loadRes(json.loads(json.dumps(finds))), kind)
        found.params.imgIds = images or found.params.imgIds
        found.params.catIds = classes or found.params.catIds
        found.evaluate()
        found.accumulate()
        found.summarize()
    stats = found.stats
    return [*stats[:3], stats[5] if kind == "keypoints" else stats[8]]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["bbox", "segm", "keypoints"])
def test_scores_equal_pycocotools_with_crowds_ties_and_empty_pictures(kind: str, seed: int) -> None:
    truth, finds = random_coco(seed, kind=kind)
    ours = coco_scores(coco_set(truth, finds), kind)["all"]
    assert [ours[key] for key in KEYS] == pytest.approx(oracle(truth, finds, kind), abs=1e-9)


def crowded_coco(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Overlapping objects in unsorted pictures of many finds, with ties of IoU and of score."""
    generator = np.random.default_rng(seed)
    truth, finds = random_coco(seed)
    truth["images"] = [{"id": i, "width": 10**6, "height": 10**6} for i in (13, 3, 8, 5)]
    truth["annotations"].reverse()
    twins = [thing | {"id": 1000 + thing["id"]} for thing in truth["annotations"][:20]]
    # Areas beyond COCO's largest are ignored, yet taken only once, other than crowds.
    place = {"image_id": 3, "category_id": 1}
    more = [
        ([0, 0, 200_000, 200_000], 4e10),
        ([400, 400, 200, 200], 4e10),
        ([410, 400, 200, 200], 4e4),
        ([700, 0, 20, 20], 400),
        ([704, 0, 20, 20], 400),
    ]
    large = [
        place | {"id": 2000 + i, "bbox": box, "area": area, "iscrowd": 0}
        for i, (box, area) in enumerate(more)
    ]
    truth["annotations"] += [*twins, *large]
    # The first find lies as near to one of the last two objects as to the other.
    on = [([702, 0, 20, 20], 0.98), ([700, 0, 20, 20], 0.97)]
    on += [(box, score) for box, _ in more[:2] for score in (0.99, 0.5, 0.5)]
    finds += [place | {"bbox": box, "score": score} for box, score in on]
    for _ in range(6):
        for thing in truth["annotations"][:60]:
            near = np.clip(np.add(thing["bbox"], [*generator.normal(0, 3, 2), 0, 0]), 0.5, 190)
            spot = {key: thing[key] for key in ("image_id", "category_id")}
            finds.append(spot | {"bbox": near.tolist(), "score": round(generator.random(), 1)})
    finds += [finds[0] | {"bbox": [500, 500, 9, 9], "score": 0.9}] * 120
    return truth, finds


@pytest.mark.parametrize("at_once", [1, 50, 10**6])
@pytest.mark.parametrize("seed", range(3))
def test_boxes_equal_pycocotools_with_twins_huge_objects_and_over_a_hundred_finds(
    seed: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(average_precision, "_PAIRS_AT_ONCE", at_once)
    truth, finds = crowded_coco(seed)
    ours = coco_scores(coco_set(truth, finds))["all"]
    assert [ours[key] for key in KEYS] == pytest.approx(oracle(truth, finds, "bbox"), abs=1e-9)
    assert 0 < ours["ap"] < 1


def test_a_class_is_scored_as_pycocotools_does_on_the_pictures_that_label_it() -> None:
    truth, finds = random_coco(1)
    for image in truth["images"]:
        image["labelled"] = ["c1", "c2"] if image["id"] == 5 else ["c2"]
    classes = coco_scores(coco_set(truth, finds))["classes"]
    for name, category, images in (("c1", 1, [5]), ("c2", 2, [3, 5, 8, 13])):
        expected = oracle(truth, finds, "bbox", images=images, classes=[category])
        assert [classes[name][key] for key in KEYS] == pytest.approx(expected, abs=1e-9)


def test_one_find_of_two_objects_has_the_scores_worked_out_by_hand() -> None:
    truth, _ = by_hand()
    # IoU 0.8 with the first face: matched up to threshold 0.8, seven of ten; recall 1/2 then.
    finds = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 20, 16], "score": 0.9}]
    face = coco_scores(coco_set(truth, finds))["classes"]["face"]
    # Precision 1 at recalls 0, 0.01, ... 0.5: 51 of 101.
    assert face["ap50"] == face["ap75"] == pytest.approx(51 / 101)
    assert face["ap"] == pytest.approx(0.7 * 51 / 101)
    assert face["ar"] == pytest.approx(0.35)


def test_scores_without_finds_are_zero_and_of_a_class_without_objects_none() -> None:
    truth, _ = random_coco(0)
    scores = coco_scores(coco_set(truth, []))
    assert scores["all"] == dict.fromkeys(KEYS, 0.0)
    assert scores["classes"]["c7"] == dict.fromkeys(KEYS)


def by_hand() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Two faces and a plate in one picture; a face found, a plate taken for a face, one stray."""
    boxes = [[0, 0, 20, 20], [50, 0, 20, 20], [0, 60, 40, 10]]
    truth = {
        "images": [{"id": 1, "width": 100, "height": 100}],
        "categories": [{"id": 1, "name": "face"}, {"id": 2, "name": "plate"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1 + (i == 3), "bbox": box}
            for i, box in enumerate(boxes, 1)
        ],
    }
    found = [(boxes[0], 0.9), (boxes[2], 0.8), ([80, 80, 10, 10], 0.6), (boxes[1], 0.1)]
    finds = [{"image_id": 1, "category_id": 1, "bbox": b, "score": s} for b, s in found]
    return truth, finds


def test_recall_precision_confusion_and_calibration_are_those_worked_out_by_hand() -> None:
    found = measure(coco_set(*by_hand()), threshold=0.5)
    face = found["classes"]["face"]
    assert (face["recalled"], face["total"], face["precision"]) == (1, 2, 1 / 3)
    assert found["classes"]["plate"]["recall"] == 0.0
    assert found["confusion"]["counts"] == [[1, 0, 1], [1, 0, 0], [1, 0, 0]]
    # Bins of 0.9, 0.8, 0.6 and 0.1: errors 0.1, 0.8, 0.6 and 0.9.
    assert face["calibration"]["ece"] == pytest.approx((0.1 + 0.8 + 0.6 + 0.9) / 4)
    assert face["curve"][-1] == {"threshold": 0.1, "precision": 0.5, "recall": 1.0}


def test_masks_are_matched_by_their_pixels() -> None:
    truth, finds = by_hand()
    truth["annotations"] = truth["annotations"][:1]
    # The left half of the face in a box of its whole: box IoU 1, mask IoU 0.4.
    finds = [finds[0] | {"segmentation": [[0, 0, 8, 0, 8, 20, 0, 20]]}]
    data = coco_set(truth, finds)
    assert measure(data, by="bbox")["classes"]["face"]["recall"] == 1.0
    assert measure(data, by="segm")["classes"]["face"]["recall"] == 0.0


def test_an_object_that_an_annotator_calls_not_identifiable_is_ignored_as_a_crowd_is() -> None:
    truth, finds = by_hand()
    truth["annotations"][1]["attributes"] = {"identifiable": False}
    face = measure(coco_set(truth, finds))["classes"]["face"]
    assert (face["recalled"], face["total"], face["ignored"]) == (1, 1, 1)
    assert face["precision"] == 1 / 3


def test_a_class_that_no_picture_labels_completely_has_recall_but_no_precision() -> None:
    truth, finds = by_hand()
    truth["info"] = {"labelled": ["plate"], "partial": ["face"]}
    found = measure(coco_set(truth, finds))
    assert found["classes"]["face"]["recall"] == 1.0
    assert found["classes"]["face"]["precision"] is None
    assert found["coco"]["bbox"]["classes"]["face"]["ap"] is None
    assert found["confusion"]["counts"][2] == [0, 0, 0]


def broken(change: Any) -> tuple[Any, Any]:
    truth, finds = by_hand()
    change(truth, finds)
    return truth, finds


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, d: t["images"].clear(), "truth holds no picture"),
        (lambda t, d: t["annotations"].clear(), "truth holds no object"),
        (lambda t, d: d[1].update(score=math.nan), "find 1 has score nan; expected a number"),
        (lambda t, d: d[0].update(bbox=[0, 0, math.inf, 1]), r"find 0 has bbox \[0, 0, inf, 1\]"),
        (lambda t, d: d[2].update(bbox=[500, 0, 9, 9]), "find 2 .* outside of image 1, 100x100"),
        (lambda t, d: t["annotations"][0].update(bbox=[0, 100, 9, 9]), "annotation 1 .* outside"),
        (lambda t, d: t["annotations"][2].update(id=1), "annotation id 1 stands twice"),
        (lambda t, d: t["images"].append(t["images"][0]), "image id 1 stands twice"),
        (lambda t, d: t["annotations"][1].update(area=math.nan), "annotation 2 has area nan"),
        (lambda t, d: t["images"][0].update(width="wide"), "image 1 is 'wide' by 100"),
        (lambda t, d: t.update(annotations=None), "expected a list .* for each annotation"),
        (lambda t, d: d.append([1]), r"find 4 is \[1\]; expected an object"),
        (lambda t, d: d[3].pop("score"), "find 3 has score None"),
        (lambda t, d: d[3].update(score=True), "find 3 has score True"),
        (lambda t, d: d[3].update(score="0.5"), "find 3 has score '0.5'"),
        (lambda t, d: d[3].update(score=10**400), "find 3 has score 10+; expected a number"),
        (lambda t, d: d[3].pop("bbox"), "find 3 has bbox None"),
        (lambda t, d: d[3].update(bbox=[0, 0, 9]), r"find 3 has bbox \[0, 0, 9\]"),
        (lambda t, d: d[3].update(bbox=[0, 0, "9", 9]), "find 3 has bbox .* expected x, y"),
        (lambda t, d: d[3].update(bbox=[9, 9, -1, 1]), "find 3 .* must not be negative"),
        (lambda t, d: d[3].update(image_id=[1]), r"image_id \[1\], which the truth does not"),
        (lambda t, d: d[0].update(image_id=9), "image_id 9, which the truth does not hold"),
        (lambda t, d: d[0].update(category_id=9), "category_id 9, which the truth does not"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(change: Any, message: str) -> None:
    with pytest.raises(CocoError, match=message):
        coco_set(*broken(change))


def test_tuples_numpy_numbers_and_pictures_of_unknown_size_are_measured_as_plain_ones_are() -> None:
    truth, finds = by_hand()
    expected = coco_scores(coco_set(truth, finds))
    truth["images"][0]["height"] = None
    finds[0] |= {"bbox": tuple(map(np.float64, finds[0]["bbox"])), "score": np.float64(0.9)}
    far = finds[2] | {"bbox": [900, 900, 10, 10]}
    assert coco_scores(coco_set(truth, [*finds[:2], far, finds[3]])) == expected


def test_the_program_prints_what_it_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in zip(("truth", "finds"), by_hand(), strict=True):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    words = ["--truth", str(tmp_path / "truth.json"), "--detections", str(tmp_path / "finds.json")]
    main([*words, "--json", str(tmp_path / "all.json")])
    printed = capsys.readouterr().out
    assert "face              1.0000" in printed
    assert json.loads((tmp_path / "all.json").read_text())["pictures"] == 1


def test_a_missing_file_ends_in_one_line() -> None:
    words = ["--truth", "absent.json", "--detections", "absent.json"]
    ended = subprocess.run(
        [sys.executable, "-m", "evaluation.metrics", *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode != 0
    assert ended.stderr.startswith("error: absent.json is missing")
    assert "Traceback" not in ended.stderr


def test_perfectly_calibrated_scores_have_no_error_and_no_find_has_none() -> None:
    finds = [FindRow("a", "x", 0.75, (0, 0, 1, 1), "n", state) for state in (1, 1, 1, 0)]
    assert calibration_error(reliability(finds)) == 0.0
    assert calibration_error(reliability([])) is None


def test_an_object_that_does_not_count_and_the_find_on_it_are_in_no_cell() -> None:
    row = ObjectRow("a", "x", 1, "a", (0, 0, 9, 9), False, True, 9, None, False, 0, None, False)
    finds = [FindRow("a", "x", 0.9, (0, 0, 9, 9), "n", RIGHT)]
    finds.append(FindRow("a", "x", 0.8, (50, 0, 59, 9), "n", WRONG))
    pictures = [PictureRow("a", frozenset({"x"}), None, None)]
    assert confusion_matrix([row], finds, pictures, ["x"])["counts"] == [[0, 0], [1, 0]]
