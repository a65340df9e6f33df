"""How fast and in how much memory a big JPEG is read and written, beside libjpeg-turbo.

    python -m benchmarks.encoding [PICTURE]

A JPEG is made by enlarging a photograph (or generated texture, where none is named), decoded,
50 objects in it obscured with blur, and encoded again with all blocks outside of them kept. The
floor is Pillow's libjpeg-turbo decoding and encoding the same file into and from memory, the best
of some repeats of each, measured in turn. Promised: read and encode take less than 1.5 times the
floor, obscuring at most a tenth of reading and encoding, and all of it less than 1.5 GB of memory.
"""

from __future__ import annotations

import argparse
import io
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from anonymization.detection.finds import Detections
from anonymization.formats.picture import decode, encode
from anonymization.obscuring.obscure import obscure
from anonymization.obscuring.region import Region, hidden_parts
from anonymization.taxonomy import ClassSpec, Taxonomy

REPEATS = 7
RATIO_MAX, OBSCURING_MAX, MEMORY_MAX_GB = 1.5, 0.1, 1.5
QUALITY = 92
GRAIN = 3.0
"""Levels of 255, as a camera at ISO 400 has; without it nothing is left to decode."""
TAXONOMY = Taxonomy({"face": ClassSpec("ellipse", "ellipse", margin=0.1, feather=0.2)})


def picture_bytes(path: str | None, width: int, height: int) -> bytes:
    """Return a JPEG of the wanted size with noise, from a photograph or texture."""
    noise = np.random.default_rng(0)
    if path:
        small = Image.open(path).convert("RGB")
    else:
        small = Image.fromarray(noise.integers(0, 256, (64, 128, 3), np.uint8))
    pixels = np.asarray(small.resize((width, height), Image.Resampling.LANCZOS))
    grain = noise.normal(0, GRAIN, (height, width, 1)).astype(np.float32)
    image = Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def objects(count: int, width: int, height: int) -> Detections:
    """Return finds of the sizes that faces and persons have in a panorama, spread over it."""
    noise = np.random.default_rng(1)
    sides = noise.uniform(width / 400, width / 60, (count, 1)) * np.array([[1.0, 1.4]])
    starts = noise.uniform(0, 1, (count, 2)) * (np.array([[width, height]]) - sides)
    boxes = np.concatenate([starts, starts + sides], axis=1).astype(np.float32)
    return Detections.from_boxes(boxes, class_ids=np.zeros(count))


def timed(seconds: list[float], call: Callable[..., Any], *values: Any) -> Any:
    """Call it and keep the time it took."""
    start = time.perf_counter()
    result = call(*values)
    seconds.append(time.perf_counter() - start)
    return result


def floor(data: bytes) -> None:
    """Decode and encode with Pillow's libjpeg-turbo, pixels in Pillow's own memory."""
    with Image.open(io.BytesIO(data)) as image:
        image.save(io.BytesIO(), "JPEG", quality=QUALITY)


def say(what: str, value: float, limit: float, unit: str = "") -> None:
    """Print one number beside what was promised."""
    verdict = "ok" if value <= limit else "TOO MUCH"
    print(f"{what:<46} {value:6.2f}{unit}   of {limit:4.2f}{unit}   {verdict}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encoding", description=__doc__)
    parser.add_argument("picture", nargs="?")
    parser.add_argument("--width", type=int, default=8192)
    parser.add_argument("--height", type=int, default=4096)
    parser.add_argument("--objects", type=int, default=50)
    words = parser.parse_args()
    # In another process, so that its memory does not count here.
    with ProcessPoolExecutor(1) as other:
        data = other.submit(picture_bytes, words.picture, words.width, words.height).result()
    finds = objects(words.objects, words.width, words.height)
    times: dict[str, list[float]] = {k: [] for k in ("floor", "read", "obscure", "encode")}
    for _ in range(REPEATS):
        timed(times["floor"], floor, data)
        picture = timed(times["read"], decode, data)
        regions: list[Region] = []
        hidden = timed(
            times["obscure"],
            lambda p=picture, r=regions: obscure(p.native, finds, TAXONOMY, regions=r),
        )
        written = timed(
            times["encode"],
            lambda p=picture, h=hidden, r=regions: encode(p, h, hidden=hidden_parts(r)),
        )
        del picture, hidden
    least = {name: min(taken) for name, taken in times.items()}
    print(
        f"{words.width}x{words.height}, {words.objects} objects, "
        f"{len(data) / 2**20:.1f} MB in, {len(written) / 2**20:.1f} MB out: "
        + ", ".join(f"{name} {taken:.2f} s" for name, taken in least.items())
    )
    work = least["read"] + least["encode"]
    say("read + encode / libjpeg-turbo's decode + encode", work / least["floor"], RATIO_MAX)
    say("obscuring / read + encode", least["obscure"] / work, OBSCURING_MAX)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    say("memory at most", memory, MEMORY_MAX_GB, " GB")


if __name__ == "__main__":
    main()
