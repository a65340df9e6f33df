"""The mask loss asks for overlap, not only for cells."""

import numpy as np
import pytest
import torch

from anonymization.obscuring.masks import paste_mask
from training.network.heads import _true_maps, mask_loss
from training.pictures.samples import Sample, View, show


def limb() -> torch.Tensor:
    """One thin object: 28 of 784 cells."""
    true = torch.zeros(1, 28, 28)
    true[:, 14] = 1
    return true


def test_a_perfect_mask_costs_nothing() -> None:
    true = limb()
    assert float(mask_loss((true * 2 - 1) * 50, true, 1.0)) == pytest.approx(0, abs=1e-6)


def test_a_missed_limb_costs_more_with_dice() -> None:
    nothing = torch.full((1, 28, 28), -3.0)
    assert float(mask_loss(nothing, limb(), 1.0)) > 3 * float(mask_loss(nothing, limb(), 0.0))


def test_dice_weighs_small_and_large_objects_alike() -> None:
    half, large = limb(), torch.ones(1, 28, 28)
    half[:, 14, 14:] = 0
    missing = torch.ones(1, 28, 28)
    missing[:, 14:] = 0
    small = mask_loss((half * 2 - 1) * 50, limb(), 1.0) - mask_loss((half * 2 - 1) * 50, limb(), 0)
    big = mask_loss((missing * 2 - 1) * 50, large, 1.0) - mask_loss(
        (missing * 2 - 1) * 50, large, 0
    )
    assert float(small) == pytest.approx(float(big), rel=0.05)


def test_the_dice_gradient_is_finite_for_an_empty_truth() -> None:
    logits = torch.zeros(2, 28, 28, requires_grad=True)
    mask_loss(logits, torch.zeros(2, 28, 28), 1.0).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("size", [(120, 180), (200, 300), (320, 480), (400, 600)])
def test_a_true_mask_pasted_back_lies_on_its_object(size: tuple[int, int], mirrored: bool) -> None:
    random = np.random.default_rng(1)
    y, x = np.mgrid[:400, :600] + 0.5
    shifts, overlaps = [], []
    for _ in range(20):
        width, height = random.uniform(40, 80), random.uniform(80, 140)
        left, top = random.uniform(60, 480), random.uniform(60, 240)
        centre = np.array([left + width / 2, top + height / 2])
        half = np.array([width, height]) / 2
        mask = ((x - centre[0]) / half[0]) ** 2 + ((y - centre[1]) / half[1]) ** 2 <= 1
        sample = Sample(
            "a",
            np.zeros((400, 600, 3), np.uint8),
            (400, 600),
            np.array([[left, top, left + width, top + height]], np.float32),
            np.zeros(1, np.int64),
            (mask,),
            np.zeros((1, 17, 3), np.float32),
            *np.array([[False], [True], [True]]),
        )
        shown = show(sample, View((0, 0, 600, 400), size, mirrored), visible_min=0.3)
        scale = size[0] / 400
        centre, half = centre * scale, half * scale
        centre[0] = size[1] - centre[0] if mirrored else centre[0]
        box = np.concatenate([centre - 1.2 * half, centre + 1.2 * half]).astype(np.float32)
        target = {"masks": torch.tensor(np.stack([shown.masks[0]])), "labels": torch.tensor([0])}
        _, (true,) = _true_maps(
            torch.zeros(1, 1, 28, 28), [torch.tensor(box)[None]], [torch.tensor([0])], [target]
        )
        pasted = paste_mask(true.numpy(), box, x0=0, y0=0, height=size[0], width=size[1])
        rows, columns = np.nonzero(pasted >= 0.5)
        shifts.append([columns.mean() + 0.5 - centre[0], rows.mean() + 0.5 - centre[1]])
        whole = shown.masks[0]
        overlaps.append((whole & (pasted >= 0.5)).sum() / (whole | (pasted >= 0.5)).sum())
    np.testing.assert_allclose(np.mean(shifts, axis=0), 0, atol=0.1)
    assert np.mean(overlaps) > 0.96
