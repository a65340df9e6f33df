"""The pipeline file: what it depends on is what the code reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.dependencies import code_of, imports, parameters_of, updated
from conf.pipeline import body, commands

REPOSITORY = Path(__file__).parents[2]
ORDER = [
    "config",
    "survey",
    "collection",
    "review",
    "sync",
    "annotation",
    "preparation",
    "training",
    "bundle",
    "evaluation",
    "validation",
    "promotion",
]


@pytest.fixture
def stages(monkeypatch):
    from ruamel.yaml import YAML

    monkeypatch.chdir(REPOSITORY)
    return YAML(typ="safe").load(Path("dvc.yaml"))["stages"]


def test_the_stages_stand_in_the_order_of_the_loop(stages):
    assert list(stages) == ORDER


def test_code_and_settings_of_every_stage_follow_its_imports(stages):
    text = Path("dvc.yaml").read_text()
    assert updated(text) == text, "run `python -m conf.dependencies`"


def test_dependencies_are_files_or_whole_subpackages_but_for_data(stages):
    for name, stage in stages.items():
        for path in map(Path, body(stage)["deps"]):
            is_data = path.parts[0] in ("artifacts", "reports", "conf", "reference")
            is_code = path.is_file() or (len(path.parts) > 1 and path.is_dir())
            assert is_data or is_code, f"{name} depends on {path}"


def test_a_change_in_drawing_trains_nothing_again(stages):
    for name in ("training", "bundle", "evaluation"):
        drawing = [path for path in body(stages[name])["deps"] if path.startswith("data/street")]
        assert not drawing, f"{name} depends on {drawing}"


def test_only_the_turn_and_not_the_way_into_it_reaches_training(stages):
    for stage in ("training", "bundle"):
        assert "artifacts/turn.json" not in body(stages[stage])["deps"]
    assert "artifacts/turn.json" in stages["evaluation"]["deps"]


def test_outputs_are_those_of_the_layout(stages):
    from data import layout

    declared = {
        name if isinstance(name, str) else next(iter(name))
        for stage in stages.values()
        for key in ("outs", "metrics")
        for name in body(stage).get(key, [])
    }
    folders = {path.split("${")[0].rstrip("/") for path in declared if path.startswith("artifacts")}
    known = {str(v) for v in vars(layout).values() if isinstance(v, Path)}
    assert folders - {"artifacts/composed.json", "artifacts/turn.json"} <= known


def test_paths_take_nothing_from_params(stages):
    for name, stage in stages.items():
        text = str({key: value for key, value in body(stage).items() if key != "cmd"})
        assert "${" not in text.replace("${item}", ""), name


def test_imports_inside_functions_count_and_those_of_type_checkers_do_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    package = tmp_path / "data"
    package.mkdir()
    (package / "__init__.py").write_text('"""Doc."""\n')
    (package / "a.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from data.c import C\n"
        "def f():\n    from data import b\n"
    )
    (package / "b.py").write_text("import numpy\nfrom . import d\n")
    (package / "c.py").write_text("C = 1\n")
    (package / "d.py").write_text("D = 1\n")
    assert imports(Path("data/a.py")) == {Path("data/__init__.py"), Path("data/b.py")}
    assert code_of("data.a") == ["data/a.py", "data/b.py", "data/d.py"]


def test_each_network_reads_its_own_settings_only(stages):
    training = next(command for command in commands() if command.stage == "training")
    assert "training.${item}" in parameters_of(training)
    assert "training" not in parameters_of(training)


def test_overrides_stand_together_at_the_end_of_each_command(stages):
    # Hydra's argparse takes overrides in one run only: an option between two of them ends it.
    for command in commands():
        if command.stage != "config":
            assert command.text.startswith(f"python -m {command.module} ${{frozen}}")


def test_a_subpackage_stands_as_a_folder_only_where_all_of_it_is_imported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    package = tmp_path / "data" / "kinds"
    package.mkdir(parents=True)
    (tmp_path / "data/__init__.py").write_text("")
    (package / "__init__.py").write_text('"""Doc."""\n')
    (package / "a.py").write_text("A = 1\n")
    (package / "b.py").write_text("B = 1\n")
    (tmp_path / "data/one.py").write_text("from data.kinds import a\n")
    (tmp_path / "data/all.py").write_text("from data.kinds import a, b\n")
    assert code_of("data.one") == ["data/kinds/a.py", "data/one.py"]
    assert code_of("data.all") == ["data/all.py", "data/kinds"]
