"""What is handed over is the bundle that was judged, with the verdict on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anonymization.bundle import Bundle, write_bundle
from anonymization.card import BundleError, Card, GraphCard, GraphInput
from anonymization.taxonomy import ClassSpec, Taxonomy
from evaluation.ship import ShipError, ship

TAXONOMY = Taxonomy({"face": ClassSpec(geometry="ellipse", shape="ellipse")})
NOTE = "for evaluation only"


def judged(folder: Path, outcome: str | None) -> Bundle:
    """Write a bundle, and a verdict beside it as the loop leaves it."""
    card = Card(
        taxonomy=TAXONOMY,
        thresholds=dict.fromkeys(TAXONOMY.names, 0.5),
        graphs={"mask_rcnn": GraphCard("mask_rcnn.onnx", "", GraphInput(64), TAXONOMY.names)},
        note=NOTE,
    )
    bundle = write_bundle(folder / "bundle", card, {"mask_rcnn": b"graph"})
    if outcome:
        (folder / "verdicts").mkdir()
        values = {"schema_version": 1, "outcome": outcome, "bundle_digest": bundle.digest}
        (folder / f"verdicts/{bundle.digest}.json").write_text(json.dumps(values))
    return bundle


def test_bundle_note_and_verdict_arrive_together(tmp_path: Path) -> None:
    source = judged(tmp_path, "PROMOTED")
    shipped = ship(source.path, tmp_path / "elsewhere/demo")
    assert shipped.digest == source.digest
    assert shipped.verdict is not None
    assert shipped.verdict.outcome == "PROMOTED"
    assert shipped.warning == f"Note: {NOTE}"
    again = ship(source.path, tmp_path / "elsewhere/demo")
    assert again.digest == source.digest


def test_a_refused_bundle_goes_out_only_by_name_and_says_so(tmp_path: Path) -> None:
    source = judged(tmp_path, "REFUSED")
    with pytest.raises(ShipError, match="--refused"):
        ship(source.path, tmp_path / "demo")
    assert not (tmp_path / "demo").exists()
    shipped = ship(source.path, tmp_path / "demo", refused=True)
    assert "was REFUSED" in str(shipped.warning)
    assert str(shipped.warning).endswith(f"Note: {NOTE}")


def test_a_bundle_that_nobody_judged_or_that_was_changed_stays(tmp_path: Path) -> None:
    source = judged(tmp_path, None)
    with pytest.raises(ShipError, match="no verdict"):
        ship(source.path, tmp_path / "demo", refused=True)
    (source.path / "mask_rcnn.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match="sha256"):
        ship(source.path, tmp_path / "demo", refused=True)


def test_a_note_is_one_line() -> None:
    with pytest.raises(BundleError, match="one line"):
        Card(taxonomy=TAXONOMY, thresholds={"face": 0.5}, graphs={}, note="a\nb")
