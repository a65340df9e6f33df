"""Small pictures of every format, and ways to damage them; for the tests of robustness."""

import io
import random
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

HEIGHT, WIDTH = 70, 101


def scene(channels: int, kind: Any = np.uint8) -> NDArray[Any]:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    share = np.stack([(x * (i + 1) + y * 2) % 171 for i in range(channels)], 2) / 171
    top = 3.0 if kind == np.float32 else np.iinfo(kind).max
    result = (share * top).astype(kind)
    return result[..., 0] if channels == 1 else result


def by_pillow(pixels: NDArray[Any], kind: str, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "Maker"
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


def ink() -> bytes:
    buffer = io.BytesIO()
    Image.frombytes("CMYK", (WIDTH, HEIGHT), scene(4).tobytes()).save(buffer, "JPEG")
    return buffer.getvalue()


def tiff(pixels: NDArray[Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    settings: dict[str, Any] = {"photometric": "rgb", "metadata": None} | options
    if "tile" not in settings:
        settings["rowsperstrip"] = 16
    tifffile.imwrite(buffer, pixels, **settings)
    return buffer.getvalue()


def jpeg2000(pixels: NDArray[Any], **options: Any) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(pixels, **{"level": 0, "codecformat": "JP2"} | options))


SOURCES: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: by_pillow(scene(3), "JPEG"),
    "JPEG progressive": lambda: by_pillow(scene(3), "JPEG", progressive=True, subsampling=1),
    "JPEG gray": lambda: by_pillow(scene(1), "JPEG"),
    "JPEG CMYK": ink,
    "PNG": lambda: by_pillow(scene(3), "PNG"),
    "PNG 16 bits": lambda: by_pillow(scene(1, np.uint16), "PNG"),
    "WebP": lambda: by_pillow(scene(3), "WEBP"),
    "WebP lossless": lambda: by_pillow(scene(4), "WEBP", lossless=True),
    "BMP": lambda: by_pillow(scene(3), "BMP"),
    "TIFF": lambda: tiff(scene(3)),
    "TIFF LZW": lambda: tiff(scene(3), compression="lzw", predictor=True, tile=(32, 48)),
    "TIFF deflate": lambda: tiff(scene(3), compression="deflate", predictor=True),
    "TIFF PackBits": lambda: tiff(scene(3), compression="packbits"),
    "TIFF JPEG": lambda: tiff(scene(3), compression="jpeg", tile=(32, 48)),
    "BigTIFF 16 bits": lambda: tiff(scene(3, np.uint16), bigtiff=True, tile=(32, 32)),
    "TIFF float": lambda: tiff(scene(3, np.float32), compression="deflate", predictor=True),
    "JPEG 2000": lambda: jpeg2000(scene(3), reversible=True),
    "JPEG 2000 lossy": lambda: jpeg2000(scene(3), level=40, codecformat="J2K"),
    "JPEG 2000 16 bits": lambda: jpeg2000(scene(1, np.uint16), reversible=True),
}


def mutated(data: bytes, seed: int) -> bytes:
    """Damage a file in one of six ways; headers more often than the rest."""
    chance = random.Random(seed)
    content = bytearray(data)
    head = min(len(content), 300)
    at = chance.randrange(len(content))
    how = seed % 6
    if how == 0:
        return bytes(content[:at])
    if how == 1:
        for _ in range(chance.randrange(1, 6)):
            content[chance.randrange(head)] = chance.randrange(256)
    elif how == 2:
        for _ in range(chance.randrange(1, 20)):
            content[chance.randrange(len(content))] = chance.randrange(256)
    elif how == 3:
        at = chance.randrange(head)
        big = chance.choice([b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff", b"\xff\xff"])
        content[at : at + len(big)] = big
    elif how == 4:
        content[at:at] = chance.randbytes(chance.randrange(1, 40))
    else:
        del content[at : at + chance.randrange(1, 60)]
    return bytes(content)
