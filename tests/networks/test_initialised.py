"""Weights drawn anew by a named scheme."""

from __future__ import annotations

import math

import pytest
import torch

from cxw_monai.networks import initialised, radiograph_vit


def test_xavier_has_its_bound_and_the_reference_stays():
    torch.manual_seed(0)
    encoder = radiograph_vit("tiny", image_size=32)
    before = encoder.patch_embed.proj.weight.clone()
    assert initialised(encoder) is encoder and torch.equal(encoder.patch_embed.proj.weight, before)
    initialised(encoder, "xavier")
    for weight, inputs, outputs in (
        (encoder.patch_embed.proj.weight, 256, 192),
        (encoder.blocks[3].mlp.fc1.weight, 192, 768),
    ):
        bound = math.sqrt(6 / (inputs + outputs))
        assert 0.99 * bound < weight.abs().max().item() <= bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert not encoder.norm.bias.any() and not encoder.blocks[0].attn.qkv.bias.any()


def test_another_scheme_is_refused():
    with pytest.raises(ValueError, match="'kaiming'"):
        initialised(radiograph_vit("tiny", image_size=32), "kaiming")
