"""The average of encoders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.learning.average import main
from cxw_monai.networks import RadiographEmbedder, radiograph_vit
from cxw_monai.weights.encoder import load_encoder


def encoder_file(path: Path, seed: int, image_size: int = 32) -> Path:
    torch.manual_seed(seed)
    torch.save(RadiographEmbedder(radiograph_vit("tiny", image_size=image_size)).state_dict(), path)
    return path


def test_each_tensor_is_the_mean_and_the_file_is_an_encoder(tmp_path: Path):
    files = [encoder_file(tmp_path / f"{seed}.pt", seed) for seed in range(3)]
    assert main([*map(str, files), "--output", str(tmp_path / "mean.pt")]) == 0
    found = load_encoder(tmp_path / "mean.pt").state_dict()
    first, second, third = (load_encoder(path).state_dict() for path in files)
    for name, value in found.items():
        torch.testing.assert_close(value, (first[name] + second[name] + third[name]) / 3)
    assert not torch.equal(first["encoder.blocks.0.mlp.fc1.weight"], second["encoder.blocks.0.mlp.fc1.weight"])


def test_encoders_of_other_sizes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    files = [encoder_file(tmp_path / "a.pt", 0), encoder_file(tmp_path / "b.pt", 0, image_size=64)]
    assert main([*map(str, files), "--output", str(tmp_path / "mean.pt")]) == 2
    assert "different sizes" in capsys.readouterr().err
