"""The card of a bundle: what it is, how pictures reach its networks, and what counts as a find."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from anonymization.errors import BlurloopError
from anonymization.files import sha256_of_json
from anonymization.panorama.presets import AUTO, PresetError, check_preset
from anonymization.taxonomy import Taxonomy, TaxonomyError

SCHEMA_VERSION = 1
CARD = "card.json"
MASK_NETWORK = "mask_rcnn"
KEYPOINT_NETWORK = "keypoint_rcnn"
NETWORKS = (MASK_NETWORK, KEYPOINT_NETWORK)

FP32 = "fp32"
VARIANTS = (FP32, "fp16", "int8_weights", "int8")
"""How the graphs of a bundle store numbers and count: as trained; weights in 16 bits or in 8, sums
in float32; layers in 8 bits."""

T = TypeVar("T")


class BundleError(BlurloopError):
    """A bundle is not what its card says, or its card says something impossible."""


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


def is_number(value: Any) -> bool:
    """Return whether a value from JSON is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _in_range(what: str, value: Any, low: float, high: float) -> None:
    if not is_number(value) or not low <= value <= high:
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
        outputs: What the graph returns, by name; `heatmaps` beside `masks` makes it a joint one.
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
class TilingCard:
    """Into which views a picture is cut before the networks see it; see `layout`.

    Attributes:
        shrink_max: Largest factor by which a flat picture is reduced to the network's input;
            larger pictures are also looked at in tiles. None looks at the whole picture alone.
        tile_shrink: Largest factor by which the finest tiles are reduced; None for `shrink_max`.
        overlap: Share of a view's side by which neighbouring views overlap: objects up to that
            size are seen whole by one of them.
        panorama: Preset for panoramas and fisheye pictures, or `auto` by the picture's size.
    """

    shrink_max: float | None = None
    tile_shrink: float | None = None
    overlap: float = 0.25
    panorama: str = AUTO

    def __post_init__(self) -> None:
        for name in ("shrink_max", "tile_shrink"):
            if getattr(self, name) is not None:
                _in_range(f"tiling.{name}", getattr(self, name), 0.25, 64)
        _in_range("tiling.overlap", self.overlap, 0.05, 0.6)
        try:
            check_preset(self.panorama)
        except PresetError as error:
            raise BundleError(f"tiling.panorama: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Return plain types; without `tile_shrink` where it is `shrink_max`."""
        return {k: v for k, v in asdict(self).items() if k != "tile_shrink" or v is not None}


BEST, SOFT = "best", "soft"
MERGES = (BEST, SOFT)


@dataclass(frozen=True)
class LooksCard:
    """How often the networks look at a view, and how their finds become one; see `looks`.

    Attributes:
        flip: Whether each view is also shown mirrored. Doubles the time.
        scales: Sizes in which it is shown, relative to the network's input.
        merge: `best` keeps the surest of finds that overlap by `nms_iou`; `soft` lowers the
            scores of the others by their overlap.
    """

    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    merge: str = BEST

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", tuple(self.scales))
        if not isinstance(self.flip, bool):
            raise BundleError(f"test_time.flip is {self.flip!r}; expected true or false")
        for scale in self.scales:
            _in_range("test_time.scales", scale, 0.25, 4)
        if not self.scales or len(set(self.scales)) < len(self.scales):
            raise BundleError(
                f"test_time.scales is {list(self.scales)}; expected at least one, each once"
            )
        if self.merge not in MERGES:
            raise BundleError(f"test_time.merge is {self.merge!r}; expected {' or '.join(MERGES)}")


@dataclass(frozen=True)
class Card:
    """What a bundle is and how it is used; the content of `card.json`.

    Attributes:
        taxonomy: Classes with the calibrated margins.
        thresholds: Least score per class.
        graphs: The networks, by name (`mask_rcnn`, `keypoint_rcnn`). A joint `mask_rcnn` returns
            heat maps as well, and stands alone.
        head: Head regions from keypoints.
        nms_iou: Overlap (box IoU) at which two finds of one class and one source are the same
            object, and a head region and a face are.
        mask_threshold: Least probability at which a pixel belongs to an outline. Below the usual
            0.5: a pixel too many is a smaller loss than a pixel too few.
        provenance: Training run, data digests, code revision; free form.
        calibration: How thresholds and margins were chosen; free form.
        name: Registered model that the bundle is a version of.
        tiling: Into which views pictures are cut.
        test_time: How often the networks look at each view.
        note: What whoever uses the bundle must know, such as the licence of its training
            pictures; one line, or empty.
        variant: One of `VARIANTS`.
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
    tiling: TilingCard = field(default_factory=TilingCard)
    test_time: LooksCard = field(default_factory=LooksCard)
    note: str = ""
    variant: str = FP32

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
        if not isinstance(self.note, str) or "\n" in self.note:
            raise BundleError(f"note is {self.note!r}; expected one line of text")
        if self.variant not in VARIANTS:
            raise BundleError(f"variant is {self.variant!r}; known: {', '.join(VARIANTS)}")
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
        # Left out where it is the default: cards that were written without it keep their digest.
        tiling = {} if self.tiling == TilingCard() else {"tiling": self.tiling.to_dict()}
        looks = asdict(self.test_time) | {"scales": list(self.test_time.scales)}
        test_time = {} if self.test_time == LooksCard() else {"test_time": looks}
        note = {"note": self.note} if self.note else {}
        variant = {} if self.variant == FP32 else {"variant": self.variant}
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
            **tiling,
            **test_time,
            **note,
            **variant,
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
        if "tiling" in rest:
            rest["tiling"] = _build(TilingCard, rest["tiling"], "tiling")
        if "test_time" in rest:
            rest["test_time"] = _build(LooksCard, rest["test_time"], "test_time")
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
