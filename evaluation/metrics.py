"""Metrics of any detector's COCO results: `python -m evaluation.metrics --truth T --detections D`.

The same functions that judge a bundle, on truth and finds that come as COCO files: recall with
its bound and precision at IoU 0.5 by class, confusion matrix, recall-precision curves, calibration
of scores, and COCO's AP, AP50 and AR of boxes, masks and keypoints.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonymization.errors import BlurloopError
from evaluation.coco_results import CocoSet, coco_scores, read_coco
from evaluation.matching import IOU_MIN, LABELLED, PARTIAL, box_iou, match
from evaluation.measures.calibration import calibration_error, reliability
from evaluation.measures.confusion import confusion_matrix
from evaluation.recall import precision, precision_recall_curve, recall, thinned
from evaluation.report.rows import FindRow, ObjectRow, PictureRow

SCHEMA_VERSION = 1


def measure(data: CocoSet, *, threshold: float = 0.0, by: str = "bbox") -> dict[str, Any]:
    """Return every metric of COCO results, plain types.

    Args:
        data: Truth and finds.
        threshold: Score from which recall, precision and confusion count finds; curves,
            calibration and AP look at all.
        by: Overlap of the match, `bbox` or `segm`.
    """
    objects, finds, pictures = judged_rows(data, threshold=threshold, by=by)
    kept = [find for find in finds if find.score >= threshold]
    names = list(data.classes.values())
    return {
        "schema_version": SCHEMA_VERSION,
        "pictures": len(data.images),
        "matched_by": by,
        "iou_min": IOU_MIN,
        "threshold": threshold,
        "coco": {kind: coco_scores(data, kind) for kind in data.iou_types()},
        "classes": {name: _of_class(name, objects, finds, kept, pictures) for name in names},
        "confusion": confusion_matrix(objects, kept, pictures, names),
    }


def _of_class(
    name: str,
    objects: Sequence[ObjectRow],
    finds: Sequence[FindRow],
    kept: Sequence[FindRow],
    pictures: Sequence[PictureRow],
) -> dict[str, Any]:
    own = [row for row in objects if row.class_name == name]
    complete = {p.sha256 for p in pictures if name in p.labelled}
    known = [f for f in finds if f.class_name == name and f.sha256 in complete]
    counted = sum(row.counted and row.sha256 in complete for row in own)
    rows = reliability(known)
    return {
        **recall(own, "detected"),
        "ignored": sum(not row.counted for row in own),
        "precision": precision(f for f in kept if f.class_name == name and f.sha256 in complete),
        "curve": thinned(precision_recall_curve(known, counted)),
        "calibration": {"ece": calibration_error(rows), "bins": rows},
    }


def judged_rows(
    data: CocoSet, *, threshold: float, by: str
) -> tuple[list[ObjectRow], list[FindRow], list[PictureRow]]:
    """Match each class's finds to its truths in every picture; return flat rows."""
    pictures = [
        PictureRow(
            str(i),
            frozenset(data.classes[c] for c in data.classes if i in data.labelled[c]),
            None,
            None,
        )
        for i in data.images
    ]
    truths, found = _grouped(data.annotations), _grouped(data.detections)
    objects: list[ObjectRow] = []
    finds: list[FindRow] = []
    for key in sorted({*truths, *found}):
        own_objects, own_finds = _judged(data, key, truths[key], found[key], threshold, by)
        objects += own_objects
        finds += own_finds
    return objects, finds, pictures


def _grouped(things: Sequence[dict[str, Any]]) -> dict[tuple[int, int], list[dict[str, Any]]]:
    groups: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for thing in things:
        groups[thing["image_id"], thing["category_id"]].append(thing)
    return groups


def _judged(
    data: CocoSet,
    key: tuple[int, int],
    truths: Sequence[dict[str, Any]],
    finds: Sequence[dict[str, Any]],
    threshold: float,
    by: str,
) -> tuple[list[ObjectRow], list[FindRow]]:
    image, category = key
    name = data.classes[category]
    ignored = np.array([bool(t["iscrowd"]) for t in truths], dtype=bool)
    matching = match(
        _overlaps(data, key, truths, finds, ignored, by),
        np.array([d["score"] for d in finds], dtype=np.float64),
        ignored=ignored,
        coverage=LABELLED if image in data.labelled[category] else PARTIAL,
    )
    objects = [
        ObjectRow(
            sha256=str(image),
            class_name=name,
            annotation_id=truth["id"],
            cluster=str(image),
            box_xyxy=_xyxy(truth["bbox"]),
            counted=not truth["iscrowd"],
            crowd=bool(truth["iscrowd"]),
            side_px=float(truth["bbox"][3]),
            detected_at=float(at) if np.isfinite(at) else None,
            detected=bool(np.isfinite(at) and at >= threshold),
            share=0.0,
            written_share=None,
            covered=False,
        )
        for truth, at in zip(truths, matching.detected_at, strict=True)
    ]
    return objects, [
        FindRow(str(image), name, float(d["score"]), _xyxy(d["bbox"]), "results", int(state))
        for d, state in zip(finds, matching.find_state, strict=True)
    ]


def _xyxy(box: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = (float(v) for v in box)
    return (x, y, x + width, y + height)


def _overlaps(
    data: CocoSet,
    key: tuple[int, int],
    truths: Sequence[dict[str, Any]],
    finds: Sequence[dict[str, Any]],
    ignored: NDArray[np.bool_],
    by: str,
) -> NDArray[np.float64]:
    if by == "bbox" or not truths or not finds:
        boxes = np.array([_xyxy(d["bbox"]) for d in finds], dtype=np.float64)
        true_boxes = np.array([_xyxy(t["bbox"]) for t in truths], dtype=np.float64)
        return box_iou(boxes, true_boxes, ignored)
    from pycocotools import mask as coco_mask

    image = data.images[key[0]]
    size = (int(image["height"]), int(image["width"]))
    drawn = [[_drawn(thing, size) for thing in things] for things in (finds, truths)]
    overlaps = coco_mask.iou(*drawn, ignored.astype(np.uint8).tolist())
    return np.asarray(overlaps, dtype=np.float64)


def _drawn(thing: dict[str, Any], size: tuple[int, int]) -> Any:
    """Return an object's mask as compressed RLE; its box where it has no outline."""
    from pycocotools import mask as coco_mask

    shape = thing.get("segmentation") or [thing["bbox"]]
    if isinstance(shape, list):
        return coco_mask.merge(coco_mask.frPyObjects(shape, *size))
    if isinstance(shape["counts"], list):
        return coco_mask.frPyObjects(shape, *size)
    counts = shape["counts"]
    return {**shape, "counts": counts.encode() if isinstance(counts, str) else counts}


def lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield what the program prints."""
    yield (
        f"{found['pictures']} pictures, matched by {found['matched_by']} at IoU "
        f"{found['iou_min']:g}, finds of score {found['threshold']:g} and more"
    )
    yield f"{'class':16}{'recall':>8}{'bound':>8}{'objects':>9}{'precision':>11}{'ECE':>8}"
    for name, values in found["classes"].items():
        bound = (values["lower_bound"] or {}).get("bound")
        yield (
            f"{name:16}{_shown(values['recall'])}{_shown(bound)}{values['total']:9d}"
            f"   {_shown(values['precision'])}{_shown(values['calibration']['ece'])}"
        )
    for kind, scores in found["coco"].items():
        yield f"{kind:16}{'AP':>8}{'AP50':>8}{'AP75':>8}{'AR':>8}"
        for name, values in [("all", scores["all"]), *scores["classes"].items()]:
            shown = "".join(_shown(values[key]) for key in ("ap", "ap50", "ap75", "ar"))
            yield f"{name:16}{shown}"
    matrix = found["confusion"]
    yield "true class in rows, found class in columns"
    yield f"{'':16}" + "".join(f"{name:>15}" for name in matrix["found"])
    for name, counts in zip(matrix["truth"], matrix["counts"], strict=True):
        yield f"{name:16}" + "".join(f"{count:15d}" for count in counts)


def _shown(value: float | None) -> str:
    return f"{value:8.4f}" if value is not None else f"{'-':>8}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.metrics",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--truth", type=Path, required=True, help="COCO data set")
    parser.add_argument("--detections", type=Path, required=True, help="COCO results")
    parser.add_argument(
        "--threshold", type=float, default=0.0, help="score from which finds count (default: all)"
    )
    parser.add_argument(
        "--by", choices=("bbox", "segm"), default="bbox", help="overlap of recall and precision"
    )
    parser.add_argument("--json", type=Path, help="write everything, curves included, to this file")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the metrics of COCO results."""
    given = _parser().parse_args(arguments)
    try:
        data = read_coco(given.truth, given.detections)
        found = measure(data, threshold=given.threshold, by=given.by)
    except BlurloopError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2), encoding="utf-8")
    sys.stdout.write("\n".join(lines(found)) + "\n")


if __name__ == "__main__":
    main()
