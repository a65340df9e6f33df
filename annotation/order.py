"""Which pictures become tasks, and in which order; pure.

Useful ones first: those in validation's queue, then those of which the champion is unsure.
Pictures that may end in the reference set are shown without predictions, so that people do not
copy the model that they will judge; and they come in the order of their digests, spread evenly
among the others, as a reference set of nothing but hard pictures would judge something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from data.grouping import Group

REFERENCE = ("reference", "bridging")


@dataclass(frozen=True)
class Candidate:
    """A picture that could become a task.

    Attributes:
        sha256: Its identity.
        for_reference: Whether models may be judged on it.
        leads: Whether it is the earliest of its group, whose digest draws the group's side.
        usefulness: From 0 to 1; how much its labels would teach.
        doubt: What validation doubts, or empty.
    """

    sha256: str
    for_reference: bool
    leads: bool = True
    usefulness: float = 0.0
    doubt: str = ""


def ordered(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return the candidates in the order in which people should see them."""
    found = list(candidates)
    doubted = sorted((c for c in found if c.doubt), key=lambda c: c.sha256)
    rest = [c for c in found if not c.doubt]
    judged = sorted((c for c in rest if c.for_reference), key=lambda c: (not c.leads, c.sha256))
    taught = sorted(
        (c for c in rest if not c.for_reference), key=lambda c: (-c.usefulness, c.sha256)
    )
    return doubted + interleaved(judged, taught)


def interleaved(one: Sequence[Candidate], other: Sequence[Candidate]) -> list[Candidate]:
    """Mix two lists evenly, each in its own order."""
    places = [
        ((position + 0.5) / len(group), rank, candidate)
        for rank, group in enumerate((one, other))
        for position, candidate in enumerate(group)
    ]
    return [candidate for _, _, candidate in sorted(places, key=lambda p: p[:2])]


def sides(groups: Iterable[Group]) -> dict[str, tuple[bool, bool]]:
    """Return for each picture whether models may be judged on it, and whether it leads a group."""
    return {
        sha256: (group.side in REFERENCE, position == 0)
        for group in groups
        for position, sha256 in enumerate(group.members)
    }


def room(*, cap: int, open_tasks: int, open_max: int) -> int:
    """Return how many tasks one turn may add.

    >>> room(cap=200, open_tasks=950, open_max=1000)
    50
    """
    return max(0, min(cap, open_max - open_tasks))


def doubts(queue: Mapping[str, object] | None) -> dict[str, str]:
    """Return what validation's queue doubts, by SHA-256."""
    rows = (queue or {}).get("reannotate") or []
    assert isinstance(rows, list)
    return {
        str(row["sha256"]): "; ".join(str(reason) for reason in row.get("reasons") or [])
        or "validation doubts these labels"
        for row in rows
    }


def doubt_key(text: str, raised: str = "") -> str:
    """Return what makes doubts the same: the words of each, as places shift by a pixel.

    Args:
        text: What is doubted, joined by semicolons.
        raised: Key of what was doubted before, which is kept: a doubt that somebody stood by does
            not come back because another one was mended.

    >>> doubt_key("face at 40 % from the left") == doubt_key("face at 41 % from the left")
    True
    >>> doubt_key("a mended", raised=doubt_key("a mended; b stood by"))
    'a mended; b stood by'
    """
    words = re.sub(r"\d+(\.\d+)?", "#", text).split("; ")
    return "; ".join(sorted({*words, *filter(None, raised.split("; "))}))
