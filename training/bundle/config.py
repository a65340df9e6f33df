"""Settings of the bundle step."""

from __future__ import annotations

from dataclasses import dataclass, field

from anonymization.card import FP32, VARIANTS, LooksCard, TilingCard
from anonymization.errors import BlurloopError
from training.config import NETWORKS


class BundleConfigError(BlurloopError):
    """A setting of the bundle step is out of range."""

    exit_code = 2


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
