"""What is written beside a picture."""

import base64
import re

import cv2
import numpy as np
import pytest

from anonymization.detection.finds import Detections
from anonymization.job.contact_sheet import contact_sheet, thumbnail
from anonymization.job.outputs import binary_mask, instance_mask, overlay, overlay_jpeg, scaled_png
from anonymization.known_regions import DEFAULT_TAXONOMY
from anonymization.obscuring.obscure import obscured_mask
from anonymization.settings import Settings

FINDS = Detections.from_boxes([[10, 10, 60, 60], [30, 30, 50, 40]], class_ids=[3, 2])


def test_the_instance_mask_numbers_finds_and_keeps_small_ones_on_top() -> None:
    numbers = instance_mask(FINDS, DEFAULT_TAXONOMY, 80, 80)
    assert numbers.dtype == np.uint16
    assert (numbers[35, 40], numbers[20, 20], numbers[70, 70]) == (2, 1, 0)


def test_the_instance_mask_holds_what_is_only_detected_and_the_binary_mask_does_not() -> None:
    only = Settings.of(["vehicle.method=none"]).taxonomy(DEFAULT_TAXONOMY)
    assert instance_mask(FINDS, only, 80, 80)[20, 20] == 1
    mask = binary_mask(FINDS, only, 80, 80)
    assert (mask[20, 20], mask[35, 40]) == (0, 255)
    np.testing.assert_array_equal(mask > 0, obscured_mask(FINDS, only, 80, 80))


def test_a_scaled_mask_keeps_its_numbers_and_depth() -> None:
    numbers = np.zeros((80, 80), np.uint16)
    numbers[40:] = 40000
    small = cv2.imdecode(np.frombuffer(scaled_png(numbers, 0.25), np.uint8), cv2.IMREAD_UNCHANGED)
    assert small.shape == (20, 20)
    assert small.dtype == np.uint16
    assert set(np.unique(small)) == {0, 40000}


def test_the_overlay_draws_edges_on_what_it_is_given() -> None:
    pixels = np.full((80, 80, 3), 100, np.uint8)
    drawn = overlay(pixels, FINDS, DEFAULT_TAXONOMY, spared={1: "poster"})
    assert (drawn != pixels).any()
    assert (pixels == 100).all()
    assert overlay_jpeg(drawn).startswith(b"\xff\xd8")


def test_labels_stay_readable_on_a_panorama() -> None:
    """A label's plate is filled in the class's colour; rows with much of it are its height."""
    pixels = np.zeros((2048, 8192, 3), np.uint8)
    one = Detections.from_boxes([[4000, 1000, 4100, 1100]], class_ids=[2])
    drawn = overlay(pixels, one, DEFAULT_TAXONOMY)
    rows = np.flatnonzero(drawn[:990].any(axis=(1, 2)))
    assert 12 < np.ptp(rows) < 30


@pytest.mark.parametrize("name", ["a.jpg", "<script>alert(1)</script>.jpg"])
def test_the_contact_sheet_holds_its_pictures_and_runs_nothing_of_a_file_name(name: str) -> None:
    entry = {
        "input": name, "status": "anonymized", "reason": None, "detections": {"face": 2},
        "spared": [], "visible": [],
    }  # fmt: skip
    seen = entry | {
        "status": "quarantined", "reason": "the audit still sees 1 objects",
        "visible": [{"class": "face", "box": [1, 2, 3, 4], "covered": 0.25}],
    }  # fmt: skip
    report = {
        "files": [entry, seen], "bundle": None, "complete": True, "started": "today",
        "counts": {"anonymized": 1, "quarantined": 1}, "finds": {"face": 2}, "spared": 0,
        "settings": {}, "seconds": 1.0,
    }  # fmt: skip
    page = contact_sheet(report, {0: thumbnail(np.full((640, 1280, 3), 9, np.uint8))})
    assert "<script>" not in page
    (data,) = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    small = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert small.shape == (160, 320, 3)
    assert "face at 1, 2, 3, 4, 25% hidden" in page
    assert "http" not in page
