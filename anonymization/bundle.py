"""The bundle: the only thing that passes from the factory to the anonymizer.

A folder with `card.json`, one ONNX graph per network, and `verdict.json` once a gate has judged
it. It is data: loading one checks every byte against the card and runs nothing. Graph bytes are
read once and kept, so that what was checked is what runs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from anonymization.errors import BlurloopError
from anonymization.files import (
    FileError,
    folder_in_one_step,
    read_json,
    sha256_of_json,
    write_bytes,
    write_json,
)
from anonymization.taxonomy import Taxonomy, TaxonomyError

SCHEMA_VERSION = 1
CARD = "card.json"
VERDICT = "verdict.json"
VERDICTS = "verdicts"
"""Folder beside a bundle in which the loop leaves one verdict per bundle digest."""
MASK_NETWORK = "mask_rcnn"
KEYPOINT_NETWORK = "keypoint_rcnn"
NETWORKS = (MASK_NETWORK, KEYPOINT_NETWORK)
PROMOTED = "PROMOTED"
REFUSED = "REFUSED"

T = TypeVar("T")


class BundleError(BlurloopError):
    """A bundle is not what its card says, or its card says something impossible."""


class VerdictError(BundleError):
    """A verdict stands beside a bundle that it did not judge."""


def _build(kind: type[T], values: Any, what: str) -> T:
    """Build a card part from JSON; an unknown or missing key names the part."""
    if not isinstance(values, Mapping):
        raise BundleError(f"{what} is {values!r}; expected an object")
    known = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise BundleError(f"{what} has unknown key {unknown[0]!r}; known: {sorted(known)}")
    try:
        return kind(**values)
    except TypeError as error:
        raise BundleError(f"{what} cannot be read: {error}") from error


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _in_range(what: str, value: Any, low: float, high: float) -> None:
    if not _is_number(value) or not low <= value <= high:
        raise BundleError(f"{what} is {value!r}; expected a number from {low} to {high}")


@dataclass(frozen=True)
class GraphInput:
    """How a picture is brought to a graph.

    Attributes:
        long_side: Length in pixels that the picture's longer side is resized to.
        upscale_max: Largest factor by which a small picture is enlarged.
        multiple: Both sides are padded, right and below, to a multiple of this many pixels.
        pad_rgb: Colour of that padding in [0, 1].
    """

    long_side: int
    upscale_max: float = 1.0
    multiple: int = 32
    pad_rgb: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pad_rgb", tuple(self.pad_rgb))
        _in_range("input.long_side", self.long_side, 32, 16384)
        _in_range("input.upscale_max", self.upscale_max, 0.01, 16)
        _in_range("input.multiple", self.multiple, 1, 1024)
        if len(self.pad_rgb) != 3:
            raise BundleError(f"input.pad_rgb is {self.pad_rgb}; expected three numbers")
        for value in self.pad_rgb:
            _in_range("input.pad_rgb", value, 0, 1)


@dataclass(frozen=True)
class GraphCard:
    """One network of a bundle.

    Attributes:
        file: Name of the ONNX file inside the folder.
        sha256: Digest of its bytes; `write_bundle` fills it in where it is empty.
        input: How a picture is brought to it.
        classes: Class names by label; each is a class of the taxonomy.
        outputs: What the graph returns, for the reader; free form.
    """

    file: str
    sha256: str
    input: GraphInput
    classes: tuple[str, ...]
    outputs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.input, Mapping):
            object.__setattr__(self, "input", _build(GraphInput, self.input, "graph input"))
        object.__setattr__(self, "classes", tuple(self.classes))
        name = self.file
        if not isinstance(name, str) or not name or Path(name).name != name or name.startswith("."):
            raise BundleError(
                f"graph file {name!r} is not a plain file name; "
                "a bundle holds its graphs beside its card"
            )
        if not self.classes:
            raise BundleError(f"graph {name} has no class")


@dataclass(frozen=True)
class HeadCard:
    """When a person's keypoints make a head region, and how large it is drawn.

    Attributes:
        threshold: Least score of the person find.
        keypoint_score_min: Least heat-map value (a logit) at which a keypoint counts as seen.
        scale: Factor on the estimated width and height of the face.
        aspect: Height of a face over its width: hairline to chin over the cheekbones.
        ears_only: Whether two ears without nose and eyes (a head seen from behind) make one.
    """

    threshold: float = 0.5
    keypoint_score_min: float = 0.0
    scale: float = 1.0
    aspect: float = 1.3
    ears_only: bool = False

    def __post_init__(self) -> None:
        _in_range("head.threshold", self.threshold, 0, 1)
        _in_range("head.keypoint_score_min", self.keypoint_score_min, -1e6, 1e6)
        _in_range("head.scale", self.scale, 0.1, 10)
        _in_range("head.aspect", self.aspect, 0.1, 10)


@dataclass(frozen=True)
class Card:
    """What a bundle is and how it is used; the content of `card.json`.

    Attributes:
        taxonomy: Classes with the calibrated margins.
        thresholds: Least score per class.
        graphs: The networks, by name (`mask_rcnn`, `keypoint_rcnn`).
        head: Head regions from keypoints.
        nms_iou: Overlap (box IoU) at which two finds of one class and one source are the same
            object, and a head region and a face are.
        mask_threshold: Least probability at which a pixel belongs to an outline. Below the usual
            0.5: a pixel too many is a smaller loss than a pixel too few.
        provenance: Training run, data digests, code revision; free form.
        calibration: How thresholds and margins were chosen; free form.
        name: Registered model that the bundle is a version of.
    """

    taxonomy: Taxonomy
    thresholds: dict[str, float]
    graphs: dict[str, GraphCard]
    head: HeadCard = field(default_factory=HeadCard)
    nms_iou: float = 0.5
    mask_threshold: float = 0.4
    provenance: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    name: str = "anonymizer"

    def __post_init__(self) -> None:
        names = self.taxonomy.names
        if set(self.thresholds) != set(names):
            raise BundleError(
                f"thresholds are given for {sorted(self.thresholds)}; expected {sorted(names)}"
            )
        for name, value in self.thresholds.items():
            _in_range(f"threshold of {name}", value, 0, 1)
        _in_range("nms_iou", self.nms_iou, 0, 1)
        _in_range("mask_threshold", self.mask_threshold, 0.01, 0.99)
        if not self.graphs:
            raise BundleError("the card names no graph; expected mask_rcnn, keypoint_rcnn or both")
        for network, graph in self.graphs.items():
            self._check_graph(network, graph)
        if len({graph.file for graph in self.graphs.values()}) != len(self.graphs):
            raise BundleError("two graphs of the card share a file")

    def _check_graph(self, network: str, graph: GraphCard) -> None:
        if network not in NETWORKS:
            raise BundleError(f"unknown graph {network!r}; known graphs: {', '.join(NETWORKS)}")
        for name in graph.classes:
            if name not in self.taxonomy.classes:
                raise BundleError(
                    f"graph {network} finds class {name!r}, which the taxonomy lacks; "
                    f"known classes: {', '.join(self.taxonomy.names)}"
                )

    @property
    def digest(self) -> str:
        """SHA-256 over the card, and through the digests that it holds over the graphs."""
        return sha256_of_json(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, for JSON."""
        graphs = {
            network: asdict(graph)
            | {
                "classes": list(graph.classes),
                "input": asdict(graph.input) | {"pad_rgb": list(graph.input.pad_rgb)},
            }
            for network, graph in self.graphs.items()
        }
        return {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "taxonomy": self.taxonomy.to_dict(),
            "thresholds": self.thresholds,
            "graphs": graphs,
            "head": asdict(self.head),
            "nms_iou": self.nms_iou,
            "mask_threshold": self.mask_threshold,
            "provenance": self.provenance,
            "calibration": self.calibration,
        }

    @classmethod
    def from_dict(cls, values: Any) -> Card:
        """Check and build from the content of `card.json`.

        Raises:
            BundleError: If a key is missing or unknown, or a value is out of range.
        """
        if not isinstance(values, Mapping):
            raise BundleError("the card is not a JSON object")
        rest = dict(values)
        version = rest.pop("schema_version", None)
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"the card has schema version {version}; expected {SCHEMA_VERSION}. "
                "Use the version of Blurloop that wrote the bundle, or export it again"
            )
        graphs = rest.get("graphs")
        if isinstance(graphs, Mapping):
            rest["graphs"] = {
                network: _build(GraphCard, graph, f"graph {network}")
                for network, graph in graphs.items()
            }
        if "head" in rest:
            rest["head"] = _build(HeadCard, rest["head"], "head")
        try:
            rest["taxonomy"] = Taxonomy.from_dict(rest.get("taxonomy") or {})
        except TaxonomyError as error:
            raise BundleError(f"the card's taxonomy is wrong: {error}") from error
        return _build(cls, rest, "the card")

    def with_thresholds(self, thresholds: Mapping[str, float]) -> Card:
        """Return a card with some thresholds changed; unknown classes are refused."""
        for name in thresholds:
            self.taxonomy[name]
        return dataclasses.replace(self, thresholds={**self.thresholds, **thresholds})


@dataclass(frozen=True)
class Verdict:
    """What the gate said about a bundle; the content of `verdict.json`.

    Attributes:
        outcome: `PROMOTED` or `REFUSED`.
        bundle_digest: Digest of the bundle that was judged.
        values: The whole file, with every criterion.
    """

    outcome: str
    bundle_digest: str
    values: Mapping[str, Any]

    def recalls(self) -> dict[str, str]:
        """Return measured recall per class as text, `detected/covered`, where it is recorded."""
        classes = self.values.get("classes")
        if not isinstance(classes, Mapping):
            return {}
        return {
            str(name): "/".join(_recall_text(senses, sense) for sense in ("detected", "covered"))
            for name, senses in classes.items()
            if isinstance(senses, Mapping)
        }


def _recall_text(senses: Mapping[str, Any], sense: str) -> str:
    value = senses.get(sense)
    recall = value.get("recall") if isinstance(value, Mapping) else value
    return f"{recall:.3f}" if _is_number(recall) else "unknown"


@dataclass(frozen=True)
class Bundle:
    """A bundle whose bytes were checked.

    Attributes:
        path: Folder that it was read from.
        card: Its card.
        graphs: Checked bytes of each graph, by network name.
        verdict: What the gate said, or None where no gate has judged it.
    """

    path: Path
    card: Card
    graphs: Mapping[str, bytes] = field(repr=False)
    verdict: Verdict | None = None

    @property
    def digest(self) -> str:
        """SHA-256 that covers the card and the graphs."""
        return self.card.digest

    @property
    def warning(self) -> str | None:
        """One line for whoever uses the bundle, or None where the gate promoted it."""
        if self.verdict is None:
            return (
                f"bundle {self.path} has no verdict: nobody has measured what it misses. "
                "Evaluate it (dvc repro) before you rely on it"
            )
        if self.verdict.outcome == PROMOTED:
            return None
        measured = ", ".join(f"{n} {r}" for n, r in self.verdict.recalls().items())
        return (
            f"bundle {self.path} was REFUSED by the gate"
            + (f"; measured recall (detected/covered): {measured}" if measured else "")
            + ". Do not publish what it anonymized without looking at it"
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Bundle:
        """Read a bundle and check every byte of it against its card.

        Raises:
            BundleError: If the folder or a file is missing, a digest does not match, a file is
                there that the card does not list, or the card is wrong.
            VerdictError: If the verdict names another bundle.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise BundleError(
                f"bundle {folder} is not a folder; expected one with {CARD} "
                "(the loop writes artifacts/bundle)"
            )
        try:
            card = Card.from_dict(read_json(folder / CARD))
        except FileError as error:
            raise BundleError(f"bundle {folder} has no usable card: {error}") from error
        except BundleError as error:
            raise BundleError(f"{folder / CARD}: {error}") from error
        _refuse_unlisted(folder, card)
        graphs = {name: _read_graph(folder, graph) for name, graph in card.graphs.items()}
        return cls(folder, card, MappingProxyType(graphs), read_verdict(folder, card.digest))


def _refuse_unlisted(folder: Path, card: Card) -> None:
    # ONNX graphs may point at weight files beside them, which no digest would cover.
    listed = {CARD, VERDICT, *(graph.file for graph in card.graphs.values())}
    for entry in sorted(folder.iterdir()):
        if entry.name not in listed:
            raise BundleError(
                f"bundle {folder} holds {entry.name!r}, which its card does not list; "
                "remove it, or take the bundle from where it came once more"
            )
        if entry.is_symlink() and not entry.resolve().is_file():
            raise BundleError(f"bundle {folder}: {entry.name!r} is a link to nothing")


def _read_graph(folder: Path, graph: GraphCard) -> bytes:
    path = folder / graph.file
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"graph {path} cannot be read: {error}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != graph.sha256:
        raise BundleError(
            f"graph {path} has sha256 {found}; its card says {graph.sha256}. "
            "The file was changed or damaged: take the bundle from where it came once more"
        )
    return content


def read_verdict(folder: Path, digest: str) -> Verdict | None:
    """Read the verdict on a bundle; None where there is none.

    It is `verdict.json` in the bundle, as shipped, or `verdicts/<digest>.json` beside it, where
    the loop leaves it: the bundle there is an output whose bytes must stay.

    Raises:
        VerdictError: If it cannot be read or names another digest.
    """
    shipped, beside = folder / VERDICT, folder.absolute().parent / VERDICTS / f"{digest}.json"
    path = shipped if shipped.exists() else beside
    if not path.exists():
        return None
    try:
        values = read_json(path, schema_version=SCHEMA_VERSION)
    except FileError as error:
        raise VerdictError(f"verdict beside the bundle cannot be read: {error}") from error
    outcome, named = values.get("outcome"), values.get("bundle_digest")
    if outcome not in (PROMOTED, REFUSED):
        raise VerdictError(f"{path}: outcome is {outcome!r}; expected {PROMOTED} or {REFUSED}")
    if named != digest:
        raise VerdictError(
            f"{path} judges bundle {named}; this bundle is {digest}. "
            "Remove the verdict, or take bundle and verdict together"
        )
    return Verdict(outcome, named, values)


def write_bundle(
    folder: str | os.PathLike[str], card: Card, graphs: Mapping[str, bytes | Path]
) -> Bundle:
    """Write a bundle in one step and read it back.

    Args:
        folder: Where to; an older bundle there is replaced.
        card: Its card; empty digests are filled in.
        graphs: Bytes or file of each graph that the card names.

    Raises:
        BundleError: If card and graphs name different networks, or a digest in the card is not
            that of the graph.
    """
    if set(graphs) != set(card.graphs):
        raise BundleError(
            f"graphs {sorted(graphs)} were given; the card names {sorted(card.graphs)}"
        )
    contents = {
        name: source if isinstance(source, bytes) else Path(source).read_bytes()
        for name, source in graphs.items()
    }
    listed = {}
    for name, graph in card.graphs.items():
        found = hashlib.sha256(contents[name]).hexdigest()
        if graph.sha256 not in ("", found):
            raise BundleError(f"graph {name} has sha256 {found}; the card says {graph.sha256}")
        listed[name] = dataclasses.replace(graph, sha256=found)
    complete = dataclasses.replace(card, graphs=listed)
    with folder_in_one_step(Path(folder)) as work:
        for name, graph in listed.items():
            write_bytes(work / graph.file, contents[name])
        write_json(work / CARD, complete.to_dict())
    return Bundle.load(folder)
