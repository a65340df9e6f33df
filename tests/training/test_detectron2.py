"""Backbones of detectron2 train, start from weights and export as the others do."""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pl = pytest.importorskip("pytorch_lightning")

from conf import compose, section  # noqa: E402
from training.bundle.export import all_finds, export_onnx, output_names  # noqa: E402
from training.bundle.parity import Answer, without_partner  # noqa: E402
from training.config import (  # noqa: E402
    BackboneConfig,
    HeadConfig,
    NetworkConfig,
    ProposalConfig,
    TrainingConfig,
)
from training.errors import BackboneError, NetworkConfigError  # noqa: E402
from training.module import TrainingModule  # noqa: E402
from training.network.backbones import build_backbone  # noqa: E402
from training.network.detectron2_backbone import read_weights, zoo_config  # noqa: E402
from training.network.rcnn import Network, build_network, load_network, save_network  # noqa: E402

MASK_R50 = "detectron2/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x"
MASK_R101 = "detectron2/COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x"
MASK_X101 = "detectron2/COCO-InstanceSegmentation/mask_rcnn_X_101_32x8d_FPN_3x"
KEYPOINT_R50 = "detectron2/COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x"
CLASSES = {
    "mask_rcnn": ("face", "person", "license_plate", "vehicle"),
    "keypoint_rcnn": ("person",),
}
FACE, PERSON = 0, 1

with_detectron2 = pytest.mark.skipif(
    find_spec("detectron2") is None, reason="detectron2 is not installed (docs/detectron2.md)"
)
pytestmark = pytest.mark.slow  # importing detectron2 alone takes seconds


def thin(name: str = MASK_R50, **backbone: Any) -> NetworkConfig:
    """A real body with a thin pyramid and thin heads, at random unless said otherwise."""
    values = {"pretrained": False, "channels": 16} | backbone
    return NetworkConfig(
        backbone=BackboneConfig(name=name, **values),
        proposals=ProposalConfig(pre_nms_train=50, post_nms_train=50),
        heads=HeadConfig(
            box_features=32, samples=32, mask_channels=[16, 16], keypoint_channels=[16, 16]
        ),
    )


def calm(network: Network, *, finds: bool = True) -> Network:
    """Give an untrained network scales that random convolutions stay finite with, and scores."""
    generator = torch.Generator().manual_seed(1)
    for module in network.backbone.modules():
        if type(module).__name__ == "FrozenBatchNorm2d":
            module.weight.fill_(0.3)
            module.running_mean.copy_(torch.rand(module.bias.shape, generator=generator) * 0.1)
    torch.nn.init.normal_(network.heads.box_predictor.scores.weight, std=0.2, generator=generator)
    torch.nn.init.constant_(network.heads.box_predictor.scores.bias, 0.0 if finds else -40.0)
    return network


@pytest.fixture
def without_detectron2(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [m for m in sys.modules if m.split(".")[0] == "detectron2"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "detectron2", None)


def test_without_detectron2_one_line_says_how_to_install_it(without_detectron2: None) -> None:
    with pytest.raises(
        BackboneError, match=r"cannot be imported.*--no-build-isolation.*docs/detectron2.md"
    ) as caught:
        build_backbone(BackboneConfig(name=MASK_R50), pretrained=False)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"name": "resnet50", "weights": "r50.pkl"}, "torchvision's start does not read it"),
        ({"name": MASK_R50, "weights": "r50.pkl", "pretrained": False}, "it would have no effect"),
    ],
)
def test_weights_without_effect_are_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(NetworkConfigError, match=r"backbone.weights is 'r50.pkl'; expected ''"):
        BackboneConfig(**values)


def test_the_setting_in_conf_is_valid_and_survives_json() -> None:
    config = section(compose(["training=detectron2"]), "training", TrainingConfig)

    for network in (config.mask_rcnn, config.keypoint_rcnn):
        assert network.backbone.name.startswith("detectron2/COCO-")
        assert NetworkConfig.from_dict(network.to_dict()) == network


@with_detectron2
@pytest.mark.parametrize("name", [MASK_R50, MASK_R101, MASK_X101, KEYPOINT_R50])
def test_a_configuration_of_the_model_zoo_gives_a_pyramid(name: str) -> None:
    backbone = build_backbone(BackboneConfig(name=name, channels=8), pretrained=False)

    maps = backbone(torch.zeros(1, 3, 64, 96))

    assert backbone.strides == (4, 8, 16, 32, 64)
    assert list(maps) == ["0", "1", "2", "3", "pool"]
    sides = [tuple(level.shape[1:]) for level in maps.values()]
    assert sides == [(8, 16, 24), (8, 8, 12), (8, 4, 6), (8, 2, 3), (8, 1, 2)]


@with_detectron2
def test_a_pyramid_may_leave_levels_out() -> None:
    config = BackboneConfig(name=MASK_R50, channels=8, strides=[8, 16])

    maps = build_backbone(config, pretrained=False)(torch.zeros(1, 3, 64, 96))

    assert [tuple(level.shape[-2:]) for level in maps.values()] == [(8, 12), (4, 6), (2, 3)]


@with_detectron2
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("detectron2/nothing", "is not in detectron2's model zoo"),
        ("detectron2/COCO-InstanceSegmentation/mask_rcnn_R_50_C4_3x", "no pyramid over a plain"),
        ("detectron2/Misc/mask_rcnn_R_50_FPN_3x_dconv_c3-c5", "no pyramid over a plain"),
    ],
)
def test_a_configuration_that_does_not_fit_is_named(name: str, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        build_backbone(BackboneConfig(name=name), pretrained=False)


def detectron2s_own(network: Network, cfg: Any) -> Any:
    """The pyramid as detectron2 builds it, with the same weights."""
    from detectron2.modeling import build_backbone as build

    pyramid = build(cfg).eval()
    pyramid.load_state_dict(network.backbone.body.state_dict())
    return pyramid


@with_detectron2
@pytest.mark.parametrize("name", [MASK_R50, MASK_X101])
def test_the_body_sees_bgr_as_detectron2_prepares_it(name: str) -> None:
    network = calm(build_network("mask_rcnn", thin(name), CLASSES["mask_rcnn"])).eval()
    cfg = zoo_config(network.config.backbone)
    pyramid = detectron2s_own(network, cfg)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)  # RGB
    theirs = (pixels[:, :, ::-1] - np.array(cfg.MODEL.PIXEL_MEAN)) / np.array(cfg.MODEL.PIXEL_STD)
    ours = torch.tensor(pixels).permute(2, 0, 1)[None] / 255

    with torch.no_grad():
        expected = pyramid(torch.tensor(theirs).permute(2, 0, 1)[None].float())
        maps = network.backbone((ours - network.pixel_mean) / network.pixel_std)

    assert cfg.INPUT.FORMAT == "BGR"
    for level, other in zip(maps.values(), expected.values(), strict=True):
        torch.testing.assert_close(level, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))


def target(labelled: str, *, size: tuple[int, int] = (64, 96)) -> dict[str, Any]:
    """A person; `labelled` has a 1 per completely labelled class."""
    return {
        "boxes": torch.tensor([[10.0, 10.0, 50.0, 60.0]]),
        "labels": torch.tensor([PERSON if len(labelled) > 1 else 0]),
        "labelled": torch.tensor([c == "1" for c in labelled]),
        "ignored_boxes": torch.zeros(0, 4),
        "ignored_labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.ones((1, *size), dtype=torch.uint8),
        "has_mask": torch.ones(1, dtype=torch.bool),
        "keypoints": torch.full((1, 17, 3), 30.0),
        "has_keypoint": torch.ones(1, dtype=torch.bool),
    }


def face_gradients(network: Network) -> float:
    """Sum of absolute gradients that reach what scores faces."""
    weight = network.proposals.head.cls_logits.weight
    objectness = weight.grad.reshape(network.proposals.num_anchors, 4, -1)[:, FACE]
    scores = network.heads.box_predictor.scores.weight.grad[FACE]
    return float(objectness.abs().sum() + scores.abs().sum())


@with_detectron2
def test_a_picture_whose_faces_were_never_labelled_moves_nothing_that_scores_faces() -> None:
    torch.manual_seed(0)
    network = calm(build_network("mask_rcnn", thin(), CLASSES["mask_rcnn"])).train()
    moved = []
    for labelled in ("0111", "1111"):
        network.zero_grad()
        losses = network(torch.rand(1, 3, 64, 96), [target(labelled)])
        assert all(torch.isfinite(value) for value in losses.values())
        torch.stack(list(losses.values())).sum().backward()
        moved.append(face_gradients(network))

    assert moved[0] == 0
    assert moved[1] > 0
    stem = network.backbone.body.bottom_up.stem.conv1.weight
    assert float(stem.grad.abs().sum()) > 0


class Batches(torch.utils.data.Dataset[Any]):
    """Four times the same batch, so that its loss must fall."""

    def __init__(self, labelled: str) -> None:
        images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
        self.batch = {"images": images, "targets": [target(labelled)], "names": ["drawn"]}

    def __len__(self) -> int:
        return 4

    def __getitem__(self, _: int) -> dict[str, Any]:
        return self.batch


@with_detectron2
@pytest.mark.parametrize(
    ("name", "backbone"), [("mask_rcnn", MASK_R50), ("keypoint_rcnn", KEYPOINT_R50)]
)
def test_the_lightning_module_trains_it(name: str, backbone: str) -> None:
    torch.manual_seed(0)
    network = calm(build_network(name, thin(backbone), CLASSES[name]))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    seen: list[float] = []

    class Losses(pl.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
            seen.append(float(outputs["loss"]))

    batches = Batches("0111" if name == "mask_rcnn" else "1")
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Losses()],
    )
    trainer.fit(
        TrainingModule(network, seed=0), torch.utils.data.DataLoader(batches, batch_size=None)
    )

    after = network.state_dict()
    assert np.isfinite(seen).all()
    assert np.mean(seen[-4:]) < np.mean(seen[:4])
    assert not torch.equal(
        after["backbone.body.bottom_up.res5.0.conv1.weight"],
        before["backbone.body.bottom_up.res5.0.conv1.weight"],
    )
    frozen = "backbone.body.bottom_up.res5.0.conv1.norm.running_mean"
    assert torch.equal(after[frozen], before[frozen])


@with_detectron2
@pytest.mark.parametrize(
    ("name", "backbone", "finds"),
    [
        ("mask_rcnn", MASK_R50, True),
        ("mask_rcnn", MASK_R50, False),
        ("keypoint_rcnn", KEYPOINT_R50, True),
    ],
)
def test_the_exported_graph_finds_what_torch_finds(
    tmp_path: Path, name: str, backbone: str, finds: bool
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    network = calm(build_network(name, thin(backbone), CLASSES[name]), finds=finds).eval()
    export_onnx(network, tmp_path / "graph.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "graph.onnx"))

    for height, width in ((128, 192), (160, 96)):
        image = torch.rand(1, 3, height, width)
        with torch.no_grad():
            expected = [value.numpy() for value in network.graph(image)]
        found = session.run(output_names(network), all_finds(network, image))
        assert (len(found[0]) > 0) == finds
        assert [f.shape for f in found] == [e.shape for e in expected]
        np.testing.assert_allclose(found[1], expected[1], atol=1e-4)
        if finds:
            these, others = Answer(*found), Answer(*expected)
            missing = without_partner(these, others, score_min=0, tolerance=0.01)
            assert len(missing) <= 0.03 * len(these.scores)


@pytest.fixture(scope="module")
def zoo_state() -> dict[str, Any]:
    """Weights as a whole Mask R-CNN of detectron2 names them, with thin pyramid and heads."""
    if find_spec("detectron2") is None:
        pytest.skip("detectron2 is not installed (docs/detectron2.md)")
    from detectron2.modeling import build_model

    torch.manual_seed(5)
    cfg = zoo_config(thin().backbone)
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 32
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 16
    cfg.MODEL.ROI_MASK_HEAD.NUM_CONV = 2
    return dict(build_model(cfg).state_dict())


def arrays(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value.numpy() for name, value in state.items()}


@pytest.fixture
def write(tmp_path: Path, zoo_state: dict[str, Any]) -> Callable[[str], Path]:
    """Write the weights in one of the forms that are in use."""

    def run(form: str) -> Path:
        path = tmp_path / form
        if form == "zoo.pkl":
            content = {"model": arrays(zoo_state), "__author__": "Detectron2 Model Zoo"}
            path.write_bytes(pickle.dumps(content, protocol=2))
        elif form == "trained.pth":  # as detectron2's own trainer leaves it
            torch.save({"model": zoo_state, "iteration": 7}, path)
        return path

    return run


@pytest.mark.parametrize("form", ["zoo.pkl", "trained.pth"])
def test_a_network_starts_from_local_weights(
    write: Callable[[str], Path], zoo_state: dict[str, Any], form: str
) -> None:
    config = thin(pretrained=True, weights=str(write(form)), frozen_stride=4)

    network = build_network("mask_rcnn", config, CLASSES["mask_rcnn"])

    body = network.backbone.body.state_dict()
    assert all(torch.equal(value, zoo_state[f"backbone.{name}"]) for name, value in body.items())
    own = network.state_dict()
    for mine, theirs in (
        ("proposals.head.conv.0.0", "proposal_generator.rpn_head.conv"),
        ("heads.box_head.fc7", "roi_heads.box_head.fc2"),
        ("heads.map_head.1.0", "roi_heads.mask_head.mask_fcn2"),
        ("heads.map_predictor.conv5_mask", "roi_heads.mask_head.deconv"),
    ):
        assert torch.equal(own[f"{mine}.weight"], zoo_state[f"{theirs}.weight"])
    trained = {n.split(".")[0] for n, p in body_parameters(network) if p.requires_grad}
    assert trained == {"res3", "res4", "res5"}  # frozen_stride 4 leaves out stem and res2


def body_parameters(network: Network) -> list[tuple[str, Any]]:
    return list(network.backbone.body.get_submodule("bottom_up").named_parameters())


@with_detectron2
def test_started_heads_answer_as_detectron2s_own(tmp_path: Path) -> None:
    from detectron2.modeling import build_model

    config = thin(KEYPOINT_R50, pretrained=True, weights=str(tmp_path / "keypoints.pth"))
    cfg = zoo_config(config.backbone)
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 32
    cfg.MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS = [16, 16]
    torch.manual_seed(3)
    theirs = build_model(cfg).eval()
    torch.save({"model": theirs.state_dict()}, config.backbone.weights)

    network = build_network("keypoint_rcnn", config, ("person",)).eval()

    boxes, maps = torch.rand(3, 16, 7, 7), torch.rand(3, 16, 14, 14)
    with torch.no_grad():
        torch.testing.assert_close(network.heads.box_head(boxes), theirs.roi_heads.box_head(boxes))
        torch.testing.assert_close(
            network.heads.map_predictor(network.heads.map_head(maps)),
            theirs.roi_heads.keypoint_head.layers(maps),
        )


def test_a_head_of_another_size_stays_as_it_is_from_its_first_layer_on(
    write: Callable[[str], Path], zoo_state: dict[str, Any]
) -> None:
    config = thin(pretrained=True, weights=str(write("zoo.pkl")))
    heads = HeadConfig(box_features=64, samples=32, mask_channels=[16, 24, 16])

    network = build_network(
        "mask_rcnn",
        NetworkConfig(backbone=config.backbone, heads=heads),
        CLASSES["mask_rcnn"],
    )

    own = network.state_dict()
    theirs = "roi_heads.mask_head"
    assert torch.equal(own["heads.map_head.0.0.weight"], zoo_state[f"{theirs}.mask_fcn1.weight"])
    deconv = own["heads.map_predictor.conv5_mask.weight"]
    assert not torch.equal(deconv, zoo_state[f"{theirs}.deconv.weight"])


def test_weights_come_from_a_url_too(
    write: Callable[[str], Path],
    zoo_state: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    path = write("trained.pth")
    handler = partial(SimpleHTTPRequestHandler, directory=str(path.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        state = read_weights(f"http://127.0.0.1:{server.server_port}/{path.name}")
        server.shutdown()

    name = "backbone.bottom_up.stem.conv1.weight"
    assert torch.equal(state[name], zoo_state[name])


def test_imagenet_weights_under_caffe2s_names_start_the_body_alone(
    tmp_path: Path, zoo_state: dict[str, Any]
) -> None:
    caffe2: dict[str, Any] = {}
    prefix = "backbone.bottom_up."
    for name, value in zoo_state.items():
        if not name.startswith(prefix) or "running" in name:
            continue
        key = name.removeprefix(prefix).removeprefix("stem.")
        for ours, theirs in (
            (".shortcut.", ".branch1."),
            (".conv1.", ".branch2a."),
            (".conv2.", ".branch2b."),
            (".conv3.", ".branch2c."),
            (".norm.weight", ".bn.s"),
            (".norm.bias", ".bn.b"),
            (".weight", ".w"),
        ):
            key = key.replace(ours, theirs)
        key = key.replace(".", "_")
        stem = {"conv1_bn_s": "res_conv1_bn_s", "conv1_bn_b": "res_conv1_bn_b"}
        caffe2[stem.get(key, key)] = value.numpy() * 2
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps(caffe2, protocol=2))

    config = BackboneConfig(name=MASK_R50, channels=16, weights=str(path))
    body = build_backbone(config, pretrained=True).body.state_dict()

    for name in ("stem.conv1.weight", "stem.conv1.norm.weight", "res5.2.conv3.norm.weight"):
        assert torch.equal(body[f"bottom_up.{name}"], 2 * zoo_state[prefix + name])
    assert float(body["bottom_up.res2.0.conv1.norm.running_mean"].abs().sum()) == 0


@pytest.mark.parametrize(
    ("name", "channels", "message"),
    [
        (MASK_R50, 24, r"fpn_lateral2.weight has shape \(16, 256, 1, 1\); the configuration needs"),
        (MASK_R101, 16, r"lack \d+ of \d+ tensors of the configuration, first bottom_up.res4.6"),
    ],
)
def test_weights_that_do_not_fit_are_reported(
    write: Callable[[str], Path], name: str, channels: int, message: str
) -> None:
    config = BackboneConfig(name=name, channels=channels, weights=str(write("zoo.pkl")))

    with pytest.raises(BackboneError, match=message) as caught:
        build_backbone(config, pretrained=True)

    assert "\n" not in str(caught.value)


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run",)


@with_detectron2
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.pkl", pickle.dumps({"model": Malicious()}), r"holds (__builtin__|builtins).print"),
        ("m.pth", pickle.dumps({"model": Malicious()}), "cannot be read"),
        ("half.pkl", pickle.dumps({"model": np.zeros(9)})[:-9], "cannot be read"),
        ("list.pkl", pickle.dumps([1, 2]), "hold no tensors"),
        ("absent.pkl", None, "No such file"),
    ],
    ids=["code in .pkl", "code in .pth", "cut short", "no mapping", "no file"],
)
def test_a_file_that_holds_no_weights_is_refused_and_never_run(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: bytes | None,
    message: str,
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(BackboneError, match=message):
        read_weights(str(tmp_path / name))

    assert "run" not in capsys.readouterr().out


def test_a_trained_network_is_read_again_without_the_file_that_it_started_from(
    write: Callable[[str], Path], tmp_path: Path
) -> None:
    weights = write("zoo.pkl")
    config = thin(pretrained=True, weights=str(weights), norm="trained", frozen_stride=4)
    network = calm(build_network("mask_rcnn", config, CLASSES["mask_rcnn"])).eval()
    save_network(network, tmp_path)
    weights.unlink()
    image = torch.rand(1, 3, 64, 96)

    with torch.no_grad():
        first, second = network.graph(image), load_network(tmp_path).graph(image)

    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
