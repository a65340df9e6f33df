"""Objects across the seam of a panorama are hidden, spared and numbered as one."""

from functools import partial
from typing import Any

import numpy as np
import pytest

from anonymization.anonymizer import Anonymizer, NoNetworkError
from anonymization.detection.finds import Detections
from anonymization.documents import KnownRegionsError, document_to_finds, finds_to_document
from anonymization.job.outputs import instance_mask
from anonymization.obscuring.region import Outline
from anonymization.regions import Area, Regions
from anonymization.settings import Settings

WIDTH, HEIGHT = 200, 100
ACROSS = Detections.from_boxes([[190, 40, 215, 60], [50, 40, 60, 50]], class_ids=[2, 2])


def anonymizer(*areas: Area) -> Anonymizer:
    return Anonymizer.for_known_regions(projection="equirectangular", regions=Regions(areas))


def half(name: str, low: float, high: float) -> Area:
    corners = ((low, 0.0), (high, 0.0), (high, 1.0), (low, 1.0))
    return Area(name, "ignore", polygon=corners)


def test_both_sides_of_the_seam_are_hidden_and_numbered_alike() -> None:
    tool = anonymizer()
    view = tool.view(b"", WIDTH, HEIGHT)
    decided = tool.decide(ACROSS, name="a", width=WIDTH, height=HEIGHT, view=view)
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    changed = (tool.obscure(pixels, decided.hidden) != pixels).any(axis=2)
    assert changed[42:58, 192:].mean() > 0.9
    assert changed[42:58, :13].mean() > 0.9
    assert not changed[:, 70:180].any()
    numbers = instance_mask(decided.drawn, tool.taxonomy, HEIGHT, WIDTH, numbers=decided.owners + 1)
    assert (numbers[50, 195], numbers[50, 5], numbers[45, 55]) == (1, 1, 2)
    assert len(decided.detections) == 2


def hidden(tool: Anonymizer, pixels: np.ndarray, finds: Detections) -> np.ndarray:
    height, width = pixels.shape[:2]
    view = tool.view(b"", width, height)
    decided = tool.decide(finds, name="a", width=width, height=height, view=view)
    return tool.hide(pixels, decided)


def of(*given: str) -> Anonymizer:
    return Anonymizer.for_known_regions(
        settings=Settings.of(given), projection="equirectangular", seed=3
    )


def test_a_blur_across_the_seam_has_no_edge_there() -> None:
    face = Detections.from_boxes([[160, 20, 240, 80]], class_ids=[0])
    pixels = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    pixels[:, : WIDTH // 2] = 200
    done = hidden(of("face.method=blur"), pixels, face).astype(int)
    assert np.abs(done[30:70, -1] - done[30:70, 0]).max() < 25
    assert (done[:, 90:130] == pixels[:, 90:130]).all()


@pytest.mark.parametrize("shape", ["box", "rotated_box"])
def test_a_plate_across_the_seam_is_one(shape: str) -> None:
    plate = Detections.from_boxes([[170, 40, 230, 60]], class_ids=[2])
    tool = of("license_plate.method=synthetic", f"license_plate.shape={shape}")
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    done = hidden(tool, pixels, plate)
    whole = tool.obscure(np.concatenate([pixels, pixels], axis=1), plate)
    joined = np.concatenate([done[:, 150:], done[:, :50]], axis=1)
    np.testing.assert_array_equal(joined, whole[:, 150:250])


def test_what_is_drawn_across_the_seam_is_hidden_on_both_sides() -> None:
    mask = np.zeros((20, 40), bool)
    mask[5:15] = True
    person = Detections.from_boxes([[180, 40, 220, 60]], class_ids=[1])
    tool = of("person.method=solid")
    view = tool.view(b"", WIDTH, HEIGHT)
    decided = tool.decide(
        person,
        name="a",
        width=WIDTH,
        height=HEIGHT,
        view=view,
        outlines={0: Outline(180, 40, mask)},
    )
    done = tool.hide(np.full((HEIGHT, WIDTH, 3), 200, np.uint8), decided)
    assert not done[45:55, 180:].any()
    assert not done[45:55, :20].any()
    assert (done[:, 60:150] == 200).all()


def test_an_object_across_the_seam_is_spared_only_where_both_sides_are() -> None:
    right, left = half("right", 0.8, 1.0), half("left", 0.0, 0.2)
    spared = {}
    for name, areas in {"right": (right,), "both": (right, left)}.items():
        tool = anonymizer(*areas)
        view = tool.view(b"", WIDTH, HEIGHT)
        decided = tool.decide(ACROSS, name="a", width=WIDTH, height=HEIGHT, view=view)
        spared[name] = [one.index for one in decided.spared]
    assert spared == {"right": [], "both": [0]}


@pytest.mark.parametrize(
    ("box", "side"),
    [
        pytest.param([160.0, 40.0, 200.0, 80.0], slice(0, 4), id="ends at the last column"),
        pytest.param([0.0, 40.0, 40.0, 80.0], slice(196, 200), id="starts at the first"),
    ],
)
@pytest.mark.parametrize("name", ["face", "license_plate"])
def test_what_is_hidden_around_an_object_goes_on_beyond_the_seam(
    box: list[float], side: slice, name: str
) -> None:
    """The margin is 4 columns of the other side, as it would be anywhere else."""
    tool = of(f"{name}.method=solid", f"{name}.margin=0.1", f"{name}.feather=0")
    finds = Detections.from_boxes([box], class_ids=[tool.taxonomy.class_id(name)])
    white = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    done = hidden(tool, white, finds)
    assert not done[55:65, side].any()
    middle = Detections.from_boxes([[80.0, 40.0, 120.0, 80.0]], class_ids=finds.class_ids)
    np.testing.assert_array_equal(
        np.roll(done, int(80 - box[0]), axis=1), hidden(tool, white, middle)
    )


def test_a_region_that_spares_an_object_spares_what_is_hidden_around_it() -> None:
    tool = anonymizer(half("right", 0.5, 1.0))
    face = Detections.from_boxes([[160, 40, 200, 80]], class_ids=[0])
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    np.testing.assert_array_equal(hidden(tool, pixels, face), pixels)


def test_what_is_drawn_beyond_the_seam_can_be_written_and_read_back() -> None:
    tool = of("person.method=solid", "person.margin=0")
    ring = [[WIDTH + 5, 40], [WIDTH + 25, 40], [WIDTH + 25, 60], [WIDTH + 5, 60]]
    given: dict[str, Any] = {
        "picture": {"width": WIDTH, "height": HEIGHT},
        "finds": [{"class": "person", "polygons": [ring]}],
    }
    read = partial(document_to_finds, taxonomy=tool.taxonomy, width=WIDTH, height=HEIGHT)
    view = tool.view(b"", WIDTH, HEIGHT)
    done = []
    for _ in range(2):
        finds = read(given, projection="equirectangular")
        decided = tool.decide(
            finds.detections,
            name="a",
            width=WIDTH,
            height=HEIGHT,
            view=view,
            outlines=finds.outlines,
        )
        done.append(tool.hide(np.full((HEIGHT, WIDTH, 3), 200, np.uint8), decided))
        given = finds_to_document(
            finds, tool.taxonomy, name="a", width=WIDTH, height=HEIGHT, sha256=""
        )
        del given["picture"]["sha256"]
    assert not done[0][42:58, 7:23].any()
    np.testing.assert_array_equal(done[0], done[1])
    with pytest.raises(KnownRegionsError, match="lies outside of the picture"):
        read(given, projection="perspective")


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_a_find_all_around_has_no_edge_where_its_strip_ends(kind: type) -> None:
    tool = of("face.method=blur")
    pole = Detections.from_boxes([[-WIDTH, 60, 2 * WIDTH, 160]], class_ids=[0])
    x = np.arange(WIDTH)
    bright = (128 + 100 * np.cos(x / WIDTH * 2 * np.pi)).astype(np.uint8)
    pixels = np.broadcast_to(bright[None, :, None], (HEIGHT, WIDTH, 3)).copy()
    if kind is np.float32:
        pixels = pixels.astype(np.float32) / 255
    done = hidden(tool, pixels, pole).astype(float)
    done *= 255 if kind is np.float32 else 1
    steps = np.abs(np.diff(done[85:], axis=1)).max(axis=(0, 2))
    assert steps[WIDTH // 2 - 1] <= 4
    assert np.abs(done[85:, -1] - done[85:, 0]).max() <= 25


def test_a_flat_picture_has_no_seam() -> None:
    tool = Anonymizer.for_known_regions()
    view = tool.view(b"", WIDTH, HEIGHT)
    decided = tool.decide(ACROSS, name="a", width=WIDTH, height=HEIGHT, view=view)
    assert len(decided.drawn) == 2


def test_an_anonymizer_for_known_regions_does_not_pretend_to_detect() -> None:
    with pytest.raises(NoNetworkError, match="has no network"):
        Anonymizer.for_known_regions()(np.zeros((8, 8, 3), np.uint8))
