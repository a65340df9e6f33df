"""Models that hide everything, through the real evaluation of drawn pictures, to the verdict."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import evaluation.__main__ as stage
from anonymization.bundle import Bundle
from anonymization.card import Card, GraphCard, GraphInput
from anonymization.detection.detector import Detector
from anonymization.detection.finds import Detections
from anonymization.formats.picture import read_picture
from anonymization.taxonomy import Taxonomy
from data.coco import Annotation, Dataset, Image, mask_to_rle
from data.layout import PICTURES
from data.street import Scene, StreetConfig, draw_sequence, encode_scene
from evaluation.config import EvaluationConfig, PromotionConfig
from evaluation.gate import judge
from evaluation.verdict import REFUSED, Verdict

ROOT = Path(__file__).parents[2]
TAXONOMY = Taxonomy.from_dict(yaml.safe_load((ROOT / "conf/taxonomy/street.yaml").read_text()))
CARD = Card(
    TAXONOMY,
    dict.fromkeys(TAXONOMY.names, 0.5),
    {"mask_rcnn": GraphCard("mask_rcnn.onnx", "0" * 64, GraphInput(256), TAXONOMY.names)},
)
STREET = StreetConfig(scenes=4, width=320, height=200, empty_share=0.0)
CONFIG = PromotionConfig()

Model = Callable[[Image, tuple[Annotation, ...]], Detections]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset]:
    """Four drawn pictures where the loop keeps them, and their truth."""
    root = tmp_path_factory.mktemp("drawn")
    (root / PICTURES).mkdir(parents=True)
    scenes = [s for i in range(2) for s in draw_sequence(STREET, i)]
    images, annotations = [], []
    for number, scene in enumerate(scenes, 1):
        content = encode_scene(scene, STREET)
        sha256 = hashlib.sha256(content).hexdigest()
        (root / PICTURES / f"{sha256}.jpg").write_bytes(content)
        fields = {"source": "street", "camera": scene.camera, "sequence": scene.sequence}
        images.append(
            Image(
                number, sha256, f"{sha256}.jpg", STREET.width, STREET.height,
                labelled=TAXONOMY.names, fields=fields,
            )
        )  # fmt: skip
        annotations += _annotations(scene, number, first=len(annotations) + 1)
    return root, Dataset(tuple(images), tuple(annotations))


def _annotations(scene: Scene, image_id: int, *, first: int) -> Iterator[Annotation]:
    for number, thing in enumerate(scene.objects, first):
        yield Annotation(
            number,
            image_id,
            thing.class_name,
            thing.box_xyxy,
            segmentation=mask_to_rle(thing.mask),
            attributes=thing.attributes,
        )


@dataclass
class Made:
    """A detector whose finds are made up from the truth."""

    model: Model
    dataset: Dataset
    pixels: dict[bytes, Image]

    def detect(self, pixels: np.ndarray, **_: object) -> Detections:
        image = self.pixels[pixels.tobytes()]
        return self.model(image, self.dataset.by_image[image.id])


def judged(
    drawn: tuple[Path, Dataset], model: Model, monkeypatch: pytest.MonkeyPatch, **labels: Any
) -> Verdict:
    root, dataset = drawn
    monkeypatch.chdir(root)
    dataset = replace(dataset, images=tuple(replace(i, **labels) for i in dataset.images))
    pixels = {read_picture(PICTURES / i.file_name).pixels.tobytes(): i for i in dataset.images}
    made = Made(model, dataset, pixels)
    monkeypatch.setattr(Detector, "from_bundle", lambda *_, **__: made)
    bundle = Bundle(root, CARD, {})
    config = EvaluationConfig()
    results = list(stage.evaluate(bundle, dataset, TAXONOMY, config, seed=1, groups={}))
    summary = stage.summarized(results, TAXONOMY, config, 1)
    summary |= {"split": "reference", "taxonomy_gated": list(TAXONOMY.gated)}
    return judge(summary, {"leaks": []}, None, CONFIG, gated=TAXONOMY.gated)


def failed(verdict: Verdict) -> set[str]:
    return {c.name for c in verdict.criteria if not c.passed}


def value(verdict: Verdict, name: str) -> float | None:
    return next(c.value for c in verdict.criteria if c.name == name)


def finds(boxes: list[Any], names: list[str]) -> Detections:
    ids = [TAXONOMY.class_id(name) for name in names]
    return Detections.from_boxes(boxes, class_ids=ids, scores=[0.99] * len(ids))


def whole_picture(names: tuple[str, ...]) -> Model:
    return lambda image, _: finds([(0, 0, image.width, image.height)] * len(names), list(names))


def dense_boxes(image: Image, _: tuple[Annotation, ...]) -> Detections:
    """Boxes of three sizes, upright and lying, side by side."""
    shapes = [(s * a, s / a) for s in (28, 56, 112) for a in (0.7, 1.4)]
    boxes = [
        (x, y, min(x + w, image.width), min(y + h, image.height))
        for w, h in shapes
        for x in np.arange(0, image.width - w / 2, w)
        for y in np.arange(0, image.height - h / 2, h)
    ]
    return Detections.concatenate(finds(boxes, [name] * len(boxes)) for name in TAXONOMY.names)


def perfect(image: Image, annotations: tuple[Annotation, ...]) -> Detections:
    import cv2

    parts = [Detections.empty()]
    for annotation in annotations:
        one = finds([annotation.box_xyxy], [annotation.class_name])
        mask = annotation.mask("mask", height=image.height, width=image.width)
        x0, y0, x1, y1 = (round(v) for v in annotation.box_xyxy)
        crop = mask[y0:y1, x0:x1].astype(np.float32)
        masks = cv2.resize(crop, (28, 28), interpolation=cv2.INTER_AREA)[None]
        parts.append(replace(one, masks=masks))
    return Detections.concatenate(parts)


def test_a_perfect_model_stays_far_within_the_limits_on_hiding_too_much(drawn, monkeypatch):
    verdict = judged(drawn, perfect, monkeypatch)
    assert not failed(verdict) & {"false_finds", "non_object_share", "written_output"}
    assert value(verdict, "false_finds") == 0
    share = value(verdict, "non_object_share")
    assert share is not None
    assert share < 0.8 * CONFIG.non_object_share_obscured_max


def test_a_model_that_blanks_the_picture_is_refused_for_finds_and_for_hidden_background(
    drawn, monkeypatch
):
    verdict = judged(drawn, whole_picture(TAXONOMY.names), monkeypatch)
    assert verdict.outcome == REFUSED
    assert {"false_finds", "non_object_share"} <= failed(verdict)
    assert value(verdict, "non_object_share") == 1.0
    covered = [c.value for c in verdict.criteria if c.name == "recall" and c.sense == "covered"]
    assert covered == [1.0] * 4


@pytest.mark.parametrize("name", TAXONOMY.names)
def test_one_class_that_blanks_the_picture_is_refused_for_hidden_background(
    drawn, monkeypatch, name
):
    """A face's ellipse leaves the corners: pi/4 of the picture, more with its margin."""

    def model(image: Image, annotations: tuple[Annotation, ...]) -> Detections:
        blanket = whole_picture((name,))(image, annotations)
        return Detections.concatenate([blanket, perfect(image, annotations)])

    verdict = judged(drawn, model, monkeypatch)
    assert "non_object_share" in failed(verdict)
    assert any("share of non-object pixels obscured" in reason for reason in verdict.reasons)


def test_a_model_that_covers_the_picture_with_boxes_of_every_size_is_refused(drawn, monkeypatch):
    verdict = judged(drawn, dense_boxes, monkeypatch)
    assert verdict.outcome == REFUSED
    assert {"false_finds", "non_object_share"} <= failed(verdict)
    assert (value(verdict, "false_finds") or 0) > 100


def test_where_nobody_labelled_every_face_the_gate_says_that_it_cannot_measure(drawn, monkeypatch):
    labels = tuple(n for n in TAXONOMY.names if n != "face")
    verdict = judged(drawn, perfect, monkeypatch, labelled=labels, partial=("face",))
    assert {"false_finds", "non_object_share"} <= failed(verdict)
    said = " ".join(verdict.reasons)
    assert (
        "false finds per picture cannot be measured: no reference picture labels every face" in said
    )
    assert "labels every face, every person, every license_plate and every vehicle" in said
