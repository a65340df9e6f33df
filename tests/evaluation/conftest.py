"""The constant networks of tests/anonymization, for bundles that are judged."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def constant_networks() -> ModuleType:
    """Module with `constant_graph` and `mask_outputs`; test folders are no packages."""
    path = Path(__file__).parents[1] / "anonymization/conftest.py"
    spec = importlib.util.spec_from_file_location("constant_networks", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
