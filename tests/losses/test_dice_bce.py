"""Dice and cross-entropy of masks, some of them unknown."""

import math

import pytest
import torch

from cxw_monai.losses import DiceBCELoss


def test_loss_of_no_information_is_that_of_a_coin():
    """Probability a half everywhere, 4 of 16 pixels inside: BCE log 2, Dice (2 * 2 + 1) / (8 + 4 + 1)."""
    label = torch.zeros(1, 1, 4, 4)
    label[..., 0, :] = 1
    terms = DiceBCELoss(2.0, 3.0)(torch.zeros(1, 1, 4, 4), label, torch.ones(1, 1, dtype=torch.bool))
    assert terms["bce"].item() == pytest.approx(math.log(2))
    assert terms["dice"].item() == pytest.approx(1 - 5 / 13)
    assert terms["loss"].item() == pytest.approx(2 * (1 - 5 / 13) + 3 * math.log(2), rel=1e-6)


def test_unknown_structures_have_no_share_in_the_loss():
    torch.manual_seed(0)
    logits = torch.randn(2, 2, 6, 6, requires_grad=True)
    label = (torch.rand(2, 2, 6, 6) > 0.5).float()
    known = torch.tensor([[True, False], [True, True]])
    terms = DiceBCELoss()(logits, label, known)
    terms["loss"].backward()
    assert not logits.grad[0, 1].any() and logits.grad[known].flatten(1).any(dim=1).all()
    single = [DiceBCELoss()(logits[i : i + 1, j : j + 1], label[i : i + 1, j : j + 1], torch.ones(1, 1)) for i, j in
              ((0, 0), (1, 0), (1, 1))]  # fmt: skip
    assert terms["loss"].item() == pytest.approx(sum(one["loss"].item() for one in single) / 3, rel=1e-5)
    nothing = DiceBCELoss()(logits, label, torch.zeros(2, 2, dtype=torch.bool))
    assert nothing["loss"].item() == 0


def test_weights_of_the_loss_are_checked():
    with pytest.raises(ValueError, match="dice_weight"):
        DiceBCELoss(0, 0)
