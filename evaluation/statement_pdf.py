"""A statement as PDF: A4, searchable text, fonts inside the file.

Drawn by ReportLab in DejaVu, which comes with Matplotlib: the fonts that every PDF reader has know
no letter beyond those of Western Europe.
"""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from anonymization.errors import BlurloopError
from evaluation.statement import BAD, GOOD, Block, Bullets, Heading, Paragraph, Table, one_line

MARGIN_MM = 18
INSIDE_PT = 6
"""What ReportLab's frame keeps free to each side of the text."""
TABLE_PT = 7.5
CELL_PAD_PT = 3.0
COLOURS = {GOOD: "#1b7f4b", BAD: "#b3261e", "": "#1d2733"}
SOFT, LINE, PALE = "#5d6b7a", "#d9dfe6", "#f6f8fa"
FONTS = {"Body": "DejaVuSans", "Bold": "DejaVuSans-Bold", "Mono": "DejaVuSansMono"}
RIGHT_TO_LEFT = ("R", "AL", "AN")


class StatementError(BlurloopError):
    """A statement cannot be set in type."""

    exit_code = 2


def to_pdf(blocks: Sequence[Block], *, footer: str) -> bytes:
    """Return the blocks as a PDF file.

    Args:
        blocks: The first heading of level 1 is the title.
        footer: Stands on each page, beside its number.

    Raises:
        StatementError: If the fonts lack a character, or it is written from right to left.
    """
    fonts = _register_fonts()
    _check_characters([*_texts(blocks), footer], fonts)
    pages = _build(blocks, footer, of=0)[1]
    return _build(blocks, footer, of=pages)[0]


def _register_fonts() -> dict[str, Any]:
    import matplotlib
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    fonts = {name: TTFont(name, str(folder / f"{file}.ttf")) for name, file in FONTS.items()}
    for font in fonts.values():
        pdfmetrics.registerFont(font)
    return fonts


def _texts(blocks: Iterable[Block]) -> Iterator[str]:
    for block in blocks:
        match block:
            case Heading():
                yield block.text
            case Paragraph():
                yield from (block.lead, block.text)
            case Bullets():
                yield from block.items
            case Table():
                for row in (block.head, *block.rows):
                    yield from row


def _check_characters(texts: Iterable[str], fonts: dict[str, Any]) -> None:
    known = set.intersection(*(set(font.face.charToGlyph) for font in fonts.values()))
    for text in texts:
        for character in _plain(text):
            backwards = unicodedata.bidirectional(character) in RIGHT_TO_LEFT
            if ord(character) not in known or backwards:
                raise StatementError(
                    f"the PDF's fonts cannot show {character!r} of {text!r}; write the statement "
                    "as Markdown: --output statement.md"
                )


def _plain(text: str) -> str:
    """Return a text in one line, letters and their accents in one character each."""
    return unicodedata.normalize("NFC", one_line(text))


def _build(blocks: Sequence[Block], footer: str, *, of: int) -> tuple[bytes, int]:
    """Return the file and its number of pages."""
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.units import mm
    from reportlab.platypus import SimpleDocTemplate

    file = io.BytesIO()
    margin = MARGIN_MM * mm
    title = next((b.text for b in blocks if isinstance(b, Heading) and b.level == 1), "Statement")
    document = SimpleDocTemplate(
        file,
        pagesize=A4,
        leftMargin=margin,
        rightMargin=margin,
        topMargin=margin,
        bottomMargin=margin,
        title=_plain(title),
        author="Blurloop",
        lang="en",
    )

    def number(canvas: Any, page: Any) -> None:
        canvas.saveState()
        canvas.setFont("Body", TABLE_PT)
        canvas.setFillColor(SOFT)
        canvas.drawString(margin + INSIDE_PT, margin / 2, _plain(footer))
        canvas.drawRightString(A4[0] - margin - INSIDE_PT, margin / 2, f"page {page.page} of {of}")
        canvas.restoreState()

    width = document.width - 2 * INSIDE_PT
    flow = [part for block in blocks for part in _flowables(block, width)]
    document.build(flow, onFirstPage=number, onLaterPages=number)
    return file.getvalue(), int(document.page)


def _flowables(block: Block, width: float) -> Iterator[Any]:
    from reportlab.lib.styles import ParagraphStyle
    from reportlab.platypus import Paragraph as Set

    def style(name: str, size: float, **more: Any) -> ParagraphStyle:
        asked = {"fontName": "Body", "spaceAfter": 4, "leading": 1.4 * size} | more
        return ParagraphStyle(name, fontSize=size, **asked)

    match block:
        case Heading(level=1):
            yield Set(_marked(block.text), style("title", 15, fontName="Bold", spaceAfter=10))
        case Heading():
            above = {"fontName": "Bold", "spaceBefore": 12, "keepWithNext": 1}
            yield Set(_marked(block.text), style("part", 11, **above))
        case Paragraph(tone=""):
            lead = f'<font name="Bold">{_marked(block.lead)}</font> ' if block.lead else ""
            yield Set(lead + _marked(block.text), style("text", 9))
        case Paragraph():
            colour = COLOURS[block.tone]
            lead = f'<font name="Bold" size="13" color="{colour}">{_marked(block.lead)}</font> '
            box = {"backColor": PALE, "borderColor": colour, "borderWidth": 1, "borderPadding": 8}
            around = {"leftIndent": 9, "rightIndent": 9, "spaceBefore": 8, "spaceAfter": 14}
            yield Set(lead + _marked(block.text), style("verdict", 10, leading=17, **box, **around))
        case Bullets():
            hang = {"leftIndent": 11, "bulletIndent": 1, "spaceAfter": 2}
            for item in block.items:
                yield Set(_marked(item), style("item", 9, **hang), bulletText="•")
        case Table():
            yield from _table(block, width, style)


def _table(block: Table, width: float, style: Any) -> Iterator[Any]:
    from reportlab.lib.enums import TA_LEFT, TA_RIGHT
    from reportlab.platypus import Paragraph as Set
    from reportlab.platypus import Spacer
    from reportlab.platypus import Table as Grid

    columns = list(zip(block.head, *block.rows, strict=True))
    sides = [TA_RIGHT if _is_numeric(column[1:]) else TA_LEFT for column in columns]

    def cell(text: str, side: int, colour: str) -> Any:
        plain = style(f"{side} {colour}", TABLE_PT, spaceAfter=0, alignment=side, textColor=colour)
        return Set(_marked(text), plain)

    rows = [
        [
            cell(text, side, COLOURS[""] if at else SOFT)
            for text, side in zip(row, sides, strict=True)
        ]
        for at, row in enumerate((block.head, *block.rows))
    ]
    lines = [
        ("LINEBELOW", (0, 0), (-1, -1), 0.5, LINE),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LEFTPADDING", (0, 0), (-1, -1), CELL_PAD_PT),
        ("RIGHTPADDING", (0, 0), (-1, -1), CELL_PAD_PT),
        ("TOPPADDING", (0, 0), (-1, -1), 2),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 2.5),
    ]
    yield Grid(rows, _widths(columns, width), repeatRows=1, style=lines, hAlign="LEFT")
    yield Spacer(1, 6)


def _is_numeric(cells: Sequence[str]) -> bool:
    return all(re.match(r"[\d–-]", cell) for cell in cells)


def _widths(columns: Sequence[Sequence[str]], width: float) -> list[float]:
    """Return a width for each column: what its longest cell takes, as far as the page allows."""
    from reportlab.pdfbase.pdfmetrics import stringWidth

    pad = 2 * CELL_PAD_PT + 1
    asked = [max(stringWidth(_plain(c), "Body", TABLE_PT) for c in each) + pad for each in columns]
    return fitted(asked, width)


def fitted(asked: Sequence[float], width: float) -> list[float]:
    """Return widths that fit the page: narrow columns keep theirs, wide ones share what is left.

    >>> fitted([10, 100, 200], 150)
    [10, 70.0, 70.0]
    >>> fitted([10, 20], 150)
    [10, 20]
    """
    left, open_ = width, len(asked)
    for each in sorted(asked):
        if each > left / open_:
            return [min(own, left / open_) for own in asked]
        left, open_ = left - each, open_ - 1
    return list(asked)


def _marked(text: str) -> str:
    """Return a text as ReportLab's markup: `code` in a font of fixed width.

    >>> _marked("digest `ab` < 3")
    'digest <font name="Mono" size="8">ab</font> &lt; 3'
    """
    parts = escape(_plain(text)).split("`")
    return "".join(
        f'<font name="Mono" size="8">{part}</font>' if at % 2 else part
        for at, part in enumerate(parts)
    )
