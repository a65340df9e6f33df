"""Pictures a second, recall and finds per face beside deface's."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonymization.anonymizer import Anonymizer
from anonymization.detection.finds import box_iou
from anonymization.formats.picture import decode
from benchmarks.anonymizing.timing import Setting, in_turns

MEGAPIXEL = (0.6e6, 1.6e6)
IOU_MIN = 0.5
DEFACE = "from deface.deface import main; main()"
DEFACE_BOXES = """
import json, sys
import numpy as np
import imageio.v2 as imageio
from deface.centerface import CenterFace
network = CenterFace(in_shape=None, backend="onnxrt")
found = []
for path in json.load(sys.stdin):
    pixels = imageio.imread(path)
    pixels = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2)
    pixels = np.ascontiguousarray(pixels[..., :3])
    boxes, _ = network(pixels, threshold=0.2)
    found.append([[float(v) for v in box[:4]] for box in boxes])
print()
print(json.dumps(found))
"""
"""deface's own detector with its default threshold (deface.py, `--thresh`)."""


def labelled(folder: Path) -> list[tuple[Path, NDArray[np.float32]]]:
    """Return pictures of a COCO set and the boxes of their faces, float32 (N, 4)."""
    values = json.loads((folder / "annotations.json").read_text())
    (face,) = [c["id"] for c in values["categories"] if c["name"] == "face"]
    boxes: dict[int, list[list[float]]] = {}
    for row in values["annotations"]:
        if row["category_id"] == face and not row.get("iscrowd"):
            x, y, width, height = row["bbox"]
            boxes.setdefault(row["image_id"], []).append([x, y, x + width, y + height])
    images = folder / "images"
    return [
        (images / Path(image["file_name"]).name, np.array(boxes[image["id"]], np.float32))
        for image in values["images"]
        if image["id"] in boxes
    ]


def recalled(found: NDArray[np.float32], truth: NDArray[np.float32]) -> int:
    """Return how many true boxes have a find of their own at `IOU_MIN`."""
    overlaps = box_iou(truth, found)
    free = np.ones(len(found), bool)
    count = 0
    for row in overlaps[np.argsort(-overlaps.max(axis=1, initial=0), kind="stable")]:
        allowed = np.where(free, row, 0)
        if len(allowed) and allowed.max() >= IOU_MIN:
            free[int(allowed.argmax())] = False
            count += 1
    return count


def _row(name: str, rate: float, finds: Sequence[Any], truths: Sequence[Any]) -> None:
    faces = sum(map(len, truths))
    hits = sum(
        recalled(np.asarray(f, np.float32).reshape(-1, 4), t)
        for f, t in zip(finds, truths, strict=True)
    )
    print(
        f"deface      {name:<9} {rate:6.2f} pictures/s   recall {hits}/{faces} = "
        f"{hits / max(faces, 1):.3f}   {sum(map(len, finds)) / max(faces, 1):.2f} finds per face"
    )


def answered(words: Sequence[str], asked: str = "") -> str:
    """Run a program to its end; return what it printed.

    Raises:
        SystemExit: If it fails, with the end of what it said.
    """
    ended = subprocess.run(words, input=asked, capture_output=True, text=True, check=False)
    if ended.returncode:
        said = ended.stderr.strip().splitlines()[-1:] or ["nothing"]
        raise SystemExit(f"{words[0]} ended with {ended.returncode} and said: {said[0]}")
    return ended.stdout


def measure_deface(setting: Setting, python: Path, faces: Path, count: int) -> None:
    """Print both programs side by side."""
    chosen = [p for p in setting.pictures if MEGAPIXEL[0] <= _pixels(p) <= MEGAPIXEL[1]]
    if not chosen:
        print("deface      no picture of about a megapixel was given")
        return
    number = itertools.count()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "in").mkdir()
        for i, path in enumerate(chosen):
            (work / "in" / f"{i:04}{path.suffix}").write_bytes(path.read_bytes())
        listed = sorted(map(str, (work / "in").iterdir()))
        ours = [sys.executable, "-m", "anonymization", str(work / "in")]

        def run_ours() -> None:
            target = ["-o", str(work / f"out{next(number)}"), "--model", str(setting.bundle.path)]
            answered([*ours, *target])

        def run_deface() -> None:
            for path in listed:
                Path(path).with_name(f"{Path(path).stem}_anonymized{Path(path).suffix}").unlink(
                    missing_ok=True
                )
            words = [str(python), "-c", DEFACE, "--backend", "onnxrt", *listed]
            answered(words)

        mine, theirs = in_turns(run_ours, run_deface)
    rows = labelled(faces)[:count]
    if not rows:
        print(f"deface      {faces} labels no face")
        return
    anonymizer = Anonymizer.from_bundle(setting.bundle)
    face = anonymizer.taxonomy.class_id("face")
    found = [anonymizer.detect(decode(path.read_bytes()).pixels) for path, _ in rows]
    boxes = [one.boxes_xyxy[one.class_ids == face] for one in found]
    asked = json.dumps([str(path) for path, _ in rows])
    answer = answered([str(python), "-c", DEFACE_BOXES], asked)
    truths = [truth for _, truth in rows]
    _row("anonymize", len(chosen) / mine, boxes, truths)
    _row("deface", len(chosen) / theirs, json.loads(answer.splitlines()[-1]), truths)


def _pixels(path: Path) -> int:
    from PIL import Image

    with Image.open(path) as image:
        return image.width * image.height
