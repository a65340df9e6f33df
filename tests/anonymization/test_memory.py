"""Memory that was freed is used again."""

import platform
import subprocess
import sys

import pytest

from anonymization import memory

SECOND_BLOCK = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from anonymization.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def fill():
    block = bytearray(64 * 2**20)
    block[::4096] = bytes(len(block) // 4096)

with ThreadPoolExecutor(1) as threads:
    threads.submit(fill).result()
    before = faults()
    threads.submit(fill).result()
    print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone can keep it")
def test_a_large_block_is_handed_out_again_without_a_page_fault() -> None:
    given, kept = (
        int(subprocess.check_output([sys.executable, "-c", SECOND_BLOCK, how], text=True))
        for how in ("give", "keep")
    )
    assert kept < 1000 < given


def test_another_c_library_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    assert not memory.keep_freed_memory()
