"""Examples in docstrings say what the code does."""

import doctest
import importlib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("annotation", "anonymization", "conf", "data", "evaluation", "training")


def modules_with_examples() -> list[str]:
    files = (path for name in PACKAGES for path in sorted((REPOSITORY / name).rglob("*.py")))
    names = [path for path in files if ">>> " in path.read_text(encoding="utf-8")]
    return [
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
        for path in names
    ]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_give_what_they_show(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name), verbose=False).failed == 0
