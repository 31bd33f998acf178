"""A network from a film of any size to its answer about the film, as it is exported to other software.

Resizing is written as matrix products of weights that the graph computes from the film's size: the same numbers as
torch's antialiased filters, in operations that TorchScript and every version of ONNX have. torch's own
`interpolate(antialias=True)` has no ONNX export in torch 2.13; mapped by hand to ONNX's antialiased `Resize` (opset
18), onnxruntime 1.32 is .02 off for films smaller than the network's size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["WholeFilmNetwork", "resampling_weights"]


def _centres(like: Tensor) -> Tensor:
    """Centres of as many pixels as the vector `like` has: 0.5, 1.5, ...; float64."""
    return torch.ones_like(like, dtype=torch.float64).cumsum(0) - 0.5


def resampling_weights(source: Tensor, target: Tensor, cubic: bool) -> Tensor:
    """Weights of an antialiased resize along one axis, edges on edges.

    Equals `torch.nn.functional.interpolate(..., antialias=True)`: a triangle, or the cubic convolution kernel with
    a = -1/2 (Keys, IEEE TASSP 29, 1981), widened where the target is smaller, and normalised at the borders.

    Args:
        source: a vector with an element for each of the n pixels; its values don't matter.
        target: likewise, of m pixels.
        cubic: the cubic kernel instead of the triangle.

    Returns:
        float64 `[m, n]` with rows of sum 1.
    """
    at, seen = _centres(source), _centres(target)
    scale = (at[-1] + 0.5) / (seen[-1] + 0.5)
    distance = (at.unsqueeze(0) - (seen * scale).unsqueeze(1)).abs() / scale.clamp(min=1.0)  # [m, n]
    near = (1 - distance).clamp(min=0)
    if cubic:
        inner = (1.5 * distance - 2.5) * distance * distance + 1
        outer = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        near = torch.where(distance < 1, inner, torch.where(distance < 2, outer, torch.zeros_like(distance)))
    return near / near.sum(dim=1, keepdim=True)


class WholeFilmNetwork(nn.Module):
    """Stretches whole films to a network's size, applies it, and brings a map back to the film's own size.

    What `whole_film`, the network, a sigmoid and `PixelMap.restore` do one after the other, in one module that needs
    nothing but torch.

    Args:
        network: takes `[B, 1, h, w]` in [0, 1] to logits `[B, S, h, w]` or embeddings `[B, D]`.
        size: (h, w) in px.
        dense: the network gives logits; otherwise embeddings.
    """

    def __init__(self, network: nn.Module, size: tuple[int, int], dense: bool) -> None:
        super().__init__()
        self.network = network
        self.dense = dense
        self.rows: Tensor
        self.columns: Tensor
        self.register_buffer("rows", torch.zeros(size[0]), persistent=False)
        self.register_buffer("columns", torch.zeros(size[1]), persistent=False)

    def forward(self, film: Tensor) -> Tensor:
        """Probabilities at the film's size, or embeddings.

        Args:
            film: float32 `[B, 1, H, W]` in [0, 1], bone bright, any H and W.

        Returns:
            `[B, S, H, W]` in [0, 1], or `[B, D]`.
        """
        rows, columns = film[0, 0, :, 0], film[0, 0, 0, :]
        down = resampling_weights(rows, self.rows, True).to(film.dtype)  # [h, H]
        across = resampling_weights(columns, self.columns, True).to(film.dtype)  # [w, W]
        answer = self.network((down @ film @ across.t()).clamp(0, 1))
        if not self.dense:
            return answer
        up = resampling_weights(self.rows, rows, False).to(film.dtype)  # [H, h]
        along = resampling_weights(self.columns, columns, False).to(film.dtype)  # [W, w]
        return up @ answer.sigmoid() @ along.t()
