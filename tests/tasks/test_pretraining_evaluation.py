"""Held-out losses and baselines, on a world model small enough to check by hand."""

import json
from types import SimpleNamespace

import pytest
import torch

from cxw_monai.networks import RadiographViT, WorldModel, WorldModelOutput, WorldModelPredictor, WorldModelSettings
from cxw_monai.tasks.pretraining.evaluation import EvaluationStep, comparison_lines, mean_token_losses, write_evaluation
from cxw_monai.transforms import TokenMaskSampler

GRID = (6, 6)


def model_of(**settings):
    torch.manual_seed(0)
    encoder = RadiographViT(image_size=48, patch_size=8, embed_dim=16, depth=1, num_heads=2)
    predictor = WorldModelPredictor(GRID, 16, 16, depth=1, num_heads=2)
    for parameter in predictor.parameters():  # weights large enough for conditions to show
        if parameter.requires_grad and parameter.ndim > 1:
            parameter.data.mul_(10)
    return WorldModel(encoder, predictor, WorldModelSettings(**settings))


def batch_of(count=5):
    generator = torch.Generator().manual_seed(1)
    batch = {name: torch.rand(count, 1, 48, 48, generator=generator) for name in ("view1", "view2")}
    for name in ("action1", "action2"):
        batch[name] = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0]) + torch.rand(count, 5, generator=generator) * 0.3
        batch[name][:, 3:] = 0
    for name in ("rel_12", "rel_21"):
        batch[name] = torch.rand(count, 4, generator=generator) - 0.5
        batch[name][:, 2] = 0
    return batch


def scalars_of(model, batch, iteration=1, step=None):
    step = step or EvaluationStep(TokenMaskSampler(grid=GRID, min_keep=4, seed=2), amp="none")
    state = SimpleNamespace(iteration=iteration, device=torch.device("cpu"))
    return step(SimpleNamespace(network=model, state=state), batch)[0]["scalars"]


def test_a_world_of_one_token_is_predicted_perfectly_by_its_mean():
    model = model_of(cross_targets="all")
    model.target_tokens = lambda image: torch.arange(16.0).expand(len(image), 36, 16)
    scalars = scalars_of(model, batch_of())
    assert scalars["mean_token_intra"] == pytest.approx(0.0, abs=1e-9)
    assert scalars["mean_token_cross"] == pytest.approx(0.0, abs=1e-9)
    assert scalars["target_cosine"] == pytest.approx(1.0)
    assert scalars["loss_intra"] > 1


def test_the_mean_of_each_place_explains_targets_that_are_only_places():
    model = model_of(cross_targets="all")
    places = torch.randn(36, 16, generator=torch.Generator().manual_seed(3))
    model.target_tokens = lambda image: places.expand(len(image), 36, 16)
    scalars = scalars_of(model, batch_of())
    assert scalars["mean_position_cross"] == pytest.approx(0.0, abs=1e-9)
    assert scalars["mean_token_cross"] == pytest.approx(places.var(dim=0, correction=0).mean().item(), rel=1e-5)
    assert "mean_position_intra" not in scalars  # masked places differ from film to film


def test_baselines_are_measured_as_the_models_own_loss():
    """Latents of variance 1 and pixels of variance 9 around their mean, with the weight and measure of the settings."""
    world = model_of(cross_targets="all")
    sign = torch.tensor([1.0, -1.0]).repeat(18).view(36, 1)  # of each place's token
    for settings, expected in (
        ({"targets": "both", "pixel_weight": 3.0}, (1 + 3 * 9) / 4),
        ({"targets": "both"}, (16 * 1 + 64 * 9) / 80),
        ({"targets": "both", "pixel_weight": 3.0, "loss": "smooth_l1"}, (0.5 + 3 * 2.5) / 4),
    ):
        world.settings = WorldModelSettings(**settings)
        target = torch.cat([sign.expand(36, 16), 3 * sign.expand(36, 64)], dim=1).expand(2, 36, 80)
        output = WorldModelOutput(torch.zeros(()), {}, {}, {"21": target, "12": target})
        losses = mean_token_losses(world, output, SimpleNamespace(target1=None))
        assert losses["mean_token_cross"] == pytest.approx(expected)
        assert losses["mean_position_cross"] == pytest.approx(0.0)


def test_withheld_conditions_change_only_the_terms_that_are_told_them():
    scalars = scalars_of(model_of(), batch_of())
    for name in ("action_withheld", "action_shuffled"):
        assert scalars[f"{name}_intra"] != scalars["loss_intra"]
        assert scalars[f"{name}_cross"] != scalars["loss_cross"]
    for name in ("geometry_withheld", "geometry_shuffled"):
        assert scalars[f"{name}_cross"] != scalars["loss_cross"]
        assert f"{name}_intra" not in scalars


@pytest.mark.parametrize(
    ("settings", "absent"),
    [
        ({"condition_on_action": False}, "action_"),
        ({"objectives": ("local", "global")}, "action_"),
        ({"condition_on_geometry": False}, "geometry_"),
        ({"objectives": ("local", "domain")}, "geometry_"),
    ],
)
def test_what_the_model_is_not_told_is_not_withheld(settings, absent):
    scalars = scalars_of(model_of(**settings), batch_of())
    assert not any(name.startswith(absent) for name in scalars)


def test_every_evaluation_uses_the_same_masks():
    model, batch = model_of(), batch_of()
    step = EvaluationStep(TokenMaskSampler(grid=GRID, min_keep=4, seed=2), amp="none")
    first = scalars_of(model, batch, step=step)
    second = scalars_of(model, batch, iteration=2, step=step)
    again = scalars_of(model, batch, step=step)
    assert first == again
    assert first["loss_intra"] != second["loss_intra"]


def test_lines_say_what_is_beaten(tmp_path):
    metrics = {
        "loss": 0.3,
        "loss_cross": 0.4,
        "mean_token_cross": 0.9,
        "geometry_withheld_cross": 0.2,
        "target_std": 1.0,
    }
    assert comparison_lines(metrics) == [
        "loss_cross 0.4000 | explained 55.6% | geometry_withheld 0.2000 NOT beaten | mean_token 0.9000 beaten"
    ]
    write_evaluation(SimpleNamespace(state=SimpleNamespace(metrics=metrics)), tmp_path / "new" / "evaluation.json")
    assert json.loads((tmp_path / "new" / "evaluation.json").read_text()) == metrics
