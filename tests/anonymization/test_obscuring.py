"""What is hidden, and that nothing of it can be seen."""

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest

from anonymization.detection.finds import Detections, ShapeError
from anonymization.obscuring.masks import paste_mask
from anonymization.obscuring.obscure import obscure, obscured_mask
from anonymization.obscuring.region import Outline
from anonymization.obscuring.shapes import region
from anonymization.taxonomy import STRENGTH_MIN, ClassSpec, Taxonomy

PLATE = ClassSpec("box", "box", margin=0.0)
FACE = ClassSpec("ellipse", "ellipse", margin=0.0)
PERSON = ClassSpec("mask", "outline", margin=0.0)


def one(box: list[float], mask: np.ndarray | None = None) -> Detections:
    masks = None if mask is None else mask[None].astype(np.float32)
    return Detections.from_boxes([box], class_ids=[0], masks=masks)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def taxonomy(spec: ClassSpec) -> Taxonomy:
    return Taxonomy({"thing": spec})


def test_a_box_is_rounded_outward() -> None:
    mask = obscured_mask(one([1.9, 2.1, 3.1, 4.0]), taxonomy(PLATE), 8, 8)
    expected = np.zeros((8, 8), bool)
    expected[2:4, 1:4] = True
    np.testing.assert_array_equal(mask, expected)


def test_the_margin_grows_with_the_shorter_side() -> None:
    spec = ClassSpec("box", "box", margin=0.5)
    mask = obscured_mask(one([10, 10, 18, 14]), taxonomy(spec), 30, 30)
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (8, 15, 8, 19)


def test_the_feather_lies_outside_and_falls_to_zero() -> None:
    spec = ClassSpec("box", "box", margin=0.0, feather=0.4)  # 4 px of a 10 px side
    found = region(one([10, 10, 20, 20]), 0, spec, height=40, width=40)
    middle = found.weight[15 - found.y0]
    at = {x: middle[x - found.x0] for x in range(found.x0, found.x0 + len(middle))}
    assert at[10] == at[19] == 1
    assert [at[x] for x in (20, 21, 22, 23)] == pytest.approx([0.75, 0.5, 0.25, 0.0], abs=1 / 255)


@pytest.mark.parametrize("feather", [0.0, 0.2])
@pytest.mark.parametrize("longer", [1, 2, 4, 5.6, 6, 11, 19, 20.3, 29, 30, 61, 140, 290])
@pytest.mark.parametrize("ratio", [0.3, 0.77, 1.0])
def test_the_true_ellipse_is_inside_the_hidden_one_which_is_little_larger(
    longer: float, ratio: float, feather: float
) -> None:
    spec = replace(FACE, feather=feather)
    for shift in (0.0, 0.3, 0.5, 0.9):
        box = [75 + shift, 77 - shift / 2, 75 + shift + longer * ratio, 77 - shift / 2 + longer]
        x0, y0, x1, y1 = box
        y, x = np.mgrid[0:440, 0:440] + 0.5

        def within(growth: float) -> np.ndarray:
            a, b = (x1 - x0) / 2 + growth, (y1 - y0) / 2 + growth  # noqa: B023
            across, down = (x - (x0 + x1) / 2) / a, (y - (y0 + y1) / 2) / b  # noqa: B023
            return across**2 + down**2 <= 1

        for axes in (box, [y0, x0, y1, x1]):
            inside, around = within(0.0), within(3.0)
            if axes is not box:
                inside, around = inside.T, around.T
            hidden = obscured_mask(one(axes), taxonomy(spec), 440, 440)
            assert not (inside & ~hidden).any()
            assert not (hidden & ~around).any()


def test_a_faded_ellipse_falls_steadily_to_zero_behind_its_feather() -> None:
    spec = replace(FACE, feather=0.3)  # 18 px of a 60 px side
    found = region(one([50, 50, 110, 130]), 0, spec, height=200, width=200)
    middle = found.weight[90 - found.y0, 80 - found.x0 :]
    assert (np.diff(middle) <= 0).all()
    full, nothing = int((middle == 1).sum()), int((middle > 0).sum())
    assert 30 <= full <= 33
    assert 30 + 14 <= nothing <= 30 + 18
    assert middle[full + 7] == pytest.approx(0.5, abs=0.15)


def test_an_outline_follows_its_mask_and_not_its_box() -> None:
    mask = np.zeros((28, 28))
    mask[:, :14] = 1
    hidden = obscured_mask(one([10, 10, 38, 38], mask), taxonomy(PERSON), 50, 50)
    assert hidden[10:38, 10:24].all()
    assert not hidden[:, 26:].any()


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_an_outline_without_a_usable_mask_becomes_its_box(value: float) -> None:
    hidden = obscured_mask(
        one([10, 10, 20, 30], np.full((28, 28), value)), taxonomy(PERSON), 50, 50
    )
    assert hidden[10:30, 10:20].all()
    assert hidden.sum() == 200


def test_a_pasted_mask_equals_torchvisions_at_whole_pixels() -> None:
    torch = pytest.importorskip("torch")
    mask = np.random.default_rng(1).random((28, 28)).astype(np.float32)
    box = np.array([4, 6, 4 + 50, 6 + 70], np.float32)
    ours = paste_mask(mask, box, x0=4, y0=6, height=70, width=50)
    padded = torch.nn.functional.pad(torch.tensor(mask)[None, None], (1, 1, 1, 1))
    # Both map cells to pixels by centres; torch is asked at our sampling points.
    y = (torch.arange(70) + 0.5) / 70 * 28
    x = (torch.arange(50) + 0.5) / 50 * 28
    points = torch.stack(torch.meshgrid((y + 1) / 30 * 2 - 1, (x + 1) / 30 * 2 - 1, indexing="ij"))
    theirs = torch.nn.functional.grid_sample(
        padded, points.flip(0).permute(1, 2, 0)[None], align_corners=False
    )
    np.testing.assert_allclose(ours, theirs[0, 0].numpy(), atol=1e-4)


@pytest.mark.parametrize("method", ["blur", "pixelate", "solid"])
@pytest.mark.parametrize("shape", ["box", "ellipse", "outline"])
def test_an_object_at_the_last_row_and_column_is_hidden_to_the_edge(
    method: str, shape: str
) -> None:
    spec = ClassSpec("box", shape, method=method, margin=0.1)
    pixels = noise(64, 64)
    finds = one([44, 44, 84, 84], np.ones((28, 28)))
    hidden = obscured_mask(finds, taxonomy(spec), 64, 64)
    assert hidden[63, 60]
    assert hidden[60, 63]
    assert hidden[63, 63]
    done = obscure(pixels, finds, taxonomy(spec), seed=0)
    last_row = (done[63, 54:] != pixels[63, 54:]).any(axis=1)
    last_column = (done[54:, 63] != pixels[54:, 63]).any(axis=1)
    assert last_row.mean() > 0.85
    assert last_column.mean() > 0.85


@pytest.mark.parametrize("method", ["blur", "pixelate", "solid"])
def test_the_corner_characters_of_a_plate_leave_nothing(method: str) -> None:
    spec = ClassSpec("box", "box", method=method, margin=0.1)
    pixels = np.full((60, 140, 3), 128, np.uint8)
    marked = pixels.copy()
    marked[20:24, 20:24] = 255  # a stroke in the plate's very corner
    finds = one([20, 20, 120, 44])
    plain = obscure(pixels, finds, taxonomy(spec), seed=0).astype(int)
    with_stroke = obscure(marked, finds, taxonomy(spec), seed=0).astype(int)
    difference = np.abs(plain - with_stroke)[18:46, 18:122]
    # A stroke of 16 pixels in cells of at least 36: its contrast of 127 falls under a half.
    assert difference.max() < 64


def test_fully_replaced_pixels_do_not_depend_on_their_own_detail() -> None:
    """Two pictures of equal cell means and opposite detail come out alike."""
    spec = ClassSpec("box", "box", margin=0.0, strength=1.0)  # 2 x 2 cells, evenly cut
    checks = (np.indices((80, 80)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    finds = one([0, 0, 80, 80])
    first = obscure(checks, finds, taxonomy(spec), seed=3)
    second = obscure(255 - checks, finds, taxonomy(spec), seed=3)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("side", [40, 200, 800])
@pytest.mark.parametrize("method", ["blur", "pixelate"])
def test_a_face_of_any_size_keeps_no_more_than_five_samples_across(side: int, method: str) -> None:
    """Stripes finer than a fifth of the face vanish: a fixed kernel would leave large ones."""
    spec = ClassSpec("ellipse", "ellipse", method=method, margin=0.0)
    stripes = (np.arange(side) * 16 // side % 2 * 255).astype(np.uint8)
    pixels = np.broadcast_to(stripes[None, :, None], (side, side, 3)).copy()
    done = obscure(pixels, one([0, 0, side, side]), taxonomy(spec), seed=0)
    middle = done[side // 2, side // 4 : 3 * side // 4, 0].astype(float)
    assert middle.std() < 30  # the source's is 127


def test_nothing_outside_of_the_regions_changes() -> None:
    pixels = noise(64, 64)
    finds = one([10.2, 10.2, 30, 30])
    spec = ClassSpec("box", "box", margin=0.2, feather=0.2)
    done = obscure(pixels, finds, taxonomy(spec), seed=0)
    changed = (done != pixels).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert rows.min() >= 1
    assert rows.max() <= 39
    assert columns.min() >= 1
    assert columns.max() <= 39


def test_a_second_object_brings_nothing_back_that_the_first_hid() -> None:
    spec = ClassSpec("box", "box", margin=0.0, feather=1.0)
    black = ClassSpec("box", "box", margin=0.0, method="solid")
    both = Taxonomy({"a": black, "b": spec})
    finds = Detections.from_boxes([[10, 10, 40, 40], [30, 30, 50, 50]], class_ids=[0, 1])
    pixels = noise(60, 60)
    first = obscure(pixels, finds, both, seed=0)
    pixels[10:40, 10:40] = 255 - pixels[10:40, 10:40]
    second = obscure(pixels, finds, both, seed=0)
    np.testing.assert_array_equal(first[10:30, 10:30], second[10:30, 10:30])


def test_a_merged_head_is_hidden_with_its_face() -> None:
    finds = Detections(
        *(getattr(one([10, 10, 20, 20]), n) for n in ("boxes_xyxy", "scores", "class_ids")),
        masks=np.full((1, 28, 28), np.nan),
        keypoints=np.full((1, 17, 3), np.nan),
        sources=("mask_rcnn",),
        merged_xyxy=np.array([[14, 10, 26, 20]], np.float32),
    )
    hidden = obscured_mask(finds, taxonomy(PLATE), 40, 40)
    assert hidden[10:20, 10:26].all()
    assert hidden.sum() == 160


def test_a_class_that_is_only_detected_stays_clear() -> None:
    pixels, finds = noise(32, 32), one([4, 4, 20, 20])
    clear = taxonomy(ClassSpec("box", "box", method="none"))
    np.testing.assert_array_equal(obscure(pixels, finds, clear), pixels)
    assert not obscured_mask(finds, clear, 32, 32).any()


@pytest.mark.parametrize("shape", [(32, 32), (32, 32, 2), (32, 32, 4)])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_any_channels_and_depth_are_obscured(shape: tuple[int, ...], kind: type) -> None:
    top = np.iinfo(kind).max
    pixels = np.random.default_rng(0).integers(0, top, shape, dtype=kind)
    done = obscure(pixels, one([4, 4, 20, 20]), taxonomy(PLATE), seed=0)
    assert done.dtype == kind
    assert done.shape == shape
    assert (done[4:20, 4:20] != pixels[4:20, 4:20]).mean() > 0.9
    np.testing.assert_array_equal(done[20:], pixels[20:])


def test_a_find_outside_of_the_picture_hides_nothing() -> None:
    assert not obscured_mask(one([100, 100, 120, 120]), taxonomy(FACE), 32, 32).any()


def test_no_finds_leave_the_picture_as_it_is() -> None:
    pixels = noise(8, 8)
    done = obscure(pixels, Detections.empty(), taxonomy(FACE))
    np.testing.assert_array_equal(done, pixels)
    assert done is not pixels


def test_float_pixels_are_refused() -> None:
    with pytest.raises(ShapeError, match="float64"):
        obscure(np.zeros((4, 4, 3)), Detections.empty(), taxonomy(FACE))


def tilted_mask() -> np.ndarray:
    """A bar along the diagonal of its box."""
    y, x = np.mgrid[:28, :28]
    return (np.abs(x - y) < 5).astype(np.float32)


@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_a_rotated_box_holds_every_pixel_of_its_mask_and_less_than_its_box(margin: float) -> None:
    finds = one([20, 20, 120, 90], tilted_mask())
    outline = obscured_mask(finds, taxonomy(ClassSpec("box", "outline", margin=0.0)), 140, 160)
    turned = ClassSpec("box", "rotated_box", margin=margin)
    hidden = obscured_mask(finds, taxonomy(turned), 140, 160)
    assert not (outline & ~hidden).any()
    assert hidden.sum() < 0.75 * 100 * 70


def test_a_rotated_box_without_a_mask_becomes_its_box() -> None:
    spec = taxonomy(ClassSpec("box", "rotated_box", margin=0.0))
    hidden = obscured_mask(one([10, 10, 50, 30]), spec, 60, 80)
    assert hidden[10:30, 10:50].all()
    assert hidden.sum() == 800


def test_a_drawn_outline_at_the_last_pixel_is_hidden() -> None:
    mask = np.zeros((20, 20), bool)
    mask[19, 19] = True
    outline = Outline(44, 44, mask)
    hidden = obscured_mask(one([50, 50, 60, 60]), taxonomy(PLATE), 64, 64, outlines={0: outline})
    assert hidden[63, 63]
    assert hidden[50:60, 50:60].all()


@pytest.mark.parametrize("shape", ["box", "rotated_box", "ellipse", "outline"])
def test_a_synthetic_plate_does_not_depend_on_the_source(shape: str) -> None:
    spec = ClassSpec("box", shape, method="synthetic", margin=0.1)
    finds = one([20, 20, 120, 60], tilted_mask())
    first, second = noise(80, 140), 255 - noise(80, 140)
    hidden = obscured_mask(finds, taxonomy(spec), 80, 140)
    after = [obscure(pixels, finds, taxonomy(spec), seed=5) for pixels in (first, second)]
    np.testing.assert_array_equal(after[0][hidden], after[1][hidden])
    np.testing.assert_array_equal(after[0][~hidden], first[~hidden])


def test_a_synthetic_plate_has_characters_of_its_own_each_time() -> None:
    spec = ClassSpec("box", "box", method="synthetic", margin=0.0)
    pixels, finds = np.zeros((60, 200, 3), np.uint8), one([0, 0, 200, 60])
    drawn = [obscure(pixels, finds, taxonomy(spec)) for _ in range(4)]
    ink = [(plate.max(axis=2) < 80).mean() for plate in drawn]
    assert all(0.05 < share < 0.6 for share in ink)
    assert len({plate.tobytes() for plate in drawn}) == 4


@pytest.mark.parametrize("method", ["blur", "pixelate"])
def test_noise_and_levels_are_those_of_the_bits_that_a_camera_uses(method: str) -> None:
    """Steps of 2048 and noise of 1311, as of 16 bits, would show one of 12 in all colours."""
    spec = taxonomy(ClassSpec("box", "box", method=method, margin=0.0))
    pixels = np.full((60, 60, 3), 2000, np.uint16)
    pixels[:10, :30] = 4080
    done = obscure(pixels, one([10, 20, 50, 50]), spec, seed=0)[20:50, 10:50].astype(int)
    assert np.abs(done - 2000).max() < 450  # 128 a step, noise of 82
    assert done.max() <= 4095
    bright = obscure(np.full((60, 60, 3), 4095, np.uint16), one([10, 20, 50, 50]), spec, seed=0)
    assert bright.max() == 4095
    assert bright[20:50, 10:50].min() > 3500


@pytest.mark.parametrize("geometry", ["box", "mask"])
@pytest.mark.parametrize("box", [[20, 20, 80, 34], [3, 5, 40, 100], [60, 90, 100, 120]])
def test_an_ellipse_hides_the_corners_of_all_but_heads(geometry: str, box: list[int]) -> None:
    """Plates that are blurred through an ellipse in their box show their first and last letter."""
    x0, y0, x1, y1 = box
    spec = ClassSpec(geometry, "ellipse", margin=0.0, feather=0.0)
    hidden = obscured_mask(one(box), taxonomy(spec), 120, 100)
    assert hidden[y0:y1, x0:x1].all()
    assert hidden.sum() < 1.8 * (x1 - x0) * (y1 - y0)
    head = obscured_mask(one(box), taxonomy(replace(spec, geometry="ellipse")), 120, 100)
    assert 0.7 < head[y0:y1, x0:x1].mean() < 0.95


@pytest.mark.parametrize("feather", [0.0, 0.1])
@pytest.mark.parametrize("shape", ["outline", "rotated_box"])
def test_an_outline_beyond_the_edge_hides_nothing_but_its_margin(
    shape: str, feather: float
) -> None:
    """A box reaches over a seam where the object in it does not."""
    mask = np.zeros((28, 28), np.float32)
    mask[:, :14] = 1  # the left half: columns -40 to 0
    finds = one([-40, 10, 40, 50], mask)
    spec = ClassSpec("mask", shape, margin=0.0, feather=feather)
    hidden = obscured_mask(finds, taxonomy(spec), 60, 60)
    assert not hidden[:, 3:].any()
    wider = obscured_mask(finds, taxonomy(replace(spec, margin=0.2)), 60, 60)
    assert wider[12:48, :6].all()
    assert not wider[:, 11:].any()


@pytest.mark.parametrize("feather", [0.0, 0.1])
@pytest.mark.parametrize("shape", ["outline", "rotated_box"])
def test_a_mask_beyond_the_edge_of_a_box_inside_is_not_trusted(shape: str, feather: float) -> None:
    mask = np.full((28, 28), 0.35, np.float32)
    mask[:, :2] = 0.9  # columns -10 to -4
    spec = ClassSpec("mask", shape, margin=0.0, feather=feather)
    hidden = obscured_mask(one([-10, 10, 50, 50], mask), taxonomy(spec), 60, 60)
    assert hidden[10:50, :50].all()


def test_a_plate_in_a_drawn_outline_is_drawn_along_it() -> None:
    mask = np.zeros((100, 140), np.uint8)
    corners = cv2.boxPoints(((70, 50), (90, 24), 25.0)).round().astype(np.int32)
    cv2.fillConvexPoly(mask, corners, 1)
    outline = Outline(0, 0, mask > 0)
    box = outline.box_xyxy.tolist()
    pixels = noise(100, 140)
    drawn = {}
    for shape in ("outline", "rotated_box"):
        spec = taxonomy(ClassSpec("box", shape, "synthetic", margin=0.0))
        drawn[shape] = obscure(pixels, one(box), spec, seed=3, outlines={0: outline})
    inside = cv2.erode(mask, np.ones((3, 3), np.uint8)) > 0
    np.testing.assert_array_equal(drawn["outline"][inside], drawn["rotated_box"][inside])
    np.testing.assert_array_equal(drawn["outline"][mask == 0], pixels[mask == 0])


def test_a_mask_without_a_pixel_is_no_outline() -> None:
    spec = ClassSpec("mask", "outline", margin=0.0)
    for mask in (np.zeros((28, 28)), np.full((28, 28), 0.3), np.full((28, 28), np.nan)):
        hidden = obscured_mask(one([10, 10, 30, 30], mask), taxonomy(spec), 60, 60)
        assert hidden[10:30, 10:30].all()


@pytest.mark.parametrize("method", ["blur", "pixelate"])
def test_what_is_gray_stays_gray_and_what_is_opaque_stays_opaque(method: str) -> None:
    """Noise of its own for each channel made dark cars violet and green."""
    spec, finds = taxonomy(ClassSpec("box", "box", method, margin=0.0)), one([0, 0, 400, 40])
    pixels = np.full((40, 400, 4), 90, np.uint8)
    pixels[..., 3] = 255
    done = obscure(pixels, finds, spec, seed=0).astype(int)
    assert (done[..., 3] == 255).all()
    assert (done[..., :3].max(axis=2) == done[..., :3].min(axis=2)).all()
    assert np.ptp(done[..., 0]) > 0  # there is noise
    seen = obscure(np.full((40, 400, 2), 90, np.uint8), finds, spec, seed=0)
    assert np.abs(seen[..., 1].astype(int) - 90).max() < 40  # half see-through stays about so


@pytest.mark.parametrize("method", ["blur", "pixelate", "solid"])
@pytest.mark.parametrize(
    ("kind", "level", "opaque"),
    [(np.uint8, 90, 255), (np.uint16, 1500, 65535), (np.uint16, 1500, 65520), (np.float32, 0.5, 1)],
)
def test_alpha_has_a_white_of_its_own(method: str, kind: type, level: float, opaque: float) -> None:
    """A camera's 11 bits beside 16 bits of alpha, or light of any strength beside an alpha of 1."""
    spec, finds = taxonomy(ClassSpec("box", "box", method, margin=0.0)), one([0, 0, 400, 40])
    pixels = np.full((80, 400, 4), level).astype(kind)
    pixels[..., 3] = opaque
    done = obscure(pixels, finds, spec, seed=0)[:40].astype(float)
    assert (done[..., 3] >= opaque).all()
    if method != "solid":
        white = {np.uint8: 256, np.uint16: 2048, np.float32: 1}[kind]
        assert np.abs(done[..., :3] - level).max() < 0.12 * white
    pixels[:40, :, 3] = 0
    through = obscure(pixels, finds, spec, seed=0)[:40, :, 3]
    assert (through >= opaque if method == "solid" else through == 0).all()


def test_one_pixel_of_the_sun_leaves_the_noise_as_it_is() -> None:
    pixels = np.full((200, 400, 3), 0.5, np.float32)
    pixels[150, 200] = 5e4
    done = obscure(pixels, one([0, 0, 400, 40]), taxonomy(replace(PLATE, margin=0.0)), seed=0)
    assert np.abs(done[:40] - 0.5).max() < 0.1


def test_black_ink_is_hidden_as_the_other_inks_are() -> None:
    pixels = np.zeros((40, 400, 4), np.uint8)
    done = obscure(pixels, one([0, 0, 400, 40]), taxonomy(PLATE), seed=0, cmyk=True)
    np.testing.assert_array_equal(done[..., 3], done[..., 0])


def test_solid_is_black_in_every_colour_model_and_never_see_through() -> None:
    spec, finds = taxonomy(ClassSpec("box", "box", "solid", margin=0.0)), one([2, 2, 8, 8])
    black = {(9, 9): 0, (9, 9, 2): [0, 255], (9, 9, 3): [0] * 3, (9, 9, 4): [0, 0, 0, 255]}
    for shape, value in black.items():
        done = obscure(np.full(shape, 100, np.uint8), finds, spec)
        assert (done[2:8, 2:8] == value).all()
        assert (done[0] == 100).all()
    inks = obscure(np.full((9, 9, 4), 100, np.uint8), finds, spec, cmyk=True)
    assert (inks[2:8, 2:8] == [0, 0, 0, 255]).all()  # black ink alone


def test_an_average_takes_on_nothing_of_a_plate_that_is_drawn_beside_it() -> None:
    face, plate = (
        ClassSpec("box", "box", margin=0.0),
        ClassSpec("box", "box", "synthetic", margin=0),
    )
    both = Taxonomy({"face": face, "plate": plate})
    pixels = np.full((80, 160, 3), 40, np.uint8)
    finds = Detections.from_boxes([[0, 0, 140, 40], [20, 20, 60, 70]], class_ids=[1, 0])
    done = obscure(pixels, finds, both, seed=1).astype(int)
    assert np.abs(done[41:70, 20:60] - 40).max() < 40
    alone = obscure(pixels, finds.select([1]), both, seed=1)
    assert (done[42:70, 20:60] == alone[42:70, 20:60]).all()


def test_a_synthetic_plate_is_bright_in_every_colour_model() -> None:
    spec = taxonomy(ClassSpec("box", "box", method="synthetic", margin=0.0))
    finds = one([0, 0, 40, 20])
    for shape in ((20, 50), (20, 50, 2), (20, 50, 3), (20, 50, 4)):
        pixels = np.zeros(shape, np.uint16)
        pixels[:, 40:] = 65535
        done = obscure(pixels, finds, spec, seed=0)[:, :40]
        assert done[..., 0].max() > 50000 if len(shape) == 3 else done.max() > 50000
        assert len(shape) == 2 or shape[2] == 3 or (done[..., -1] == 65535).all()
    inks = obscure(np.full((20, 40, 4), 200, np.uint8), finds, spec, seed=0, cmyk=True)
    assert (inks[..., :3] == 0).all()
    assert inks[..., 3].min() < 80


def test_a_strength_below_the_floor_is_raised_to_it() -> None:
    weak = ClassSpec("box", "box", margin=0.0, strength=0.01)
    floor = ClassSpec("box", "box", margin=0.0, strength=STRENGTH_MIN)
    pixels, finds = noise(200, 200), one([0, 0, 200, 200])
    np.testing.assert_array_equal(
        obscure(pixels, finds, taxonomy(weak), seed=1),
        obscure(pixels, finds, taxonomy(floor), seed=1),
    )


@pytest.mark.parametrize("method", ["blur", "pixelate"])
def test_noise_and_steps_make_averages_irreproducible(method: str) -> None:
    spec = taxonomy(ClassSpec("box", "box", method=method, margin=0.0))
    pixels, finds = noise(100, 4000), one([0, 0, 4000, 100])  # cells enough to leave no chance
    first, second = (obscure(pixels, finds, spec).astype(int) for _ in range(2))
    assert (first != second).mean() > 0.3
    if method == "pixelate":
        assert set(np.unique(first) % 8) <= {0, 7}  # steps of 8, and white


def test_float_pixels_keep_their_range_and_holes_do_not_spread() -> None:
    pixels = np.random.default_rng(0).random((40, 40)).astype(np.float32) * 50
    pixels[20, 20] = np.nan
    done = obscure(pixels, one([10, 10, 30, 30]), taxonomy(PLATE), seed=0)
    assert np.isfinite(done).all()
    assert 5 < done[10:30, 10:30].mean() < 45
    np.testing.assert_array_equal(done[30:], pixels[30:])


def test_threads_and_children_draw_noise_of_their_own() -> None:
    def drawn() -> bytes:
        gray = np.full((64, 64, 3), 128, np.uint8)
        spec = ClassSpec("box", "box", method="pixelate", margin=0.0)
        finds = Detections.from_boxes(
            [[8 * i, 0, 8 * i + 8, 64] for i in range(8)], class_ids=[0] * 8
        )
        return obscure(gray, finds, taxonomy(spec)).tobytes()

    drawn()
    with ThreadPoolExecutor(2) as pool:
        barrier = threading.Barrier(2)
        parts = [pool.submit(lambda: (barrier.wait(), drawn())[1]) for _ in range(2)]
        seen = [part.result() for part in parts]
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, hashlib.sha256(drawn()).digest())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(read, 32)
    seen.append(drawn())
    assert len({theirs, *(hashlib.sha256(one).digest() for one in seen)}) == 4


def test_cells_are_as_large_as_the_larger_of_two_merged_boxes_asks() -> None:
    finds = replace(one([60, 60, 72, 72]), merged_xyxy=np.array([[0, 0, 130, 130]], np.float32))
    spec = ClassSpec("box", "box", method="pixelate", margin=0.0, strength=1.0)
    done = obscure(noise(130, 130), finds, taxonomy(spec), seed=1)
    assert len(np.unique(done.reshape(-1, 3), axis=0)) == 1


def test_float_pixels_of_one_channel_fade_as_others_do() -> None:
    gray = noise(40, 40)[..., :1].astype(np.float32) / 255
    gray[12, 12] = np.nan
    spec = ClassSpec("box", "box", margin=0.0, feather=0.4)
    done = obscure(gray, one([10, 10, 20, 20]), taxonomy(spec), seed=1)
    flat = obscure(gray[..., 0], one([10, 10, 20, 20]), taxonomy(spec), seed=1)
    assert done.shape == gray.shape
    np.testing.assert_array_equal(done[..., 0], flat)
    assert np.isfinite(done[10:20, 10:20]).all()
