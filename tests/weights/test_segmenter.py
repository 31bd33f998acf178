"""Segmenters in files, and encoders of a pretraining run in segmenters."""

import pytest
import torch

from cxw_monai.networks import RadiographEmbedder, WorldModel, WorldModelPredictor, radiograph_vit
from cxw_monai.weights.files import CheckpointError
from cxw_monai.weights.kinds import read_weights
from cxw_monai.weights.segmenter import (
    continued_segmenter,
    continued_settings,
    load_segmenter,
    new_segmenter,
    read_settings,
    save_segmenter,
    segmenter_settings,
)

SIZES = {"structures": ["lungs", "heart"], "image_size": [64, 96], "base_channels": 4}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """`model.pt` and `encoder.pt` as a pretraining run at 64 px leaves them; its two encoders differ."""
    folder = tmp_path_factory.mktemp("pretraining")
    torch.manual_seed(0)
    encoder = radiograph_vit("tiny", image_size=64, image_mean=0.4, image_std=0.3)
    model = WorldModel(encoder, WorldModelPredictor(encoder.grid, 192, 24, depth=1, num_heads=3))
    with torch.no_grad():
        for value in model.target_encoder.parameters():
            value.add_(torch.randn_like(value) * 0.01 if value.requires_grad or value.ndim != 3 else 0)
    torch.save(model.state_dict(), folder / "model.pt")
    torch.save(RadiographEmbedder(model.target_encoder).state_dict(), folder / "encoder.pt")
    return folder, model


def test_a_file_alone_rebuilds_the_network(tmp_path):
    torch.manual_seed(0)
    settings = segmenter_settings(**SIZES, size="tiny", patch_size=8)
    network = new_segmenter(settings, drop_path=0.3).eval()
    save_segmenter(network, settings, tmp_path / "model.pt")
    loaded = load_segmenter(tmp_path / "model.pt")
    image = torch.rand(2, 1, 64, 96)
    with torch.no_grad():
        assert torch.equal(loaded(image), network(image))
    assert loaded.structures == ("lungs", "heart") and not loaded.training
    assert read_settings(tmp_path / "model.pt") == settings
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    assert set(content) == {"model", "settings"} and content["settings"]["image_size"] == [64, 96]


@pytest.mark.parametrize(
    ("file", "weights", "part"),
    [
        ("model.pt", "target", "target_encoder"),
        ("model.pt", "context", "encoder"),
        ("encoder.pt", "target", "target_encoder"),
        ("", "target", "target_encoder"),
    ],
)
def test_the_asked_encoder_is_taken(pretrained, file, weights, part):
    folder, model = pretrained
    settings = segmenter_settings(**SIZES, encoder_ckpt=folder / file, encoder_weights=weights)
    assert settings.size == "tiny" and settings.encoder_image_size == (64, 64)
    network = new_segmenter(settings, folder / file, weights)
    wanted = getattr(model, part).state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in network.encoder.state_dict().items())
    assert network.encoder.image_mean.item() == pytest.approx(0.4)  # the normalisation comes with the weights


def test_the_two_encoders_of_a_run_differ(pretrained):
    target, context = (read_weights(pretrained[0] / "model.pt").encoder(kind) for kind in ("target", "context"))
    assert not torch.equal(target["blocks.0.attn.qkv.weight"], context["blocks.0.attn.qkv.weight"])


def test_smaller_patches_keep_what_the_encoder_knows(pretrained, tmp_path):
    """At patch 8 a film whose pixels are doubled gives the stem what the film itself gave at patch 16."""
    folder, model = pretrained
    settings = segmenter_settings(["lungs"], 64, patch_size=8, base_channels=4, encoder_ckpt=folder)
    network = new_segmenter(settings, folder).eval()
    assert network.encoder.grid == (8, 8) and network.encoder.position_grid == (4, 4)
    film = torch.rand(1, 1, 8, 8)
    wide = film.repeat_interleave(2, 2).repeat_interleave(2, 3)  # 16 x 16: one old patch
    old, new = model.target_encoder, network.encoder
    stem = [torch.nn.functional.conv2d(encoder.normalise(x), encoder.patch_embed.proj.weight, stride=p)
            for encoder, x, p in ((old, wide, 16), (new, film, 8))]  # fmt: skip
    torch.testing.assert_close(stem[0], stem[1], atol=1e-4, rtol=1e-3)
    save_segmenter(network, settings, tmp_path / "model.pt")
    image = torch.rand(1, 1, 96, 64)  # another grid follows the pretraining's positions
    with torch.no_grad():
        assert torch.equal(load_segmenter(tmp_path / "model.pt")(image), network(image))


@pytest.mark.parametrize(
    ("freeze", "first", "last"), [("none", True, True), (3, False, True), ("encoder", False, False)]
)
def test_freezing(freeze, first, last):
    network = new_segmenter(segmenter_settings(**SIZES, size="tiny"), freeze=freeze)
    assert network.encoder.blocks[2].attn.qkv.weight.requires_grad == first
    assert network.encoder.blocks[11].attn.qkv.weight.requires_grad == last
    assert network.decoder.head.weight.requires_grad


def test_wrong_settings_say_what_is_wrong(pretrained, tmp_path):
    folder, _ = pretrained
    for settings, said in (
        ({"size": "enormous"}, "network_size must be one of tiny"),
        ({"image_size": 100}, "multiple of patch_size 16"),
        ({"structures": []}, "structures must be a list"),
        ({"structures": "lungs"}, "structures must be a list"),
        (
            {"size": "small", "encoder_ckpt": folder / "model.pt"},
            "an encoder of size 'tiny', not 'small'; set network_size",
        ),
        ({"encoder_ckpt": folder / "encoder.pt", "encoder_weights": "context"}, "holds one encoder"),
        ({"encoder_ckpt": folder, "encoder_weights": "both"}, "encoder_weights must be"),
        ({"encoder_ckpt": tmp_path / "nothing.pt"}, "no such file"),
        ({"encoder_ckpt": tmp_path}, "a folder without model.pt"),
    ):
        with pytest.raises(ValueError, match=said):
            segmenter_settings(**{**SIZES, **settings})
    with pytest.raises(ValueError, match="freeze must be"):
        new_segmenter(segmenter_settings(**SIZES, size="tiny"), freeze="decoder")


def test_files_that_are_no_segmenter_are_refused(pretrained, tmp_path):
    with pytest.raises(CheckpointError, match="model.pt: not a segmentation model"):
        load_segmenter(pretrained[0] / "model.pt")
    settings = segmenter_settings(**SIZES, size="tiny")
    network = new_segmenter(settings)
    del network.decoder.head
    save_segmenter(network, settings, tmp_path / "broken.pt")
    with pytest.raises(CheckpointError, match=r"broken.pt: of another geometry .missing: decoder.head"):
        load_segmenter(tmp_path / "broken.pt")
    torch.save({"weights": torch.rand(3)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="holds no encoder"):
        segmenter_settings(**SIZES, encoder_ckpt=tmp_path / "other.pt")


def test_a_bundle_that_is_not_beside_is_found_by_its_name_and_a_file_is_not(tmp_path):
    settings = segmenter_settings(**SIZES, encoder_ckpt=tmp_path / "alone" / ".." / "chexworld_pretraining")
    assert settings.size == "tiny" and settings.encoder_image_size == (160, 160)
    for missing in ("chexworld_pretraining.pt", "chexworld_other"):
        with pytest.raises(
            CheckpointError, match="no such file; fetch that bundle, give encoder_ckpt a file, or 'none'"
        ):
            segmenter_settings(**SIZES, encoder_ckpt=tmp_path / missing)


@pytest.mark.parametrize("decoder", ["unet", "hybrid", "upernet", "linear"])
def test_going_on_keeps_the_structures_that_are_known(decoder, tmp_path):
    settings = segmenter_settings(["heart", "lung_left"], 32, "tiny", 16, decoder, 4)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        trained = new_segmenter(settings).eval()
    save_segmenter(trained, settings, tmp_path / "model.pt")
    again = continued_settings(tmp_path / "model.pt", ["lung_left", "rib", "heart"], 64)
    network = continued_segmenter(again, tmp_path / "model.pt").eval()
    assert (again.decoder, again.image_size, network.structures) == (decoder, (64, 64), ("lung_left", "rib", "heart"))
    image = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        ours, theirs = network(image), trained(image)
    torch.testing.assert_close(ours[:, [2, 0]], theirs, rtol=0, atol=1e-6)
    assert not torch.allclose(ours[:, 1], theirs[:, 0], atol=1e-3)


def test_going_on_from_an_encoder_alone_is_refused(pretrained):
    with pytest.raises(CheckpointError, match="not a segmentation model"):
        continued_settings(pretrained[0] / "encoder.pt", ["heart"], 32)
