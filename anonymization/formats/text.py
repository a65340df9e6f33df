"""Text in metadata: telling what people wrote from what a picture could be hidden in."""

from __future__ import annotations

import re
import unicodedata

MAX_BYTES = 4096
"""No text that is kept needs more; a thumbnail does."""

_UNBROKEN = re.compile(r"[A-Za-z0-9+/=_-]{200,}")
"""Base64 or hexadecimal code: no language has such words, not even without spaces."""

_WRAPPED = re.compile(r"[A-Za-z0-9+/=\s]{1024,}")
"""The same, wrapped into lines: a thousand characters of text have punctuation."""

PICTURE_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"ftyp", b"/9j/", b"iVBORw0KGgo", b"UklGR")
"""JPEG, PNG, WebP and ISO media as bytes, then the first three in base64."""


def is_text(value: bytes, encoding: str = "", *, max_bytes: int = MAX_BYTES) -> bool:
    r"""Tell whether a value is short, readable text and nothing else; zeros at its end are allowed.

    Args:
        value: Raw value.
        encoding: Its encoding; UTF-8, else Latin-1, where empty.
        max_bytes: Largest that is taken for text.

    >>> is_text(b"Canon EOS\x00"), is_text(b"\x8f\x03\xff\xd8\xff"), is_text(b"QUJD" * 100)
    (True, False, False)
    """
    trimmed = value.strip(b"\x00") if not encoding else value
    if len(value) > max_bytes or any(start in trimmed for start in PICTURE_STARTS):
        return False
    text = _decoded(trimmed, encoding)
    if text is None:
        return False
    text = text.strip("\x00")
    readable = all(c in "\t\n\r" or unicodedata.category(c) not in _UNREADABLE for c in text)
    return readable and not _UNBROKEN.search(text) and not _looks_wrapped(text)


_UNREADABLE = frozenset(("Cc", "Cn", "Co", "Cs"))
"""Controls, unassigned and private characters, halves of surrogates: noise is full of them."""


def _looks_wrapped(text: str) -> bool:
    return bool(_WRAPPED.search(re.sub(r"[ \t\r\n]{2,}", "\ufffd", text))) and " " not in text


def _decoded(value: bytes, encoding: str) -> str | None:
    for name in (encoding,) if encoding else ("utf-8", "latin-1"):
        try:
            return value.decode(name)
        except UnicodeDecodeError:
            continue
    return None
