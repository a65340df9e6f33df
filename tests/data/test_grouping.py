"""Groups keep their side as data grows; what joins two sides is found."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from data.grouping import BRIDGING, Member, group, near_duplicates, perceptual_hash, side_of

SHARES = {"distance_max": 8, "val": 0.2, "reference": 0.4, "salt": "s"}


def sha(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def far(name: object) -> str:
    """A perceptual hash about 128 bits from any other."""
    return sha(f"hash {name}")


def flip(hash_: str, bits: int) -> str:
    return f"{int(hash_, 16) ^ ((1 << bits) - 1):064x}"


def sides(members: list[Member], hashes: dict[str, str], **settings: object) -> dict[str, str]:
    groups = group(members, hashes, **{**SHARES, **settings})  # type: ignore[arg-type]
    return {sha256: g.side for g in groups for sha256 in g.members}


def test_nobody_changes_sides_as_data_grows() -> None:
    old = [Member(sha(n), 0) for n in range(300)]
    new = [Member(sha(f"new {n}"), 1 + n % 3) for n in range(300)]
    hashes = {m.sha256: far(m.sha256) for m in old + new}
    before, after = sides(old, hashes), sides(old + new, hashes)
    assert before.items() <= after.items()
    assert 0.3 < sum(s == "reference" for s in after.values()) / 600 < 0.5


def test_a_new_near_duplicate_joins_the_side_of_the_old_one() -> None:
    for n in range(20):
        old, new = Member(sha(n), 0), Member(sha(f"copy {n}"), 1)
        hashes = {old.sha256: far(n), new.sha256: flip(far(n), 8)}
        found = sides([old, new], hashes)
        assert found[new.sha256] == found[old.sha256] == sides([old], hashes)[old.sha256]


def test_a_picture_that_bridges_two_sides_makes_the_group_bridging() -> None:
    shas = [sha(n) for n in range(50)]
    hashes = {s: far(s) for s in shas}
    before = sides([Member(s, 0) for s in shas], hashes)
    train = next(s for s in shas if before[s] == "train")
    judged = next(s for s in shas if before[s] == "reference")
    sequences = [Member(s, 0, "drive" if s == judged else None) for s in shas]
    bridge = Member(sha("bridge"), 1, "drive")
    hashes[bridge.sha256] = flip(hashes[train], 3)
    after = sides([*sequences, bridge], hashes)
    assert {after[s] for s in (train, judged, bridge.sha256)} == {BRIDGING}
    rest = {s: side for s, side in after.items() if s not in (train, judged, bridge.sha256)}
    assert rest.items() <= before.items()


def test_a_released_picture_takes_its_group_to_reference() -> None:
    members = [Member(sha(n), 0, f"drive {n // 2}") for n in range(20)]
    hashes = {m.sha256: far(m.sha256) for m in members}
    found = sides(members, hashes, reference=0.0, released=frozenset({sha(0)}))
    assert {s for s, side in found.items() if side == "reference"} == {sha(0), sha(1)}


def test_a_sequence_is_one_group() -> None:
    members = [Member(sha(n), n % 2, "drive") for n in range(9)]
    groups = group(members, {m.sha256: far(m.sha256) for m in members}, **SHARES)  # type: ignore[arg-type]
    assert [len(g.members) for g in groups] == [9]


def test_near_duplicates_are_those_within_the_distance() -> None:
    base = far("base")
    hashes = [base, flip(base, 8), flip(base, 9), far("other")]
    assert near_duplicates(hashes, 8) == [(0, 1), (1, 2)]
    assert near_duplicates([], 8) == []


def test_many_hashes_are_compared_over_chunk_borders() -> None:
    hashes = [far(n) for n in range(5000)]
    hashes[4999] = flip(hashes[3], 2)
    assert near_duplicates(hashes, 8) == [(3, 4999)]


@pytest.mark.parametrize(
    ("val", "reference", "side"), [(0, 0, "train"), (1, 0, "val"), (0, 1, "reference")]
)
def test_shares_decide(val: float, reference: float, side: str) -> None:
    assert {side_of(sha(n), val=val, reference=reference, salt="") for n in range(9)} == {side}


def test_a_brighter_copy_has_nearly_the_same_hash() -> None:
    rng = np.random.default_rng(5)
    small = rng.integers(0, 200, (8, 10, 3), dtype=np.uint8)
    pixels = small.repeat(16, axis=0).repeat(16, axis=1)
    brighter, other = pixels + np.uint8(20), pixels[::-1, ::-1]
    hashes = [perceptual_hash(p) for p in (pixels, brighter, other)]
    assert near_duplicates(hashes, 20) == [(0, 1)]
