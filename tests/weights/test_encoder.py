"""Checkpoints: import of official files, one-channel fold, loading by name, and refusal of what could run code."""

from __future__ import annotations

import argparse
import json
import os
import pickle
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from cxw_monai.networks import RadiographEmbedder, RadiographViT, WorldModel
from cxw_monai.weights.encoder import load_weights, save_weights
from cxw_monai.weights.files import CheckpointError, read_content
from cxw_monai.weights.official import (
    WorldModelGeometry,
    build_world_model,
    fold_to_one_channel,
    geometry_of,
    import_official,
)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GEOMETRY = WorldModelGeometry(
    image_size=32,
    patch_size=8,
    in_channels=3,
    embed_dim=24,
    depth=2,
    num_heads=3,
    predictor_embed_dim=12,
    predictor_depth=1,
    predictor_num_heads=3,
    context_order="column_first",
)


def official_state(order: str = "column_first", **sizes: int) -> dict[str, Tensor]:
    """Random weights under the official names: no buffers, target and encoder not alike."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_world_model(WorldModelGeometry(**{**asdict(GEOMETRY), "context_order": order, **sizes}))
        state = {name: value for name, value in model.state_dict().items() if not name.endswith(("_mean", "_std"))}
        return {n: v if n.endswith("pos_embed") else v + 0.1 * torch.randn(v.shape) for n, v in state.items()}


def official_file(path: Path, order: str = "column_first", prefix: str = "") -> Path:
    state = {prefix + name: value for name, value in official_state(order).items()}
    torch.save({"model": state, "epoch": 299, "args": argparse.Namespace(lr=2e-4, unify_embed=False)}, path)
    return path


def network(in_channels: int = 3, **overrides: object) -> RadiographViT:
    sizes = {"image_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
    return RadiographViT(in_channels=in_channels, **{**sizes, **overrides}).eval()


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
    context_encoder = load_weights(network(), file, prefix="encoder.")
    assert torch.equal(context_encoder.norm.weight, state["encoder.norm.weight"])


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
    for prefix in ("encoder.", "target_encoder."):
        colour = load_weights(network(image_mean=0.0, image_std=1.0), tmp_path / "colour" / "model.pt", prefix)
        grey = load_weights(network(in_channels=1), tmp_path / "grey" / "model.safetensors", prefix)
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


# --- refusals: every one names the file, the reason and the remedy in one line


def load_into_encoder(path: Path) -> None:
    load_weights(network(), path)


def load_into_world_model(path: Path) -> None:
    load_weights(build_world_model(GEOMETRY), path)


def import_file(path: Path) -> None:
    import_official(path, path.parent / "out", num_heads=3)


READERS = [read_content, load_into_encoder, load_into_world_model, import_file]


def refusal(reader: Callable[[Path], object], path: Path) -> str:
    with pytest.raises(CheckpointError) as raised:
        reader(path)
    error, message = raised.value, str(raised.value)
    assert message == f"{path}: {error.reason}; {error.remedy}"
    assert error.path == path and error.reason and error.remedy
    assert "\n" not in message and len(message) < 700
    assert "weights_only" not in message  # torch's advice to load unsafely is not passed on
    return message


class RunsSystem:
    """Unpickling it runs a shell command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self.marker}'",)


class RunsExec(RunsSystem):
    """Unpickling it runs Python."""

    def __reduce__(self) -> tuple:
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)


def write_malicious(path: Path, kind: type[RunsSystem], where: str, marker: Path) -> None:
    bomb, state = kind(marker), official_state()
    if where == "pickle":
        path.write_bytes(pickle.dumps({"model": state, "args": bomb}))
    elif where == "legacy":
        torch.save({"model": state, "args": bomb}, path, _use_new_zipfile_serialization=False)
    elif where == "protocol 4":
        torch.save({"model": state, "args": bomb}, path, pickle_protocol=4)
    elif where == "arguments":
        torch.save({"model": state, "epoch": 1, "args": argparse.Namespace(lr=bomb)}, path)
    else:
        torch.save({"model": {**state, "encoder.extra": bomb}}, path)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", [RunsSystem, RunsExec])
@pytest.mark.parametrize("where", ["weights", "arguments", "legacy", "protocol 4", "pickle"])
def test_a_malicious_file_is_refused_and_nothing_runs(tmp_path, reader, kind, where):
    path, marker = tmp_path / "evil.tar", tmp_path / "it_ran"
    write_malicious(path, kind, where, marker)
    message = refusal(reader, path)
    if where not in ("protocol 4", "pickle"):
        assert "could run code" in message
        assert ("system" if kind is RunsSystem else "exec") in message
    assert not marker.exists()
    assert not (tmp_path / "out").exists()


def test_the_malicious_files_are_what_they_seem(tmp_path):
    for kind in (RunsSystem, RunsExec):
        path, marker = tmp_path / "evil.tar", tmp_path / kind.__name__
        write_malicious(path, kind, "arguments", marker)
        torch.load(path, weights_only=False)
        assert marker.exists()


def damaged(path: Path, kind: str) -> str:
    """Write a file that is no checkpoint; what its refusal must say."""
    torch.save({"model": official_state()}, path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-2000])
    elif kind == "truncated legacy":
        torch.save(official_state(), path, _use_new_zipfile_serialization=False)
        path.write_bytes(path.read_bytes()[:3000])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("<!DOCTYPE html><title>Quota exceeded</title>\n" * 40)
    elif kind == "plain text":
        path.write_text("hello\n")
    elif kind == "list":
        torch.save([torch.zeros(2)], path)
        return "holds a list; a dictionary of tensors is expected"
    elif kind == "tensor":
        torch.save(torch.zeros(2), path)
        return "holds a Tensor; a dictionary of tensors is expected"
    elif kind == "missing":
        path.unlink()
        return "no such file; check the path"
    elif kind == "folder":
        path.unlink()
        path.mkdir()
        return "no such file"
    return "not a readable checkpoint"


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "kind",
    ["truncated", "truncated legacy", "empty", "text", "plain text", "list", "tensor", "missing", "folder"],
)
def test_damaged_files_are_refused(tmp_path, reader, kind):
    path = tmp_path / "model.pt"
    expected = damaged(path, kind)
    if kind == "folder" and reader is not read_content:
        expected = "a folder without model.pt"  # a run's folder would do
    assert expected in refusal(reader, path)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("content", [b"", b"garbage" * 100, b"\xff" * 64, None], ids=["empty", "text", "bytes", "cut"])
def test_damaged_safetensors_are_refused(tmp_path, reader, content):
    path = tmp_path / "model.safetensors"
    if content is None:
        save_weights(official_state(), tmp_path, {})
        content = path.read_bytes()[:-500]
    path.write_bytes(content)
    assert "not a safetensors file" in refusal(reader, path)


def test_randomly_damaged_files_are_refused_or_read(tmp_path):
    path, generator = tmp_path / "model.pt", torch.Generator().manual_seed(0)
    outcomes = {"read": 0, "refused": 0}
    for legacy in (False, True):
        torch.save({"model": {"a": torch.zeros(3)}}, path, _use_new_zipfile_serialization=not legacy)
        whole = path.read_bytes()
        for _ in range(60):
            content = bytearray(whole)
            for place in torch.randint(min(len(whole), 500), (3,), generator=generator).tolist():
                content[place] = int(torch.randint(256, (), generator=generator))
            path.write_bytes(content)
            try:
                outcomes["read"] += isinstance(read_content(path), dict)
            except CheckpointError as error:
                outcomes["refused"] += "\n" not in str(error)
    assert sum(outcomes.values()) == 120 and outcomes["refused"] > 20


@pytest.mark.parametrize("reader", READERS[1:])
@pytest.mark.parametrize("content", [{}, {"epoch": 3}, {0: torch.zeros(2)}, {"model": {"a": 1}}], ids=str)
def test_a_dictionary_without_tensors_is_refused(tmp_path, reader, content):
    torch.save(content, tmp_path / "model.pt")
    assert "holds no tensors; expected a state dict" in refusal(reader, tmp_path / "model.pt")


def test_weights_of_another_geometry_are_refused_with_names(tmp_path):
    path = tmp_path / "vit.pt"
    torch.save(network(depth=3).state_dict(), path)
    message = refusal(load_into_encoder, path)
    assert "of another geometry (unexpected: blocks.2.attn.proj.bias" in message and "and 9 more" in message
    torch.save(network(image_size=64).state_dict(), path)
    message = refusal(load_into_encoder, path)
    assert "other shape: pos_embed (1, 64, 24) instead of (1, 16, 24)" in message
    assert "build the network that the checkpoint was made with" in message
    torch.save(nn.Linear(2, 2).state_dict(), path)
    message = refusal(load_into_encoder, path)
    assert "missing: blocks.0.attn.proj.bias" in message and "unexpected: bias, weight" in message


def test_an_encoders_file_does_not_make_a_world_model(tmp_path):
    torch.save(RadiographEmbedder(network()).state_dict(), tmp_path / "encoder.pt")
    assert "missing: predictor.mask_token" in refusal(load_into_world_model, tmp_path / "encoder.pt")


def test_a_refused_load_leaves_the_network_as_it_was(tmp_path):
    torch.save(network(image_size=64).state_dict(), tmp_path / "vit.pt")
    target = network()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    refusal(lambda path: load_weights(target, path), tmp_path / "vit.pt")
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def other_network(change: str) -> dict[str, Tensor]:
    """Official names, but something is not as it should be."""
    state = official_state()
    if change == "one key missing":
        del state["encoder.blocks.1.norm2.bias"]
    elif change == "no predictor":
        state = {name: value for name, value in state.items() if not name.startswith("predictor.")}
    elif change == "one key too many":
        state["predictor.extra"] = torch.zeros(1)
    elif change == "not square":
        for name in ("encoder.pos_embed", "target_encoder.pos_embed", "predictor.predictor_pos_embed"):
            state[name] = state[name][:, :12]
    elif change == "table of neither order":
        state["predictor.predictor_pos_embed"] = state["predictor.predictor_pos_embed"] + 0.01
    elif change == "flat stem":
        state["encoder.patch_embed.proj.weight"] = torch.zeros(24)
    elif change == "odd block number":
        state["encoder.blocks.x.norm1.bias"] = torch.zeros(24)
    elif change == "no blocks":
        state = {name: value for name, value in state.items() if ".blocks." not in name}
    elif change == "other depth in the target":
        state = {name: value for name, value in state.items() if not name.startswith("target_encoder.blocks.1")}
    return state


@pytest.mark.parametrize(
    "change, reason",
    [
        ("one key missing", "encoder.blocks.1.norm2.bias"),
        ("no predictor", "predictor.predictor_pos_embed' is missing"),
        ("one key too many", "predictor.extra"),
        ("not square", "not of one square grid"),
        ("table of neither order", "not a sine-cosine table of either order"),
        ("flat stem", "stem (24,)"),
        ("odd block number", ""),
        ("no blocks", ""),
        ("other depth in the target", "target_encoder.blocks.1"),
    ],
)
def test_another_network_is_not_imported(tmp_path, change, reason):
    path = tmp_path / "official.tar"
    torch.save({"model": other_network(change)}, path)
    message = refusal(import_file, path)
    assert "not an official world model" in message and reason in message and "check which file it is" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("heads, reason", [(5, "num_heads 5"), (None, "give num_heads")])
def test_a_wrong_or_unknown_number_of_heads_is_refused(tmp_path, heads, reason):
    file = official_file(tmp_path / "official.tar")
    assert reason in refusal(lambda path: import_official(path, tmp_path / "out", num_heads=heads), file)


def test_importing_gives_a_world_model_of_the_geometry():
    model = build_world_model(GEOMETRY)
    assert isinstance(model, WorldModel)
    assert geometry_of(model.state_dict(), 3) == GEOMETRY
