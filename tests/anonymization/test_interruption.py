"""A first signal lets what is in work end; a second one does not wait for it."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import threading, time
from anonymization.job.interruption import Interruption
from anonymization.pipeline import work_off

interruption = Interruption()

def work(seconds):
    print("in work", flush=True)
    interruption.stop.wait()
    print("noted", flush=True)
    time.sleep(seconds)

with interruption.watched():
    work_off([SECONDS], work, lambda *_: None, workers=1, stop=interruption.stop)
print("done", flush=True)
"""


def started(seconds: float) -> subprocess.Popen[str]:
    code = PROGRAM.replace("SECONDS", str(seconds))
    running = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    assert running.stdout.readline() == "in work\n"
    return running


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_process_at_once(
    first: signal.Signals, second: signal.Signals
) -> None:
    with started(600) as running:
        try:
            running.send_signal(first)
            assert running.stdout is not None
            assert running.stdout.readline() == "noted\n"
            running.send_signal(second)
            assert running.wait(30) == -second
        finally:
            running.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_one_signal_what_is_in_work_is_done(number: signal.Signals) -> None:
    with started(0.2) as running:
        running.send_signal(number)
        assert running.communicate(timeout=60)[0] == "noted\ndone\n"
    assert running.returncode == 0
