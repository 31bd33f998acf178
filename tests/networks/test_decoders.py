"""Decoders: sizes of the paper, alignment of logits and pixels, normalisation of single values, refusals."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cxw_monai.networks.decoders import (
    DECODERS,
    BatchNorm2d,
    LinearDecoder,
    UNetDecoder,
    UPerNetDecoder,
    make_decoder,
    synchronise_batch_norm,
)

DIM = 8
EVERY = [(name, patch) for name in DECODERS for patch in (8, 16)]


def decoder(name: str, patch: int, outputs: int = 2) -> nn.Module:
    """A narrow decoder in float64 whose every parameter and statistic is random."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = make_decoder(name, DIM, 12, patch, 1, outputs, base_channels=2).double().eval()
        for norm in (module for module in network.modules() if isinstance(module, BatchNorm2d)):
            for values, low in (
                (norm.weight, 0.5),
                (norm.bias, -0.5),
                (norm.running_mean, -0.5),
                (norm.running_var, 0.5),
            ):
                nn.init.uniform_(values, low, 1.0)
    return network


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs(network: nn.Module, patch: int, rows: int, columns: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    maps = [random(1, DIM, rows, columns, seed=number) for number in range(len(network.layers))]
    return maps, random(1, 1, rows * patch, columns * patch, seed=9)


@pytest.mark.parametrize("patch, expected", [(8, 11_836_001), (16, 12_101_729)])
def test_parameter_counts_of_the_paper(patch, expected):
    with torch.device("meta"):
        network = UNetDecoder(768, patch, image_channels=3, outputs=1, base_channels=32)
    assert sum(p.numel() for p in network.parameters()) == expected


@pytest.mark.parametrize("name, patch", EVERY)
def test_logits_have_the_images_size(name, patch):
    network = decoder(name, patch, outputs=3)
    cells = network.stride // patch
    maps, image = inputs(network, patch, 2 * cells, 3 * cells)
    assert network(maps, image).shape == (1, 3, 2 * network.stride, 3 * network.stride)


def symmetrise(network: nn.Module) -> None:
    """Make every kernel equal to its mirror images, so that only the geometry tells left from right, up from down."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            weight = module.weight.data
            module.weight.data = (weight + weight.flip(2) + weight.flip(3) + weight.flip(2, 3)) / 4
    if isinstance(network, LinearDecoder):
        for values in (network.head.weight, network.head.bias):
            cells = values.data.view(-1, network.cells, network.cells, *values.shape[1:])
            mirrored = (cells + cells.flip(1) + cells.flip(2) + cells.flip(1, 2)) / 4
            values.data = mirrored.view_as(values)


@pytest.mark.parametrize("axis", [2, 3])
@pytest.mark.parametrize("name, patch", EVERY)
def test_a_mirrored_input_gives_a_mirrored_output(name, patch, axis):
    network = decoder(name, patch)
    symmetrise(network)
    maps, image = inputs(network, patch, 8, 12)
    expected = network(maps, image).flip(axis)
    assert (expected - expected.flip(axis)).abs().max() > 1e-3
    mirrored = network([tokens.flip(axis) for tokens in maps], image.flip(axis))
    torch.testing.assert_close(mirrored, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("axis", [2, 3])
@pytest.mark.parametrize("name, patch", EVERY)
def test_a_shifted_input_gives_an_output_shifted_by_as_many_pixels(name, patch, axis):
    network = decoder(name, patch)
    if isinstance(network, UPerNetDecoder):
        for stage in network.context.stages:  # means over parts of the whole image do not move with it
            nn.init.zeros_(stage[1][1].weight)
            nn.init.zeros_(stage[1][1].bias)
    cells = network.stride // patch
    maps, image = inputs(network, patch, 12 * cells + 20, 12 * cells + 20)
    expected = network(maps, image).roll(network.stride, axis)
    shifted = network([tokens.roll(cells, axis) for tokens in maps], image.roll(network.stride, axis))
    margin = 6 * network.stride + 6 * patch
    inside = slice(margin + network.stride, margin + 8 * patch)  # out of reach of the edges
    torch.testing.assert_close(shifted[..., inside, inside], expected[..., inside, inside], rtol=0, atol=1e-10)
    assert (shifted - expected).abs().max() > 1e-3  # the edges do differ


@pytest.mark.parametrize("patch", [8, 16])
def test_the_unet_sees_every_pixel_where_it_is(patch):
    network = decoder("unet", patch)
    maps, image = inputs(network, patch, 6, 4)
    other = image.clone()
    other[0, 0, 29, 18] += 1.0
    changed = (network(maps, image) - network(maps, other)).abs().amax(dim=(0, 1)) > 1e-9
    rows, columns = changed.nonzero(as_tuple=True)
    assert changed[29, 18]
    # four 3x3 convolutions lie between the image and the logits
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (25, 33, 14, 22)


def test_the_linear_decoder_by_hand():
    network = LinearDecoder(1, patch_size=4, outputs=1)
    assert network.cells == 1
    nn.init.constant_(network.head.weight, 2.0)
    nn.init.constant_(network.head.bias, 1.0)
    tokens = torch.tensor([[[[0.0], [1.0]]]])  # logits 1 and 3 at the rows 1.5 and 5.5
    logits = network([tokens], torch.zeros(1, 1, 8, 4))
    expected = torch.tensor([1.0, 1.0, 1.25, 1.75, 2.25, 2.75, 3.0, 3.0])
    torch.testing.assert_close(logits, expected.view(1, 1, 8, 1).expand(1, 1, 8, 4))


def test_the_linear_decoder_draws_its_cells_inside_the_token():
    network = LinearDecoder(3, patch_size=16, outputs=2)
    tokens = torch.randn(1, 3, 2, 5, generator=torch.Generator().manual_seed(0))
    logits = network([tokens], torch.zeros(1, 1, 8, 20))
    values = network.head(tokens)  # [1, 2 * 16, 2, 5]
    assert logits[0, 0, 5, 14] == values[0, 4 * 1 + 2, 1, 3]  # row 5 = 4 + 1, column 14 = 3 * 4 + 2
    assert logits[0, 1, 0, 19] == values[0, 16 + 3, 0, 4]


@pytest.mark.parametrize("patch, cells", [(16, 4), (8, 2), (14, 3), (2, 1)])
def test_cells_of_the_linear_decoder_are_about_four_pixels(patch, cells):
    network = LinearDecoder(4, patch, outputs=1)
    assert network.cells == cells
    assert network([torch.zeros(1, 4, 3, 7)], torch.zeros(1, 1, 3 * patch, 7 * patch)).shape[2:] == (
        3 * patch,
        7 * patch,
    )


@pytest.mark.parametrize(
    "depth, layers", [(12, [3, 5, 7, 11]), (24, [7, 11, 15, 23]), (32, [10, 15, 20, 31]), (1, [0] * 4)]
)
def test_layers_that_upernet_reads(depth, layers):
    assert UPerNetDecoder(8, depth, 16).layers == layers


def test_upernet_uses_each_layer_and_has_three_smoothing_convolutions():
    network = decoder("upernet", 16)
    maps, image = inputs(network, 16, 4, 4)
    maps = [tokens.requires_grad_() for tokens in maps]
    network(maps, image).sum().backward()
    assert all(tokens.grad.abs().max() > 1e-6 for tokens in maps)
    assert len({smooth[0].weight.data_ptr() for smooth in network.smooth}) == 3
    gradients = [smooth[0].weight.grad for smooth in network.smooth]
    assert (gradients[0] - gradients[1]).abs().max() > 1e-6


@pytest.mark.parametrize("name, patch", EVERY)
def test_gradients_reach_every_parameter(name, patch):
    network = decoder(name, patch).train()
    maps, image = inputs(network, patch, 8, 8)
    network(maps, image).square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_batch_norm_is_torchs_wherever_torch_computes_one():
    ours, torchs = BatchNorm2d(3), nn.BatchNorm2d(3)
    for seed in range(3):
        x = random(2, 3, 1, 2, seed=seed).float()
        torch.testing.assert_close(ours(x), torchs(x), rtol=0, atol=1e-6)
    assert {name: value.tolist() for name, value in ours.state_dict().items()} == {
        name: value.tolist() for name, value in torchs.state_dict().items()
    }
    x = random(1, 3, 1, 1).float()
    torch.testing.assert_close(ours.eval()(x), torchs.eval()(x), rtol=0, atol=1e-6)


def test_batch_norm_of_a_single_value_uses_the_running_statistics():
    norm = BatchNorm2d(1)
    nn.init.constant_(norm.running_mean, 1.0)
    nn.init.constant_(norm.running_var, 4.0)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    y = norm.train()(torch.tensor([[[[7.0]]]]))
    assert y.item() == pytest.approx(3.0, abs=1e-4)  # (7 - 1) / 2
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


@pytest.mark.parametrize("name, patch", EVERY)
def test_one_smallest_image_trains(name, patch):
    network = decoder(name, patch).train()
    cells = network.stride // patch
    maps, image = inputs(network, patch, cells, cells)
    assert network(maps, image).isfinite().all()


def test_batch_statistics_are_shared_only_between_cuda_processes(monkeypatch):
    network = decoder("upernet", 16).float()
    assert synchronise_batch_norm(network, "cuda:0") is network  # one process
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    assert synchronise_batch_norm(network, torch.device("cpu")) is network
    state = {name: value.clone() for name, value in network.state_dict().items()}
    count = sum(isinstance(module, BatchNorm2d) for module in network.modules())
    converted = synchronise_batch_norm(network, "cuda:0")
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in converted.modules()) == count > 0
    assert not any(isinstance(module, BatchNorm2d) for module in converted.modules())
    assert converted.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in converted.state_dict().items())


@pytest.mark.parametrize(
    "name, patch, outputs, message",
    [
        ("segformer", 16, 1, r"decoder must be one of .*'unet'.*got 'segformer'"),
        ("unet", 14, 1, "patches of 8 or 16 px, got 14: use upernet or linear"),
        ("linear", 16, 0, "structures and base_channels must be 1 or more, got 0 and 32"),
    ],
)
def test_decoders_that_do_not_fit_are_refused(name, patch, outputs, message):
    with pytest.raises(ValueError, match=message):
        make_decoder(name, 8, 12, patch, 1, outputs)
