"""What `anonymize` costs, measured in one run on the photographs that it is given.

    python -m benchmarks.anonymizing BUNDLE PICTURES [--faces SET] [--deface PYTHON]

    large       8192x4096 with 50 objects, all but the network, against libjpeg-turbo; memory
    panorama    the network runs of one panorama, side by side and one after the other
    folder      wall time of a folder against the network alone and decoding + encoding alone
    obscuring   share of decoding + encoding that obscuring adds, of the picture as it comes out and
                of the same unchanged: all finds; faces and plates
    growth      time to obscure the same objects in a larger picture, and larger objects in the same
    workers     two workers against one, where the network has one thread
    deface      pictures a second of both programs on the same photographs of about a megapixel,
                and recall and finds per face of both on a labelled set (IoU 0.5)

SET is a folder with `annotations.json` (COCO) and its pictures. PYTHON is that of an environment
of its own in which deface is installed, as its licence and libraries stay out of ours:

    python -m venv DEFACE && DEFACE/bin/pip install deface==1.5.0 onnx onnxruntime

Each comparison is measured in turns, so that whatever else the machine does hits both sides.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anonymization.anonymizer import Anonymizer
from anonymization.bundle import Bundle
from anonymization.card import MASK_NETWORK, Card
from anonymization.detection.detector import Detector
from anonymization.detection.finds import Detections, box_iou
from anonymization.detection.runtime import Runtime, load_graph
from anonymization.formats.picture import SUFFIXES, decode, encode
from anonymization.job.inputs import make_plan
from anonymization.job.processing import Processor
from anonymization.job.results import Options
from anonymization.memory import keep_freed_memory
from anonymization.obscuring.region import Region, hidden_parts
from anonymization.panorama.gpano import choose_projection
from anonymization.pipeline import Budget, Cores, cores, pixel_budget, work_off
from benchmarks.encoding import QUALITY, picture_bytes

Run = tuple[str, Mapping[str, Any]]
"""One run of a network: its name, and its inputs."""

REPEATS = 3
MEGAPIXEL = (0.6e6, 1.6e6)
GROWN = 20
PANORAMA = (4096, 2048)
IOU_MIN = 0.5
SMALL = ("face", "license_plate")
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


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        bundle: The bundle.
        pictures: Photographs.
    """

    bundle: Bundle
    pictures: tuple[Path, ...]


def seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    """Return how long something takes."""
    start = clock()
    work()
    return clock() - start


def in_turns(
    *works: Callable[[], object], clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Return the least time of each, measured one after the other and again.

    What runs in one thread is measured by `time.thread_time`, which other load hardly lengthens.
    """
    rounds = [[seconds(work, clock) for work in works] for _ in range(REPEATS)]
    return [min(times) for times in zip(*rounds, strict=True)]


def folder_run(setting: Setting, anonymizer: Anonymizer, workers: int) -> None:
    """Anonymize all pictures into a temporary folder with the command's own pipeline."""
    with tempfile.TemporaryDirectory() as name:
        plan = make_plan(setting.pictures, Path(name), suffixes=SUFFIXES)
        stop = threading.Event()
        work = Processor(anonymizer, Options(), stop=stop, budget=Budget(pixel_budget()))
        statuses: list[str] = []

        def collect(_: int, done: Any) -> None:
            statuses.append(done.result.status)

        work_off(plan.loaded(), work, collect, workers=workers, stop=stop)
        if set(statuses) != {"anonymized"}:
            raise SystemExit(f"not every picture was anonymized: {sorted(set(statuses))}")


class Recorder:
    """A network that remembers what it was asked."""

    def __init__(self, name: str, graph: Runtime, asked: list[Run]) -> None:
        """Stand before a graph, and add each of its runs to a list."""
        self._name, self._graph, self._asked = name, graph, asked

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Run the graph."""
        self._asked.append((self._name, feeds))
        return self._graph.run(feeds)


def network_runs(setting: Setting) -> list[Run]:
    """Return what the networks are asked for all pictures: of each view, and of what to draw."""
    asked: list[Run] = []
    graphs = {
        name: Recorder(name, load_graph(content, threads=cores()), asked)
        for name, content in setting.bundle.graphs.items()
    }
    detector = Detector(setting.bundle.card, graphs)
    for path in setting.pictures:
        detector.detect(decode(path.read_bytes()).pixels)
    return asked


def codec(content: bytes) -> None:
    """Decode and encode a picture that nothing has changed in."""
    picture = decode(content)
    encode(picture, picture.native)


def opened(content: bytes) -> NDArray[np.uint8]:
    """Decode with libjpeg-turbo through OpenCV."""
    return np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR), np.uint8)


def libjpeg(content: bytes) -> None:
    """Decode and encode with libjpeg-turbo."""
    pixels = opened(content)
    cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


def measure_folder(setting: Setting) -> None:
    """Print the wall time of a folder against its parts."""
    workers = cores()
    plan = Cores.between(None, None, len(setting.pictures))
    anonymizer = Anonymizer.from_bundle(setting.bundle, cores=plan)
    graphs = {
        threads: {
            name: load_graph(content, threads=threads)
            for name, content in setting.bundle.graphs.items()
        }
        for threads in {1, workers}
    }
    runs = network_runs(setting)
    contents = [path.read_bytes() for path in setting.pictures]

    def network_alone() -> None:
        for name, feeds in runs:
            graphs[workers][name].run(feeds)

    def network_shared() -> None:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda job: graphs[1][job[0]].run(job[1]), runs))

    def codec_alone() -> None:
        for content in contents:
            codec(content)

    def codec_shared() -> None:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(codec, contents))

    whole, network, shared, files, files_shared = in_turns(
        lambda: folder_run(setting, anonymizer, workers),
        network_alone,
        network_shared,
        codec_alone,
        codec_shared,
    )
    one = max(network, files)
    many = max(shared, files_shared)
    print(f"folder      {len(contents)} pictures in {whole:.2f} s, {workers} workers")
    print(f"            one at a time: network {network:.2f} s, decode + encode {files:.2f} s")
    print(f"            folder over the larger: {whole / one:.2f}   (promised: at most 1.10)")
    both = shared + files_shared
    print(f"            {workers} at once: network {shared:.2f} s, codecs {files_shared:.2f} s")
    print(f"            folder over the larger: {whole / many:.2f}, over both: {whole / both:.2f}")


@dataclass(frozen=True)
class Obscured:
    """What obscuring some finds of one picture cost.

    Attributes:
        seconds: Obscuring; the copy of the picture that it works on is counted.
        written_s: Decoding the picture, and encoding it obscured: what a run pays besides.
        codec_s: Decoding and encoding the same picture, unchanged.
        share: Area of the boxes, each counted by itself, over the picture's.
        pixels: Of the picture.
    """

    seconds: float
    written_s: float
    codec_s: float
    share: float
    pixels: int


def _costs(
    anonymizer: Anonymizer, content: bytes, pixels: NDArray[Any], hidden: Detections
) -> Sequence[Callable[[], object]]:
    """Return what obscuring is measured by: itself, the file as it comes out, and as it was."""
    regions: list[Region] = []
    done = anonymizer.obscure(pixels, hidden, regions=regions)
    parts = hidden_parts(regions)
    return (
        lambda: anonymizer.obscure(pixels, hidden),
        lambda: encode(decode(content), done, hidden=parts),
        lambda: codec(content),
    )


def obscured(setting: Setting, classes: Sequence[str]) -> list[Obscured]:
    """Measure each picture in which finds of these classes are obscured."""
    anonymizer = Anonymizer.from_bundle(setting.bundle, threads=1)
    wanted = [anonymizer.taxonomy.class_id(name) for name in classes]
    rows = []
    for path in setting.pictures:
        content = path.read_bytes()
        picture = decode(content)
        height, width = picture.height, picture.width
        hidden = anonymizer.decide(
            anonymizer.detect(picture.pixels), name=path.name, width=width, height=height
        ).hidden
        hidden = hidden.select(np.isin(hidden.class_ids, wanted))
        if not len(hidden):
            continue
        hiding, writing, coding = in_turns(
            *_costs(anonymizer, content, picture.native, hidden), clock=time.thread_time
        )
        boxes = hidden.boxes_xyxy
        area = float(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).sum())
        rows.append(Obscured(hiding, writing, coding, area / (height * width), height * width))
    return rows


def measure_obscuring(setting: Setting) -> None:
    """Print how much obscuring adds to decoding and encoding: of all finds, and of small ones.

    What is promised is for objects as they are common in a street. Where a bundle finds objects
    that fill the picture, the last figure says from which area on that can hold.
    """
    names = setting.bundle.card.taxonomy.names
    small = [name for name in names if name in SMALL]
    for which, classes in (("all finds", names), (" and ".join(small), small)):
        rows = obscured(setting, classes)
        if not rows:
            print(f"obscuring   {which}: nothing was found in these pictures")
            continue
        shares = [row.seconds / row.written_s for row in rows]
        unchanged = statistics.median(row.seconds / row.codec_s for row in rows)
        by_area = sum(row.seconds for row in rows) / sum(row.share * row.pixels for row in rows)
        by_codec = sum(row.codec_s for row in rows) / sum(row.pixels for row in rows)
        print(
            f"obscuring   {which}: {statistics.median(shares):.1%} of decode + encode at the "
            f"median of {len(rows)} pictures, {max(shares):.1%} at most   (promised: at most 10%); "
            f"{unchanged:.1%} of decode + encode of the same picture unchanged; "
            f"boxes cover {statistics.median(row.share for row in rows):.1%} at the median; "
            f"a pixel of theirs costs {by_area / by_codec:.1f} times one of the file"
        )


def measure_workers(setting: Setting) -> None:
    """Print two workers against one."""
    anonymizer = Anonymizer.from_bundle(setting.bundle, threads=1)
    one, two = in_turns(
        lambda: folder_run(setting, anonymizer, 1), lambda: folder_run(setting, anonymizer, 2)
    )
    print(
        f"workers     1: {len(setting.pictures) / one:.2f} pictures/s, "
        f"2: {len(setting.pictures) / two:.2f}, ratio {one / two:.2f}   (promised: at least 1.80)"
    )


def measure_growth(setting: Setting) -> None:
    """Print what obscuring costs as picture and objects grow: the area obscured decides."""
    anonymizer = Anonymizer.for_known_regions(setting.bundle.card)
    pixels = opened(setting.pictures[0].read_bytes())
    starts = np.random.default_rng(0).uniform(0, (700, 400), (GROWN, 2))

    def work(side: int, objects_px: float) -> tuple[Callable[[], object], Callable[[], object]]:
        large = cv2.resize(pixels, (side, side // 2), interpolation=cv2.INTER_LINEAR)
        boxes = np.hstack([starts, starts + objects_px])
        finds = Detections.from_boxes(boxes, class_ids=np.zeros(GROWN))
        return lambda: anonymizer.obscure(large, finds), large.copy

    pairs = [work(1024, 40), work(8192, 40), work(1024, 160)]
    times = in_turns(*(each for pair in pairs for each in pair), clock=time.thread_time)
    # The result is a copy of the picture; what is above that is the obscuring.
    small, wide, big = (max(times[i] - times[i + 1], 1e-6) for i in (0, 2, 4))
    print(
        f"growth      {GROWN} objects of 40 px: {small * 1e3:.1f} ms; in 64 times the picture "
        f"{wide / small:.2f} times that, with 16 times the area {big / small:.1f} times"
    )


def large_jpeg(setting: Setting) -> tuple[bytes, Detections]:
    """Return a JPEG of 8192x4096 from a photograph, with a camera's grain, and 50 objects in it."""
    content = picture_bytes(str(setting.pictures[0]), 8192, 4096)
    random = np.random.default_rng(0)
    corners = random.uniform((0, 1500), (7900, 3500), (50, 2))
    boxes = np.hstack([corners, corners + random.uniform(30, 250, (50, 2))])
    classes = np.arange(50) % len(setting.bundle.card.taxonomy.names)
    return content, Detections.from_boxes(boxes, class_ids=classes)


def rewritten(anonymizer: Anonymizer, content: bytes, finds: Detections) -> None:
    """Do everything to a picture but detect."""
    picture = decode(content)
    width, height = picture.width, picture.height
    decided = anonymizer.decide(finds, name="", width=width, height=height)
    regions: list[Region] = []
    hidden = anonymizer.hide(picture.native, decided, regions=regions)
    encode(picture, hidden, hidden=hidden_parts(regions))


def peak_gb(card: Card, content: bytes, finds: Detections) -> float:
    """Return the most memory that one such picture takes; for a process of its own."""
    cv2.setNumThreads(1)
    keep_freed_memory()  # as the command does
    rewritten(Anonymizer.for_known_regions(card), content, finds)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure_large(setting: Setting) -> None:
    """Print what an 8192x4096 JPEG with 50 objects costs beside the network."""
    content, finds = large_jpeg(setting)
    card = setting.bundle.card
    anonymizer = Anonymizer.for_known_regions(card)
    mine, theirs = in_turns(
        lambda: rewritten(anonymizer, content, finds),
        lambda: libjpeg(content),
        clock=time.thread_time,
    )
    # Spawned: a fork would begin with the memory of this process.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
        peak = other.submit(peak_gb, card, content, finds).result()
    print(
        f"large       8192x4096, 50 objects: {mine:.2f} s; libjpeg-turbo {theirs:.2f} s; "
        f"ratio {mine / theirs:.2f}   (promised: under 1.50); "
        f"memory {peak:.2f} GB   (promised: under 1.50)"
    )


class Silent:
    """A network that takes no time and finds nothing."""

    def __init__(self, name: str) -> None:
        """Answer as the network of that name."""
        maps = (0, 28, 28) if name == MASK_NETWORK else (0, 17, 56, 56)
        self._answer: dict[str, NDArray[Any]] = {
            "boxes": np.zeros((0, 4), np.float32),
            "scores": np.zeros(0, np.float32),
            "labels": np.zeros(0, np.int64),
            "masks" if name == MASK_NETWORK else "heatmaps": np.zeros(maps, np.float32),
        }

    def run(self, feeds: object) -> dict[str, NDArray[Any]]:
        """Return no finds."""
        del feeds
        return self._answer


def measure_panorama(setting: Setting) -> None:
    """Print what the views of a panorama cost, run by run and side by side."""
    pixels = opened(setting.pictures[0].read_bytes())
    width, height = PANORAMA
    panorama = cv2.resize(pixels, PANORAMA, interpolation=cv2.INTER_LINEAR)
    card = setting.bundle.card
    one_by_one = Detector.from_bundle(setting.bundle, threads=cores())
    side_by_side = Detector.from_bundle(setting.bundle)
    silent = Detector(card, {name: Silent(name) for name in card.graphs})
    views = side_by_side.views(
        width,
        height,
        projection=choose_projection("equirectangular", b"", width, height).projection,
    )
    before, after, rest = in_turns(
        *(
            lambda d=detector: d.detect(panorama, projection="equirectangular")
            for detector in (one_by_one, side_by_side, silent)
        )
    )
    print(
        f"panorama    {width}x{height}, {len(views)} views: one after the other with {cores()} "
        f"threads {before:.2f} s, side by side {after:.2f} s; without networks {rest:.2f} s"
    )


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


def chosen_pictures(folder: Path, count: int) -> tuple[Path, ...]:
    """Return some pictures of a folder, spread evenly over the order of their names."""
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    if not found:
        raise SystemExit(f"{folder} holds no JPEG pictures")
    step = max(1, len(found) // count)
    by_name = {path.name: path for path in found[::step][:count]}
    return tuple(by_name.values())


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.anonymizing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--count", type=int, default=48, help="pictures that are measured")
    parser.add_argument("--faces", type=Path, help="COCO set with labelled faces")
    parser.add_argument("--deface", type=Path, help="Python in which deface is installed")
    parser.add_argument("--only", nargs="*", default=[], help="names of measures")
    options = parser.parse_args()
    keep_freed_memory()  # as the command does
    setting = Setting(Bundle.load(options.bundle), chosen_pictures(options.pictures, options.count))
    cv2.setNumThreads(1)
    print(f"load {os.getloadavg()[0]:.1f} on {cores()} cores")
    measures: dict[str, Callable[[], None]] = {
        "large": lambda: measure_large(setting),
        "panorama": lambda: measure_panorama(setting),
        "folder": lambda: measure_folder(setting),
        "obscuring": lambda: measure_obscuring(setting),
        "growth": lambda: measure_growth(setting),
        "workers": lambda: measure_workers(setting),
    }
    if options.deface and options.faces:
        measures["deface"] = lambda: measure_deface(
            setting, options.deface, options.faces, options.count * 4
        )
    for name in options.only or measures:
        if name not in measures:
            needs = "; it needs --faces and --deface" if name == "deface" else ""
            raise SystemExit(f"no measure {name!r}{needs}; there are {', '.join(measures)}")
        measures[name]()


if __name__ == "__main__":
    main()
