"""COCO metrics beside pycocotools: the same numbers, and how many times as fast.

    python -m benchmarks.coco_metrics

5,000 pictures with 40,000 objects in four classes, and as many finds again that are wrong. Both
sides start from the same COCO dictionaries and end with AP, AP50, AP75 and AR of boxes. As it
comes, pycocotools also scores three sizes of objects and two smaller numbers of finds, which we do
not; so it is timed a second time with these left out, and that ratio is the one promised. Ours
checks its input, pycocotools does not. The best of some runs each, in turns, in seconds of the
processor, so that other work on the machine counts little.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import io
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from evaluation.coco_results import coco_scores, coco_set

PICTURES, OBJECTS, CLASSES = 5_000, 40_000, 4
SIZE = 1000
REPEATS = 3
RATIO_MIN = 8.0
Score = Callable[[dict[str, Any], list[dict[str, Any]]], dict[str, float]]


def drawn(seed: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a random truth, and finds of which half lie near an object."""
    generator = np.random.default_rng(seed)
    sides = generator.uniform(10, 200, (OBJECTS, 2))
    boxes = np.hstack([generator.uniform(0, SIZE - 200, (OBJECTS, 2)), sides])
    images = generator.integers(1, PICTURES + 1, OBJECTS)
    categories = generator.integers(1, CLASSES + 1, OBJECTS)
    crowds = generator.random(OBJECTS) < 0.02
    near = boxes + generator.normal(0, 6, boxes.shape)
    near[:, 2:] = np.maximum(near[:, 2:], 1)
    near[:, :2] = np.clip(near[:, :2], 0, SIZE - 1)
    scores = generator.random(2 * OBJECTS)
    truth = {
        "info": {},
        "images": [{"id": i, "width": SIZE, "height": SIZE} for i in range(1, PICTURES + 1)],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(1, CLASSES + 1)],
        "annotations": [
            {
                "id": i + 1,
                "image_id": int(images[i]),
                "category_id": int(categories[i]),
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": int(crowds[i]),
            }
            for i, box in enumerate(boxes.tolist())
        ],
    }
    wrong = generator.permutation(OBJECTS)
    finds = [
        {
            "image_id": int(images[i if n < OBJECTS else wrong[i]]),
            "category_id": int(categories[i]),
            "bbox": near[i].tolist(),
            "score": float(scores[n]),
        }
        for n, i in enumerate([*range(OBJECTS), *range(OBJECTS)])
    ]
    return truth, finds


def ours(truth: dict[str, Any], finds: list[dict[str, Any]]) -> dict[str, float]:
    """Check and score as `python -m evaluation.metrics` does."""
    return dict(coco_scores(coco_set(truth, finds))["all"])


def theirs(truth: dict[str, Any], finds: list[dict[str, Any]], *, alike: bool) -> dict[str, float]:
    """Score with pycocotools, as it comes or `alike`: asked for the numbers that `ours` gives."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        oracle = COCOeval(coco, coco.loadRes(finds), "bbox")
        if alike:
            asked = oracle.params
            asked.areaRng, asked.areaRngLbl = asked.areaRng[:1], asked.areaRngLbl[:1]
            asked.maxDets = asked.maxDets[-1:]
        oracle.evaluate()
        oracle.accumulate()
    # Axes: IoU thresholds, recall thresholds, classes, areas (0: all), most finds (-1: 100).
    precision = oracle.eval["precision"][:, :, :, 0, -1]
    recall = oracle.eval["recall"][:, :, 0, -1]
    by_key = {"ap": precision, "ap50": precision[0], "ap75": precision[5], "ar": recall}
    return {key: float(values[values > -1].mean()) for key, values in by_key.items()}


def main() -> None:
    """Print the time of both, their ratios, and how far their numbers lie apart."""
    truth, finds = drawn()
    best: dict[str, float] = {}
    found: dict[str, dict[str, float]] = {}
    sides: dict[str, Score] = {
        "ours": ours,
        "alike": partial(theirs, alike=True),
        "whole": partial(theirs, alike=False),
    }
    for _ in range(REPEATS):
        for name, score in sides.items():
            given = copy.deepcopy(truth), copy.deepcopy(finds)
            gc.collect()
            start = time.process_time()
            found[name] = score(*given)
            taken = time.process_time() - start
            best[name] = min(taken, best.get(name, taken))
    ratio = best["alike"] / best["ours"]
    apart = max(abs(found["ours"][key] - found[name][key]) for name in sides for key in found[name])
    verdict = "ok" if ratio >= RATIO_MIN and apart <= 1e-9 else "NOT REACHED"
    print(
        f"COCO metrics of {PICTURES} pictures, {OBJECTS} objects: {best['ours']:.2f} s, "
        f"pycocotools {best['alike']:.2f} s for the same numbers, {ratio:.1f} times as fast "
        f"(promised: {RATIO_MIN:g}); {best['whole']:.2f} s as it comes, "
        f"{best['whole'] / best['ours']:.1f} times; numbers apart by {apart:.0e}   {verdict}"
    )


if __name__ == "__main__":
    main()
