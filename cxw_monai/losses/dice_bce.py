"""Soft Dice and binary cross-entropy of masks, of which some structures may be unknown.

MONAI's `DiceCELoss` gives neither the two terms, which are logged, nor a mean over known structures alone; its
`MaskedDiceLoss` masks before the sigmoid, which makes a probability of 0.5 of what is unknown.
"""

from __future__ import annotations

from monai.losses import DiceLoss
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["DiceBCELoss"]


class DiceBCELoss(nn.Module):
    """Soft Dice plus binary cross-entropy of each known structure of each film.

    Source: CheXWorld (arXiv 2504.13820), supplement B. A structure that is unknown on a film has no share in the loss
    or its gradient. The Dice's numerator and denominator are 1 px more each, so that an empty prediction for a film
    without the structure has a Dice of 1.

    Args:
        dice_weight, bce_weight: weights of the two terms, not both 0.

    Raises:
        ValueError: for a negative weight, or no positive one.
    """

    def __init__(self, dice_weight: float = 1.0, bce_weight: float = 1.0) -> None:
        super().__init__()
        if min(dice_weight, bce_weight) < 0 or dice_weight + bce_weight == 0:
            raise ValueError(f"dice_weight and bce_weight must be 0 or more, not both 0: {dice_weight}, {bce_weight}.")
        self.dice_weight, self.bce_weight = dice_weight, bce_weight
        self.dice = DiceLoss(sigmoid=True, reduction="none", smooth_nr=1.0, smooth_dr=1.0)

    def forward(self, logits: Tensor, label: Tensor, known: Tensor) -> dict[str, Tensor]:
        """Loss of a batch.

        Args:
            logits: `[B, S, H, W]`.
            label: 0 and 1, of the same shape.
            known: `[B, S]`, whether a structure was annotated.

        Returns:
            `loss`, and its unweighted terms `dice` and `bce`: scalars, means over the known structures of the films; 0
            where none is known.
        """
        dice = self.dice(logits, label).flatten(1)  # [B, S]
        bce = F.binary_cross_entropy_with_logits(logits, label, reduction="none").mean(dim=(2, 3))  # [B, S]
        weight = known.to(logits) / known.sum().clamp_min(1)
        terms = {"dice": (dice * weight).sum(), "bce": (bce * weight).sum()}
        return {"loss": self.dice_weight * terms["dice"] + self.bce_weight * terms["bce"], **terms}
