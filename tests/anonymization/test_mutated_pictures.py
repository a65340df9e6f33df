"""Damaged files are refused, or read and written whole: no crash, no hang, bounded memory."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("mutated_pictures", HERE / "mutated_pictures.py")
assert _spec is not None
assert _spec.loader is not None
mutated_pictures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(mutated_pictures)

MEMORY_BYTES = 4 * 2**30
"""Address space; a picture of the largest size that is allowed below takes a tenth of it."""

PROGRAM = """
import collections, json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[4]),) * 2)
sys.path.insert(0, sys.argv[1])
import mutated_pictures
from anonymization.formats.picture import PictureError, PictureWriteError, decode, encode

counts = collections.Counter()
for name, make in mutated_pictures.SOURCES.items():
    source = make()
    assert decode(source).native.size, name
    for seed in range(int(sys.argv[2]), int(sys.argv[3])):
        print(name, seed, file=sys.stderr, flush=True)
        try:
            picture = decode(mutated_pictures.mutated(source, seed), max_pixels=2**24)
        except PictureError:
            counts["refused"] += 1
            continue
        changed = picture.native.copy()
        changed[: picture.height // 3, : picture.width // 2] = 0
        again = decode(encode(picture, changed))
        assert again.native.shape == changed.shape, (name, seed)
        counts["written"] += 1
print(json.dumps(counts))
"""


def run(first: int, last: int, timeout_s: int) -> dict[str, int]:
    """Run in another process, which a crash in a C library would end."""
    words = [sys.executable, "-c", PROGRAM, str(HERE), str(first), str(last), str(MEMORY_BYTES)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=timeout_s)
    tail = "\n".join(ended.stderr.splitlines()[-20:])
    assert ended.returncode == 0, f"ended with {ended.returncode} at:\n{tail}"
    return dict(json.loads(ended.stdout))


def check(counts: dict[str, int], per_format: int) -> None:
    assert sum(counts.values()) == per_format * len(mutated_pictures.SOURCES)
    assert min(counts["refused"], counts["written"]) > per_format


def test_a_few_hundred_damaged_pictures() -> None:
    check(run(0, 18, timeout_s=120), 18)


@pytest.mark.slow
def test_two_thousand_damaged_pictures_of_every_format() -> None:
    check(run(1000, 3000, timeout_s=1800), 2000)
