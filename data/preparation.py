"""Step 4: train, val and reference, leak-free and stable as data grows.

Reads `artifacts/annotated`, `artifacts/reviewed`, the collected pictures and `reference/`; writes
`artifacts/prepared/{train,val,reference,pending}.json` (COCO), `groups.json` there (which pictures
belong together; evaluation counts them as one) and `reports/preparation.json`. On
the first turn of a source it releases that source's reference set by itself.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anonymization.errors import BlurloopError
from anonymization.files import folder_in_one_step, write_json
from anonymization.taxonomy import Taxonomy
from conf import stage
from data.coco import Dataset, Image, is_identifiable
from data.grouping import BRIDGING, Group, Member, group, is_among, perceptual_hashes
from data.layout import (
    ANNOTATED,
    ANNOTATIONS,
    GROUPS,
    MANIFEST,
    PICTURES,
    PREPARED,
    REFERENCE,
    REPORTS,
    REVIEWED,
)
from data.manifest import Manifest, Picture
from data.reference import (
    Release,
    check_present,
    current_release,
    labels_by_picture,
    union,
    write_release,
)

SCHEMA_VERSION = 1
FIRST_RELEASE = "first turn of this source"
log = logging.getLogger(__name__)


class PreparationError(BlurloopError):
    """The data cannot be split as configured."""


@dataclass(frozen=True)
class PreparationConfig:
    """How pictures are split.

    Attributes:
        val: Share of groups that training validates and calibrates on.
        reference: Share of groups that models are judged on.
        train_share: Share of the groups left for training that are trained on; a smaller set is a
            part of every larger one, and val and reference are the same with all.
        salt: Makes another draw of the same data; released reference sets stay.
        near_duplicate_bits: Bits of 256 by which near-duplicates differ at most.
    """

    val: float = 0.15
    reference: float = 0.4
    train_share: float = 1.0
    salt: str = "blurloop"
    near_duplicate_bits: int = 60

    def __post_init__(self) -> None:
        if self.val < 0 or self.reference < 0 or not self.val + self.reference < 1:
            raise PreparationError(
                f"preparation.val {self.val} and preparation.reference {self.reference} must not "
                "be negative and must leave a share for training; lower one of them"
            )
        if not 0 < self.train_share <= 1:
            raise PreparationError(
                f"preparation.train_share is {self.train_share}; expected above 0 to 1 (all)"
            )
        if not 0 <= self.near_duplicate_bits < 128:
            raise PreparationError(
                f"preparation.near_duplicate_bits is {self.near_duplicate_bits}; expected 0 to 127 "
                "(unrelated pictures differ in about 128 bits of 256)"
            )


@dataclass(frozen=True)
class Prepared:
    """The split.

    Attributes:
        train: What training learns from.
        val: What it validates and calibrates on.
        reference: Current releases of all collected sources, labels frozen.
        pending: Pictures that hash to reference and wait for a release; used by nothing.
        groups: Every group and its side.
        held_back: Pictures that train_share leaves out of training.
        bridging: Pictures dropped since their group joins different sides.
        releases: The current release per source.
        corrected: Reference pictures whose present labels differ from the frozen ones.
    """

    train: Dataset
    val: Dataset
    reference: Dataset
    pending: Dataset
    groups: tuple[Group, ...]
    held_back: tuple[str, ...]
    bridging: tuple[str, ...]
    releases: tuple[Release, ...]
    corrected: tuple[str, ...]


def image_to_member(image: Image) -> Member:
    """Return what grouping needs to know of an image."""
    fields = image.fields
    sequence = fields.get("sequence")
    name = None if sequence is None else f"{fields.get('source')}/{fields.get('camera')}/{sequence}"
    return Member(image.sha256, int(fields.get("turn", 0)), name)


def picture_to_member(picture: Picture) -> Member:
    """Return what grouping needs to know of a picture, annotated or not."""
    sequence = picture.sequence
    name = None if sequence is None else f"{picture.source}/{picture.camera}/{sequence}"
    return Member(picture.sha256, picture.turn, name)


def grouped(
    members: Iterable[Member],
    releases: Iterable[Release],
    hashes: Mapping[str, str],
    config: PreparationConfig,
) -> list[Group]:
    """Group pictures and the released ones, which review may have rejected since.

    Whoever asks which side a picture is on gives all reviewed pictures: a group's side is drawn
    from its earliest, which may not be annotated yet.

    Args:
        members: The pictures.
        releases: Current reference sets.
        hashes: Perceptual hash by SHA-256, of the released pictures too.
        config: Shares, salt and the distance of near-duplicates.
    """
    released = [image for release in releases for image in release.dataset.images]
    known = {image.sha256: image_to_member(image) for image in released}
    known |= {member.sha256: member for member in members}
    return group(
        known.values(),
        hashes,
        distance_max=config.near_duplicate_bits,
        val=config.val,
        reference=config.reference,
        salt=config.salt,
        released=frozenset(image.sha256 for image in released),
    )


def split(
    dataset: Dataset,
    hashes: Mapping[str, str],
    taxonomy: Taxonomy,
    config: PreparationConfig,
    folder: Path = REFERENCE,
    reviewed: Iterable[Member] = (),
) -> Prepared:
    """Split annotated pictures; a source without a release gets its first one.

    Args:
        dataset: What is annotated.
        hashes: Perceptual hash by SHA-256 of annotated, released and reviewed pictures.
        taxonomy: The classes.
        config: How to split.
        folder: Where the released reference sets are.
        reviewed: Pictures that may not be annotated yet and group those that are.
    """
    sources = sorted({str(image.fields.get("source")) for image in dataset.images})
    found = {source: current_release(source, taxonomy, folder) for source in sources}
    releases = {source: release for source, release in found.items() if release}
    frozen = frozenset[str]().union(*(r.sha256s for r in releases.values()))
    annotated = {image.sha256: image_to_member(image) for image in dataset.images}
    members = {member.sha256: member for member in reviewed} | annotated
    whole = grouped(members.values(), releases.values(), hashes, config)
    groups = _present(whole, frozen | set(annotated))
    sides: dict[str, set[str]] = defaultdict(set)
    for each in groups:
        sides[each.side] |= set(each.members) - frozen
    held_back = sides["train"] & _held_back(whole, config)
    for source in sources:
        fresh = _of_source(dataset.subset(sides["reference"]), source)
        if source not in releases and fresh.images:
            releases[source] = write_release(
                source, fresh, taxonomy, reason=FIRST_RELEASE, folder=folder
            )
            sides["reference"] -= releases[source].sha256s
    return Prepared(
        train=dataset.subset(sides["train"] - held_back),
        val=dataset.subset(sides["val"]),
        reference=union(release.dataset for release in releases.values()),
        pending=dataset.subset(sides["reference"]),
        groups=tuple(groups),
        held_back=tuple(sorted(held_back)),
        bridging=tuple(sorted(sides[BRIDGING])),
        releases=tuple(releases[source] for source in sorted(releases)),
        corrected=_corrected(dataset, releases.values()),
    )


def _of_source(dataset: Dataset, source: str) -> Dataset:
    wanted = (i.sha256 for i in dataset.images if str(i.fields.get("source")) == source)
    return dataset.subset(wanted)


def _held_back(groups: Iterable[Group], config: PreparationConfig) -> set[str]:
    """Return the pictures of the groups that are not among the share to train on."""
    salt, share = config.salt, config.train_share
    out = (g.members for g in groups if not is_among(g.members[0], share, salt))
    return {member for members in out for member in members}


def _present(groups: Iterable[Group], sha256s: Set[str]) -> list[Group]:
    """Return groups without pictures that are not annotated yet."""
    left = (Group(tuple(m for m in g.members if m in sha256s), g.side) for g in groups)
    return [each for each in left if each.members]


def _corrected(dataset: Dataset, releases: Iterable[Release]) -> tuple[str, ...]:
    now = labels_by_picture(dataset)
    changed = []
    for release in releases:
        for sha256, labels in labels_by_picture(release.dataset).items():
            if sha256 in now and now[sha256] != labels:
                changed.append(sha256)
    return tuple(sorted(changed))


def objects_per_class(dataset: Dataset, taxonomy: Taxonomy) -> dict[str, int]:
    """Count the objects of each class; crowds are regions, not objects."""
    counts = Counter(a.class_name for a in dataset.annotations if not a.crowd)
    return {name: counts[name] for name in taxonomy.names}


def identifiable_per_class(dataset: Dataset, taxonomy: Taxonomy) -> dict[str, int]:
    """Count the objects of each class that the gate will ask for."""
    counts = Counter(
        a.class_name
        for a in dataset.annotations
        if not a.crowd and is_identifiable(a, taxonomy[a.class_name])
    )
    return {name: counts[name] for name in taxonomy.names}


def report(prepared: Prepared, taxonomy: Taxonomy) -> dict[str, Any]:
    """Return `reports/preparation.json`."""
    sizes = Counter(len(each.members) for each in prepared.groups)
    splits = {
        name: {
            "pictures": len(part.images),
            "objects": objects_per_class(part, taxonomy),
            "identifiable": identifiable_per_class(part, taxonomy),
        }
        for name in ("train", "val", "reference", "pending")
        for part in [getattr(prepared, name)]
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "reference_digest": prepared.reference.digest(taxonomy),
        "releases": [
            {k: getattr(r, k) for k in ("source", "number", "reason", "digest")}
            | {"pictures": len(r.dataset.images)}
            for r in prepared.releases
        ],
        "splits": splits,
        "groups": {
            "number": len(prepared.groups),
            "by_side": dict(sorted(Counter(g.side for g in prepared.groups).items())),
            "by_size": {str(size): sizes[size] for size in sorted(sizes)},
        },
        "held_back": len(prepared.held_back),
        "bridging": list(prepared.bridging),
        "pending": sorted(image.sha256 for image in prepared.pending.images),
        "reference_labels_ignored": list(prepared.corrected),
    }


def larger_groups(groups: Iterable[Group]) -> dict[str, str]:
    """Return the first picture of the group of each picture that has company, by SHA-256."""
    return {
        member: each.members[0] for each in groups for member in each.members if each.members[1:]
    }


def picture_paths(pictures: Iterable[Picture], releases: Iterable[Release]) -> dict[str, Path]:
    """Return where pictures and released ones lie, by SHA-256."""
    found: list[Picture | Image] = [*pictures, *(i for r in releases for i in r.dataset.images)]
    return {each.sha256: PICTURES / each.file_name for each in found}


def _save(prepared: Prepared, taxonomy: Taxonomy) -> None:
    with folder_in_one_step(PREPARED) as work:
        for name in ("train", "val", "reference", "pending"):
            getattr(prepared, name).write(work / f"{name}.json", taxonomy)
        values = {"schema_version": SCHEMA_VERSION, "groups": larger_groups(prepared.groups)}
        write_json(work / GROUPS.name, values, indent=None)
    write_json(REPORTS / "preparation.json", report(prepared, taxonomy))


def _log(prepared: Prepared, taxonomy: Taxonomy) -> None:
    for name in ("train", "val", "reference"):
        part = getattr(prepared, name)
        counts = ", ".join(f"{n} {k}" for k, n in objects_per_class(part, taxonomy).items())
        log.info("%s: %d pictures, %s", name, len(part.images), counts)
    if prepared.pending.images:
        log.warning(
            "%d pictures wait for `python -m data.reference release --reason ...`",
            len(prepared.pending.images),
        )
    if prepared.held_back:
        log.info(
            "%d pictures are held back from training (preparation.train_share)",
            len(prepared.held_back),
        )
    if prepared.bridging:
        log.warning(
            "%d pictures dropped: they join groups of different sides", len(prepared.bridging)
        )
    if prepared.corrected:
        log.warning(
            "%d reference pictures have corrected labels, ignored until a release",
            len(prepared.corrected),
        )


@stage
def main(preparation: PreparationConfig, taxonomy: Taxonomy) -> None:
    """Split the annotated pictures."""
    dataset = Dataset.read(ANNOTATED / ANNOTATIONS, taxonomy)
    sources = {str(image.fields.get("source")) for image in dataset.images}
    found = (current_release(source, taxonomy) for source in sources)
    releases = [release for release in found if release]
    check_present(releases)
    reviewed = Manifest.read(REVIEWED / MANIFEST).pictures
    hashes = perceptual_hashes(picture_paths(reviewed, releases))
    members = map(picture_to_member, reviewed)
    prepared = split(dataset, hashes, taxonomy, preparation, reviewed=members)
    _save(prepared, taxonomy)
    _log(prepared, taxonomy)


if __name__ == "__main__":
    main()
