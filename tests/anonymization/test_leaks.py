"""Noise in an object is not in the written file, in any format, channel or orientation.

Each source has noise of two values in an object in its middle and in two at its edges. They are
hidden, and the file is read by a decoder that shares nothing with ours: what it shows must not go
along with the noise.
"""

import io
from collections.abc import Callable
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from anonymization.anonymizer import Anonymizer
from anonymization.detection.finds import Detections
from anonymization.formats.picture import decode, encode
from anonymization.formats.pixels import upright
from anonymization.settings import Settings

HEIGHT, WIDTH = 75, 107  # no multiple of any unit, tile or strip
BOXES = ((40, 20, 70, 50), (WIDTH - 21, HEIGHT - 19, WIDTH, HEIGHT), (0, 0, 13, 11))
NOISE = np.random.default_rng(0).integers(0, 2, (HEIGHT, WIDTH))


def scene(channels: int, kind: Any = np.uint8) -> NDArray[Any]:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    share = 0.3 + 0.4 * ((x + 2 * y) % 180) / 180
    for x0, y0, x1, y1 in BOXES:
        share[y0:y1, x0:x1] = NOISE[y0:y1, x0:x1] * 0.9 + 0.05
    top = 3.0 if kind == np.float32 else np.iinfo(kind).max
    pixels = np.repeat((share * top).astype(kind)[..., None], channels, axis=2)
    return pixels[..., 0] if channels == 1 else pixels


def pillow(mode: str, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pixels = scene(len(Image.new(mode, (1, 1)).getbands()))
    Image.frombytes(mode, (WIDTH, HEIGHT), pixels.tobytes()).save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return pillow("RGB", "JPEG", quality=95, exif=exif)


def tiff(channels: int, kind: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    colours = "rgb" if channels > 2 else "minisblack"
    tifffile.imwrite(
        buffer, scene(channels, kind), **({"photometric": colours, "metadata": None} | options)
    )
    return buffer.getvalue()


def jpeg2000(channels: int, kind: Any = np.uint8, **options: Any) -> bytes:
    how = {"level": 0, "codecformat": "JP2", "reversible": True} | options
    return bytes(imagecodecs.jpeg2k_encode(scene(channels, kind), **how))


def png(channels: int) -> bytes:
    return bytes(cv2.imencode(".png", scene(channels, np.uint16))[1])


SOURCES: dict[str, tuple[Callable[[], bytes], int]] = {
    "JPEG 4:2:0": (lambda: pillow("RGB", "JPEG", quality=95, subsampling=2), 1),
    "JPEG 4:2:2": (lambda: pillow("RGB", "JPEG", quality=95, subsampling=1), 1),
    "JPEG 4:4:4": (lambda: pillow("RGB", "JPEG", quality=95, subsampling=0, progressive=True), 1),
    "JPEG gray": (lambda: pillow("L", "JPEG", quality=95), 1),
    "JPEG CMYK": (lambda: pillow("CMYK", "JPEG", quality=95), 1),
    "PNG": (lambda: pillow("RGB", "PNG"), 1),
    "PNG gray and alpha": (lambda: pillow("LA", "PNG"), 1),
    "PNG alpha": (lambda: pillow("RGBA", "PNG"), 1),
    "PNG 16 bits": (lambda: png(1), 1),
    "PNG 16 bits alpha": (lambda: png(4), 1),
    "WebP": (lambda: pillow("RGBA", "WEBP"), 1),
    "WebP lossless": (lambda: pillow("RGBA", "WEBP", lossless=True, exact=True), 1),
    "BMP": (lambda: pillow("RGB", "BMP"), 1),
    "TIFF tiles": (lambda: tiff(3, np.uint8, tile=(32, 48), compression="lzw", predictor=True), 1),
    "TIFF CMYK": (lambda: tiff(4, np.uint8, photometric="separated"), 1),
    "TIFF JPEG": (lambda: tiff(3, np.uint8, tile=(32, 48), compression="jpeg"), 1),
    "TIFF float": (lambda: tiff(3, np.float32), 1),
    "BigTIFF 16 bits": (lambda: tiff(3, np.uint16, bigtiff=True, tile=(16, 16)), 1),
    "TIFF 16 bits alpha": (lambda: tiff(4, np.uint16, extrasamples=["unassalpha"]), 1),
    "JPEG 2000": (lambda: jpeg2000(3), 1),
    "JPEG 2000 lossy": (lambda: jpeg2000(3, level=40, reversible=False, codecformat="J2K"), 1),
    "JPEG 2000 16 bits": (lambda: jpeg2000(1, np.uint16), 1),
} | {f"JPEG turned {n}": (lambda n=n: turned(n), n) for n in range(2, 9)}  # type: ignore[misc]


def read_otherwise(data: bytes) -> NDArray[Any]:
    """Decode by another library, in the order of the file, every channel."""
    if data[:2] in (b"II", b"MM"):
        return np.asarray(tifffile.imread(io.BytesIO(data)))
    if data[:4] == b"\x00\x00\x00\x0c" or data[:2] == b"\xff\x4f":
        return np.asarray(imagecodecs.jpeg2k_decode(data))
    if data.startswith(b"\x89PNG"):
        return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))
    return np.asarray(Image.open(io.BytesIO(data)))


def detail(values: NDArray[Any]) -> NDArray[Any]:
    whole = values.astype(np.float64)
    return np.asarray(whole - cv2.GaussianBlur(whole, (0, 0), 2))


def goes_along(pixels: NDArray[Any], box: tuple[int, int, int, int]) -> float:
    """Return the largest correlation of a channel's detail with the noise's, in a box."""
    part = slice(box[1], box[3]), slice(box[0], box[2])
    noise = detail(NOISE[part])
    found = [0.0]
    for channel in np.moveaxis(np.atleast_3d(pixels), 2, 0):
        shown = detail(channel[part])
        size = np.sqrt((shown**2).sum() * (noise**2).sum())
        found.append(abs((shown * noise).sum()) / size if size > 1e-9 else 0.0)
    return max(found)


def upright_boxes(orientation: int) -> NDArray[np.float32]:
    boxes = []
    for x0, y0, x1, y1 in BOXES:
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[y0:y1, x0:x1] = True
        rows, columns = np.nonzero(upright(mask, orientation))
        boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return np.array(boxes, np.float32)


@pytest.mark.parametrize("method", ["blur", "pixelate", "solid", "synthetic"])
@pytest.mark.parametrize("name", list(SOURCES))
def test_noise_in_an_object_is_not_in_the_file(name: str, method: str) -> None:
    make, orientation = SOURCES[name]
    source = make()
    wanted = [f"license_plate.method={method}", "license_plate.margin=0"]
    anonymizer = Anonymizer.for_known_regions(settings=Settings.of(wanted), seed=0)
    plate = anonymizer.taxonomy.class_id("license_plate")
    finds = Detections.from_boxes(upright_boxes(orientation), class_ids=np.full(len(BOXES), plate))
    picture = decode(source)
    cmyk = picture.encoding.mode.startswith("CMYK")
    written = encode(picture, anonymizer.obscure(picture.native, finds, cmyk=cmyk))
    before, after = read_otherwise(source), read_otherwise(written)
    assert (before.shape, before.dtype) == (after.shape, after.dtype)
    assert min(goes_along(before, box) for box in BOXES) > 0.7
    assert max(goes_along(after, box) for box in BOXES) < 0.25
