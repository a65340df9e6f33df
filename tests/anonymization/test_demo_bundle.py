"""The bundle that a clone comes with says what it is."""

import numpy as np
import pytest

from anonymization.bundle import Bundle
from anonymization.detection.detector import Detector
from anonymization.registry import DEMO, load_bundle, warning_about


@pytest.fixture(scope="module")
def demo() -> Bundle:
    return Bundle.load(DEMO)


def test_it_is_small_and_knows_the_classes_of_the_street(demo: Bundle) -> None:
    assert sum(path.stat().st_size for path in DEMO.iterdir()) <= 10 * 2**20
    assert demo.card.taxonomy.names == ("face", "person", "license_plate", "vehicle")


def test_without_a_model_it_is_used_and_warns_of_its_verdict_recall_and_licence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("MLFLOW_REGISTRY_URI", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    bundle = load_bundle(None)
    said = str(warning_about(None, bundle))
    assert bundle.verdict is not None
    assert bundle.verdict.outcome == "REFUSED"
    for name, recall in bundle.verdict.recalls().items():
        assert f"{name} {recall}" in said
    assert "demo bundle" in said
    assert "for evaluation only" in said


def test_its_graph_runs_and_finds_nothing_in_a_blank_picture(demo: Bundle) -> None:
    found = Detector.from_bundle(demo).detect(np.full((240, 320, 3), 127, np.uint8))
    assert len(found) == 0
