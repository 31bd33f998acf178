"""Histograms of oriented gradients of patches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.feature import hog

from cxw_monai.transforms.hog import hog_descriptors


def test_they_are_those_of_scikit_image():
    image = torch.rand(2, 1, 48, 32)
    found = hog_descriptors(image, 16)  # [2, 6, 36]
    for film, own in zip(image[:, 0].numpy(), found.numpy(), strict=True):
        blocks = hog(film, 9, (8, 8), (2, 2), block_norm="L2", feature_vector=False)[::2, ::2]  # [3, 2, 2, 2, 9]
        np.testing.assert_allclose(own, 6 * blocks.reshape(6, 36), atol=1e-4)


def test_a_ramp_votes_for_its_own_direction():
    rows, columns = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
    angle = math.radians(70)  # of the gradient, clockwise from the columns' axis: the fourth of nine bins of 20 degrees
    image = (rows * math.sin(angle) + columns * math.cos(angle)).view(1, 1, 12, 12)
    middle = hog_descriptors(image, 4)[0, 4].view(4, 9)  # row 1, column 1 of 3 x 3 patches: away from the edge
    expected = torch.zeros(4, 9)
    expected[:, 3] = 3.0  # four equal cells, together of the norm sqrt(36)
    torch.testing.assert_close(middle, expected)


def test_they_keep_their_norm_whatever_the_contrast_and_are_zero_where_all_is_flat():
    image = torch.rand(1, 2, 16, 16)
    strong, weak = hog_descriptors(image, 8), hog_descriptors(0.1 * image + 0.4, 8)
    torch.testing.assert_close(strong.norm(dim=-1), torch.full((1, 4), math.sqrt(72)), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(weak, strong, rtol=1e-2, atol=1e-2)
    assert not hog_descriptors(torch.full((1, 1, 16, 16), 0.3), 8).any()


def test_an_odd_patch_is_refused():
    with pytest.raises(ValueError, match="even side, got 7"):
        hog_descriptors(torch.rand(1, 1, 14, 14), 7)
