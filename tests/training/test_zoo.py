"""Day zero: bundles of torchvision's networks, here with random weights of the right shapes."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402
from torchvision.models import detection as torchvision_models  # noqa: E402
from torchvision.models.detection.roi_heads import paste_masks_in_image  # noqa: E402

from anonymization.bundle import Bundle  # noqa: E402
from anonymization.card import BundleError  # noqa: E402
from anonymization.detection.detector import Detector  # noqa: E402
from anonymization.detection.finds import nms  # noqa: E402
from anonymization.detection.mapping import heatmaps_to_keypoints  # noqa: E402
from anonymization.detection.runtime import OnnxRuntime  # noqa: E402
from anonymization.files import sha256_of_file  # noqa: E402
from anonymization.taxonomy import ClassSpec, Taxonomy  # noqa: E402
from conf import compose, section  # noqa: E402
from training.bundle.export import all_finds  # noqa: E402
from training.bundle.parity import Answer, without_partner  # noqa: E402
from training.zoo import __main__ as zoo  # noqa: E402
from training.zoo import networks as zoo_networks  # noqa: E402
from training.zoo.config import ZooConfig, ZooError  # noqa: E402
from training.zoo.networks import (  # noqa: E402
    COCO_WEIGHTS,
    ZooNetwork,
    build_model,
    known_categories,
)
from training.zoo.weights import (  # noqa: E402
    WeightsFile,
    ZooWeightsError,
    find_weights,
    load_weights,
)

MASK_V1, MASK_V2 = "maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"
KEYPOINT = "keypointrcnn_resnet50_fpn"
NETWORK_OF = {MASK_V1: "mask_rcnn", MASK_V2: "mask_rcnn", KEYPOINT: "keypoint_rcnn"}
LIKELY = {"person": 1, "bicycle": 2, "car": 3, "truck": 8}
HEIGHT, WIDTH = 128, 160
PROPOSALS = 30
"""Proposals that go into the heads, of torchvision's network and of ours: a thousand, of which a
random network finds most worth a mask, would take minutes."""
MASK = ClassSpec("mask", "outline")
APART = Taxonomy(
    dict.fromkeys(("truck", "person", "car", "bicycle"), MASK) | {"face": MASK},
    keypoint_class="person",
    head_class="face",
)
"""Each COCO class one of its own, in another order."""

WeightsOf = Callable[[str], Path]


def street() -> Taxonomy:
    return section(compose(), "taxonomy", Taxonomy)


def picture(height: int = HEIGHT, width: int = WIDTH, *, seed: int = 0) -> Tensor:
    return torch.rand((1, 3, height, width), generator=torch.Generator().manual_seed(seed))


def random_state(model: str) -> dict[str, Any]:
    """Weights of a network whose maps neither grow nor vanish and whose scores vary."""
    torch.manual_seed(0)
    network = getattr(torchvision_models, model)(weights=None, weights_backbone=None)
    for module in network.backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.backbone.train()(torch.randn(2, 3, HEIGHT, WIDTH))
    predictor = network.roi_heads.box_predictor.cls_score
    torch.nn.init.normal_(predictor.weight, std=0.03)
    torch.nn.init.zeros_(predictor.bias)
    likely = [1] if model == KEYPOINT else list(LIKELY.values())
    predictor.bias.data[likely] = 0.0 if model == KEYPOINT else 5.0
    return dict(network.state_dict())


def build_small(model: str) -> Any:
    network = build_model(model)
    network.rpn._post_nms_top_n["testing"] = PROPOSALS
    return network


@pytest.fixture(scope="module")
def torch_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where torchvision looks for downloads first."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("torch")
        patch.setenv("TORCH_HOME", str(folder))
        patch.setattr(zoo_networks, "build_model", build_small)
        yield folder


@pytest.fixture(scope="module")
def weights_of(torch_home: Path) -> WeightsOf:
    """Random weights of a model, under the name that torchvision's own have."""
    folder = torch_home / "hub/checkpoints"
    folder.mkdir(parents=True)

    def made(model: str) -> Path:
        path = folder / str(COCO_WEIGHTS[model].url).rpartition("/")[2]
        if not path.exists():
            torch.save(random_state(model), path)
        return path

    return made


def our_network(model: str, weights: Path, taxonomy: Taxonomy) -> ZooNetwork:
    config = ZooConfig(
        mask_model=model if model != KEYPOINT else MASK_V2,
        mask_weights=str(weights),
        keypoint_weights=str(weights),
    )
    network, _ = zoo.load_network(NETWORK_OF[model], config, taxonomy)
    network.finds_max = 10_000
    return network


def torchvisions(model: str, **settings: Any) -> dict[str, NDArray[Any]]:
    """What torchvision itself finds: its constructor, its weights (of our making), all of it."""
    network = getattr(torchvision_models, model)(
        weights=COCO_WEIGHTS[model],
        progress=False,
        min_size=HEIGHT,
        max_size=WIDTH,
        box_detections_per_img=10_000,
        rpn_post_nms_top_n_test=PROPOSALS,
        **settings,
    )
    with torch.no_grad():
        found = network.eval()([picture()[0]])[0]
    return {name: value.numpy() for name, value in found.items()}


def ours(network: ZooNetwork, image: Tensor) -> Answer:
    with torch.no_grad():
        return Answer(*(value.numpy() for value in network.graph(image)))


def pasted(boxes: NDArray[Any], masks: NDArray[Any]) -> NDArray[Any]:
    maps = torch.from_numpy(masks)[:, None]
    whole = paste_masks_in_image(maps, torch.from_numpy(boxes), (HEIGHT, WIDTH))
    return np.asarray(whole[:, 0].numpy())


def assert_same_finds(found: Answer, expected: Answer) -> None:
    """Equal but for the order of ties; at torchvision's floor of scores rounding decides."""
    assert len(expected.scores) > 10
    for these, others in ((found, expected), (expected, found)):
        assert without_partner(these, others, score_min=0.055, tolerance=0.005) == []


@pytest.mark.slow
@pytest.mark.parametrize("model", [MASK_V1, MASK_V2])
def test_masks_scores_and_boxes_are_torchvisions(weights_of: WeightsOf, model: str) -> None:
    network = our_network(model, weights_of(model), APART)
    raw = torchvisions(model)
    kept = np.isin(raw["labels"], list(LIKELY.values()))
    assert not kept.all()
    name_of = {label: network.classes.index(name) for name, label in LIKELY.items()}
    expected = Answer(
        raw["boxes"][kept],
        raw["scores"][kept],
        np.array([name_of[label] for label in raw["labels"][kept]]),
        raw["masks"][kept, 0],
    )

    found = ours(network, picture())

    assert found.maps.shape[1:] == (28, 28)
    assert network.classes == ("truck", "person", "car", "bicycle")
    whole = pasted(found.boxes, found.maps)
    assert_same_finds(Answer(found.boxes, found.scores, found.labels, whole), expected)


@pytest.mark.slow
def test_keypoints_are_torchvisions(weights_of: WeightsOf) -> None:
    network = our_network(KEYPOINT, weights_of(KEYPOINT), APART)
    raw = torchvisions(KEYPOINT)
    values = np.dstack([raw["keypoints"][..., :2], raw["keypoints_scores"]])
    expected = Answer(raw["boxes"], raw["scores"], np.zeros(len(raw["scores"]), int), values)

    found = ours(network, picture())

    assert found.maps.shape[1:] == (17, 56, 56)
    points = heatmaps_to_keypoints(found.maps, found.boxes)
    assert_same_finds(Answer(found.boxes, found.scores, found.labels, points), expected)


@pytest.mark.slow
def test_merged_classes_are_one_class_and_suppress_each_other(weights_of: WeightsOf) -> None:
    network = our_network(MASK_V1, weights_of(MASK_V1), street())
    raw = torchvisions(MASK_V1, box_nms_thresh=1.0)  # every candidate
    parts = []
    for position, merged in enumerate(([1], [3, 4, 6, 8])):
        of_class = np.flatnonzero(np.isin(raw["labels"], merged))
        kept = of_class[nms(raw["boxes"][of_class], raw["scores"][of_class], iou=0.5)]
        parts.append((kept, np.full(len(kept), position)))
    index = np.concatenate([kept for kept, _ in parts])
    labels = np.concatenate([positions for _, positions in parts])
    expected = Answer(raw["boxes"][index], raw["scores"][index], labels, raw["masks"][index, 0])
    cars = set(raw["labels"][index][labels == 1])

    found = ours(network, picture())

    assert network.classes == ("person", "vehicle")
    assert len(cars) >= 2  # else merging means nothing
    whole = pasted(found.boxes, found.maps)
    assert_same_finds(Answer(found.boxes, found.scores, found.labels, whole), expected)


@pytest.fixture(scope="module")
def bundle(weights_of: WeightsOf, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """What the command makes of random weights, both networks."""
    folder = tmp_path_factory.mktemp("zoo") / "bundle"
    zoo.main(
        [
            *("--output", str(folder), "--long-side", str(WIDTH), "--threshold", "0.2"),
            *("--mask-weights", str(weights_of(MASK_V2))),
            *("--keypoint-weights", str(weights_of(KEYPOINT))),
        ]
    )
    return Bundle.load(folder)


@pytest.mark.slow
@pytest.mark.parametrize("model", [MASK_V2, KEYPOINT])
def test_graphs_answer_like_torch_at_any_size(
    weights_of: WeightsOf, bundle: Bundle, model: str
) -> None:
    network = our_network(model, weights_of(model), street())
    network.finds_max = 200
    name = NETWORK_OF[model]
    runtime = OnnxRuntime(bundle.graphs[name], name=name)
    maps = "heatmaps" if model == KEYPOINT else "masks"

    for seed, (height, width) in enumerate(((128, 160), (160, 96))):
        image = picture(height, width, seed=seed)
        outputs = runtime.run(all_finds(network, image))
        found = Answer(*(outputs[key] for key in ("boxes", "scores", "labels", maps)))
        assert_same_finds(found, ours(network, image))


@pytest.mark.slow
def test_the_first_version_exports_too_and_may_find_nothing(
    weights_of: WeightsOf, tmp_path: Path
) -> None:
    state = torch.load(weights_of(MASK_V1), weights_only=True)
    state["roi_heads.box_predictor.cls_score.bias"][0] = 60.0  # all is background
    torch.save(state, tmp_path / "quiet.pth")
    config = ZooConfig(
        networks=("mask_rcnn",), mask_model=MASK_V1, mask_weights=str(tmp_path / "quiet.pth")
    )
    made = zoo.make_bundle(tmp_path / "bundle", config, street())

    runtime = OnnxRuntime(made.graphs["mask_rcnn"], name="quiet")
    each = np.ones(len(made.card.graphs["mask_rcnn"].classes), np.float32)
    outputs = runtime.run({"image": picture().numpy(), "score_min": 0 * each, "draw": each})

    assert outputs["boxes"].shape == (0, 4)
    assert outputs["masks"].shape == (0, 28, 28)


@pytest.mark.slow
def test_the_card_says_what_the_bundle_is(bundle: Bundle, weights_of: WeightsOf) -> None:
    card = bundle.card
    origin = card.provenance["networks"]["mask_rcnn"]

    assert card.graphs["mask_rcnn"].classes == ("person", "vehicle")
    assert card.graphs["keypoint_rcnn"].classes == ("person",)
    assert set(card.thresholds.values()) == {0.2}
    assert card.head.threshold == 0.2
    assert origin["model"] == MASK_V2
    assert origin["weights"] == weights_of(MASK_V2).name  # no folder of this machine
    assert origin["weights_sha256"] == sha256_of_file(weights_of(MASK_V2))
    assert origin["coco_categories"]["vehicle"] == ["car", "motorcycle", "bus", "truck"]
    assert bundle.warning is not None
    assert "has no verdict" in bundle.warning
    assert "license_plate is not found" in card.note
    assert "face is found by the head keypoints of persons alone" in card.note


@pytest.mark.slow
def test_the_bundle_anonymizes_a_picture(bundle: Bundle, tmp_path: Path) -> None:
    pixels = (picture()[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in/noise.png"), pixels)
    found = Detector.from_bundle(bundle).detect(pixels[..., ::-1].copy())

    ended = subprocess.run(
        [sys.executable, "-m", "anonymization", "in", "-o", "out", "--model", str(bundle.path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    assert not np.array_equal(cv2.imread(str(tmp_path / "out/noise.png")), pixels)
    classes = {bundle.card.taxonomy.names[i] for i in found.class_ids}
    assert classes == {"person", "vehicle", "face"}
    said = " ".join(ended.stderr.split())
    assert "has no verdict" in said
    assert "license_plate is not found" in said


def test_the_street_taxonomy_knows_persons_and_vehicles_and_drops_the_rest() -> None:
    categories = COCO_WEIGHTS[MASK_V2].meta["categories"]

    known = known_categories(categories, street())

    assert {categories[label]: name for label, name in known.items()} == {
        "person": "person",
        "car": "vehicle",
        "motorcycle": "vehicle",
        "bus": "vehicle",
        "truck": "vehicle",
    }


def test_an_alias_may_write_a_space_as_an_underscore() -> None:
    sign = Taxonomy({"sign": ClassSpec("box", "box", aliases=["stop_sign"])})

    assert known_categories(["__background__", "person", "stop sign"], sign) == {2: "sign"}


@pytest.mark.parametrize(
    ("taxonomy", "network", "message"),
    [
        (Taxonomy({"face": MASK}), "mask_rcnn", r"the taxonomy \(face\) knows no class that mask"),
        (Taxonomy({"person": MASK}), "keypoint_rcnn", "has no head_class"),
    ],
)
def test_a_network_of_no_use_to_the_taxonomy_is_refused(
    taxonomy: Taxonomy, network: str, message: str
) -> None:
    with pytest.raises(ZooError, match=message):
        zoo.load_network(network, ZooConfig(), taxonomy)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"threshold": 0.01}, ZooError, "from 0.05 to 1: the networks return nothing below"),
        ({"networks": ()}, ZooError, "expected some of mask_rcnn, keypoint_rcnn"),
        ({"mask_model": "yolo"}, ZooError, "mask model is 'yolo'"),
        ({"long_side": 8}, BundleError, "long_side is 8"),
    ],
)
def test_settings_are_checked_before_anything_is_loaded(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ZooConfig(**settings)


@pytest.mark.slow
def test_weights_that_do_not_fit_end_in_one_line(
    weights_of: WeightsOf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = torch.load(weights_of(MASK_V1), weights_only=True)
    for key in ("cls_score.weight", "cls_score.bias"):
        state[f"roi_heads.box_predictor.{key}"] = state[f"roi_heads.box_predictor.{key}"][:5]
    torch.save(state, tmp_path / "five.pth")
    said = []
    for model, path in ((MASK_V1, tmp_path / "five.pth"), (MASK_V2, weights_of(MASK_V1))):
        options = ["--mask-model", model, "--mask-weights", str(path), "--network", "mask_rcnn"]
        with pytest.raises(SystemExit, match="1"):
            zoo.main([*options, "--output", str(tmp_path / "bundle")])
        said.append(capsys.readouterr().err)

    assert [text.count("\n") for text in said] == [1, 1]
    assert "weights five.pth do not fit maskrcnn_resnet50_fpn as trained on COCO: 2 of" in said[0]
    assert "roi_heads.box_predictor.cls_score.weight" in said[0]
    assert "do not fit maskrcnn_resnet50_fpn_v2" in said[1]
    assert "missing, first" in said[1]
    assert "--mask-model" in said[1]
    assert not (tmp_path / "bundle").exists()


@pytest.mark.slow
def test_layers_under_the_names_of_older_torchvisions_are_read(
    weights_of: WeightsOf, tmp_path: Path
) -> None:
    state = torch.load(weights_of(MASK_V1), weights_only=True)
    old = {}
    for key, value in state.items():
        name = key.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        for i in range(4):
            name = name.replace(f"mask_head.{i}.0.", f"mask_head.mask_fcn{i + 1}.")
            name = name.replace(f"_blocks.{i}.0.", f"_blocks.{i}.")
        if not key.endswith("num_batches_tracked"):
            old[name] = value
    assert len(set(old) - set(state)) == 2 + 8 + 16
    torch.save({"model": old, "epoch": 25}, tmp_path / "checkpoint.pth")
    model = build_model(MASK_V1)

    load_weights(model, WeightsFile(tmp_path / "checkpoint.pth", "old", ""), name=MASK_V1)

    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key])


class Touch:
    """A pickle that makes a file where it is loaded as one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_file_of_weights_runs_no_code(tmp_path: Path) -> None:
    torch.save({"w": Touch(tmp_path / "ran")}, tmp_path / "evil.pth")
    file = WeightsFile(tmp_path / "evil.pth", "evil.pth", "")

    with pytest.raises(ZooWeightsError, match=r"evil.pth cannot be read"):
        load_weights(torch.nn.Linear(1, 1), file, name="toy")

    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "cannot be read"), (b"no weights" * 99, "cannot be read"), (None, "no state dict")],
)
def test_a_file_that_holds_no_weights_is_named(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "some.pth"
    if content is None:
        torch.save([1, 2], path)
    else:
        path.write_bytes(content)

    with pytest.raises(ZooWeightsError, match=f"some.pth.*{message}"):
        load_weights(torch.nn.Linear(1, 1), WeightsFile(path, "some.pth", ""), name="toy")


def test_a_missing_file_is_named_with_its_option(tmp_path: Path) -> None:
    with pytest.raises(ZooWeightsError, match=r"none.pth are no file; --mask-weights takes"):
        find_weights(str(tmp_path / "none.pth"), "official", "--mask-weights")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Address of a server of this machine that has `weights-0123.pth`."""
    (tmp_path / "served").mkdir()
    (tmp_path / "served/weights-0123.pth").write_bytes(b"tensors")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/weights-0123.pth"
        server.shutdown()


def test_weights_are_downloaded_once(
    served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    first = find_weights(served, "official", "--mask-weights")
    (tmp_path / "served/weights-0123.pth").unlink()

    again = find_weights(served, "official", "--mask-weights")

    assert first == again
    assert first.path.read_bytes() == b"tensors"
    assert first.origin == served


def test_torchvisions_own_weights_must_have_the_digest_of_their_name(
    served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))

    with pytest.raises(ZooWeightsError, match=r"weights-0123.pth starts with 0123.*delete it"):
        find_weights(None, served, "--mask-weights")


def test_without_a_network_the_options_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    nowhere = "http://127.0.0.1:9/weights-0123.pth"

    with pytest.raises(ZooWeightsError, match=r"cannot be downloaded.*--mask-weights PATH.*--netw"):
        find_weights(None, nowhere, "--mask-weights")
