"""What annotators correct: the champion's finds as objects, and how unsure it is of a picture."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation.from_label_studio import clipped
from annotation.regions import Size
from annotation.to_label_studio import VISIBLE, annotations_to_results
from anonymization.bundle import Bundle
from anonymization.card import KEYPOINT_NETWORK, Card
from anonymization.detection.applying import above_thresholds, apply_card
from anonymization.detection.detector import Detector
from anonymization.detection.finds import Detections, box_iou
from anonymization.errors import BlurloopError
from anonymization.files import read_json, sha256_of_json, write_json
from anonymization.formats.picture import read_picture
from anonymization.taxonomy import Taxonomy
from data.coco import Annotation, mask_to_rle
from data.layout import WORK

SCHEMA_VERSION = 1
CACHE = WORK / "predictions"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prediction:
    """What the champion says of one picture.

    Attributes:
        usefulness: From 0 (sure) to 1.
        score: Least confidence among the finds, as Label Studio shows it; 0 where there are none.
        results: Regions for Label Studio.
    """

    usefulness: float
    score: float
    results: list[dict[str, Any]]


class Champion:
    """The bundle that annotators correct; its answers are kept beside the loop's work."""

    def __init__(self, bundle: Bundle, taxonomy: Taxonomy, *, keypoints: bool) -> None:
        self.version = f"{bundle.card.name}-{bundle.digest[:12]}"
        # An answer is in the tools and labels of the classes that it was made for.
        classes = sha256_of_json(taxonomy.to_dict())[:12]
        self._folder = CACHE / "-".join([self.version, classes, *["keypoints"] * keypoints])
        self._bundle = bundle
        self._taxonomy = taxonomy
        self._keypoints = keypoints
        self._detector: Detector | None = None

    def predict(self, sha256: str, picture: Path) -> Prediction:
        """Return what the champion says of a picture; known answers are not worked out again.

        Raises:
            PictureError: If the picture cannot be read.
        """
        cache = self._folder / f"{sha256}.json"
        known = _cached(cache)
        if known is not None:
            return known
        self._detector = self._detector or Detector.from_bundle(self._bundle)
        made = predict(
            self._detector,
            read_picture(picture).pixels,
            self._taxonomy,
            keypoints=self._keypoints,
        )
        write_json(
            cache,
            {
                "schema_version": SCHEMA_VERSION,
                "usefulness": made.usefulness,
                "score": made.score,
                "results": made.results,
            },
            indent=None,
        )
        return made


def _cached(path: Path) -> Prediction | None:
    if not path.exists():
        return None
    try:
        values: Mapping[str, Any] = read_json(path, schema_version=SCHEMA_VERSION)
        return Prediction(*(values[k] for k in ("usefulness", "score", "results")))
    except (BlurloopError, KeyError):
        return None  # only a cache: a damaged answer is worked out again


def open_champion(model: str | None, taxonomy: Taxonomy, *, keypoints: bool) -> Champion | None:
    """Load the champion; None where none is wanted, or the registry has none yet.

    Raises:
        RegistryError: If a registered model cannot be had; tasks are added once, and would stay
            without predictions.
        BundleError: If a bundle folder that was named cannot be used.
    """
    if model is None:
        return None
    from anonymization.registry import SCHEME, load_bundle
    from data.tracking.store import database_file, tracking_uri

    if model.startswith(SCHEME):
        uri = tracking_uri()
        registry = database_file(uri)
        if registry is not None and not registry.exists():
            log.warning("tasks are added without predictions: %s has no model yet", registry)
            return None
        import mlflow
        from mlflow.tracking import MlflowClient

        from evaluation.registry import champion_version

        mlflow.set_tracking_uri(uri)
        name, _, alias = model.removeprefix(SCHEME).partition("@")
        if alias and champion_version(MlflowClient(), name, alias) is None:
            log.warning("tasks are added without predictions: there is no %s yet", model)
            return None
    return Champion(load_bundle(model), taxonomy, keypoints=keypoints)


def predict(
    detector: Detector, pixels: NDArray[np.uint8], taxonomy: Taxonomy, *, keypoints: bool
) -> Prediction:
    """Find objects in a picture and judge how useful its labels would be."""
    card = detector.card
    lowest = min(*card.thresholds.values(), card.head.threshold) / 2
    found = detector.detect(pixels, score_min=lowest)
    size = Size(pixels.shape[1], pixels.shape[0])
    shipped = apply_card(found, card)
    objects = detections_to_annotations(shipped, card, taxonomy, size)
    if keypoints:
        objects = with_keypoints(objects, above_thresholds(found, card), card, taxonomy)
    scores = {a.id: float(shipped.scores[a.id - 1]) for a in objects}
    results = annotations_to_results(objects, taxonomy, size, scores=scores, keypoints=keypoints)
    return Prediction(
        usefulness=usefulness(found, card),
        score=min(scores.values(), default=0.0),
        results=results,
    )


def detections_to_annotations(
    detections: Detections, card: Card, taxonomy: Taxonomy, size: Size
) -> list[Annotation]:
    """Return finds as objects, numbered by their position from 1; outlines are pasted masks."""
    from anonymization.obscuring.masks import paste_mask

    objects = []
    for i in range(len(detections)):
        name = card.taxonomy.names[int(detections.class_ids[i])]
        x0, y0, x1, y1 = (float(v) for v in detections.boxes_xyxy[i])
        box = clipped((x0, y0, x1, y1), size)
        if name not in taxonomy.classes or box[2] - box[0] < 1 or box[3] - box[1] < 1:
            continue
        segmentation = None
        if taxonomy[name].geometry == "mask" and np.isfinite(detections.masks[i]).all():
            mask = np.zeros((size.height, size.width), bool)
            left, top = int(box[0]), int(box[1])
            columns, rows = int(np.ceil(box[2])) - left, int(np.ceil(box[3])) - top
            pasted = paste_mask(
                detections.masks[i],
                detections.boxes_xyxy[i],
                x0=left,
                y0=top,
                height=rows,
                width=columns,
            )
            mask[top : top + rows, left : left + columns] = pasted >= card.mask_threshold
            segmentation = mask_to_rle(mask) if mask.any() else None
        objects.append(Annotation(i + 1, 1, name, box, segmentation))
    return objects


def with_keypoints(
    objects: list[Annotation], found: Detections, card: Card, taxonomy: Taxonomy
) -> list[Annotation]:
    """Give persons the points that the keypoint network saw on them.

    A set of points goes to the person whose box holds most of its visible points.
    """
    from dataclasses import replace

    given: dict[int, tuple[tuple[float, float, int], ...]] = {}
    persons = [a for a in objects if a.class_name == taxonomy.keypoint_class]
    rows = [i for i in range(len(found)) if found.sources[i] == KEYPOINT_NETWORK]
    for i in sorted(rows, key=lambda i: -float(found.scores[i])):
        points = found.keypoints[i]
        seen = points[:, 2] >= card.head.keypoint_score_min
        held = {
            a.id: int((seen & _inside(points, a.box_xyxy)).sum())
            for a in persons
            if a.id not in given
        }
        best = max(held, key=lambda k: held[k], default=None)
        if best is not None and held[best]:
            box = next(a.box_xyxy for a in persons if a.id == best)
            shown = seen & _inside(points, box)
            given[best] = tuple(
                (round(float(x), 2), round(float(y), 2), VISIBLE) if ok else (0.0, 0.0, 0)
                for (x, y, _), ok in zip(points, shown, strict=True)
            )
    return [replace(a, keypoints=given[a.id]) if a.id in given else a for a in objects]


def _inside(
    points: NDArray[np.float32], box: tuple[float, float, float, float]
) -> NDArray[np.bool_]:
    x, y = points[:, 0], points[:, 1]
    return np.asarray((x >= box[0]) & (x <= box[2]) & (y >= box[1]) & (y <= box[3]))


def usefulness(found: Detections, card: Card) -> float:
    """Return how much a picture's labels would teach, from 0 to 1.

    Half of it is how near the most doubtful find lies to its threshold, on either side; half is
    the share of faces that only one of the two networks sees.

    Args:
        found: Every find, also below the thresholds, each network by itself.
        card: Its thresholds.
    """
    if not len(found):
        return 0.0
    from_points = np.array([s == KEYPOINT_NETWORK for s in found.sources], bool)
    names = card.taxonomy.names
    limits = np.array([card.thresholds[names[int(c)]] for c in found.class_ids], np.float64)
    limits = np.where(from_points, card.head.threshold, limits)
    above = (found.scores - limits) / np.maximum(1 - limits, 1e-6)
    below = (limits - found.scores) / np.maximum(limits, 1e-6)
    doubt = 1 - float(np.clip(np.maximum(above, below), 0, 1).min())
    return round((doubt + _disagreement(found, card, from_points)) / 2, 4)


def _disagreement(found: Detections, card: Card, from_points: NDArray[np.bool_]) -> float:
    kept = above_thresholds(found, card)
    is_head = np.array([s == KEYPOINT_NETWORK for s in kept.sources], bool)
    head_class = card.taxonomy.head_class
    if head_class is None or not from_points.any() or not len(kept):
        return 0.0
    is_face = ~is_head & (kept.class_ids == card.taxonomy.class_id(head_class))
    heads, faces = kept.boxes_xyxy[is_head], kept.boxes_xyxy[is_face]
    if not len(heads) + len(faces):
        return 0.0
    same = box_iou(heads, faces) >= card.nms_iou
    alone = int((~same.any(axis=1)).sum()) + int((~same.any(axis=0)).sum())
    return alone / (len(heads) + len(faces))
