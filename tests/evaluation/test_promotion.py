"""Promotion against a real MLflow registry in SQLite, in a temporary repository."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image as Pillow

from anonymization.bundle import Bundle, write_bundle
from anonymization.card import FP32, Card, GraphCard, GraphInput
from anonymization.files import read_json, sha256_of_file, write_json
from anonymization.registry import load_bundle
from anonymization.taxonomy import STRENGTH_MIN, ClassSpec, Taxonomy
from data.coco import Annotation, Dataset, Image
from data.layout import GROUPS, PREPARED, SPLITS, VALIDATED
from data.reference import write_release
from data.tracking.revisions import loaded_code
from data.tracking.store import TrackingConfig, experiment_id, open_client, registry_lock
from evaluation import __main__ as evaluating
from evaluation import promotion, registry, settled
from evaluation.attack import Setting, obscuring_digest
from evaluation.binding import MEASURING
from evaluation.bound import lower_bound
from evaluation.champion import as_known_to
from evaluation.config import EvaluationConfig, PromotionConfig
from evaluation.promotion import ChampionMovedError
from evaluation.record import dvc_md5
from evaluation.turn import VALIDATION, Settings

ROOT = Path(promotion.__file__).parent.parent
TAXONOMY = Taxonomy({"face": ClassSpec(geometry="ellipse", shape="ellipse")})
CONFIG = PromotionConfig()
SETTINGS = Settings(CONFIG, EvaluationConfig(), TAXONOMY, TrackingConfig(), 1)
TOTAL = 400
FACE = (10.0, 8.0, 30.0, 28.0)
ENVIRONMENT = ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_EXP_NAME")
EVALUATION = Path("reports/evaluation.json")
OBJECTS = Path("artifacts/evaluated/objects.json")
REFERENCE = Path("artifacts/prepared/reference.json")
CARD = Path("artifacts/bundle/card.json")

Turn = Callable[..., None]


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with its tables, made once: making them takes a second."""
    path = tmp_path_factory.mktemp("registry") / "mlruns.db"
    open_client(f"sqlite:///{path}")
    return path


@pytest.fixture
def repo(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch, turn: Turn) -> Path:
    """A repository in which every stage before promotion has run."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".dvc").mkdir()
    shutil.copy(migrated, tmp_path / "mlruns.db")
    monkeypatch.chdir(tmp_path)
    Dataset((), ()).write(REFERENCE, TAXONOMY)
    write_json(GROUPS, {"schema_version": 1, "groups": {}})
    keep_attack(leaked=0)
    turn(threshold=0.3)
    return tmp_path


@pytest.fixture
def turn(constant_networks: ModuleType) -> Turn:
    """Return a function that leaves what the stages leave for a bundle."""
    graph = constant_networks.constant_graph(constant_networks.mask_outputs([(list(FACE), 0.9, 0)]))

    def leave(
        *,
        threshold: float,
        missed: int = 0,
        split: str = "reference",
        faces: list[tuple[str, int]] | None = None,
        variant: str = FP32,
    ) -> None:
        """Bundle of a threshold that misses the first of its faces, (picture, annotation)."""
        shutil.rmtree("artifacts/bundle", ignore_errors=True)
        listed = {"mask_rcnn": GraphCard("mask_rcnn.onnx", "", GraphInput(512), ("face",))}
        card = Card(TAXONOMY, {"face": threshold}, listed, variant=variant)
        bundle = write_bundle("artifacts/bundle", card, {"mask_rcnn": graph})
        found = faces or [(f"{i:064d}", i) for i in range(TOTAL)]
        _leave_evaluation(bundle, threshold, found, missed, split)

    return leave


def _leave_evaluation(
    bundle: Bundle, threshold: float, faces: list[tuple[str, int]], missed: int, split: str
) -> None:
    dataset = Dataset.read(Path(f"artifacts/prepared/{split}.json"), TAXONOMY)
    head = {"split": split, "bundle_digest": bundle.digest, "variant": bundle.card.variant}
    head["reference_digest"] = dataset.digest(TAXONOMY)
    seen = [index >= missed for index in range(len(faces))]
    objects = [
        {"sha256": sha256, "class": "face", "annotation_id": number, "cluster": sha256}
        | {"detected": found, "covered": found}
        for (sha256, number), found in zip(faces, seen, strict=True)
    ]
    write_json(OBJECTS, {**head, "objects": objects})
    bounds = lower_bound(np.array(seen, int), np.ones(len(faces), int), seed=1)
    sense = {"recalled": sum(seen), "total": len(faces), "lower_bound": bounds.to_dict()}
    pictures = {"pictures": len(faces)}
    clusters = {"clusters": len(faces), "effective_clusters": float(len(faces))}
    evaluation = {
        "schema_version": 1,
        **head,
        "objects_sha256": sha256_of_file(OBJECTS),
        "code_revision": "abc",
        # One file that is edited seldom, or an edit while the tests run would refuse the bundle.
        "code_files": code_lines("anonymization/errors.py"),
        "confidence": 0.95,
        "thresholds": {"face": threshold},
        "taxonomy_gated": ["face"],
        "classes": {"face": {"detected": sense, "covered": sense} | clusters},
        "false_finds_per_picture": {"value": 0.2, **pictures, "by_class": {"face": 0.2}},
        "non_object_share_obscured": {"value": 0.02, **pictures},
        "written_output_verified": {**pictures, "failed": []},
    }
    write_json(EVALUATION, evaluation)
    splits = {split: PREPARED / f"{split}.json" for split in SPLITS}
    looked_at = {s: sha256_of_file(p) if p.is_file() else None for s, p in splits.items()}
    write_json(VALIDATION, {"schema_version": 1, "leaks": [], "data_sha256": looked_at})


def keep_attack(*, leaked: int) -> None:
    """Leave an attack on the default way of obscuring a face."""
    row = {"attack": "faces matched", "method": "blur", "strength": STRENGTH_MIN, "default_of": []}
    row |= {"leaked": leaked, "total": 60, "rate": leaked / 60, "lower": 0.0, "upper": 0.25}
    rows = [row | {"chance": 1 / 60, "refused": leaked > 3}]
    attack = {"schema_version": 1, "date": "2026-01-01", "material": "60 faces", "rows": rows}
    digest = obscuring_digest(Setting("blur", STRENGTH_MIN))
    attack["obscuring"] = [{"method": "blur", "strength": STRENGTH_MIN, "sha256": digest}]
    write_json(Path("reports/attack.json"), attack)


def code_lines(path: str) -> list[str]:
    """What evaluation records of one file of code."""
    return [f"{loaded_code()[path]}  {path}"]


def run(settings: Settings = SETTINGS) -> dict[str, Any]:
    promotion.promote(settings, inputs=settled.input_digest(settings))
    return dict(read_json(Path("reports/promotion.json")))


def reasons(report: dict[str, Any]) -> str:
    return " ".join(report["reasons"])


def criteria(report: dict[str, Any]) -> str:
    return " ".join(criterion["reason"] for criterion in report["criteria"])


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    """Edit a JSON file as somebody with an editor would."""
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


IMAGE = {"id": 1, "sha256": "a" * 64, "file_name": "a.png", "width": 9, "height": 9}
IMAGE |= {"labelled": [], "partial": [], "keypoints_labelled": False, "fields": {}}


def pictures_with_faces(count: int) -> tuple[Dataset, list[tuple[str, int]]]:
    """Collect grey pictures of which each shows, as truth, the face that every bundle finds."""
    folder = Path("artifacts/collected/pictures")
    folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number in range(1, count + 1):
        path = folder / f"{number}.png"
        Pillow.fromarray(np.full((64, 80, 3), 40 + number, np.uint8)).save(path)
        fields = {"source": "s"}
        images.append(
            Image(number, sha256_of_file(path), path.name, 80, 64, ("face",), fields=fields)
        )
        annotations.append(Annotation(number, number, "face", FACE))
    images.sort(key=lambda image: image.sha256)
    numbered = [replace(image, id=i) for i, image in enumerate(images, 1)]
    data = Dataset(tuple(numbered), tuple(annotations))
    return data, [(image.sha256, image.id) for image in numbered]


def champion(alias: str = "champion") -> str | None:
    found = registry.champion_version(open_client(), "anonymizer", alias)
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


def test_a_refusal_is_recorded_as_fully_as_a_promotion_and_moves_nothing(repo, turn):
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


def test_the_run_of_a_turn_carries_the_headline_that_turns_are_compared_by(repo):
    report = run()
    client = open_client()
    stage = client.get_run(report["run_id"])
    turn_run = client.get_run(stage.data.tags["mlflow.parentRunId"])
    metrics = turn_run.data.metrics
    bound = report["classes"]["face"]["covered"]["lower_bound"]["bound"]
    assert metrics["recall/face/covered"] == 1.0
    assert metrics["bound/lowest"] == metrics["bound/face/covered"] == bound
    assert metrics["false_finds_per_picture"] == 0.2
    assert turn_run.data.tags["verdict"] == "PROMOTED"
    note = turn_run.data.tags["mlflow.note.content"]
    assert note.startswith("**PROMOTED.** Measured on the reference set.\n\n| class |")
    assert "| face | 1.000 |" in note
    assert client.get_model_version("anonymizer", "1").description == note
    assert "anonymize --model" in client.get_registered_model("anonymizer").description


def test_an_experiment_records_a_forecast_and_moves_no_alias(repo, monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "fast-fox")
    report = run()
    assert report["outcome"] == "PROMOTED"
    assert champion() is None


def test_an_old_revision_moves_the_alias_back_to_its_bundle(repo, turn):
    run()
    turn(threshold=0.2)
    assert run()["version"] == "2"
    turn(threshold=0.3)
    assert run()["outcome"] == "PROMOTED"
    assert champion() == "1"


def test_a_variant_becomes_the_champion_of_its_own_alias_and_leaves_the_others(repo, turn):
    run()
    turn(threshold=0.3, variant="int8")
    report = run()
    assert report["outcome"] == "PROMOTED", report["reasons"]
    assert (report["alias"], report["version"]) == ("champion-int8", "2")
    assert (champion(), champion("champion-int8")) == ("1", "2")
    assert "against version 1" not in criteria(report)
    turn(threshold=0.2, variant="int8_weights")
    run()
    assert [champion(f"champion{end}") for end in ("", "-int8", "-int8-weights")] == ["1", "2", "3"]
    assert [v.version for v in registry.versions(open_client(), "anonymizer")] == [1, 2, 3]


def test_a_variant_is_compared_with_its_own_champion(repo, turn):
    run()
    turn(threshold=0.3, variant="int8", missed=6)
    run()
    turn(threshold=0.2, variant="int8")
    report = run()
    assert "face: 6 objects gained, 0 lost against version 2" in criteria(report)
    assert (champion(), champion("champion-int8")) == ("1", "3")


def test_a_refused_variant_moves_no_alias(repo, turn):
    run()
    turn(threshold=0.3, variant="int8", missed=60)
    assert run()["outcome"] == "REFUSED"
    assert (champion(), champion("champion-int8")) == ("1", None)


def test_a_variant_is_had_and_rolled_back_by_its_alias(repo, turn, monkeypatch):
    run()
    for threshold in (0.3, 0.2):
        turn(threshold=threshold, variant="fp16")
        run()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{repo / 'mlruns.db'}")
    bundle = load_bundle("models:/anonymizer@champion-fp16")
    assert (bundle.card.variant, bundle.card.thresholds["face"]) == ("fp16", 0.2)
    assert bundle.warning is None
    registry.run(
        ["--alias", "champion-fp16", "rollback", "--name", "Ada", "--reason", "faces at night"]
    )
    assert (champion(), champion("champion-fp16")) == ("1", "2")


def test_rollback_returns_to_the_champion_before_and_the_gate_does_not_undo_it(repo, turn):
    run()
    turn(threshold=0.2)
    run()
    client = open_client()
    registry.run(["rollback", "--name", "Ada", "--reason", "faces at night"])
    assert champion() == "1"
    assert "rolled back by Ada: faces at night" in reasons(run())
    assert champion() == "1"
    moves = registry.history(client, experiment_id(client, "blurloop"))
    assert [(m["from"], m["to"], m["name"]) for m in moves][-1] == ("2", "1", "Ada")


def test_a_bundle_that_was_rolled_back_stays_so_on_a_new_reference_set(repo, turn):
    run()
    turn(threshold=0.2)
    run()
    registry.run(["rollback", "--name", "Ada", "--reason", "faces at night"])
    data, _ = pictures_with_faces(1)
    write_release("s", data, TAXONOMY, reason="first")
    data.write(REFERENCE, TAXONOMY)
    turn(threshold=0.2)
    report = run()
    assert report["outcome"] == "REFUSED"
    assert "rolled back by Ada: faces at night" in reasons(report)


def test_a_validation_of_other_data_is_refused(repo):
    edit(VALIDATION, lambda values: values["data_sha256"].update(reference="0" * 64))
    report = run()
    assert report["outcome"] == "REFUSED"
    assert "data validation looked at another reference; run dvc repro" in reasons(report)
    edit(VALIDATION, lambda values: values.pop("data_sha256"))
    assert "does not say which splits it looked at" in reasons(run())


def test_a_validation_that_dvc_did_not_record_is_refused(repo):
    outs = [{"path": str(VALIDATION), "md5": dvc_md5(VALIDATION)}]
    Path("dvc.lock").write_text(yaml.safe_dump({"stages": {"validation": {"outs": outs}}}))
    assert run()["outcome"] == "PROMOTED"
    edit(VALIDATION, lambda values: values.update(leaks=[], verdict_blocking=False))
    assert "is not what dvc.lock recorded of the validation" in reasons(run())


def test_whatever_is_checked_is_looked_at_again_when_it_changed(repo):
    queue, lock = Path("reports/queue.json"), Path("dvc.lock")
    write_json(queue, {"reannotate": []})
    before = settled.input_digest(SETTINGS)
    changes: list[tuple[Path, bytes]] = [
        (queue, b"{}"),
        (PREPARED / "train.json", b"{}"),
        (VALIDATED / "sizes.json", b"{}"),
        (lock, yaml.safe_dump({"stages": {"validation": {"outs": [
            {"path": str(queue), "md5": "0" * 32}]}}}).encode()),
    ]  # fmt: skip
    for path, content in changes:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        after = settled.input_digest(SETTINGS)
        assert after != before, path
        before = after


def test_an_override_by_hand_is_recorded_with_name_and_reason(repo, turn):
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
    assert "changed or damaged" in reasons(report)


@pytest.mark.parametrize(
    ("path", "change", "said"),
    [
        (CARD, lambda v: v["thresholds"].update(face=0.9), "thresholds was"),
        (EVALUATION, lambda v: v.update(variant="int8"), "variant was int8, is fp32"),
        (EVALUATION, lambda v: v["thresholds"].update(face=0.9), "thresholds was"),
        (EVALUATION, lambda v: v.update(reference_digest="0" * 64), "reference was"),
        (REFERENCE, lambda v: v.update(images=[IMAGE]), "reference was"),
        (OBJECTS, lambda v: v["objects"][0].update(covered=True), "objects was"),
        (OBJECTS, lambda v: v["objects"].pop(0), "objects was"),
        (
            EVALUATION,
            lambda v: v["classes"]["face"]["detected"].update(recalled=TOTAL),
            "[400, 400] objects detected reported, [390, 400] judged",
        ),
        (
            EVALUATION,
            lambda v: v["classes"]["face"]["covered"]["lower_bound"].update(bootstrap=1.0),
            "bootstrap of covered is 1.0, its objects give",
        ),
        (EVALUATION, lambda v: v["classes"]["face"].update(clusters=999), "[999, 400.0] clusters"),
        (EVALUATION, lambda v: v.pop("objects_sha256"), "objects was"),
    ],
)  # fmt: skip
def test_what_was_edited_by_hand_after_the_evaluation_is_refused(repo, turn, path, change, said):
    turn(threshold=0.3, missed=10)
    assert run()["outcome"] == "PROMOTED"
    edit(path, change)
    report = run()
    assert report["outcome"] == "REFUSED"
    assert said in reasons(report)


def test_results_edited_so_that_they_agree_with_each_other_are_not_those_that_dvc_recorded(
    repo, turn
):
    turn(threshold=0.3, missed=60)
    paths = ("artifacts/evaluated", "reports/evaluation.json")
    outs = [{"path": path, "md5": dvc_md5(Path(path))} for path in paths]
    Path("dvc.lock").write_text(yaml.safe_dump({"stages": {"evaluation": {"outs": outs}}}))
    assert "dvc.lock" not in reasons(run())
    # The same bundle, evaluated without a miss: every digest in the results fits the others.
    turn(threshold=0.3)
    report = run()
    assert report["outcome"] == "REFUSED"
    assert "is not what dvc.lock recorded of the evaluation" in reasons(report)


def test_a_way_of_obscuring_that_the_attack_refuses_is_not_promoted(repo):
    keep_attack(leaked=9)
    report = run()
    assert report["outcome"] == "REFUSED"
    assert report["reasons"] == [
        "face: blur 0.7, worst of 1 attacks on it: faces matched 9 of 60, chance 0.017"
    ]
    assert champion() is None


def test_without_an_attack_nothing_is_promoted_unless_the_setting_says_that_it_may(repo):
    Path("reports/attack.json").unlink()
    report = run()
    assert report["outcome"] == "REFUSED"
    assert (
        "face: blur 0.7 was not attacked (faces matched). Run python -m evaluation.attack"
        in reasons(report)
    )
    report = run(replace(SETTINGS, promotion=replace(CONFIG, attack="optional")))
    assert report["outcome"] == "PROMOTED"
    assert "blur 0.7, by which face is obscured, was not attacked" in report["warnings"][0]
    assert "warning: blur 0.7" in report["text"]


def test_the_code_that_decides_what_was_measured_exists():
    assert [name for name in MEASURING if not (ROOT / name).is_file()] == []


def test_a_reference_set_that_is_not_the_released_one_is_refused(repo, turn):
    data, _ = pictures_with_faces(1)
    write_release("s", data, TAXONOMY, reason="first")
    edited = replace(data, annotations=())
    edited.write(REFERENCE, TAXONOMY)
    turn(threshold=0.3)
    assert "the prepared reference set is not what was released" in reasons(run())
    data.write(REFERENCE, TAXONOMY)
    turn(threshold=0.3)
    report = run()
    assert report["outcome"] == "PROMOTED", report["reasons"]
    shutil.rmtree("reference")
    assert "no release under reference/ holds source s" in reasons(run())


def test_code_changed_after_the_evaluation_is_refused(repo):
    path = Path("reports/evaluation.json")
    files = [*code_lines("anonymization/errors.py"), f"{'0' * 64}  evaluation/gate.py"]
    write_json(path, read_json(path) | {"code_files": files})
    assert "code changed since the evaluation: evaluation/gate.py" in reasons(run())


def test_a_change_while_judging_stops_the_alias_from_moving(repo):
    with pytest.raises(promotion.PromotionError, match="changed while it was judged"):
        promotion.promote(SETTINGS, inputs="stale")
    assert champion() is None


def test_nothing_to_do_is_known_without_mlflow_until_somebody_writes_to_the_registry(repo):
    inputs = settled.input_digest(SETTINGS)
    run()
    settled.settle(inputs)
    assert settled.is_settled(inputs)
    registry.run(["override", "--version", "1", "--name", "Ada", "--reason", "x"])
    assert not settled.is_settled(inputs)


def test_the_champion_is_judged_again_on_a_new_reference_set_as_configured(repo, turn, monkeypatch):
    run()
    data, faces = pictures_with_faces(3)
    write_release("s", data, TAXONOMY, reason="second")
    data.write(REFERENCE, TAXONOMY)
    turn(threshold=0.2, missed=1, faces=faces)
    seen = []
    evaluate = evaluating.evaluate

    def spy(bundle: Bundle, *more: Any, **settings: Any) -> Any:
        seen.append((bundle.card.thresholds["face"], more[2]))
        return evaluate(bundle, *more, **settings)

    monkeypatch.setattr(evaluating, "evaluate", spy)
    config = EvaluationConfig(score_min=0.05)
    report = run(replace(SETTINGS, evaluation=config))
    assert seen == [(0.3, config)]
    assert "face: 0 objects gained, 1 lost against version 1 (detected, 3 compared)" in reasons(
        report
    )


def test_a_champion_that_knows_fewer_classes_is_judged_on_those(repo):
    taxonomy = Taxonomy({"dog": ClassSpec("box", "box"), **TAXONOMY.classes})
    data, _ = pictures_with_faces(1)
    images = tuple(replace(i, labelled=("dog", "face")) for i in data.images)
    dogs = (*data.annotations, Annotation(9, 1, "dog", FACE))
    known, own = as_known_to(Bundle.load("artifacts/bundle"), Dataset(images, dogs), taxonomy)
    assert own.names == ("face",)
    assert known.images[0].labelled == ("face",)
    assert [a.class_name for a in known.annotations] == ["face"]


def point_alias_at(version: str | None) -> None:
    client = open_client()
    with registry_lock():
        if version is None:
            client.delete_registered_model_alias("anonymizer", "champion")
        else:
            client.set_registered_model_alias("anonymizer", "champion", version)


@pytest.mark.parametrize("before", [None, "2"], ids=["appears", "moves"])
def test_a_champion_that_another_loop_set_meanwhile_is_compared_with(
    repo, turn, monkeypatch, before
):
    run()
    turn(threshold=0.2)
    run()
    turn(threshold=0.4)
    point_alias_at(before)
    judged = promotion._verdict
    calls = []

    def interrupted(*given: Any, **more: Any) -> Any:
        calls.append(more.get("champion"))
        verdict = judged(*given, **more)
        point_alias_at("1")
        return verdict

    monkeypatch.setattr(promotion, "_verdict", interrupted)
    assert run()["version"] == champion() == "3"
    assert [None if c is None else c.version for c in calls] == [before, "1"]


def test_an_alias_that_keeps_moving_ends_the_stage_with_what_to_do(repo, turn, monkeypatch):
    run()
    turn(threshold=0.2)
    run()
    turn(threshold=0.4)
    judged = promotion._verdict

    def interrupted(*given: Any, **more: Any) -> Any:
        point_alias_at("1" if champion() == "2" else "2")
        return judged(*given, **more)

    monkeypatch.setattr(promotion, "_verdict", interrupted)
    with pytest.raises(ChampionMovedError, match="run dvc repro again to be compared"):
        run()
    assert champion() in ("1", "2")


def freeze() -> None:
    """Write params.yaml as DVC's stages read it."""
    from conf import compose

    tree = compose() | {"taxonomy": TAXONOMY.to_dict(), "seed": 1}
    Path("params.yaml").write_text(yaml.safe_dump(tree))


def stage_process(folder: Path, **variables: str) -> subprocess.Popen[str]:
    """Start the stage as DVC starts it."""
    frozen = ["-cd", ".", "-cn", "params", "hydra.run.dir=.", "hydra.output_subdir=null"]
    frozen += ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    kept = {k: v for k, v in os.environ.items() if k not in ENVIRONMENT}
    return subprocess.Popen(
        [sys.executable, "-m", "evaluation.promotion", *frozen],
        cwd=folder,
        env=kept | {"PYTHONPATH": str(ROOT)} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_refused_stage_ends_with_0_prints_its_table_and_says_the_same_again(repo, turn):
    freeze()
    turn(threshold=0.3, missed=40)
    process = stage_process(repo)
    out, error = process.communicate()
    assert process.returncode == 0, error
    assert out.splitlines()[0] == "REFUSED"
    assert "NO  recall face detected" in out
    assert error == ""
    report = Path("reports/promotion.json").read_bytes()
    shutil.rmtree("artifacts/.work")
    again, _ = stage_process(repo).communicate()
    assert again == out
    assert Path("reports/promotion.json").read_bytes() == report
    assert champion() is None


def test_a_promotion_says_the_same_again_and_is_recorded_once(repo, turn):
    run()
    turn(threshold=0.2)
    run()
    report = Path("reports/promotion.json").read_bytes()
    assert b"against version 1" in report
    run()
    assert Path("reports/promotion.json").read_bytes() == report
    client = open_client()
    query = "tags.verdict = 'PROMOTED' and tags.`blurloop.stage` = 'promotion'"
    assert len(client.search_runs([experiment_id(client, "blurloop")], query)) == 2


@pytest.mark.slow
def test_inside_an_experiment_the_stage_forecasts_and_moves_nothing(repo, turn):
    freeze()
    process = stage_process(repo, DVC_EXP_NAME="fast-fox")
    out, error = process.communicate()
    assert process.returncode == 0, error
    assert out.startswith("PROMOTED (forecast")
    assert champion() is None
    assert not Path("artifacts/verdicts").exists()


@pytest.mark.slow
def test_two_loops_that_promote_at_once_follow_each_other(repo, turn, tmp_path_factory):
    freeze()
    clone = tmp_path_factory.mktemp("clone") / "clone"
    shutil.copytree(repo, clone)
    turn(threshold=0.2)
    uri = f"sqlite:///{repo / 'mlruns.db'}"
    processes = [stage_process(folder, MLFLOW_TRACKING_URI=uri) for folder in (repo, clone)]
    ended = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ended
    assert "type hint" not in "".join(error for _, error in ended)
    client = open_client()
    assert [str(v.version) for v in registry.versions(client, "anonymizer")] == ["1", "2"]
    moves = registry.history(client, experiment_id(client, "blurloop"))
    assert [(move["from"], move["to"]) for move in moves] == [("", "1"), ("1", "2")]
    assert champion() == "2"


@pytest.mark.parametrize(("missed", "outcome"), [(0, "PROMOTED"), (40, "REFUSED")])
def test_the_anonymizer_finds_the_verdict_on_the_loops_bundle(repo, turn, missed, outcome):
    turn(threshold=0.3, missed=missed)
    assert Bundle.load("artifacts/bundle").verdict is None
    run()
    bundle = Bundle.load("artifacts/bundle")
    assert bundle.verdict is not None
    assert bundle.verdict.outcome == outcome
    assert (bundle.warning is None) == (outcome == "PROMOTED")
    turn(threshold=0.25)
    assert "has no verdict" in str(Bundle.load("artifacts/bundle").warning)


def test_the_champion_is_served_by_pyfunc_and_found_by_the_anonymizer(repo, monkeypatch, capfd):
    run()
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{repo / 'mlruns.db'}")
    mlflow.set_tracking_uri(f"sqlite:///{repo / 'mlruns.db'}")
    mlflow.set_registry_uri(f"sqlite:///{repo / 'mlruns.db'}")
    noise = np.random.default_rng(1).integers(0, 255, (64, 80, 3), dtype=np.uint8)
    file = io.BytesIO()
    Pillow.fromarray(noise).save(file, "PNG")
    model = mlflow.pyfunc.load_model("models:/anonymizer@champion")
    (record,) = model.predict([base64.b64encode(file.getvalue()).decode()])
    (found,) = record["detections"]
    assert (found["class"], found["box_xyxy"]) == ("face", list(FACE))
    pixels = np.asarray(Pillow.open(io.BytesIO(base64.b64decode(record["picture"]))))
    assert (pixels[18, 20] != noise[18, 20]).any()
    assert (pixels[60, 70] == noise[60, 70]).all()
    bundle = load_bundle("models:/anonymizer@champion")
    assert bundle.digest == Bundle.load("artifacts/bundle").digest
    assert bundle.warning is None
    assert "Downloading" not in capfd.readouterr().err


def verdict_table() -> str:
    script = ROOT / ".github/verdict.py"
    command = [sys.executable, "-I", str(script)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_printed_verdict_begins_with_the_outcome_and_names_what_failed(repo, turn):
    assert "No verdict yet" in verdict_table()
    run()
    assert verdict_table().startswith("**PROMOTED** as version 1, champion\n")
    turn(threshold=0.2, missed=3, faces=[(f"{i:064d}", i) for i in range(90)])
    run(replace(SETTINGS, tracking=TrackingConfig(enabled=False)))
    lines = verdict_table().splitlines()
    assert lines[0] == "**REFUSED**: the champion stays where it was"
    said = "face: unproven, 90 identifiable objects in 90 clusters, which count as 90; "
    said += "needed are 100 in 100, counting as 80"
    assert f"- {said}" in lines
    assert f"| **NO** | proof | face |  | 90 | – | 100 | {said} |" in lines


def test_the_entry_point_prints_its_help_without_heavy_imports():
    command = [sys.executable, "-X", "importtime", "-m", "evaluation.promotion", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in ("mlflow", "torch", "onnxruntime", "cv2", "scipy"):
        assert f" {name}\n" not in done.stderr
