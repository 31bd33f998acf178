"""Checkpoints that are refused: what could run code, damaged files, other networks.

Every refusal names the file, the reason and the remedy in one line.
"""

from __future__ import annotations

import argparse
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cxw_monai.networks import RadiographEmbedder
from cxw_monai.weights.encoder import load_weights, save_weights
from cxw_monai.weights.files import CheckpointError, read_content
from cxw_monai.weights.official import build_world_model, import_official
from tests.helpers.official_files import GEOMETRY, network, official_file, official_state


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
