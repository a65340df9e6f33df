"""What obscuring adds to decoding and encoding, and how it grows."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anonymization.anonymizer import Anonymizer
from anonymization.detection.finds import Detections
from anonymization.formats.picture import decode, encode
from anonymization.obscuring.region import Region, hidden_parts
from benchmarks.anonymizing.timing import Setting, codec, in_turns, opened

SMALL = ("face", "license_plate")
GROWN = 20


@dataclass(frozen=True)
class Obscured:
    """What obscuring some finds of one picture cost.

    Attributes:
        seconds: Obscuring, in the decoded picture itself.
        written_s: Decoding the picture, and encoding it obscured: what a run pays besides.
        codec_s: Decoding and encoding the same picture, unchanged.
        share: Area of the boxes, each counted by itself, over the picture's.
        pixels: Of the picture.
    """

    seconds: float
    written_s: float
    codec_s: float
    share: float
    pixels: int


def _costs(
    anonymizer: Anonymizer, content: bytes, pixels: NDArray[Any], hidden: Detections
) -> Sequence[Callable[[], object]]:
    """Return what obscuring is measured by: itself, the file as it comes out, and as it was."""
    regions: list[Region] = []
    done = anonymizer.obscure(pixels, hidden, regions=regions)
    parts, taken = hidden_parts(regions), pixels.copy()
    return (
        lambda: anonymizer.obscure(taken, hidden, in_place=True),
        lambda: encode(decode(content), done, hidden=parts),
        lambda: codec(content),
    )


def obscured(setting: Setting, classes: Sequence[str]) -> list[Obscured]:
    """Measure each picture in which finds of these classes are obscured."""
    anonymizer = Anonymizer.from_bundle(setting.bundle, threads=1)
    wanted = [anonymizer.taxonomy.class_id(name) for name in classes]
    rows = []
    for path in setting.pictures:
        content = path.read_bytes()
        picture = decode(content)
        height, width = picture.height, picture.width
        hidden = anonymizer.decide(
            anonymizer.detect(picture.pixels), name=path.name, width=width, height=height
        ).hidden
        hidden = hidden.select(np.isin(hidden.class_ids, wanted))
        if not len(hidden):
            continue
        hiding, writing, coding = in_turns(
            *_costs(anonymizer, content, picture.native, hidden), clock=time.thread_time
        )
        boxes = hidden.boxes_xyxy
        area = float(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).sum())
        rows.append(Obscured(hiding, writing, coding, area / (height * width), height * width))
    return rows


def measure_obscuring(setting: Setting) -> None:
    """Print how much obscuring adds to decoding and encoding: of all finds, and of small ones.

    What is promised is for objects as they are common in a street. Where a bundle finds objects
    that fill the picture, the last figure says from which area on that can hold.
    """
    names = setting.bundle.card.taxonomy.names
    small = [name for name in names if name in SMALL]
    for which, classes in (("all finds", names), (" and ".join(small), small)):
        rows = obscured(setting, classes)
        if not rows:
            print(f"obscuring   {which}: nothing was found in these pictures")
            continue
        shares = [row.seconds / row.written_s for row in rows]
        unchanged = statistics.median(row.seconds / row.codec_s for row in rows)
        by_area = sum(row.seconds for row in rows) / sum(row.share * row.pixels for row in rows)
        by_codec = sum(row.codec_s for row in rows) / sum(row.pixels for row in rows)
        print(
            f"obscuring   {which}: {statistics.median(shares):.1%} of decode + encode at the "
            f"median of {len(rows)} pictures, {max(shares):.1%} at most   (promised: at most 10%); "
            f"{unchanged:.1%} of decode + encode of the same picture unchanged; "
            f"boxes cover {statistics.median(row.share for row in rows):.1%} at the median; "
            f"a pixel of theirs costs {by_area / by_codec:.1f} times one of the file"
        )


def measure_growth(setting: Setting) -> None:
    """Print what obscuring costs as picture and objects grow: the area obscured decides."""
    anonymizer = Anonymizer.for_known_regions(setting.bundle.card)
    pixels = opened(setting.pictures[0].read_bytes())
    starts = np.random.default_rng(0).uniform(0, (700, 400), (GROWN, 2))

    def work(side: int, objects_px: float) -> Callable[[], object]:
        large = cv2.resize(pixels, (side, side // 2), interpolation=cv2.INTER_LINEAR)
        boxes = np.hstack([starts, starts + objects_px])
        finds = Detections.from_boxes(boxes, class_ids=np.zeros(GROWN))
        return lambda: anonymizer.obscure(large, finds, in_place=True)

    works = work(1024, 40), work(8192, 40), work(1024, 160)
    small, wide, big = in_turns(*works, clock=time.thread_time)
    print(
        f"growth      {GROWN} objects of 40 px: {small * 1e3:.1f} ms; in 64 times the picture "
        f"{wide / small:.2f} times that, with 16 times the area {big / small:.1f} times"
    )
