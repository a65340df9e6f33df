"""From trained networks to a bundle: parity on real photographs, goals, head regions."""

import json
from pathlib import Path

import numpy as np
import pytest

from anonymization.card import TilingCard
from anonymization.detection.detector import Detector
from anonymization.taxonomy import ClassSpec, Taxonomy
from conf.dependencies import code_of
from evaluation.bound import exact_lower
from evaluation.config import PromotionConfig
from training.bundle.__main__ import ParityError, check_parity, draft_bundle
from training.bundle.calibration import ClassEvidence
from training.bundle.config import BundleConfig, BundleConfigError
from training.bundle.parity import Answer, without_partner
from training.bundle.thresholds import goals_of, head_threshold
from training.work import AFTER_TRAINING, CODE

torch = pytest.importorskip("torch")

FACE = Taxonomy({"face": ClassSpec("ellipse", "ellipse")}, head_class="face")


def evidence(false_scores: list[float], pictures: int) -> ClassEvidence:
    empty = np.zeros(0)
    return ClassEvidence(
        empty, np.zeros((1, 0)), np.zeros(1), np.array(false_scores), empty, pictures
    )


def answer(*scores: float) -> Answer:
    n = len(scores)
    boxes = np.arange(4 * n, dtype=float).reshape(n, 4)
    return Answer(boxes, np.array(scores), np.zeros(n, int), np.zeros((n, 2, 2)))


def test_heads_get_the_lowest_threshold_within_their_share_of_false_finds() -> None:
    found = {"face": evidence([0.9, 0.6, 0.3], 20)}
    threshold = head_threshold(found, FACE, BundleConfig(head_false_finds_max=0.1))
    assert 0.3 < threshold < 0.31


def test_heads_without_a_picture_that_labels_every_face_keep_the_middle() -> None:
    assert head_threshold({"face": evidence([], 0)}, FACE, BundleConfig()) == 0.5


def test_a_class_with_too_few_reference_objects_aims_as_if_it_had_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reports").mkdir()
    counts = {"splits": {"reference": {"identifiable": {"face": 3}}}}
    (tmp_path / "reports/preparation.json").write_text(json.dumps(counts))
    monkeypatch.chdir(tmp_path)
    config = PromotionConfig()
    goal = goals_of({"face": evidence([], 0)}, BundleConfig(), config)["face"]
    assert goal.reference_objects == config.objects_min
    assert exact_lower(goal.needed, goal.reference_objects) >= 0.95
    assert exact_lower(goal.needed - 1, goal.reference_objects) < 0.95


def test_margins_that_do_not_ascend_are_refused() -> None:
    with pytest.raises(BundleConfigError, match=r"bundle.margins is \[0.2, 0.1\]"):
        BundleConfig(margins=[0.2, 0.1])


def test_equal_answers_in_another_order_agree() -> None:
    one = answer(0.9, 0.5)
    turned = Answer(one.boxes[::-1], one.scores[::-1], one.labels, one.maps)
    assert without_partner(one, turned, score_min=0.1, tolerance=0.01) == []


def test_a_find_that_the_other_lacks_is_named_unless_its_score_is_low() -> None:
    both, one = answer(0.9, 0.5), answer(0.9)
    assert without_partner(both, one, score_min=0.1, tolerance=0.01) == [1]
    assert without_partner(both, one, score_min=0.6, tolerance=0.01) == []


def test_only_code_that_training_runs_makes_it_train_again() -> None:
    needed = [Path(name).parts for name in code_of("training")]
    own = {path.name for path in CODE.iterdir() if path.suffix == ".py" or any(path.glob("*.py"))}
    unneeded = {name for name in own if not any(name in parts for parts in needed)}
    assert set(AFTER_TRAINING) == unneeded - {"__init__.py"}


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize("name", ["mask_rcnn", "keypoint_rcnn"])
def test_the_exported_graph_agrees_with_torch_on_real_photographs(
    realdata: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from training.config import BackboneConfig, NetworkConfig
    from training.network.rcnn import build_network, save_network

    torch.manual_seed(0)
    network = build_network(name, NetworkConfig(backbone=BackboneConfig(channels=16)), ["person"])
    network.eval()
    # Scores that vary but do not all round to 1, where ties would decide what is suppressed.
    torch.nn.init.normal_(network.heads.box_predictor.scores.weight, std=0.03)
    torch.nn.init.constant_(network.heads.box_predictor.scores.bias, -1.0)
    monkeypatch.chdir(tmp_path)
    folder = Path("artifacts/trained") / name
    folder.mkdir(parents=True)
    save_network(network, folder)
    (folder / "history.json").write_text('{"run_id": null}')
    Path("artifacts/prepared").mkdir()
    for split in ("train", "val"):
        Path(f"artifacts/prepared/{split}.json").write_text("{}")
    taxonomy = Taxonomy({"person": ClassSpec("mask", "outline")}, keypoint_class="person")
    config = BundleConfig(tiling=TilingCard(shrink_max=0.5))
    bundle = draft_bundle({name: network}, taxonomy, config, tmp_path, run_id=None)
    assert len(Detector.from_bundle(bundle).views(640, 480)) > 1
    pictures = sorted((realdata / "street_coco/images").iterdir())[:3]

    check_parity({name: network}, bundle, pictures, BundleConfig().parity_tolerance)
    torch.nn.init.constant_(network.heads.box_predictor.scores.bias, -0.8)
    with pytest.raises(ParityError, match=f"graph {name} and torch disagree"):
        check_parity({name: network}, bundle, pictures, BundleConfig().parity_tolerance)
