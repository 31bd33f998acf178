"""Divergence of heat maps from Gaussians around points, some of them unknown."""

import math

import numpy as np
import pytest
import torch

from cxw_monai.losses import HeatMapLoss
from cxw_monai.networks import HeatMapPoints

KNOWN = torch.ones(1, 1, dtype=torch.bool)


def bell(row, column, height, width, deviation):
    """Log of a Gaussian at a point, up to a constant: `[1, 1, h, w]`."""
    rows, columns = torch.arange(height)[:, None] + 0.5, torch.arange(width) + 0.5
    return (-((rows - row) ** 2 + (columns - column) ** 2) / (2 * deviation**2))[None, None]


def test_the_loss_of_no_information_is_how_much_the_gaussian_says():
    """A flat map of 8 x 6 px: log 48 less the Gaussian's entropy, summed here over its pixels."""
    share = bell(3.2, 2.9, 8, 6, 1.5).flatten().softmax(0)
    entropy = -(share * share.log()).sum().item()
    terms = HeatMapLoss(1.5, 2.0)(torch.zeros(1, 1, 8, 6), torch.tensor([[[3.2, 2.9]]]), KNOWN)
    assert terms["heat"].item() == pytest.approx(math.log(48) - entropy, rel=1e-5)
    assert terms["distance"].item() == pytest.approx((0.8 + 0.1) / 2 / 1.5, rel=1e-5)  # the flat map's mean is 4, 3
    assert terms["loss"].item() == pytest.approx(terms["heat"].item() + 2 * terms["distance"].item(), rel=1e-6)


def test_the_loss_ends_at_nothing_where_the_map_is_the_gaussian():
    terms = HeatMapLoss(2.0)(bell(9.3, 12.6, 24, 30, 2.0), torch.tensor([[[9.3, 12.6]]]), KNOWN)
    assert abs(terms["heat"].item()) < 1e-5 and terms["distance"].item() < 1e-3
    further = HeatMapLoss(2.0)(bell(9.3, 12.6, 24, 30, 2.0), torch.tensor([[[9.3, 14.6]]]), KNOWN)
    assert further["heat"].item() == pytest.approx(0.5, abs=0.01)  # of Gaussians a deviation apart


def test_unknown_points_have_no_share_in_the_loss():
    torch.manual_seed(0)
    logits = torch.randn(2, 2, 6, 6, requires_grad=True)
    points, known = 6 * torch.rand(2, 2, 2), torch.tensor([[True, False], [True, True]])
    terms = HeatMapLoss(1.0, 1.0)(logits, points, known)
    terms["loss"].backward()
    assert not logits.grad[0, 1].any() and logits.grad[known].flatten(1).any(dim=1).all()
    nothing = HeatMapLoss(1.0, 1.0)(logits, points, torch.zeros(2, 2, dtype=torch.bool))
    assert nothing["loss"].item() == 0


def test_settings_of_the_loss_are_checked():
    for wrong in ((0, 0), (1, -1)):
        with pytest.raises(ValueError, match="heat_px must be above 0"):
            HeatMapLoss(*wrong)


@pytest.mark.parametrize(("row", "column"), [(9.3, 12.6), (0.5, 29.5), (23.9, 0.2)])
def test_a_gaussian_is_read_to_a_fraction_of_a_pixel(row, column):
    """In the middle to a hundredth of a pixel; at an edge the map is cut, and its centre of mass lies inside."""
    x, y, confidence = HeatMapPoints(2.0)(bell(row, column, 24, 30, 2.0))[0, 0].tolist()
    at_edge = row != 9.3
    assert (y * 24, x * 30) == pytest.approx((row, column), abs=1.9 if at_edge else 0.01)
    assert confidence > 0.98


def test_a_second_hill_takes_confidence_and_moves_nothing():
    two = torch.logaddexp(bell(8.0, 8.0, 40, 40, 2.0) + math.log(3), bell(31.0, 30.0, 40, 40, 2.0))
    x, y, confidence = HeatMapPoints(2.0)(two)[0, 0].tolist()
    assert (y * 40, x * 40) == pytest.approx((8, 8), abs=0.02) and confidence == pytest.approx(0.75, abs=0.01)


def test_points_are_read_alike_by_torchscript_and_for_every_map_alone():
    maps = torch.from_numpy(np.random.default_rng(0).normal(0, 3, (2, 3, 20, 12)).astype(np.float32))
    whole = HeatMapPoints(1.0)(maps)
    torch.testing.assert_close(torch.jit.script(HeatMapPoints(1.0))(maps), whole)
    torch.testing.assert_close(HeatMapPoints(1.0)(maps[1:, 2:]), whole[1:, 2:])
    assert whole.shape == (2, 3, 3) and whole.min() >= 0 and whole.max() <= 1
