"""Panoramas judged as the anonymizer treats them: projection, the seam, latitude."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from anonymization.card import Card, GraphCard, GraphInput
from anonymization.detection.finds import Detections
from anonymization.files import sha256_of_file
from anonymization.panorama.projection import Equirectangular
from anonymization.taxonomy import ClassSpec, Taxonomy
from data.coco import Annotation, Dataset, Image, mask_to_rle
from evaluation import __main__ as stage
from evaluation.config import EvaluationConfig
from evaluation.coverage import noise_pair
from evaluation.judging import covered_thresholds, judge
from evaluation.matching import RIGHT, box_iou
from evaluation.panoramas import (
    PanoramaError,
    joined,
    on_circle,
    panorama_of_image,
    seam_of,
    span_of,
)
from evaluation.report.gallery import Album, obscure_truth
from evaluation.report.pictures import PictureResult, judge_picture, through_png
from evaluation.report.summary import summarize
from evaluation.truth import PictureTruth, truth_of

TAXONOMY = Taxonomy(
    {
        "face": ClassSpec("box", "box", margin=0.0, identifiable_side="width", identifiable_px=20),
        "vehicle": ClassSpec(
            "mask", "outline", margin=0.0, identifiable_side="width", identifiable_px=20
        ),
    }
)
CARD = Card(
    TAXONOMY,
    {"face": 0.5, "vehicle": 0.5},
    {"mask_rcnn": GraphCard("mask_rcnn.onnx", "0" * 64, GraphInput(512), TAXONOMY.names)},
)
WIDTH, HEIGHT = 400, 200
PANORAMA = Equirectangular.of_size(WIDTH, HEIGHT)
LEFT, RIGHT_BOX = (0.0, 90.0, 10.0, 120.0), (380.0, 90.0, 400.0, 120.0)
ACROSS = (380.0, 90.0, 410.0, 120.0)
GPANO = (
    b'<x xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" '
    b'GPano:ProjectionType="equirectangular"/>'
)


def image(**fields: Any) -> Image:
    return Image(1, "a" * 64, "a.png", WIDTH, HEIGHT, TAXONOMY.names, fields=fields)


def pieces(name: str = "face", **attributes: Any) -> tuple[Annotation, ...]:
    about = {"object": 7, **attributes}
    return (
        Annotation(1, 1, name, LEFT, attributes=about),
        Annotation(2, 1, name, RIGHT_BOX, attributes=about),
    )


def truth(*annotations: Annotation, panorama: Equirectangular | None = PANORAMA) -> PictureTruth:
    return truth_of(image(), annotations, TAXONOMY, panorama)


def finds(*boxes: tuple[float, ...], name: str = "face", score: float = 0.9) -> Detections:
    ids = [TAXONOMY.class_id(name)] * len(boxes)
    return Detections.from_boxes(boxes, class_ids=ids, scores=[score] * len(boxes))


def result(found: Detections, *annotations: Annotation) -> PictureResult:
    return judge_picture(truth(*annotations), found, CARD, TAXONOMY, rewrite=through_png, seed=1)


@pytest.mark.parametrize(
    ("fields", "xmp", "panorama"),
    [
        ({"projection": "equirectangular"}, b"", True),  # the manifest says so
        ({"projection": "perspective"}, GPANO, True),  # its default; the file knows better
        ({"projection": "perspective"}, b"", False),  # 2:1 alone is no panorama
        ({"projection": "fisheye"}, b"", False),  # its lens is not known
        ({}, b"", False),
    ],
)
def test_a_picture_is_a_panorama_where_the_anonymizer_takes_it_for_one(
    fields: dict[str, str], xmp: bytes, panorama: bool
) -> None:
    assert panorama_of_image(image(**fields), xmp) == (PANORAMA if panorama else None)


def test_a_picture_that_cannot_be_a_panorama_is_refused_by_name() -> None:
    tall = dataclasses.replace(image(projection="equirectangular"), height=300)
    with pytest.raises(PanoramaError, match=r"picture a{64} is equirectangular.*taller than half"):
        panorama_of_image(tall)


@pytest.mark.parametrize(
    ("arcs", "span"),
    [
        ([(90, 100), (0, 10)], (90, 110)),
        ([(10, 30)], (10, 30)),
        ([(95, 100), (50, 60), (0, 5)], (50, 105)),  # the widest gap is the way around
        ([(90, 120), (15, 30)], (90, 130)),
        ([(0, 60), (50, 100)], (0, 100)),  # no gap: the whole turn
    ],
)
def test_the_span_of_arcs_leaves_out_the_widest_gap(arcs: Any, span: Any) -> None:
    assert span_of(arcs, 100) == span


def test_overlap_is_measured_around_the_circle() -> None:
    boxes = on_circle(np.array([(-20, 0, 10, 10), (0, 0, 20, 10)]), WIDTH)
    found = box_iou(boxes, np.array([[380.0, 0, 410, 10]]), seam=WIDTH)
    # The second shares 10 of 20 + 30 columns.
    assert found[:, 0].tolist() == pytest.approx([1.0, 10 / 40])
    assert box_iou(boxes, np.array([[380.0, 0, 410, 10]]))[1, 0] == 0


def test_pieces_of_one_object_at_both_edges_are_one_object() -> None:
    (thing,) = truth(*pieces()).objects
    assert thing.box_xyxy == ACROSS
    assert thing.annotation_id == 1
    assert thing.side_px == 30
    assert thing.counted  # neither piece of 10 and 20 px is as wide as it
    assert thing.patch.area == 30 * 30


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param(
            (Annotation(1, 1, "face", LEFT), Annotation(2, 1, "face", RIGHT_BOX)), id="no name"
        ),
        pytest.param(
            (pieces()[0], dataclasses.replace(pieces()[1], class_name="vehicle")), id="two classes"
        ),
        pytest.param(
            (pieces()[0], dataclasses.replace(pieces()[1], box_xyxy=(200, 90, 230, 120))),
            id="not at both edges",
        ),
    ],
)
def test_labels_that_no_rule_joins_stay_apart(labels: tuple[Annotation, ...]) -> None:
    assert joined(labels, image(), PANORAMA) == labels


def test_flat_pictures_and_parts_of_panoramas_keep_their_labels() -> None:
    part = Equirectangular(WIDTH, HEIGHT, 2 * WIDTH, WIDTH)
    assert seam_of(part) is None
    for panorama in (None, part):
        assert joined(pieces(), image(), panorama) == pieces()


def test_a_track_names_an_object_as_well() -> None:
    labels = [dataclasses.replace(piece, attributes={"track": "p1"}) for piece in pieces()]
    assert len(truth(*labels).objects) == 1


def test_one_piece_that_is_identifiable_makes_the_object_so() -> None:
    first, second = pieces(identifiable=False)
    said = dataclasses.replace(second, attributes={"object": 7, "identifiable": True})
    assert not truth(first, second).objects[0].identifiable
    assert truth(first, said).objects[0].identifiable


@pytest.mark.parametrize("box", [ACROSS, (-20.0, 90.0, 10.0, 120.0)])
def test_a_box_beyond_an_edge_goes_on_at_the_other(box: Any) -> None:
    (thing,) = truth(Annotation(1, 1, "face", box)).objects
    assert thing.box_xyxy == ACROSS
    assert thing.patch.area == 900


def test_an_outline_with_parts_at_both_edges_is_one_object_across_the_seam() -> None:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[90:120, 380:] = mask[95:110, :10] = True
    label = Annotation(1, 1, "vehicle", (0, 90, 400, 120), segmentation=mask_to_rle(mask))
    (thing,) = truth(label).objects
    assert thing.box_xyxy == ACROSS
    assert thing.has_mask
    assert thing.patch.area == mask.sum()
    assert [piece.area for piece in thing.patch.pieces(WIDTH)] == [20 * 30, 10 * 15]


def test_outlines_of_pieces_are_united() -> None:
    squares = [[[x0, 90, x1, 90, x1, 120, x0, 120]] for x0, x1 in ((0, 10), (380, 400))]
    labels = [
        dataclasses.replace(piece, class_name="vehicle", segmentation=square)
        for piece, square in zip(pieces(), squares, strict=True)
    ]
    (thing,) = truth(*labels).objects
    assert thing.patch.area == 900
    assert (thing.patch.x0, thing.patch.x1) == (380, 410)


@pytest.mark.parametrize("box", [ACROSS, (-20.0, 90.0, 10.0, 120.0)])
@pytest.mark.parametrize("name", ["face", "vehicle"])
def test_a_find_across_the_seam_is_the_object_across_it(name: str, box: Any) -> None:
    judged = judge(truth(*pieces(name)), finds(box, name=name), TAXONOMY)[name]
    assert judged.matching.find_state.tolist() == [RIGHT]
    assert judged.detected_at.tolist() == pytest.approx([0.9])


def test_found_outlines_across_the_seam_are_compared_with_the_true_one() -> None:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[90:120, 380:] = mask[90:120, :10] = True
    label = Annotation(1, 1, "vehicle", (0, 90, 400, 120), segmentation=mask_to_rle(mask))
    right = judge(truth(label), finds(ACROSS, name="vehicle"), TAXONOMY)["vehicle"]
    assert right.detected_at.tolist() == pytest.approx([0.9])
    # 20 of 30 columns are two thirds; 10 of 30 are too few.
    part = finds((380, 90, 400, 120), name="vehicle")
    assert np.isfinite(judge(truth(label), part, TAXONOMY)["vehicle"].detected_at[0])
    less = finds((0, 90, 10, 120), name="vehicle")
    assert not np.isfinite(judge(truth(label), less, TAXONOMY)["vehicle"].detected_at[0])


def test_coverage_counts_both_sides() -> None:
    (row,) = result(finds(ACROSS), *pieces()).objects
    assert (row.share, row.written_share, row.covered, row.detected) == (1.0, 1.0, True, True)
    (half,) = result(finds((380, 90, 400, 120)), *pieces()).objects
    assert half.share == pytest.approx(2 / 3)
    assert half.written_share == pytest.approx(2 / 3, abs=0.02)
    assert not half.covered


def test_two_finds_that_hide_one_side_each_cover_the_object() -> None:
    (row,) = result(finds(LEFT, RIGHT_BOX), *pieces()).objects
    assert row.covered


def test_calibration_sees_the_object_covered_at_the_score_of_its_find() -> None:
    reached = covered_thresholds(truth(*pieces()), finds(ACROSS), TAXONOMY, "face")
    assert reached.tolist() == pytest.approx([0.9])
    flat = truth_of(image(), [Annotation(1, 1, "face", ACROSS)], TAXONOMY)
    half = covered_thresholds(truth(*pieces()), finds(RIGHT_BOX), TAXONOMY, "face")
    assert half.tolist() == [-np.inf]
    assert flat.objects[0].patch.x1 == WIDTH


def test_background_leaves_out_both_sides_of_an_object_and_counts_what_is_hidden_there() -> None:
    found = result(finds((370, 90, 420, 120)), *pieces())
    assert found.picture.background_px == WIDTH * HEIGHT - 900
    assert found.picture.background_hidden_px == 20 * 30


def test_the_summary_counts_one_object_and_names_its_latitude() -> None:
    high = Annotation(3, 1, "face", (100, 5, 140, 35))
    middle = Annotation(4, 1, "face", (100, 90, 140, 120))
    labels = (*pieces(), high, middle)
    data = Dataset((image(projection="perspective"),), labels)
    found = summarize(
        [result(finds(ACROSS), *labels)], TAXONOMY, size_edges=[0, 1, 2], dataset=data
    )
    assert found["classes"]["face"]["detected"]["total"] == 3
    assert found["confusion"]["counts"][0] == [1, 0, 2]
    rows = {r["slice"]: r["detected"] for r in found["slices"] if r["slicing"] == "latitude"}
    # Rows 20 and 105 of 200: 72 degrees up, and 4.5 down.
    assert {name: (r["recalled"], r["total"]) for name, r in rows.items()} == {
        "beyond 60°": (0, 1), "within 30° of the horizon": (1, 2),
    }  # fmt: skip


def test_latitude_follows_the_part_of_the_sphere_that_the_picture_shows() -> None:
    from evaluation.measures.slices import latitude_name

    upper = Equirectangular(WIDTH, HEIGHT, WIDTH, 2 * HEIGHT)
    assert latitude_name((100, 190, 140, 200), upper) == "within 30° of the horizon"
    assert latitude_name((100, 190, 140, 200), PANORAMA) == "beyond 60°"


def test_a_published_picture_hides_both_sides_of_an_object_across_the_seam() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    hidden = obscure_truth(pixels, truth(*pieces()))
    for x0, x1 in ((0, 10), (380, 400)):
        assert not np.array_equal(hidden[90:120, x0:x1], pixels[90:120, x0:x1])
        assert len(np.unique(hidden[90:120, x0:x1, 0])) <= 16
    assert np.array_equal(hidden[:, 50:350], pixels[:, 50:350])


def test_over_the_seam_that_is_judged_which_the_anonymizer_writes() -> None:
    from anonymization.anonymizer import Anonymizer

    found = finds((385, 90, 412, 120), (100, 90, 130, 120))
    judged: list[Any] = []

    def rewrite(pixels: Any) -> Any:
        judged.append(pixels)
        return pixels

    judge_picture(truth(*pieces()), found, CARD, TAXONOMY, rewrite=rewrite, seed=1)
    noise = noise_pair(HEIGHT, WIDTH, seed=1)
    tool = Anonymizer.for_known_regions(CARD, projection="equirectangular", seed=1)
    decided = tool.decide(
        found, name="", width=WIDTH, height=HEIGHT, view=tool.view(b"", WIDTH, HEIGHT)
    )

    assert len(decided.across) == 1
    for shown, written in zip(noise, judged, strict=True):
        assert np.array_equal(tool.hide(shown, decided), written)
        assert not np.array_equal(tool.obscure(shown, decided.hidden), written)


def test_the_gallery_shows_both_sides_of_a_missed_object(tmp_path: Path) -> None:
    import base64
    import io

    pixels = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    pixels[90:120, :10], pixels[90:120, 380:] = (255, 0, 0), (0, 0, 255)
    Pillow.fromarray(pixels).save(tmp_path / "a.png")
    data = Dataset((image(projection="equirectangular"),), pieces())
    (row,) = result(finds((100, 0, 120, 20)), *pieces()).objects
    shown = Album(data, TAXONOMY, tmp_path).miss(row, raw=True)
    seen = np.asarray(Pillow.open(io.BytesIO(base64.b64decode(shown.data)))).astype(int)
    assert ((seen[..., 0] > 200) & (seen[..., 2] < 80)).any()
    assert ((seen[..., 2] > 200) & (seen[..., 0] < 80)).any()


class Recorder:
    """A detector that finds nothing and remembers how it was asked to look."""

    asked: list[Any]

    def detect(self, pixels: Any, *, score_min: float, projection: Any) -> Detections:
        self.asked.append(projection)
        return finds(ACROSS)


def test_evaluation_looks_at_each_picture_as_the_anonymizer_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anonymization.anonymizer import Anonymizer
    from anonymization.formats.picture import read_picture

    marker = b"http://ns.adobe.com/xap/1.0/\0" + GPANO
    images = []
    for number, xmp in enumerate((b"", marker), start=1):
        path = tmp_path / f"{number}.jpg"
        pixels = np.full((HEIGHT, WIDTH, 3), 99 + number, np.uint8)
        Pillow.fromarray(pixels).save(path, "JPEG", quality=90)
        if xmp:
            body = path.read_bytes()
            segment = b"\xff\xe1" + (len(xmp) + 2).to_bytes(2, "big") + xmp
            path.write_bytes(body[:2] + segment + body[2:])
        digest = sha256_of_file(path)
        images.append(Image(number, digest, path.name, WIDTH, HEIGHT, TAXONOMY.names))
    labels = [
        dataclasses.replace(p, image_id=i, id=10 * i + p.id) for i in (1, 2) for p in pieces()
    ]
    detector = Recorder()
    detector.asked = []
    monkeypatch.setattr("anonymization.detection.detector.Detector.from_bundle", lambda _: detector)
    monkeypatch.setattr("data.layout.PICTURES", tmp_path)

    class Bundle:
        card = CARD

    flat, round_ = stage.evaluate(
        Bundle(),  # type: ignore[arg-type]
        Dataset(tuple(images), tuple(labels)),
        TAXONOMY,
        EvaluationConfig(),
        groups={images[1].sha256: "drive"},
        seed=1,
    )
    anonymizer = Anonymizer.for_known_regions(CARD)
    shown = [read_picture(tmp_path / i.file_name) for i in images]
    expected = [anonymizer.view(p.xmp, p.width, p.height).projection for p in shown]
    assert detector.asked == expected == [None, PANORAMA]
    assert [row.box_xyxy for row in flat.objects] == [LEFT, RIGHT_BOX]
    assert [row.box_xyxy for row in round_.objects] == [ACROSS]
    assert round_.objects[0].covered
    clusters = [{row.cluster for row in each.objects} for each in (flat, round_)]
    assert clusters == [{images[0].sha256}, {"drive"}]
