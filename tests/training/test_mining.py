"""Mistakes of the shipped anonymizer on training pictures, counted as it would be judged."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image as PillowImage

from anonymization.bundle import Bundle
from anonymization.detection.detector import Detector
from anonymization.detection.finds import Detections
from anonymization.files import read_json, write_json
from anonymization.taxonomy import ClassSpec, Taxonomy
from data.coco import Annotation, Dataset, Image
from data.layout import PICTURES, PREPARED
from evaluation.truth import truth_of
from training import mining
from training.mining import doubted_pictures, hard_pictures, mistakes
from training.pictures.sampling import read_hard

TAXONOMY = Taxonomy(
    {
        "sign": ClassSpec(geometry="box", shape="box", identifiable_px=8),
        "ball": ClassSpec(geometry="box", shape="box", identifiable_px=8),
    }
)
THERE, ELSEWHERE = (10, 10, 40, 40), (60, 60, 90, 90)


@pytest.mark.parametrize(
    ("labelled", "partial", "found", "expected", "reason"),
    [
        (("sign",), (), [THERE], (0, 0), "perfect"),
        (("sign",), (), [], (1, 0), "missed"),
        (("sign",), (), [THERE, ELSEWHERE], (0, 1), "and a false one"),
        ((), ("sign",), [ELSEWHERE], (1, 0), "partial: the other may be an unlabelled object"),
    ],
)
def test_mistakes_are_counted_as_far_as_labels_tell(
    labelled: tuple[str, ...],
    partial: tuple[str, ...],
    found: list[tuple[int, ...]],
    expected: tuple[int, int],
    reason: str,
) -> None:
    image = Image(0, "0" * 64, "a.png", 100, 100, labelled, partial)
    truth = truth_of(image, [Annotation(0, 0, "sign", THERE)], TAXONOMY)
    # Finds of a class that is not labelled are neither right nor wrong.
    boxes = [*found, ELSEWHERE]
    finds = Detections.from_boxes(boxes, class_ids=[0] * len(found) + [1])

    counted = mistakes(truth, finds, TAXONOMY, mask_threshold=0.4)

    assert (counted["missed"], counted["false"]) == expected, reason


def test_pictures_whose_labels_are_doubted_are_not_hard(tmp_path: Path) -> None:
    queue = tmp_path / "queue.json"
    assert doubted_pictures(queue) == frozenset()
    write_json(queue, {"schema_version": 1, "reannotate": [{"sha256": "b"}], "collect": []})
    counts = {
        "a": {"missed": 1, "false": 2},
        "b": {"missed": 3, "false": 0},
        "c": {"missed": 0, "false": 0},
    }
    assert hard_pictures(counts, doubted_pictures(queue)) == {"a": {"missed": 1, "false": 2}}


def test_the_command_looks_at_training_pictures_and_writes_the_hard_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tuple(
        Image(n, f"{n:064d}", f"{n}.png", 100, 100, labelled=("sign", "ball")) for n in range(3)
    )
    signs = (Annotation(0, 0, "sign", THERE), Annotation(1, 1, "sign", ELSEWHERE))
    monkeypatch.chdir(tmp_path)
    for folder in (PREPARED, PICTURES):
        folder.mkdir(parents=True)
    Dataset(images, signs).write(PREPARED / "train.json", TAXONOMY)
    for image in images:
        PillowImage.new("RGB", (100, 100)).save(PICTURES / image.file_name)
    # Finds a sign at one place in every picture: right in the first, wrong in the others.
    found = Detections.from_boxes([THERE], class_ids=[0])
    bundle = SimpleNamespace(digest="d" * 64, card=SimpleNamespace(mask_threshold=0.4))
    detector = SimpleNamespace(detect=lambda pixels: found.select(slice(pixels.shape[0])))
    monkeypatch.setattr(Bundle, "load", lambda _: bundle)
    monkeypatch.setattr(Detector, "from_bundle", lambda _: detector)

    mining.main.__wrapped__(TAXONOMY)  # type: ignore[attr-defined]

    assert read_hard(mining.HARD) == {images[1].sha256, images[2].sha256}
    pictures = read_json(mining.HARD)["pictures"]
    assert pictures[images[1].sha256] == {"missed": 1, "false": 1}
    assert pictures[images[2].sha256] == {"missed": 0, "false": 1}
