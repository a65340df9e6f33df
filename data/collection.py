"""Step 1, second half: brings surveyed pictures in, each once, with a manifest and their labels.

Reads `artifacts/survey.json` and the sources; writes `artifacts/collected`: `pictures/`,
`manifest.json`, `annotations.json` (COCO in the taxonomy's classes) and `state.json`. The folder
survives between runs: only pictures that were not there are read, those no longer surveyed are
dropped. `state.json` is replaced in one step after the pictures it names are in place and the
other two files are derived from it, so a run killed at any moment is mended by the next.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from anonymization.errors import BlurloopError
from anonymization.files import read_json, write_bytes, write_json
from anonymization.taxonomy import Taxonomy
from conf import stage
from data.coco import Annotation, Dataset, Image, keypoints_from_flat
from data.joining import classes_of, joined_labels
from data.layout import ANNOTATIONS, COLLECTED, MANIFEST, SURVEY
from data.manifest import Manifest, Picture, Rejected
from data.reading import Read, Reader, workers_here
from data.sources.opening import CollectionConfig, open_sources
from data.sources.protocol import Entry, Labels, Source, UnreadableEntryError

SCHEMA_VERSION = 1
STATE = "state.json"
DUPLICATE = "duplicate of"
log = logging.getLogger(__name__)


class CollectionError(BlurloopError):
    """The collection cannot go on."""


@dataclass(frozen=True)
class Item:
    """What became of one entry: a picture with its labels, or the reason it was left out.

    Attributes:
        source: Identity of its source.
        entry: What the source said of it.
        picture: The picture; None where it was left out.
        labels: Its labels; those of a duplicate are joined to the picture's own.
        reason: Why it was left out.
        owner: SHA-256 of the collected picture that it is a duplicate of.
    """

    source: str
    entry: Entry
    picture: Picture | None = None
    labels: Labels = field(default_factory=Labels)
    reason: str = ""
    owner: str = ""

    @property
    def name(self) -> str:
        """Source and path, as messages name it."""
        return f"{self.source}/{self.entry.origin}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Item:
        """Build from what `to_dict` returned, read back from JSON."""
        picture = values["picture"]
        return cls(
            source=values["source"],
            entry=Entry(**values["entry"]),
            picture=None if picture is None else Picture.from_dict(picture),
            labels=Labels.from_dict(values["labels"]),
            reason=values["reason"],
            owner=values.get("owner", ""),
        )


@dataclass(frozen=True)
class State:
    """All items of a collection, and the number of its last turn that brought pictures in."""

    items: tuple[Item, ...] = ()
    turn: int = -1

    @classmethod
    def read(cls, path: Path) -> State:
        """Read the state of the last run; empty where there was none."""
        if not path.exists():
            return cls()
        values = read_json(path, schema_version=SCHEMA_VERSION)
        return cls(tuple(Item.from_dict(item) for item in values["items"]), values["turn"])

    def write(self, path: Path) -> None:
        """Write in one step."""
        items = [item.to_dict() for item in self.items]
        values = {"schema_version": SCHEMA_VERSION, "turn": self.turn, "items": items}
        write_json(path, values, indent=None)


class Collector:
    """Turns entries into items, reusing those of the last run that did not change."""

    def __init__(self, folder: Path, last: State) -> None:
        self._pictures = folder / "pictures"
        self._pictures.mkdir(parents=True, exist_ok=True)
        self._known = {(item.source, item.entry.origin): item for item in last.items}
        self._turns = {i.picture.sha256: i.picture.turn for i in last.items if i.picture}
        self._next_turn = last.turn + 1
        self._owners: dict[str, str] = {}
        self.read = 0

    def owned(self, source: str, entry: Entry) -> bool:
        """Return whether the last run took a picture from this entry, its bytes unchanged."""
        item = self._known.get((source, entry.origin))
        return item is not None and item.picture is not None and item.entry.key == entry.key

    def reusable(self, source: str, entry: Entry) -> Item | None:
        """Return the last run's item where neither bytes nor labels changed.

        What was left out is looked at again: its reason may have gone with a mended disk, and a
        duplicate's picture with its owner.
        """
        item = self._known.get((source, entry.origin))
        if item is None or item.picture is None or item.entry != entry:
            return None
        return item if (self._pictures / item.picture.file_name).is_file() else None

    def must_read(self, source: str, entry: Entry) -> bool:
        """Return whether an entry is likely to be read: to read it ahead otherwise is work lost."""
        item = self._known.get((source, entry.origin))
        duplicate = item is not None and bool(item.owner) and item.entry == entry
        return self.reusable(source, entry) is None and not duplicate

    def _known_duplicate(self, source: str, entry: Entry) -> Item | None:
        """Return the last run's item of a duplicate that is one still."""
        item = self._known.get((source, entry.origin))
        if item is None or item.entry != entry or item.owner not in self._owners:
            return None
        return replace(item, reason=f"{DUPLICATE} {self._owners[item.owner]}")

    def collect(self, source: Source, entry: Entry, reader: Reader) -> Item:
        """Return what becomes of an entry; its picture is in place when this returns."""
        item = self.reusable(source.id, entry) or self._known_duplicate(source.id, entry)
        if item is None:
            item = self._read(source, entry, reader)
            self.read += 1
        return self._once(item)

    def _once(self, item: Item) -> Item:
        if item.picture is None:
            return item
        sha256 = item.picture.sha256
        owner = self._owners.setdefault(sha256, item.name)
        if owner == item.name:
            return item
        reason = f"{DUPLICATE} {owner}"
        return replace(item, picture=None, reason=reason, owner=sha256)

    def _read(self, source: Source, entry: Entry, reader: Reader) -> Item:
        try:
            read = reader.read(source, entry)
            picture = self._store(source, entry, read)
        except UnreadableEntryError as error:
            return Item(source.id, entry, reason=str(error))
        return Item(source.id, entry, picture, read.found.labels)

    def _store(self, source: Source, entry: Entry, read: Read) -> Picture:
        found, width, height = read.found, read.width, read.height
        sha256 = hashlib.sha256(found.content).hexdigest()
        if len(entry.key) == 64 and entry.key != sha256:
            raise CollectionError(
                f"{source.id}/{entry.origin} changed while it was collected; run again"
            )
        if found.size is not None and found.size != (width, height):
            raise UnreadableEntryError(
                f"its labels are for {found.size[0]}x{found.size[1]} pixels, "
                f"but it is displayed at {width}x{height}; correct the declared size"
            )
        path = self._pictures / f"{sha256}{read.suffix}"
        if not path.is_file():
            write_bytes(path, found.content)
        base = {
            "sha256": sha256,
            "file_name": path.name,
            "width": width,
            "height": height,
            "source": source.id,
            "origin": entry.origin,
            "turn": self._turns.get(sha256, self._next_turn),
        }
        return Picture.from_dict({**found.fields, **base})


def collect(
    sources: list[Source], survey: Mapping[str, Any], taxonomy: Taxonomy, folder: Path = COLLECTED
) -> State:
    """Bring the surveyed pictures in and drop those that are surveyed no longer.

    Raises:
        CollectionError: If the survey is of other sources, or no picture is left.
    """
    from tqdm import tqdm

    last = State.read(folder / STATE)
    collector = Collector(folder, last)
    work = _work(sources, survey)
    # Owners first, so that a new copy never takes a picture from them, nor labels mended there.
    ordered = sorted(work, key=lambda pair: not collector.owned(pair[0].id, pair[1]))
    new = [pair for pair in ordered if collector.must_read(pair[0].id, pair[1])]
    progress = tqdm(ordered, desc="collecting", unit="picture", mininterval=1.0, disable=None)
    with Reader(new, workers=workers_here()) as reader:
        collected = [collector.collect(source, entry, reader) for source, entry in progress]
    items = tuple(sorted(collected, key=lambda item: (item.source, item.entry.origin)))
    turn = max((i.picture.turn for i in items if i.picture), default=-1)
    state = State(items, max(turn, last.turn))
    # Before anything can stop the loop: what is surveyed no longer, expired perhaps, is deleted.
    state.write(folder / STATE)
    derive(state, taxonomy, folder)
    _log(state, last, collector)
    if not any(item.picture for item in items):
        raise CollectionError(_nothing(items, [source.id for source in sources], len(last.items)))
    return state


def _nothing(items: Sequence[Item], sources: Sequence[str], before: int) -> str:
    """Say why there is no picture to go on with."""
    where = ", ".join(sources)
    if items:
        first = items[0]
        return (
            f"no usable picture in {where}: all {len(items)} were left out, such as "
            f"{first.name}: {first.reason}"
        )
    gone = f"; the {before} entries of the last turn, expired or gone, are deleted" * bool(before)
    return f"{where} offers no picture{gone}. Bring pictures in, or correct collection.root"


def _work(sources: list[Source], survey: Mapping[str, Any]) -> list[tuple[Source, Entry]]:
    surveyed = {s["id"]: s["survey"] for s in survey["sources"]}
    if set(surveyed) != {source.id for source in sources}:
        raise CollectionError(
            f"the survey is of {sorted(surveyed)}, the configuration names "
            f"{sorted(s.id for s in sources)}; run python -m data.survey first"
        )
    return [(s, entry) for s in sources for entry in s.entries(surveyed[s.id])]


def derive(state: State, taxonomy: Taxonomy, folder: Path) -> None:
    """Write manifest and COCO from a state, and delete pictures that it does not name."""
    pictures = tuple(
        sorted(
            (item.picture for item in state.items if item.picture),
            key=lambda picture: (picture.turn, picture.sha256),
        )
    )
    rejected = tuple(
        Rejected(i.source, i.entry.origin, i.reason) for i in state.items if not i.picture
    )
    Manifest(pictures, rejected).write(folder / MANIFEST)
    items_to_dataset(state.items, taxonomy).write(folder / ANNOTATIONS, taxonomy)
    named = {picture.file_name for picture in pictures}
    for path in (folder / "pictures").iterdir():
        if path.name not in named:
            path.unlink()


def items_to_dataset(items: Iterable[Item], taxonomy: Taxonomy) -> Dataset:
    """Map the sources' labels to the taxonomy's classes; labels it lacks are dropped and counted.

    A class counts as completely labelled where any of its labels is, unless another is partial.
    The labels of duplicates are joined to those of the picture that was kept.
    """
    images: list[Image] = []
    annotations: list[Annotation] = []
    dropped: Counter[str] = Counter()
    found, elsewhere = {}, defaultdict(list)
    for item in items:
        if item.picture is not None:
            found[item.picture.sha256] = (item.picture, item.labels)
        elif item.owner:
            elsewhere[item.owner].append(item.labels)
    for picture, own in sorted(found.values(), key=lambda pair: (pair[0].turn, pair[0].sha256)):
        labels = joined_labels(own, elsewhere[picture.sha256], taxonomy)
        images.append(_image(len(images) + 1, picture, labels, taxonomy))
        for thing in labels.objects:
            name = taxonomy.resolve(thing.label)
            if name is None:
                dropped[thing.label] += 1
                continue
            flat = thing.keypoints if name == taxonomy.keypoint_class else None
            annotations.append(
                Annotation(
                    id=len(annotations) + 1,
                    image_id=len(images),
                    class_name=name,
                    box_xyxy=thing.box_xyxy,
                    segmentation=thing.segmentation,
                    keypoints=None if flat is None else keypoints_from_flat(flat),
                    crowd=thing.crowd,
                    attributes=_attributes(thing.attributes, thing.label, name),
                )
            )
    if dropped:
        counts = ", ".join(f"{label} {n}" for label, n in sorted(dropped.items()))
        log.info("dropped objects of labels that the taxonomy lacks: %s", counts)
    return Dataset(tuple(images), tuple(annotations))


def _attributes(attributes: Mapping[str, Any], label: str, name: str) -> dict[str, Any]:
    return dict(attributes) if label == name else {"label": label, **attributes}


def _image(number: int, picture: Picture, labels: Labels, taxonomy: Taxonomy) -> Image:
    partial = classes_of(labels.partial, taxonomy)
    fields = asdict(picture)
    for name in ("sha256", "file_name", "width", "height"):
        del fields[name]
    attributes = fields.pop("attributes")
    if labels.problems:
        fields["label_problems"] = list(labels.problems)
    return Image(
        id=number,
        sha256=picture.sha256,
        file_name=picture.file_name,
        width=picture.width,
        height=picture.height,
        labelled=tuple(n for n in classes_of(labels.labelled, taxonomy) if n not in partial),
        partial=partial,
        keypoints_labelled=labels.keypoints_labelled,
        fields={**attributes, **{k: v for k, v in fields.items() if v is not None}},
    )


def _log(state: State, last: State, collector: Collector) -> None:
    kept = {i.picture.sha256 for i in state.items if i.picture}
    gone = {i.picture.sha256 for i in last.items if i.picture} - kept
    again = [f"{i.name} {i.reason}" for i in state.items if i.owner and i.labels.objects]
    reasons = [f"{i.name}: {i.reason}" for i in state.items if i.reason]
    problems = [f"{i.name}: {p}" for i in state.items for p in i.labels.problems]
    log.info("%d pictures, %d read, %d dropped", len(kept), collector.read, len(gone))
    for what, lines in (
        ("left out", reasons),
        ("duplicates' labels joined, class by class", again),
        ("problems of labels", problems),
    ):
        if lines:
            log.warning("%d %s, such as: %s", len(lines), what, "; ".join(lines[:3]))


@stage
def main(collection: CollectionConfig, taxonomy: Taxonomy) -> None:
    """Collect what the survey found."""
    survey = read_json(SURVEY, schema_version=1)
    collect(open_sources(collection), survey, taxonomy)


if __name__ == "__main__":
    main()
