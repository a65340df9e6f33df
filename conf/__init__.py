"""Composition of the configuration, and the wrapper that hands a stage its typed sections.

A stage's entry point declares what it reads by the names and types of its parameters::

    @stage
    def main(review: ReviewConfig, taxonomy: Taxonomy, seed: int) -> None: ...

Each parameter is a top-level section of the tree; a dataclass annotation makes it strict: an
unknown key or a wrong type ends the program with one clear line. The same entry point reads the
tree under `conf/` by hand and the frozen `params.yaml` under DVC (docs/design.md, section 4).
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

T = TypeVar("T")

FOLDER = Path(__file__).parent


class ConfigError(Exception):
    """The configuration holds an unknown key or a value of the wrong type."""

    exit_code = 2


def section(tree: Any, name: str, kind: type[T]) -> T:
    """Cut one top-level section out of a composed tree, checked against its type.

    Raises:
        ConfigError: If the section is missing, has an unknown key, or a value of the wrong type.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if name not in tree:
        raise ConfigError(f"configuration section {name!r} is missing; add it under conf/")
    value = tree[name]
    try:
        if not dataclasses.is_dataclass(kind):
            plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            if isinstance(kind, type) and not isinstance(plain, kind):
                raise ConfigError(f"{name}: {plain!r} is not of type {kind.__name__}")
            return plain  # type: ignore[return-value]
        merged = OmegaConf.merge(OmegaConf.structured(kind), value)
        return OmegaConf.to_object(merged)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or ""
        reason = str(error.msg if getattr(error, "msg", None) else error).splitlines()[0]
        raise ConfigError(f"{name}.{key}: {reason}".replace(".:", ":")) from error


def _overrides_beyond_hydra(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return " ".join(line.strip() for line in lines[:2])


def stage(main: Callable[..., None]) -> Callable[[], None]:
    """Make a function the entry point of a stage.

    Errors that carry `exit_code` (every error Blurloop raises on purpose) end the program with
    their message as one line; all others keep their traceback.
    """

    @functools.wraps(main)
    def entry() -> None:
        import hydra
        from hydra.errors import HydraException
        from omegaconf import OmegaConf

        def run(tree: Any) -> None:
            OmegaConf.resolve(tree)
            hints = get_type_hints(main)
            main(**{name: section(tree, name, hints[name]) for name in parameters})

        parameters = [name for name in inspect.signature(main).parameters]
        run.__module__ = "__main__"
        try:
            hydra.main(version_base="1.3", config_path=str(FOLDER), config_name="config")(run)()
        except HydraException as error:
            sys.exit(f"error: {_overrides_beyond_hydra(error)}")
        except Exception as error:
            if not hasattr(error, "exit_code"):
                raise
            print(f"error: {error}", file=sys.stderr)
            sys.exit(error.exit_code)

    # Hydra takes the first undecorated argument list it finds; ours has none.
    del entry.__wrapped__  # type: ignore[attr-defined]
    return entry
