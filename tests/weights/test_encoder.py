"""Checkpoints: import of official files, one-channel fold, loading by name."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from safetensors import safe_open

from cxw_monai.networks import RadiographEmbedder, RadiographViT, WorldModel
from cxw_monai.weights.encoder import load_weights, save_weights
from cxw_monai.weights.files import read_content
from cxw_monai.weights.kinds import read_weights
from cxw_monai.weights.official import (
    WorldModelGeometry,
    build_world_model,
    fold_to_one_channel,
    geometry_of,
    import_official,
)
from tests.helpers.official_files import GEOMETRY, network, official_file, official_state

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# --- import of official files


@pytest.mark.parametrize(
    "order, tables", [("column_first", "legacy (axis-swapped)"), ("row_first", "unified")], ids=["legacy", "unified"]
)
def test_import_reports_what_was_found(tmp_path, order, tables):
    found = import_official(official_file(tmp_path / "official.tar", order), tmp_path / "out", num_heads=3)
    assert found["position_tables"] == tables
    assert found["geometry"] == {**asdict(GEOMETRY), "context_order": order}
    state = official_state()
    assert found["tensors"] == len(state)
    assert found["scalars"] == sum(value.numel() for value in state.values())
    assert found["epoch"] == 299
    assert found["official_arguments"] == ["lr", "unify_embed"]


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_imported_files_load_into_world_model_and_encoder(tmp_path, name):
    import_official(official_file(tmp_path / "official.tar"), tmp_path / "out", num_heads=3)
    state, file = official_state(), tmp_path / "out" / name
    model = load_weights(build_world_model(GEOMETRY, image_mean=0.0, image_std=1.0), file)
    for key, value in model.state_dict().items():
        if key in state:
            assert torch.equal(value, state[key]), key
    assert model.encoder.image_mean.tolist() == pytest.approx(MEAN)
    assert model.target_encoder.image_std.tolist() == pytest.approx(STD)
    encoder = load_weights(network(), file)
    assert torch.equal(encoder.norm.weight, state["target_encoder.norm.weight"])
    assert not torch.equal(encoder.norm.weight, state["encoder.norm.weight"])
    assert torch.equal(read_weights(file).encoder("context")["norm.weight"], state["encoder.norm.weight"])


def test_safetensors_tell_their_geometry(tmp_path):
    import_official(official_file(tmp_path / "official.tar"), tmp_path / "out", num_heads=3)
    with safe_open(tmp_path / "out" / "model.safetensors", framework="pt") as file:
        assert WorldModelGeometry(**json.loads(file.metadata()["geometry"])) == GEOMETRY


def test_prefix_of_data_parallel_training_is_dropped(tmp_path):
    file = official_file(tmp_path / "official.tar", prefix="module.")
    import_official(file, tmp_path / "out", num_heads=3)
    plain = import_official(official_file(tmp_path / "plain.tar"), tmp_path / "plain", num_heads=3)
    assert plain["tensors"] == len(official_state())
    ours, theirs = read_content(tmp_path / "out" / "model.pt"), read_content(tmp_path / "plain" / "model.pt")
    assert set(ours) == set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_bare_state_dict_is_imported_too(tmp_path):
    torch.save(official_state(), tmp_path / "bare.pth")
    found = import_official(tmp_path / "bare.pth", tmp_path / "out", num_heads=3)
    assert (found["epoch"], found["official_arguments"]) == (None, [])


def test_a_named_size_needs_no_number_of_heads():
    state = official_state(embed_dim=192, depth=12, num_heads=3, image_size=8)
    assert geometry_of(state).num_heads == geometry_of(state).predictor_num_heads == 3
    with pytest.raises(ValueError, match="No named size has width 24 and depth 2: give num_heads"):
        geometry_of(official_state())


def test_folded_network_on_grey_equals_colour_network_on_replicated_grey(tmp_path):
    file = official_file(tmp_path / "official.tar")
    import_official(file, tmp_path / "colour", num_heads=3)
    found = import_official(file, tmp_path / "grey", one_channel=True, num_heads=3)
    assert found["geometry"]["in_channels"] == 1
    image = torch.rand((2, 1, 32, 32), generator=torch.Generator().manual_seed(0))
    for which in ("context", "target"):
        colour, grey = network(), network(in_channels=1)
        colour.load_state_dict(read_weights(tmp_path / "colour" / "model.pt").encoder(which))
        grey.load_state_dict(read_weights(tmp_path / "grey" / "model.safetensors").encoder(which))
        assert grey.patch_embed.proj.weight.shape == (24, 1, 8, 8)
        assert grey.image_mean.tolist() == [0.0] and grey.image_std.tolist() == [1.0]
        with torch.no_grad():
            torch.testing.assert_close(grey(image), colour(image.repeat(1, 3, 1, 1)), rtol=0, atol=1e-5)


def test_fold_by_hand():
    # one output, 1 x 1 patch: weights 1, 2, 3; means 0.1, 0.2, 0.3; stds 0.5, 0.25, 1; bias 7
    state = {
        "encoder.patch_embed.proj.weight": torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1),
        "encoder.patch_embed.proj.bias": torch.tensor([7.0]),
        "encoder.image_mean": torch.tensor([0.1, 0.2, 0.3]),
        "encoder.image_std": torch.tensor([0.5, 0.25, 1.0]),
        "other": torch.tensor(1.0),
    }
    folded = fold_to_one_channel(state)
    assert folded["encoder.patch_embed.proj.weight"].flatten().tolist() == pytest.approx([2 + 8 + 3])
    assert folded["encoder.patch_embed.proj.bias"].tolist() == pytest.approx([7 - (0.2 + 1.6 + 0.9)])
    assert folded["other"] is state["other"]
    assert state["encoder.patch_embed.proj.weight"].shape == (1, 3, 1, 1)  # the argument is not changed


# --- loading by name


def test_weights_survive_a_round_trip(tmp_path):
    model = build_world_model(GEOMETRY)
    save_weights(model.state_dict(), tmp_path / "new" / "folder", asdict(GEOMETRY))
    for name in ("model.pt", "model.safetensors"):
        read = read_content(tmp_path / "new" / "folder" / name)
        assert set(read) == set(model.state_dict())
        assert all(torch.equal(value, read[key]) for key, value in model.state_dict().items())


def test_an_embedders_file_loads_into_an_encoder_and_an_embedder(tmp_path):
    source = RadiographEmbedder(network())
    torch.save(source.state_dict(), tmp_path / "encoder.pt")
    assert all(name.startswith("encoder.") for name in read_content(tmp_path / "encoder.pt"))
    for target in (network(), RadiographEmbedder(network())):
        assert load_weights(target, tmp_path / "encoder.pt") is target
        loaded = target if isinstance(target, RadiographViT) else target.encoder
        assert torch.equal(loaded.blocks[1].mlp.fc1.weight, source.encoder.blocks[1].mlp.fc1.weight)


def test_an_encoders_own_file_loads_without_a_prefix(tmp_path):
    source = network()
    torch.save({"state_dict": source.state_dict()}, tmp_path / "vit.pt")
    assert torch.equal(load_weights(network(), tmp_path / "vit.pt").norm.bias, source.norm.bias)
    torch.save(source.state_dict(), tmp_path / "vit.pt", _use_new_zipfile_serialization=False)
    loaded = load_weights(network(), tmp_path / "vit.pt")
    assert torch.equal(loaded.patch_embed.proj.weight, source.patch_embed.proj.weight)


def test_importing_gives_a_world_model_of_the_geometry():
    model = build_world_model(GEOMETRY)
    assert isinstance(model, WorldModel)
    assert geometry_of(model.state_dict(), 3) == GEOMETRY
