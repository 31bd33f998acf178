"""A world model that predicts what is computed from the pixels of patches, alone or beside the latents."""

from __future__ import annotations

import pytest
import torch

from cxw_monai.networks import RadiographViT, WorldModel, WorldModelInputs, WorldModelPredictor, WorldModelSettings
from cxw_monai.networks.world_model import normalised
from cxw_monai.transforms.hog import hog_descriptors
from tests.helpers.small_networks import random_inputs, world_model


class TestPixelTargets:
    def model(self, **settings):
        encoder = RadiographViT(image_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2)
        predictor = WorldModelPredictor(encoder.grid, 24, 24, 1, 2, out_dim=64, conditioning="none")
        return WorldModel(encoder, predictor, WorldModelSettings(("local",), targets="pixels", **settings))

    def test_targets_are_the_patches_with_mean_zero_and_variance_one(self):
        image = torch.rand(2, 1, 32, 32)
        tokens = self.model().target_tokens(image)  # [B, 16, 64]
        patch = image[1, 0, 8:16, 24:32].flatten()  # row 1, column 3
        expected = (patch - patch.mean()) / patch.std(correction=0)
        torch.testing.assert_close(tokens[1, 7], expected, atol=1e-3, rtol=1e-3)

    def test_a_masked_autoencoder_learns_and_leaves_its_target_encoder_out(self):
        torch.manual_seed(0)
        model = self.model()
        image = torch.nn.functional.interpolate(torch.rand(4, 1, 4, 4), (32, 32), mode="bilinear")
        order = torch.rand(4, 16).argsort(1)
        action, rel = torch.zeros(4, 5), torch.zeros(4, 4)
        inputs = WorldModelInputs(
            image, image, image, image, action, action, rel, rel, order[:, :8], order[:, :8], order[:, 8:], order[:, 8:]
        )
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
        losses = []
        for _ in range(150):
            output = model(inputs)
            optimizer.zero_grad()
            output.loss.backward()
            optimizer.step()
            losses.append(output.loss.item())
        assert set(output.losses) == {"intra"} and output.predictions["11"].shape == (4, 8, 64)
        assert losses[-1] < 0.6 * losses[0]
        assert all(p.grad is None for p in model.target_encoder.parameters())

    def test_both_puts_the_pixels_beside_the_latents(self):
        encoder = RadiographViT(image_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=2)
        predictor = WorldModelPredictor(encoder.grid, 24, 24, 1, 2, out_dim=88)
        image = torch.rand(1, 1, 32, 32)
        both = WorldModel(encoder, predictor, WorldModelSettings(targets="both"))
        latents = normalised(both.target_encoder(image))
        pixels = normalised(both.target_encoder.patches(image))
        torch.testing.assert_close(both.target_tokens(image), torch.cat([latents, pixels], -1))

    def test_a_predictor_of_another_width_is_refused(self):
        encoder = RadiographViT(image_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=2)
        predictor = WorldModelPredictor(encoder.grid, 24, 24, 1, 2)
        with pytest.raises(ValueError, match="64 channels"):
            WorldModel(encoder, predictor, WorldModelSettings(targets="pixels"))

    def test_an_unknown_target_is_refused(self):
        with pytest.raises(ValueError, match="targets must be 'latents' or"):
            WorldModelSettings(targets="sift")


def test_histograms_of_gradients_are_those_of_the_clean_view():
    model, inputs = world_model(objectives=("local", "domain"), targets="hog"), random_inputs()
    expected = hog_descriptors(inputs.view2, 8).gather(1, inputs.target2.unsqueeze(-1).expand(-1, -1, 36))
    torch.testing.assert_close(model(inputs).targets["22"], expected)  # [2, 5, 36]
