"""Tracks of video reference data: who stays hidden in every frame, and the longest leak.

A person is exposed by one frame. Where annotations carry a `track`, the objects of one track in
one sequence are one thing: it is recalled if every frame in which it counts is covered.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from data.coco import Dataset
from evaluation.bound import CONFIDENCE, lower_bound
from evaluation.report.rows import ObjectRow

TRACK = "track"
"""Attribute of an annotation: which objects of a sequence are the same thing."""


@dataclass(frozen=True)
class Track:
    """One thing in the frames of one sequence.

    Attributes:
        class_name: Its class.
        sequence: Sequence it is seen in.
        name: Its name there.
        frames: Frame number and whether it was covered, where it counts, in order.
    """

    class_name: str
    sequence: str
    name: str
    frames: tuple[tuple[int, bool], ...]

    @property
    def recalled(self) -> bool:
        """Whether every frame is covered."""
        return all(covered for _, covered in self.frames)

    @property
    def longest_leak(self) -> int:
        """Most frames in a row, as they are labelled, in which it was not covered."""
        longest = run = 0
        for _, covered in self.frames:
            run = 0 if covered else run + 1
            longest = max(longest, run)
        return longest


def tracks_of(rows: Iterable[ObjectRow], dataset: Dataset) -> list[Track]:
    """Return the tracks of the counted objects; objects without a track or a frame stay out."""
    names = {a.id: a.attributes.get(TRACK) for a in dataset.annotations}
    fields = {image.sha256: image.fields for image in dataset.images}
    groups: dict[tuple[str, str, str], list[tuple[int, bool]]] = defaultdict(list)
    for row in rows:
        about, name = fields.get(row.sha256, {}), names.get(row.annotation_id)
        if not row.counted or name is None or about.get("frame") is None:
            continue
        sequence = "/".join(str(about.get(key, "")) for key in ("source", "camera", "sequence"))
        frame = (int(about["frame"]), row.covered)
        groups[row.class_name, sequence, str(name)].append(frame)
    return [Track(*key, tuple(sorted(frames))) for key, frames in sorted(groups.items())]


def track_table(
    tracks: Sequence[Track], *, confidence: float = CONFIDENCE, seed: int = 0
) -> list[dict[str, Any]]:
    """Return, for each class with tracks, how many stay covered throughout, and the worst leak.

    The bound takes a sequence for a cluster.
    """
    table = []
    for name in sorted({track.class_name for track in tracks}):
        own = [track for track in tracks if track.class_name == name]
        sequences = sorted({track.sequence for track in own})
        hits = [sum(t.recalled for t in own if t.sequence == s) for s in sequences]
        totals = [sum(t.sequence == s for t in own) for s in sequences]
        worst = max(own, key=lambda track: track.longest_leak)
        bound = lower_bound(hits, totals, confidence=confidence, seed=seed)
        table.append(
            {
                "class": name,
                "tracks": len(own),
                "recalled": sum(hits),
                "recall": sum(hits) / len(own),
                "lower_bound": bound.to_dict(),
                "frames": sum(len(track.frames) for track in own),
                "longest_leak_frames": worst.longest_leak,
                "longest_leak_track": f"{worst.sequence}/{worst.name}",
            }
        )
    return table
