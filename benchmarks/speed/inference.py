"""Latency of the networks that are used on films: embedding and segmentation."""

from __future__ import annotations

import torch
from torch import nn

from cxw_monai.networks import RadiographEmbedder, RadiographSegmenter, radiograph_vit
from cxw_monai.training.precision import autocast

from .figures import Measurement, seconds, short_name

__all__ = ["measure_embedding", "measure_segmentation"]


def measure_embedding(
    repeats: int,
    size: str = "tiny",
    amp: str = "none",
    batch: int = 1,
    image_size: int = 224,
    calls: int = 5,
    device: str | torch.device = "cpu",
) -> list[Measurement]:
    """Milliseconds a call of the embedding network, each repeat the mean of ``calls``."""
    torch.manual_seed(0)
    network = RadiographEmbedder(radiograph_vit(size, image_size=image_size))
    return _latency(f"embedding {size}", network, repeats, amp, batch, image_size, calls, torch.device(device))


def measure_segmentation(
    repeats: int,
    size: str = "tiny",
    amp: str = "none",
    batch: int = 1,
    image_size: int = 224,
    patch_size: int = 8,
    structures: int = 13,
    calls: int = 5,
    device: str | torch.device = "cpu",
) -> list[Measurement]:
    """Milliseconds a call of the segmentation network (U-Net decoder), each repeat the mean of ``calls``."""
    torch.manual_seed(0)
    network = RadiographSegmenter(radiograph_vit(size, image_size=image_size, patch_size=patch_size), structures)
    return _latency(
        f"segmentation {size}/{patch_size}", network, repeats, amp, batch, image_size, calls, torch.device(device)
    )


def _latency(
    name: str,
    network: nn.Module,
    repeats: int,
    amp: str,
    batch: int,
    image_size: int,
    calls: int,
    device: torch.device,
) -> list[Measurement]:
    network.eval().to(device)
    image = torch.rand(batch, 1, image_size, image_size).to(device)

    def work() -> None:
        for _ in range(calls):
            network(image)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    with torch.inference_mode(), autocast(device, amp):
        work()
        times = [seconds(work) / calls for _ in range(repeats)]
    precision = short_name(device, amp)
    return [Measurement(f"{name} {precision} batch {batch}", "ms", [1e3 * t for t in times])]
