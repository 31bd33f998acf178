"""Segmenter: any image size, masks that stay in place, freezing, TorchScript, weights of a pretrained encoder."""

from __future__ import annotations

import io

import pytest
import torch
from monai.bundle import ConfigParser
from torch.nn import functional as F

from cxw_monai.networks import RadiographSegmenter, RadiographViT, radiograph_segmenter
from cxw_monai.networks.decoders import DECODERS
from cxw_monai.weights.encoder import load_weights, save_weights
from tests.helpers.small_networks import images

EVERY = [(name, patch) for name in DECODERS for patch in (8, 16)]


def segmenter(name: str = "unet", patch: int = 16, structures: object = 2, seed: int = 0, **overrides: object):
    """A small segmenter for 64 px with `overrides` of its encoder."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes = {"image_size": 64, "patch_size": patch, "embed_dim": 24, "depth": 3, "num_heads": 3}
        return RadiographSegmenter(RadiographViT(**{**sizes, **overrides}), structures, name, base_channels=4).eval()


@pytest.mark.parametrize("height, width", [(64, 64), (16, 16), (17, 95), (61, 40)])
@pytest.mark.parametrize("name, patch", EVERY)
def test_logits_have_the_images_size(name, patch, height, width):
    logits = segmenter(name, patch)(images(2, 1, height, width))
    assert logits.shape == (2, 2, height, width) and logits.dtype == torch.float32


@pytest.mark.parametrize("name, patch", EVERY)
def test_padding_is_the_repeated_edge_at_the_bottom_and_the_right(name, patch):
    network, image = segmenter(name, patch), images(1, 1, 37, 51)
    bottom, right = {8: (40, 56), 16: (48, 64), 32: (64, 64)}[network.stride]  # next multiples of 37 and 51
    padded = F.pad(image, (0, right - 51, 0, bottom - 37), mode="replicate")
    torch.testing.assert_close(network(image), network(padded)[:, :, :37, :51], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name, patch", [(name, patch) for name, patch in EVERY if name != "upernet"])
def test_a_shifted_image_gives_a_mask_shifted_by_as_many_pixels(name, patch):
    network = segmenter(name, patch, position_resize="bicubic").double()
    network.encoder.pos_embed.data.zero_()  # without positions nothing but the edges tells where a patch lies
    image, (rows, columns) = images(1, 1, 320, 304).double(), (16, 32)
    expected = network(image).roll((rows, columns), (2, 3))
    shifted = network(image.roll((rows, columns), (2, 3)))
    inside = (..., slice(160, 192), slice(160, 176))  # out of reach of the edges
    torch.testing.assert_close(shifted[inside], expected[inside], rtol=0, atol=1e-8)
    assert (expected[inside] - expected.roll(1, 2)[inside]).abs().max() > 1e-4  # one pixel's shift would be seen


def films(count: int, height: int, width: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy films with a bright box each; the structures are the box and, inside it, its left half."""
    generator = torch.Generator().manual_seed(seed)
    image = 0.2 * torch.rand(count, 1, height, width, generator=generator)
    masks = torch.zeros(count, 2, height, width)
    for n in range(count):
        top = int(torch.randint(2, height - 26, (1,), generator=generator))
        left = int(torch.randint(2, width - 26, (1,), generator=generator))
        masks[n, 0, top : top + 24, left : left + 24] = 1
        masks[n, 1, top : top + 24, left : left + 12] = 1
    return image + 0.6 * masks[:, :1], masks


def test_it_learns_overlapping_structures_to_the_pixel_and_keeps_them_in_place_on_another_size():
    network = segmenter("unet", 16).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for step in range(50):
        image, masks = films(4, 64, 64, seed=step)
        loss = F.binary_cross_entropy_with_logits(network(image), masks)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    image, masks = films(4, 61, 77, seed=1000)
    with torch.no_grad():
        pred = (network.eval()(image) > 0).float()
    overlap = (pred * masks).sum((2, 3)) / (pred + masks).clamp(max=1).sum((2, 3))  # [4, 2]
    assert overlap[:, 0].min() > 0.95 and overlap[:, 1].mean() > 0.7
    places = torch.arange(61.0).view(61, 1), torch.arange(77.0)
    for place in places:
        centres = [(mask[:, 0] * place).sum((1, 2)) / mask[:, 0].sum((1, 2)) for mask in (pred, masks)]
        assert (centres[0] - centres[1]).abs().max() < 0.2  # px


def test_the_decoder_gets_the_normalised_image():
    network = segmenter("unet", 16, image_mean=0.3, image_std=0.2)
    plain = segmenter("unet", 16, image_mean=0.0, image_std=1.0)
    image = images(1, 1, 32, 48)
    torch.testing.assert_close(network(image), plain((image - 0.3) / 0.2), rtol=0, atol=1e-4)


def test_a_grey_image_is_repeated_for_an_encoder_of_three_channels():
    network, grey = segmenter("unet", 8, in_channels=3), images(1, 1, 32, 32)
    assert network.decoder.image_skip.body[0][0].in_channels == 3
    torch.testing.assert_close(network(grey), network(grey.repeat(1, 3, 1, 1)), rtol=0, atol=0)


@pytest.mark.parametrize("name, norms", [("unet", 3), ("upernet", 3)])
def test_every_layer_that_a_decoder_reads_is_normed(name, norms):
    network = segmenter(name, 16)
    seen = []
    network.decoder.register_forward_pre_hook(lambda _, arguments: seen.extend(arguments[0]))
    network(images(1, 1, 64, 64))
    for tokens in seen:  # a fresh final norm: mean 0 and variance 1 over the channels
        torch.testing.assert_close(tokens.mean(1), torch.zeros(1, 4, 4), rtol=0, atol=1e-5)
        torch.testing.assert_close(tokens.var(1, unbiased=False), torch.ones(1, 4, 4), rtol=0, atol=1e-2)
    assert len(seen) == len(network.decoder.layers)


def frozen(blocks: int) -> RadiographSegmenter:
    encoder = RadiographViT(64, 16, embed_dim=24, depth=3, num_heads=3, drop_path_rate=0.9)
    return RadiographSegmenter(encoder, 1, "linear", frozen_blocks=blocks).train()


@pytest.mark.parametrize("blocks, trained", [(0, 3), (1, 2), (2, 1), (3, 0), (-1, 0)])
def test_frozen_blocks_get_no_gradients_and_stay_in_evaluation_mode(blocks, trained):
    network = frozen(blocks)
    network(images(2, 1, 64, 64)).sum().backward()
    encoder = network.encoder
    assert [block.training for block in encoder.blocks] == [False] * (3 - trained) + [True] * trained
    for name, parameter in network.named_parameters():
        first = name.startswith(("encoder.patch_embed", *(f"encoder.blocks.{n}." for n in range(3 - trained))))
        still = name == "encoder.pos_embed" or (first and blocks != 0) or (trained == 0 and "encoder." in name)
        assert (parameter.grad is None) == still == (not parameter.requires_grad), name
    assert network.decoder.training and not network.eval().decoder.training


def test_a_frozen_encoder_drops_no_paths():
    network, image = frozen(-1), images(4, 1, 64, 64)
    torch.testing.assert_close(network.encoder(image), network.encoder.eval()(image), rtol=0, atol=0)
    assert network.train().encoder.training is False


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name, patch", EVERY)
def test_torchscript_takes_any_size(name, patch):
    network = segmenter(name, patch)
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(network), file)
    file.seek(0)
    scripted = torch.jit.load(file)
    for height, width in ((64, 64), (33, 50)):
        image = images(1, 1, height, width)
        torch.testing.assert_close(scripted(image), network(image), rtol=0, atol=1e-5)


def test_a_configuration_builds_it_from_plain_values():
    parser = ConfigParser(
        {
            "network": {
                "_target_": "cxw_monai.networks.radiograph_segmenter",
                "size": "tiny",
                "patch": 16,
                "structures": ["heart", "left lung"],
                "decoder": "upernet",
                "base_channels": 8,
                "image_size": [64, 96],
                "drop_path": 0.1,
            }
        }
    )
    network = parser.get_parsed_content("network")
    assert isinstance(network, RadiographSegmenter)
    assert network.structures == ("heart", "left lung")
    assert network.encoder.grid == (4, 6) and network.encoder.blocks[-1].drop_path.drop_prob == pytest.approx(0.1)
    assert {name.split(".")[0] for name, _ in network.named_parameters()} == {"encoder", "decoder"}


def test_an_encoders_file_loads_into_the_segmenter(tmp_path):
    pretrained, network = segmenter(seed=5).encoder, segmenter()
    assert not torch.equal(pretrained.norm.weight + pretrained.blocks[0].norm1.bias, torch.zeros(24))
    save_weights({f"encoder.{name}": value for name, value in pretrained.state_dict().items()}, tmp_path, {})
    load_weights(network.encoder, tmp_path / "model.pt")
    image = images(1, 1, 64, 64)
    assert torch.equal(network.encoder(image), pretrained(image))
    assert not torch.equal(segmenter().encoder(image), pretrained(image))


def test_a_segmenters_file_loads_into_a_segmenter(tmp_path):
    trained, network = segmenter(seed=5), segmenter()
    save_weights(trained.state_dict(), tmp_path, {})
    load_weights(network, tmp_path / "model.pt")
    assert torch.equal(network(images(1, 1, 40, 40)), trained(images(1, 1, 40, 40)))


def test_a_number_of_structures_names_them():
    assert segmenter(structures=3).structures == ("structure_0", "structure_1", "structure_2")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"structures": 0}, "structures must be different names, or a number of 1 or more, got 0"),
        ({"structures": ["heart", "heart"]}, r"different names.*got \['heart', 'heart'\]"),
        ({"decoder": "fcn"}, "decoder must be one of .*got 'fcn'"),
        ({"frozen_blocks": 13}, r"frozen_blocks must lie in -1\.\.12, got 13"),
        ({"size": "giant"}, "size must be one of .*got 'giant'"),
        ({"image_size": 50}, r"image_size \(50, 50\) must be a positive multiple of pretraining's patch, 16 px"),
        ({"image_size": 56, "patch": 8, "pretrained_patch": 16}, r"\(56, 56\) .* pretraining's patch, 16 px"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_refused(arguments, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        radiograph_segmenter(**{"size": "tiny", "image_size": 64, **arguments})


@pytest.mark.parametrize(
    "shape, message",
    [((1, 1, 15, 40), "15 x 40 px is smaller than a patch of 16 px"), ((1, 3, 32, 32), "takes 1 or 1 channel")],
)
def test_images_that_do_not_fit_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        segmenter()(torch.zeros(shape))
