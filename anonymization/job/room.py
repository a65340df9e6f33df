"""How much room a picture takes while it is worked on, as its header tells."""

from __future__ import annotations

import struct
import sys
import warnings
from functools import cache

from anonymization.formats import jpeg2000, pillow_formats, tiff
from anonymization.formats.directories import Layout

_RGB_BYTES = 3
_PNG, _PNG_DEPTH = b"\x89PNG\r\n\x1a\n", 24
_WIDTH, _HEIGHT, _BITS, _SAMPLES = 256, 257, 258, 277
_JPEG2000_BYTES = 4
"""Of one channel: OpenJPEG works in 32 bits, whatever the depth."""


def room_of(data: bytes) -> int:
    """Return how many pixels of 8-bit RGB take the memory that a picture takes.

    What no header tells may take any: it counts as more than ever fits beside another.

    Args:
        data: The whole file.
    """
    try:
        if data.startswith(tiff.SIGNATURES):
            pixels, wide = _of_tiff(data)
        elif data.startswith(jpeg2000.SIGNATURES):
            pixels, wide = _of_jpeg2000(data)
        else:
            pixels, wide = _of_others(data)
    except Exception:  # noqa: BLE001 - decoding says what is wrong with it
        return sys.maxsize
    return -(-pixels * max(wide, _RGB_BYTES) // _RGB_BYTES) or sys.maxsize


def _of_tiff(data: bytes) -> tuple[int, int]:
    """Return pixels and bytes of each; Pillow opens neither float RGB nor gray with alpha."""
    layout = Layout("<" if data[:2] == b"II" else ">", big=data[2:4] in (b"+\x00", b"\x00+"))
    code, at = ("Q", 8) if layout.big else ("I", 4)
    page, _ = layout.read(data, struct.unpack_from(f"{layout.order}{code}", data, at)[0])
    width, height = (int(layout.numbers(page[tag])[0]) for tag in (_WIDTH, _HEIGHT))
    samples = int((layout.numbers(page.get(_SAMPLES)) or (1,))[0])
    bits = int(max(layout.numbers(page.get(_BITS)) or (1,)))
    return width * height, samples * -(-bits // 8)


def _of_jpeg2000(data: bytes) -> tuple[int, int]:
    """Return the same of the largest codestream: boxes may say less than is decoded."""
    found, at = [(0, 0)], -1
    while (at := data.find(jpeg2000.SIGNATURES[1], at + 1)) >= 0:
        x1, y1, x0, y0, channels = struct.unpack_from(">4I16xH", data, at + 8)
        found.append(((x1 - x0) * (y1 - y0), channels * _JPEG2000_BYTES))
    return max(found, key=lambda one: one[0] * one[1])


def _of_others(data: bytes) -> tuple[int, int]:
    _hush_pillow()
    image = pillow_formats.opened(data, "it")
    deep = data.startswith(_PNG) and data[_PNG_DEPTH] > 8
    return image.width * image.height, len(image.getbands()) * (2 if deep else 1)


@cache
def _hush_pillow() -> None:
    """Ignore from now on what Pillow warns of: what it finds is told as the picture is decoded.

    Pictures are read in threads, and filters belong to the process: one that is taken back by a
    thread takes back those of others, or is left for all warnings.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
