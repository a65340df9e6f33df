"""A folder against the network and the codecs alone, and two workers against one."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from anonymization.anonymizer import Anonymizer
from anonymization.detection.detector import Detector
from anonymization.detection.runtime import Runtime, load_graph
from anonymization.formats.picture import SUFFIXES, decode
from anonymization.job.inputs import make_plan
from anonymization.job.processing import Processor
from anonymization.job.results import Options
from anonymization.pipeline import Budget, Cores, cores, pixel_budget, work_off
from benchmarks.anonymizing.timing import Run, Setting, codec, in_turns


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
