"""Predictor: size of the paper's, what each conditioning looks at, places of targets, flips, grids, refusals."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from cxw_monai.networks import WorldModelPredictor, relative_table, sincos_table
from cxw_monai.networks.predictor import fourier_features

SIZES = {"grid": (4, 4), "encoder_dim": 24, "embed_dim": 16, "depth": 2, "num_heads": 2}
CONDITIONINGS = ["feat", "feat_res", "feat_silu", "token", "token_bare", "none"]


def predictor(seed: int = 0, **overrides: object) -> WorldModelPredictor:
    """A small predictor whose every trainable parameter is random."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = WorldModelPredictor(**{**SIZES, **overrides}).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return network


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


CONTEXT = torch.tensor([[0, 2, 5, 7], [1, 3, 8, 15]])
TARGET = torch.tensor([[1, 6, 9], [0, 4, 11]])
REL = torch.tensor([[0.3, -0.2, 0.0, 0.7], [-0.1, 0.4, 1.0, 0.2]], dtype=torch.float64)


def predicted(network: WorldModelPredictor, **changes: torch.Tensor | None) -> torch.Tensor:
    """One call of a fixed batch with some arguments changed."""
    arguments = {
        "context": normal(2, 4, 24),
        "action": normal(2, 5, seed=2),
        "context_tokens": CONTEXT,
        "target_tokens": TARGET,
        "rel": REL,
    }
    return network(**{**arguments, **changes})


def test_parameter_counts_of_the_paper():
    with torch.device("meta"):
        network = WorldModelPredictor((14, 14))
    assert sum(p.numel() for p in network.parameters()) == 11_759_616
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == 11_684_352
    assert len(network.state_dict()) == 86
    assert network.policy_net[0].weight.shape == (384, 389)
    assert network.predictor_blocks[0].attn.qkv.weight.shape == (1152, 384)


def test_initial_weights():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = WorldModelPredictor((4, 4), embed_dim=384, depth=1)
    for weight in (network.mask_token, network.policy_net[4].weight, network.predictor_blocks[-1].mlp.fc2.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert network.predictor_proj.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not network.predictor_proj.bias.any()


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_shape_and_dependence_on_the_action(conditioning):
    network = predictor(conditioning=conditioning)
    prediction = predicted(network)
    assert prediction.shape == (2, 3, 24)
    other = predicted(network, action=normal(2, 5, seed=3))
    if conditioning == "none":
        assert torch.equal(prediction, other)
    else:
        assert (prediction - other).abs().amax((1, 2)).min() > 1e-3


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_a_samples_action_concerns_that_sample_only(conditioning):
    network = predictor(conditioning=conditioning)
    action = normal(2, 5, seed=2)
    action[1] += 1.0
    changed = predicted(network, action=action)
    assert torch.equal(changed[0], predicted(network)[0])


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_mask_tokens_by_hand(conditioning):
    network = predictor(conditioning=conditioning)
    action = normal(2, 5, seed=2)
    found = network.mask_tokens(action, TARGET, REL, (4, 4))
    table = relative_table(REL, (4, 4), 16)
    for sample in range(2):
        for place, index in enumerate(TARGET[sample]):
            token = network.mask_token[0, 0] + table[sample, index]
            expected = token
            if conditioning.startswith("feat"):
                x = torch.cat([token, action[sample]])
                activation = F.silu if conditioning == "feat_silu" else F.relu
                for number in (0, 2):
                    x = activation(F.linear(x, network.policy_net[number].weight, network.policy_net[number].bias))
                x = F.linear(x, network.policy_net[4].weight, network.policy_net[4].bias)
                expected = token + x if conditioning == "feat_res" else x
            torch.testing.assert_close(found[sample, place], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_forward_by_hand(conditioning):
    network = predictor(conditioning=conditioning)
    context, action = normal(2, 4, 24), normal(2, 5, seed=2)
    u = network.predictor_embed(context) + network.predictor_pos_embed[0, CONTEXT]
    if conditioning == "token":
        u = torch.cat([u, network.policy_net(fourier_features(action))[:, None]], dim=1)
    elif conditioning == "token_bare":
        u = torch.cat([u, network.policy_net(action)[:, None]], dim=1)
    x = torch.cat([u, network.mask_tokens(action, TARGET, REL, (4, 4))], dim=1)
    for block in network.predictor_blocks:
        x = block(x)
    x = network.predictor_proj(F.layer_norm(x, (16,), network.predictor_norm.weight, network.predictor_norm.bias, 1e-6))
    torch.testing.assert_close(predicted(network), x[:, -3:], rtol=0, atol=1e-12)


def test_fourier_features_are_octaves_of_pi():
    features = fourier_features(torch.tensor([[0.25, 1.0]], dtype=torch.float64))
    assert features.shape == (1, 2 * 2 * 8)
    # sines of 0.25 pi, 0.5 pi, pi, ... then of pi, 2 pi, ...; then the cosines
    assert features[0, :3].tolist() == pytest.approx([math.sqrt(0.5), 1.0, 0.0], abs=1e-12)
    assert features[0, 8].item() == pytest.approx(0.0, abs=1e-12)
    assert features[0, 16:19].tolist() == pytest.approx([math.sqrt(0.5), 0.0, -1.0], abs=1e-12)
    assert features[0, 24].item() == pytest.approx(-1.0)


def test_prediction_depends_on_the_place_of_the_target():
    network = predictor()
    base = predicted(network)
    for column in range(3):  # d_i, d_j and flip
        rel = REL.clone()
        rel[0, column] += 1.0
        changed = predicted(network, rel=rel)
        assert (changed[0] - base[0]).abs().max() > 1e-3
        assert torch.equal(changed[1], base[1])


def test_only_one_of_the_horizontal_offsets_is_used():
    network = predictor()
    unflipped, flipped = REL.clone(), REL.clone()
    unflipped[:, 2], flipped[:, 2] = 0.0, 1.0
    other_d_jf, other_d_j = torch.tensor([0, 0, 0, 0.5]).double(), torch.tensor([0, 0.5, 0, 0]).double()
    assert torch.equal(predicted(network, rel=unflipped), predicted(network, rel=unflipped + other_d_jf))
    assert torch.equal(predicted(network, rel=flipped), predicted(network, rel=flipped + other_d_j))


def test_no_geometry_is_the_zero_offset():
    network = predictor()
    zero = predicted(network, rel=torch.zeros(2, 4))  # float32, as within a view
    assert torch.equal(predicted(network, rel=None), zero)


def test_flip_embedding_is_added_to_mirrored_targets_only():
    network = predictor(flip_embedding=True)
    action = normal(2, 5, seed=2)
    with torch.no_grad():
        network.policy_net = torch.nn.Identity()
        network.conditioning = "none"
        with_flip = network.mask_tokens(action, TARGET, REL, (4, 4))
        flip_token, network.flip_token = network.flip_token, None
        without = network.mask_tokens(action, TARGET, REL, (4, 4))
    assert torch.equal(with_flip[0], without[0])  # REL: sample 0 is not mirrored, sample 1 is
    torch.testing.assert_close(with_flip[1] - without[1], flip_token[0].expand(3, -1), rtol=0, atol=1e-12)


def test_flip_embedding_starts_at_zero():
    fresh = WorldModelPredictor(**SIZES, flip_embedding=True)
    assert fresh.flip_token.shape == (1, 1, 16) and not fresh.flip_token.any()
    assert "flip_token" not in WorldModelPredictor(**SIZES).state_dict()


def test_order_of_targets_is_the_order_of_predictions():
    network = predictor()
    torch.testing.assert_close(
        predicted(network, target_tokens=TARGET.flip(1)), predicted(network).flip(1), rtol=0, atol=1e-12
    )


def test_order_of_context_does_not_matter():
    network = predictor()
    other = predicted(network, context=normal(2, 4, 24).flip(1), context_tokens=CONTEXT.flip(1))
    torch.testing.assert_close(other, predicted(network), rtol=0, atol=1e-12)


def test_targets_attend_to_each_other():
    network = predictor()
    full = predicted(network, target_tokens=None)
    assert full.shape == (2, 16, 24)
    every = torch.arange(16).expand(2, -1)
    torch.testing.assert_close(predicted(network, target_tokens=every), full, rtol=0, atol=1e-12)
    gathered = full.gather(1, TARGET.unsqueeze(-1).expand(-1, -1, 24))
    assert (predicted(network) - gathered).abs().max() > 1e-4  # a subset is another sequence, not a cut of the whole
    # without attention (depth 0) tokens are alone and the subset is the gather
    alone = predictor(depth=0)
    gathered = predicted(alone, target_tokens=None).gather(1, TARGET.unsqueeze(-1).expand(-1, -1, 24))
    torch.testing.assert_close(predicted(alone), gathered, rtol=0, atol=1e-12)


def test_all_context_tokens_by_default():
    network = predictor()
    context, every = normal(2, 16, 24), torch.arange(16).expand(2, -1)
    torch.testing.assert_close(
        predicted(network, context=context, context_tokens=None),
        predicted(network, context=context, context_tokens=every),
        rtol=0,
        atol=1e-12,
    )


@pytest.mark.parametrize("order", ["column_first", "row_first"])
def test_context_table_has_the_order_asked_for(order):
    network = WorldModelPredictor(**SIZES, context_order=order)
    assert torch.equal(network.predictor_pos_embed, sincos_table((4, 4), 16, order))
    assert not network.predictor_pos_embed.requires_grad
    # on another grid: the same order, the grid's own cells
    assert torch.equal(network.context_positions((3, 6)), sincos_table((3, 6), 16, order))
    assert network.context_positions((4, 4)) is network.predictor_pos_embed


def test_by_default_context_and_mask_tokens_share_one_table():
    network = WorldModelPredictor(**SIZES)
    shared = relative_table(torch.zeros(1, 4), (4, 4), 16)
    torch.testing.assert_close(network.predictor_pos_embed.data, shared, rtol=0, atol=1e-6)


@pytest.mark.parametrize("grid", [(3, 6), (8, 8), (1, 5)], ids=str)
def test_other_grids(grid):
    network, tokens = predictor(), grid[0] * grid[1]
    out = network(normal(2, tokens, 24), normal(2, 5, seed=2), rel=REL, grid=grid)
    assert out.shape == (2, tokens, 24)
    place = torch.full((2, 1), tokens - 1)
    one = network(normal(2, tokens, 24), normal(2, 5, seed=2), None, place, REL, grid)
    assert one.shape == (2, 1, 24) and one.isfinite().all()


def test_gradients_reach_every_trainable_parameter():
    for conditioning in CONDITIONINGS:
        network = predictor(conditioning=conditioning, flip_embedding=True)
        predicted(network)[..., 0].sum().backward()
        for name, parameter in network.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, (conditioning, name)


def test_an_unknown_conditioning_is_refused():
    with pytest.raises(ValueError, match=r"conditioning must be one of \('feat', .*got .?film"):
        WorldModelPredictor(**SIZES, conditioning="film")


@pytest.mark.parametrize(
    "overrides, message", [({"embed_dim": 18}, "multiple of 4"), ({"num_heads": 3}, "num_heads 3")]
)
def test_widths_that_do_not_fit_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        WorldModelPredictor(**{**SIZES, **overrides})


def test_an_action_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"An action has 5 numbers here, got \(2, 4\)"):
        predicted(predictor(), action=torch.zeros(2, 4))
    assert predicted(predictor(action_dim=4), action=normal(2, 4)).shape == (2, 3, 24)


def test_a_geometry_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"rel must be a floating \[B, 4\] tensor"):
        predicted(predictor(), rel=torch.zeros(2, 6))
