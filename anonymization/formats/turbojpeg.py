"""TurboJPEG: decoding into an array, and changing DCT blocks of a JPEG in memory.

The library is the libjpeg-turbo inside the wheel of pylibjxl, called through its C interface
(https://libjpeg-turbo.org/Documentation): no wheel offers `tj3Transform` with a filter for
coefficients to Python. Every call has a handle of its own and releases the interpreter's lock, so
that threads do not meet. Without the library `available` is false and callers use Pillow.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonymization.errors import BlurloopError

log = logging.getLogger(__name__)

Visit = Callable[[int, int, NDArray[np.int16]], None]
"""Takes component, row of blocks, and that row's coefficients, int16 (columns, 64), to change."""

SCANS_MAX = 200
"""A progressive JPEG has about ten scans; a bomb has as many as fit and takes hours."""

_DECOMPRESS, _TRANSFORM = 1, 2
_STOP_ON_WARNING, _WIDTH, _HEIGHT, _COLORSPACE, _SCAN_LIMIT = 0, 5, 6, 8, 13
_PROGRESSIVE, _COPY_NONE, _ARITHMETIC, _OPTIMIZE = 32, 64, 128, 256
_PIXEL_RGB, _PIXEL_GRAY = 0, 6
COLORSPACES = ("RGB", "YCbCr", "GRAY", "CMYK", "YCCK")
"""Names of what TurboJPEG numbers, in its order."""


class TurboJpegError(BlurloopError):
    """TurboJPEG is missing, or refuses a file."""


class _Region(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in "xywh"]


_Filter = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    _Region,
    _Region,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_void_p,
)


class _Transform(ctypes.Structure):
    _fields_ = [
        ("region", _Region),
        ("operation", ctypes.c_int),
        ("options", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("filter", _Filter),
    ]


@cache
def _library() -> ctypes.CDLL | None:
    spec = find_spec("pylibjxl")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for found in (path for folder in folders for path in Path(folder).glob("_pylibjxl*.so")):
        try:
            library = ctypes.CDLL(str(found))
            library.tj3Init.restype = ctypes.c_void_p
            library.tj3Destroy.argtypes = [ctypes.c_void_p]
            library.tj3Destroy.restype = None
            library.tj3Free.argtypes = [ctypes.c_void_p]
            library.tj3Free.restype = None
            library.tj3GetErrorStr.argtypes = [ctypes.c_void_p]
            library.tj3GetErrorStr.restype = ctypes.c_char_p
            library.tj3Set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
            library.tj3Get.argtypes = [ctypes.c_void_p, ctypes.c_int]
            file: list[Any] = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
            library.tj3DecompressHeader.argtypes = file
            library.tj3Decompress8.argtypes = [*file, ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
            library.tj3Transform.argtypes = [
                *file,
                ctypes.c_int,
                ctypes.POINTER(ctypes.c_void_p),
                ctypes.POINTER(ctypes.c_size_t),
                ctypes.POINTER(_Transform),
            ]
        except (OSError, AttributeError):
            continue
        return library
    log.warning("TurboJPEG is missing (pip install pylibjxl): every JPEG will be encoded whole")
    return None


def available() -> bool:
    """Tell whether the library is there."""
    return _library() is not None


class _Handle:
    """One TurboJPEG instance, which stops at the first warning about damaged data."""

    def __init__(self, kind: int) -> None:
        library = _library()
        if library is None:
            raise TurboJpegError("TurboJPEG is missing; install pylibjxl")
        self.library = library
        self.pointer: int | None = library.tj3Init(kind)
        if not self.pointer:
            raise TurboJpegError("TurboJPEG cannot start: out of memory")
        library.tj3Set(self.pointer, _STOP_ON_WARNING, 1)
        library.tj3Set(self.pointer, _SCAN_LIMIT, SCANS_MAX)

    def __enter__(self) -> _Handle:
        return self

    def __exit__(self, *_: object) -> None:
        self.library.tj3Destroy(self.pointer)
        self.pointer = None

    def check(self, result: int) -> None:
        if result != 0:
            reason = self.library.tj3GetErrorStr(self.pointer)
            raise TurboJpegError(f"TurboJPEG: {(reason or b'unknown error').decode('latin-1')}")

    def read_header(self, data: bytes) -> tuple[int, int, str]:
        self.check(self.library.tj3DecompressHeader(self.pointer, data, len(data)))
        width, height, space = (
            self.library.tj3Get(self.pointer, number) for number in (_WIDTH, _HEIGHT, _COLORSPACE)
        )
        if not 0 <= space < len(COLORSPACES):
            raise TurboJpegError(f"TurboJPEG: colour space {space} is unknown")
        return width, height, COLORSPACES[space]


def colorspace(data: bytes) -> str:
    """Return how a JPEG's components are coloured, one of `COLORSPACES`.

    Raises:
        TurboJpegError: If its header cannot be read.
    """
    with _Handle(_DECOMPRESS) as handle:
        return handle.read_header(data)[2]


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode a gray or RGB JPEG; the same pixels as Pillow's, without its copies.

    Returns:
        uint8, shape (H, W) for gray, else (H, W, 3).

    Raises:
        TurboJpegError: If it has four components, or its data are damaged in any way.
    """
    with _Handle(_DECOMPRESS) as handle:
        width, height, space = handle.read_header(data)
        if space in ("CMYK", "YCCK"):
            raise TurboJpegError(f"TurboJPEG: {space} is left to Pillow")
        gray = space == "GRAY"
        pixels = np.empty((height, width) if gray else (height, width, 3), np.uint8)
        order = _PIXEL_GRAY if gray else _PIXEL_RGB
        call = handle.library.tj3Decompress8
        handle.check(call(handle.pointer, data, len(data), pixels.ctypes.data, 0, order))
        return pixels


def rewrite(
    data: bytes, visit: Visit, *, progressive: bool, arithmetic: bool, optimize: bool
) -> bytes:
    """Write a JPEG again from its own DCT coefficients, which `visit` may change on the way.

    Only what the frame needs is written: no marker of the source is copied, nor anything behind
    its end.

    Args:
        data: The whole file.
        visit: Called once for each row of blocks of each component; what it raises is raised.
        progressive: Write several scans.
        arithmetic: Write arithmetic instead of Huffman codes.
        optimize: Measure the best Huffman tables first; without, the standard ones are used.

    Raises:
        TurboJpegError: If the coefficients cannot be read or written.
    """
    raised: list[BaseException] = []

    def filtered(address: int, row: _Region, _plane: Any, component: int, *_: Any) -> int:
        try:
            stored = (ctypes.c_short * (row.w * 8)).from_address(address)
            visit(component, row.y // 8, np.frombuffer(stored, np.int16).reshape(-1, 64))
        except BaseException as error:  # noqa: BLE001  # C sees a number; it is raised below
            raised.append(error)
            return -1
        return 0

    options = _COPY_NONE | (_PROGRESSIVE if progressive else 0)
    options |= (_ARITHMETIC if arithmetic else 0) | (_OPTIMIZE if optimize else 0)
    wanted = _Transform(_Region(), 0, options, None, _Filter(filtered))
    content, size = ctypes.c_void_p(), ctypes.c_size_t()
    with _Handle(_TRANSFORM) as handle:
        try:
            result = handle.library.tj3Transform(
                handle.pointer,
                data,
                len(data),
                1,
                ctypes.byref(content),
                ctypes.byref(size),
                ctypes.byref(wanted),
            )
            if raised:
                raise raised[0]
            handle.check(result)
            return ctypes.string_at(content, size.value)
        finally:
            handle.library.tj3Free(content)
