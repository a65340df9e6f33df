"""Turns plain values into typed dataclasses, and says where one does not fit.

OmegaConf's structured configurations would do this for mutable dataclasses only: a frozen one
becomes a read-only node, which cannot be merged into (OmegaConf 2.3). Ours are frozen, so that a
stage cannot change its own settings.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

SCHEMA_VERSION = 1
"""Of the JSON files that stage `config` leaves."""

T = TypeVar("T")


class ConfigError(Exception):
    """The configuration holds an unknown key or a value of the wrong type."""

    exit_code = 2


def convert(value: Any, kind: Any, *, where: str) -> Any:
    """Return a plain value as its declared type.

    Args:
        value: What YAML knows: mappings, lists, strings, numbers, booleans, None.
        kind: A dataclass, a scalar type, `list[X]`, `tuple[X, ...]`, `dict[str, X]`, `X | None`,
            a union, a `Literal`, or `Any`.
        where: Dotted name of the value, for messages.

    Raises:
        ConfigError: If a key is unknown or missing, or a value is not of its type.

    >>> convert({"a": [1, 2.5]}, dict[str, list[float]], where="review")
    {'a': [1.0, 2.5]}
    """
    origin = get_origin(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _dataclass(value, cast(type[Any], kind), where=where)
    if origin in (Union, types.UnionType):
        return _union(value, get_args(kind), where=where)
    if origin is Literal:
        return _literal(value, get_args(kind), where=where)
    if origin in (list, tuple):
        items = _of_type(value, list, where=where)
        item_kind = get_args(kind)[0]
        return origin(
            convert(item, item_kind, where=f"{where}[{position}]")
            for position, item in enumerate(items)
        )
    if origin is dict:
        item_kind = get_args(kind)[1]
        return {
            key: convert(item, item_kind, where=f"{where}.{key}")
            for key, item in _of_type(value, dict, where=where).items()
        }
    return _of_type(value, kind, where=where)


def _of_type(value: Any, kind: type[T], *, where: str) -> T:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return cast(T, float(value))
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        found = "nothing" if value is None else f"{value!r} ({type(value).__name__})"
        raise ConfigError(f"{where} is {found}; expected {_name(kind)}. Correct it under conf/")
    return value


def _name(kind: Any) -> str:
    names = {dict: "a group of keys", list: "a list", type(None): "null"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def _dataclass(value: Any, kind: type[Any], *, where: str) -> Any:
    values = _of_type(value, dict, where=where)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    for key in values:
        if key not in fields:
            raise ConfigError(
                f"{where} has no key {key!r}; known keys: {', '.join(fields)}. "
                "Correct it under conf/"
            )
    for name, field in fields.items():
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise ConfigError(f"{where}.{name} is missing; add it under conf/")
    hints = get_type_hints(kind)
    return kind(
        **{key: convert(item, hints[key], where=f"{where}.{key}") for key, item in values.items()}
    )


def _union(value: Any, kinds: tuple[Any, ...], *, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    others = [kind for kind in kinds if kind is not type(None)]
    if len(others) == 1:
        return convert(value, others[0], where=where)
    for kind in others:
        try:
            return convert(value, kind, where=where)
        except ConfigError:
            continue
    expected = " or ".join(_name(kind) for kind in kinds)
    raise ConfigError(f"{where} is {value!r}; expected {expected}. Correct it under conf/")


def _literal(value: Any, allowed: tuple[Any, ...], *, where: str) -> Any:
    if value not in allowed:
        choices = ", ".join(map(str, allowed))
        raise ConfigError(
            f"{where} is {value!r}; expected one of {choices}. Correct it under conf/"
        )
    return value


def section(tree: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """Cut one top-level section out of a plain tree, checked against its type.

    Raises:
        ConfigError: If the section is missing, has an unknown key, or a value of the wrong type.
    """
    if name not in tree:
        raise ConfigError(f"configuration section {name!r} is missing; add it under conf/")
    return cast(T, convert(tree[name], kind, where=name))
