"""Regularisers against what they are by hand, and their place in the world model's loss."""

from __future__ import annotations

import math

import pytest
import torch

from cxw_monai.losses.regularisers import random_directions, regulariser, sigreg, variance_covariance
from cxw_monai.networks import RadiographViT, WorldModel, WorldModelInputs, WorldModelPredictor, WorldModelSettings
from cxw_monai.networks.world_model import normalised


def model(**settings) -> WorldModel:
    encoder = RadiographViT(image_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2)
    width = WorldModelSettings(**settings).target_channels(encoder)
    return WorldModel(
        encoder, WorldModelPredictor(encoder.grid, 24, 24, 1, 2, out_dim=width), WorldModelSettings(**settings)
    )


def inputs(batch: int = 3) -> WorldModelInputs:
    image, other = torch.rand(batch, 1, 32, 32), torch.rand(batch, 1, 32, 32)
    order = torch.rand(batch, 16).argsort(1)
    action, rel = torch.zeros(batch, 5), torch.zeros(batch, 4)
    context, target = order[:, :8], order[:, 8:]
    return WorldModelInputs(image, other, image, other, action, action, rel, rel, context, context, target, target)


class TestSigreg:
    def directions(self, channels: int, count: int = 400) -> torch.Tensor:
        found = torch.randn(channels, count, generator=torch.Generator().manual_seed(1))
        return found / found.norm(dim=0)

    @pytest.mark.parametrize("count", [100, 2000])
    def test_a_gaussian_sample_gives_its_expectation_whatever_its_size(self, count):
        sample = torch.randn(count, 32, generator=torch.Generator().manual_seed(0))
        expected = math.sqrt(math.pi) - math.sqrt(math.pi / 2)  # integral of (1 - exp(-t^2)) exp(-t^2) = 0.519
        assert sigreg(sample, self.directions(32)).item() == pytest.approx(expected, rel=0.15)

    def test_collapse_to_zero_grows_with_the_sample(self):
        # integral of (1 - exp(-t^2 / 2))^2 exp(-t^2) over the line = sqrt(pi) - 2 sqrt(pi / 1.5) + sqrt(pi / 2)
        expected = 50 * (math.sqrt(math.pi) - 2 * math.sqrt(math.pi / 1.5) + math.sqrt(math.pi / 2))
        assert sigreg(torch.zeros(50, 8), self.directions(8)).item() == pytest.approx(expected, rel=1e-2)

    def test_is_the_sum_over_both_sides_of_zero(self):
        sample = 2 * torch.randn(30, 6, generator=torch.Generator().manual_seed(0)) + 1
        projected = (sample @ self.directions(6, 20)).double().unsqueeze(-1)
        t = torch.linspace(-5, 5, 17, dtype=torch.float64)
        ecf = torch.exp(1j * projected * t).mean(dim=0)
        integrand = (ecf - torch.exp(-t.square() / 2)).abs().square() * torch.exp(-t.square())
        expected = 30 * torch.trapezoid(integrand, t).mean()
        assert sigreg(sample, self.directions(6, 20)).item() == pytest.approx(expected.item(), rel=1e-5)

    def test_another_scale_or_one_dimension_less_is_worse(self):
        sample = torch.randn(500, 16, generator=torch.Generator().manual_seed(0))
        flat = sample.clone()
        flat[:, 8:] = 0
        least = sigreg(sample, self.directions(16))
        assert sigreg(2 * sample, self.directions(16)) > 5 * least
        assert sigreg(flat, self.directions(16)) > 5 * least

    def test_minimising_it_makes_a_collapsed_sample_gaussian(self):
        sample = (0.01 * torch.randn(256, 4, generator=torch.Generator().manual_seed(0))).requires_grad_()
        optimizer = torch.optim.Adam([sample], lr=0.05)
        for _ in range(150):
            optimizer.zero_grad()
            sigreg(sample, self.directions(4, 64)).backward()
            optimizer.step()
        torch.testing.assert_close(torch.cov(sample.detach().T), torch.eye(4), atol=0.25, rtol=0)

    def test_directions_are_unit_and_follow_the_seed(self):
        torch.manual_seed(3)
        first = random_directions(16, 5, torch.zeros(1))
        torch.manual_seed(3)
        assert torch.equal(first, random_directions(16, 5, torch.zeros(1)))
        torch.testing.assert_close(first.norm(dim=0), torch.ones(5))


class TestVarianceCovariance:
    def test_hand_value(self):
        x = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])  # variance 2 in each channel, covariance 2
        assert variance_covariance(x).item() == pytest.approx(2 * 2.0**2 / 2)

    def test_a_constant_costs_the_hinge_alone(self):
        assert variance_covariance(torch.ones(6, 3)).item() == pytest.approx(1 - math.sqrt(1e-4))

    def test_is_the_mean_over_tokens_and_over_pooled_tokens(self):
        tokens = torch.randn(5, 3, 4)
        expected = (variance_covariance(tokens.reshape(15, 4)) + variance_covariance(tokens.mean(1))) / 2
        torch.testing.assert_close(regulariser("variance_covariance", tokens), expected)


class TestInTheWorldModel:
    @pytest.mark.parametrize("unified", [True, False])
    @pytest.mark.parametrize("name", ["sigreg", "variance_covariance"])
    def test_the_loss_is_weighted_and_reaches_the_encoder(self, name, unified):
        world, batch = model(regulariser=name, regulariser_weight=1.0, unified=unified), inputs()
        output = world(batch)
        torch.testing.assert_close(output.loss, output.losses["regulariser"])
        output.loss.backward()
        assert world.encoder.blocks[0].attn.qkv.weight.grad.abs().sum() > 0
        assert all(p.grad is None for p in world.target_encoder.parameters())

    def test_none_is_the_default_and_leaves_the_loss(self):
        assert WorldModelSettings().regulariser == "none"
        output = model()(inputs())
        torch.testing.assert_close(output.loss, (output.losses["intra"] + output.losses["cross"]) / 2)

    def test_unknown_values_are_refused(self):
        refused = {"regulariser": "barlow", "regulariser_weight": 2.0, "target": "none", "pixel_weight": 1.0}
        for name, value in refused.items():
            with pytest.raises(ValueError, match=name.split("_")[0]):
                WorldModelSettings(**{name: value})


class TestOnlineTarget:
    def test_targets_are_the_encoders_and_carry_gradients(self):
        world = model(target="online")
        with torch.no_grad():
            world.encoder.norm.bias.add_(torch.linspace(-1, 1, 24))  # no longer what the target encoder is
        image = torch.rand(2, 1, 32, 32)
        tokens = world.target_tokens(image)
        torch.testing.assert_close(tokens, normalised(world.encoder(image)))
        assert tokens.requires_grad and not model().target_tokens(image).requires_grad

    def test_the_target_encoder_is_the_encoders_copy_whatever_the_momentum(self):
        world = model(target="online")
        with torch.no_grad():
            world.encoder.norm.bias.add_(1.0)
        world.update_target(0.999)
        torch.testing.assert_close(world.target_encoder.norm.bias, world.encoder.norm.bias)


class TestPixelWeight:
    def test_hand_value(self):
        world = model(targets="both", pixel_weight=3.0)
        prediction, target = torch.zeros(1, 2, 88), torch.zeros(1, 2, 88)
        target[..., :24], target[..., 24:] = 2.0, 1.0  # latents cost 4, pixels 1
        assert world.loss.term(prediction, target).item() == pytest.approx((4 + 3 * 1) / 4)

    def test_without_it_all_channels_count_alike(self):
        world = model(targets="both")
        prediction, target = torch.zeros(1, 2, 88), torch.zeros(1, 2, 88)
        target[..., :24], target[..., 24:] = 2.0, 1.0
        assert world.loss.term(prediction, target).item() == pytest.approx((24 * 4 + 64 * 1) / 88)

    def test_grey_targets_are_what_the_encoder_sees(self):
        image = torch.rand(2, 1, 32, 32)
        tokens = model(targets="pixels", objectives=("local",), normalise_pixels=False).target_tokens(image)
        expected = (image[1, 0, 8:16, 24:32].flatten() - 0.5056) / 0.252  # row 1, column 3
        torch.testing.assert_close(tokens[1, 7], expected, atol=1e-5, rtol=1e-5)
