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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anonymization.card import FP32, VARIANTS, LooksCard, TilingCard
from anonymization.errors import BlurloopError
from anonymization.files import read_json, sha256_of_file
from anonymization.taxonomy import Taxonomy
from conf import stage
from data.layout import BUNDLE, PICTURES, PREPARED, REPORTS, TRAINED
from data.tracking.runs import stage_run
from data.tracking.store import TrackingConfig
from evaluation.config import PromotionConfig
from training.config import NETWORKS

if TYPE_CHECKING:
    from anonymization.bundle import Bundle
    from anonymization.card import Card, GraphCard
    from anonymization.detection.finds import Detections
    from data.coco import Dataset
    from training.bundle.calibration import Choice, ClassEvidence, Goal
    from training.network.rcnn import Network

log = logging.getLogger(__name__)

PARITY_SCORE_MIN = 0.05
"""Below this, rounding decides whether a find passes the network's own score floor of 0.02."""


class BundleConfigError(BlurloopError):
    """A setting of the bundle step is out of range."""

    exit_code = 2


class ParityError(BlurloopError):
    """The exported graph answers otherwise than the network it was made from."""


@dataclass(frozen=True)
class BundleConfig:
    """Settings of export and calibration; `conf/bundle` says what each is for."""

    threshold_min: float = 0.02
    margins: list[float] = field(default_factory=lambda: [0.0, 0.1, 0.2])
    likely: float = 0.9
    false_finds_share: float = 0.8
    hopeless_precision: float | None = None
    head_false_finds_max: float = 0.1
    mask_thresholds: list[float] = field(default_factory=lambda: [0.3, 0.4, 0.5])
    parity_tolerance: float = 0.01
    parity_pictures: int = 3
    variant: str = FP32
    quantization_pictures: int = 32
    float_layers: list[str] = field(default_factory=list)
    float_first: int = 3
    networks: list[str] = field(default_factory=lambda: list(NETWORKS))
    tiling: TilingCard = field(default_factory=TilingCard)
    test_time: LooksCard = field(default_factory=LooksCard)
    note: str = ""

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise BundleConfigError(
                f"bundle.variant is {self.variant!r}; expected one of {', '.join(VARIANTS)}"
            )
        if self.float_first < 0:
            raise BundleConfigError(
                f"bundle.float_first is {self.float_first}; expected a number of layers, or 0"
            )
        if self.quantization_pictures < 1:
            raise BundleConfigError(
                f"bundle.quantization_pictures is {self.quantization_pictures}; expected at least 1"
            )
        if self.hopeless_precision is not None and not 0 < self.hopeless_precision <= 1:
            raise BundleConfigError(
                f"bundle.hopeless_precision is {self.hopeless_precision}; expected null or a share "
                "above 0"
            )
        if not self.networks or not set(self.networks) <= set(NETWORKS):
            raise BundleConfigError(
                f"bundle.networks is {self.networks}; expected some of {', '.join(NETWORKS)}"
            )
        if not 0 < self.threshold_min < 1 or not 0 < self.likely < 1:
            raise BundleConfigError(
                f"bundle.threshold_min is {self.threshold_min} and bundle.likely {self.likely}; "
                "expected both between 0 and 1"
            )
        for name in ("margins", "mask_thresholds"):
            values = getattr(self, name)
            if not values or sorted(set(values)) != list(values):
                raise BundleConfigError(
                    f"bundle.{name} is {values}; expected at least one, ascending"
                )


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


def calibrate(
    card: Card,
    val: Dataset,
    finds: Mapping[str, Detections],
    config: BundleConfig,
    promotion: PromotionConfig,
) -> Card:
    """Return the card with thresholds and margins chosen on val, and the evidence for them."""
    from dataclasses import replace

    from evaluation.truth import truth_of
    from training.bundle.calibration import choose, joint_worth
    from training.bundle.evidence import gather_evidence, with_margins

    taxonomy = card.taxonomy
    truths = [truth_of(i, val.by_image[i.id], taxonomy) for i in val.images]
    split = {
        source: {
            sha: found.select([i for i, s in enumerate(found.sources) if s == source])
            for sha, found in finds.items()
        }
        for source in ("mask_rcnn", "keypoint_rcnn")
    }
    limit = promotion.false_finds_per_picture_max * config.false_finds_share
    tried = {}
    for mask_threshold in config.mask_thresholds:
        evidence = gather_evidence(
            truths,
            split["mask_rcnn"],
            taxonomy,
            margins=config.margins,
            mask_threshold=mask_threshold,
        )
        goals = goals_of(evidence, config, promotion)
        found: dict[str, Choice] = {}
        # What is not gated costs the others nothing: the gate counts neither its recall nor its
        # false finds.
        for gated in (True, False):
            some = {n: e for n, e in evidence.items() if (n in taxonomy.gated) is gated}
            found |= choose(
                some,
                goals,
                false_finds_max=limit - config.head_false_finds_max,
                hopeless_precision=config.hopeless_precision,
            )
        tried[mask_threshold] = {name: found[name] for name in evidence}
    mask_threshold = max(
        tried,
        key=lambda threshold: joint_worth(
            {name: c for name, c in tried[threshold].items() if name in taxonomy.gated}
        ),
    )
    choices = tried[mask_threshold]
    heads = gather_evidence(
        truths, split["keypoint_rcnn"], taxonomy, margins=[0.0], mask_threshold=mask_threshold
    )
    margins = {name: choice.margin for name, choice in choices.items()}
    return replace(
        card,
        taxonomy=with_margins(taxonomy, margins),
        thresholds={name: choice.threshold for name, choice in choices.items()},
        head=replace(card.head, threshold=head_threshold(heads, taxonomy, config)),
        mask_threshold=mask_threshold,
        calibration={
            **_calibration(choices, goals, val, taxonomy),
            "mask_thresholds": {str(t): _stands(found) for t, found in tried.items()},
        },
    )


def _stands(choices: Mapping[str, Choice]) -> dict[str, float]:
    return {name: round(choice.likely, 4) for name, choice in choices.items()}


def goals_of(
    evidence: Mapping[str, ClassEvidence], config: BundleConfig, promotion: PromotionConfig
) -> dict[str, Goal]:
    """Return what each class must reach on the reference set that waits for it.

    Of the reference set only the number of its objects is read. A set too small to prove
    anything is treated as if it were just large enough: recall is not given up because of it.
    """
    from evaluation.bound import exact_lower
    from training.bundle.calibration import Goal, needed_recalls

    counts = read_json(REPORTS / "preparation.json")["splits"]["reference"]["identifiable"]

    def clears(recalled: int, total: int) -> bool:
        if promotion.confidence is None:
            return recalled / total >= promotion.recall_min
        bound = exact_lower(recalled, total, confidence=promotion.confidence)
        return bool(bound >= promotion.recall_min)

    goals = {}
    for name in evidence:
        objects = max(counts.get(name, 0), promotion.objects_min)
        goals[name] = Goal(
            reference_objects=objects,
            needed=needed_recalls(objects, clears=clears),
            likely=config.likely,
            threshold_min=config.threshold_min,
        )
    return goals


def head_threshold(
    evidence: Mapping[str, ClassEvidence], taxonomy: Taxonomy, config: BundleConfig
) -> float:
    """Return the lowest threshold at which head regions stay within their share of false finds.

    A head is a second signal beside the face class, so it can only add recall. Where no picture
    labels every face, nothing is known of its false finds, and 0.5 is taken.
    """
    import numpy as np

    if taxonomy.head_class is None or not evidence[taxonomy.head_class].labelled_pictures:
        return 0.5
    faces = evidence[taxonomy.head_class]
    allowed = int(config.head_false_finds_max * faces.labelled_pictures)
    scores = np.sort(faces.false_scores)[::-1]
    if len(scores) <= allowed:
        return config.threshold_min
    return float(min(np.ceil(scores[allowed] * 1000 + 1) / 1000, 1.0))


def _calibration(
    choices: Mapping[str, Choice], goals: Mapping[str, Goal], val: Dataset, taxonomy: Taxonomy
) -> dict[str, Any]:
    return {
        "split": "val",
        "pictures": len(val.images),
        "val_digest": val.digest(taxonomy),
        "short_of_goal": sorted(name for name, choice in choices.items() if not choice.reached),
        "classes": {
            name: {"goal": asdict(goals[name]), **_plain(choice)}
            for name, choice in choices.items()
        },
    }


def _plain(choice: Choice) -> dict[str, Any]:
    return {**asdict(choice), "curve": list(choice.curve)}


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
