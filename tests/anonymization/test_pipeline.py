"""The pipeline is bounded, stops when told, and shares a machine."""

import threading
import time

import pytest

from anonymization import pipeline
from anonymization.pipeline import Budget, Cores, StoppedError, work_off


def test_results_come_with_their_position_and_tasks_are_taken_late() -> None:
    taken: list[int] = []
    done: dict[int, int] = {}

    def tasks() -> object:
        for number in range(20):
            taken.append(number)
            assert len(taken) - len(done) <= 4  # two threads, one waiting, one being handed over
            yield number

    work_off(tasks(), lambda n: n * n, done.__setitem__, workers=2, stop=threading.Event())  # type: ignore[arg-type]
    assert done == {n: n * n for n in range(20)}


def test_nothing_starts_after_a_stop_and_what_is_done_is_kept() -> None:
    stop = threading.Event()
    done: dict[int, int] = {}

    def work(number: int) -> int:
        if number == 3:
            stop.set()
        if number > 3 and stop.is_set():
            raise StoppedError("stopped")
        return number

    work_off(range(1000), work, done.__setitem__, workers=1, stop=stop)
    assert done == {0: 0, 1: 1, 2: 2, 3: 3}


def test_an_error_in_a_task_ends_the_work() -> None:
    def work(number: int) -> int:
        raise RuntimeError("boom")

    stop = threading.Event()
    with pytest.raises(RuntimeError, match="boom"):
        work_off(range(9), work, lambda *_: None, workers=2, stop=stop)
    assert stop.is_set()


def test_the_budget_lets_a_large_one_in_alone_and_in_turn() -> None:
    budget = Budget(10)
    inside: list[int] = []
    most: list[int] = []
    lock = threading.Lock()

    def hold(amount: int) -> None:
        with budget.hold(amount):
            with lock:
                inside.append(amount)
                most.append(sum(inside))
            time.sleep(0.01)
            with lock:
                inside.remove(amount)

    threads = [threading.Thread(target=hold, args=(n,)) for n in (4, 4, 4, 50, 4, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert all(total <= 10 or total == 50 for total in most)


@pytest.mark.parametrize(
    ("workers", "threads", "pictures", "expected"),
    [
        (None, None, 100, Cores(4, 1, 4)),
        (None, None, 1, Cores(1, 4, 4)),
        (None, None, 0, Cores(1, 4, 4)),
        (2, None, 100, Cores(2, 2, 4)),
        (8, None, 100, Cores(8, 1, 8)),
        (None, 3, 100, Cores(4, 3, 4, 3)),
        (1, 1, 100, Cores(1, 1, 1, 1)),
    ],
)
def test_cores_are_shared_between_pictures_and_networks(
    monkeypatch: pytest.MonkeyPatch,
    workers: int | None,
    threads: int | None,
    pictures: int,
    expected: Cores,
) -> None:
    monkeypatch.setattr(pipeline, "cores", lambda: 4)
    assert Cores.between(workers, threads, pictures) == expected


@pytest.mark.parametrize(
    ("cores", "jobs", "threads"),
    [
        (Cores(1, 4, 4), 1, 4),  # one network on a flat picture
        (Cores(1, 4, 4), 2, 2),  # two of them
        (Cores(1, 4, 4), 90, 1),  # a panorama
        (Cores(4, 1, 4), 1, 1),  # one picture of a folder
        (Cores(4, 3, 4, 3), 90, 3),  # as asked for
    ],
)
def test_runs_get_the_cores_that_other_runs_leave(cores: Cores, jobs: int, threads: int) -> None:
    assert cores.threads_of(jobs) == threads


@pytest.mark.parametrize(
    ("workers", "threads", "pictures", "beside"),
    [
        (None, None, 100, 1),
        (None, None, 1, 4),
        (2, None, 100, 2),
        (8, None, 100, 1),
        (4, 3, 100, 1),  # threads of network runs, which take turns
        (1, 2, 100, 2),
    ],
)
def test_what_is_no_network_takes_only_cores_that_other_pictures_leave(
    monkeypatch: pytest.MonkeyPatch,
    workers: int | None,
    threads: int | None,
    pictures: int,
    beside: int,
) -> None:
    monkeypatch.setattr(pipeline, "cores", lambda: 4)
    assert Cores.between(workers, threads, pictures).beside == beside
