"""Networks are built from settings, saved, read and exported."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from conf import ConfigError, compose, section  # noqa: E402
from training.bundle.export import all_finds, export_onnx, output_names  # noqa: E402
from training.bundle.parity import Answer, without_partner  # noqa: E402
from training.config import BackboneConfig, NetworkConfig, TrainingConfig  # noqa: E402
from training.errors import BackboneError, NetworkConfigError, TrainedNetworkError  # noqa: E402
from training.network.backbones import (  # noqa: E402
    PACKAGED,
    build_backbone,
    load_in_order,
    packaged_weights,
)
from training.network.rcnn import Network, build_network, load_network, save_network  # noqa: E402

CLASSES = {
    "mask_rcnn": ("face", "person", "license_plate", "vehicle"),
    "keypoint_rcnn": ("person",),
}


def restless(name: str, *, finds: bool) -> Network:
    """An untrained network whose scores vary, or whose scores are all next to nothing."""
    torch.manual_seed(0)
    config = NetworkConfig(backbone=BackboneConfig(channels=16))
    network = build_network(name, config, CLASSES[name]).eval()
    torch.nn.init.normal_(network.heads.box_predictor.scores.weight, std=0.2)
    torch.nn.init.constant_(network.heads.box_predictor.scores.bias, 0.0 if finds else -40.0)
    return network


@pytest.mark.parametrize("name", PACKAGED)
def test_the_packaged_weights_fit_the_backbone_one_by_one(name: str) -> None:
    pytest.importorskip(PACKAGED[name])
    body = build_backbone(BackboneConfig(name), pretrained=True).body
    state = packaged_weights(name)

    assert torch.equal(body.state_dict()["conv_stem.weight"], next(iter(state.values())))


def test_weights_of_another_shape_are_refused_by_name() -> None:
    layer = torch.nn.Linear(2, 3)

    with pytest.raises(BackboneError, match=r"toy: w has shape \(3, 5\); weight needs \(3, 2\)"):
        load_in_order(layer, {"w": torch.zeros(3, 5), "b": torch.zeros(3)}, origin="toy")


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v3_large", "timm/mobilenetv3_small_050"])
def test_every_kind_of_backbone_gives_a_pyramid(name: str) -> None:
    backbone = build_backbone(BackboneConfig(name=name, channels=8), pretrained=False)

    maps = backbone(torch.zeros(1, 3, 64, 96))

    sides = [tuple(level.shape[-2:]) for level in maps.values()]
    assert sides == [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]


@pytest.mark.parametrize(
    ("name", "message"),
    [("vgg", "backbone 'vgg' is unknown"), ("timm/nothing", "'nothing' is unknown to timm")],
)
def test_an_unknown_backbone_is_named(name: str, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        build_backbone(BackboneConfig(name=name), pretrained=False)


@pytest.mark.parametrize("name", ["mask_rcnn", "keypoint_rcnn"])
@pytest.mark.parametrize("finds", [True, False])
def test_the_exported_graph_finds_what_torch_finds(tmp_path: Path, name: str, finds: bool) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    network = restless(name, finds=finds)
    export_onnx(network, tmp_path / "graph.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "graph.onnx"))

    for height, width in ((256, 384), (320, 320), (416, 640)):
        image = torch.rand(1, 3, height, width)
        with torch.no_grad():
            expected = [value.numpy() for value in network.graph(image)]
        found = session.run(output_names(network), all_finds(network, image))
        assert (len(found[0]) > 0) == finds
        assert [f.shape for f in found] == [e.shape for e in expected]
        np.testing.assert_allclose(found[1], expected[1], atol=1e-4)
        if finds:
            assert same_finds(found, expected) >= 0.97


def same_finds(found: list[Any], expected: list[Any]) -> float:
    """Share of finds that the other has too, whatever order ties came in."""
    these, others = Answer(*found), Answer(*expected)
    missing = without_partner(these, others, score_min=0, tolerance=0.01)
    return 1 - len(missing) / len(these.scores)


@pytest.mark.parametrize("name", ["mask_rcnn", "keypoint_rcnn"])
def test_a_graph_told_what_is_wanted_draws_that_and_nothing_else(tmp_path: Path, name: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    network = restless(name, finds=True)
    export_onnx(network, tmp_path / "graph.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "graph.onnx"))
    feeds = all_finds(network, torch.rand(1, 3, 256, 384))
    everything = session.run(output_names(network), feeds)
    scores, labels = everything[1], everything[2]
    wanted = np.full(len(network.classes), np.median(scores), np.float32)
    wanted[0] = np.quantile(scores, 0.8)

    some = session.run(output_names(network), feeds | {"score_min": wanted})
    nothing = session.run(output_names(network), feeds | {"score_min": np.full_like(wanted, 1.1)})

    kept = scores >= wanted[labels]
    assert 0 < kept.sum() < len(kept)
    for found, whole in zip(some, everything, strict=True):
        np.testing.assert_allclose(found, whole[kept], atol=1e-5)
    assert [len(value) for value in nothing] == [0, 0, 0, 0]


def test_masks_are_drawn_of_the_classes_that_need_one(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    network = restless("mask_rcnn", finds=True)
    torch.nn.init.normal_(network.heads.box_predictor.scores.weight, std=0.02)
    export_onnx(network, tmp_path / "graph.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "graph.onnx"))
    feeds = all_finds(network, torch.rand(1, 3, 256, 384))
    draw = np.array([0, 1, 0, 1], np.float32)
    boxes, scores, labels, masks = session.run(output_names(network), feeds)

    some = session.run(output_names(network), feeds | {"draw": draw})
    none = session.run(output_names(network), feeds | {"draw": np.zeros_like(draw)})

    drawn = draw[labels] > 0
    assert 0 < drawn.sum() < len(drawn)
    for found, whole in zip(some, (boxes, scores, labels, masks[drawn]), strict=True):
        np.testing.assert_allclose(found, whole, atol=1e-5)
    assert [len(value) for value in none] == [len(labels)] * 3 + [0]


def test_a_saved_network_finds_the_same_when_read_again(tmp_path: Path) -> None:
    network = restless("mask_rcnn", finds=True)
    save_network(network, tmp_path)
    image = torch.rand(1, 3, 64, 96)

    with torch.no_grad():
        first, second = network.graph(image), load_network(tmp_path).graph(image)

    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_folder_with_broken_weights_is_refused_with_the_next_step(tmp_path: Path) -> None:
    save_network(restless("mask_rcnn", finds=True), tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"half")

    with pytest.raises(TrainedNetworkError, match=r"cannot be loaded.*Train again"):
        load_network(tmp_path)


@pytest.mark.parametrize("group", ["tiny", "small", "base", "large"])
def test_each_setting_in_conf_is_valid_and_survives_json(group: str) -> None:
    config = section(compose([f"training={group}"]), "training", TrainingConfig)

    again = NetworkConfig.from_dict(config.keypoint_rcnn.to_dict())

    assert again == config.keypoint_rcnn


@pytest.mark.slow
@pytest.mark.parametrize("group", ["tiny", "small", "base", "large"])
@pytest.mark.parametrize("name", ["mask_rcnn", "keypoint_rcnn"])
def test_each_setting_in_conf_builds_a_network(group: str, name: str) -> None:
    config = getattr(section(compose([f"training={group}"]), "training", TrainingConfig), name)

    network = build_network(name, config, CLASSES[name], pretrained=False).eval()

    with torch.no_grad():
        found = network.find(torch.zeros(1, 3, 96, 128))
    assert found[0].maps[0].shape[1:] == ((28, 28) if name == "mask_rcnn" else (17, 56, 56))


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("training.mask_rcnn.epochs=0", NetworkConfigError, "epochs is 0; expected 1 or more"),
        ("+training.mask_rcnn.lrr=1", ConfigError, "has no key 'lrr'"),
        ("training.mask_rcnn.lr=fast", ConfigError, "lr is 'fast'"),
        (
            "training.mask_rcnn.proposals.anchor_sizes=[8.0]",
            NetworkConfigError,
            "expected 5 sizes",
        ),
        ("training.mask_rcnn.backbone.strides=[8,32]", NetworkConfigError, "neighbours among"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(
    override: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        section(compose([override]), "training", TrainingConfig)

    assert "\n" not in str(caught.value)


def test_conf_states_every_setting() -> None:
    tree: dict[str, Any] = compose([])["training"]["mask_rcnn"]

    assert set(tree) == {f.name for f in dataclasses.fields(NetworkConfig)}


@pytest.mark.slow
def test_proposals_of_equal_rank_are_the_same_in_the_graph(tmp_path: Path) -> None:
    """A level whose features are dead ranks all of its places alike."""
    onnxruntime = pytest.importorskip("onnxruntime")
    network = restless("mask_rcnn", finds=True)
    torch.nn.init.zeros_(network.proposals.head.cls_logits.weight)
    torch.nn.init.normal_(network.proposals.head.bbox_pred.weight, std=0.1)
    export_onnx(network, tmp_path / "graph.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "graph.onnx"))
    image = torch.rand(1, 3, 192, 256)

    with torch.no_grad():
        expected = [value.numpy() for value in network.graph(image)]
    found = session.run(output_names(network), all_finds(network, image))

    assert len(found[0]) == len(expected[0]) > 0
    assert same_finds(found, expected) >= 0.97
