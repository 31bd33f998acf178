"""What a test sees of a network: its tokens, its targets, and its predictions where it has a predictor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from cxw_monai.networks import RadiographViT, WorldModel
from cxw_monai.networks.world_model import normalised
from cxw_monai.training.precision import Precision
from cxw_monai.transforms import IDENTITY_ACTION

__all__ = ["EncoderWorld", "ModelWorld", "World"]

BATCH = 32


class World(Protocol):
    """A network that is tested. Images are `[B, 1, H, W]` in [0, 1], bone bright; what comes out is on the CPU.

    Attributes:
        grid: rows and columns of tokens.
        size: height and width in px of an image.
        predicts: those of `local`, `global` and `domain` that it has learned to predict.
    """

    grid: tuple[int, int]
    size: tuple[int, int]
    predicts: frozenset[str]

    def tokens(self, images: Tensor) -> Tensor:
        """Tokens of the (target) encoder, `[B, N, D]`."""

    def targets(self, images: Tensor) -> Tensor:
        """What predictions are held against, `[B, N, T]`."""

    def predict(
        self,
        images: Tensor,
        action: Tensor | None = None,
        rel: Tensor | None = None,
        visible: Tensor | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """Predicted targets, `[B, K, T]`.

        Args:
            images: the context.
            action: `[B, 5]` perturbation that made it; None for none.
            rel: `[B, 4]` place of the target view, see `relative_geometry`; None for the context's own.
            visible: int64 `[B, Kc]` tokens of the context that are seen; None for all.
            wanted: int64 `[B, K]` tokens that are predicted; None for all.
        """


def _in_batches(compute: Callable[..., Tensor], images: Tensor, *others: Tensor | None) -> Tensor:
    """`compute` of parts of the batch, joined on the CPU in float32."""
    parts = []
    for start in range(0, len(images), BATCH):
        stop = start + BATCH
        parts.append(compute(images[start:stop], *(None if x is None else x[start:stop] for x in others)).float().cpu())
    return torch.cat(parts)


class EncoderWorld:
    """An encoder without a predictor; its targets are its normalised tokens.

    Args:
        encoder: in evaluation mode.
        amp: `auto`, `bfloat16` or `none`.
    """

    predicts: frozenset[str] = frozenset()

    def __init__(self, encoder: RadiographViT, amp: str = "none") -> None:
        self.encoder, self.precision = encoder.eval(), Precision(amp)
        self.grid = encoder.grid
        self.size = (encoder.grid[0] * encoder.patch_size, encoder.grid[1] * encoder.patch_size)

    @property
    def device(self) -> torch.device:
        return self.encoder.pos_embed.device

    @torch.no_grad()
    def tokens(self, images: Tensor) -> Tensor:
        with self.precision.autocast(self.device):
            return _in_batches(lambda part: self.encoder(part.to(self.device)), images)

    def targets(self, images: Tensor) -> Tensor:
        return normalised(self.tokens(images))

    def predict(self, *_: Any, **__: Any) -> Tensor:
        raise TypeError("an encoder without a predictor predicts nothing: see `predicts`")


class ModelWorld(EncoderWorld):
    """A world model. Of targets that are latents and pixels side by side, the latents are looked at.

    Args:
        model: in any mode; it is put into evaluation mode.
        amp: `auto`, `bfloat16` or `none`.
    """

    def __init__(self, model: WorldModel, amp: str = "none") -> None:
        super().__init__(model.target_encoder, amp)
        self.model = model.eval()
        self.predicts = frozenset(model.settings.objectives) - {"pooled"}
        self.channels = model.encoder.embed_dim if model.settings.targets == "both" else None

    @torch.no_grad()
    def targets(self, images: Tensor) -> Tensor:
        with self.precision.autocast(self.device):
            return _in_batches(lambda part: self._kept(self.model.target_tokens(part.to(self.device))), images)

    @torch.no_grad()
    def predict(
        self,
        images: Tensor,
        action: Tensor | None = None,
        rel: Tensor | None = None,
        visible: Tensor | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        given = torch.tensor(IDENTITY_ACTION).expand(len(images), -1) if action is None else action.float()
        if "domain" not in self.predicts:
            given = torch.zeros_like(given)
        with self.precision.autocast(self.device):
            return _in_batches(self._predicted, images, given, rel, visible, wanted)

    def _predicted(
        self, images: Tensor, action: Tensor, rel: Tensor | None, visible: Tensor | None, wanted: Tensor | None
    ) -> Tensor:
        seen, asked, place = (None if x is None else x.to(self.device) for x in (visible, wanted, rel))
        context = self.model.encoder(images.to(self.device), seen)
        return self._kept(self.model.predict(context, action.to(self.device), seen, asked, place, self.grid))

    def _kept(self, tokens: Tensor) -> Tensor:
        return tokens[..., : self.channels]
