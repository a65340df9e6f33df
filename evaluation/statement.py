"""A statement as blocks of text, and as Markdown; evaluation/statement_pdf.py makes a PDF of them.

Texts hold `code` between backticks and no other markup.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

GOOD, BAD = "good", "bad"


@dataclass(frozen=True)
class Heading:
    """The title, at level 1, or that of a part."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Running text.

    Attributes:
        text: What it says.
        lead: What it says first, in bold.
        tone: `good` or `bad` for a verdict; empty for any other text.
    """

    text: str
    lead: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table; each row has as many cells as its head."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


Block = Heading | Paragraph | Bullets | Table


def one_line(text: str) -> str:
    """Return a text without line breaks: who names a use or a slice must not add a paragraph.

    >>> one_line("  a map of " + chr(10) + "towns")
    'a map of towns'
    """
    return " ".join(text.split())


def to_markdown(blocks: Iterable[Block]) -> str:
    """Return the blocks as Markdown.

    >>> print(to_markdown([Heading("Of a map", 1), Table(("a", "b"), (("1", "2"),))]), end="")
    # Of a map
    <BLANKLINE>
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    return "\n\n".join("\n".join(_lines(block)) for block in blocks) + "\n"


def _lines(block: Block) -> Iterable[str]:
    match block:
        case Heading():
            yield f"{'#' * block.level} {one_line(block.text)}"
        case Paragraph():
            lead = f"**{one_line(block.lead)}** " if block.lead else ""
            yield (lead + one_line(block.text)).strip()
        case Bullets():
            yield from (f"- {one_line(item)}" for item in block.items)
        case Table():
            yield _row(block.head)
            yield _row(["---"] * len(block.head))
            yield from (_row(row) for row in block.rows)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(one_line(cell).replace('|', chr(92) + '|') for cell in cells)} |"
