"""Reading ahead: the same answers in the same order, whoever reads."""

import io
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.reading import SERIAL_BELOW, Reader
from data.sources.protocol import Entry, Found, Labels, UnreadableEntryError


class Noise:
    """A source whose every seventh entry is no picture."""

    id = "noise"

    def survey(self) -> dict[str, Any]:
        return {}

    def entries(self, surveyed: Mapping[str, Any]) -> list[Entry]:
        return [Entry(str(n), "key") for n in range(SERIAL_BELOW + 5)]

    def part(self, entries: Sequence[Entry]) -> "Noise":
        return self

    def read(self, entry: Entry) -> Found:
        number = int(entry.origin)
        if number % 7 == 6:
            return Found(b"no picture", {}, Labels(), None)
        pixels = np.random.default_rng(number).integers(0, 255, (8, number + 1, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        return Found(buffer.getvalue(), {}, Labels(), None)


def answers(reader: Reader, work: list[tuple[Noise, Entry]]) -> list[object]:
    found: list[object] = []
    for source, entry in work:
        try:
            read = reader.read(source, entry)
            found.append((read.found.content, read.suffix, read.width, read.height))
        except UnreadableEntryError as error:
            found.append(str(error))
    return found


def test_several_processes_answer_as_one_does() -> None:
    source = Noise()
    work = [(source, entry) for entry in source.entries({})]
    with Reader(work, workers=1) as alone, Reader(work, workers=2) as together:
        expected = answers(alone, work)
        assert answers(together, work) == expected
    assert "is not a picture" in str(expected[6])
    assert [e[2] for e in expected[:3] if isinstance(e, tuple)] == [1, 2, 3]


def test_entries_that_are_not_asked_for_are_passed_over() -> None:
    source = Noise()
    work = [(source, entry) for entry in source.entries({})]
    with Reader(work, workers=2) as reader:
        assert answers(reader, work[1::3]) == answers(Reader([], workers=1), work[1::3])


ORPHANS = """
import os, sys, time
from concurrent.futures import ProcessPoolExecutor
import multiprocessing
from data.reading import _end_with_parent
if __name__ == "__main__":
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(2, spawn, initializer=_end_with_parent)
    pids = {pool.submit(os.getpid).result() for _ in range(8)}
    print(*pids, flush=True)
    time.sleep(60)
"""


def test_readers_end_with_a_killed_collection(tmp_path: Path) -> None:
    script = tmp_path / "orphans.py"
    script.write_text(ORPHANS)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    children = [int(pid) for pid in parent.stdout.readline().split()]
    assert children
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(_lives(pid) for pid in children):
        time.sleep(0.1)
    assert not any(_lives(pid) for pid in children)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False
