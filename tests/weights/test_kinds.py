"""One way in and out: a file is opened once, tells its kind, and gives tensors, settings and the network."""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cxw_monai.networks import RadiographEmbedder, RadiographSegmenter, radiograph_vit
from cxw_monai.weights import files, kinds
from cxw_monai.weights.encoder import load_encoder, load_weights
from cxw_monai.weights.encoder_settings import EncoderSettings
from cxw_monai.weights.files import CheckpointError
from cxw_monai.weights.kinds import load_network, read_weights, save_network
from cxw_monai.weights.official import WorldModelGeometry, build_world_model, geometry_of, import_official
from cxw_monai.weights.segmenter import load_segmenter, new_segmenter, read_settings, segmenter_settings
from cxw_monai.weights.segmenter_settings import SegmenterSettings

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
SEGMENTATION, PRETRAINING = BUNDLES / "chexworld_segmentation", BUNDLES / "chexworld_pretraining"
GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "chexworld_tiny.npz"


@pytest.fixture
def opened(monkeypatch):
    """Files that are opened, and those whose tensors are checked."""
    seen: dict[str, list[Path]] = {"read": [], "checked": []}
    read, check = files.read_content, files.state_dict_of
    monkeypatch.setattr(kinds, "read_content", lambda path: seen["read"].append(path) or read(path))
    monkeypatch.setattr(
        kinds, "state_dict_of", lambda content, path: seen["checked"].append(path) or check(content, path)
    )
    return seen


def test_the_shipped_segmenter_by_name_folder_and_file(opened):
    for place in ("chexworld_segmentation", SEGMENTATION, SEGMENTATION / "models" / "model.pt"):
        kind, network, settings, path = load_network(place)
        assert (kind, path.name) == ("segmentation", "model.pt")
        assert isinstance(network, RadiographSegmenter) and not network.training
        assert isinstance(settings, SegmenterSettings) and settings.structures == network.structures
        assert settings == read_settings(path)
    assert len(opened["read"]) == 6 and len(opened["checked"]) == 3  # settings need no look at the tensors


def test_the_shipped_encoder_by_name_zip_and_file(opened, tmp_path):
    shutil.make_archive(str(tmp_path / "packed"), "zip", BUNDLES, PRETRAINING.name)
    states = []
    for place in ("chexworld_pretraining", tmp_path / "packed.zip", PRETRAINING / "models" / "model.pt"):
        kind, network, settings, path = load_network(place)
        assert (kind, settings) == ("encoder", EncoderSettings("tiny", (160, 160), 16, 1))
        assert isinstance(network, RadiographEmbedder) and not network.training
        states.append(network.state_dict())
    for state in states[1:]:
        assert all(torch.equal(value, states[0][name]) for name, value in state.items())
    assert len(opened["read"]) == len(opened["checked"]) == 3
    assert path == PRETRAINING / "models" / "model.pt"


def test_what_has_been_read_is_not_opened_again(opened):
    weights = read_weights(PRETRAINING)
    settings = segmenter_settings(["lungs"], 64, base_channels=4, encoder_ckpt=weights)
    network = new_segmenter(settings, weights)
    encoder = load_encoder(weights).encoder
    assert load_weights(radiograph_vit("tiny", image_size=160), weights).state_dict().keys() == weights.encoder().keys()
    assert opened == {"read": [weights.path], "checked": [weights.path]}
    assert torch.equal(network.encoder.norm.weight, encoder.norm.weight)
    saved = read_weights(SEGMENTATION)
    assert load_segmenter(saved).structures == read_settings(saved).structures
    assert len(opened["read"]) == 2


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        (None, "unknown"),
        ("[]", "unknown"),
        ({}, "unknown"),
        (["size"], "unknown"),
        (asdict(segmenter_settings(["a"], 64, "tiny")), "segmentation"),
    ],
)
def test_kinds_of_settings(tmp_path, settings, kind):
    torch.save({"model": {"encoder.a": torch.ones(1)}, "settings": settings}, tmp_path / "model.pt")
    weights = read_weights(tmp_path)
    assert weights.kind == kind
    if kind == "unknown":
        with pytest.raises(
            CheckpointError,
            match=r"model.pt: not a segmentation or classification or landmarks model of this package; give model.pt",
        ):
            load_network(tmp_path)


def test_an_encoders_safetensors_need_no_settings(tmp_path):
    network = RadiographEmbedder(radiograph_vit("tiny", image_size=64)).eval()
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("no settings here")
    kind, loaded, settings, _ = load_network(tmp_path / "model.safetensors")
    assert (kind, settings.image_size) == ("encoder", (64, 64))
    assert torch.equal(loaded.encoder.norm.weight, network.encoder.norm.weight)


@dataclass(frozen=True)
class ToySettings:
    """Those of a classifier."""

    labels: tuple[str, ...]
    image_size: tuple[int, int]
    width: int

    def network(self) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(self.width, len(self.labels)))


def test_a_new_task_is_a_line_in_the_table(tmp_path, monkeypatch):
    monkeypatch.setitem(kinds.TASKS, "toy", ToySettings)
    settings = ToySettings(("effusion", "edema"), (8, 8), 64)
    network = settings.network().eval()
    save_network(network, settings, tmp_path / "model.pt")
    kind, loaded, found, _ = load_network(tmp_path)
    assert (kind, found) == ("toy", settings)
    assert torch.equal(loaded(torch.ones(1, 1, 8, 8)), network(torch.ones(1, 1, 8, 8)))
    with pytest.raises(CheckpointError, match="not a segmentation model of this package"):
        load_segmenter(tmp_path)
    torch.save({"model": {"a": torch.ones(1)}, "settings": {}}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="not a .* or classification or landmarks or toy model of this"):
        load_network(tmp_path)


def test_an_official_checkpoint_is_an_encoder_as_it_is_imported(tmp_path):
    torch.manual_seed(0)
    geometry = WorldModelGeometry(32, 8, 3, 192, 12, 3, 12, 1, 3, context_order="column_first")
    state = build_world_model(geometry).state_dict()
    official = {name: value for name, value in state.items() if not name.endswith(("image_mean", "image_std"))}
    torch.save({"model": official, "args": argparse.Namespace(lr=0.1)}, tmp_path / "official.tar")
    import_official(tmp_path / "official.tar", tmp_path / "imported")
    image = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        direct, imported = (load_network(tmp_path / name).network(image) for name in ("official.tar", "imported"))
    assert torch.equal(direct, imported)


@pytest.mark.skipif(not GOLDEN.is_file(), reason="the golden file of the reference lies beside the checkout only")
def test_the_golden_checkpoint_of_the_reference(tmp_path):
    """Its tensors in an official file give its target tokens, which it made without normalisation."""
    with np.load(GOLDEN) as golden:
        state = {name[3:]: torch.from_numpy(golden[name]).float() for name in golden if name.startswith("sd.")}
        image, expected = (torch.from_numpy(golden[name]).float() for name in ("in.image1", "out.enc_full_image1"))
    heads = json.loads(GOLDEN.with_suffix(".json").read_text())["cfg"]["num_heads"]
    torch.save({"model": state, "args": argparse.Namespace()}, tmp_path / "official.tar")
    found = import_official(tmp_path / "official.tar", tmp_path / "imported", num_heads=heads)
    assert found["tensors"] == len(state)
    model = build_world_model(geometry_of(state, heads), image_mean=0.0, image_std=1.0)
    for file in ("official.tar", "imported/model.pt", "imported/model.safetensors"):
        load_weights(model, tmp_path / file)
        model.encoder.image_mean.zero_()
        model.encoder.image_std.fill_(1.0)
        with torch.no_grad():
            torch.testing.assert_close(model.encoder(image), expected, atol=1e-4, rtol=0)
