"""From the snapshot to COCO: which opinion counts, and what is reported on the others.

Rules (docs/annotation.md tells them to people):

- A submitted annotation is finished, also an empty one: the picture shows nothing. Drafts are not
  in the snapshot. A picture that was only skipped has no labels.
- Of several opinions the newest counts; of starred ones (ground truth), the newest starred one.
- Labels say nothing of a class that the project asked for only after the annotation was begun.
- What had to be left out of an opinion, and what another person saw and this one did not, is
  named in `label_problems`, from which validation makes the queue of pictures to look at again.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from annotation.agreement import Agreement, matched
from annotation.backend import AnnotationConfig
from annotation.from_label_studio import Labels, results_to_labels
from annotation.labelling import covered_classes
from annotation.labels import SOURCE
from annotation.regions import Size
from annotation.snapshot import existing_head, read_lines
from anonymization.taxonomy import Taxonomy
from data.coco import Annotation, Dataset, Image

PROBLEMS = "label_problems"
"""Field of an image that data.findings reads."""
SCHEMA_VERSION = 1


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opinion:
    """One finished annotation of a picture."""

    id: int
    annotator: int | None
    updated_at: str
    begun_at: str
    starred: bool
    labels: Labels


@dataclass
class Reading:
    """Goes through a snapshot and gathers images, annotations and figures."""

    taxonomy: Taxonomy
    since: Mapping[str, str | None]
    images: list[Image] = field(default_factory=list)
    annotations: list[Annotation] = field(default_factory=list)
    agreement: Agreement = field(default_factory=Agreement)
    states: Counter[str] = field(default_factory=Counter)
    annotators: Counter[str] = field(default_factory=Counter)
    problems: list[dict[str, Any]] = field(default_factory=list)
    skipped: set[str] = field(default_factory=set)

    def add(self, image: Image, line: Mapping[str, Any]) -> bool:
        """Take a picture's labels from its line; return whether there are any."""
        opinions = opinions_of(line, image, self.taxonomy)
        if not opinions:
            self.states["skipped"] += 1
            self.skipped.add(image.sha256)
            return False
        self.states["finished"] += 1
        self.annotators.update(str(opinion.annotator) for opinion in opinions)
        latest = latest_of_each(opinions)
        self.agreement.add([opinion.labels.objects for opinion in latest])
        chosen = choose(opinions)
        problems = [*chosen.labels.problems, *overlooked(chosen, latest)]
        self.problems += [
            {"task": line["task"], "annotation": chosen.id, "problem": text} for text in problems
        ]
        self.images.append(labelled_image(image, chosen, problems, self.taxonomy, self.since))
        self._append(image, chosen, line)
        return True

    def keep(self, image: Image, annotations: Iterable[Annotation]) -> None:
        """Take a picture with the labels that came with its source."""
        self.states["from_source"] += 1
        if image.sha256 in self.skipped:
            self.states["skipped"] -= 1
        self.images.append(image)
        for annotation in annotations:
            self.annotations.append(replace(annotation, id=len(self.annotations) + 1))

    def _append(self, image: Image, opinion: Opinion, line: Mapping[str, Any]) -> None:
        about = {
            "source": SOURCE,
            "annotator": opinion.annotator,
            "annotated_at": opinion.updated_at,
            "task": line["task"],
            "annotation": opinion.id,
        }
        for each in opinion.labels.objects:
            number = len(self.annotations) + 1
            attributes = each.attributes | about
            self.annotations.append(
                replace(each, id=number, image_id=image.id, attributes=attributes)
            )

    def dataset(self) -> Dataset:
        """Return what was gathered."""
        return Dataset(tuple(self.images), tuple(self.annotations))

    def report(self, *, reviewed: int) -> dict[str, Any]:
        """Return `reports/annotation.json`.

        Args:
            reviewed: Number of pictures that could have been annotated.
        """
        done = sum(self.states[name] for name in ("finished", "from_source", "skipped"))
        return {
            "schema_version": SCHEMA_VERSION,
            "pictures": {
                "reviewed": reviewed,
                **{n: self.states[n] for n in ("finished", "from_source", "skipped")},
                "waiting": reviewed - done,
                "not_reviewed": self.states["not_reviewed"],
            },
            "objects": dict(sorted(Counter(a.class_name for a in self.annotations).items())),
            "annotators": dict(sorted(self.annotators.items())),
            "agreement": self.agreement.to_dict(),
            "problems": self.problems,
        }


def opinions_of(line: Mapping[str, Any], image: Image, taxonomy: Taxonomy) -> list[Opinion]:
    """Read every finished annotation of a task.

    Raises:
        ResultError: If one of them cannot be taken as it is.
    """
    size = Size(image.width, image.height)
    found = []
    for annotation in line["annotations"]:
        if annotation["skipped"]:
            continue
        where = f"annotation {annotation['id']} of task {line['task']}"
        labels = results_to_labels(annotation["result"] or [], taxonomy, size, where=where)
        updated = str(annotation["updated_at"])
        found.append(
            Opinion(
                id=int(annotation["id"]),
                annotator=annotation["annotator"],
                updated_at=updated,
                begun_at=begun(str(annotation["created_at"]), annotation.get("lead_time")),
                starred=bool(annotation["ground_truth"]),
                labels=labels,
            )
        )
    return found


def begun(created_at: str, lead_time_s: float | None) -> str:
    """Return when an annotation was begun: the time at work before it was first submitted.

    >>> begun("2026-05-01T10:00:30Z", 30.0)
    '2026-05-01T10:00:00Z'
    """
    moment = datetime.fromisoformat(created_at) - timedelta(seconds=float(lead_time_s or 0))
    return moment.isoformat().replace("+00:00", "Z")


def choose(opinions: Iterable[Opinion]) -> Opinion:
    """Return the opinion that counts: the newest, starred ones before all others."""
    return max(opinions, key=lambda o: (o.starred, datetime.fromisoformat(o.updated_at), o.id))


def latest_of_each(opinions: Iterable[Opinion]) -> list[Opinion]:
    """Return the newest opinion of each annotator: nobody agrees with himself."""
    newest: dict[Any, Opinion] = {}
    for opinion in sorted(opinions, key=lambda o: (datetime.fromisoformat(o.updated_at), o.id)):
        newest[opinion.annotator] = opinion
    return sorted(newest.values(), key=lambda o: o.id)


def overlooked(chosen: Opinion, others: Iterable[Opinion]) -> list[str]:
    """Name what another person drew and the chosen opinion lacks: a possible miss."""
    found = []
    for other in others:
        if other.id == chosen.id:
            continue
        for name in sorted({a.class_name for a in other.labels.objects}):
            mine = [a for a in chosen.labels.objects if a.class_name == name]
            theirs = [a for a in other.labels.objects if a.class_name == name]
            missing = len(theirs) - len(matched(mine, theirs))
            if missing:
                found.append(
                    f"annotator {other.annotator} drew {missing} {name} that annotator "
                    f"{chosen.annotator} did not"
                )
    return found


def labelled_image(
    image: Image,
    opinion: Opinion,
    problems: list[str],
    taxonomy: Taxonomy,
    since: Mapping[str, str | None],
) -> Image:
    """Return the picture with what its labels cover."""
    covered = covered_classes(taxonomy, since, opinion.begun_at)
    persons = [a for a in opinion.labels.objects if a.class_name == taxonomy.keypoint_class]
    with_points = bool(persons) and all(a.keypoints or a.crowd for a in persons)
    lost = opinion.labels.lost
    fields = {k: v for k, v in image.fields.items() if k != PROBLEMS}
    return replace(
        image,
        labelled=() if lost else covered,
        partial=covered if lost else (),
        keypoints_labelled=with_points,
        fields=fields | ({PROBLEMS: problems} if problems else {}),
    )


def annotated(
    config: AnnotationConfig, reviewed: Dataset, folder: Path, taxonomy: Taxonomy
) -> tuple[Dataset, dict[str, Any]]:
    """Return the pictures that have labels, and the report; asks no server.

    Args:
        config: Whether labels of the source count.
        reviewed: The pictures, with the labels that came with them.
        folder: `artifacts/snapshot`.
        taxonomy: Classes.

    Raises:
        AnnotationError: If there is no snapshot of Label Studio.
        ResultError: If an annotation cannot be taken as it is.
    """
    head = existing_head(folder)
    images = {image.sha256: image for image in reviewed.images}
    reading = Reading(taxonomy, head.since)
    done = set()
    for line in read_lines(folder):
        image = images.get(line["sha256"])
        if image is None:
            reading.states["not_reviewed"] += 1
            log.warning(
                "task %s is annotated, but its picture %s is not among the reviewed ones: "
                "collected no more, or rejected since; left out. Collect the picture again to "
                "use its labels, or delete the task in Label Studio",
                line["task"],
                line["sha256"][:12],
            )
            continue
        if reading.add(image, line):
            done.add(image.sha256)
    for image in reviewed.images if config.source_labels else ():
        if image.sha256 not in done and (image.labelled or image.partial):
            reading.keep(image, reviewed.by_image[image.id])
    for problem in reading.problems:
        log.warning("task %(task)s, annotation %(annotation)s: %(problem)s", problem)
    return reading.dataset(), reading.report(reviewed=len(reviewed.images))
