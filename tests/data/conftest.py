"""Small COCO sets drawn on the spot, and the steps run on them in a temporary folder."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anonymization.taxonomy import ClassSpec, Taxonomy
from data.collection import State, collect
from data.sources.opening import CollectionConfig, open_sources
from data.survey import survey


@pytest.fixture
def taxonomy() -> Taxonomy:
    """Two classes, one with an alias."""
    return Taxonomy(
        {
            "person": ClassSpec(geometry="mask", shape="outline", identifiable_px=10),
            "vehicle": ClassSpec(geometry="mask", shape="outline", aliases=["car", "truck"]),
        },
        keypoint_class="person",
    )


def picture_bytes(seed: int, *, size: tuple[int, int] = (80, 64), kind: str = "PNG") -> bytes:
    """Draw a picture of random blocks, unlike that of any other seed."""
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def draw() -> Callable[..., bytes]:
    """Return `picture_bytes`."""
    return picture_bytes


@pytest.fixture
def coco_set(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a COCO set of pictures with one person each."""

    def write(seeds: list[int], *, name: str = "first", **changes: Any) -> Path:
        root = tmp_path / "sets" / name
        (root / "images").mkdir(parents=True, exist_ok=True)
        for seed in seeds:
            (root / f"images/{seed}.png").write_bytes(picture_bytes(seed))
        values: dict[str, Any] = {
            "info": {"labelled": ["person"]},
            "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}],
            "images": [
                {"id": n, "file_name": f"images/{n}.png", "width": 80, "height": 64} for n in seeds
            ],
            "annotations": [
                {"id": n, "image_id": n, "category_id": 1, "bbox": [5, 6, 20, 30]} for n in seeds
            ],
        }
        values.update(changes)
        (root / "annotations.json").write_text(json.dumps(values))
        return root

    return write


@pytest.fixture
def collected(
    tmp_path: Path, taxonomy: Taxonomy, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., State]:
    """Return a function that surveys and collects COCO sets in a temporary working folder."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)

    def run(kind: str = "coco_sets", root: Path | None = None, **settings: Any) -> State:
        config = CollectionConfig(kind=kind, root=str(root or tmp_path / "sets"), **settings)
        return collect(open_sources(config), survey(config), taxonomy)

    return run
