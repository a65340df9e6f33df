"""The thumbnail inside a written file: it shows the written picture, or evaluation says so."""

import dataclasses
import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import imagecodecs
import jsonschema
import numpy as np
import pytest
from PIL import Image as Pillow

import evaluation
from anonymization.formats import pixels as pixel_formats
from anonymization.formats.directories import LONG, SHORT, Layout
from anonymization.formats.picture import decode, encode
from evaluation.config import PromotionConfig
from evaluation.gate import judge
from evaluation.measures.thumbnails import cells, embedded_thumbnail, likeness, shows_written
from evaluation.measures.unmeasured import not_measured
from evaluation.report.pictures import PictureResult
from evaluation.report.rows import PictureRow
from evaluation.report.summary import summarize

SCHEMA = Path(evaluation.__path__[0]) / "schemas/evaluation.json"
HEADER = b"Exif\x00\x00"


def street(height: int = 240, width: int = 320) -> np.ndarray:
    """A bright sky over a dark street: what a camera's own thumbnail would show."""
    rows = np.linspace(230, 30, height)[:, None, None]
    drawn = np.broadcast_to(rows, (height, width, 3)).astype(np.uint8).copy()
    drawn[height // 3 : height // 2, width // 4 : width // 2] = (210, 160, 130)
    return drawn


def jpeg(pixels: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "JPEG", **options)
    return file.getvalue()


SMALL = jpeg(street(120, 160), quality=80)


def exif(thumbnail: bytes, orientation: int = 1) -> bytes:
    layout = Layout("<")
    first = {0x010F: (2, 6, b"Maker\0"), 0x0112: layout.pack(SHORT, orientation)}
    body = layout.write(first, offset=8)
    if thumbnail:
        at = 8 + len(body)
        fields = {
            0x0103: layout.pack(SHORT, 6),
            0x0201: layout.pack(LONG, at + 42),
            0x0202: layout.pack(LONG, len(thumbnail)),
        }
        body = layout.write(first, offset=8, following=at)
        body += layout.write(fields, offset=at) + thumbnail
    return b"II*\0\x08\0\0\0" + body


def written(kind: str, mode: str = "RGB", *, thumbnail: bytes = SMALL, turned: int = 1) -> bytes:
    file = io.BytesIO()
    picture = Pillow.fromarray(street()).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        picture = Pillow.fromarray(np.asarray(picture).astype(np.uint16) * 257)
    picture.save(file, kind, exif=HEADER + exif(thumbnail, turned))
    return file.getvalue()


def jpeg2000() -> bytes:
    """A JP2 file with EXIF in a box of its own."""
    content = HEADER + exif(SMALL)
    box = b"uuid" + b"JpgTiffExif->JP2" + content.removeprefix(HEADER)
    plain = imagecodecs.jpeg2k_encode(street(), codecformat="jp2", level=0, reversible=True)
    at = plain.index(b"jp2c") - 4
    return plain[:at] + (len(box) + 4).to_bytes(4, "big") + box + plain[at:]


SOURCES = {
    "JPEG": lambda: written("JPEG"),
    "JPEG, turned": lambda: written("JPEG", turned=6),
    "gray JPEG": lambda: written("JPEG", "L"),
    "CMYK JPEG": lambda: written("JPEG", "CMYK"),
    "PNG": lambda: written("PNG"),
    "PNG with alpha": lambda: written("PNG", "RGBA"),
    "16-bit PNG": lambda: written("PNG", "I;16"),
    "WebP": lambda: written("WEBP"),
    "JPEG 2000": jpeg2000,
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_thumbnail_made_anew_shows_the_written_picture(source: Any) -> None:
    content = source()
    assert embedded_thumbnail(content) == SMALL
    assert shows_written(decode(content), content, seed=1) is True


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_thumbnail_of_the_source_is_told_from_the_written_picture(
    source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = source()
    picture = decode(content)
    monkeypatch.setattr("anonymization.formats.picture.thumbnail", lambda *_: SMALL)
    assert shows_written(picture, content, seed=1) is False


def test_a_thumbnail_that_cannot_be_decoded_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    content = written("JPEG")
    monkeypatch.setattr("anonymization.formats.picture.thumbnail", lambda *_: SMALL[:200])
    assert shows_written(decode(content), content, seed=1) is False


def test_a_picture_without_a_thumbnail_is_not_written_for_this(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = written("JPEG", thumbnail=b"")
    picture = decode(content)

    def never(*_: Any) -> bytes:
        raise AssertionError("written")

    monkeypatch.setattr("anonymization.formats.picture.encode", never)
    assert embedded_thumbnail(content) == b""
    assert shows_written(picture, content, seed=1) is None


def test_a_thumbnail_that_the_writer_leaves_out_is_none() -> None:
    content = written("JPEG")
    picture = decode(content)
    metadata = picture.encoding.metadata
    bare = dataclasses.replace(
        metadata, exif=dataclasses.replace(metadata.exif, had_thumbnail=False)
    )
    encoding = dataclasses.replace(picture.encoding, metadata=bare)
    assert shows_written(dataclasses.replace(picture, encoding=encoding), content, seed=1) is None


def test_what_is_no_picture_and_what_has_damaged_exif_do_not_stop_the_check() -> None:
    assert embedded_thumbnail(b"no picture") == b""
    broken = jpeg(street(), exif=HEADER + b"II*\0" + b"\xff" * 40)
    assert embedded_thumbnail(broken) == b""


@pytest.mark.parametrize("size", [(3000, 4000), (2000, 4000), (60, 900), (24, 32)])
def test_a_thumbnail_made_anew_clears_the_limit_with_room_at_every_size(
    size: tuple[int, int],
) -> None:
    drawn = cells(np.zeros((*size, 3), np.uint8), seed=2)
    assert likeness(pixel_formats.thumbnail(drawn, "RGB"), drawn) > 0.99


def test_pictures_of_other_things_stay_far_below_the_limit() -> None:
    drawn = [cells(np.zeros((240, 320, 3), np.uint8), seed=seed) for seed in range(20)]
    found = [likeness(SMALL, picture) for picture in drawn]
    between = [likeness(jpeg(a), b) for a, b in pairwise(drawn)]
    assert max(np.abs([*found, *between])) < 0.4


def test_a_thumbnail_of_one_shade_shows_nothing_and_fails() -> None:
    drawn = cells(np.zeros((240, 320, 3), np.uint8), seed=0)
    assert likeness(jpeg(np.full((120, 160, 3), 90, np.uint8)), drawn) == 0.0


def outcome(number: int, thumbnail: bool | None) -> PictureResult:
    row = PictureRow(f"{number:064d}", frozenset(), None, None)
    return PictureResult(row, (), (), (), (), thumbnail)


def audit(*thumbnails: bool | None) -> dict[str, Any]:
    from anonymization.taxonomy import ClassSpec, Taxonomy

    results = [outcome(number, each) for number, each in enumerate(thumbnails)]
    found = summarize(results, Taxonomy({"face": ClassSpec("box", "box")}), size_edges=[0, 1])
    return dict(found["written_output_verified"])


def test_the_audit_counts_thumbnails_and_names_the_file_of_a_bad_one() -> None:
    found = audit(True, None, False)
    assert found["thumbnails"] == 2
    assert found["failed"] == [{"sha256": f"{2:064d}", "part": "thumbnail"}]
    part = json.loads(SCHEMA.read_text())["properties"]["written_output_verified"]
    jsonschema.validate(found, part)


def test_a_set_without_thumbnails_reports_what_it_always_did() -> None:
    assert audit(None, None) == {"pictures": 0, "failed": []}


def test_a_bad_thumbnail_refuses_the_bundle() -> None:
    checked = {"written_output_verified": {**audit(True, False), "pictures": 2}}
    verdict = judge(checked, {"leaks": []}, None, PromotionConfig(), gated=())
    criterion = next(c for c in verdict.criteria if c.name == "written_output")
    assert not criterion.passed
    good = {"written_output_verified": {**audit(True, True), "pictures": 2}}
    verdict = judge(good, {"leaks": []}, None, PromotionConfig(), gated=())
    assert next(c for c in verdict.criteria if c.name == "written_output").passed


def test_a_report_says_that_no_thumbnail_was_looked_at() -> None:
    from anonymization.taxonomy import ClassSpec, Taxonomy

    summary = {"classes": {}, "non_object_share_obscured": {"value": 0.1}}
    for thumbnails, said in ((0, True), (3, False)):
        values = summary | {"written_output_verified": {"thumbnails": thumbnails}}
        lines = not_measured(values, Taxonomy({"face": ClassSpec("box", "box")}))
        assert any("Embedded thumbnails" in line for line in lines) is said


def test_cells_leave_alpha_and_black_ink_as_they_are() -> None:
    content = written("PNG", "RGBA")
    native = decode(content).native
    drawn = cells(native, seed=1)
    assert np.array_equal(drawn[..., 3], native[..., 3])
    assert set(np.unique(drawn[..., :3])) == {0, 255}
    assert encode(decode(content), drawn)
