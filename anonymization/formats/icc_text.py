"""Texts of ICC profiles: `text`, `desc` (ICC.1:2001-04, 6.5.17), `mluc` (ICC.1:2022, 10.15)."""

from __future__ import annotations

import struct

from anonymization.formats.text import is_text

_SCRIPT_BYTES = 3 + 67
"""Macintosh's script: its code, how many bytes are used, and room for 67."""

_LANGUAGES_MAX = 100


def without_code(value: bytes) -> bytes:
    """Return a value that holds nothing but text, and if need be less of it; else nothing.

    Args:
        value: From its type on.
    """
    if texts_of(value) is not None:
        return value
    if value[:4] != b"desc":
        return b""
    plain = _plain_of_description(value)
    if not is_text(plain) or not plain.strip(b"\x00"):
        return b""
    head = struct.pack(">4sII", b"desc", 0, len(plain))
    return head + plain + bytes(4 + 4 + _SCRIPT_BYTES)


def texts_of(value: bytes) -> list[str] | None:
    """Return the texts of a value; None where it holds anything else."""
    if len(value) < 8 or any(value[4:8]):
        return None
    read = {b"text": _of_text, b"desc": _of_description, b"mluc": _of_languages}[value[:4]]
    return read(value)


def _of_text(value: bytes) -> list[str] | None:
    return [value[8:].decode("latin-1")] if is_text(value[8:]) else None


def _plain_of_description(value: bytes) -> bytes:
    size = struct.unpack_from(">I", value, 8)[0] if len(value) >= 12 else 0
    return value[12 : 12 + size] if 12 + size <= len(value) else b""


def _of_description(value: bytes) -> list[str] | None:
    """Read text in ASCII, in UTF-16 behind a language, and in a script of Macintosh."""
    plain = _plain_of_description(value)
    at = 12 + len(plain)
    if not plain or len(value) < at + 8:
        return None
    language, count = struct.unpack_from(">4sI", value, at)
    wide = value[at + 8 : at + 8 + 2 * count]
    script = value[at + 8 + 2 * count :]
    code, text = script[:3], script[3:]
    if len(wide) != 2 * count or len(script) > _SCRIPT_BYTES + 3 or any(language):
        return None
    if any(code[:1]) or not is_text(plain) or not is_text(text):
        return None
    if wide and not is_text(wide, "utf-16-be"):
        return None
    return [part.decode("latin-1") for part in (plain, wide.replace(b"\x00", b""), text)]


def _of_languages(value: bytes) -> list[str] | None:
    """Read texts in several languages, which with their list must be all of the value."""
    count, row = struct.unpack_from(">II", value, 8) if len(value) >= 16 else (0, 0)
    if not 1 <= count <= _LANGUAGES_MAX or row != 12 or 16 + 12 * count > len(value):
        return None
    rest = bytearray(value)
    rest[: 16 + 12 * count] = bytes(16 + 12 * count)
    places: dict[tuple[int, int], str] = {}
    for language, size, at in struct.iter_unpack(">4sII", value[16 : 16 + 12 * count]):
        text = value[at : at + size]
        if not language.replace(b"\x00", b"").isalpha() and any(language):
            return None
        if len(text) != size or at < 16 + 12 * count or not is_text(text, "utf-16-be"):
            return None
        rest[at : at + size] = bytes(size)
        places[at, size] = text.replace(b"\x00", b"").decode("latin-1")
    return None if any(rest) else list(places.values())
