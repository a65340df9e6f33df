"""A training starts from an earlier one of ours, class by class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from data.layout import TRAINED  # noqa: E402
from training.config import BackboneConfig, HeadConfig, NetworkConfig  # noqa: E402
from training.errors import NetworkConfigError, StartError  # noqa: E402
from training.network.rcnn import Network, build_network, save_network  # noqa: E402
from training.starting import FOLDER_VARIABLE, Start  # noqa: E402

OLD = ("car", "face", "sign")
NEW = ("face", "horse", "car")

CONFIG = NetworkConfig(
    backbone=BackboneConfig(channels=16, frozen_stride=4),
    heads=HeadConfig(box_features=16, mask_channels=[8], keypoint_channels=[8]),
)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".dvc").mkdir()
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)


def restless(name: str = "mask_rcnn", classes: tuple[str, ...] = OLD) -> Network:
    """A network with no weight where building would put it."""
    torch.manual_seed(3)
    network = build_network(name, CONFIG, classes, pretrained=False)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.1)
    return network


def kept(network: Network, name: str = "artifacts/kept") -> str:
    folder = Path(name) / network.name
    folder.mkdir(parents=True)
    save_network(network, folder)
    return name


def started(name: str, **changes: Any) -> Network:
    built = build_network("mask_rcnn", replace(CONFIG, **changes), NEW, pretrained=False)
    Start.find(name, "mask_rcnn").load_into(built)
    return built


def test_what_no_class_decides_is_taken_over_whole() -> None:
    old = restless()
    new = started(kept(old)).state_dict()

    same = [key for key, value in old.state_dict().items() if torch.equal(value, new[key])]

    apart = {key for key in new if key not in same}
    assert apart == {
        f"{layer}.{part}"
        for layer in (
            "proposals.head.cls_logits",
            "heads.box_predictor.scores",
            "heads.map_predictor.mask_fcn_logits",
        )
        for part in ("weight", "bias")
    }


def test_classes_are_taken_over_by_name_and_unknown_ones_start_anew() -> None:
    old = restless()
    new = started(kept(old))

    theirs, mine = (n.heads.box_predictor.scores.weight for n in (old, new))
    assert torch.equal(mine[NEW.index("face")], theirs[OLD.index("face")])
    assert torch.equal(mine[NEW.index("car")], theirs[OLD.index("car")])
    assert float(mine[NEW.index("horse")].abs().max()) < 0.1, "drawn with 0.01"
    # Of the proposals, one row for each anchor and class, the class last.
    theirs, mine = (n.proposals.head.cls_logits.bias for n in (old, new))
    assert mine.view(-1, 3)[:, 0].tolist() == theirs.view(-1, 3)[:, 1].tolist()
    assert mine.view(-1, 3)[:, 2].tolist() == theirs.view(-1, 3)[:, 0].tolist()


def test_a_layer_of_another_size_starts_anew_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    name = kept(restless())
    with caplog.at_level("INFO"):
        new = started(
            name, heads=HeadConfig(box_features=24, mask_channels=[8], keypoint_channels=[8])
        )

    assert new.heads.box_predictor.scores.weight.shape == (3, 24)
    assert "start anew: heads.box_head.fc6" in caplog.text
    assert "did not know start anew: horse" in caplog.text


def test_the_keypoint_network_may_start_from_the_mask_network() -> None:
    old = restless()
    name = kept(old)
    built = build_network("keypoint_rcnn", CONFIG, ("face",), pretrained=False)

    Start.find(f"{name}/mask_rcnn", "keypoint_rcnn").load_into(built)

    mine, theirs = built.heads.box_predictor.scores.weight, old.heads.box_predictor.scores.weight
    assert torch.equal(mine[0], theirs[1])


def test_another_backbone_is_refused_by_name() -> None:
    name = kept(restless())
    with pytest.raises(StartError, match=r"another backbone \(backbone\.fpn\..* differs\)"):
        started(name, backbone=BackboneConfig(channels=24))


def test_early_layers_keep_the_weights_that_they_start_with() -> None:
    built = build_network("mask_rcnn", CONFIG, NEW, pretrained=False, frozen=True)
    frozen = [name for name, p in built.named_parameters() if not p.requires_grad]
    assert "backbone.body.conv_stem.weight" in frozen
    assert all(name.startswith("backbone.body.") for name in frozen)


def test_the_digest_follows_weights_and_classes() -> None:
    first = Start.find(kept(restless()), "mask_rcnn").digest
    assert Start.find(kept(restless(), "same"), "mask_rcnn").digest == first
    renamed = restless(classes=("car", "face", "plate"))
    assert Start.find(kept(renamed, "renamed"), "mask_rcnn").digest != first
    other = restless()
    with torch.no_grad():
        other.heads.box_predictor.scores.bias[0] = 1
    assert Start.find(kept(other, "other"), "mask_rcnn").digest != first


def test_a_machines_folder_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(restless(), str(tmp_path / "elsewhere" / "drawn"))
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "elsewhere"))
    assert Start.find("drawn", "mask_rcnn").classes == OLD
    with pytest.raises(NetworkConfigError, match="start is '/drawn'; expected a folder relative"):
        NetworkConfig(start="/drawn")


def test_what_is_not_there_or_will_be_deleted_is_refused_with_the_next_step() -> None:
    with pytest.raises(StartError, match=r"start is 'nothing', but .* holds no trained network"):
        Start.find("nothing", "mask_rcnn")
    kept(restless(), str(TRAINED))
    with pytest.raises(StartError, match="DVC deletes before it trains; copy it first"):
        Start.find(str(TRAINED), "mask_rcnn")
