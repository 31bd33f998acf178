"""Test-time augmentation: the mean of a segmenter's answers to a film as it is, mirrored, nearer and further.

The mean is that of the probabilities, each brought back to the film first, over the views that show a pixel. It costs
one forward pass per view.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor
from torch.nn import functional as F

from cxw_monai.transforms.warp import mirrored_order

__all__ = ["VIEWS", "AugmentedInferer", "FilmView"]


@dataclass(frozen=True)
class FilmView:
    """A film mirrored, or seen from nearer or further.

    Attributes:
        zoom: above 1 the film's middle fills the image; below 1 its outermost rows and columns are repeated around it.
        mirrored: left and right exchanged.
    """

    zoom: float = 1.0
    mirrored: bool = False

    def apply(self, film: Tensor) -> Tensor:
        """Films `[B, 1, h, w]` in [0, 1] as this view shows them, of the same size."""
        if self.mirrored:
            film = film.flip(-1)
        return film if self.zoom == 1 else _zoomed(film, self.zoom, "bicubic", "border").clamp(0, 1)

    def undo(self, probabilities: Tensor, sides: Sequence[int]) -> Tensor:
        """Probabilities `[B, S, h, w]` of this view on the film itself; what the view didn't show is 0.

        Args:
            probabilities: the network's, of this view.
            sides: S channels, each that of the structure on the other side (`mirrored_order`).
        """
        if self.zoom != 1:
            probabilities = _zoomed(probabilities, 1 / self.zoom, "bilinear", "zeros")
        return probabilities.flip(-1)[:, list(sides)] if self.mirrored else probabilities


VIEWS = (FilmView(), FilmView(mirrored=True), FilmView(zoom=1.1), FilmView(zoom=0.93))
"""What `AugmentedInferer` averages over."""


def _zoomed(image: Tensor, zoom: float, mode: str, padding_mode: str) -> Tensor:
    matrix = image.new_tensor([[1 / zoom, 0, 0], [0, 1 / zoom, 0]]).expand(len(image), 2, 3)
    grid = F.affine_grid(matrix, list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, mode=mode, padding_mode=padding_mode, align_corners=False)


class AugmentedInferer(Inferer):
    """Averages a network's probabilities over views of a film; its answer is their logit.

    Args:
        inferer: what takes each view through the network.
        structures: S names of the network's channels; `left` and `right` in them change places in a mirrored film.
        views: what is averaged.

    Raises:
        ValueError: a structure's counterpart on the other side is missing.
    """

    def __init__(self, inferer: Inferer, structures: Sequence[str], views: Sequence[FilmView] = VIEWS) -> None:
        super().__init__()
        self.inferer, self.views, self.sides = inferer, tuple(views), mirrored_order(structures)

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Films `[B, 1, h, w]` in [0, 1] to logits `[B, S, h, w]`, float32."""
        found, seen = [], []
        for view in self.views:
            logits = self.inferer(view.apply(inputs), network, *args, **kwargs)
            found.append(view.undo(torch.sigmoid(logits.float()), self.sides))
            seen.append(FilmView(view.zoom).undo(torch.ones_like(inputs), [0]))
        mean = torch.stack(found).sum(dim=0) / torch.stack(seen).sum(dim=0).clamp_(min=1e-3)
        return torch.logit(mean, eps=1e-6)
