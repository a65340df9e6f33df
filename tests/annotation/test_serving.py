"""What browsers are given to show, and which of two tasks of a picture goes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from annotation.client import TaskRow
from annotation.pull import without_duplicates
from annotation.serving import SHOWN, Serving, _forget_gone
from data.layout import PICTURES


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    PICTURES.mkdir(parents=True)
    SHOWN.mkdir(parents=True)


def test_what_no_browser_shows_is_served_as_an_upright_png() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    tifffile.imwrite(PICTURES / "a.tif", pixels, photometric="rgb")
    Image.fromarray(pixels).save(PICTURES / "b.png")
    serving = Serving("local_files", Path("artifacts").resolve())
    address = serving.address("a.tif")
    assert address == "/data/local-files/?d=.work/shown/a.png"
    np.testing.assert_array_equal(np.asarray(Image.open(SHOWN / "a.png")), pixels)
    assert serving.address("b.png") == "/data/local-files/?d=collected/pictures/b.png"


def test_the_copy_goes_with_its_picture() -> None:
    for name in ("a.tif", "b.jp2"):
        (PICTURES / name).write_bytes(b"")
        (SHOWN / name).with_suffix(".png").write_bytes(b"")
    (PICTURES / "a.tif").unlink()
    _forget_gone()
    assert [path.name for path in SHOWN.iterdir()] == ["b.png"]


def test_out_of_a_store_what_no_browser_shows_cannot_be_shown() -> None:
    serving = Serving("s3://bucket/pictures", Path("artifacts"))
    assert not serving.can_show("a.jp2")
    assert serving.can_show("a.jpg")
    assert Serving("local_files", Path("artifacts")).can_show("a.jp2")
    assert serving.address("a.jpg") == "s3://bucket/pictures/a.jpg"


class Tasks:
    """A server that knows of drafts and counts what is deleted."""

    def __init__(self, drafted: set[int]) -> None:
        self.drafted = drafted
        self.deleted: list[int] = []
        self.asked: list[int] = []

    def has_drafts(self, task: int) -> bool:
        self.asked.append(task)
        return task in self.drafted

    def delete_task(self, task: int) -> None:
        self.deleted.append(task)


@pytest.mark.parametrize(
    ("drafted", "kept", "deleted"),
    [(set(), 1, [2]), ({2}, 2, [1]), ({1, 2}, 1, [])],
)
def test_a_second_task_goes_unless_somebody_has_begun_to_draw_on_it(
    drafted: set[int], kept: int, deleted: list[int]
) -> None:
    alone = TaskRow(3, {"sha256": "b" * 64}, 0, 0)
    rows = [TaskRow(1, {"sha256": "a" * 64}, 0, 0), TaskRow(2, {"sha256": "a" * 64}, 0, 0), alone]
    server = Tasks(drafted)
    left = without_duplicates(server, rows)  # type: ignore[arg-type]
    assert [row.id for row in left] == sorted([kept, 3])
    assert server.deleted == deleted
    assert 3 not in server.asked
