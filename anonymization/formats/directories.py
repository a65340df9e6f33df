"""Directories of fields as TIFF and EXIF have them (TIFF 6.0, section 2; BigTIFF), both ways."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Union

Entry = tuple[int, int, bytes]
"""Type, count and raw value of one field, in the byte order of the file."""

Directory = dict[int, Entry]
Nested = Mapping[int, Union[Entry, "Nested"]]
"""Fields, some of them directories of their own."""

SIZES = {
    **{1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4},
    **{16: 8, 17: 8, 18: 8, 129: 1},
}
"""Bytes of one value of each type."""

SHORT, LONG, LONG8 = 3, 4, 16
_ENTRIES_MAX = 1024
_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I"}
_WIDE_NUMBERS = {16: "Q", 17: "q", 18: "Q"}


@dataclass(frozen=True)
class Layout:
    """Byte order, `<` or `>`, and whether offsets have eight bytes (BigTIFF)."""

    order: Literal["<", ">"]
    big: bool = False

    @property
    def offset_bytes(self) -> int:
        """Bytes of an offset, and of a value that stands in the table itself."""
        return 8 if self.big else 4

    @property
    def _count(self) -> str:
        return f"{self.order}{'Q' if self.big else 'H'}"

    @property
    def _offset(self) -> str:
        return f"{self.order}{'Q' if self.big else 'I'}"

    def pack(self, kind: int, *values: int) -> Entry:
        """Return a field of whole numbers."""
        code = {**_NUMBERS, **_WIDE_NUMBERS}[kind]
        return kind, len(values), struct.pack(f"{self.order}{len(values)}{code}", *values)

    def numbers(self, entry: Entry | None) -> tuple[int | float, ...]:
        """Return a field's numbers; none where it is missing or holds no plain numbers."""
        kind, count, value = entry or (0, 0, b"")
        code = {**_NUMBERS, **_WIDE_NUMBERS}.get(kind)
        return struct.unpack(f"{self.order}{count}{code}", value) if code else ()

    def pointer(self, entry: Entry | None) -> int:
        """Return the offset that a field holds; 0 where it holds none."""
        found = self.numbers(entry) if entry and entry[0] in (4, 9, 13, 16, 18) else ()
        return int(found[0]) if len(found) == 1 and found[0] > 0 else 0

    def read(self, data: bytes, at: int) -> tuple[Directory, int]:
        """Read the fields of a directory and the offset of the next; broken fields are left out.

        Values that are longer together than `data` are left out too: a thousand fields that each
        point at all of a file would take a thousand times its memory.
        """
        head, wide = struct.calcsize(self._count), self.offset_bytes
        if not 8 <= at <= len(data) - head:
            return {}, 0
        (count,) = struct.unpack_from(self._count, data, at)
        row = 4 + 2 * wide
        end = at + head + row * count
        fields: Directory = {}
        left = len(data)
        for start in range(at + head, min(end, len(data) - row + 1), row)[:_ENTRIES_MAX]:
            tag, kind = struct.unpack_from(f"{self.order}HH", data, start)
            number = struct.unpack_from(self._offset, data, start + 4)[0]
            size = SIZES.get(kind, 0) * number
            where = start + 4 + wide
            if size > wide:
                (where,) = struct.unpack_from(self._offset, data, where)
            if 0 < size <= min(left, len(data) - where) and tag not in fields:
                fields[tag] = (kind, number, data[where : where + size])
                left -= size
        following = struct.unpack_from(self._offset, data, end)[0] if end + wide <= len(data) else 0
        return fields, int(following)

    def write(self, fields: Nested, *, offset: int, following: int = 0) -> bytes:
        """Write a directory that will stand at `offset`, its values, then nested directories.

        Args:
            fields: What to write; empty nested directories are left out.
            offset: Where it will stand in the file.
            following: Offset of the next directory.
        """
        wide = self.offset_bytes
        rows = {tag: entry for tag, entry in sorted(fields.items()) if entry}
        values_at = offset + struct.calcsize(self._count) + (4 + 2 * wide) * len(rows) + wide
        table, values = struct.pack(self._count, len(rows)), b""
        for tag, entry in rows.items():
            at = values_at + len(values)
            if isinstance(entry, tuple):
                kind, count, value = entry
                here = value.ljust(wide, b"\x00") if len(value) <= wide else b""
                values += b"" if here else _even(value)
            else:
                kind, count, here = (LONG8 if self.big else LONG), 1, b""
                values += _even(self.write(entry, offset=at))
            table += struct.pack(f"{self.order}HH", tag, kind) + struct.pack(self._offset, count)
            table += here or struct.pack(self._offset, at)
        return table + struct.pack(self._offset, following) + values


def _even(value: bytes) -> bytes:
    return value + bytes(len(value) % 2)
