"""The bench that looks for persons around faces counts those alone."""

import numpy as np
import pytest

from anonymization.detection.finds import Detections
from benchmarks.wholes import PAIRS, best_around, wanted
from data.coco import Annotation, Dataset, Image

PERSON, VEHICLE = PAIRS
FACE = np.array([45, 20, 55, 32], np.float32)


@pytest.mark.parametrize(
    ("box", "score", "why"),
    [
        ((35, 15, 65, 95), 0.7, "a person with that face"),
        ((52, 15, 90, 95), 0.0, "the face lies half outside"),
        ((0, 15, 99, 95), 0.0, "as wide as ten faces"),
        ((35, 0, 65, 40), 0.0, "the face at its feet"),
    ],
)
def test_a_person_is_around_its_face(box: tuple[int, ...], score: float, why: str) -> None:
    found = Detections.from_boxes([box], class_ids=[1], scores=[0.7])
    assert best_around(FACE, found, PERSON) == pytest.approx(score), why
    assert best_around(FACE, Detections.empty(), PERSON) == 0


def test_only_pictures_that_do_not_label_the_whole_are_asked() -> None:
    images = tuple(
        Image(i, f"{i:064d}", f"{i}.png", 100, 100, labelled, partial)
        for i, (labelled, partial) in enumerate(
            [(("face",), ()), (("face", "person"), ()), (("face",), ("person",))]
        )
    )
    faces = tuple(Annotation(i, i, "face", (45, 20, 55, 32)) for i in range(3))
    crowd = Annotation(3, 0, "face", (0, 0, 50, 50), crowd=True)
    data = Dataset(images, (*faces, crowd))
    assert [len(wanted(image, data, PERSON)) for image in images] == [1, 0, 0]
    assert wanted(images[0], data, VEHICLE) == []
