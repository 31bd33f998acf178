"""The loss of a world model: predicted tokens against targets, and what keeps both from collapsing.

Source: CheXWorld (arXiv 2504.13820), section 3; the variance hinge is VICReg's (arXiv 2105.04906).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from .pooled import pooled_terms
from .regularisers import regulariser

if TYPE_CHECKING:
    from cxw_monai.networks import WorldModelSettings

__all__ = ["MEASURES", "WorldModelLoss", "token_std"]

MEASURES = {"l2": F.mse_loss, "smooth_l1": F.smooth_l1_loss}
CROSS_VIEW = ("cross", "global")
"""Terms that predict one view from the other."""
STD_EPS = 1e-4


def token_std(tokens: Iterable[Tensor]) -> Tensor:
    """Standard deviation over the tokens of each `[B, K, D]`, averaged over channels, samples and tensors."""
    return torch.stack([(one.var(dim=1) + STD_EPS).sqrt().mean() for one in tokens]).mean()


class WorldModelLoss:
    """Loss of a batch of predictions, put together as the settings say.

    Args:
        settings: `loss`, `pixel_weight`, `cross_weight`, `average_terms`, `variance_weight`, `regulariser` and
            `regulariser_weight` of the world model's settings.
        latent_channels: channels of a target token that are latents; the others are pixels.
    """

    def __init__(self, settings: WorldModelSettings, latent_channels: int) -> None:
        self.settings, self.latent_channels = settings, latent_channels

    def term(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The settings' measure of predictions `[..., D]` against targets of the same shape."""
        measure, weight, width = MEASURES[self.settings.loss], self.settings.pixel_weight, self.latent_channels
        prediction = prediction.to(target.dtype)
        if weight is None:
            return measure(prediction, target)
        latents = measure(prediction[..., :width], target[..., :width])
        return (latents + weight * measure(prediction[..., width:], target[..., width:])) / (1 + weight)

    def __call__(
        self,
        pairs: Mapping[str, tuple[Tensor, Tensor]],
        contexts: Sequence[Tensor],
        pooled: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Loss of a batch.

        Args:
            pairs: predictions and targets `[2B, K, D]` by the term's name, both views on the batch axis.
            contexts: the context encoder's tokens, `[2B, Kc, D]` for each of its forward passes.
            pooled: projected embeddings `[V, B, P]` of V crops of each film, the two views first.

        Returns:
            `loss`, to minimise; then its unweighted terms: those of `pairs`, and `variance` and `regulariser` where
            the settings ask for them, `invariance` and `pooled_regulariser` where there are pooled embeddings.
        """
        settings = self.settings
        losses = {name: self.term(prediction, target) for name, (prediction, target) in pairs.items()}
        weights = [settings.cross_weight if name in CROSS_VIEW else 1.0 for name in losses]
        terms = list(losses.values())
        if pooled is not None:
            losses["invariance"], losses["pooled_regulariser"] = invariance, spread = pooled_terms(pooled)
            share = settings.pooled_regulariser_weight
            terms.append((1 - share) * invariance + share * spread)
            weights.append(settings.pooled_weight)
        total = torch.stack([weight * value for weight, value in zip(weights, terms, strict=True)]).sum()
        if settings.average_terms:
            total = total / sum(weights)
        if settings.variance_weight > 0:
            views = [view for prediction, _ in pairs.values() for view in prediction.chunk(2)]
            losses["variance"] = F.relu(1 - token_std(views))
            total = total + settings.variance_weight * losses["variance"]
        if settings.regulariser != "none":
            weight = settings.regulariser_weight
            losses["regulariser"] = regulariser(settings.regulariser, torch.cat(list(contexts), dim=1))
            total = (1 - weight) * total + weight * losses["regulariser"]
        return {"loss": total, **losses}
