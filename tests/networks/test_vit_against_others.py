"""Encoder: MONAI's and timm's ViT with the same weights give the same tokens."""

from __future__ import annotations

import pytest
import torch
from monai.networks.blocks import crossattention, selfattention
from monai.networks.nets import ViT
from torch import nn

from cxw_monai.networks import RadiographViT
from tests.helpers.small_networks import encoder, images


class Rearrange(nn.Module):
    """The two patterns of einops (no dependency of this package) that MONAI's self-attention uses."""

    def __init__(self, pattern: str, **lengths: int) -> None:
        super().__init__()
        assert pattern in ("b h (qkv l d) -> qkv b l h d", "b h (l d) -> b l h d", "b l h d -> b h (l d)")
        self.pattern, self.lengths = pattern, lengths

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.pattern.startswith("b l"):
            return x.transpose(1, 2).flatten(2)
        x = x.unflatten(2, [*self.lengths.values(), -1])  # [B, N, (3,) heads, head_dim]
        return x.permute(2, 0, 3, 1, 4) if x.ndim == 5 else x.transpose(1, 2)


def monai_twin(network: RadiographViT) -> ViT:
    """MONAI's ViT with the same weights."""
    twin = ViT(
        in_channels=network.in_channels,
        img_size=tuple(side * network.patch_size for side in network.grid),
        patch_size=network.patch_size,
        hidden_size=network.embed_dim,
        mlp_dim=4 * network.embed_dim,
        num_layers=len(network.blocks),
        num_heads=network.num_heads,
        proj_type="conv",
        pos_embed_type="sincos",
        qkv_bias=True,
        spatial_dims=2,
        classification=False,
    )
    renames = {
        "patch_embed.proj": "patch_embedding.patch_embeddings",
        "pos_embed": "patch_embedding.position_embeddings",
        "mlp.fc": "mlp.linear",
        "attn.proj": "attn.out_proj",
    }
    state = {}
    for name, value in network.state_dict().items():
        for ours, theirs in renames.items():
            name = name.replace(ours, theirs)
        state[name] = value
    del state["image_mean"], state["image_std"]
    missing, unexpected = twin.load_state_dict(state, strict=False)
    assert not unexpected and all("norm_cross_attn" in name or "cross_attn" in name for name in missing)
    for module in twin.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6
    return twin.eval()


@pytest.mark.parametrize("in_channels, image_size", [(3, 32), (1, (24, 40))], ids=str)
def test_monais_vit_with_the_same_weights_gives_the_same_tokens(monkeypatch, in_channels, image_size):
    for module in (selfattention, crossattention):
        monkeypatch.setattr(module, "Rearrange", Rearrange)
    network = encoder(in_channels=in_channels, image_size=image_size, image_mean=0.0, image_std=1.0)
    height, width = (side * 8 for side in network.grid)
    image = images(2, in_channels, height, width)
    with torch.no_grad():
        theirs, hidden = monai_twin(network)(image)
        assert (network(image) - theirs).abs().max() < 1e-5
        assert (network.intermediate_layers(image, [0])[0] - hidden[0]).abs().max() < 1e-5


def test_timms_vit_with_the_same_weights_gives_the_same_tokens():
    """Without class token its names are ours; its positions are learnt ones, which take ours."""
    timm = pytest.importorskip("timm", reason="an oracle that needs torchvision, which this package does not")
    network = encoder(in_channels=3, image_mean=0.0, image_std=1.0)
    twin = timm.models.VisionTransformer(
        *(32, 8), embed_dim=24, depth=2, num_heads=3, num_classes=0, global_pool="", class_token=False
    ).eval()
    state = network.state_dict()
    twin.load_state_dict({name: value for name, value in state.items() if name not in ("image_mean", "image_std")})
    with torch.no_grad():
        torch.testing.assert_close(network(images(2, 3, 32, 32)), twin(images(2, 3, 32, 32)), atol=1e-5, rtol=0)
