"""How fast, and in how much memory, finished annotations are pulled from a Label Studio server.

    python -m benchmarks.label_studio [--tasks 10000]

A server of its own (`make label-studio-install` puts the program there) is filled with tasks that
carry the annotations of drawn scenes, persons and vehicles as brushes, as the champion predicts
them. A fresh process then pulls them all into a snapshot, as the `sync` stage does. Promised: 100
tasks a second at least, in memory that does not grow with the annotations.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from annotation.client import Server
from annotation.labelling import labelling
from annotation.pull import pulled, without_duplicates
from annotation.regions import Size
from annotation.server import PROGRAM, LocalServer
from annotation.snapshot import Head, write_snapshot
from annotation.to_label_studio import annotations_to_results
from anonymization.taxonomy import Taxonomy
from conf import arguments, compose
from data.coco import Annotation, mask_to_rle
from data.street import StreetConfig, draw_sequence

TASKS, BATCH, SCENES = 10_000, 250, 8
SPEED_MIN = 100.0
TITLE = "Pulling"


def scenes(taxonomy: Taxonomy) -> list[list[dict[str, Any]]]:
    """Return the regions of some drawn scenes."""
    config = StreetConfig(scenes=SCENES, sequence_length=1, seed=1)
    found = []
    for index in range(SCENES):
        for scene in draw_sequence(config, index):
            height, width = scene.pixels.shape[:2]
            objects = [
                Annotation(number, 1, thing.class_name, thing.box_xyxy, mask_to_rle(thing.mask))
                for number, thing in enumerate(scene.objects, start=1)
                if thing.mask.any()
            ]
            found.append(annotations_to_results(objects, taxonomy, Size(width, height)))
    return found


def fill(server: Server, project: int, count: int, taxonomy: Taxonomy) -> None:
    """Add annotated tasks, a batch a request."""
    drawn = scenes(taxonomy)
    for start in range(0, count, BATCH):
        numbers = range(start, min(start + BATCH, count))
        server.add_tasks(project, [_task(n, drawn[n % len(drawn)]) for n in numbers])
        print(f"\rfilling: {numbers.stop} of {count} tasks", end="", flush=True)
    print()


def _task(number: int, results: list[dict[str, Any]]) -> dict[str, Any]:
    data = {"image": "/none.png", "sha256": f"{number:064x}", "doubt": ""}
    return {"data": data, "annotations": [{"result": results}]}


def pull(url: str, project: int, folder: Path) -> None:
    """Pull into a snapshot, in a process that does nothing else; print the figures as JSON."""
    server = Server(url, os.environ["LABEL_STUDIO_API_KEY"])
    before = _peak_mb()
    start = time.perf_counter()
    rows = without_duplicates(server, list(server.tasks(project)))
    with pulled(server, project, rows, folder) as found:
        write_snapshot(folder / "snapshot", Head(url, project, TITLE), found.lines())
    taken = time.perf_counter() - start
    figures = {"tasks": len(found.finished), "seconds": taken, "grown_mb": _peak_mb() - before}
    print(json.dumps(figures))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def started(folder: Path) -> Iterator[tuple[Server, str]]:
    """Yield a fresh server and its key; stop it at the end."""
    local = LocalServer(
        folder=folder / "server", program=PROGRAM.resolve(), documents=folder, port=free_port()
    )
    account = local.start()
    try:
        yield Server(account.url, account.token), account.token
    finally:
        local.stop()


def measure(count: int, folder: Path) -> None:
    """Fill, pull and print."""
    taxonomy = street_taxonomy()
    for server, key in started(folder):
        project = server.create_project(TITLE, label_config=labelling(taxonomy).xml)
        fill(server, project, count, taxonomy)
        words = [sys.executable, "-m", "benchmarks.label_studio", "--pull", server.url]
        words += [str(project), str(folder)]
        environment = os.environ | {"LABEL_STUDIO_API_KEY": key}
        ended = subprocess.run(words, env=environment, stdout=subprocess.PIPE, check=True)
        _say(json.loads(ended.stdout), folder / "snapshot" / "tasks.jsonl", count)


def street_taxonomy() -> Taxonomy:
    """Return the classes of the default configuration."""
    taxonomy: Taxonomy = arguments(compose(), {"taxonomy": Taxonomy})["taxonomy"]
    return taxonomy


def _say(figures: dict[str, Any], snapshot: Path, count: int) -> None:
    if figures["tasks"] != count:
        raise SystemExit(f"{figures['tasks']} of {count} tasks came back")
    speed = count / figures["seconds"]
    verdict = "ok" if speed >= SPEED_MIN else "TOO SLOW"
    load = os.getloadavg()[0]
    print(
        f"tasks pulled a second  {speed:10.0f}   of {SPEED_MIN:.0f}   {verdict}   (load {load:.1f})"
    )
    print(f"memory it grew by      {figures['grown_mb']:10.0f} MB")
    print(f"snapshot that it wrote {snapshot.stat().st_size / 1e6:10.0f} MB, {count} tasks")


def main() -> None:
    """Measure; or pull, as the process that is measured."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.label_studio",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tasks", type=int, default=TASKS)
    parser.add_argument("--pull", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.pull:
        url, project, folder = given.pull
        pull(url, int(project), Path(folder))
        return
    with tempfile.TemporaryDirectory() as name:
        measure(given.tasks, Path(name))


if __name__ == "__main__":
    main()
