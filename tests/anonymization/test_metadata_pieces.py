"""Pictures in names, in numbers, in pieces and in a profile's tags are not in the output."""

import base64
import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from anonymization.formats.directories import LONG, SHORT, Layout
from anonymization.formats.exif import read_exif
from anonymization.formats.icc import clean_icc
from anonymization.formats.metadata import clean_iptc
from anonymization.formats.xmp import clean_xmp

NOISE = np.random.default_rng(7).integers(0, 256, (60, 60), dtype=np.uint8)
RAW = NOISE.tobytes()


def as_jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


CODE = base64.urlsafe_b64encode(as_jpeg()).decode().rstrip("=")


# -- XMP ---------------------------------------------------------------------------------------


def packet(inside: str, attributes: str = "") -> bytes:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
        'xmlns:dc="http://purl.org/dc/elements/1.1/" '
        f'dc:source="archive" {attributes}>{inside}</rdf:Description></rdf:RDF></x:xmpmeta>'
    ).encode()


@pytest.mark.parametrize(
    "hidden",
    [
        packet(f"<dc:a{CODE}>x</dc:a{CODE}>"),
        packet("", f'dc:a{CODE}="x"'),
        packet(f"<dc:title><rdf:a{CODE}>x</rdf:a{CODE}></dc:title>"),
        packet("", f'rdf:a{CODE}="x"'),
        packet("", f'xml:a{CODE}="x"'),
    ],
)
def test_a_picture_in_a_name_of_xmp_goes_and_the_rest_stays(hidden: bytes) -> None:
    left = clean_xmp(hidden)
    assert b'dc:source="archive"' in left
    assert CODE[100:130].encode() not in left


@pytest.mark.parametrize("size", [12, 39])
def test_a_picture_that_is_cut_over_names_of_xmp_goes(size: int) -> None:
    cut = [f"a{CODE[at : at + size]}" for at in range(0, len(CODE), size)]
    assert clean_xmp(packet("".join(f"<dc:{name}>x</dc:{name}>" for name in cut))) == b""
    assert clean_xmp(packet("", " ".join(f'dc:{name}="x"' for name in cut))) == b""


@pytest.mark.parametrize("size", [16, 24, 39])
@pytest.mark.parametrize("code", [CODE, as_jpeg().hex()], ids=["base64", "hexadecimal"])
def test_a_picture_that_is_cut_into_short_words_goes(code: str, size: int) -> None:
    cut = [code[at : at + size] for at in range(0, len(code), size)]
    items = "".join(f"<rdf:li>{word}</rdf:li>" for word in cut)
    left = clean_xmp(packet(f"<dc:subject><rdf:Bag>{items}</rdf:Bag></dc:subject>"))
    assert b'dc:source="archive"' in left
    assert not any(word.encode() in left for word in cut[:-1] if not word.isdecimal())
    words = b"".join(struct.pack(">BBBH", 0x1C, 2, 25, size) + word.encode() for word in cut[:-1])
    assert clean_iptc(words) == b""


def test_identifiers_and_numbers_in_xmp_stay() -> None:
    random = np.random.default_rng(3)
    values = [f"xmp.iid:{random.bytes(16).hex()}" for _ in range(25)]
    values += [repr(float(number)) for number in random.random(200)]
    items = "".join(f"<rdf:li>{value}</rdf:li>" for value in values)
    left = clean_xmp(packet(f"<dc:relation><rdf:Bag>{items}</rdf:Bag></dc:relation>"))
    assert all(value.encode() in left for value in values)


def test_all_names_that_xmp_uses_stay() -> None:
    long = "http://cipa.jp/exif/1.0/"
    inside = (
        f'<e:SourceExposureTimesOfCompositeImage xmlns:e="{long}">1</e:'
        "SourceExposureTimesOfCompositeImage><dc:title><rdf:Alt>"
        '<rdf:li xml:lang="x-default">A street</rdf:li></rdf:Alt></dc:title>'
        '<dc:relation rdf:parseType="Resource"><rdf:value>a book</rdf:value></dc:relation>'
    )
    left = clean_xmp(packet(inside, 'rdf:about=""'))
    for word in (b"SourceExposureTimesOfCompositeImage", b"x-default", b"Resource", b"a book"):
        assert word in left


# -- ICC ---------------------------------------------------------------------------------------

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def tags_of(profile: bytes) -> list[tuple[bytes, bytes]]:
    (count,) = struct.unpack_from(">I", profile, 128)
    rows = struct.iter_unpack(">4sII", profile[132 : 132 + 12 * count])
    return [(name, profile[at : at + size]) for name, at, size in rows]


def profile_of(tags: list[tuple[bytes, bytes]]) -> bytes:
    table, body = struct.pack(">I", len(tags)), b""
    start = 132 + 12 * len(tags)
    for name, value in tags:
        table += struct.pack(">4sII", name, start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    return struct.pack(">I", start + len(body)) + PROFILE[4:128] + table + body


def with_tag(name: bytes, kind: bytes, payload: bytes) -> bytes:
    others = [tag for tag in tags_of(PROFILE) if tag[0] != name]
    return profile_of([*others, (name, kind + bytes(4) + payload)])


def languages(*texts: str) -> bytes:
    """`mluc` with texts that stand one behind the other."""
    rows, body = b"", b""
    for number, text in enumerate(texts):
        code = text.encode("utf-16-be")
        language = b"en" + bytes([65 + number // 26, 65 + number % 26])
        rows += struct.pack(">4sII", language, len(code), 16 + 12 * len(texts) + len(body))
        body += code
    return struct.pack(">4sIII", b"mluc", 0, len(texts), 12) + rows + body


def description(plain: bytes, wide: bytes = b"", script: bytes = bytes(70)) -> bytes:
    value = struct.pack(">4sII", b"desc", 0, len(plain)) + plain
    return value + struct.pack(">II", 0, len(wide) // 2) + wide + script


@pytest.mark.parametrize(
    ("name", "kind", "payload"),
    [
        (b"cprt", b"text", base64.b64encode(as_jpeg())),
        (b"targ", b"text", as_jpeg().hex().encode()),
        (b"desc", b"desc", RAW),
        (b"desc", b"desc", description(b"name\0", script=b"\0\0\x43" + RAW[:67])[8:]),
        (b"desc", b"desc", description(b"name\0", wide=RAW[:600])[8:]),
        (b"dmnd", b"desc", as_jpeg()[1:]),
        (b"desc", b"mluc", languages("name")[8:] + RAW),
        (b"cprt", b"mluc", languages(CODE[:300], CODE[300:900])[8:]),
        (b"vued", b"curv", struct.pack(">I", 1800) + RAW),
        (b"tech", b"mft2", RAW),
        (b"view", b"view", RAW),
        (b"tech", b"sig ", RAW),
        (b"rXYZ", b"XYZ ", RAW),
        (b"chad", b"sf32", RAW),
        (b"rTRC", b"curv", struct.pack(">I", 9000) + RAW * 5),
        (b"rTRC", b"curv", struct.pack(">I", 1800) + RAW),
        (b"gTRC", b"curv", struct.pack(">I", 1) + RAW),
        (b"rTRC", b"para", RAW),
        (b"chrm", b"chrm", RAW),
    ],
    ids=lambda value: value.decode() if len(value) == 4 else str(len(value)),
)
def test_a_picture_in_a_tag_of_a_profile_goes(name: bytes, kind: bytes, payload: bytes) -> None:
    left = clean_icc(with_tag(name, kind, payload))
    pieces = [payload[at : at + 24] for at in range(16, len(payload) - 24, 24)]
    assert left
    assert not any(piece in left for piece in pieces if any(piece))
    kept = {tag for tag in tags_of(left) if tag[0] != name}
    assert kept == {tag for tag in tags_of(PROFILE) if tag[0] != name}


def test_a_description_loses_what_is_no_text_and_keeps_its_name() -> None:
    left = clean_icc(with_tag(b"desc", b"desc", description(b"My scanner\0", wide=RAW[:600])[8:]))
    assert (
        ImageCms.getProfileName(ImageCms.ImageCmsProfile(io.BytesIO(left))).strip() == "My scanner"
    )


@pytest.mark.parametrize(
    "numbers",
    [[], [563], [*range(0, 65536, 16)], [*range(65535, 0, -31)], [0, 9000, 8800, 30000, 65535]],
    ids=["straight", "gamma", "rising", "falling", "measured"],
)
def test_a_curve_of_a_profile_stays(numbers: list[int]) -> None:
    curve = struct.pack(f">I{len(numbers)}H", len(numbers), *numbers)
    source = with_tag(b"rTRC", b"curv", curve)
    assert tags_of(clean_icc(source)) == tags_of(source)


def test_a_tag_stays_once() -> None:
    cut = [(b"cprt", b"text" + bytes(4) + f"part {at}".encode()) for at in range(50)]
    left = clean_icc(profile_of([*cut, *tags_of(PROFILE)]))
    assert [value for name, value in tags_of(left) if name == b"cprt"] == [cut[0][1]]


def test_texts_of_a_profile_have_a_common_bound() -> None:
    words = "a name of a printer in many words, "
    long = [(name, languages(*[words * 8] * 12)) for name in (b"dmnd", b"dmdd", b"vued")]
    others = [tag for tag in tags_of(PROFILE) if tag[0] not in (b"desc", b"cprt")]
    assert set(tags_of(clean_icc(profile_of([*long[:2], *others])))) == {*long[:2], *others}
    long[1] = (b"dmdd", languages(*[words * 9] * 12))
    long[2] = (b"vued", languages(*[words * 10] * 12))
    assert set(tags_of(clean_icc(profile_of([*long, *others])))) == set(others)
    cut = [
        (name, b"text" + bytes(4) + CODE[at : at + 190].encode())
        for name, at in ((b"dmnd", 0), (b"dmdd", 190), (b"cprt", 380))
    ]
    assert set(tags_of(clean_icc(profile_of([*cut, *others])))) == set(others)


def test_a_sound_profile_stays_as_it_is() -> None:
    for space in ("sRGB", "LAB", "XYZ"):
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes()
        assert tags_of(clean_icc(profile)) == tags_of(profile)
    texts = [
        (
            b"desc",
            description(b"sRGB IEC61966-2.1\0", script=b"\0\0\x12sRGB IEC61966-2.1\0" + bytes(49)),
        ),
        (b"cprt", b"text" + bytes(4) + "© a maker, 1998\0".encode("latin-1")),
        (b"dmnd", languages("Farbprofil", "プロファイル", "Profil")),
        (b"dmdd", description(b"Camera\0", "Kamera\0".encode("utf-16-be"))),
    ]
    others = [tag for tag in tags_of(PROFILE) if tag[0] not in (b"desc", b"cprt")]
    assert tags_of(clean_icc(profile_of([*texts, *others]))) == [*texts, *others]


# -- EXIF and IPTC -----------------------------------------------------------------------------


def exif_of(first: dict[int, object]) -> bytes:
    return b"II*\0\x08\0\0\0" + Layout("<").write(first, offset=8)  # type: ignore[arg-type]


def test_a_picture_that_is_cut_over_numbers_of_exif_goes() -> None:
    cut = [RAW[at : at + 256] for at in range(0, len(RAW), 256)]
    camera = {
        tag: (LONG, 64, piece) for tag, piece in zip(range(0x9201, 0x920B), cut, strict=False)
    }
    first = {
        tag: (LONG, 64, piece) for tag, piece in zip((0x010E, 0x011A, 0x8298), cut, strict=False)
    }
    position = {tag: (SHORT, 128, piece) for tag, piece in zip(range(1, 12), cut, strict=False)}
    left = read_exif(exif_of({**first, 0x8769: camera, 0x8825: position}))
    assert (left.first, left.camera, left.position) == ({}, {}, {})


def test_fields_that_all_point_at_a_whole_file_are_read_no_longer_than_it() -> None:
    size, count = 50_000, 1000
    rows = b"".join(struct.pack("<HHII", tag, 1, size - 16, 8) for tag in range(1, count + 1))
    data = (b"II*\0\x08\0\0\0" + struct.pack("<H", count) + rows + bytes(4)).ljust(size, b"\0")
    fields, _ = Layout("<").read(data, 8)
    assert [(tag, len(value)) for tag, (_, _, value) in fields.items()] == [(1, size - 16)]


def test_as_many_numbers_as_exif_has_stay() -> None:
    def rationals(count: int) -> tuple[int, int, bytes]:
        return 5, count, struct.pack(f"<{2 * count}I", *range(1, 2 * count + 1))

    first = {0x011A: rationals(1), 0x013E: rationals(2), 0x013F: rationals(6), 0x0214: rationals(6)}
    camera = {
        **{0x829A: rationals(1), 0xA432: rationals(4), 0x8827: (SHORT, 2, b"\x64\0\x64\0")},
        **{0x9214: (SHORT, 4, bytes(8)), 0xA302: (7, 68, bytes(68)), 0x9000: (7, 4, b"0232")},
    }
    position = {0: (1, 4, b"\2\3\0\0"), **{tag: rationals(3) for tag in (2, 4, 7, 0x14, 0x16)}}
    left = read_exif(exif_of({**first, 0x8769: camera, 0x8825: position}))
    assert (left.first, left.camera, left.position) == (first, camera, position)


def test_code_that_is_cut_over_texts_of_exif_goes() -> None:
    cut = [CODE[at : at + 190].encode() for at in range(0, 760, 190)]
    first = {
        tag: (2, 190, piece)
        for tag, piece in zip((0x010E, 0x010F, 0x0131, 0x8298), cut, strict=True)
    }
    first[0x0110] = (2, 7, b"Camera\0")
    assert read_exif(exif_of(first)).first == {0x0110: first[0x0110]}  # type: ignore[arg-type]


def test_what_is_no_text_in_iptc_stays_once() -> None:
    def dataset(record: int, number: int, value: bytes) -> bytes:
        return struct.pack(">BBBH", 0x1C, record, number, len(value)) + value

    utf8, version = dataset(1, 90, b"\x1b%G"), dataset(2, 0, b"\0\4")
    caption = dataset(2, 120, b"A street")
    cut = b"".join(dataset(1, 90, RAW[at : at + 8]) for at in range(0, 800, 8))
    cut += b"".join(dataset(2, 0, RAW[at : at + 2]) for at in range(0, 800, 2))
    assert clean_iptc(utf8 + version + cut + caption) == utf8 + version + caption
    assert clean_iptc(utf8 + caption, position=False) == utf8 + caption
