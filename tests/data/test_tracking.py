"""Tracking on a real MLflow SQLite database in a temporary repository."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from anonymization.files import write_json
from data.tracking import runs, turns
from data.tracking.revisions import changed_code, loaded_code
from data.tracking.runs import PersonalDataError, StageRun, stage_run
from data.tracking.store import TrackingConfig, TrackingError, open_client, repository, tracking_uri
from data.tracking.turns import flatten

CONFIG = TrackingConfig()


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository of DVC that the test stands in."""
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "params.yaml").write_text("seed: 7\ntraining:\n  lr: 0.1\n")
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_rows_of_a_temporary_experiment_go_to_the_repository_around_it(repo, monkeypatch):
    inside = repo / ".dvc/tmp/exps/tmpabc"
    (inside / ".dvc").mkdir(parents=True)
    monkeypatch.chdir(inside)
    assert repository() == repo
    assert tracking_uri() == f"sqlite:///{repo}/mlruns.db"


def test_dvc_root_names_the_repository(repo, monkeypatch, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("DVC_ROOT", str(repo))
    assert repository() == repo


def test_the_environment_names_another_server(repo, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    assert tracking_uri() == "http://localhost:5000"


def test_settings_are_logged_flat():
    assert flatten({"a": {"b": {"c": None}}, "d": [1]}) == {"a.b.c": "None", "d": "[1]"}


def test_stages_of_one_turn_share_a_parent_and_another_setting_begins_another(repo):
    with stage_run("training@mask_rcnn", CONFIG, params={"lr": 0.1}) as first:
        first.log_metrics({"loss": 0.5, "absent": None}, step=3)
        first.log_text("hello", "note.txt")
    with stage_run("evaluation", CONFIG, inputs={"reference": "f" * 64}) as second:
        pass
    (repo / "params.yaml").write_text("seed: 8\n")
    with stage_run("evaluation", CONFIG) as third:
        pass
    client = open_client()
    assert first.parent_id == second.parent_id != third.parent_id
    run, parent = client.get_run(first.run_id), client.get_run(first.parent_id)
    assert run.data.metrics == {"loss": 0.5}
    assert run.data.params == {"lr": "0.1"}
    assert parent.data.params == {"seed": "7", "training.lr": "0.1"}
    assert (run.info.status, parent.info.status) == ("FINISHED", "FINISHED")
    assert run.info.artifact_uri.startswith((repo / "mlartifacts").as_uri())
    inputs = client.get_run(second.run_id).inputs.dataset_inputs
    assert inputs[0].dataset.digest == "f" * 36
    assert client.get_run(second.run_id).data.tags["digest.reference"] == "f" * 64


def test_a_failing_stage_leaves_a_failed_run(repo):
    with pytest.raises(ValueError, match="loss is NaN"), stage_run("training", CONFIG) as run:
        raise ValueError("loss is NaN")
    assert open_client().get_run(run.run_id).info.status == "FAILED"


def test_a_run_left_open_by_a_dead_process_is_marked_killed_and_can_be_resumed(repo):
    with stage_run("training", CONFIG) as first:
        pass
    client = open_client()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = turns.process().rpartition(":")[0]
    client.update_run(first.run_id, status="RUNNING")
    client.set_tag(first.run_id, "blurloop.process", f"{host}:{dead.pid}")
    with stage_run("evaluation", CONFIG):
        assert client.get_run(first.run_id).info.status == "KILLED"
    with stage_run("training", CONFIG, resume=first.run_id) as again:
        assert again.run_id == first.run_id
    assert client.get_run(first.run_id).info.status == "FINISHED"


def test_a_stage_that_dvc_restored_links_the_run_that_made_it(repo):
    with stage_run("training@mask_rcnn", CONFIG) as made:
        pass
    write_json(repo / "artifacts/trained/mask_rcnn/history.json", {"run_id": made.run_id})
    (repo / "params.yaml").write_text("seed: 9\n")
    with stage_run("evaluation", CONFIG) as run:
        pass
    tags = open_client().get_run(run.parent_id).data.tags
    assert tags["linked.training.mask_rcnn"] == made.run_id


def test_a_link_to_the_last_turn_goes_once_this_turn_has_a_result_of_its_own(repo):
    with stage_run("evaluation", CONFIG) as last:
        pass
    write_json(repo / "reports/evaluation.json", {"run_id": last.run_id})
    (repo / "params.yaml").write_text("seed: 9\n")
    with stage_run("training", CONFIG):
        pass
    with stage_run("evaluation", CONFIG) as run:
        assert "linked.evaluation" in open_client().get_run(run.parent_id).data.tags
    write_json(repo / "reports/evaluation.json", {"run_id": run.run_id})
    with stage_run("promotion", CONFIG):
        pass
    assert "linked.evaluation" not in open_client().get_run(run.parent_id).data.tags


def test_an_unusable_server_stops_the_stage_at_its_start(repo, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://nowhere")
    with (
        pytest.raises(TrackingError, match="nonsense://nowhere cannot be used"),
        stage_run("training", CONFIG),
    ):
        pass


def test_a_hiccup_during_training_is_tried_again_and_then_warned_of(monkeypatch, caplog):
    class Failing:
        calls = 0

        def log_batch(self, *args: object, **kwargs: object) -> None:
            self.calls += 1
            raise OSError("database is locked")

    monkeypatch.setattr(runs, "PAUSE_S", 0.0)
    client = Failing()
    StageRun(client, "run", "parent").log_metrics({"loss": 1.0})
    assert client.calls == runs.ATTEMPTS
    assert "database is locked" in caplog.text


def test_pictures_are_not_logged_unless_somebody_says_that_they_are_obscured(tmp_path):
    (tmp_path / "misses").mkdir()
    (tmp_path / "misses/1.jpg").write_bytes(b"x")
    run = StageRun(None, None, None)
    with pytest.raises(PersonalDataError, match=r"1\.jpg may show people"):
        run.log_artifact(tmp_path / "misses")
    run.log_artifact(tmp_path / "misses", obscured=True)


def test_tracking_switched_off_records_nothing_and_makes_no_database(repo):
    with stage_run("training", TrackingConfig(enabled=False)) as run:
        run.log_metrics({"loss": 1.0})
    assert run.run_id is None
    assert not (repo / "mlruns.db").exists()


def test_two_loops_at_once_make_one_parent(repo):
    def one(_: int) -> str | None:
        code = (
            "from data.tracking.runs import stage_run\n"
            "from data.tracking.store import TrackingConfig\n"
            "with stage_run('training', TrackingConfig()) as run: print(run.parent_id)"
        )
        env = {**os.environ, "PYTHONPATH": str(Path(runs.__file__).parents[2])}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True
        )
        assert done.stderr == ""
        return done.stdout.strip()

    with ThreadPoolExecutor(2) as pool:
        assert len(set(pool.map(one, range(2)))) == 1


def test_recorded_code_names_the_file_that_changed():
    files = loaded_code()
    assert "data/tracking/runs.py" in files
    assert changed_code(files) == []
    assert changed_code({**files, "data/tracking/runs.py": "0" * 64}) == ["data/tracking/runs.py"]
