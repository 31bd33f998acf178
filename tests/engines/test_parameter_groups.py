import pytest
import torch
from torch import nn

from cxw_monai.engines import parameter_groups
from cxw_monai.networks import RadiographViT, WorldModel, WorldModelPredictor


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
