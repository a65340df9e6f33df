"""Pushing: reviewed pictures become tasks once and only once, the most useful first."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from annotation.backend import AnnotationConfig
from annotation.client import Server, TaskRow
from annotation.labelling import DOUBT
from annotation.labels import IMAGE
from annotation.order import Candidate, doubt_key, doubts, ordered, room, sides
from annotation.predictions import Champion, Prediction, open_champion
from annotation.regions import Size
from annotation.serving import Serving
from annotation.to_label_studio import annotations_to_results
from anonymization.taxonomy import Taxonomy
from data.coco import Dataset, Image
from data.grouping import perceptual_hashes
from data.layout import PICTURES
from data.manifest import Manifest, Picture
from data.preparation import PreparationConfig, grouped, picture_paths, picture_to_member
from data.reference import current_release

BATCH = 20
"""Tasks per request, each all or nothing: what a kill can leave undone."""
DOUBT_KEY, DOUBT_AT = "doubt_key", "doubt_at"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Push:
    """Feeds one project."""

    server: Server
    project: int
    config: AnnotationConfig
    taxonomy: Taxonomy
    preparation: PreparationConfig

    def run(
        self,
        rows: Sequence[TaskRow],
        reviewed: Manifest,
        collected: Dataset,
        *,
        queue: Mapping[str, Any] | None,
        finished: Mapping[str, str | None],
    ) -> int:
        """Write doubts onto tasks, then add new ones; return how many were added.

        Args:
            rows: Tasks that the project has.
            reviewed: Pictures that may become tasks.
            collected: Labels that came with them.
            queue: Content of `reports/queue.json`, where validation has written one.
            finished: Time of the newest annotation of each picture.
        """
        doubted = doubts(queue)
        self.mark(rows, doubted, finished)
        known = {row.sha256 for row in rows}
        new = self._shown([p for p in reviewed.pictures if p.sha256 not in known])
        images = {image.sha256: image for image in collected.images}
        if self.config.source_labels:
            new = [p for p in new if p.sha256 in doubted or not _labelled(images.get(p.sha256))]
        space = room(
            cap=self.config.tasks_per_turn,
            open_tasks=sum(not row.annotated + row.cancelled for row in rows),
            open_max=self.config.open_tasks_max,
        )
        if not new or not space:
            log.info("no task added: %d pictures wait, room for %d", len(new), space)
            return 0
        champion = open_champion(
            self.config.predictions, self.taxonomy, keypoints=self.config.keypoints
        )
        chosen = ordered(self._candidates(new, reviewed, champion, doubted))[:space]
        self._add(chosen, {p.sha256: p for p in new}, collected, champion)
        log.info("%d tasks added, %d pictures wait", len(chosen), len(new) - len(chosen))
        return len(chosen)

    def _shown(self, pictures: list[Picture]) -> list[Picture]:
        """Return the pictures that browsers can be shown; the others are named."""
        serving = Serving.of(self.config)
        left = [p for p in pictures if not serving.can_show(p.file_name)]
        if left:
            log.warning(
                "%d pictures become no tasks, such as %s/%s: no browser shows TIFF or JPEG 2000, "
                "and %s is read as it is. Convert them in their source, or use "
                "annotation.pictures=local_files",
                len(left), left[0].source, left[0].origin, self.config.pictures,
            )  # fmt: skip
        return [p for p in pictures if serving.can_show(p.file_name)]

    def mark(
        self,
        rows: Sequence[TaskRow],
        doubted: Mapping[str, str],
        finished: Mapping[str, str | None],
    ) -> None:
        """Bring doubted pictures back to people, and take doubts off that somebody answered.

        A doubt that was answered is not raised again in the same words. A doubted task wants one
        more opinion than it has, so that Label Studio offers it to the next annotator; the tab
        of doubted tasks shows it to everybody.
        """
        for row in rows:
            data, sha256 = row.data, str(row.sha256)
            text = doubted.get(sha256, "")
            done_at = finished.get(sha256)
            if data.get(DOUBT) and done_at and done_at > str(data.get(DOUBT_AT, "")):
                fields = {**data, DOUBT: ""}
                self.server.update_task(
                    row.id, data=fields, overlap=max(row.annotated, 1), is_labeled=True
                )
                log.info("task %d: its doubt is answered", row.id)
            elif text and done_at and (key := _raised(data, text)) != data.get(DOUBT_KEY):
                fields = {**data, DOUBT: text, DOUBT_KEY: key, DOUBT_AT: _now()}
                self.server.update_task(
                    row.id, data=fields, overlap=row.annotated + 1, is_labeled=False
                )
                log.info("task %d comes back to annotators: %s", row.id, text)

    def _candidates(
        self,
        new: Sequence[Picture],
        reviewed: Manifest,
        champion: Champion | None,
        doubted: Mapping[str, str],
    ) -> list[Candidate]:
        """Judge each new picture; the champion looks at those that teach, not at those that judge.

        It looks at four times as many as can be added, first come by digest: a turn stays short.
        """
        side = self._sides(reviewed)
        looked = 0
        most = 4 * self.config.tasks_per_turn
        found = []
        for picture in _with_progress(sorted(new, key=lambda p: p.sha256)):
            judged, leads = side[picture.sha256]
            value = 0.0
            if champion is not None and not judged and looked < most:
                looked += 1
                path = PICTURES / picture.file_name
                value = champion.predict(picture.sha256, path).usefulness
            found.append(
                Candidate(
                    picture.sha256,
                    for_reference=judged,
                    leads=leads,
                    usefulness=value,
                    doubt=doubted.get(picture.sha256, ""),
                )
            )
        return found

    def _sides(self, reviewed: Manifest) -> dict[str, tuple[bool, bool]]:
        """Tell which pictures models may be judged on, as preparation will split them."""
        pictures = reviewed.pictures
        sources = {picture.source for picture in pictures}
        releases = [current_release(source, self.taxonomy) for source in sources]
        known = [release for release in releases if release]
        hashes = perceptual_hashes(picture_paths(pictures, known))
        members = map(picture_to_member, pictures)
        return sides(grouped(members, known, hashes, self.preparation))

    def _add(
        self,
        chosen: Sequence[Candidate],
        pictures: Mapping[str, Picture],
        collected: Dataset,
        champion: Champion | None,
    ) -> None:
        images = {image.sha256: image for image in collected.images}
        serving = Serving.of(self.config)
        tasks: list[dict[str, Any]] = []
        for number, candidate in enumerate(_with_progress(chosen, desc="adding tasks"), start=1):
            picture = pictures[candidate.sha256]
            image = images.get(candidate.sha256)
            task = new_task(candidate, serving.address(picture.file_name))
            if not candidate.for_reference:
                labels = collected.by_image[image.id] if image else ()
                if self.config.source_labels and _labelled(image):
                    size = Size(picture.width, picture.height)
                    shown = annotations_to_results(
                        labels, self.taxonomy, size, keypoints=self.config.keypoints
                    )
                    task["predictions"] = [to_prediction("source", Prediction(0, 0, shown))]
                elif champion is not None:
                    found = champion.predict(picture.sha256, PICTURES / picture.file_name)
                    task["predictions"] = [to_prediction(champion.version, found)]
            tasks.append(task)
            if len(tasks) == BATCH or number == len(chosen):
                self.server.add_tasks(self.project, tasks)
                tasks = []


def _raised(data: Mapping[str, Any], text: str) -> str:
    """Return the key of all that was ever doubted of a task, with this."""
    return doubt_key(text, raised=str(data.get(DOUBT_KEY) or ""))


def new_task(candidate: Candidate, address: str) -> dict[str, Any]:
    """Return a task; its picture's SHA-256 is its identity."""
    data: dict[str, Any] = {IMAGE: address, "sha256": candidate.sha256, DOUBT: candidate.doubt}
    if candidate.doubt:
        data |= {DOUBT_KEY: doubt_key(candidate.doubt), DOUBT_AT: _now()}
    return {"data": data}


def to_prediction(version: str, prediction: Prediction) -> dict[str, Any]:
    """Return a prediction as Label Studio imports it."""
    return {"model_version": version, "score": prediction.score, "result": prediction.results}


def _labelled(image: Image | None) -> bool:
    return image is not None and bool(image.labelled or image.partial)


def _with_progress(items: Sequence[Any], *, desc: str = "looking at pictures") -> Any:
    from tqdm import tqdm

    return tqdm(items, desc=desc, unit="picture", mininterval=1.0, disable=None)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
