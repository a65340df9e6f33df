"""One network with a mask head and a keypoint head: one backbone, one graph, one pass."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")

from anonymization.bundle import Bundle, write_bundle  # noqa: E402
from anonymization.card import Card, HeadCard  # noqa: E402
from anonymization.detection.detector import Detector  # noqa: E402
from anonymization.detection.finds import box_iou  # noqa: E402
from anonymization.taxonomy import KEYPOINT_NAMES, ClassSpec, Taxonomy  # noqa: E402
from conf import compose, section  # noqa: E402
from data.coco import Annotation, Dataset, Image, mask_to_rle  # noqa: E402
from data.tracking.store import TrackingConfig  # noqa: E402
from training.bundle.__main__ import (  # noqa: E402
    ParityError,
    check_parity,
    graph_card,
    load_networks,
)
from training.bundle.config import BundleConfigError  # noqa: E402
from training.bundle.export import all_finds, export_onnx, output_names  # noqa: E402
from training.config import (  # noqa: E402
    AugmentationConfig,
    BackboneConfig,
    HeadConfig,
    InputConfig,
    LoadingConfig,
    NetworkConfig,
    OptimizerConfig,
    RecallConfig,
    TrainingConfig,
)
from training.errors import NetworkConfigError, TrainingDataError  # noqa: E402
from training.network.rcnn import Network, build_network, load_network, save_network  # noqa: E402
from training.pictures.loading import Pictures  # noqa: E402
from training.run import fit, train  # noqa: E402

TAXONOMY = Taxonomy(
    {"face": ClassSpec("ellipse", "ellipse"), "person": ClassSpec("mask", "outline")},
    keypoint_class="person",
    head_class="face",
)
FACE, PERSON = 0, 1
SIZE = (96, 128)


def joint_config(**changes: Any) -> NetworkConfig:
    config = NetworkConfig(
        joint=True,
        backbone=BackboneConfig(channels=32, frozen_stride=4),
        heads=HeadConfig(
            box_features=64, samples=32, mask_channels=[32], keypoint_channels=[32, 32]
        ),
        input=InputConfig(long_side=SIZE[1]),
    )
    return replace(config, **changes)


def joint_network(**changes: Any) -> Network:
    torch.manual_seed(0)
    config = joint_config(**changes)
    return build_network("mask_rcnn", config, TAXONOMY.names, keypoint_class="person")


def restless(*, bias: float) -> Network:
    """An untrained network whose scores vary about that of a bias."""
    network = joint_network().eval()
    torch.nn.init.normal_(network.heads.box_predictor.scores.weight, std=0.05)
    torch.nn.init.constant_(network.heads.box_predictor.scores.bias, bias)
    torch.nn.init.normal_(network.heads.keypoint_predictor.kps_score_lowres.weight, std=0.1)
    return network


def drawn_person(x: int, y: int) -> tuple[np.ndarray, np.ndarray, Annotation, Annotation]:
    """A red coat and a face with eyes on gray: picture, outline, person and face."""
    pixels = np.random.default_rng(x).integers(60, 90, (*SIZE, 3)).astype(np.uint8)
    outline = np.zeros(SIZE, np.uint8)
    cv2.rectangle(outline, (x, y + 22), (x + 31, y + 71), 1, -1)
    pixels[outline > 0] = (200, 30, 40)
    cv2.circle(outline, (x + 16, y + 12), 12, 1, -1)
    cv2.circle(pixels, (x + 16, y + 12), 12, (230, 190, 160), -1)
    points = {"nose": (16, 14), "left_eye": (21, 10), "right_eye": (11, 10)}
    points |= {"left_ear": (27, 12), "right_ear": (5, 12)}
    # Shoulders bound the width of a face, and points that no picture labels may lie anywhere.
    points |= {"left_shoulder": (29, 27), "right_shoulder": (3, 27)}
    for name in ("left_eye", "right_eye"):
        cv2.circle(pixels, (x + points[name][0], y + points[name][1]), 2, (20, 20, 20), -1)
    keypoints = tuple(
        (x + points[n][0], y + points[n][1], 2) if n in points else (0.0, 0.0, 0)
        for n in KEYPOINT_NAMES
    )
    person = Annotation(
        0, 0, "person", (x, y, x + 32, y + 72), mask_to_rle(outline > 0), keypoints=keypoints
    )
    return pixels, outline, person, Annotation(1, 0, "face", (x + 4, y, x + 29, y + 25))


def bundle_of(network: Network, folder: Path) -> Bundle:
    export_onnx(network, folder / "graph.onnx")
    thresholds = dict.fromkeys(TAXONOMY.names, 0.5)
    card = Card(TAXONOMY, thresholds, {"mask_rcnn": graph_card(network)}, HeadCard(threshold=0.5))
    return write_bundle(folder / "bundle", card, {"mask_rcnn": folder / "graph.onnx"})


def pictures_of(data: Dataset, folder: Path, config: NetworkConfig) -> Pictures:
    return Pictures(
        data,
        data,
        folder,
        network="mask_rcnn",
        classes=TAXONOMY.names,
        taxonomy=TAXONOMY,
        config=config,
        seed=1,
    )


def target(labels: Sequence[int], *, posed: Sequence[bool]) -> dict[str, Any]:
    count = len(labels)
    return {
        "boxes": torch.tensor([[10.0, 10.0, 50.0, 60.0], [60.0, 20.0, 90.0, 80.0]])[:count],
        "labels": torch.tensor(labels),
        "labelled": torch.ones(len(TAXONOMY.names), dtype=torch.bool),
        "ignored_boxes": torch.zeros(0, 4),
        "ignored_labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.ones((count, *SIZE), dtype=torch.uint8),
        "has_mask": torch.ones(count, dtype=torch.bool),
        "keypoints": torch.tensor([30.0, 30.0, 2.0]).expand(count, 17, 3),
        "has_keypoint": torch.tensor(posed),
    }


def gradients(network: Network, labels: dict[str, Any]) -> tuple[dict[str, float], float]:
    """Losses of a picture, and the gradients that reach the keypoint head."""
    torch.manual_seed(0)
    network.zero_grad()
    losses = network(torch.rand(1, 3, *SIZE), [labels])
    torch.stack(list(losses.values())).sum().backward()
    named = network.heads.named_parameters()
    reached = sum(p.grad.abs().sum().item() for n, p in named if n.startswith("keypoint_"))
    return {name: value.item() for name, value in losses.items()}, reached


@pytest.mark.parametrize("experiment", [None, "smoke", "coco_sets"])
def test_the_setting_is_one_network_whatever_experiment_is_chosen(experiment: str | None) -> None:
    chosen = [f"+experiment={experiment}"] if experiment else []

    config = section(compose(["training=joint", *chosen]), "training", TrainingConfig)

    assert config.mask_rcnn.maps("mask_rcnn") == ("mask", "keypoint")
    assert config.mask_rcnn.trained
    assert not config.keypoint_rcnn.trained


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.mask_rcnn.joint=true"], r"keypoint_rcnn.trained is True; expected false where"),
        (["training.keypoint_rcnn.joint=true"], r"keypoint_rcnn.joint is True; expected false: "),
    ],
)
def test_two_signals_from_keypoints_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(NetworkConfigError, match=message):
        section(compose(overrides), "training", TrainingConfig)


def test_a_joint_network_needs_a_class_that_has_keypoints() -> None:
    with pytest.raises(NetworkConfigError, match="joint is true, but the class with keypoints"):
        build_network("mask_rcnn", joint_config(), ["face"], keypoint_class="person")


def test_a_network_that_is_left_out_leaves_a_record_and_no_bundle_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    left_out = NetworkConfig(trained=False)
    train("keypoint_rcnn", left_out, taxonomy=TAXONOMY, tracking=TrackingConfig(), seed=1)
    trained = tmp_path / "artifacts/trained/mask_rcnn"
    trained.mkdir()
    save_network(joint_network(), trained)

    assert list(load_networks(["mask_rcnn", "keypoint_rcnn"])) == ["mask_rcnn"]
    with pytest.raises(BundleConfigError, match="but training leaves them out"):
        load_networks(["keypoint_rcnn"])


def test_pictures_without_any_keypoints_are_refused(tmp_path: Path) -> None:
    _, _, person, face = drawn_person(14, 8)
    image = Image(0, "0" * 64, "0.png", SIZE[1], SIZE[0], TAXONOMY.names)
    data = Dataset((image,), (replace(person, keypoints=None), face))

    with pytest.raises(TrainingDataError, match="no training picture has keypoints"):
        pictures_of(data, tmp_path, joint_config())


def test_only_objects_with_keypoints_move_the_keypoint_head() -> None:
    network = joint_network().train()

    without, unmoved = gradients(network, target([PERSON, FACE], posed=[False, False]))
    with_points, moved = gradients(network, target([PERSON, FACE], posed=[True, False]))

    assert without["keypoint"] == unmoved == 0
    assert without["mask"] > 0
    assert with_points["keypoint"] > 0
    assert moved > 0


def test_heat_maps_are_of_the_persons_among_the_finds_of_each_picture() -> None:
    network = restless(bias=0.0)
    images = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))

    with torch.no_grad():
        both = network.find(images)
        alone = network.find(images[1:])[0]

    for found in both:
        persons = int((found.labels == PERSON).sum())
        assert 0 < persons < len(found.labels)
        assert found.maps[0].shape == (len(found.labels), 28, 28)
        assert found.maps[1].shape == (persons, 17, 56, 56)
    assert torch.allclose(both[1].maps[1], alone.maps[1], atol=1e-3)


def test_a_saved_joint_network_finds_the_same_when_read_again(tmp_path: Path) -> None:
    network = restless(bias=0.0)
    save_network(network, tmp_path)
    image = torch.rand(1, 3, *SIZE)

    with torch.no_grad():
        first, second = network.graph(image), load_network(tmp_path).graph(image)

    assert len(first) == 5
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_graph_is_compared_with_torch_keypoints_included(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    network = restless(bias=-1.0)
    bundle = bundle_of(network, tmp_path)
    pictures = [tmp_path / "one.png", tmp_path / "two.png"]
    for path, x in zip(pictures, (10, 60), strict=True):
        cv2.imwrite(str(path), drawn_person(x, 12)[0][..., ::-1])

    check_parity({"mask_rcnn": network}, bundle, pictures, 0.01)
    assert list(bundle.card.graphs["mask_rcnn"].outputs) == output_names(network)
    assert output_names(network)[3:] == ["masks", "heatmaps"]

    with torch.no_grad():
        network.heads.keypoint_predictor.kps_score_lowres.weight.neg_()
    with pytest.raises(ParityError, match="graph mask_rcnn and torch disagree"):
        check_parity({"mask_rcnn": network}, bundle, pictures, 0.01)


@pytest.mark.parametrize("masked", [(0, 1), (1, 0), (0, 0)])
def test_heat_maps_come_whatever_masks_are_asked_for(
    tmp_path: Path, masked: tuple[int, int]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    network = restless(bias=0.0)
    export_onnx(network, tmp_path / "graph.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "graph.onnx"))
    feeds = all_finds(network, torch.rand(1, 3, *SIZE))
    draw = np.zeros(len(network.classes), np.float32)
    draw[[FACE, PERSON]] = masked
    *_, labels, masks, heatmaps = session.run(output_names(network), feeds)

    *_, same, some, posed = session.run(output_names(network), feeds | {"draw": draw})

    assert 0 < (labels == PERSON).sum() < len(labels)
    np.testing.assert_array_equal(same, labels)
    np.testing.assert_allclose(some, masks[draw[labels] > 0], atol=1e-5)
    np.testing.assert_allclose(posed, heatmaps, atol=1e-4)


def test_a_graph_that_finds_nobody_returns_no_heat_map(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    bundle = bundle_of(restless(bias=-40.0), tmp_path)

    found = Detector.from_bundle(bundle).detect(drawn_person(10, 12)[0], score_min=0.02)

    assert len(found) == 0


@pytest.mark.slow
def test_two_drawn_pictures_are_learned_and_heads_come_from_the_same_pass(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    images, annotations, faces, shown = [], [], [], []
    for number, (x, y) in enumerate([(14, 8), (72, 16)]):
        pixels, _, person, face = drawn_person(x, y)
        cv2.imwrite(str(tmp_path / f"{number}.png"), pixels[..., ::-1])
        images.append(
            Image(number, f"{number:064d}", f"{number}.png", SIZE[1], SIZE[0], TAXONOMY.names)
        )
        for thing in (person, face):
            annotations.append(replace(thing, id=len(annotations), image_id=number))
        faces.append(face.box_xyxy)
        shown.append(pixels)
    data = Dataset(tuple(images), tuple(annotations))
    config = joint_config(
        augmentation=AugmentationConfig(
            0, 1, 1, scale_first=1, light=0, colour=0, gray=0, blur=0, noise=0, compression=0
        ),
        optimizer=OptimizerConfig(warmup_steps=10, ema_decay=0),
        loading=LoadingConfig(batch_size=2, workers=0, cache_mb=50),
        recall=RecallConfig(every_epochs=0),
        epochs=100,
        lr=2e-3,
        trainer={"enable_progress_bar": False, "accelerator": "cpu"},
    )
    pictures = pictures_of(data, tmp_path, config)
    module, course = fit(
        "mask_rcnn", config, pictures, work=tmp_path, seed=1, on_metrics=lambda *_, **__: None
    )
    detector = Detector.from_bundle(bundle_of(module.network.eval(), tmp_path))

    assert course.rows[-1]["losses"]["keypoint"] < course.rows[0]["losses"]["keypoint"] / 2
    for pixels, face in zip(shown, faces, strict=True):
        found = detector.detect(pixels, score_min=0.5)
        heads = found.select(np.array([s == "keypoint_rcnn" for s in found.sources]))
        overlap = box_iou(heads.boxes_xyxy, np.array([face], np.float32))
        assert overlap.max() >= 0.5
        assert set(heads.class_ids) == {FACE}
        assert (found.class_ids == PERSON).any()
        merged = detector.detect(pixels)
        assert np.isfinite(merged.merged_xyxy).any(), "face class and head made one find"


@pytest.mark.slow
@pytest.mark.xdist_group("turned")
def test_the_loop_makes_a_bundle_of_one_graph_under_dvc(turned: Any) -> None:
    turned.edit("conf/config.yaml", "- training: tiny", "- training: joint")
    turned.dvc("repro", "bundle")

    card = json.loads(turned.read("artifacts/bundle/card.json"))
    record = json.loads(turned.read("artifacts/trained/keypoint_rcnn/network.json"))
    course = json.loads(turned.read("artifacts/trained/mask_rcnn/history.json"))["epochs"]
    assert list(card["graphs"]) == ["mask_rcnn"]
    assert "heatmaps" in card["graphs"]["mask_rcnn"]["outputs"]
    assert record["trained"] is False
    assert course[0]["losses"]["keypoint"] > 0
