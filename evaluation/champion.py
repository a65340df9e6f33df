"""The champion that a bundle is compared with: what it did on the present reference set."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from anonymization.taxonomy import Taxonomy
from data.layout import PREPARED
from evaluation.binding import measure_digest
from evaluation.criteria import Champion
from evaluation.truth import read_groups
from evaluation.turn import Settings, Turn

if TYPE_CHECKING:
    from anonymization.bundle import Bundle
    from data.coco import Dataset

log = logging.getLogger(__name__)


def load_champion(client: Any, settings: Settings, turn: Turn, version: Any) -> Champion:
    """Return what a champion did on this reference set, measured again where that changed."""
    from evaluation.registry import artifact_json

    objects: list[dict[str, Any]] = []
    classes: tuple[str, ...] = ()
    if version.tags.get("bundle_digest") != turn.bundle:
        run_id = version.tags.get("judged_run") or version.run_id
        stored = artifact_json(client, run_id, "objects.json")
        if stored.get("measure") == measure_digest(turn.evaluation, settings.taxonomy):
            objects, classes = stored["objects"], tuple(stored["classes"])
        else:
            log.info("judging version %s, the champion, on this reference set", version.version)
            objects, classes = evaluate_again(client, version, settings)
    return Champion(
        version=str(version.version),
        bundle_digest=str(version.tags.get("bundle_digest")),
        reference_digest=str(turn.evaluation.get("reference_digest")),
        objects=objects,
        classes=classes,
    )


def evaluate_again(
    client: Any, version: Any, settings: Settings
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Judge a registered bundle on the present reference set; return its rows and classes."""
    from anonymization.bundle import Bundle
    from data.coco import Dataset
    from evaluation.__main__ import evaluate

    dataset = Dataset.read(PREPARED / "reference.json", settings.taxonomy)
    with tempfile.TemporaryDirectory() as work:
        folder = client.download_artifacts(version.run_id, "model/artifacts/bundle", work)
        bundle = Bundle.load(folder)
    known, taxonomy = as_known_to(bundle, dataset, settings.taxonomy)
    results = evaluate(
        bundle, known, taxonomy, settings.evaluation, seed=settings.seed, groups=read_groups()
    )
    rows = [row.to_dict() for result in results for row in result.objects]
    return rows, taxonomy.names


def as_known_to(bundle: Bundle, dataset: Dataset, taxonomy: Taxonomy) -> tuple[Dataset, Taxonomy]:
    """Return truth and taxonomy without the classes that a bundle does not find, in its order.

    A class number in a bundle's finds is a position in its own taxonomy.
    """
    own = bundle.card.taxonomy
    classes = {name: taxonomy.classes.get(name, own[name]) for name in own.names}
    images = [
        replace(
            image,
            labelled=tuple(n for n in image.labelled if n in classes),
            partial=tuple(n for n in image.partial if n in classes),
        )
        for image in dataset.images
    ]
    annotations = [a for a in dataset.annotations if a.class_name in classes]
    return type(dataset)(tuple(images), tuple(annotations)), replace(own, classes=classes)
