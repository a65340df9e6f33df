"""Judging a large panorama stays within the memory that was promised."""

import subprocess
import sys

import pytest

LIMIT_MB = 2048
SCRIPT = """
import resource
import numpy as np
from anonymization.card import Card, GraphCard, GraphInput
from anonymization.detection.finds import Detections
from anonymization.taxonomy import ClassSpec, Taxonomy
from data.coco import Annotation, Image
from evaluation.report.pictures import judge_picture, through_png
from evaluation.truth import truth_of

width, height, across = 8192, 4096, 20
taxonomy = Taxonomy({"vehicle": ClassSpec("mask", "outline", margin=0.0)})
graphs = {"mask_rcnn": GraphCard("m.onnx", "0" * 64, GraphInput(512), ("vehicle",))}
card = Card(taxonomy, {"vehicle": 0.5}, graphs)
places = [(x * 400.0 + 20, y * 400.0 + 20) for y in range(10) for x in range(across)]
boxes = [(x, y, x + 360, y + 360) for x, y in places]
outline = [[(x0, y0, x1, y0, x1, y1, x0, y1)] for x0, y0, x1, y1 in boxes]
objects = [
    Annotation(i, 1, "vehicle", box, [list(points[0])])
    for i, (box, points) in enumerate(zip(boxes, outline), 1)
]
image = Image(1, "a" * 64, "a.png", width, height, ("vehicle",))
finds = Detections.from_boxes(
    boxes, class_ids=[0] * len(boxes), scores=[0.9] * len(boxes),
    masks=np.ones((len(boxes), 28, 28), np.float32),
)
result = judge_picture(
    truth_of(image, objects, taxonomy), finds, card, taxonomy, rewrite=through_png,
    pixels=np.full((height, width, 3), 128, np.uint8),
)
assert result.picture.kept.pixels == width * height - 200 * 360 * 360
assert len(result.objects) == 200
assert all(row.detected and row.covered for row in result.objects)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_200_masks_at_8192x4096_are_judged_in_less_than_two_gigabytes() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=550
    )
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) < LIMIT_MB
