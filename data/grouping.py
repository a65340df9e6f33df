"""Groups of pictures that must not straddle train and reference, and the side each group is on.

A group is connected by camera sequences and by near-duplicates (perceptual hash). Its side is
drawn from the hash of its earliest member and never changes as data grows: pictures are added
turn by turn, a group keeps the side it had, and one that joins groups of different sides is
marked as `bridging`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anonymization.errors import BlurloopError
from anonymization.files import read_json, write_json
from data.layout import WORK

HASH_SIDE = 16
"""Side of the perceptual hash: 256 bits. With the usual 64, drawn scenes of one layout and
different people come as close as true near-duplicates do."""
HASH_BITS = HASH_SIDE * HASH_SIDE
CACHE = WORK / "perceptual-hashes.json"
BRIDGING = "bridging"
_CHUNK = 2048


@dataclass(frozen=True)
class Member:
    """What grouping knows of a picture.

    Attributes:
        sha256: Its identity.
        turn: Collection that first brought it in.
        sequence: Name of its camera sequence, unique over all sources, or None.
    """

    sha256: str
    turn: int
    sequence: str | None = None


@dataclass(frozen=True)
class Group:
    """Pictures that belong together, and their side: train, val, reference, or bridging."""

    members: tuple[str, ...]
    side: str


def perceptual_hash(pixels: NDArray[np.uint8]) -> str:
    """Return the 256-bit DCT hash (pHash) of an RGB picture of shape (H, W, 3), as hexadecimal."""
    import imagehash
    from PIL import Image

    return str(imagehash.phash(Image.fromarray(pixels), hash_size=HASH_SIDE))


def perceptual_hashes(pictures: Mapping[str, Path], cache: Path = CACHE) -> dict[str, str]:
    """Return the perceptual hash of each picture by SHA-256; known ones are not read again."""
    from tqdm import tqdm

    from anonymization.formats.picture import read_picture

    known = _read_cache(cache)
    missing = [sha256 for sha256 in pictures if sha256 not in known]
    for sha256 in tqdm(missing, desc="hashing", unit="picture", mininterval=1.0, disable=None):
        known[sha256] = perceptual_hash(read_picture(pictures[sha256]).pixels)
    if missing:
        content = {"schema_version": 1, "made_by": _made_by(), "hashes": known}
        write_json(cache, content, indent=None)
    return {sha256: known[sha256] for sha256 in pictures}


def _made_by() -> str:
    """Return what decides a hash beside the picture: other versions may decode otherwise."""
    from importlib.metadata import version

    names = ("imagehash", "pillow", "imagecodecs")
    return ", ".join([f"side {HASH_SIDE}", *(f"{name} {version(name)}" for name in names)])


def _read_cache(cache: Path) -> dict[str, str]:
    if not cache.exists():
        return {}
    try:
        values = read_json(cache, schema_version=1)
        return dict(values["hashes"]) if values["made_by"] == _made_by() else {}
    except (BlurloopError, KeyError):
        return {}  # only a cache: a damaged one is made again


def near_duplicates(hashes: Sequence[str], distance_max: int) -> list[tuple[int, int]]:
    """Return the index pairs (i < j) whose hashes differ in at most `distance_max` bits.

    Args:
        hashes: Hexadecimal, 64 digits each.
        distance_max: Bits of 256.

    >>> near_duplicates(["0" * 64, "f" * 64, "0" * 63 + "3"], 2)
    [(0, 2)]
    """
    if not hashes:
        return []
    packed = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(len(hashes), -1)
    # The dot product of two hashes written as -1 and +1 is the number of bits minus twice the
    # number that differ: one matrix product compares everything.
    signs = np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1
    limit = HASH_BITS - 2 * distance_max
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(signs), _CHUNK):
        rows, columns = np.nonzero(signs[start : start + _CHUNK] @ signs[start:].T >= limit)
        above = rows < columns
        pairs += zip((rows[above] + start).tolist(), (columns[above] + start).tolist(), strict=True)
    return pairs


def side_of(anchor_sha256: str, *, val: float, reference: float, salt: str) -> str:
    """Return the side that a group's earliest member draws.

    >>> side_of("ab" * 32, val=0.0, reference=1.0, salt="any")
    'reference'
    """
    share = _draw(f"{salt}:{anchor_sha256}")
    if share < reference:
        return "reference"
    return "val" if share < reference + val else "train"


def is_among(anchor_sha256: str, share: float, salt: str) -> bool:
    """Return whether a group is one of this share of all; a smaller share is a part of a larger.

    >>> is_among("ab" * 32, 1.0, salt="any"), is_among("ab" * 32, 0.0, salt="any")
    (True, False)
    """
    # Not the draw of `side_of`, in which every group that trains lies above the other shares.
    return _draw(f"{salt}:share:{anchor_sha256}") < share


def _draw(text: str) -> float:
    """Return a number in [0, 1) that is always the same for a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


class _Forest:
    """Disjoint sets that remember their side."""

    def __init__(self, size: int) -> None:
        self._parents = list(range(size))

    def root(self, index: int) -> int:
        while self._parents[index] != index:
            self._parents[index] = self._parents[self._parents[index]]
            index = self._parents[index]
        return index

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self.root(one), self.root(other)))
        self._parents[high] = low


def group(
    members: Iterable[Member],
    hashes: Mapping[str, str],
    *,
    distance_max: int,
    val: float,
    reference: float,
    salt: str,
    released: frozenset[str] = frozenset(),
) -> list[Group]:
    """Group pictures and give each group its side, turn by turn.

    Args:
        members: The pictures.
        hashes: Perceptual hash per SHA-256.
        distance_max: Bits by which near-duplicates differ at most.
        val: Share of groups for validation during training.
        reference: Share of groups for the reference set.
        salt: Makes another draw of the same data.
        released: Pictures of a released reference set: their groups are reference from the start.

    Returns:
        Groups in the order of their earliest members.
    """
    ordered = sorted(members, key=lambda m: (m.turn, m.sha256))
    edges = _edges(ordered, hashes, distance_max)
    forest = _Forest(len(ordered))
    sides: dict[int, str] = {}
    for turn in sorted({m.turn for m in ordered}):
        before, sides = sides, {}
        for one, other in edges[turn]:
            forest.join(one, other)
        heard: dict[int, set[str]] = defaultdict(set)
        for index, member in enumerate(ordered):
            if member.turn > turn:
                break
            root = forest.root(index)
            heard[root] |= {before[index]} if index in before else set()
            heard[root] |= {"reference"} if member.sha256 in released else set()
        for root, found in heard.items():
            drawn = side_of(ordered[root].sha256, val=val, reference=reference, salt=salt)
            sides[root] = drawn if not found else found.pop() if len(found) == 1 else BRIDGING
    by_root: dict[int, list[str]] = defaultdict(list)
    for index, member in enumerate(ordered):
        by_root[forest.root(index)].append(member.sha256)
    return [Group(tuple(found), sides[root]) for root, found in by_root.items()]


def _edges(
    ordered: Sequence[Member], hashes: Mapping[str, str], distance_max: int
) -> dict[int, list[tuple[int, int]]]:
    """Return which pictures belong together, by the turn at which the later of the two came."""
    edges: dict[int, list[tuple[int, int]]] = defaultdict(list)
    first: dict[str, int] = {}
    for index, member in enumerate(ordered):
        if member.sequence is not None:
            edges[member.turn].append((first.setdefault(member.sequence, index), index))
    for one, other in near_duplicates([hashes[m.sha256] for m in ordered], distance_max):
        edges[max(ordered[one].turn, ordered[other].turn)].append((one, other))
    return edges
