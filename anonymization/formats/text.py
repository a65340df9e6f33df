"""Text in metadata: telling what people wrote from what a picture could be hidden in."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

import numpy as np

MAX_BYTES = 4096
"""No text that is kept needs more; a thumbnail does."""

_CODE = 200
"""Characters of base64 or hexadecimal code from which on a text is no text: 100 to 150 bytes."""

_WORD = re.compile(r"[A-Za-z0-9+/=_-]{40,}")
"""No language has many such words, not even without spaces."""

_SHORT_WORD = re.compile(r"[A-Za-z0-9+/=_-]{16,39}")
_SHORT_CODE = 1000
"""Characters of short words of capitals and digits: thirty identifiers of a document's history, or
600 bytes of code that was cut."""

_LOWER_OF_WORDS = 0.9
"""Share of small letters of a short word that stays beside code, some of which has half."""

_NO_CODE = re.compile(r"[^A-Za-z0-9+/]+")

_LOWER_MIN = 0.5
"""Least share of small letters among letters and digits of a text; base64 and hexadecimal code have
0.4. What is all in capitals or mostly numbers goes with them."""

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
    return readable and not _looks_coded(text)


_UNREADABLE = frozenset(("Cc", "Cn", "Co", "Cs"))
"""Controls, unassigned and private characters, halves of surrogates: noise is full of them."""


def has_code_word(text: str) -> bool:
    """Tell whether a text has a word as base64 or hexadecimal code has them."""
    return _WORD.search(text) is not None or bool(_short_words(text, _LOWER_OF_WORDS))


def is_cut_code(texts: Iterable[str]) -> bool:
    """Tell whether bytes are written over several texts, each too short for `is_text` to mind."""
    long = short = 0
    for text in texts:
        long += sum(map(len, _WORD.findall(text)))
        short += sum(map(len, _short_words(text, _LOWER_MIN)))
    return long >= 2 * _CODE or short >= _SHORT_CODE


def _short_words(text: str, lower: float) -> list[str]:
    """Return words of 16 to 39 letters, not all digits, of which less than `lower` are small."""
    words: list[str] = _SHORT_WORD.findall(text)
    return [
        word
        for word in words
        if not word.isdecimal() and sum(map(str.islower, word)) < lower * len(word)
    ]


def _looks_coded(text: str) -> bool:
    """Tell whether bytes are written as letters: in long words, or cut up by spaces and signs."""
    if sum(len(word) for word in _WORD.findall(text)) >= _CODE:
        return True
    code = np.frombuffer(_NO_CODE.sub("", text).encode(), np.uint8)
    if len(code) < _CODE:
        return False
    lower = np.concatenate([[0], np.cumsum((code >= ord("a")) & (code <= ord("z")))])
    return bool((lower[_CODE:] - lower[:-_CODE] < _LOWER_MIN * _CODE).any())


def _decoded(value: bytes, encoding: str) -> str | None:
    for name in (encoding,) if encoding else ("utf-8", "latin-1"):
        try:
            return value.decode(name)
        except UnicodeDecodeError:
            continue
    return None
