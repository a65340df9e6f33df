"""Step 5, training: `python -m training network=mask_rcnn`; see training/run.py."""

from __future__ import annotations

from anonymization.taxonomy import Taxonomy
from conf import stage
from data.tracking.store import TrackingConfig
from training.config import NETWORKS, TrainingConfig
from training.errors import NetworkConfigError


@stage
def main(
    training: TrainingConfig, network: str, taxonomy: Taxonomy, tracking: TrackingConfig, seed: int
) -> None:
    """Train the named network, or all in turn."""
    if network not in (*NETWORKS, "all"):
        raise NetworkConfigError(f"network is {network!r}; expected {', '.join(NETWORKS)} or all")
    from training.run import train

    for name in NETWORKS if network == "all" else (network,):
        train(name, getattr(training, name), taxonomy=taxonomy, tracking=tracking, seed=seed)


if __name__ == "__main__":
    main()
