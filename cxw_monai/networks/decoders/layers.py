"""Convolutions and batch normalisation of the segmentation decoders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["BatchNorm2d", "conv_norm_act", "synchronise_batch_norm", "transposed"]


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that also trains where a channel has a single value.

    One film of 1 x 1 cells (the coarsest pooling of a batch of one) has no variance, and torch refuses it. Such a map
    is normalised with the running statistics, which it does not change.
    """

    if TYPE_CHECKING:  # TorchScript can't read them
        num_batches_tracked: Tensor
        momentum: float

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch's name
        """`[B, C, H, W]` to `[B, C, H, W]`."""
        batch_statistics = self.training and input.numel() > input.shape[1]
        if batch_statistics:
            self.num_batches_tracked.add_(1)
        mean, variance = self.running_mean, self.running_var
        return F.batch_norm(input, mean, variance, self.weight, self.bias, batch_statistics, self.momentum, self.eps)


def conv_norm_act(in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution (with bias), batch normalisation, exact GELU; an odd kernel of stride 1 keeps the size."""
    padding = (kernel_size - 1) // 2
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding)
    return nn.Sequential(conv, BatchNorm2d(out_channels), nn.GELU())


def transposed(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    """Learnt upsampling by 2: every cell makes its own 2 x 2 cells."""
    return nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)


def synchronise_batch_norm(network: nn.Module, device: torch.device | str) -> nn.Module:
    """Share batch statistics between processes where torch can: several processes, each on CUDA.

    `SyncBatchNorm` in the network itself fails on several CPU processes, so the networks here hold plain batch
    normalisation, and an engine calls this once before it wraps the network for distributed training. Parameters,
    statistics and names stay.

    Args:
        network: network to convert.
        device: where it trains.

    Returns:
        `network` itself on a CPU or in one process; otherwise a converted network.
    """
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if torch.device(device).type != "cuda" or not distributed or torch.distributed.get_world_size() < 2:
        return network
    return nn.SyncBatchNorm.convert_sync_batchnorm(network)
