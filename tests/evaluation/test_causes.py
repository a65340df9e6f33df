"""Each missed object has one cause."""

import pytest

from anonymization.panorama.projection import Equirectangular
from evaluation.matching import NEITHER, RIGHT, WRONG
from evaluation.measures.causes import CAUSES, miss_causes
from evaluation.report.rows import FindRow, ObjectRow

PICTURE = "a" * 64
BOX = (100.0, 100.0, 200.0, 200.0)


def missed(**more: object) -> ObjectRow:
    values: dict[str, object] = {
        "sha256": PICTURE, "class_name": "person", "annotation_id": 1, "cluster": "1",
        "box_xyxy": BOX, "counted": True, "crowd": False, "side_px": 100.0, "detected_at": None,
        "detected": False, "share": 0.0, "written_share": None, "covered": False,
    }  # fmt: skip
    return ObjectRow(**values | more)  # type: ignore[arg-type]


def find(x0: float, *, name: str = "person", state: int = WRONG, picture: str = PICTURE) -> FindRow:
    """A find as large as the object, moved aside: at 110 its IoU is 0.82, at 160 it is 0.25."""
    return FindRow(picture, name, 0.3, (x0, 100.0, x0 + 100, 200.0), "mask_rcnn", state)


@pytest.mark.parametrize(
    ("finds", "cause"),
    [
        ([], "unseen"),
        ([find(195)], "unseen"),
        ([find(110, picture="b" * 64)], "unseen"),
        ([find(160)], "location"),
        ([find(110)], "outline"),
        ([find(110, state=NEITHER)], "outline"),
        ([find(110, state=RIGHT)], "shared"),
        ([find(110, state=RIGHT), find(112)], "outline"),
        ([find(110, name="vehicle")], "other_class"),
        ([find(160, name="vehicle")], "unseen"),
        ([find(160), find(110, name="vehicle")], "location"),
    ],
)
def test_a_miss_has_the_cause_of_the_closest_find(finds: list[FindRow], cause: str) -> None:
    assert miss_causes([missed()], finds, {}) == dict.fromkeys(CAUSES, 0) | {cause: 1}


def test_what_a_lower_threshold_detects_is_below_the_threshold() -> None:
    causes = miss_causes([missed(detected_at=0.1)], [find(110)], {})
    assert causes["below_threshold"] == sum(causes.values()) == 1


def test_only_missed_objects_that_count_have_a_cause() -> None:
    rows = [missed(detected=True, detected_at=0.9), missed(counted=False)]
    assert sum(miss_causes(rows, [], {}).values()) == 0


def test_a_find_beyond_the_seam_of_a_panorama_is_near() -> None:
    panorama = Equirectangular.of_size(400, 200)
    row = missed(box_xyxy=(350.0, 100.0, 450.0, 200.0))
    beyond = [find(-40)]
    assert miss_causes([row], beyond, {})["unseen"] == 1
    assert miss_causes([row], beyond, {PICTURE: panorama})["outline"] == 1
