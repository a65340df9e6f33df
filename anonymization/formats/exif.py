"""EXIF: an allowlist of fields, rewritten; a thumbnail only from the anonymized picture.

Tags are those of EXIF 3.0 (CIPA DC-008-2023). Maker notes, previews, further directories and
private tags are never copied: nobody can tell what they hold.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from anonymization.formats.directories import LONG, SHORT, Directory, Entry, Layout, Nested
from anonymization.formats.text import has_code_word, is_cut_code, is_text

HEADER = b"Exif\x00\x00"
MAX_BYTES = 65527
"""A JPEG marker holds no more behind the header."""

ORIENTATION = 0x0112
_EXIF, _GPS, _INTEROPERABILITY = 0x8769, 0x8825, 0xA005
_THUMBNAIL, _THUMBNAIL_BYTES, _COMPRESSION = 0x0201, 0x0202, 0x0103
_SECOND_BYTES = 2 + 3 * 12 + 4
_COUNTS = {
    **{0x013E: 2, 0x013F: 6, 0x0211: 3, 0x0214: 6, 0x8827: 3, 0x9214: 4, 0xA214: 2, 0xA432: 4},
    **{0xA461: 2, 0x0002: 3, 0x0004: 3, 0x0007: 3, 0x0014: 3, 0x0016: 3},
}
"""Most numbers of a field that has more than one; raw pixels need hundreds, in one or in many."""

_PATTERN = 0xA302
_PATTERN_MAX_BYTES = 68
"""A camera's colour filter array of 8 x 8."""

_FIRST = frozenset(
    {0x010E, 0x010F, 0x0110, ORIENTATION, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132}
    | {0x013B, 0x013C, 0x013E, 0x013F, 0x0211, 0x0213, 0x0214, 0x4746, 0x4749, 0x8298}
    | {0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F}
)
_CAMERA = frozenset(
    {0x829A, 0x829D, 0x8822, 0x8824, 0x8827, *range(0x8830, 0x8836), 0x9000, 0x9003, 0x9004}
    | {*range(0x9010, 0x9013), 0x9101, 0x9102, *range(0x9201, 0x920B), 0x9214, 0x9286}
    | {*range(0x9290, 0x9293), *range(0x9400, 0x9406), *range(0xA000, 0xA004)}
    | {0xA20B, 0xA20E, 0xA20F, 0xA210, 0xA214, 0xA215, 0xA217, 0xA300, 0xA301, 0xA302}
    | {*range(0xA401, 0xA40B), 0xA40C, 0xA420, *range(0xA430, 0xA43D), 0xA460, 0xA461, 0xA500}
)
_POSITION = frozenset(range(0x20))
_COMPATIBILITY = frozenset({0x0001, 0x0002, 0x1000, 0x1001, 0x1002})
_CODED_TEXT = {0x9286, 0x001B, 0x001C}
"""UserComment, GPSProcessingMethod and GPSAreaInformation: eight bytes of code, then text."""
_UTF16_TEXT = {0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F}


@dataclass(frozen=True)
class Exif:
    """The fields of an EXIF block that may be copied.

    Attributes:
        order: `<` or `>`, its byte order.
        first: Fields of the first directory.
        camera: Fields of the Exif directory.
        position: Fields of the GPS directory.
        compatibility: Fields of the interoperability directory.
        had_thumbnail: Whether the source carried one.
    """

    order: Literal["<", ">"] = "<"
    first: Directory = field(default_factory=dict)
    camera: Directory = field(default_factory=dict)
    position: Directory = field(default_factory=dict)
    compatibility: Directory = field(default_factory=dict)
    had_thumbnail: bool = False

    @property
    def orientation(self) -> int:
        """1 to 8, how stored pixels are to be turned; 1 where nothing is said."""
        found = Layout(self.order).numbers(self.first.get(ORIENTATION))
        return int(found[0]) if found and found[0] in range(1, 9) else 1

    def selected(self, *, exif: bool, gps: bool) -> Exif:
        """Return only what is asked for; the orientation always stays, or pictures would turn."""
        turned = {k: v for k, v in self.first.items() if k == ORIENTATION and self.orientation > 1}
        return Exif(
            self.order,
            self.first if exif else turned,
            self.camera if exif else {},
            self.position if gps else {},
            self.compatibility if exif else {},
            self.had_thumbnail and exif,
        )

    def to_bytes(self, thumbnail: bytes = b"") -> bytes:
        """Write it, without JPEG's header; empty where there is nothing.

        Args:
            thumbnail: A JPEG of the anonymized picture; left out where it does not fit.
        """
        layout = Layout(self.order)
        inner: dict[int, Nested | Entry] = {**self.camera}
        if self.compatibility:
            inner[_INTEROPERABILITY] = self.compatibility
        fields: dict[int, Nested | Entry] = {**self.first, _EXIF: inner, _GPS: self.position}
        body = layout.write(fields, offset=8)
        if thumbnail:
            at = 8 + len(body)
            body = layout.write(fields, offset=8, following=at) + _second(thumbnail, layout, at)
        elif not any((self.first, self.camera, self.position, self.compatibility)):
            return b""
        if 8 + len(body) > MAX_BYTES:
            return self.to_bytes() if thumbnail else b""
        return (b"II*\x00\x08\0\0\0" if self.order == "<" else b"MM\x00*\0\0\0\x08") + body


def read_exif(data: bytes) -> Exif:
    """Read what may be copied of an EXIF block; nothing where it cannot be parsed.

    Args:
        data: With or without JPEG's header.
    """
    while data.startswith(HEADER):
        data = data[len(HEADER) :]
    if not data.startswith((b"II*\x00", b"MM\x00*")) or len(data) < 8:
        return Exif()
    layout = Layout("<" if data.startswith(b"II") else ">")
    first, following = layout.read(data, layout.pointer((LONG, 1, data[4:8])))
    thumbnail, _ = layout.read(data, following)
    return replace(from_directories(data, first, layout), had_thumbnail=_THUMBNAIL in thumbnail)


def from_directories(data: bytes, first: Directory, layout: Layout) -> Exif:
    """Read what may be copied of a first directory and those that it points at."""
    camera, _ = layout.read(data, layout.pointer(first.get(_EXIF)))
    position, _ = layout.read(data, layout.pointer(first.get(_GPS)))
    compatibility, _ = layout.read(data, layout.pointer(camera.get(_INTEROPERABILITY)))
    found = (
        allowed(first, _FIRST),
        allowed(camera, _CAMERA),
        allowed(position, _POSITION),
        allowed(compatibility, _COMPATIBILITY),
    )
    if is_cut_code(_text(tag, entry) for fields in found for tag, entry in fields.items()):
        first, camera, position, compatibility = map(_without_code, found)
        found = (first, camera, position, compatibility)
    return Exif(layout.order, *found)


def _text(tag: int, entry: Entry) -> str:
    wide = tag in _UTF16_TEXT or (tag in _CODED_TEXT and entry[2].startswith(b"UNICODE"))
    return (entry[2].replace(b"\x00", b"") if wide else entry[2]).decode("latin-1")


def _without_code(fields: Directory) -> Directory:
    """Leave out texts with words as long as those of code, which may be cut over many fields."""
    return {tag: entry for tag, entry in fields.items() if not has_code_word(_text(tag, entry))}


def allowed(fields: Directory, tags: frozenset[int]) -> Directory:
    """Return the fields that are known and whose values can be nothing but text or few numbers."""
    return {tag: entry for tag, entry in fields.items() if tag in tags and _is_harmless(tag, entry)}


def _is_harmless(tag: int, entry: Entry) -> bool:
    kind, count, value = entry
    if tag in _CODED_TEXT and kind in (2, 7):
        coded = value[8:] if kind == 7 else value
        wide = value.startswith(b"UNICODE")
        return any(is_text(coded, how) for how in (("utf-16-le", "utf-16-be") if wide else ("",)))
    if tag in _UTF16_TEXT:
        return kind == 1 and is_text(value, "utf-16-le")
    if kind in (2, 129):
        return is_text(value)
    if kind in (1, 6, 7):
        return len(value) <= (_PATTERN_MAX_BYTES if tag == _PATTERN else 8)
    return count <= _COUNTS.get(tag, 1)


def _second(thumbnail: bytes, layout: Layout, at: int) -> bytes:
    """Return the second directory, which stands at `at`, and the thumbnail behind it."""
    fields = {
        _COMPRESSION: layout.pack(SHORT, 6),
        _THUMBNAIL: layout.pack(LONG, at + _SECOND_BYTES),
        _THUMBNAIL_BYTES: layout.pack(LONG, len(thumbnail)),
    }
    return layout.write(fields, offset=at) + thumbnail
