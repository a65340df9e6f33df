"""Promotion against a real MLflow registry in SQLite, in a temporary repository."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anonymization.bundle import Card, GraphCard, GraphInput, write_bundle
from anonymization.files import read_json, write_json
from anonymization.taxonomy import ClassSpec, Taxonomy
from data.coco import Dataset
from data.tracking import TrackingConfig, experiment_id, loaded_code, open_client
from evaluation import promotion, registry
from evaluation.gate import PromotionConfig

TAXONOMY = Taxonomy({"face": ClassSpec(geometry="ellipse", shape="ellipse")})
CONFIG = PromotionConfig()
TRACKING = TrackingConfig()
TOTAL = 400


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with its tables, made once: making them takes a second."""
    path = tmp_path_factory.mktemp("registry") / "mlruns.db"
    open_client(f"sqlite:///{path}")
    return path


@pytest.fixture
def repo(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository in which every stage before promotion has run."""
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".dvc").mkdir()
    shutil.copy(migrated, tmp_path / "mlruns.db")
    monkeypatch.chdir(tmp_path)
    Dataset((), ()).write(tmp_path / "artifacts/prepared/reference.json", TAXONOMY)
    write_json(tmp_path / "reports/validation.json", {"schema_version": 1, "leaks": []})
    turn(threshold=0.3)
    return tmp_path


def turn(*, threshold: float, missed: int = 0, split: str = "reference") -> None:
    """Leave what the stages leave for a bundle that misses so many of 400 faces."""
    shutil.rmtree("artifacts/bundle", ignore_errors=True)
    graph = GraphCard("mask_rcnn.onnx", "", GraphInput(256), ("face",))
    card = Card(TAXONOMY, {"face": threshold}, {"mask_rcnn": graph})
    bundle = write_bundle("artifacts/bundle", card, {"mask_rcnn": b"graph"})
    reference = Dataset.read(Path("artifacts/prepared/reference.json"), TAXONOMY)
    head = {
        "split": split,
        "bundle_digest": bundle.digest,
        "reference_digest": reference.digest(TAXONOMY),
    }
    bound = {"exact": 0.99, "bootstrap": 0.99, "bound": 0.99}
    sense = {"recalled": TOTAL - missed, "total": TOTAL, "lower_bound": bound}
    evaluation = {
        "schema_version": 1,
        **head,
        "code_revision": "abc",
        "code_files": loaded_code(),
        "thresholds": {"face": threshold},
        "taxonomy_gated": ["face"],
        "classes": {"face": {"detected": sense, "covered": sense, "pictures": TOTAL}},
        "false_finds_per_picture": {"value": 0.2, "pictures": TOTAL},
        "non_object_share_obscured": {"value": 0.02, "pictures": TOTAL},
        "written_output_verified": {"pictures": TOTAL, "failed": []},
    }
    objects = [
        {
            "sha256": f"{i:064d}",
            "class": "face",
            "annotation_id": i,
            "cluster": str(i),
            "detected": i >= missed,
            "covered": i >= missed,
        }
        for i in range(TOTAL)
    ]
    write_json(Path("reports/evaluation.json"), evaluation)
    write_json(Path("artifacts/evaluated/objects.json"), {**head, "objects": objects})


def run(config: PromotionConfig = CONFIG) -> dict[str, Any]:
    inputs = promotion.input_digest(config, TAXONOMY, TRACKING)
    promotion.promote(config, TAXONOMY, TRACKING, inputs=inputs, seed=1)
    return read_json(Path("reports/promotion.json"))


def champion() -> str | None:
    found = registry.champion_version(open_client(), "anonymizer", "champion")
    return None if found is None else str(found.version)


def test_a_model_that_clears_everything_becomes_the_champion_with_its_verdict(repo):
    report = run()
    assert report["outcome"] == "PROMOTED", report["reasons"]
    assert champion() == report["version"] == "1"
    shipped = read_json(Path("artifacts/promoted/verdict.json"))
    assert shipped["bundle_digest"] == report["bundle_digest"]


def test_promoting_twice_registers_once(repo):
    run()
    run()
    assert [v.version for v in registry.versions(open_client(), "anonymizer")] == [1]


def test_a_refusal_is_recorded_as_fully_as_a_promotion_and_moves_nothing(repo):
    run()
    turn(threshold=0.9, missed=40)
    report = run()
    assert report["outcome"] == "REFUSED"
    assert champion() == "1"
    client = open_client()
    tags = client.get_run(report["run_id"]).data.tags
    assert tags["verdict"] == "REFUSED"
    assert "lower bound" in tags["reasons"]
    names = {artifact.path for artifact in client.list_artifacts(report["run_id"])}
    assert {"verdict.json", "verdict.txt", "objects.json", "evaluation.json"} <= names


def test_an_experiment_records_a_forecast_and_moves_no_alias(repo, monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "fast-fox")
    report = run()
    assert report["outcome"] == "PROMOTED"
    assert champion() is None


def test_an_old_revision_moves_the_alias_back_to_its_bundle(repo):
    run()
    turn(threshold=0.2)
    assert run(replace(CONFIG, margin=0.02))["version"] == "2"
    turn(threshold=0.3)
    assert run()["outcome"] == "PROMOTED"
    assert champion() == "1"


def test_rollback_returns_to_the_champion_before_and_the_gate_does_not_undo_it(repo):
    run()
    turn(threshold=0.2)
    run()
    client = open_client()
    registry.run(["rollback", "--name", "Ada", "--reason", "faces at night"])
    assert champion() == "1"
    assert "rolled back by Ada: faces at night" in " ".join(run()["reasons"])
    assert champion() == "1"
    moves = registry.history(client, experiment_id(client, "blurloop"))
    assert [(m["from"], m["to"], m["name"]) for m in moves][-1] == ("2", "1", "Ada")


def test_an_override_by_hand_is_recorded_with_name_and_reason(repo):
    run()
    turn(threshold=0.2)
    run()
    registry.run(["override", "--version", "1", "--name", "Ada", "--reason", "audit"])
    version = registry.champion_version(open_client(), "anonymizer", "champion")
    assert version.tags["override"] == "override by Ada: audit"
    with pytest.raises(registry.RegistryError, match="--reason is empty"):
        registry.run(["override", "--version", "1", "--name", "Ada", "--reason", " "])
    with pytest.raises(registry.RegistryError, match="has no version 9"):
        registry.run(["override", "--version", "9", "--name", "Ada", "--reason", "x"])


def test_a_bundle_changed_after_its_evaluation_is_refused(repo):
    Path("artifacts/bundle/mask_rcnn.onnx").write_bytes(b"other")
    report = run()
    assert report["outcome"] == "REFUSED"
    assert "changed or damaged" in " ".join(report["reasons"])


def test_thresholds_altered_by_hand_are_refused(repo):
    card = Path("artifacts/bundle/card.json")
    card.write_text(json.dumps(json.loads(card.read_text()) | {"thresholds": {"face": 0.9}}))
    assert "thresholds was" in " ".join(run()["reasons"])


def test_a_reference_set_edited_after_the_evaluation_is_refused(repo):
    path = Path("reports/evaluation.json")
    write_json(path, read_json(path) | {"reference_digest": "0" * 64})
    assert "reference was" in " ".join(run()["reasons"])


def test_code_changed_after_the_evaluation_is_refused(repo):
    path = Path("reports/evaluation.json")
    files = {**loaded_code(), "evaluation/gate.py": "0" * 64}
    write_json(path, read_json(path) | {"code_files": files})
    assert "code changed since the evaluation: evaluation/gate.py" in " ".join(run()["reasons"])


def test_a_change_while_judging_stops_the_alias_from_moving(repo):
    with pytest.raises(promotion.PromotionError, match="changed while it was judged"):
        promotion.promote(CONFIG, TAXONOMY, TRACKING, inputs="stale", seed=1)
    assert champion() is None


def test_nothing_to_do_is_known_without_mlflow_until_somebody_writes_to_the_registry(repo):
    inputs = promotion.input_digest(CONFIG, TAXONOMY, TRACKING)
    run()
    promotion.settle(inputs)
    assert promotion.is_settled(inputs)
    registry.run(["override", "--version", "1", "--name", "Ada", "--reason", "x"])
    assert not promotion.is_settled(inputs)


def test_the_entry_point_prints_its_help_within_two_seconds():
    root = Path(promotion.__file__).parent.parent
    command = ["python", "-X", "importtime", "-m", "evaluation.promotion", "--help"]
    import sys

    done = subprocess.run([sys.executable, *command[1:]], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0
    assert " mlflow" not in done.stderr
    assert " torch" not in done.stderr
