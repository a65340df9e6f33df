"""The networks of a bundle, and how many runs of them one picture has at a time.

A picture asks for one run of each network in each of its views: two for a flat picture, some
hundred for a panorama. Runs with one thread each, side by side, use cores best, as every layer of
a run with several threads ends in a wait for the slowest of them. So the cores that a picture may
use are first shared between its runs; only what is left over makes runs with several threads.

This is the batch of this anonymizer. One run over several pictures is not built: pictures would be
padded to a common size, the boxes and masks of each would have to be told apart inside the graph,
and on a CPU a convolution of one picture fills a core already.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from anonymization.detection.runtime import Runtime
from anonymization.pipeline import Cores

T = TypeVar("T")
R = TypeVar("R")

Runtimes = Mapping[str, Runtime]


class Networks:
    """Runs a bundle's graphs on one core or on several; safe to use from several threads."""

    def __init__(
        self, names: Sequence[str], load: Callable[[str, int], Runtime], cores: Cores
    ) -> None:
        """Load each graph for a flat picture's runs.

        Args:
            names: The graphs, in the order in which they run.
            load: Loads a graph by name for so many threads a run.
            cores: How the cores of this machine are shared.

        Raises:
            RuntimeLoadError: If a graph cannot be loaded.
        """
        self.names = tuple(names)
        self._load = load
        self._cores = cores
        self._lock = threading.Lock()
        self._loaded: dict[int, Runtimes] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._with_threads(cores.threads_of(len(self.names)))

    @classmethod
    def fixed(cls, runtimes: Runtimes) -> Networks:
        """Run what is loaded already, one run after the other."""
        return cls(tuple(runtimes), lambda name, _: runtimes[name], Cores(1, 1, 1))

    def each(self, work: Callable[[T, Runtimes], R], jobs: Sequence[T]) -> list[R]:
        """Do the jobs of one picture, several at a time; return their results in order.

        Args:
            work: Does one job with these runtimes, by network name.
            jobs: What to do.
        """
        runtimes = self._with_threads(self._cores.threads_of(len(jobs)))
        if len(jobs) == 1 or self._cores.runs == 1:
            return [work(job, runtimes) for job in jobs]
        return list(self._started_pool().map(lambda job: work(job, runtimes), jobs))

    def _with_threads(self, threads: int) -> Runtimes:
        with self._lock:
            if threads not in self._loaded:
                self._loaded[threads] = {name: self._load(name, threads) for name in self.names}
            return self._loaded[threads]

    def _started_pool(self) -> ThreadPoolExecutor:
        with self._lock:
            # One for all pictures: the last of a folder then gets the cores that others left.
            self._pool = self._pool or ThreadPoolExecutor(self._cores.runs, "network")
            return self._pool
