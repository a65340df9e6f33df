"""Makes a bundle from COCO-pretrained networks, without any training: `python -m training.zoo`.

Day zero: pre-annotate and anonymize before the first annotation exists. Persons and vehicles come
from torchvision's Mask R-CNN, faces from the head keypoints of its Keypoint R-CNN. COCO has no
license plates, and nobody has measured the bundle on pictures of streets: docs/zoo.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from anonymization.bundle import Bundle, write_bundle
from anonymization.card import Card, GraphCard, GraphInput, HeadCard
from anonymization.taxonomy import Taxonomy
from conf import compose, ending_in_one_line, section
from training.config import NETWORKS
from training.zoo.config import MASK_MODELS, UPSCALE_MAX, ZooConfig, ZooError

if TYPE_CHECKING:
    from training.network.rcnn import Network
    from training.zoo.networks import ZooNetwork
    from training.zoo.weights import WeightsFile

OUTPUT = Path("artifacts/zoo")


def make_bundle(folder: Path, config: ZooConfig, taxonomy: Taxonomy) -> Bundle:
    """Write a bundle of pretrained networks, which no gate has judged.

    Args:
        folder: Where to; a bundle there is replaced.
        config: What it is made of.
        taxonomy: Classes that it may find.

    Raises:
        ZooError: If the taxonomy has no use for a network.
        ZooWeightsError: If weights cannot be had or do not fit.
        ExportError: If a network cannot be written as ONNX.
    """
    from training.bundle.export import export_onnx

    cards, provenance, files = {}, {}, {}
    with tempfile.TemporaryDirectory() as work:
        for name in dict.fromkeys(config.networks):
            network, weights = load_network(name, config, taxonomy)
            files[name] = Path(work) / f"{name}.onnx"
            # It has what the export asks of a network, and is none of those that are trained.
            export_onnx(cast("Network", network), files[name])
            cards[name] = _graph_card(network, config)
            provenance[name] = _origin(config.model(name), weights, taxonomy)
        card = Card(
            taxonomy=taxonomy,
            thresholds=dict.fromkeys(taxonomy.names, config.threshold),
            graphs=cards,
            head=HeadCard(threshold=config.threshold),
            provenance=_provenance(provenance),
            note=note_of(cards, taxonomy),
        )
        return write_bundle(folder, card, files)


def load_network(
    name: str, config: ZooConfig, taxonomy: Taxonomy
) -> tuple[ZooNetwork, WeightsFile]:
    """Build a network and give it its weights.

    Raises:
        ZooError: If the taxonomy has no use for it.
        ZooWeightsError: If its weights cannot be had or do not fit.
    """
    from training.zoo.networks import COCO_WEIGHTS, ZooNetwork, build_model, known_categories
    from training.zoo.weights import find_weights, load_weights

    model = config.model(name)
    known = known_categories(COCO_WEIGHTS[model].meta["categories"], taxonomy)
    _require_use(name, known, taxonomy)
    is_mask = name == "mask_rcnn"
    weights = find_weights(
        config.mask_weights if is_mask else config.keypoint_weights,
        COCO_WEIGHTS[model].url,
        "--mask-weights" if is_mask else "--keypoint-weights",
    )
    built = build_model(model)
    load_weights(built, weights, name=model)
    return ZooNetwork(name, built, known, taxonomy), weights


def _require_use(name: str, known: Mapping[int, str], taxonomy: Taxonomy) -> None:
    classes = ", ".join(taxonomy.names)
    if not known:
        raise ZooError(
            f"the taxonomy ({classes}) knows no class that {name} finds; add COCO's names as "
            "aliases in conf/taxonomy, or leave the network out with --network"
        )
    if name == "keypoint_rcnn" and taxonomy.head_class is None:
        raise ZooError(
            f"the taxonomy ({classes}) has no head_class, which keypoint_rcnn is for; name one in "
            "conf/taxonomy, or leave the network out with --network mask_rcnn"
        )


def _graph_card(network: ZooNetwork, config: ZooConfig) -> GraphCard:
    from training.bundle.export import output_names
    from training.network.rcnn import MULTIPLE

    mean = network.model.transform.image_mean
    return GraphCard(
        file=f"{network.name}.onnx",
        sha256="",
        input=GraphInput(
            long_side=config.long_side,
            upscale_max=UPSCALE_MAX,
            multiple=MULTIPLE,
            pad_rgb=tuple(mean),  # torchvision pads with zeros after it took the mean away
        ),
        classes=network.classes,
        outputs=dict.fromkeys(output_names(cast("Network", network)), "float32"),
    )


def _origin(model: str, weights: WeightsFile, taxonomy: Taxonomy) -> dict[str, Any]:
    from training.zoo.networks import COCO_WEIGHTS, known_categories

    categories = COCO_WEIGHTS[model].meta["categories"]
    merged: dict[str, list[str]] = {}
    for label, name in known_categories(categories, taxonomy).items():
        merged.setdefault(name, []).append(categories[label])
    return {
        "model": model,
        "weights": weights.origin,
        "weights_sha256": weights.sha256,
        "coco_categories": merged,
    }


def _provenance(networks: dict[str, Any]) -> dict[str, Any]:
    import torchvision

    return {
        "made_by": "training.zoo",
        "trained": False,
        "torchvision": torchvision.__version__,
        "networks": networks,
    }


def note_of(graphs: Mapping[str, GraphCard], taxonomy: Taxonomy) -> str:
    """Return what whoever uses the bundle must know: what it cannot find.

    >>> from anonymization.taxonomy import ClassSpec
    >>> plates = Taxonomy({"license_plate": ClassSpec("box", "box")})
    >>> note_of({}, plates).partition(": ")[2]
    'license_plate is not found'
    """
    outlines = graphs["mask_rcnn"].classes if "mask_rcnn" in graphs else ()
    head = taxonomy.head_class if "keypoint_rcnn" in graphs else None
    said = [
        f"{name} is found by the head keypoints of persons alone"
        if name == head
        else f"{name} is not found"
        for name in taxonomy.names
        if name not in outlines
    ]
    return ": ".join(
        filter(None, ["pretrained on COCO, not trained on pictures of streets", "; ".join(said)])
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.zoo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = ZooConfig()
    add = parser.add_argument
    add("--output", type=Path, default=OUTPUT, help="folder to write (default: %(default)s)")
    add(
        "--network",
        nargs="+",
        choices=NETWORKS,
        default=list(default.networks),
        help="networks of the bundle (default: both)",
    )
    add(
        "--mask-model",
        choices=MASK_MODELS,
        default=default.mask_model,
        help="the mask network (default: %(default)s)",
    )
    for option, what in (("--mask-weights", "mask"), ("--keypoint-weights", "keypoint")):
        add(
            option,
            metavar="PATH_OR_URL",
            help=f"weights of the {what} network (default: torchvision's own, downloaded)",
        )
    add(
        "--long-side",
        type=int,
        default=default.long_side,
        help="pixels that a picture's longer side is resized to (default: %(default)s)",
    )
    add(
        "--threshold",
        type=float,
        default=default.threshold,
        help="least score of a find, from 0.05 (default: %(default)s)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the bundle that the command line asks for."""
    given = _parser().parse_args(arguments)

    def run() -> None:
        config = ZooConfig(
            networks=tuple(given.network),
            mask_model=given.mask_model,
            mask_weights=given.mask_weights,
            keypoint_weights=given.keypoint_weights,
            long_side=given.long_side,
            threshold=given.threshold,
        )
        taxonomy = section(compose(), "taxonomy", Taxonomy)
        bundle = make_bundle(given.output, config, taxonomy)
        size = sum(path.stat().st_size for path in given.output.iterdir())
        sys.stdout.write(f"{given.output}: {size / 1e6:.1f} MB, bundle {bundle.digest[:12]}\n")
        sys.stdout.write(f"{bundle.warning}\n")

    ending_in_one_line(run)


if __name__ == "__main__":
    main()
