import pytest
import torch
from torch import nn

from cxw_monai.networks import RadiographViT, WorldModel, WorldModelPredictor, radiograph_segmenter
from cxw_monai.training import parameter_groups
from cxw_monai.training.parameter_groups import layer_decay_groups


def model():
    encoder = RadiographViT(image_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=2)
    predictor = WorldModelPredictor(encoder.grid, 24, 16, depth=1, num_heads=2, flip_embedding=True)
    return WorldModel(encoder, predictor)


@pytest.mark.parametrize("decay_tokens", [False, True])
def test_every_trainable_parameter_is_in_one_group(decay_tokens):
    network = model()
    names = {id(p): name for name, p in network.named_parameters()}
    decayed, plain = parameter_groups(network, decay_tokens)
    grouped = [names[id(p)] for group in (decayed, plain) for p in group["params"]]
    assert sorted(grouped) == sorted(n for n, p in network.named_parameters() if p.requires_grad)
    tokens = {"predictor.mask_token", "predictor.flip_token"}
    decayed_names = {names[id(p)] for p in decayed["params"]}
    assert (tokens <= decayed_names) == decay_tokens
    assert not any(name.endswith(".bias") or "norm" in name for name in decayed_names)
    assert "encoder.blocks.0.attn.qkv.weight" in decayed_names
    assert plain["weight_decay"] == 0.0


def test_the_target_and_the_tables_are_left_out():
    network = model()
    names = {id(p): name for name, p in network.named_parameters()}
    grouped = {names[id(p)] for group in parameter_groups(network) for p in group["params"]}
    assert not any(name.startswith("target_encoder") or "pos_embed" in name for name in grouped)


def test_nothing_to_train_is_an_error():
    frozen = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable"):
        parameter_groups(frozen)
    assert torch.is_tensor(frozen.weight)


@pytest.fixture(scope="module")
def vit_base_segmenter():
    with torch.device("meta"):
        return radiograph_segmenter("base", structures=["lungs"], image_size=32)


def test_a_vit_base_has_28_groups_of_depth(vit_base_segmenter):
    """Stem, 12 blocks and the rest, each with and without weight decay; n = 13."""
    groups = layer_decay_groups(vit_base_segmenter, 0.5)
    assert len(groups) == 28
    assert [group["lr_scale"] for group in groups] == [0.5 ** (13 - i // 2) for i in range(28)]
    names = {id(p): name for name, p in vit_base_segmenter.named_parameters()}
    grouped = [[names[id(p)] for p in group["params"]] for group in groups]
    assert sorted(sum(grouped, [])) == sorted(n for n, p in vit_base_segmenter.named_parameters() if p.requires_grad)
    scales = {name: group["lr_scale"] for group, members in zip(groups, grouped, strict=True) for name in members}
    assert scales["encoder.patch_embed.proj.weight"] == 0.5**13
    assert scales["encoder.blocks.0.attn.qkv.weight"] == 0.5**12
    assert scales["encoder.blocks.11.mlp.fc2.bias"] == 0.5
    assert scales["encoder.norm.weight"] == scales["decoder.head.bias"] == 1
    for group in groups:
        assert all((p.ndim > 1) == group["decays"] for p in group["params"])
        assert ("weight_decay" in group) != group["decays"]


def test_frozen_parameters_are_in_no_group():
    network = radiograph_segmenter("tiny", structures=["lungs"], decoder="linear", image_size=32, frozen_blocks=10)
    groups = layer_decay_groups(network, 0.5)
    assert {group["lr_scale"] for group in groups} == {0.25, 0.5, 1.0}  # blocks 10 and 11, and the rest
    with pytest.raises(ValueError, match="layer_decay"):
        layer_decay_groups(network, 0.0)
    with pytest.raises(ValueError, match="no trainable"):
        layer_decay_groups(network.requires_grad_(False))
