"""World model: the four terms, target encoder, losses, settings, official names."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from cxw_monai.networks import (
    RadiographViT,
    WorldModel,
    WorldModelInputs,
    WorldModelOutput,
    WorldModelPredictor,
    WorldModelSettings,
    normalised,
    radiograph_vit,
)
from tests.helpers.small_networks import random_inputs, world_model

IDENTITY = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0])


# --- the terms of the unified loss


def test_on_identical_views_all_four_terms_coincide():
    model = world_model(cross_targets="masked")
    inputs = random_inputs()
    same = {"view2": inputs.view1, "perturbed1": inputs.view1, "perturbed2": inputs.view1}
    same |= {"action1": IDENTITY.expand(2, -1), "action2": IDENTITY.expand(2, -1)}
    same |= {"rel_12": torch.zeros(2, 4), "rel_21": torch.zeros(2, 4)}
    same |= {"context2": inputs.context1, "target2": inputs.target1}
    output = model(inputs.replace(**same))
    terms = {
        name: F.mse_loss(output.predictions[name], output.targets[name]).item() for name in ("11", "22", "21", "12")
    }
    assert len(terms) == len(output.predictions) == len(output.targets)
    assert list(terms.values()) == pytest.approx([terms["11"]] * 4, rel=1e-5)
    assert output.losses["intra"].item() == pytest.approx(output.losses["cross"].item(), rel=1e-5)
    assert output.loss.item() == pytest.approx(terms["11"], rel=1e-5)


@pytest.mark.parametrize("cross_targets", ["all", "masked"])
def test_unified_terms_by_hand(cross_targets):
    model = world_model(cross_targets=cross_targets, cross_weight=0.5).double().eval()
    x = random_inputs().to("cpu", torch.float64)
    output = model(x)
    z1, z2 = model.encoder(x.perturbed1, x.context1), model.encoder(x.perturbed2, x.context2)
    h1, h2 = normalised(model.target_encoder(x.view1)), normalised(model.target_encoder(x.view2))

    def cut(tokens, index):
        return tokens if index is None else torch.stack([t[i] for t, i in zip(tokens, index, strict=True)])

    other1, other2 = (None, None) if cross_targets == "all" else (x.target1, x.target2)
    expected = {
        "11": (model.predictor(z1, x.action1, x.context1, x.target1), cut(h1, x.target1)),
        "22": (model.predictor(z2, x.action2, x.context2, x.target2), cut(h2, x.target2)),
        "21": (model.predictor(z1, x.action1, x.context1, other2, x.rel_21), cut(h2, other2)),
        "12": (model.predictor(z2, x.action2, x.context2, other1, x.rel_12), cut(h1, other1)),
    }
    loss = {}
    for name, (prediction, target) in expected.items():
        torch.testing.assert_close(output.predictions[name], prediction, rtol=0, atol=1e-10)
        torch.testing.assert_close(output.targets[name], target, rtol=0, atol=1e-10)
        loss[name] = (prediction - target).square().mean().item()
    intra, cross = (loss["11"] + loss["22"]) / 2, (loss["21"] + loss["12"]) / 2
    assert output.losses["intra"].item() == pytest.approx(intra, rel=1e-10)
    assert output.losses["cross"].item() == pytest.approx(cross, rel=1e-10)
    assert output.loss.item() == pytest.approx((intra + 0.5 * cross) / 1.5, rel=1e-10)


def test_targets_of_all_or_masked_tokens_of_the_other_view():
    inputs = random_inputs()
    everything, masked = world_model()(inputs), world_model(cross_targets="masked")(inputs)
    assert everything.predictions["21"].shape == everything.targets["12"].shape == (2, 16, 24)
    assert masked.predictions["21"].shape == masked.targets["12"].shape == (2, 5, 24)
    assert everything.predictions["11"].shape == masked.predictions["11"].shape == (2, 5, 24)


@pytest.mark.parametrize("weight, average, expected", [(1.0, True, "mean"), (1.0, False, "sum"), (0.0, True, "intra")])
def test_weights_of_the_terms(weight, average, expected):
    output = world_model(cross_weight=weight, average_terms=average)(random_inputs())
    intra, cross = output.losses["intra"].item(), output.losses["cross"].item()
    value = {"mean": (intra + cross) / 2, "sum": intra + cross, "intra": intra}[expected]
    assert output.loss.item() == pytest.approx(value, rel=1e-6)


def test_target_is_layer_normed_without_affine():
    tokens = torch.tensor([[[1.0, 2.0, 3.0, 6.0]]])  # mean 3, variance 3.5
    expected = [(v - 3) / math.sqrt(3.5 + 1e-5) for v in (1, 2, 3, 6)]
    assert normalised(tokens)[0, 0].tolist() == pytest.approx(expected, abs=1e-6)


def test_target_of_several_layers_is_the_mean_of_their_norms():
    model, image = world_model(depth=3, target_layers=2), random_inputs().view1
    middle, last = model.target_encoder.intermediate_layers(image, [1, 2])
    expected = (F.layer_norm(middle, (24,)) + F.layer_norm(last, (24,))) / 2
    torch.testing.assert_close(model.target_tokens(image), expected, rtol=0, atol=1e-6)
    one = world_model(depth=3)
    torch.testing.assert_close(one.target_tokens(image), F.layer_norm(last, (24,)), rtol=0, atol=1e-6)


def test_swapped_roles_exchange_clean_and_perturbed_views():
    x = random_inputs()
    exchanged = x.replace(view1=x.perturbed1, view2=x.perturbed2, perturbed1=x.view1, perturbed2=x.view2)
    plain, swapped = world_model(), world_model(swap_roles=True)
    assert swapped(x).loss.item() == pytest.approx(plain(exchanged).loss.item(), rel=1e-6)
    assert abs(swapped(x).loss.item() - plain(x).loss.item()) > 1e-4


def test_smooth_l1_by_hand():
    output = world_model(loss="smooth_l1", objectives=("local",))(random_inputs())
    halves = []
    for name in ("11", "22"):
        size = (output.predictions[name] - output.targets[name]).abs()
        halves.append(torch.where(size < 1, 0.5 * size**2, size - 0.5).mean().item())
        assert (size > 1).any() and (size < 1).any()
    assert output.loss.item() == pytest.approx(sum(halves) / 2, rel=1e-5)


def test_standard_deviation_of_predictions_by_hand():
    # two tokens, two channels: variances (unbiased) 2 and 8
    p = torch.tensor([[[0.0, 0.0], [2.0, 4.0]]])
    output = WorldModelOutput(torch.tensor(0.0), {}, {"11": p, "22": torch.zeros(1, 2, 2)})
    first = (math.sqrt(2 + 1e-4) + math.sqrt(8 + 1e-4)) / 2
    assert output.prediction_std().item() == pytest.approx((first + math.sqrt(1e-4)) / 2, rel=1e-6)


def test_variance_term_pulls_the_spread_up_to_one():
    x = random_inputs()
    model = world_model(variance_weight=3.0)
    with torch.no_grad():
        model.predictor.predictor_proj.weight.mul_(0.05)
    output = model(x)
    hinge = 1 - output.prediction_std().item()
    assert 0 < hinge < 1
    assert output.losses["variance"].item() == pytest.approx(hinge, rel=1e-5)
    plain = (output.losses["intra"] + output.losses["cross"]).item() / 2
    assert output.loss.item() == pytest.approx(plain + 3 * hinge, rel=1e-5)
    with torch.no_grad():
        model.predictor.predictor_proj.weight.mul_(1000)
    assert model(x).losses["variance"].item() == 0.0


# --- the target encoder


def test_target_is_a_copy_that_stays_in_evaluation_mode():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = RadiographViT(image_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, drop_path_rate=0.5)
    model = WorldModel(encoder, WorldModelPredictor((4, 4), 24, 16, 1, 2))
    assert all(torch.equal(p, q) for p, q in zip(encoder.parameters(), model.target_encoder.parameters(), strict=True))
    assert all(p is not q for p, q in zip(encoder.parameters(), model.target_encoder.parameters(), strict=True))
    for mode in (True, False):
        assert model.train(mode) is model
        assert model.encoder.training == model.predictor.training == mode
        assert not any(module.training for module in model.target_encoder.modules())
    image = random_inputs().view1
    model.train()
    assert torch.equal(model.target_tokens(image), model.target_tokens(image))


@pytest.mark.parametrize("momentum", [0.0, 0.25, 0.996, 1.0])
def test_update_of_the_target_by_hand(momentum):
    model = world_model()
    before = {name: p.clone() for name, p in model.target_encoder.named_parameters()}
    source = {name: p.clone() for name, p in model.encoder.named_parameters()}
    model.update_target(momentum)
    for name, parameter in model.target_encoder.named_parameters():
        expected = momentum * before[name] + (1 - momentum) * source[name]
        torch.testing.assert_close(parameter.data, expected.data, rtol=1e-6, atol=1e-7)
        if momentum == 1.0:
            assert torch.equal(parameter, before[name])
        if momentum == 0.0:
            assert torch.equal(parameter, source[name])
    assert all(torch.equal(p, source[name]) for name, p in model.encoder.named_parameters())


def test_update_of_the_target_covers_the_frozen_table():
    model = world_model()
    with torch.no_grad():
        model.encoder.pos_embed.add_(1.0)
    model.update_target(0.75)
    torch.testing.assert_close(model.target_encoder.pos_embed, model.encoder.pos_embed - 0.75, rtol=0, atol=1e-6)


@pytest.mark.parametrize("momentum", [-0.1, 1.1, float("nan")])
def test_momentum_outside_of_its_range_is_refused(momentum):
    with pytest.raises(ValueError, match=r"momentum must lie in \[0, 1\]"):
        world_model().update_target(momentum)


# --- settings, names and sizes


def test_parity_settings():
    parity = WorldModelSettings.parity(cross_weight=0.5)
    assert (parity.cross_targets, parity.cross_weight, parity.unified) == ("masked", 0.5, True)
    assert WorldModelSettings().cross_targets == "all"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"objectives": ()}, "non-empty subset"),
        ({"objectives": ("local", "gloabl")}, "subset of .*'global'.*gloabl"),
        ({"objectives": "local"}, "subset of"),
        ({"cross_targets": "some"}, "'all' or 'masked', got 'some'"),
        ({"loss": "unigrad"}, "'l2' or 'smooth_l1', got 'unigrad'"),
        ({"target_layers": 0}, "target_layers must be at least 1, got 0"),
        ({"cross_weight": -1.0}, "cross_weight must be positive.*got -1"),
        ({"cross_weight": 0.0, "objectives": ("global",)}, "cross_weight must be positive.*got 0"),
    ],
    ids=str,
)
def test_settings_that_mean_nothing_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        WorldModelSettings(**arguments)


@pytest.mark.parametrize("grid, dim", [((4, 5), 24), ((4, 4), 32)])
def test_a_predictor_that_does_not_fit_is_refused(grid, dim):
    encoder = RadiographViT(image_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=3)
    with pytest.raises(ValueError, match=r"does not fit the encoder \(grid \(4, 4\), embed_dim 24\)"):
        WorldModel(encoder, WorldModelPredictor(grid, dim, 16, 1, 2))


def test_inputs_move_to_another_dtype():
    moved = random_inputs().replace(target1=None).to("cpu", torch.float64)
    assert moved.view1.dtype == moved.rel_12.dtype == torch.float64
    assert moved.context1.dtype == torch.int64 and moved.target1 is None


def official_names() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the released ViT-B checkpoint, after its description."""

    def block(prefix: str, dim: int) -> dict[str, tuple[int, ...]]:
        matrices = {
            "attn.qkv": (3 * dim, dim),
            "attn.proj": (dim, dim),
            "mlp.fc1": (4 * dim, dim),
            "mlp.fc2": (dim, 4 * dim),
        }
        named = {f"{prefix}.{norm}.{part}": (dim,) for norm in ("norm1", "norm2") for part in ("weight", "bias")}
        for name, shape in matrices.items():
            named |= {f"{prefix}.{name}.weight": shape, f"{prefix}.{name}.bias": shape[:1]}
        return named

    shapes: dict[str, tuple[int, ...]] = {}
    for part in ("encoder", "target_encoder"):
        shapes |= {f"{part}.pos_embed": (1, 196, 768), f"{part}.patch_embed.proj.weight": (768, 3, 16, 16)}
        shapes |= {f"{part}.{name}": (768,) for name in ("patch_embed.proj.bias", "norm.weight", "norm.bias")}
        for number in range(12):
            shapes |= block(f"{part}.blocks.{number}", 768)
    shapes |= {"mask_token": (1, 1, 384), "predictor_pos_embed": (1, 196, 384), "predictor_embed.weight": (384, 768)}
    shapes |= {f"predictor_{name}": (384,) for name in ("embed.bias", "norm.weight", "norm.bias")}
    shapes |= {"predictor_proj.weight": (768, 384), "predictor_proj.bias": (768,), "policy_net.0.weight": (384, 389)}
    shapes |= {f"policy_net.{n}.weight": (384, 384) for n in (2, 4)} | {
        f"policy_net.{n}.bias": (384,) for n in (0, 2, 4)
    }
    for number in range(6):
        shapes |= block(f"predictor_blocks.{number}", 384)
    return {n if n.startswith(("encoder.", "target_")) else f"predictor.{n}": shape for n, shape in shapes.items()}


def test_names_and_shapes_of_the_released_checkpoint():
    with torch.device("meta"):
        model = WorldModel(radiograph_vit("base", in_channels=3), WorldModelPredictor((14, 14)))
    buffers = {f"{part}.{name}" for part in ("encoder", "target_encoder") for name in ("image_mean", "image_std")}
    state = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert buffers <= set(state)
    ours = {name: shape for name, shape in state.items() if name not in buffers}
    assert ours == official_names()
    assert len(ours) == 384
    assert sum(math.prod(shape) for shape in ours.values()) == 183_353_856


def test_shapes_of_the_released_recipe_on_a_narrow_stand_in():
    # B = 2, 54 context and 57 target tokens of a 14 x 14 grid
    encoder = RadiographViT(image_size=224, in_channels=3, embed_dim=24, depth=1, num_heads=3)
    model = WorldModel(encoder, WorldModelPredictor((14, 14), 24, 12, 1, 3), WorldModelSettings.parity())
    image = torch.rand((2, 3, 224, 224), generator=torch.Generator().manual_seed(0))
    order = torch.stack([torch.randperm(196, generator=torch.Generator().manual_seed(n)) for n in (0, 1)])
    context, target = order[:, :54], order[:, 54 : 54 + 57]
    assert model.encoder(image, context).shape == (2, 54, 24)
    zero, action = torch.zeros(2, 4), IDENTITY.expand(2, -1)
    inputs = WorldModelInputs(*[image] * 4, action, action, zero, zero, context, context, target, target)
    output = model(inputs)
    assert {name: tuple(p.shape) for name, p in output.predictions.items()} == dict.fromkeys(
        ("11", "22", "21", "12"), (2, 57, 24)
    )
