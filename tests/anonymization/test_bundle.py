"""Bundles are what their cards say, or are refused."""

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from anonymization.bundle import Bundle, VerdictError, write_bundle
from anonymization.card import BundleError, Card, TilingCard


def edit_card(bundle: Bundle, change: Callable[[dict[str, Any]], None]) -> None:
    path = bundle.path / "card.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def test_a_bundle_comes_back_as_it_was_written(constant_bundle: Bundle) -> None:
    again = Bundle.load(constant_bundle.path)
    assert again.card == constant_bundle.card
    assert again.digest == constant_bundle.digest
    assert Card.from_dict(json.loads(json.dumps(again.card.to_dict()))) == again.card


def test_the_digest_covers_card_and_graphs(make_bundle: Callable[..., Bundle]) -> None:
    first = make_bundle(folder="a")
    other_graph = make_bundle([([0.0, 0.0, 5.0, 5.0], 0.9, 0)], folder="b")
    other_card = make_bundle(folder="c", nms_iou=0.6)
    assert len({first.digest, other_graph.digest, other_card.digest}) == 3


def test_a_changed_graph_is_refused(constant_bundle: Bundle) -> None:
    with (constant_bundle.path / "mask_rcnn.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match="its card says"):
        Bundle.load(constant_bundle.path)


def test_a_missing_graph_is_refused(constant_bundle: Bundle) -> None:
    (constant_bundle.path / "mask_rcnn.onnx").unlink()
    with pytest.raises(BundleError, match=r"mask_rcnn\.onnx cannot be read"):
        Bundle.load(constant_bundle.path)


def test_a_file_that_the_card_does_not_list_is_refused(constant_bundle: Bundle) -> None:
    (constant_bundle.path / "weights.data").write_bytes(b"")
    with pytest.raises(BundleError, match=r"holds 'weights\.data'"):
        Bundle.load(constant_bundle.path)


@pytest.mark.parametrize("name", ["../mask_rcnn.onnx", "/etc/passwd", "sub/a.onnx", "..", ""])
def test_a_graph_outside_of_the_folder_is_refused(constant_bundle: Bundle, name: str) -> None:
    edit_card(constant_bundle, lambda card: card["graphs"]["mask_rcnn"].update(file=name))
    with pytest.raises(BundleError, match="not a plain file name"):
        Bundle.load(constant_bundle.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card.update(schema_version=2), "schema version 2; expected 1"),
        (lambda card: card.update(extra=1), "unknown key 'extra'"),
        (lambda card: card["head"].update(extra=1), "head has unknown key"),
        (lambda card: card["thresholds"].update(face=1.5), "threshold of face is 1.5"),
        (lambda card: card["thresholds"].pop("face"), "thresholds are given for"),
        (lambda card: card["graphs"]["mask_rcnn"].update(classes=["dog"]), "finds class 'dog'"),
        (lambda card: card["taxonomy"]["classes"].clear(), "taxonomy is wrong"),
        (lambda card: card.pop("graphs"), "cannot be read"),
    ],
)
def test_a_wrong_card_is_refused(
    constant_bundle: Bundle, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    edit_card(constant_bundle, change)
    with pytest.raises(BundleError, match=message):
        Bundle.load(constant_bundle.path)


def test_a_folder_without_a_card_is_refused(tmp_path: Any) -> None:
    with pytest.raises(BundleError, match="no usable card"):
        Bundle.load(tmp_path)
    with pytest.raises(BundleError, match="not a folder"):
        Bundle.load(tmp_path / "none")


def test_graphs_and_card_must_name_the_same_networks(constant_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"graphs \[\] were given"):
        write_bundle(constant_bundle.path, constant_bundle.card, {})


def verdict(bundle: Bundle, **values: Any) -> Bundle:
    content = {"schema_version": 1, "bundle_digest": bundle.digest, "outcome": "PROMOTED"}
    (bundle.path / "verdict.json").write_text(json.dumps(content | values))
    return Bundle.load(bundle.path)


def test_a_bundle_without_a_verdict_warns(constant_bundle: Bundle) -> None:
    assert "has no verdict" in str(constant_bundle.warning)


def test_a_promoted_bundle_does_not_warn(constant_bundle: Bundle) -> None:
    assert verdict(constant_bundle).warning is None


def test_a_refused_bundle_warns_with_its_recall(constant_bundle: Bundle) -> None:
    classes = {"face": {"detected": {"recall": 0.5}, "covered": {"recall": None}}}
    refused = verdict(constant_bundle, outcome="REFUSED", classes=classes)
    assert "face 0.500/unknown" in str(refused.warning)


def test_a_verdict_on_another_bundle_is_refused(constant_bundle: Bundle) -> None:
    with pytest.raises(VerdictError, match="judges bundle abc"):
        verdict(constant_bundle, bundle_digest="abc")


def test_an_unknown_outcome_is_refused(constant_bundle: Bundle) -> None:
    with pytest.raises(VerdictError, match="outcome is 'GOOD'"):
        verdict(constant_bundle, outcome="GOOD")


def test_a_dangling_link_is_refused(constant_bundle: Bundle) -> None:
    path = constant_bundle.path / "mask_rcnn.onnx"
    path.unlink()
    os.symlink("nowhere", path)
    with pytest.raises(BundleError, match="link to nothing"):
        Bundle.load(constant_bundle.path)


def test_a_card_without_tiling_keeps_the_digest_that_it_was_judged_under(
    make_bundle: Callable[..., Bundle],
) -> None:
    plain = make_bundle(folder="a")
    assert "tiling" not in plain.card.to_dict()
    tiled = make_bundle(folder="b", tiling=TilingCard(shrink_max=1.5, panorama="pano-8k"))
    assert tiled.card.tiling.shrink_max == 1.5
    assert Bundle.load(tiled.path).card == tiled.card
    other = make_bundle(folder="c", tiling=TilingCard(shrink_max=1.5, panorama="pano-16k"))
    assert len({plain.digest, tiled.digest, other.digest}) == 3
    assert "tile_shrink" not in tiled.card.to_dict()["tiling"]  # as cards were written without it
    finer = make_bundle(folder="d", tiling=TilingCard(shrink_max=1.5, tile_shrink=1.0))
    assert Bundle.load(finer.path).card.tiling.tile_shrink == 1.0


@pytest.mark.parametrize(
    ("tiling", "message"),
    [
        ({"shrink_max": 0}, r"tiling\.shrink_max is 0"),
        ({"shrink_max": True}, r"tiling\.shrink_max is True"),
        ({"overlap": 0.9}, r"tiling\.overlap is 0\.9"),
        ({"panorama": "pano-3k"}, r"tiling\.panorama: panorama preset is 'pano-3k'"),
        ({"tiles": 4}, "tiling has unknown key 'tiles'"),
        (4, "tiling is 4"),
    ],
)
def test_a_card_with_impossible_tiling_is_refused(
    constant_bundle: Bundle, tiling: object, message: str
) -> None:
    edit_card(constant_bundle, lambda card: card.update(tiling=tiling))
    with pytest.raises(BundleError, match=message):
        Bundle.load(constant_bundle.path)
