"""Encoder: sizes of the paper, subsets of tokens, other grids, normalisation, refusals."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cxw_monai.networks import VIT_SIZES, RadiographEmbedder, RadiographViT, radiograph_vit, sincos_table
from cxw_monai.networks.layers import Attention, Block
from tests.helpers.small_networks import TINY, encoder, images


def test_parameter_counts_of_the_paper():
    with torch.device("meta"):
        network = radiograph_vit("base", in_channels=3)
    assert network.grid == (14, 14)
    assert sum(p.numel() for p in network.parameters()) == 85_797_120
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == 85_646_592
    assert len(list(network.parameters())) == 149


@pytest.mark.parametrize(
    "size, dim, depth, heads",
    [
        ("tiny", 192, 12, 3),
        ("small", 384, 12, 6),
        ("base", 768, 12, 12),
        ("large", 1024, 24, 16),
        ("huge", 1280, 32, 16),
    ],
)
def test_named_sizes(size, dim, depth, heads):
    with torch.device("meta"):
        network = radiograph_vit(size, image_size=64)
    assert (network.embed_dim, len(network.blocks), network.num_heads) == (dim, depth, heads)
    assert network.blocks[0].attn.num_heads == heads
    assert network.blocks[0].mlp.fc1.out_features == 4 * dim
    assert network.grid == (4, 4)
    assert len(VIT_SIZES) == 5


def test_names_are_those_of_timm_and_the_position_table_is_frozen():
    network = encoder()
    names = dict(network.named_parameters())
    assert {"pos_embed", "patch_embed.proj.weight", "blocks.1.attn.qkv.weight", "blocks.0.mlp.fc2.bias"} <= set(names)
    assert [name for name, parameter in names.items() if not parameter.requires_grad] == ["pos_embed"]
    assert torch.equal(network.pos_embed, sincos_table((4, 4), 24))
    epsilons = {module.eps for module in network.modules() if isinstance(module, nn.LayerNorm)}
    assert epsilons == {1e-6}


def by_hand(network: RadiographViT, image: torch.Tensor, tokens: torch.Tensor | None = None) -> torch.Tensor:
    """The encoder with a convolution for a stem and loops over heads."""
    image = (image - network.image_mean.view(1, -1, 1, 1)) / network.image_std.view(1, -1, 1, 1)
    stem = network.patch_embed.proj
    x = F.conv2d(image, stem.weight, stem.bias, stride=network.patch_size).flatten(2).transpose(1, 2)
    x = x + network.pos_embed
    if tokens is not None:
        x = torch.stack([sample[index] for sample, index in zip(x, tokens, strict=True)])  # [B, K, D]
    dim, heads = network.embed_dim, network.num_heads
    size = dim // heads
    for block in network.blocks:
        y = F.layer_norm(x, (dim,), block.norm1.weight, block.norm1.bias, 1e-6)
        q, k, v = F.linear(y, block.attn.qkv.weight, block.attn.qkv.bias).split(dim, dim=-1)
        parts = []
        for head in range(heads):
            cut = slice(head * size, (head + 1) * size)
            scores = (q[..., cut] @ k[..., cut].transpose(1, 2) / size**0.5).softmax(dim=-1)
            parts.append(scores @ v[..., cut])
        x = x + F.linear(torch.cat(parts, dim=-1), block.attn.proj.weight, block.attn.proj.bias)
        y = F.layer_norm(x, (dim,), block.norm2.weight, block.norm2.bias, 1e-6)
        y = F.gelu(F.linear(y, block.mlp.fc1.weight, block.mlp.fc1.bias))
        x = x + F.linear(y, block.mlp.fc2.weight, block.mlp.fc2.bias)
    return F.layer_norm(x, (dim,), network.norm.weight, network.norm.bias, 1e-6)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_subset_of_tokens_attends_only_among_itself(mode):
    network = encoder().double().train(mode == "train")
    image = images(2, 1, 32, 32).double()
    tokens = torch.tensor([[0, 3, 7, 12], [15, 2, 8, 1]])
    subset = network(image, tokens)
    assert subset.shape == (2, 4, 24)
    torch.testing.assert_close(subset, by_hand(network, image, tokens), rtol=0, atol=1e-10)
    full = network(image)
    torch.testing.assert_close(full, by_hand(network, image), rtol=0, atol=1e-10)
    gathered = full.gather(1, tokens.unsqueeze(-1).expand(-1, -1, 24))
    assert (subset - gathered).abs().max() > 1e-3  # the dropped tokens are not attended to


def test_subset_does_not_look_at_other_patches():
    network, image = encoder(), images(1, 1, 32, 32)
    tokens = torch.tensor([[0, 1, 5]])
    changed = image.clone()
    changed[:, :, 16:] = 0.0  # rows 2 and 3 of patches
    assert torch.equal(network(image, tokens), network(changed, tokens))
    assert (network(image) - network(changed))[:, :8].abs().max() > 1e-4


def test_permuting_all_tokens_permutes_the_output():
    network, image = encoder().double(), images(2, 1, 32, 32).double()
    order = torch.stack([torch.randperm(16, generator=torch.Generator().manual_seed(n)) for n in range(2)])
    expected = network(image).gather(1, order.unsqueeze(-1).expand(-1, -1, 24))
    torch.testing.assert_close(network(image, order), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("resize", ["closed_form", "bicubic"])
@pytest.mark.parametrize("height, width", [(32, 32), (40, 24), (8, 64), (64, 64)])
def test_other_grids(resize, height, width):
    network = encoder(position_resize=resize)
    rows, columns = height // 8, width // 8
    image = images(1, 1, height, width)
    assert network.grid_of(image) == (rows, columns)
    assert network(image).shape == (1, rows * columns, 24)
    assert network(image, torch.tensor([[rows * columns - 1]])).shape == (1, 1, 24)
    stem = network.patch_embed.proj
    patches = F.conv2d((image - 0.5056) / 0.252, stem.weight, stem.bias, stride=8).flatten(2).transpose(1, 2)
    if resize == "closed_form":
        positions = sincos_table((rows, columns), 24, reference_grid=(4, 4))
    else:
        stored = network.pos_embed.reshape(1, 4, 4, 24).permute(0, 3, 1, 2)
        resized = F.interpolate(stored, size=(rows, columns), mode="bicubic", align_corners=False)
        positions = resized.flatten(2).transpose(1, 2)
    torch.testing.assert_close(network.embed(image), patches + positions, rtol=0, atol=2e-5)


def test_non_contiguous_images():
    network, image = encoder(in_channels=3), images(2, 3, 32, 40)
    expected = network(image)
    for same in (
        image.contiguous(memory_format=torch.channels_last),
        image.transpose(2, 3).contiguous().transpose(2, 3),
    ):
        torch.testing.assert_close(network(same), expected, rtol=0, atol=1e-6)


def test_only_the_last_intermediate_output_is_normed():
    network, image = encoder(depth=3), images(2, 1, 32, 32)
    first, second, last = network.intermediate_layers(image, range(3))
    torch.testing.assert_close(last, network(image), rtol=0, atol=1e-6)
    torch.testing.assert_close(first, network.blocks[0](network.embed(image)), rtol=0, atol=1e-6)
    torch.testing.assert_close(second, network.blocks[1](first), rtol=0, atol=1e-6)
    torch.testing.assert_close(last, network.norm(network.blocks[2](second)), rtol=0, atol=1e-6)
    normed = network.intermediate_layers(image, range(3), norm=True)
    torch.testing.assert_close(normed[0], network.norm(first), rtol=0, atol=1e-6)
    torch.testing.assert_close(normed[2], last, rtol=0, atol=1e-6)


def test_intermediate_layers_come_in_the_order_asked_for():
    network, image = encoder(depth=3), images(1, 1, 32, 32)
    outputs = network.intermediate_layers(image, [-1, 0, -1])
    assert torch.equal(outputs[0], outputs[2]) and not torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[1], network.intermediate_layers(image, [-3])[0])


@pytest.mark.parametrize("layers", [[3], [-4]])
def test_absent_intermediate_layers_are_refused(layers):
    with pytest.raises(ValueError, match=r"layers must lie in -3\.\.2"):
        encoder(depth=3).intermediate_layers(images(1, 1, 32, 32), layers)


def test_the_network_normalises_its_input():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    network = encoder(in_channels=3, image_mean=mean, image_std=std)
    plain = encoder(in_channels=3, image_mean=0.0, image_std=1.0)
    image = images(2, 3, 32, 32)
    outside = (image - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    torch.testing.assert_close(network(image), plain(outside), rtol=0, atol=1e-5)
    assert (network(image) - plain(image)).abs().max() > 1e-2


def test_the_default_normalisation_is_that_of_chest_radiographs():
    network = RadiographViT(**TINY)
    assert network.image_mean.tolist() == pytest.approx([0.5056]) and network.image_std.tolist() == pytest.approx(
        [0.252]
    )
    assert {"image_mean", "image_std"} <= set(network.state_dict())


def test_a_grey_image_is_repeated_for_a_colour_stem():
    network = encoder(in_channels=3, image_mean=(0.4, 0.5, 0.6), image_std=0.2)
    grey = images(2, 1, 32, 32)
    torch.testing.assert_close(network(grey), network(grey.repeat(1, 3, 1, 1)), rtol=0, atol=0)


def test_plain_and_fused_attention_agree(monkeypatch):
    attention = Attention(24, 3).double()
    x = torch.randn(2, 10, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    fused = attention.eval()(x)
    calls = []
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *_: calls.append(1))
    plain = attention.train()(x)  # must not call the fused kernel
    assert not calls
    torch.testing.assert_close(plain, fused, rtol=0, atol=1e-12)


def test_long_sequences_use_the_fused_kernel_in_training(monkeypatch):
    attention = Attention(8, 2).train()
    attention.plain_tokens = 4
    calls = []
    real = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *args: calls.append(1) or real(*args))
    attention(torch.zeros(1, 4, 8))
    assert not calls
    attention(torch.zeros(1, 5, 8))
    assert calls


def test_train_and_eval_differ_only_by_drop_path():
    image = images(4, 1, 32, 32)
    still = encoder()
    torch.testing.assert_close(still.train()(image), still.eval()(image), rtol=0, atol=1e-5)
    dropping = encoder(drop_path_rate=0.9)
    expected = dropping.eval()(image)
    torch.testing.assert_close(expected, still(image), rtol=0, atol=1e-6)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert (dropping.train()(image) - expected).abs().max() > 1e-3


def test_drop_path_rises_linearly_over_depth():
    network = RadiographViT(**{**TINY, "depth": 5}, drop_path_rate=0.4)
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in network.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_initial_weights_have_std_002_down_to_the_last_block():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = RadiographViT(image_size=32, patch_size=8, in_channels=3, embed_dim=192, depth=3, num_heads=3)
    for module in (network.patch_embed.proj, network.blocks[0].attn.qkv, network.blocks[-1].attn.proj):
        assert module.weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert abs(module.weight.mean().item()) < 5e-4
        assert not module.bias.any()
    # without the depth-dependent rescaling, which would give 0.02 / sqrt(6) here
    assert network.blocks[-1].mlp.fc2.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert (network.norm.weight == 1).all() and not network.norm.bias.any()


def test_gradients_reach_every_trainable_parameter():
    network = encoder()
    network(images(2, 1, 32, 32))[..., 0].sum().backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters() if parameter.requires_grad)


def test_embedder_pools_tokens_or_maps_them():
    network, image = encoder(), images(2, 1, 24, 40)
    tokens = network(image)  # [2, 15, 24], 3 rows, 5 columns
    torch.testing.assert_close(RadiographEmbedder(network)(image), tokens.mean(1), rtol=0, atol=0)
    patches = RadiographEmbedder(network, "patches")(image)
    assert patches.shape == (2, 24, 3, 5)
    assert torch.equal(patches[:, :, 1, 2], tokens[:, 7])
    with pytest.raises(ValueError, match="'pooled' or 'patches', got 'cls'"):
        RadiographEmbedder(network, "cls")


@pytest.mark.filterwarnings("ignore")
def test_embedder_can_be_scripted():
    network = RadiographEmbedder(encoder())
    scripted = torch.jit.script(network)
    for shape in ((1, 1, 32, 32), (2, 1, 24, 40)):
        torch.testing.assert_close(scripted(images(*shape)), network(images(*shape)), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"image_size": 30}, r"image_size \(30, 30\) must be a positive multiple of patch_size 8"),
        ({"image_size": (32, 0)}, r"image_size \(32, 0\) must be a positive multiple"),
        ({"position_resize": "nearest"}, "'closed_form' or 'bicubic', got 'nearest'"),
        ({"image_mean": (0.5, 0.5)}, r"image_mean must hold one value or one per channel \(1\), got 2"),
        ({"in_channels": 3, "image_std": (1.0,)}, r"image_std must hold one value or one per channel \(3\), got 1"),
        ({"num_heads": 5}, "dim 24 must be a multiple of num_heads 5"),
        ({"embed_dim": 18}, "multiple of 4.*got 18"),
    ],
    ids=str,
)
def test_sizes_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RadiographViT(**{**TINY, **arguments})


@pytest.mark.parametrize(
    "in_channels, shape, message",
    [
        (1, (1, 3, 32, 32), r"takes 1 or 1 channel\(s\), the image has 3"),
        (3, (1, 2, 32, 32), r"takes 1 or 3 channel\(s\), the image has 2"),
        (1, (1, 1, 33, 32), "33 x 32 px cannot be cut into patches of 8 px: resize or pad"),
        (1, (1, 1, 32, 0), "32 x 0 px cannot be cut"),
    ],
)
def test_images_that_do_not_fit_are_refused(in_channels, shape, message):
    with pytest.raises(ValueError, match=message):
        encoder(in_channels=in_channels)(torch.zeros(shape))


def test_an_unknown_size_is_refused():
    with pytest.raises(ValueError, match=r"size must be one of .*'tiny'.*got 'giant'"):
        radiograph_vit("giant")


def test_mlp_ratio_is_rounded():
    assert Block(12, 2, mlp_ratio=48 / 11).mlp.fc1.out_features == 52  # 12 * 48 / 11 = 52.36
