"""Groups: finds that overlap and are blurred get one blur, or each would show its edge."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from anonymization.obscuring.region import Region
from anonymization.obscuring.shapes import Find

WASTE_MAX = 2.0
"""Largest area of the rectangle around a group, over that of its finds' rectangles together."""

GROUPS_MAX = 64
"""Groups that a find is compared with: enough for a street, and few enough for a crowd."""


@dataclass
class Group:
    """Finds that are hidden by one replacement.

    Attributes:
        method: `blur`, `pixelate` or `solid`.
        cell: Side in pixels of the cells to which they are averaged: of the coarsest of them.
        x0: First column of the rectangle around them.
        y0: Its first row.
        x1: The column behind its last.
        y1: The row behind its last.
        regions: Where each is hidden.
        area: Of their rectangles together, in pixels.
    """

    method: str
    cell: float
    x0: int
    y0: int
    x1: int
    y1: int
    regions: list[Region] = field(default_factory=list)
    area: int = 0

    @staticmethod
    def of(find: Find, where: Region) -> Group:
        """Return a group of one find."""
        rows, columns = where.shape
        x0, y0 = where.x0, where.y0
        whole = (x0, y0, x0 + columns, y0 + rows)
        return Group(find.spec.method, find.cell, *whole, [where], rows * columns)

    def takes(self, other: Group) -> bool:
        """Tell whether another group overlaps with this one, and lies close enough to be one."""
        if other.x0 >= self.x1 or other.x1 <= self.x0:
            return False
        if other.y0 >= self.y1 or other.y1 <= self.y0:
            return False
        columns = max(self.x1, other.x1) - min(self.x0, other.x0)
        rows = max(self.y1, other.y1) - min(self.y0, other.y0)
        return columns * rows <= WASTE_MAX * (self.area + other.area)

    def add(self, other: Group) -> None:
        """Take in another group."""
        self.cell = max(self.cell, other.cell)
        self.x0, self.y0 = min(self.x0, other.x0), min(self.y0, other.y0)
        self.x1, self.y1 = max(self.x1, other.x1), max(self.y1, other.y1)
        self.regions += other.regions
        self.area += other.area


def together(found: Iterable[tuple[Find, Region]]) -> list[Group]:
    """Return the groups in which finds are hidden, in the order of the first of each.

    Only what is blurred is grouped: cells of a mosaic and black surfaces have edges of their own.
    """
    groups: list[Group] = []
    for find, where in found:
        new = Group.of(find, where)
        if new.method == "blur":
            for group in groups[:GROUPS_MAX]:
                if group.method == "blur" and group.takes(new):
                    group.add(new)
                    break
            else:
                groups.append(new)
        else:
            groups.append(new)
    return groups
