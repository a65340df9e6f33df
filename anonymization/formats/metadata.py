"""Metadata: what a picture says besides its pixels, and what of it the anonymized file repeats.

Everything that is kept is on a list and rewritten; nothing is copied because it looked harmless
enough. What may hold a second, un-anonymized picture goes: thumbnails, previews, maker notes,
depth and gain maps, motion photos, further pictures, trailers. See docs/metadata.md.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from anonymization.errors import BlurloopError
from anonymization.formats.exif import Exif, read_exif
from anonymization.formats.icc import clean_icc
from anonymization.formats.text import is_cut_code, is_text
from anonymization.formats.xmp import READ_MAX_BYTES, clean_xmp

GROUPS = ("exif", "gps", "xmp", "icc", "iptc", "comment")
"""Names by which metadata are kept or dropped; `comment` is free text outside of the others."""


class MetadataError(BlurloopError):
    """It is not said in a known way what of the metadata stays."""

    exit_code = 2


@dataclass(frozen=True)
class MetadataPolicy:
    """Which groups of metadata a file keeps, each without what could hold a picture.

    The orientation always stays, and with it an EXIF block of that one field.

    >>> MetadataPolicy.parse("exif,icc").groups == {"exif", "icc"}
    True
    >>> "gps" in MetadataPolicy.parse("none")
    False
    """

    groups: frozenset[str] = field(default=frozenset(GROUPS))

    def __post_init__(self) -> None:
        unknown = sorted(self.groups - set(GROUPS))
        if unknown:
            raise MetadataError(
                f"metadata group {', '.join(map(repr, unknown))} is not known; "
                f"groups: {', '.join(GROUPS)}"
            )

    @classmethod
    def parse(cls, text: str) -> MetadataPolicy:
        """Read `all`, `none`, or group names with commas between.

        Raises:
            MetadataError: If it is anything else: an empty text may be a variable that is not set.
        """
        names = [name.strip() for name in text.split(",")]
        if names == ["all"]:
            return cls()
        if names == ["none"]:
            return cls(frozenset())
        if not set(names) <= set(GROUPS):
            raise MetadataError(
                f"metadata is {text!r}; expected all, none, or a list of {', '.join(GROUPS)}"
            )
        return cls(frozenset(names))

    def __contains__(self, group: str) -> bool:
        return group in self.groups


@dataclass(frozen=True)
class Metadata:
    """What is kept, in forms that every format can carry.

    Attributes:
        exif: Fields of EXIF, position among them.
        xmp: A packet, or empty.
        icc: A colour profile, or empty.
        iptc: IPTC-IIM data sets, or empty.
        comment: Free text, or empty.
    """

    exif: Exif = field(default_factory=Exif)
    xmp: bytes = b""
    icc: bytes = b""
    iptc: bytes = b""
    comment: bytes = b""


def clean(
    policy: MetadataPolicy,
    *,
    exif: bytes | Exif = b"",
    xmp: bytes = b"",
    icc: bytes = b"",
    iptc: bytes = b"",
    comment: bytes = b"",
) -> Metadata:
    """Take from raw metadata of a file what a policy keeps and what can be no picture."""
    fields = read_exif(exif) if isinstance(exif, bytes) else exif
    return Metadata(
        fields.selected(exif="exif" in policy, gps="gps" in policy),
        clean_xmp(xmp, position="gps" in policy) if "xmp" in policy else b"",
        clean_icc(icc) if "icc" in policy else b"",
        clean_iptc(iptc, position="gps" in policy) if "iptc" in policy else b"",
        comment if "comment" in policy and comment and is_text(comment) else b"",
    )


def bounded_xmp(xmp: object) -> bytes:
    """Return raw XMP for those who read projections, where it is not too long to be looked at."""
    return xmp if isinstance(xmp, bytes) and len(xmp) <= READ_MAX_BYTES else b""


_IPTC_PLACES = {26, 27, 90, 92, 95, 100, 101}
_IPTC_NUMBERS = {0: 2}
_IPTC_SETS = (
    {*range(0, 8), 10, 12, 15, 20, 22, *range(25, 28), 30, 35, 37, 38, 40, 42, 45, 47, 50, 55, 60}
    | {62, 63, 65, 70, 75, 80, 85, 90, 92, 95, *range(100, 104), 105, 110, 115, 116, 118, 120}
    | {121, 122, 130, 131, 135}
)
_IPTC_ONCE = {(1, 90), (2, 0)}
"""Character set and version, which are no text: repeated, they would hold anything."""

_IPTC_MAX_BYTES = 32768


def clean_iptc(iptc: bytes, *, position: bool = True) -> bytes:
    """Return the text of IPTC's application record (IIM 4.2, record 2); previews go.

    Args:
        iptc: Data sets, one behind the other.
        position: Keep city, country and the like.
    """
    kept, at = b"", 0
    texts = []
    once: set[tuple[int, int]] = set()
    while at + 5 <= len(iptc) and iptc[at] == 0x1C:
        record, number, size = struct.unpack_from(">BBH", iptc, at + 1)
        value = iptc[at + 5 : at + 5 + size]
        if size & 0x8000 or len(value) != size:
            break
        at += 5 + size
        if (record, number) in once or not _is_kept(record, number, value, position=position):
            continue
        once |= _IPTC_ONCE & {(record, number)}
        kept += struct.pack(">BBBH", 0x1C, record, number, size) + value
        texts.append(value.decode("latin-1"))
        if len(kept) > _IPTC_MAX_BYTES:
            return b""
    return b"" if is_cut_code(texts) else kept


def _is_kept(record: int, number: int, value: bytes, *, position: bool) -> bool:
    if (record, number) == (1, 90):  # the character set: an escape sequence
        return len(value) <= 8
    if record != 2 or number not in _IPTC_SETS or (not position and number in _IPTC_PLACES):
        return False
    return len(value) == _IPTC_NUMBERS[number] if number in _IPTC_NUMBERS else is_text(value)


def photoshop_resource(iptc: bytes) -> bytes:
    """Wrap IPTC as Photoshop's resource 0x0404, the only one that is written."""
    return b"8BIM\x04\x04\x00\x00" + struct.pack(">I", len(iptc)) + iptc + bytes(len(iptc) % 2)


def iptc_of_photoshop(resources: bytes) -> bytes:
    """Return the IPTC among Photoshop's resources; empty where there is none."""
    at = 0
    while at + 12 <= len(resources) and resources.startswith(b"8BIM", at):
        (number,) = struct.unpack_from(">H", resources, at + 4)
        name = 1 + resources[at + 6]
        start = at + 6 + name + name % 2
        if start + 4 > len(resources):
            break
        (size,) = struct.unpack_from(">I", resources, start)
        if number == 0x0404:
            return resources[start + 4 : start + 4 + size]
        at = start + 4 + size + size % 2
    return b""
