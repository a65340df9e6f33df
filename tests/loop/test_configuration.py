"""The composed tree, its typed sections, and what a user reads when one of them is wrong."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from conf import ConfigError, compose, one_line
from conf.__main__ import check_names_no_machine, check_sections, entries, to_yaml
from conf.adopt import has_chosen_experiment
from conf.choose import choose, chosen, names
from conf.schema import convert, section

REPOSITORY = Path(__file__).parents[2]
CONF = REPOSITORY / "conf"


@dataclass(frozen=True)
class Inner:
    share: float = 0.5
    name: str | None = None


@dataclass(frozen=True)
class Outer:
    count: int
    inner: Inner = field(default_factory=Inner)
    many: dict[str, Inner] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    on: bool = False


def test_a_tree_becomes_frozen_dataclasses_all_the_way_down():
    values = {"count": 2, "inner": {"share": 1}, "many": {"a": {"name": "x"}}, "sizes": [3]}
    made = convert(values, Outer, where="outer")
    assert made == Outer(2, Inner(1.0), {"a": Inner(name="x")}, [3])
    assert isinstance(made.inner.share, float)
    with pytest.raises(dataclasses.FrozenInstanceError, match="share"):
        made.inner.share = 0.1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 1, "cuont": 2}, r"outer has no key 'cuont'; known keys: count, inner, many"),
        ({}, r"outer.count is missing"),
        ({"count": "2"}, r"outer.count is '2' \(str\); expected int"),
        ({"count": True}, r"outer.count is True \(bool\); expected int"),  # YAML's `yes`
        ({"count": 1.5}, r"outer.count is 1.5 \(float\); expected int"),
        ({"count": 1, "on": 1}, r"outer.on is 1 \(int\); expected bool"),
        ({"count": 1, "inner": None}, r"outer.inner is nothing; expected a group of keys"),
        ({"count": 1, "inner": {"share": "x"}}, r"outer.inner.share is 'x' \(str\)"),
        ({"count": 1, "inner": {"name": 3}}, r"outer.inner.name is 3 \(int\); expected str"),
        ({"count": 1, "many": {"a": {"b": 1}}}, r"outer.many.a has no key 'b'"),
        ({"count": 1, "sizes": [1, "x"]}, r"outer.sizes\[1\] is 'x' \(str\); expected int"),
        ({"count": 1, "sizes": 1}, r"outer.sizes is 1 \(int\); expected a list"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_what_was_expected(values, message):
    with pytest.raises(ConfigError, match=message):
        convert(values, Outer, where="outer")


def test_a_missing_section_is_named():
    with pytest.raises(ConfigError, match="section 'seed' is missing"):
        section({}, "seed", int)


def test_the_committed_params_are_the_composed_conf():
    assert (REPOSITORY / "params.yaml").read_text() == to_yaml(compose(folder=CONF)), (
        "params.yaml is out of date; run `python -m conf`"
    )


@pytest.mark.parametrize("name", [None, *names(CONF)])
def test_every_named_setting_fits_the_stages_that_read_it(name, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    sign = "" if has_chosen_experiment(CONF) else "+"
    overrides = [f"{sign}experiment={name}"] if name else []
    tree = compose(overrides, folder=CONF)
    check_sections(tree, entries())
    check_names_no_machine(tree)


def test_conf_holds_nothing_that_would_differ_between_two_readings():
    for path in CONF.rglob("*.yaml"):
        text = path.read_text()
        for forbidden in ("${oc.env", "${hydra:", "${now:", "???"):
            assert forbidden not in text, f"{forbidden} in {path}"


@pytest.mark.parametrize("value", ["/data/pictures", "~/pictures", ["a", "/b"]])
def test_a_path_of_this_machine_stays_out_of_the_committed_params(value):
    with pytest.raises(ConfigError, match="BLURLOOP_COLLECTION_ROOT"):
        check_names_no_machine({"collection": {"root": value}})


def test_the_gate_asks_for_95_percent():
    promotion = compose(folder=CONF)["promotion"]
    assert promotion["recall_min"] == 0.95
    assert promotion["confidence"] == 0.95
    assert promotion["margin"] == 0.01


def test_choosing_a_setting_is_one_line_and_none_takes_it_back(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "smoke.yaml").write_text("# @package _global_\n")
    text = "defaults:\n  - a: b\n  - _self_\n  # last word\n\nseed: 1\n"
    (tmp_path / "config.yaml").write_text(text)
    assert choose("smoke", folder=tmp_path)
    assert (
        "  - _self_\n  - experiment: smoke\n  # last word\n"
        in (tmp_path / "config.yaml").read_text()
    )
    assert not choose("smoke", folder=tmp_path)
    assert choose("none", folder=tmp_path)
    assert (tmp_path / "config.yaml").read_text() == text


def test_an_unknown_setting_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"no experiment 'smok'; known: .*smoke"):
        choose("smok", folder=CONF)


def test_another_setting_takes_the_place_of_the_first():
    text = chosen("defaults:\n  - _self_\n", "a")
    assert chosen(text, "b") == "defaults:\n  - _self_\n  - experiment: b\n"


def test_what_hydra_says_becomes_one_line():
    error = ValueError(
        "In 'config': Could not find 'x/y'\n\nAvailable options in 'x':\n\tz\n"
        "Config search path:\n\tq"
    )
    assert one_line(error) == "In 'config': Could not find 'x/y' Available options in 'x': z"
