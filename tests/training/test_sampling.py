"""Which pictures an epoch shows."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from anonymization.files import write_json
from data.coco import Annotation, Image
from training.errors import TrainingDataError
from training.pictures.sampling import (
    HARD_SCHEMA_VERSION,
    EpochSampler,
    hard_factors,
    read_hard,
    repeat_factors,
)

CLASSES = ("face", "vehicle")


def image(number: int) -> Image:
    return Image(number, f"{number:064d}", f"{number}.jpg", 10, 10)


def thing(number: int, class_name: str, *, crowd: bool = False) -> Annotation:
    return Annotation(1, number, class_name, (0, 0, 4, 4), crowd=crowd)


IMAGES = [image(n) for n in range(100)]
HELD = {n: (thing(n, "vehicle" if n < 4 else "face"),) for n in range(100)}


def test_a_rare_class_is_repeated_by_the_square_root_of_what_it_lacks() -> None:
    factors = repeat_factors(IMAGES, HELD, CLASSES, share=0.36)
    assert factors[:4].tolist() == pytest.approx([3.0] * 4)
    assert factors[4:].tolist() == [1.0] * 96


def test_without_a_share_all_pictures_are_alike() -> None:
    assert repeat_factors(IMAGES, HELD, CLASSES, share=0.0).tolist() == [1.0] * 100


def test_crowds_classes_that_do_not_count_and_empty_pictures_ask_for_nothing() -> None:
    held = {0: (thing(0, "vehicle", crowd=True),), 1: (thing(1, "dog"),), 2: ()}
    assert repeat_factors(IMAGES[:3], held, CLASSES, share=1.0).tolist() == [1.0] * 3


def test_hard_pictures_are_shown_more_often_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "hard.json"
    mined = {"pictures": {IMAGES[2].sha256: {"missed": 1, "false": 0}, "f" * 64: {}}}
    write_json(path, {"schema_version": HARD_SCHEMA_VERSION, **mined})
    factors = hard_factors(IMAGES[:4], read_hard(path), factor=3.0)
    assert factors.tolist() == [1, 1, 3, 1]
    with pytest.raises(TrainingDataError, match=r"missing; write it with `python -m training\.min"):
        read_hard(tmp_path / "none.json")


def test_every_epoch_is_as_long_and_rounds_factors_by_chance() -> None:
    sampler = EpochSampler([1.0] * 90 + [2.5] * 10, seed=3)
    shown: Counter[int] = Counter()
    for epoch in range(40):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert len(keys) == len(sampler) == 115
        assert len(set(keys)) == 115
        counts = Counter(position for _, position, _ in keys)
        assert all(counts[n] == 1 for n in range(90))
        assert {counts[n] for n in range(90, 100)} <= {2, 3}
        shown.update(counts)
    assert np.mean([shown[n] for n in range(90, 100)]) == pytest.approx(100, abs=3)


def test_an_epoch_is_drawn_again_from_seed_and_number() -> None:
    first, second = EpochSampler([1.0, 1.6, 2.2] * 5, seed=1), EpochSampler([1.0, 1.6, 2.2] * 5, 1)
    second.set_epoch(1)
    assert list(first) == list(first) != list(second)
    second.set_epoch(0)
    assert list(first) == list(second)


def test_processes_share_an_epoch_in_turns() -> None:
    factors = [1.0, 1.5, 2.0, 1.0, 3.0]
    whole = list(EpochSampler(factors, seed=2))
    parts = [list(EpochSampler(factors, seed=2, rank=r, processes=2)) for r in (0, 1)]
    assert len(parts[0]) == len(parts[1]) == len(whole) // 2
    together = [key for pair in zip(*parts, strict=True) for key in pair]
    assert together == whole[: len(together)]


@pytest.mark.parametrize("processes", [1, 2])
def test_batches_hold_pictures_of_like_size_and_lose_none(processes: int) -> None:
    sizes = [(32 * (1 + n % 3), 96) if n % 2 else (96, 32 * (1 + n % 3)) for n in range(50)]
    samplers = [
        EpochSampler(
            [1.0] * 50,
            seed=4,
            rank=rank,
            processes=processes,
            batch_size=4,
            canvas=lambda key: sizes[key[1]],
        )
        for rank in range(processes)
    ]
    keys = [list(sampler) for sampler in samplers]
    assert sorted(k[1] for part in keys for k in part) == list(range(50))
    batches = [part[i : i + 4] for part in keys for i in range(0, len(part), 4)]
    whole = [{sizes[k[1]] for k in batch} for batch in batches if len(batch) == 4]
    assert sum(len(kinds) == 1 for kinds in whole) >= len(whole) // 2
    assert sum(len({h > w for h, w in kinds}) > 1 for kinds in whole) <= processes
    order = [sizes[batch[0][1]] for batch in batches]
    assert order != sorted(order)
    assert [list(sampler) for sampler in samplers] == keys
