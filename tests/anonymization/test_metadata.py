"""No place in a file keeps a second picture, and what people need of metadata stays."""

import base64
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any
from xml.etree import ElementTree

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, PngImagePlugin

from anonymization.formats import png
from anonymization.formats.directories import LONG, SHORT, Layout
from anonymization.formats.exif import Exif, read_exif
from anonymization.formats.icc import clean_icc
from anonymization.formats.jpeg_markers import SOI, segment
from anonymization.formats.metadata import (
    GROUPS,
    MetadataError,
    MetadataPolicy,
    clean_iptc,
    iptc_of_photoshop,
    photoshop_resource,
)
from anonymization.formats.picture import decode, encode
from anonymization.formats.text import is_text
from anonymization.formats.xmp import clean_xmp

SIZE = (96, 64)
NOISE = np.random.default_rng(7).integers(0, 256, (24, 24), dtype=np.uint8)
"""Stands for a face: nothing that is made of other pixels resembles it."""


def written(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def gradient() -> Image.Image:
    x = np.linspace(0, 255, SIZE[0])[None, :].repeat(SIZE[1], 0)
    return Image.fromarray(np.stack([x, x[:, ::-1], x], 2).astype(np.uint8))


RAW = NOISE.tobytes()
AS_JPEG = written(Image.fromarray(NOISE), "JPEG", quality=95)
AS_PNG = written(Image.fromarray(NOISE), "PNG")
PAYLOADS = {
    "raw pixels": RAW,
    "JPEG": AS_JPEG,
    "PNG": AS_PNG,
    "base64": base64.b64encode(AS_JPEG),
    "hexadecimal": AS_JPEG.hex().encode(),
    "raw pixels in hexadecimal": RAW.hex().encode(),
}


def assert_no_trace(result: bytes, payload: bytes) -> None:
    """No 24 bytes of the payload, nor a picture that resembles the noise, are in the file.

    Its first half is left out: tables there are the same in every JPEG.
    """
    for at in range(len(payload) // 2, len(payload) - 24, 8):
        assert payload[at : at + 24] not in result, f"bytes {at} to {at + 24} are there"
    for carved in pictures_in(result):
        if carved.size == NOISE.shape[::-1]:
            likeness = np.corrcoef(np.asarray(carved.convert("L")).ravel(), NOISE.ravel())[0, 1]
            assert abs(likeness) < 0.3


def pictures_in(data: bytes) -> Iterator[Image.Image]:
    """Carve every picture that decodes out of the bytes of a file."""
    for start in (SOI + b"\xff", b"\x89PNG", b"RIFF"):
        at = data.find(start)
        while at >= 0:
            try:
                image = Image.open(io.BytesIO(data[at:]))
                image.load()
                yield image
            except (OSError, ValueError, SyntaxError):
                pass
            at = data.find(start, at + 1)


# -- places ------------------------------------------------------------------------------------


def exif_with(payload: bytes, *, tag: int = 0x927C, kind: int = 7, second: bytes = b"") -> bytes:
    """EXIF with a make, a time, a position, a payload in the Exif directory, and IFD1."""
    layout = Layout("<")
    camera = {0x9003: (2, 20, b"2026:11:22 10:00:00\0"), tag: (kind, len(payload), payload)}
    position = {1: (2, 2, b"N\0"), 2: (5, 3, struct.pack("<6I", 48, 1, 12, 1, 305, 10))}
    first = {0x010F: (2, 6, b"Maker\0"), 0x8769: camera, 0x8825: position}
    body = layout.write(first, offset=8)
    if second:
        at = 8 + len(body)
        fields = {
            0x0103: layout.pack(SHORT, 6),
            0x0201: layout.pack(LONG, at + 42),
            0x0202: layout.pack(LONG, len(second)),
        }
        body = layout.write(first, offset=8, following=at)
        body += layout.write(fields, offset=at) + second
    return b"II*\0\x08\0\0\0" + body


def xmp_with(inside: str) -> bytes:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
        'xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" '
        'xmlns:GImage="http://ns.google.com/photos/1.0/image/" '
        'xmlns:GDepth="http://ns.google.com/photos/1.0/depthmap/" '
        'xmlns:GCamera="http://ns.google.com/photos/1.0/camera/" '
        'xmlns:xmpGImg="http://ns.adobe.com/xap/1.0/g/img/" '
        'xmlns:xmpNote="http://ns.adobe.com/xmp/note/" '
        'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" '
        'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:own="http://example.com/own/" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/" '
        f'GPano:ProjectionType="equirectangular">{inside}</rdf:Description></rdf:RDF></x:xmpmeta>'
    ).encode()


def into_jpeg(*segments: bytes, trailer: bytes = b"") -> bytes:
    body = written(gradient(), "JPEG", quality=90)
    return body[:2] + b"".join(segments) + body[2:] + trailer


XMP = b"http://ns.adobe.com/xap/1.0/\0"
EXTENDED = b"http://ns.adobe.com/xmp/extension/\0"
EXIF = b"Exif\0\0"


def text_of(payload: bytes) -> str:
    return payload.decode() if payload.isascii() else payload.hex()


def png_with(*chunks: bytes) -> bytes:
    body = written(gradient(), "PNG")
    return body[:33] + b"".join(chunks) + body[33:]


def webp_with(*chunks: tuple[bytes, bytes]) -> bytes:
    body = written(gradient(), "WEBP", lossless=True, exif=EXIF + exif_with(b"x"))
    added = b"".join(
        name + struct.pack("<I", len(value)) + value + bytes(len(value) % 2)
        for name, value in chunks
    )
    return body[:4] + struct.pack("<I", len(body) - 8 + len(added)) + body[8:] + added


def tiff_with(tag: int, payload: bytes, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pixels = np.asarray(gradient())
    extra = [(tag, 7, len(payload), payload, True)]
    tifffile.imwrite(buffer, pixels, photometric="rgb", extratags=extra, metadata=None, **options)
    return buffer.getvalue()


def tiff_with_subifd(payload: bytes) -> bytes:
    buffer = io.BytesIO()
    small = np.stack([NOISE] * 3, 2)
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(np.asarray(gradient()), photometric="rgb", subifds=1, metadata=None)
        writer.write(small, photometric="rgb", subfiletype=1, metadata=None)
    return buffer.getvalue() + payload


def tiff_with_preview(payload: bytes) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(np.asarray(gradient()), photometric="rgb", metadata=None)
        writer.write(NOISE, photometric="minisblack", subfiletype=1, metadata=None)
    return buffer.getvalue() + payload


def tiff_under_tile_edges(payload: bytes) -> bytes:
    """Tiles reach beyond the picture: what stands there is in no pixel that anybody sees."""
    buffer = io.BytesIO()
    pixels = np.zeros((128, 128), np.uint8)
    pixels[: SIZE[1], : SIZE[0]] = np.asarray(gradient().convert("L"))
    pixels[70:94, 100:124] = NOISE
    tifffile.imwrite(buffer, pixels, tile=(128, 128), photometric="minisblack", metadata=None)
    data = bytearray(buffer.getvalue())
    layout = Layout("<")
    (first,) = struct.unpack_from("<I", data, 4)
    for number in range(struct.unpack_from("<H", data, first)[0]):
        at = first + 2 + 12 * number
        (tag,) = struct.unpack_from("<H", data, at)
        if tag in (256, 257):
            data[at : at + 12] = struct.pack("<H", tag) + (
                struct.pack("<HI", 4, 1) + layout.pack(LONG, SIZE[tag - 256])[2]
            )
    return bytes(data) + payload


def jp2_with(*boxes: tuple[bytes, bytes]) -> bytes:
    body = bytes(
        imagecodecs.jpeg2k_encode(
            np.asarray(gradient()), level=0, codecformat="JP2", reversible=True
        )
    )
    added = b"".join(struct.pack(">I4s", 8 + len(v), name) + v for name, v in boxes)
    at = body.index(b"jp2c") - 4
    return body[:at] + added + body[at:]


def with_icc_tag(payload: bytes) -> bytes:
    """An sRGB profile with a private tag."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    (count,) = struct.unpack_from(">I", profile, 128)
    shifted = b"".join(
        struct.pack(">4sII", name, at + 12, size)
        for name, at, size in struct.iter_unpack(">4sII", profile[132 : 132 + 12 * count])
    )
    start = len(profile) + 12
    table = struct.pack(">I", count + 1) + shifted
    table += struct.pack(">4sII", b"Face", start, len(payload))
    body = profile[4:128] + table + profile[132 + 12 * count :] + payload
    return struct.pack(">I", 4 + len(body)) + body


def icc_segment(profile: bytes) -> bytes:
    return segment(0xE2, b"ICC_PROFILE\0\x01\x01" + profile)


def photoshop(number: int, payload: bytes) -> bytes:
    resource = b"8BIM" + struct.pack(">H", number) + b"\0\0" + struct.pack(">I", len(payload))
    return segment(0xED, b"Photoshop 3.0\0" + resource + payload + bytes(len(payload) % 2))


def iptc_set(number: int, payload: bytes, record: int = 2) -> bytes:
    return struct.pack(">BBBH", 0x1C, record, number, len(payload)) + payload


MP4 = struct.pack(">I4s4sI", 16, b"ftyp", b"mp42", 0) + struct.pack(">I4s", 8, b"mdat")
PLACES: dict[str, Callable[[bytes], bytes]] = {
    "EXIF thumbnail": lambda p: into_jpeg(segment(0xE1, EXIF + exif_with(b"x", second=p))),
    "EXIF maker note": lambda p: into_jpeg(segment(0xE1, EXIF + exif_with(p))),
    "EXIF user comment": lambda p: into_jpeg(
        segment(0xE1, EXIF + exif_with(b"ASCII\0\0\0" + p, tag=0x9286))
    ),
    "EXIF text": lambda p: into_jpeg(segment(0xE1, EXIF + exif_with(p, tag=0x9290, kind=2))),
    "EXIF private tag": lambda p: into_jpeg(segment(0xE1, EXIF + exif_with(p, tag=0xFDE8))),
    "EXIF opto-electric table": lambda p: into_jpeg(segment(0xE1, EXIF + exif_with(p, tag=0x8828))),
    "EXIF colour filter array": lambda p: into_jpeg(segment(0xE1, EXIF + exif_with(p, tag=0xA302))),
    "EXIF behind its directories": lambda p: into_jpeg(segment(0xE1, EXIF + exif_with(b"x") + p)),
    "second EXIF": lambda p: into_jpeg(
        segment(0xE1, EXIF + exif_with(b"x")), segment(0xE1, EXIF + exif_with(p))
    ),
    "JFIF thumbnail": lambda p: (
        SOI
        + segment(0xE0, b"JFIF\0\x01\x02\0\0\x48\0\x48" + bytes([24, 24]) + p)
        + into_jpeg()[20:]
    ),
    "JFXX thumbnail": lambda p: into_jpeg(segment(0xE0, b"JFXX\0\x10" + p)),
    "Photoshop thumbnail": lambda p: into_jpeg(photoshop(1036, p)),
    "old Photoshop thumbnail": lambda p: into_jpeg(photoshop(1033, p)),
    "IPTC preview": lambda p: into_jpeg(photoshop(1028, iptc_set(202, p))),
    "IPTC caption": lambda p: into_jpeg(photoshop(1028, iptc_set(120, p))),
    "IPTC private record": lambda p: into_jpeg(photoshop(1028, iptc_set(10, p, record=8))),
    "MPF preview": lambda p: into_jpeg(segment(0xE2, b"MPF\0" + p), trailer=p),
    "FlashPix preview": lambda p: into_jpeg(segment(0xE2, b"FPXR\0" + p)),
    "further markers": lambda p: into_jpeg(*(segment(m, b"own\0" + p) for m in range(0xE3, 0xED))),
    "comment": lambda p: into_jpeg(segment(0xFE, p)),
    "behind the end": lambda p: into_jpeg(trailer=p),
    "motion photo": lambda p: into_jpeg(trailer=MP4 + p),
    "ICC private tag": lambda p: into_jpeg(icc_segment(with_icc_tag(p))),
    "XMP thumbnail": lambda p: into_jpeg(
        segment(
            0xE1,
            XMP
            + xmp_with(
                "<xmp:Thumbnails><rdf:Alt><rdf:li rdf:parseType='Resource'><xmpGImg:image>"
                f"{text_of(p)}</xmpGImg:image></rdf:li></rdf:Alt></xmp:Thumbnails>"
            ),
        )
    ),
    **{
        f"XMP {name}": lambda p, name=name: into_jpeg(
            segment(0xE1, XMP + xmp_with(f"<{name}>{text_of(p)}</{name}>"))
        )
        for name in (
            "GImage:Data",
            "GDepth:Data",
            "GCamera:hdrp_makernote",
            "hdrgm:Map",
            "own:Face",
            "dc:description",
            "GPano:PoseHeadingDegrees",
        )
    },
    "XMP comment": lambda p: into_jpeg(segment(0xE1, XMP + xmp_with(f"<!--{text_of(p)}-->"))),
    "extended XMP": lambda p: into_jpeg(
        segment(0xE1, XMP + xmp_with("<xmpNote:HasExtendedXMP>A</xmpNote:HasExtendedXMP>")),
        segment(0xE1, EXTENDED + b"A" * 32 + struct.pack(">II", len(p), 0) + p),
    ),
    "PNG EXIF": lambda p: png_with(png.chunk(b"eXIf", exif_with(p, second=p))),
    "PNG text": lambda p: png_with(png.chunk(b"tEXt", b"Preview\0" + p)),
    "PNG international text": lambda p: png_with(
        png.chunk(b"iTXt", b"Preview\0\0\0\0\0" + text_of(p).encode())
    ),
    "PNG packed text": lambda p: png_with(png.chunk(b"zTXt", b"Preview\0\0" + zlib.compress(p))),
    "PNG XMP": lambda p: png_with(
        png.chunk(
            b"iTXt",
            b"XML:com.adobe.xmp\0\0\0\0\0" + xmp_with(f"<own:F>{text_of(p)}</own:F>"),
        )
    ),
    "PNG profile": lambda p: png_with(
        png.chunk(b"iCCP", b"icc\0\0" + zlib.compress(with_icc_tag(p)))
    ),
    "PNG private chunk": lambda p: png_with(png.chunk(b"faCe", p)),
    "PNG behind the end": lambda p: png_with() + p,
    "WebP EXIF": lambda p: webp_with((b"EXIF", exif_with(p))),
    "WebP unknown chunk": lambda p: webp_with((b"FACE", p)),
    "WebP behind the end": lambda p: webp_with() + p,
    "BMP behind the end": lambda p: written(gradient(), "BMP") + p,
    "TIFF Photoshop": lambda p: tiff_with(34377, p),
    "TIFF private tag": lambda p: tiff_with(65000, p),
    "TIFF description": lambda p: tiff_with(33432, p),
    "TIFF XMP": lambda p: tiff_with(700, xmp_with(f"<own:F>{text_of(p)}</own:F>")),
    "TIFF profile": lambda p: tiff_with(34675, with_icc_tag(p)),
    "TIFF places": lambda p: tiff_with(34736, p),
    "TIFF sub-directory": tiff_with_subifd,
    "TIFF preview": tiff_with_preview,
    "TIFF under tiles' edges": tiff_under_tile_edges,
    "TIFF behind the end": lambda p: tiff_with(65000, b"1") + p,
    "JPEG 2000 EXIF": lambda p: jp2_with((b"uuid", b"JpgTiffExif->JP2" + exif_with(p, second=p))),
    "JPEG 2000 unknown box": lambda p: jp2_with((b"uuid", bytes(16) + p)),
    "JPEG 2000 text": lambda p: jp2_with((b"xml ", p)),
    "JPEG 2000 behind the end": lambda p: jp2_with() + p,
}


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("place", PLACES)
def test_a_face_hidden_in_a_file_is_not_in_the_output(place: str, payload: str) -> None:
    source = PLACES[place](PAYLOADS[payload])
    picture = decode(source)
    assert (picture.width, picture.height) == SIZE
    new = picture.native.copy()
    new[20:40, 20:40] = 0
    result = encode(picture, new)
    assert_no_trace(result, PAYLOADS[payload])
    assert_no_trace(result, RAW)
    assert decode(result).native.shape == new.shape


@pytest.mark.parametrize("place", PLACES)
def test_the_places_are_real(place: str) -> None:
    """Guards the test above: without cleaning, each file holds what was hidden in it."""
    held = unpacked(PLACES[place](AS_JPEG))
    assert AS_JPEG[-48:-24] in held or AS_JPEG[-48:-24].hex().encode() in held


def unpacked(source: bytes) -> bytes:
    """The file, and behind it what PNG chunks hold compressed."""
    texts = [content for _, content in png.chunks(source)] if source[:4] == b"\x89PNG" else []
    packed = [text.split(b"\0\0", 1)[-1] for text in texts]
    return source + b"".join(
        zlib.decompress(p) for p in packed if p.startswith(b"\x78") and len(p) > 100
    )


# -- thumbnails --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_thumbnail_is_made_anew_from_the_anonymized_picture(kind: str) -> None:
    exif = exif_with(b"x", second=AS_JPEG)
    picture = decode(written(gradient(), kind, exif=EXIF + exif))
    new = np.zeros_like(picture.native)
    new[:, :48] = 200
    (small,) = pictures_in(encode(picture, new)[4:])
    shown = np.asarray(small.convert("L"), int)
    assert shown.shape == (64, 96)
    assert abs(shown[:, :40] - 200).max() < 20
    assert shown[:, 60:].max() < 20


def test_no_thumbnail_is_made_where_there_was_none() -> None:
    picture = decode(written(gradient(), "JPEG", exif=EXIF + exif_with(b"x")))
    assert not list(pictures_in(encode(picture, picture.native)[4:]))


# -- what stays --------------------------------------------------------------------------------

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
CAPTION = iptc_set(0, b"\0\4") + iptc_set(120, b"A street") + iptc_set(90, b"Graz")


def full(kind: str) -> bytes:
    """A picture with everything that is kept."""
    exif = exif_with(b"ASCII\0\0\0seen", tag=0x9286)
    xmp = xmp_with(
        "<dc:format>image</dc:format><GPano:PoseHeadingDegrees>12</GPano:PoseHeadingDegrees>"
    )
    if kind == "JPEG":
        return into_jpeg(
            segment(0xE1, EXIF + exif),
            segment(0xE1, XMP + xmp),
            segment(0xED, b"Photoshop 3.0\0" + photoshop_resource(CAPTION)),
            icc_segment(PROFILE),
            segment(0xFE, b"a comment"),
        )
    if kind == "PNG":
        return png_with(
            png.chunk(b"eXIf", exif),
            png.chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
            png.chunk(b"iCCP", b"icc\0\0" + zlib.compress(PROFILE)),
            png.chunk(b"tEXt", b"Comment\0a comment"),
        )
    if kind == "WEBP":
        return written(gradient(), "WEBP", exif=EXIF + exif, xmp=xmp, icc_profile=PROFILE)
    if kind == "JPEG2000":
        return jp2_with(
            (b"uuid", b"JpgTiffExif->JP2" + exif),
            (b"uuid", bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + xmp),
        )
    source = tiff_with(700, xmp)
    image = Image.open(io.BytesIO(source))
    tags = Image.Exif()
    tags.load(EXIF + exif)
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", exif=tags, icc_profile=PROFILE)
    return buffer.getvalue()


KINDS = ("JPEG", "PNG", "WEBP", "TIFF", "JPEG2000")


def again(kind: str, policy: MetadataPolicy) -> tuple[Any, bytes]:
    picture = decode(full(kind), metadata=policy)
    result = encode(picture, picture.native)
    return decode(result).encoding.metadata, result


@pytest.mark.parametrize("kind", KINDS)
def test_camera_time_position_and_projection_stay(kind: str) -> None:
    metadata, result = again(kind, MetadataPolicy())
    assert metadata.exif.first[0x010F][2].startswith(b"Maker")
    assert metadata.exif.camera[0x9003][2] == b"2026:11:22 10:00:00\0"
    assert len(metadata.exif.position) == 2
    assert b"equirectangular" in metadata.xmp
    assert b"PoseHeadingDegrees" in metadata.xmp
    if kind != "TIFF":  # Pillow, which writes the source, drops it
        assert metadata.exif.camera[0x9286][2] == b"ASCII\0\0\0seen"
    if kind != "JPEG2000":
        assert metadata.icc
    if kind == "JPEG":
        assert metadata.iptc == CAPTION
        assert metadata.comment == b"a comment"
    assert decode(result).encoding.metadata == metadata


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_stays_where_everything_is_dropped(kind: str) -> None:
    metadata, result = again(kind, MetadataPolicy.parse("none"))
    assert metadata.exif == Exif(order=metadata.exif.order)
    assert (metadata.xmp, metadata.icc, metadata.iptc, metadata.comment) == (b"",) * 4
    for word in (b"Maker", b"2026:11", b"equirectangular", b"comment", b"street"):
        assert word not in result


@pytest.mark.parametrize("group", GROUPS)
def test_a_list_keeps_only_its_groups(group: str) -> None:
    metadata, result = again("JPEG", MetadataPolicy.parse(group))
    words = {
        "exif": b"Maker",
        "gps": struct.pack("<6I", 48, 1, 12, 1, 305, 10),
        "xmp": b"equirectangular",
        "icc": b"acsp",
        "iptc": b"A street",
        "comment": b"a comment",
    }
    assert {name for name, word in words.items() if word in result} == {group}
    assert metadata is not None


def test_without_position_no_text_names_the_place() -> None:
    _, result = again("JPEG", MetadataPolicy(frozenset(GROUPS) - {"gps"}))
    assert b"A street" in result
    assert b"Graz" not in result
    place = b"<exif:GPSLatitude xmlns:exif='http://ns.adobe.com/exif/1.0/'>48</exif:GPSLatitude>"
    assert b"GPSLatitude" in clean_xmp(xmp_with(place.decode()))
    assert b"GPSLatitude" not in clean_xmp(xmp_with(place.decode()), position=False)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_the_orientation_survives_everything(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Maker"
    if kind == "JPEG2000":
        source = jp2_with((b"uuid", b"JpgTiffExif->JP2" + exif.tobytes()[6:]))
    else:
        source = written(gradient(), kind, exif=exif)
    picture = decode(source, metadata=MetadataPolicy.parse("none"))
    result = encode(picture, picture.native)
    assert b"Maker" not in result
    again = decode(result)
    assert again.encoding.orientation == orientation
    assert (again.width, again.height) == (SIZE if orientation < 5 else SIZE[::-1])


def test_the_sources_xmp_can_be_read_from_the_picture() -> None:
    for kind in ("JPEG", "PNG", "WEBP", "JPEG2000"):
        picture = decode(full(kind), metadata=MetadataPolicy.parse("none"))
        assert b'GPano:ProjectionType="equirectangular"' in picture.xmp
    assert decode(written(gradient(), "JPEG")).xmp == b""


def test_an_unknown_group_is_named() -> None:
    with pytest.raises(MetadataError, match="'gsp' is not known; groups: exif, gps"):
        MetadataPolicy(frozenset({"exif", "gsp"}))


@pytest.mark.parametrize("text", ["", "exif,gsp", "exif,", "none,exif", "all,exif", "ALL"])
def test_what_is_said_of_metadata_in_another_way_is_refused(text: str) -> None:
    with pytest.raises(MetadataError, match=f"^metadata is '{text}'; expected all, none, or a"):
        MetadataPolicy.parse(text)


# -- parts -------------------------------------------------------------------------------------


def test_exif_keeps_both_byte_orders_and_is_stable() -> None:
    for order in ("<", ">"):
        exif = Image.Exif()
        exif.endian = order
        exif[0x010F] = "Maker"
        exif[0x0112] = 6
        exif[0x8825] = {1: "N", 2: (48.0, 12.0, 30.5)}
        once = read_exif(exif.tobytes())
        assert once.order == order
        assert once.orientation == 6
        assert read_exif(once.to_bytes()) == once
        assert once.to_bytes() == read_exif(once.to_bytes()).to_bytes()


@pytest.mark.parametrize("exif", [b"", b"junk", b"Exif\0\0II*\0\xff\xff\xff\xff", b"MM\0*\0\0"])
def test_exif_that_cannot_be_parsed_is_nothing(exif: bytes) -> None:
    assert read_exif(exif) == Exif(order=read_exif(exif).order)
    assert read_exif(exif).to_bytes() == b""


def test_xmp_with_entities_is_dropped_unread() -> None:
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa">]>' + xmp_with("<dc:format>&a;</dc:format>")
    assert clean_xmp(bomb) == b""
    assert clean_xmp(b"<" * 10000) == b""
    assert clean_xmp(xmp_with("<dc:format>" * 1000 + "</dc:format>" * 1000)).count(b"format") == 0


def test_cleaned_xmp_is_stable() -> None:
    once = clean_xmp(xmp_with("<dc:format>image/jpeg</dc:format><own:x>y</own:x>"))
    assert b"image/jpeg" in once
    assert b"own" not in once
    assert clean_xmp(once) == once


DRONE = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="DJI Meta '
    'Data" xmlns:drone-dji="http://www.dji.com/drone-dji/1.0/" '
    'drone-dji:GimbalYawDegree="+12.30" drone-dji:FlightPitchDegree="-1.10"/></rdf:RDF></x:xmpmeta>'
)
POSE = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:Camera="{}" Camera:Yaw="127.40" Camera:Pitch="-92.00" Camera:Roll="1.5"/></rdf:RDF>'
    "</x:xmpmeta>"
)
BANDS = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="MicaSense" '
    'xmlns:MicaSense="http://micasense.com/MicaSense/1.0/">'
    "<MicaSense:BootTimestamp>144</MicaSense:BootTimestamp></rdf:Description>"
    '<rdf:Description rdf:about="Pix4D Camera Information" xmlns:Camera="{}">'
    "<Camera:Yaw>127.40</Camera:Yaw><Camera:BandName>Blue</Camera:BandName>"
    "<Camera:PerspectiveDistortion><rdf:Seq><rdf:li>-0.10</rdf:li><rdf:li>0.13</rdf:li></rdf:Seq>"
    "</Camera:PerspectiveDistortion></rdf:Description></rdf:RDF></x:xmpmeta>"
)
PIX4D = ("http://pix4d.com/camera/1.0", "http://pix4d.com/camera/1.0/")


@pytest.mark.parametrize(
    ("xmp", "expected"),
    [
        (DRONE, ('drone-dji:GimbalYawDegree="+12.30"', 'drone-dji:FlightPitchDegree="-1.10"')),
        *((POSE.format(uri), ('Camera:Yaw="127.40"', 'Camera:Roll="1.5"')) for uri in PIX4D),
        *(
            (
                BANDS.format(uri),
                (
                    "<Camera:Yaw>127.40</Camera:Yaw>",
                    "<Camera:BandName>Blue</Camera:BandName>",
                    "<Camera:PerspectiveDistortion><rdf:Seq><rdf:li>-0.10</rdf:li>",
                    "<MicaSense:BootTimestamp>144<",
                    f'xmlns:Camera="{uri}"',
                ),
            )
            for uri in PIX4D
        ),
    ],
    ids=["drone", "pose", "pose with a slash", "bands", "bands with a slash"],
)
def test_a_pose_keeps_the_prefix_by_which_readers_find_it(
    xmp: str, expected: tuple[str, ...]
) -> None:
    """Many readers of poses compare `Camera:Yaw`, not the namespace."""
    left = clean_xmp(xmp.encode()).decode()
    assert all(text in left for text in expected), left
    assert clean_xmp(left.encode()).decode() == left


def test_two_namespaces_of_one_prefix_stay_apart() -> None:
    more = f'<rdf:Description xmlns:Camera="{PIX4D[1]}" Camera:Yaw="127.40"/></rdf:RDF>'
    both = BANDS.format(PIX4D[0]).replace("</rdf:RDF>", more)
    left = ElementTree.fromstring(clean_xmp(both.encode()))
    names = {name for each in left.iter() for name in (each.tag, *each.attrib)}
    assert {f"{{{PIX4D[1]}}}Yaw", f"{{{PIX4D[0]}}}Yaw", f"{{{PIX4D[0]}}}BandName"} <= names


def in_lines(title: str, code: bytes) -> bytes:
    """Code in lines of 76 letters below a title, at most as long as a text may be."""
    lines = [code[at : at + 76] for at in range(0, min(len(code), 3800), 76)]
    return b"\n".join([title.encode(), *lines])


@pytest.mark.parametrize(
    ("value", "expected", "reason"),
    [
        (b"Canon EOS 5D\0", True, "a camera"),
        ("Grüße aus Graz, 北京".encode(), True, "UTF-8"),
        ("Grüße".encode("latin-1"), True, "Latin-1"),
        (("A sentence of a description, with words. " * 20).encode(), True, "prose"),
        (RAW, False, "pixels"),
        (AS_JPEG, False, "JPEG"),
        (PAYLOADS["base64"], False, "base64"),
        (PAYLOADS["hexadecimal"], False, "hexadecimal"),
        (b"x" * 5000, False, "too long"),
        (in_lines("a preview", PAYLOADS["base64"][8:]), False, "base64 in lines, from its middle"),
        (in_lines("a preview", PAYLOADS["hexadecimal"]), False, "hexadecimal in lines"),
        (RAW[:400].hex(" ").encode(), False, "hexadecimal, a space after each byte"),
        (RAW[:400].hex(":").encode(), False, "hexadecimal, a colon after each byte"),
        (base64.b85encode(RAW[:400]), False, "base85"),
        (
            b"Shot from a tripod at 35 mm and f/8, facing the old bridge, 2024-05-12. " * 9,
            True,
            "a note",
        ),
    ],
)
def test_text_is_told_from_pictures(value: bytes, expected: bool, reason: str) -> None:
    assert is_text(value) is expected, reason


def test_a_profile_is_rewritten_without_private_tags_and_still_works() -> None:
    cleaned = clean_icc(with_icc_tag(AS_JPEG))
    assert AS_JPEG[:24] not in cleaned
    assert "sRGB" in ImageCms.getProfileName(ImageCms.ImageCmsProfile(io.BytesIO(cleaned)))
    assert clean_icc(b"no profile" * 50) == b""
    assert clean_icc(PROFILE[:200]) in (b"", clean_icc(PROFILE[:200]))


def test_iptc_keeps_text_and_finds_its_resource() -> None:
    resources = b"8BIM\x04\x0c\0\0" + struct.pack(">I", 3) + b"abc\0" + photoshop_resource(CAPTION)
    assert iptc_of_photoshop(resources) == CAPTION
    assert clean_iptc(CAPTION + iptc_set(202, AS_JPEG)) == CAPTION
    assert b"Graz" not in clean_iptc(CAPTION, position=False)
    assert clean_iptc(RAW) == b""


def test_texts_of_a_png_are_kept_up_to_a_bound() -> None:
    buffer = io.BytesIO()
    notes = PngImagePlugin.PngInfo()
    for number in range(40):
        notes.add_text("Comment", f"note {number}: " + "words of a description, " * 40)
    Image.new("RGB", (16, 16)).save(buffer, "PNG", pnginfo=notes)
    content = encode(decode(buffer.getvalue()), decode(buffer.getvalue()).native)
    assert b"note 0:" in content
    assert content.count(b"tEXt") == 16  # 974 bytes each, of 16,384


def test_a_place_in_xmp_goes_with_the_position() -> None:
    properties = b"<dc:coverage>Berlin</dc:coverage><e:WorldRegion>Europe</e:WorldRegion>"
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
        b'xmlns:dc="http://purl.org/dc/elements/1.1/" '
        b'xmlns:e="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"><dc:source>archive</dc:source>'
        + properties
        + b"</rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    assert b"Berlin" in clean_xmp(xmp)
    without = clean_xmp(xmp, position=False)
    assert b"archive" in without
    assert b"Berlin" not in without
    assert b"Europe" not in without


def text_chunk(keyword: bytes, text: bytes) -> bytes:
    return png.chunk(b"tEXt", keyword + b"\x00" + text)


def test_text_of_a_png_that_belongs_to_another_group_goes() -> None:
    exif = "xmlns:exif='http://ns.adobe.com/exif/1.0/'"
    packet = xmp_with(f"<exif:GPSLatitude {exif}>48,8.25N</exif:GPSLatitude>")
    source = png_with(
        text_chunk(b"Title", b"A street in spring"),
        text_chunk(b"exif:GPSLatitude", b"48/1, 8/1, 1499/100"),
        text_chunk(b"XML:com.adobe.xmp", packet),
        text_chunk(b"Location", b"Rue de la Paix"),
        *[png.chunk(b"tIME", bytes([7, 230, 5, n, 1, 1, 1])) for n in range(1, 9)],
    )
    without = MetadataPolicy.parse("exif,icc,comment")
    for policy, place in ((without, False), (MetadataPolicy(), True)):
        picture = decode(source, name="a.png", metadata=policy)
        result = encode(picture, picture.native)
        assert b"A street in spring" in result
        assert b"GPSLatitude" not in result
        assert b"48,8.25N" not in result
        assert (b"Rue de la Paix" in result) is place
        assert sum(name == b"tIME" for name, _ in png.chunks(result)) == 1


def test_code_that_is_cut_over_many_values_goes() -> None:
    code = base64.b64encode(np.random.default_rng(1).bytes(3000))
    cut = [code[i : i + 190].decode() for i in range(0, len(code), 190)]
    items = "".join(f"<rdf:li>{each}</rdf:li>" for each in cut)
    packet = xmp_with(f"<dc:subject><rdf:Bag>{items}</rdf:Bag></dc:subject>")
    left = clean_xmp(packet)
    assert b"equirectangular" in left
    assert not any(each.encode() in left for each in cut if len(each) > 100)
    parts = b"".join(iptc_set(25, code[i : i + 64]) for i in range(0, len(code), 64))
    assert clean_iptc(parts) == b""
    digest = b"f" * 64
    words = f"<dc:identifier>{digest.decode()}</dc:identifier>"
    assert digest in clean_xmp(xmp_with(words))


def test_an_address_goes_with_the_position() -> None:
    core = "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/"
    inside = "".join(
        f"<e:{name} xmlns:e='{core}'>{value}</e:{name}>"
        for name, value in (("CiAdrExtadr", "12 High Street"), ("CiAdrPcode", "AB1 2CD"))
    )
    assert b"High Street" in clean_xmp(xmp_with(inside))
    without = clean_xmp(xmp_with(inside), position=False)
    assert b"equirectangular" in without
    assert b"High Street" not in without
    assert b"AB1 2CD" not in without
