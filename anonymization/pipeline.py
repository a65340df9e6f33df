"""A bounded pipeline: several pictures at once, each by one thread, within a budget of pixels.

While one picture is decoded, another is in the network and a third is encoded: ONNX Runtime,
OpenCV and Pillow let other threads run meanwhile. On a CPU this beats one network run that is
spread over all cores, since decoding and encoding have only one core each to use.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from anonymization.errors import BlurloopError

T = TypeVar("T")
R = TypeVar("R")

BYTES_PER_PIXEL = 16
"""Of a picture of 8-bit RGB in work: upright pixels, their copy, the encoder's and decoder's own
buffers; 12 of JPEG and 21 of WebP. Others take as many times as much as their own pixels do."""

MEMORY_SHARE = 0.25
"""Share of the machine's memory that pictures in work may take."""

PIXELS_MIN = 64 * 10**6


def cores() -> int:
    """Return how many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count() or 1


@dataclass(frozen=True)
class Cores:
    """How the cores are shared between pictures and network runs.

    Attributes:
        workers: Pictures that are worked on at once.
        share: Cores for the network runs of one picture.
        runs: Most network runs at once, of all pictures together.
        threads: Threads of one run; None takes them from a picture's share.
    """

    workers: int
    share: int
    runs: int
    threads: int | None = None

    @classmethod
    def between(cls, workers: int | None, threads: int | None, pictures: int) -> Cores:
        """Share this machine's cores.

        As many pictures as cores, each with one core, beat fewer pictures with more; a single
        picture gets all cores for its network runs, and so does the last of a folder.

        Args:
            workers: As asked for, or None.
            threads: As asked for, or None.
            pictures: How many there are.
        """
        at_once = workers or max(1, min(cores(), pictures))
        if threads is not None:
            return cls(at_once, threads, at_once, threads)
        return cls(at_once, max(1, cores() // at_once), max(at_once, cores()))

    @property
    def beside(self) -> int:
        """Threads of a picture for all but its networks: of the cores that other pictures leave."""
        left = max(1, cores() // self.workers)
        return min(left, self.threads or left)

    def threads_of(self, jobs: int) -> int:
        """Return the threads of one run where a picture has so many.

        >>> [Cores(1, 8, 8).threads_of(jobs) for jobs in (1, 2, 90)]
        [8, 4, 1]
        """
        return self.threads or max(1, self.share // max(1, min(self.share, jobs)))


def pixel_budget() -> int:
    """Return how many pixels of 8-bit RGB may be in work at once on this machine."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return PIXELS_MIN
    return max(PIXELS_MIN, int(memory * MEMORY_SHARE / BYTES_PER_PIXEL))


class StoppedError(BlurloopError):
    """The run was told to end before this was done."""


class Budget:
    """Lets pictures in as long as their pixels fit; one that never fits goes alone.

    First come, first served, so that a large picture is not kept waiting by small ones.
    """

    def __init__(self, limit: int) -> None:
        """Allow `limit` pixels at once."""
        self._limit = limit
        self._used = 0
        self._entrance = threading.Lock()
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        """Wait for room, and give it back at the end of the block."""
        with self._entrance, self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + amount <= self._limit)
            self._used += amount
        try:
            yield
        finally:
            with self._changed:
                self._used -= amount
                self._changed.notify_all()


def work_off(
    tasks: Iterable[T],
    work: Callable[[T], R],
    collect: Callable[[int, R], None],
    *,
    workers: int,
    stop: threading.Event,
) -> None:
    """Do tasks with several threads.

    Tasks are taken from the iterable only when a thread is about to be free, so that what they
    hold is bounded. Once `stop` is set no further task starts; those in work end by themselves.

    Args:
        tasks: What to do, taken one by one in the caller's thread.
        work: Does one; it may raise `StoppedError` when it sees that `stop` is set.
        collect: Takes position and result of each as it ends, in the caller's thread.
        workers: Number of threads.
        stop: Ends the work early, when something else sets it or an exception leaves this.
    """
    waiting: dict[Future[R], int] = {}
    with ThreadPoolExecutor(workers, thread_name_prefix="picture") as pool:
        try:
            for position, task in enumerate(tasks):
                if stop.is_set():
                    break
                waiting[pool.submit(work, task)] = position
                # One more than there are threads, so that none is ever without work.
                while len(waiting) > workers:
                    _collect(waiting, collect)
            while waiting:
                _collect(waiting, collect)
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _collect(waiting: dict[Future[R], int], collect: Callable[[int, R], None]) -> None:
    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
    for future in done:
        position = waiting.pop(future)
        with contextlib.suppress(StoppedError):
            collect(position, future.result())
