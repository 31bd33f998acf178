"""Losses of classification against values computed by hand and torch's own."""

import math

import pytest
import torch
from torch.nn import functional as F

from cxw_monai.losses import MultiClassLoss, MultiLabelLoss

NAN = math.nan


def test_cross_entropy_of_the_known_labels():
    """Probabilities .75 (present), .5 (absent): -ln .75 and -ln .5; the unknown third one does not count."""
    logits = torch.tensor([[math.log(3.0), 0.0, 7.0]], requires_grad=True)  # [1, 3]
    loss = MultiLabelLoss()(logits, torch.tensor([[1.0, 0.0, NAN]]))["loss"]
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    loss.backward()
    assert logits.grad[0, 2] == 0 and (logits.grad[0, :2] != 0).all()


def test_weights_are_those_of_the_positives():
    logits, label = torch.randn(5, 3), (torch.rand(5, 3) > 0.5).float()
    expected = F.binary_cross_entropy_with_logits(logits, label, pos_weight=torch.tensor([1.0, 2.0, 5.0]))
    assert MultiLabelLoss([1, 2, 5])(logits, label)["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_asymmetric_loss_by_hand():
    """Positive, p = .75: .25 ln(4/3). Negatives, margin .1: p = .6 gives .5 ** 2 * -ln(1 - .5), and p = .05 nothing."""
    logits = torch.tensor([[math.log(3.0), math.log(1.5), math.log(0.05 / 0.95)]])
    loss = MultiLabelLoss(gamma_negative=2, gamma_positive=1, margin=0.1)(logits, torch.tensor([[1.0, 0.0, 0.0]]))
    assert loss["loss"].item() == pytest.approx((0.25 * math.log(4 / 3) + 0.25 * math.log(2)) / 3, rel=1e-5)


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss = MultiLabelLoss(gamma_negative=4, margin=0.05)(logits, torch.tensor([[0.0, 1.0]]))["loss"]
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


def test_films_of_no_known_class_do_not_count():
    logits = torch.tensor([[0.0, 0.0], [5.0, -5.0]], requires_grad=True)
    assert MultiClassLoss()(logits, torch.tensor([1, -1]))["loss"].item() == pytest.approx(math.log(2))
    weighted = MultiClassLoss([1, 3])(logits, torch.tensor([1, 0]))["loss"].item()
    assert weighted == pytest.approx((3 * math.log(2) + math.log1p(math.exp(-10))) / 4)
    for loss, label in ((MultiClassLoss(), torch.tensor([-1, -1])), (MultiLabelLoss(), torch.full((2, 2), NAN))):
        value = loss(logits, label)["loss"]
        value.backward()
        assert value.item() == 0


@pytest.mark.parametrize("wrong", [{"gamma_negative": -1}, {"margin": 1.0}, {"class_weights": [1, 0]}])
def test_wrong_arguments(wrong):
    with pytest.raises(ValueError, match="must be"):
        MultiLabelLoss(**wrong)
