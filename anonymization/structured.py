"""Structured files that an operator writes, YAML or JSON: read within limits, each key once."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from anonymization.errors import BlurloopError
from anonymization.files import parse_json

FILE_MAX_BYTES = 64 * 2**20


class SettingsError(BlurloopError):
    """A settings file or a setting cannot be understood."""

    exit_code = 2


@functools.cache
def _loader() -> Any:
    """Return PyYAML's safe loader, which refuses a key given twice: it would take the last."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            for name in names:
                if names.count(name) > 1:
                    line = node.start_mark.line + 1
                    raise ValueError(f"key {name!r} is given twice, in what begins at line {line}")
            return dict(super().construct_mapping(node, deep))

    return Loader


def read_structured(path: Path, *, schema_version: int, keys: tuple[str, ...]) -> dict[str, Any]:
    """Read a YAML or JSON file that an operator wrote.

    Args:
        path: The file; one that ends with `.json` is read as JSON, else as YAML.
        schema_version: The version that it must state.
        keys: What it may hold besides.

    Raises:
        SettingsError: If it is missing, too large, cannot be parsed, or holds something else.
    """
    import yaml

    try:
        size = path.stat().st_size
        if size > FILE_MAX_BYTES:
            raise SettingsError(f"{path} has {size} bytes; at most {FILE_MAX_BYTES} are read")
        text = path.read_text(encoding="utf-8")
        is_json = path.suffix.lower() == ".json"
        values = parse_json(text) if is_json else yaml.load(text, _loader())  # noqa: S506
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeError as error:
        raise SettingsError(f"{path} cannot be read: it is not UTF-8 ({error})") from error
    except json.JSONDecodeError as error:
        raise SettingsError(f"{path}, line {error.lineno}: {error.msg}") from error
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        what = str(error.problem or error.context)
        what = what.replace("'<stream end>'", "the end of the file")
        raise SettingsError(f"{path}{line}: {what}") from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise SettingsError(f"{path}: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{path} holds {type(values).__name__}; expected KEY: VALUE pairs")
    version = values.pop("schema_version", None)
    if version != schema_version:
        raise SettingsError(
            f"{path} has schema_version {version!r}; expected {schema_version}. "
            f"Write `schema_version: {schema_version}` at its top"
        )
    for key in values:
        if key not in keys:
            raise SettingsError(f"{path} has key {key!r}; known: {', '.join(keys)}")
    return values
