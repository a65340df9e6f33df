"""The mask loss asks for overlap, not only for cells."""

import pytest
import torch

from training.network.heads import mask_loss


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
