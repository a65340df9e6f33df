"""The reference set: released lists of pictures and labels, frozen, in Git under `reference/`.

`reference/<source id>/<number>.json` is one release; the latest one of a source counts. By hand:

    python -m data.reference history
    python -m data.reference release --reason "2,000 pictures of the autumn drive"
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from anonymization.errors import BlurloopError
from anonymization.files import read_json, sha256_of_json, write_json
from anonymization.taxonomy import Taxonomy
from conf import ending_in_one_line
from data.coco import Annotation, Dataset, Image
from data.layout import PICTURES, REFERENCE

SCHEMA_VERSION = 1


class ReferenceSetError(BlurloopError):
    """A released reference set cannot be used as it was released."""


@dataclass(frozen=True)
class Release:
    """One released reference set of one source.

    Attributes:
        source: Source id.
        number: Counts from 1.
        reason: Why it was released.
        date: ISO 8601, not part of the digest.
        digest: SHA-256 of the frozen pictures and labels.
        dataset: The frozen pictures and labels, in the present taxonomy.
    """

    source: str
    number: int
    reason: str
    date: str
    digest: str
    dataset: Dataset

    @property
    def sha256s(self) -> frozenset[str]:
        """The pictures in it."""
        return frozenset(image.sha256 for image in self.dataset.images)


def _path(folder: Path, source: str, number: int) -> Path:
    return folder / source / f"{number:04d}.json"


def release_numbers(source: str, folder: Path = REFERENCE) -> list[int]:
    """Return the numbers of a source's releases, in order."""
    return sorted(int(p.stem) for p in (folder / source).glob("*.json") if p.stem.isdigit())


def read_release(source: str, number: int, taxonomy: Taxonomy, folder: Path = REFERENCE) -> Release:
    """Read a release and check its digest.

    Raises:
        ReferenceSetError: If its content is not what was released.
    """
    path = _path(folder, source, number)
    values = read_json(path, schema_version=SCHEMA_VERSION)
    if sha256_of_json(values["dataset"]) != values["digest"]:
        raise ReferenceSetError(
            f"{path} does not match its digest: it was changed after its release. Restore it "
            f"(git checkout -- {path}); changed labels need a new release"
        )
    dataset = Dataset.from_dict(_in_taxonomy(values["dataset"], taxonomy), taxonomy, path)
    about = {k: values[k] for k in ("source", "number", "reason", "date", "digest")}
    return Release(**about, dataset=dataset)


def _in_taxonomy(values: Mapping[str, Any], taxonomy: Taxonomy) -> dict[str, Any]:
    """Leave out frozen classes that the taxonomy has no more."""
    known = {c["id"] for c in values["categories"] if c["name"] in taxonomy.classes}
    images = [
        image | {k: [n for n in image[k] if n in taxonomy.classes] for k in ("labelled", "partial")}
        for image in values["images"]
    ]
    annotations = [a for a in values["annotations"] if a["category_id"] in known]
    return {**values, "images": images, "annotations": annotations}


def current_release(source: str, taxonomy: Taxonomy, folder: Path = REFERENCE) -> Release | None:
    """Return the latest release of a source, or None where there is none."""
    numbers = release_numbers(source, folder)
    return read_release(source, numbers[-1], taxonomy, folder) if numbers else None


def write_release(
    source: str, dataset: Dataset, taxonomy: Taxonomy, *, reason: str, folder: Path = REFERENCE
) -> Release:
    """Freeze pictures and labels as the next release of a source."""
    number = (release_numbers(source, folder) or [0])[-1] + 1
    values = union([dataset]).to_dict(taxonomy)
    for image in values["images"]:
        # When a picture came is no part of the set: a clone that collects all at once agrees.
        image["fields"] = {k: v for k, v in image["fields"].items() if k != "turn"}
    content = {
        "schema_version": SCHEMA_VERSION,
        "source": source,
        "number": number,
        "reason": reason,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "digest": sha256_of_json(values),
        "dataset": values,
    }
    write_json(_path(folder, source, number), content, indent=None)
    # As JSON gives it back, so that this turn and the next compute the same digest.
    return read_release(source, number, taxonomy, folder)


def union(datasets: Iterable[Dataset]) -> Dataset:
    """Join data sets, sorted by SHA-256 and numbered afresh: equal contents, equal digests."""
    pairs = [
        (image, dataset.by_image[image.id]) for dataset in datasets for image in dataset.images
    ]
    images: list[Image] = []
    annotations: list[Annotation] = []
    for image, found in sorted(pairs, key=lambda pair: pair[0].sha256):
        images.append(replace(image, id=len(images) + 1))
        for annotation in found:
            number = len(annotations) + 1
            annotations.append(replace(annotation, id=number, image_id=len(images)))
    return Dataset(tuple(images), tuple(annotations))


def check_present(releases: Iterable[Release], pictures: Path = PICTURES) -> None:
    """Check that every released picture was collected.

    Raises:
        ReferenceSetError: If some are missing; the message says how many and what to do.
    """
    for release in releases:
        images = release.dataset.images
        missing = [i for i in images if not (pictures / i.file_name).is_file()]
        if missing:
            raise ReferenceSetError(
                f"{len(missing)} of {len(images)} pictures of reference release {release.number} "
                f"of {release.source} are not collected, such as "
                f"{missing[0].fields.get('origin')}. Bring them back into the source, or release "
                'without them: python -m data.reference release --reason "..."'
            )


def labels_by_picture(dataset: Dataset) -> dict[str, Any]:
    """Return what is labelled in each picture by SHA-256, without ids, to compare data sets."""
    facts = {}
    for image in dataset.images:
        coverage = (set(image.labelled), set(image.partial), image.keypoints_labelled)
        found = [_without_ids(annotation) for annotation in dataset.by_image[image.id]]
        facts[image.sha256] = (coverage, found)
    return facts


def _without_ids(annotation: Annotation) -> Annotation:
    # COCO writes widths: reading them back moves the far corner by a rounding error.
    x0, y0, x1, y1 = (round(v, 3) for v in annotation.box_xyxy)
    return replace(annotation, id=0, image_id=0, box_xyxy=(x0, y0, x1, y1))


def _releasable(source: str, taxonomy: Taxonomy) -> Dataset:
    """Return what a new release of a source holds: released and pending, labelled as of now."""
    from data.layout import ANNOTATED, ANNOTATIONS, PREPARED

    pending = Dataset.read(PREPARED / "pending.json", taxonomy)
    annotated = Dataset.read(ANNOTATED / ANNOTATIONS, taxonomy)
    now = {image.sha256 for image in annotated.images}
    wanted = {i.sha256 for i in pending.images if i.fields.get("source") == source}
    release = current_release(source, taxonomy)
    if release is None:
        return union([annotated.subset(wanted)])
    # Review may have rejected a released picture since; it stays as it was frozen.
    kept = [i for i in release.dataset.images if (PICTURES / i.file_name).is_file()]
    frozen = release.dataset.subset(i.sha256 for i in kept if i.sha256 not in now)
    return union([annotated.subset(wanted | {i.sha256 for i in kept}), frozen])


def release_all(taxonomy: Taxonomy, *, reason: str) -> list[Release]:
    """Release every prepared source of which pictures or labels changed.

    Raises:
        ReferenceSetError: If the reason is empty.
    """
    from data.layout import ANNOTATED, ANNOTATIONS

    if not reason.strip():
        raise ReferenceSetError('a release needs a reason: --reason "why"')
    annotated = Dataset.read(ANNOTATED / ANNOTATIONS, taxonomy)
    made = []
    for source in sorted({str(image.fields.get("source")) for image in annotated.images}):
        dataset, last = _releasable(source, taxonomy), current_release(source, taxonomy)
        unchanged = last and labels_by_picture(last.dataset) == labels_by_picture(dataset)
        if dataset.images and not unchanged:
            made.append(write_release(source, dataset, taxonomy, reason=reason))
    return made


def frozen_taxonomy() -> Taxonomy:
    """Return the taxonomy of params.yaml, which the loop ran with; else that of `conf/`."""
    import yaml

    import conf

    params = Path("params.yaml")
    tree = yaml.safe_load(params.read_text()) if params.is_file() else conf.compose()
    return conf.section(tree, "taxonomy", Taxonomy)


def _release(reason: str) -> None:
    made = release_all(frozen_taxonomy(), reason=reason)
    for release in made:
        count = len(release.dataset.images)
        sys.stdout.write(f"{release.source}: release {release.number}, {count} pictures\n")
    told = "run dvc repro, and commit reference/" if made else "nothing to release"
    sys.stdout.write(f"{told}\n")


def _history() -> None:
    taxonomy = frozen_taxonomy()
    for folder in sorted(p for p in REFERENCE.glob("*") if p.is_dir()):
        for number in release_numbers(folder.name):
            r = read_release(folder.name, number, taxonomy)
            sys.stdout.write(
                f"{r.source}  {number}  {r.date}  {len(r.dataset.images)} pictures  "
                f"{r.digest[:12]}  {r.reason}\n"
            )


def main() -> None:
    """Release by hand, or list the releases."""
    parser = argparse.ArgumentParser(prog="python -m data.reference", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("history", help="list the releases of every source")
    release = commands.add_parser("release", help="freeze pending pictures and corrected labels")
    release.add_argument("--reason", required=True, help="why; recorded in the release")
    arguments = parser.parse_args()
    if arguments.command == "history":
        ending_in_one_line(_history)
    else:
        ending_in_one_line(lambda: _release(arguments.reason))


if __name__ == "__main__":
    main()
