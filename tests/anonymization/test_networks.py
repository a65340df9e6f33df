"""Network runs of one picture stand side by side, and no more of them than there are cores."""

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from anonymization.bundle import Bundle
from anonymization.card import TilingCard
from anonymization.detection.detector import Detector
from anonymization.detection.networks import Networks, Runtimes
from anonymization.detection.runtime import InferenceError
from anonymization.pipeline import Cores


class Busy:
    """A runtime that remembers how many runs there were at most at once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.now = self.most = 0

    def run(self, feeds: object) -> dict[str, object]:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.02)
        with self.lock:
            self.now -= 1
        return {}


def look(job: int, runtimes: Runtimes) -> int:
    runtimes["a"].run({})
    return job


@pytest.mark.parametrize(
    ("cores", "most"), [(Cores(1, 3, 3), 3), (Cores(1, 1, 1), 1), (Cores(2, 1, 2), 2)]
)
def test_runs_stand_side_by_side_up_to_the_cores(cores: Cores, most: int) -> None:
    busy = Busy()
    networks = Networks(("a",), lambda *_: busy, cores)  # type: ignore[arg-type, return-value]
    assert networks.each(look, range(9)) == list(range(9))
    assert busy.most == most


def test_several_pictures_together_have_no_more_runs_than_cores() -> None:
    busy = Busy()
    networks = Networks(("a",), lambda *_: busy, Cores(3, 1, 3))  # type: ignore[arg-type, return-value]
    pictures = [threading.Thread(target=networks.each, args=(look, range(1, 6))) for _ in range(3)]
    for picture in pictures:
        picture.start()
    for picture in pictures:
        picture.join(10)
    assert busy.most == 3


def test_a_graph_is_loaded_once_for_each_number_of_threads() -> None:
    loaded: list[tuple[str, int]] = []

    def load(name: str, threads: int) -> Busy:
        loaded.append((name, threads))
        return Busy()

    networks = Networks(("a", "b"), load, Cores(1, 4, 4))  # type: ignore[arg-type]
    for jobs in (2, 90, 2, 90):
        networks.each(look, range(jobs))
    assert loaded == [("a", 2), ("b", 2), ("a", 1), ("b", 1)]


def test_what_fails_in_one_run_fails_the_picture() -> None:
    def fail(job: int, runtimes: Runtimes) -> int:
        if job == 3:
            raise InferenceError("view 3")
        return look(job, runtimes)

    networks = Networks(("a",), lambda *_: Busy(), Cores(1, 2, 2))  # type: ignore[arg-type, return-value]
    with pytest.raises(InferenceError, match="view 3"):
        networks.each(fail, range(9))


def test_finds_are_the_same_however_the_cores_are_shared(
    make_bundle: Callable[..., Bundle],
) -> None:
    bundle = make_bundle([([10.0, 8.0, 30.0, 28.0], 0.9, 0), ([90.0, 80.0, 200.0, 140.0], 0.8, 1)])
    pixels = np.random.default_rng(0).integers(0, 256, (1200, 1600, 3), dtype=np.uint8)
    tiling = TilingCard(shrink_max=1.0)
    alone, shared = (
        Detector.from_bundle(bundle, cores=cores).detect(pixels, tiling=tiling)
        for cores in (Cores(1, 1, 1), Cores(1, 4, 4))
    )
    assert len(alone) > 8
    np.testing.assert_array_equal(alone.boxes_xyxy, shared.boxes_xyxy)
    np.testing.assert_array_equal(alone.scores, shared.scores)
