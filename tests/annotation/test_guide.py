"""The pictures of the instructions: drawn, on both sides of the limit."""

from __future__ import annotations

import pytest
from PIL import Image

from annotation.guide import draw_guide
from anonymization.taxonomy import ClassSpec, Taxonomy


@pytest.mark.slow
def test_each_drawn_class_is_shown_above_and_below_its_limit(tmp_path):
    face = ClassSpec(
        geometry="ellipse", shape="ellipse", identifiable_side="width", identifiable_px=16
    )
    taxonomy = Taxonomy({"face": face, "dog": ClassSpec(geometry="mask", shape="outline")})
    found = draw_guide(tmp_path / "guide", taxonomy)
    assert found == {"face": ("face-identifiable.png", "face-not-identifiable.png")}
    for name in found["face"]:
        assert max(Image.open(tmp_path / "guide" / name).size) > 60
    assert draw_guide(tmp_path / "guide", taxonomy) == found
