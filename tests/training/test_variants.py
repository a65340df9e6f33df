"""Variants of a bundle, and the benchmark that measures them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from anonymization.bundle import Bundle, write_bundle  # noqa: E402
from anonymization.card import VARIANTS, BundleError, Card, GraphCard, GraphInput  # noqa: E402
from anonymization.detection.detector import Detector  # noqa: E402
from anonymization.taxonomy import ClassSpec, Taxonomy  # noqa: E402
from benchmarks import variants as benchmark  # noqa: E402
from data.coco import Annotation, Dataset, Image  # noqa: E402
from training.bundle.export import export_onnx  # noqa: E402
from training.bundle.variants import as_variant, inputs_of  # noqa: E402
from training.config import BackboneConfig, NetworkConfig  # noqa: E402
from training.network.rcnn import build_network  # noqa: E402

TAXONOMY = Taxonomy({"face": ClassSpec(geometry="box", shape="box")})
FACE = (8.0, 8.0, 40.0, 40.0)


class OneFace(torch.nn.Module):  # type: ignore[misc,name-defined]
    """Finds one face where it always is; its score comes out of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 64, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(64, 64, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(64, 1, 1),
        )

    def forward(self, image: Any) -> tuple[Any, ...]:
        """Return boxes, scores, labels and masks of one find."""
        score = (self.layers(image).mean((1, 2, 3)) + 2).sigmoid()
        box = torch.tensor([FACE]) + 0 * score[:, None]
        masks = torch.ones(1, 28, 28) * score[:, None, None]
        return box, score, torch.zeros(1, dtype=torch.int64), masks


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    names = ["boxes", "scores", "labels", "masks"]
    path = folder / "mask_rcnn.onnx"
    torch.onnx.export(
        OneFace().eval(),
        (torch.rand(1, 3, 64, 96),),
        str(path),
        input_names=["image"],
        output_names=names,
        dynamic_axes={"image": {2: "height", 3: "width"}},
        opset_version=17,
        dynamo=False,
    )
    graph = GraphCard(path.name, "", GraphInput(96), ("face",))
    card = Card(TAXONOMY, {"face": 0.3}, {"mask_rcnn": graph})
    return write_bundle(folder / "bundle", card, {"mask_rcnn": path})


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(2):
        pixels = rng.integers(0, 255, (64, 96, 3), dtype=np.uint8)
        Pillow.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize(
    ("variant", "share"), [("fp16", 0.6), ("int8_weights", 0.4), ("int8", 0.4)]
)
def test_a_variant_is_a_smaller_bundle_that_says_what_it_is(
    base: Bundle, pictures: Path, tmp_path: Path, variant: str, share: float
) -> None:
    inputs = inputs_of(sorted(pictures.iterdir()))
    made = Bundle.load(as_variant(base, variant, tmp_path / "made", inputs=inputs).path)
    assert made.card.variant == variant
    assert made.digest != base.digest
    assert made.card.thresholds == base.card.thresholds
    assert len(made.graphs["mask_rcnn"]) < share * len(base.graphs["mask_rcnn"])


def test_a_card_without_a_variant_is_fp32_and_keeps_its_digest(base: Bundle) -> None:
    assert base.card.variant == "fp32"
    assert "variant" not in base.card.to_dict()
    assert Card.from_dict(replace(base.card, variant="int8").to_dict()).variant == "int8"
    with pytest.raises(BundleError, match="variant is 'int4'; known: fp32, fp16"):
        replace(base.card, variant="int4")


def labels_of(folder: Path, path: Path) -> Path:
    """Label the face in the first picture, and one that nobody finds."""
    from anonymization.files import sha256_of_file

    first = folder / "0.png"
    image = Image(1, sha256_of_file(first), first.name, 96, 64, ("face",), fields={})
    elsewhere = (60.0, 20.0, 90.0, 50.0)
    faces = tuple(Annotation(n, 1, "face", box) for n, box in enumerate((FACE, elsewhere), 1))
    Dataset((image,), faces).write(path, TAXONOMY)
    return path


def test_the_benchmark_measures_every_variant_of_a_bundle_on_the_same_pictures(
    base: Bundle, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = labels_of(pictures, tmp_path / "labels.json")
    said = ["--truth", str(labels), "--rounds", "1", "--float-first", "0"]
    benchmark.main([str(base.path), str(pictures), *said])
    printed = capsys.readouterr().out
    rows = [
        [c.strip() for c in line.split("|")[1:-1]]
        for line in printed.splitlines()[2:]
        if "|" in line
    ]
    rows = [row for row in rows if row[1] == "onnxruntime"]
    assert [row[0] for row in rows] == list(VARIANTS)
    assert {row[6] for row in rows} == {"1/2 = 0.500"}
    assert all(float(row[3]) > 0 for row in rows)
    assert rows[0][4] == "1.00"
    assert "1 pictures, 1 rounds" in printed
    assert "its recall flatters (--ranges)" in printed


def test_the_benchmark_takes_a_folder_of_bundles_as_they_are(
    base: Bundle, pictures: Path, tmp_path: Path
) -> None:
    write_bundle(tmp_path / "one", base.card, base.graphs)
    as_variant(base, "fp16", tmp_path / "two", inputs=inputs_of([]))
    found = benchmark.bundles_of(tmp_path, [], tmp_path / "work")
    assert {name: bundle.card.variant for name, bundle in found.items()} == {
        "one": "fp32",
        "two": "fp16",
    }
    with pytest.raises(SystemExit, match="is fp16; variants are made of a fp32 bundle"):
        benchmark.bundles_of(tmp_path / "two", [], tmp_path / "work")
    with pytest.raises(SystemExit, match="holds no bundle"):
        benchmark.bundles_of(pictures, [], tmp_path / "work")


@pytest.mark.slow
def test_a_network_as_it_is_exported_counts_in_8_bits(pictures: Path, tmp_path: Path) -> None:
    """With all of its inputs: what it is told to draw is no picture to observe ranges on."""
    torch.manual_seed(0)
    config = NetworkConfig(backbone=BackboneConfig(channels=16))
    network = build_network("mask_rcnn", config, TAXONOMY.names, pretrained=False).eval()
    torch.nn.init.normal_(network.heads.box_predictor.scores.weight, std=0.2)
    torch.nn.init.constant_(network.heads.box_predictor.scores.bias, 0.0)
    export_onnx(network, tmp_path / "mask_rcnn.onnx")
    graph = GraphCard("mask_rcnn.onnx", "", GraphInput(96), TAXONOMY.names)
    card = Card(TAXONOMY, dict.fromkeys(TAXONOMY.names, 0.3), {"mask_rcnn": graph})
    whole = write_bundle(tmp_path / "fp32", card, {"mask_rcnn": tmp_path / "mask_rcnn.onnx"})

    made = as_variant(
        whole, "int8", tmp_path / "int8", inputs=inputs_of(sorted(pictures.iterdir()))
    )

    shown = np.random.default_rng(1).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    found = Detector.from_bundle(made, threads=1).detect(shown, score_min=0.02)
    assert len(found) > 0
    assert len(made.graphs["mask_rcnn"]) < 0.5 * len(whole.graphs["mask_rcnn"])
