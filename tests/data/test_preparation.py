"""Preparation and reference: leak-free, stable, frozen, released by hand."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from anonymization.taxonomy import Taxonomy
from data.coco import Annotation, Dataset, Image
from data.layout import ANNOTATED, ANNOTATIONS, PICTURES, PREPARED
from data.preparation import (
    PreparationConfig,
    PreparationError,
    Prepared,
    image_to_member,
    larger_groups,
    report,
    split,
)
from data.reference import (
    ReferenceSetError,
    check_present,
    current_release,
    read_release,
    release_all,
    release_numbers,
)

CONFIG = PreparationConfig(val=0.2, reference=0.4)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def sha(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def images(numbers: range, *, turn: int = 0, source: str = "folder-a") -> tuple[Image, ...]:
    return tuple(
        Image(n + 1, sha(n), f"{sha(n)}.png", 80, 64, ("person",), (), False,
              {"source": source, "turn": turn, "origin": f"{n}.png"})
        for n in numbers
    )  # fmt: skip


def dataset(*parts: tuple[Image, ...]) -> Dataset:
    all_images = tuple(image for part in parts for image in part)
    boxes = [Annotation(i.id, i.id, "person", (1, 2, 21, 42)) for i in all_images]
    return Dataset(all_images, tuple(boxes))


def hashes(data: Dataset) -> dict[str, str]:
    return {i.sha256: sha(f"hash {i.sha256}") for i in data.images}


def prepare(data: Dataset, taxonomy: Taxonomy, config: PreparationConfig = CONFIG) -> Prepared:
    return split(data, hashes(data), taxonomy, config)


def shas(data: Dataset) -> set[str]:
    return {i.sha256 for i in data.images}


def test_the_first_turn_releases_by_itself_and_loses_nothing(taxonomy: Taxonomy) -> None:
    data = dataset(images(range(60)))
    prepared = prepare(data, taxonomy)
    parts = [shas(p) for p in (prepared.train, prepared.val, prepared.reference)]
    assert set().union(*parts) == shas(data)
    assert sum(map(len, parts)) == 60
    assert release_numbers("folder-a") == [1]
    assert all(parts)


def test_the_same_data_again_is_the_same_split_and_digest(taxonomy: Taxonomy) -> None:
    data = dataset(images(range(60)))
    first, second = prepare(data, taxonomy), prepare(data, taxonomy)
    assert report(first, taxonomy) == report(second, taxonomy)
    assert release_numbers("folder-a") == [1]


def test_pictures_with_company_are_named_with_the_first_of_their_group(
    taxonomy: Taxonomy,
) -> None:
    data = dataset(images(range(12)))
    alike = hashes(data)
    alike[sha(3)] = alike[sha(7)]
    found = larger_groups(split(data, alike, taxonomy, CONFIG).groups)
    assert set(found) == {sha(3), sha(7)}
    assert len(set(found.values())) == 1


def test_later_pictures_wait_and_nobody_changes_sides(taxonomy: Taxonomy) -> None:
    first = prepare(dataset(images(range(60))), taxonomy)
    second = prepare(dataset(images(range(60)), images(range(60, 120), turn=1)), taxonomy)
    assert shas(first.train) < shas(second.train)
    assert shas(first.val) < shas(second.val)
    assert first.reference == second.reference
    assert second.pending.images
    assert not shas(second.pending) & (shas(second.train) | shas(second.val))


def test_a_new_source_releases_its_own_set(taxonomy: Taxonomy) -> None:
    prepare(dataset(images(range(60))), taxonomy)
    other = images(range(60, 120), turn=1, source="coco-b")
    prepared = prepare(dataset(images(range(60)), other), taxonomy)
    assert not prepared.pending.images
    assert [r.source for r in prepared.releases] == ["coco-b", "folder-a"]


def test_a_bridging_group_is_dropped_from_train_and_reported(taxonomy: Taxonomy) -> None:
    data = dataset(images(range(60)))
    first = prepare(data, taxonomy)
    train, judged = first.train.images[0].sha256, first.reference.images[0].sha256
    grown = dataset(images(range(60)), images(range(60, 61), turn=1))
    near = hashes(grown)
    # Half way between the two, when they differ in few enough bits.
    near[judged] = f"{int(near[train], 16) ^ (2**80 - 1):064x}"
    near[sha(60)] = f"{int(near[train], 16) ^ (2**40 - 1):064x}"
    second = split(grown, near, taxonomy, CONFIG)
    assert set(second.bridging) == {train, sha(60)}
    assert train not in shas(second.train)
    assert judged in shas(second.reference)
    assert report(second, taxonomy)["bridging"] == sorted([train, sha(60)])


def test_a_group_keeps_its_side_whichever_of_its_pictures_is_annotated_first(
    taxonomy: Taxonomy,
) -> None:
    """Sequences of three: annotators finish the last picture of each first, then the others."""
    everything = tuple(
        replace(i, fields=i.fields | {"sequence": str(n // 3)})
        for n, i in enumerate(images(range(180)))
    )
    near = {i.sha256: sha(f"hash {i.sha256}") for i in everything}
    members = [image_to_member(image) for image in everything]

    def sides(done: tuple[Image, ...]) -> dict[str, str]:
        found = split(dataset(done), near, taxonomy, CONFIG, reviewed=members)
        parts = {"train": found.train, "val": found.val, "judges": found.reference}
        return {s: name for name, part in parts.items() for s in shas(part)}

    first, second = sides(everything[2::3]), sides(everything)
    assert len(first) == 60
    assert {s: second[s] for s in first} == first
    alone = split(dataset(everything[2::3]), near, taxonomy, CONFIG, Path("elsewhere"))
    assert shas(alone.train) != {s for s, side in first.items() if side == "train"}


def test_a_smaller_share_trains_on_whole_groups_of_a_larger_one_and_is_judged_alike(
    taxonomy: Taxonomy,
) -> None:
    """Sequences of two, so that a group is more than its earliest picture."""
    everything = tuple(
        replace(i, fields=i.fields | {"sequence": str(n // 2)})
        for n, i in enumerate(images(range(600)))
    )

    def share(value: float, pictures: tuple[Image, ...] = everything) -> Prepared:
        return prepare(dataset(pictures), taxonomy, replace(CONFIG, train_share=value))

    whole = share(1.0)
    assert whole.held_back == ()
    larger = whole
    for value in (0.5, 0.25):
        smaller = share(value)
        assert shas(smaller.train) < shas(larger.train)
        # 120 groups train: five standard deviations of a binomial draw.
        assert len(smaller.train.images) / len(whole.train.images) == pytest.approx(value, abs=0.23)
        sequences = {i.fields["sequence"] for i in smaller.train.images}
        assert len(smaller.train.images) == 2 * len(sequences), "whole groups"
        assert (smaller.val, smaller.reference) == (whole.val, whole.reference)
        assert shas(smaller.train) | set(smaller.held_back) == shas(whole.train)
        assert report(smaller, taxonomy)["held_back"] == len(smaller.held_back)
        larger = smaller
    grown = share(0.25, (*everything, *images(range(600, 700), turn=1)))
    assert shas(larger.train) <= shas(grown.train), "what trains goes on to train"


def test_corrected_reference_labels_are_ignored_and_reported(taxonomy: Taxonomy) -> None:
    data = dataset(images(range(60)))
    first = prepare(data, taxonomy)
    judged = first.reference.images[0].sha256
    ids = {i.id for i in data.images if i.sha256 == judged}
    corrected = tuple(
        replace(a, box_xyxy=(0, 0, 9, 9)) if a.image_id in ids else a for a in data.annotations
    )
    second = prepare(Dataset(data.images, corrected), taxonomy)
    assert second.reference == first.reference
    assert second.corrected == (judged,)


def test_a_release_by_hand_takes_pending_pictures_and_corrections(taxonomy: Taxonomy) -> None:
    prepare(dataset(images(range(60))), taxonomy)
    grown = dataset(images(range(60)), images(range(60, 120), turn=1))
    waiting = prepare(grown, taxonomy)
    waiting.pending.write(PREPARED / "pending.json", taxonomy)
    grown.write(ANNOTATED / ANNOTATIONS, taxonomy)
    PICTURES.mkdir(parents=True)
    for image in grown.images:
        (PICTURES / image.file_name).write_bytes(b"x")
    made = release_all(taxonomy, reason="second drive")
    assert [(r.number, r.reason) for r in made] == [(2, "second drive")]
    after = prepare(grown, taxonomy)
    assert shas(after.reference) == shas(waiting.reference) | shas(waiting.pending)
    assert not after.pending.images
    assert shas(after.train) == shas(waiting.train)
    after.pending.write(PREPARED / "pending.json", taxonomy)
    assert release_all(taxonomy, reason="again") == []


def test_a_release_needs_a_reason(taxonomy: Taxonomy) -> None:
    with pytest.raises(ReferenceSetError, match="needs a reason"):
        release_all(taxonomy, reason=" ")


def test_missing_reference_pictures_are_counted_with_what_to_do(taxonomy: Taxonomy) -> None:
    prepared = prepare(dataset(images(range(10))), taxonomy)
    with pytest.raises(ReferenceSetError, match=r"of \d+ pictures of reference release 1.*release"):
        check_present(prepared.releases)


def test_an_edited_release_is_refused(taxonomy: Taxonomy) -> None:
    prepare(dataset(images(range(30))), taxonomy)
    path = Path("reference/folder-a/0001.json")
    values = json.loads(path.read_text())
    values["dataset"]["annotations"].pop()
    path.write_text(json.dumps(values))
    with pytest.raises(ReferenceSetError, match="does not match its digest"):
        read_release("folder-a", 1, taxonomy)


def test_a_release_survives_a_taxonomy_without_one_of_its_classes(taxonomy: Taxonomy) -> None:
    prepare(dataset(images(range(30))), taxonomy)
    smaller = Taxonomy({"vehicle": taxonomy["vehicle"]})
    release = current_release("folder-a", smaller)
    assert release is not None
    assert release.dataset.annotations == ()
    assert all(image.labelled == () for image in release.dataset.images)


def test_pictures_of_a_released_set_stay_reference_under_another_salt(taxonomy: Taxonomy) -> None:
    data = dataset(images(range(60)))
    first = prepare(data, taxonomy)
    second = prepare(data, taxonomy, replace(CONFIG, salt="another"))
    assert second.reference == first.reference
    assert not shas(second.train) & shas(first.reference)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"val": 0.5, "reference": 0.5}, "leave a share for training"),
        ({"val": -0.1}, "must not be negative"),
        ({"near_duplicate_bits": 200}, "expected 0 to 127"),
        ({"train_share": 0.0}, "above 0 to 1"),
        ({"train_share": 1.5}, "above 0 to 1"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], reason: str) -> None:
    with pytest.raises(PreparationError, match=reason):
        PreparationConfig(**settings)  # type: ignore[arg-type]
