"""Small crops beside a pair of views."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms import Compose

from cxw_monai.tasks.pretraining.step import world_view_inputs
from cxw_monai.transforms import (
    ActionSampler,
    RandActiond,
    RandLocalCropsd,
    RandWorldViewPaird,
    TokenMaskSampler,
    crop_views,
    perturb,
)
from cxw_monai.transforms.geometry import CropBox

FILM = np.random.default_rng(0).integers(0, 256, (1, 60, 48), dtype=np.uint8)


def crops(seed: int = 0, **settings) -> dict:
    return RandLocalCropsd("image", size=(16, 16), **settings).set_random_state(seed)({"image": FILM})


def test_shapes_range_and_the_film_stays():
    found = crops(count=6)
    assert found["local_crops"].shape == (6, 1, 16, 16) and found["local_actions"].shape == (6, 5)
    assert found["local_crops"].min() >= 0 and found["local_crops"].max() <= 1
    assert found["image"] is FILM


def test_a_seed_gives_the_same_crops_again_and_another_others():
    first, again, other = crops(1), crops(1), crops(2)
    assert torch.equal(first["local_crops"], again["local_crops"])
    assert torch.equal(first["local_actions"], again["local_actions"])
    assert not torch.equal(first["local_crops"], other["local_crops"])


def test_a_crop_of_everything_is_the_film():
    square = FILM[:, :48]
    found = RandLocalCropsd("image", 2, (16, 16), scale=(1, 1), ratio=(1, 1)).set_random_state(0)({"image": square})
    whole = CropBox(0, 0, 48, 48)
    expected = torch.stack(crop_views(square, (whole, whole), (16, 16)))
    assert torch.equal(found["local_crops"], expected)


def test_the_step_perturbs_each_crop_by_its_own_action():
    sampler = ActionSampler(noise_prob=0.0)
    parts = [RandLocalCropsd("image", 2, (16, 16), sampler=sampler), RandWorldViewPaird("image", (32, 32))]
    prepare = Compose([*parts, RandActiond(sampler=sampler)]).set_random_state(0)
    samples = [prepare({"image": FILM}) for _ in range(3)]
    batch = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
    inputs = world_view_inputs(batch, TokenMaskSampler((4, 4), min_keep=2), torch.device("cpu"))
    for film in range(3):
        expected = perturb(batch["local_crops"][film], batch["local_actions"][film])
        assert torch.equal(inputs.local_crops[film], expected)


@pytest.mark.parametrize("settings", [{"count": 3}, {"count": 0}, {"scale": (0.0, 0.5)}, {"scale": (0.5, 0.1)}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValueError, match="count|scale"):
        RandLocalCropsd("image", **settings)
