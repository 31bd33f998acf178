"""A small landmark network with random weights in a file."""

from __future__ import annotations

from pathlib import Path

import torch

from cxw_monai.weights.kinds import save_network
from cxw_monai.weights.landmarker import landmarker_settings, new_landmarker

__all__ = ["POINTS", "save_landmarker"]

POINTS = ("tip", "base", "side_left")


def save_landmarker(path: Path, anatomy: str = "chest") -> Path:
    """Of `POINTS`, with a linear decoder whose maps have clear maxima."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = landmarker_settings(POINTS, "linear", 8, 1.5, anatomy, image_size=32, size="tiny")
        network = new_landmarker(settings)
        with torch.no_grad():
            network.decoder.head.weight.mul_(30)
        save_network(network, settings, path)
    return path
