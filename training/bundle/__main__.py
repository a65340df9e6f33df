"""Step 5, second half: the trained networks become a bundle, calibrated on val.

Reads `artifacts/trained` and `artifacts/prepared/val.json`; writes `artifacts/bundle`. Export is
checked against torch on pictures of val; where another variant is asked for, it is made then; and
thresholds and margins are chosen through the shipped anonymizer's own code, with the graphs that
ship (docs/design.md, section 6).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anonymization.errors import BlurloopError
from anonymization.files import read_json, sha256_of_file
from anonymization.taxonomy import Taxonomy
from conf import stage
from data.layout import BUNDLE, PICTURES, PREPARED, TRAINED
from data.tracking.runs import stage_run
from data.tracking.store import TrackingConfig
from evaluation.config import PromotionConfig
from training.bundle.config import BundleConfig, BundleConfigError
from training.bundle.thresholds import calibrate

if TYPE_CHECKING:
    from anonymization.bundle import Bundle
    from anonymization.card import Card, GraphCard
    from anonymization.detection.finds import Detections
    from data.coco import Dataset
    from training.network.rcnn import Network

log = logging.getLogger(__name__)

PARITY_SCORE_MIN = 0.05
"""Below this, rounding decides whether a find passes the network's own score floor of 0.02."""


class ParityError(BlurloopError):
    """The exported graph answers otherwise than the network it was made from."""


@stage
def main(
    bundle: BundleConfig, promotion: PromotionConfig, taxonomy: Taxonomy, tracking: TrackingConfig
) -> None:
    """Export, check, calibrate, write."""
    from data.coco import Dataset

    networks = load_networks(bundle.networks)
    val = Dataset.read(PREPARED / "val.json", taxonomy)
    with (
        stage_run("bundle", tracking, params=asdict(bundle), inputs=_inputs(networks)) as run,
        tempfile.TemporaryDirectory() as work,
    ):
        draft = draft_bundle(networks, taxonomy, bundle, Path(work), run_id=run.run_id)
        some = [PICTURES / image.file_name for image in val.images[: bundle.parity_pictures]]
        check_parity(networks, draft, some, bundle.parity_tolerance)
        draft = variant_of(draft, bundle, taxonomy, Path(work))
        finds = detect_all(draft, val, score_min=bundle.threshold_min)
        card = calibrate(draft.card, val, finds, bundle, promotion)
        shipped = write(card, draft)
        run.log_metrics(_metrics(shipped.card))
        run.log_dict(shipped.card.to_dict(), "card.json")
    log.info("bundle %s written to %s", shipped.digest[:12], BUNDLE)


def load_networks(names: Iterable[str]) -> dict[str, Network]:
    """Return the named networks, without those that the settings of training leave out.

    Raises:
        BundleConfigError: If none is left.
    """
    from training.network.rcnn import has_weights, load_network

    networks = {name: load_network(TRAINED / name) for name in names if has_weights(TRAINED / name)}
    if not networks:
        raise BundleConfigError(
            f"bundle.networks is {list(names)}, but training leaves them out; name another, or set "
            "its `trained` to true under conf/training"
        )
    return networks


def _inputs(networks: Iterable[str]) -> dict[str, str]:
    return {
        "val": sha256_of_file(PREPARED / "val.json"),
        **{name: sha256_of_file(TRAINED / name / "weights.safetensors") for name in networks},
    }


def draft_bundle(
    networks: Mapping[str, Network],
    taxonomy: Taxonomy,
    config: BundleConfig,
    folder: Path,
    *,
    run_id: str | None,
) -> Bundle:
    """Export every network and write a bundle with the lowest thresholds."""
    from anonymization.bundle import write_bundle
    from anonymization.card import Card, HeadCard
    from training.bundle.export import export_onnx

    for name, network in networks.items():
        export_onnx(network, folder / f"{name}.onnx")
    card = Card(
        taxonomy=taxonomy,
        thresholds=dict.fromkeys(taxonomy.names, config.threshold_min),
        graphs={name: graph_card(network) for name, network in networks.items()},
        head=HeadCard(threshold=config.threshold_min),
        mask_threshold=config.mask_thresholds[0],
        tiling=config.tiling,
        provenance=_provenance(run_id, networks),
        test_time=config.test_time,
        note=config.note,
    )
    return write_bundle(
        folder / "draft", card, {name: folder / f"{name}.onnx" for name in networks}
    )


def variant_of(draft: Bundle, config: BundleConfig, taxonomy: Taxonomy, folder: Path) -> Bundle:
    """Return the draft as the variant that was asked for; what follows measures the difference.

    Ranges are observed on pictures of train: val chooses the thresholds and shall not have had a
    part in what it judges.
    """
    from data.coco import Dataset
    from training.bundle.variants import as_variant, evenly, inputs_of

    train = Dataset.read(PREPARED / "train.json", taxonomy)
    pictures = [PICTURES / image.file_name for image in train.images]
    return as_variant(
        draft,
        config.variant,
        folder / config.variant,
        inputs=inputs_of(evenly(pictures, config.quantization_pictures)),
        keep_float=config.float_layers,
        float_first=config.float_first,
    )


def graph_card(network: Network) -> GraphCard:
    """Describe how pictures reach a network: as they did in training."""
    from anonymization.card import GraphCard, GraphInput
    from training.bundle.export import output_names
    from training.network.rcnn import MULTIPLE

    size = network.config.input
    return GraphCard(
        file=f"{network.name}.onnx",
        sha256="",
        input=GraphInput(long_side=size.long_side, upscale_max=size.upscale_max, multiple=MULTIPLE),
        classes=network.classes,
        outputs=dict.fromkeys(output_names(network), "float32"),
    )


def _provenance(run_id: str | None, networks: Iterable[str]) -> dict[str, Any]:
    trained = {
        name: {
            "weights_sha256": sha256_of_file(TRAINED / name / "weights.safetensors"),
            "run_id": read_json(TRAINED / name / "history.json").get("run_id"),
        }
        for name in networks
    }
    data = {split: sha256_of_file(PREPARED / f"{split}.json") for split in ("train", "val")}
    return {"bundle_run_id": run_id, "networks": trained, "data_sha256": data}


def check_parity(
    networks: Mapping[str, Network], bundle: Bundle, pictures: Iterable[Path], tolerance: float
) -> None:
    """Compare torch and ONNX Runtime on pictures.

    Raises:
        ParityError: If either finds something that the other does not.
    """
    import torch

    from anonymization.detection.preparing import prepare
    from anonymization.detection.runtime import OnnxRuntime
    from anonymization.formats.picture import read_picture
    from training.bundle.export import all_finds, output_names
    from training.bundle.parity import answers, without_partner

    runtimes = {name: OnnxRuntime(graph, name=name) for name, graph in bundle.graphs.items()}
    for path in pictures:
        for name, network in networks.items():
            picture = prepare(read_picture(path).pixels, bundle.card.graphs[name])
            with torch.no_grad():
                outputs = network.graph(torch.from_numpy(picture.image))
            expected = answers([value.numpy() for value in outputs], posed=network.posed)
            values = runtimes[name].run(all_finds(network, torch.from_numpy(picture.image)))
            found = answers([values[key] for key in output_names(network)], posed=network.posed)
            pairs = [*zip(expected, found, strict=True), *zip(found, expected, strict=True)]
            for these, others in pairs:
                missing = without_partner(
                    these, others, score_min=PARITY_SCORE_MIN, tolerance=tolerance
                )
                if missing:
                    raise ParityError(
                        f"graph {name} and torch disagree on {len(missing)} finds in {path.name}, "
                        f"the first of score {these.scores[missing[0]]:.3f}; expected the same "
                        f"within {tolerance}. Export with the tested versions (constraints.txt)"
                    )


def _pixels(file_name: str) -> Any:
    from anonymization.formats.picture import read_picture

    return read_picture(PICTURES / file_name).pixels


def detect_all(bundle: Bundle, dataset: Dataset, *, score_min: float) -> dict[str, Detections]:
    """Return every find at or above a score, per picture SHA-256."""
    from tqdm import tqdm

    from anonymization.detection.detector import Detector

    detector = Detector.from_bundle(bundle)
    return {
        image.sha256: detector.detect(_pixels(image.file_name), score_min=score_min)
        for image in tqdm(dataset.images, desc="calibration", unit="picture", mininterval=5)
    }


def _metrics(card: Card) -> dict[str, float]:
    values = {}
    for name, choice in card.calibration["classes"].items():
        for key in ("threshold", "margin", "likely", "detected", "covered", "precision"):
            if choice[key] is not None:
                values[f"calibration/{name}/{key}"] = float(choice[key])
    return values


def write(card: Card, draft: Bundle) -> Bundle:
    """Write the calibrated bundle and say what calibration could not reach."""
    from anonymization.bundle import write_bundle

    for name in card.calibration["short_of_goal"]:
        choice = card.calibration["classes"][name]
        log.warning(
            "%s falls short of its goal on val: detected %s, covered %s of %d objects",
            name,
            choice["detected"],
            choice["covered"],
            choice["objects"],
        )
    return write_bundle(BUNDLE, card, draft.graphs)


if __name__ == "__main__":
    main()
