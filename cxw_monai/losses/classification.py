"""Losses of classification, of which some labels may be unknown.

MONAI and torch have no asymmetric loss, and neither leaves unknown labels of a film out of the mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["MultiClassLoss", "MultiLabelLoss"]


def _weights(values: Sequence[float] | None) -> Tensor | None:
    """Class weights as a tensor.

    Raises:
        ValueError: one of them is not above 0.
    """
    if values is None:
        return None
    if not values or min(values) <= 0:
        raise ValueError(f"class_weights must be above 0, got {list(values)}.")
    return torch.tensor([float(value) for value in values])


class MultiLabelLoss(nn.Module):
    """Binary cross-entropy of each known label, or asymmetric loss, which turns away from easy negatives.

    An unknown label (NaN) has no share in the loss or its gradient. With p the probability and p' = max(p - margin, 0),
    a positive has the loss `-w (1 - p)^gamma_positive log p`, a negative `-p'^gamma_negative log(1 - p')`. Source: ASL
    (arXiv 2009.14119, equations 6 and 7; its recipe for multi-label images has 4, 0 and 0.05). All three at 0 are the
    cross-entropy.

    Args:
        class_weights: w, the weight of a class's positives, L numbers above 0; None for 1.
        gamma_negative, gamma_positive: exponents, 0 or more.
        margin: of negatives, in [0, 1).

    Raises:
        ValueError: for an argument out of its range.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        class_weights: Sequence[float] | None = None,
        gamma_negative: float = 0.0,
        gamma_positive: float = 0.0,
        margin: float = 0.0,
    ) -> None:
        super().__init__()
        if min(gamma_negative, gamma_positive) < 0 or not 0 <= margin < 1:
            raise ValueError(
                "gamma_negative and gamma_positive must be 0 or more and margin in [0, 1), got "
                f"{gamma_negative}, {gamma_positive} and {margin}."
            )
        self.register_buffer("class_weights", _weights(class_weights), persistent=False)
        self.gamma_negative, self.gamma_positive, self.margin = gamma_negative, gamma_positive, margin

    def forward(self, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Loss of a batch.

        Args:
            logits: `[B, L]`.
            label: floating `[B, L]`, 1 present, 0 absent, NaN unknown.

        Returns:
            `loss`: scalar, the mean over known labels; 0 where none is known.
        """
        known = ~label.isnan()
        positive = label.nan_to_num(0.0)
        weight = 1.0 if self.class_weights is None else self.class_weights.to(logits)
        gain = -F.logsigmoid(logits) * weight  # [B, L]
        if self.margin > 0:
            shifted = (logits.sigmoid() - self.margin).clamp(min=0)
            cost = -torch.log1p(-shifted)
        else:
            shifted, cost = logits.sigmoid(), F.softplus(logits)
        if self.gamma_positive > 0:
            gain = gain * (-logits).sigmoid() ** self.gamma_positive
        if self.gamma_negative > 0:
            cost = cost * shifted**self.gamma_negative
        loss = positive * gain + (1 - positive) * cost
        return {"loss": torch.where(known, loss, 0.0).sum() / known.sum().clamp_min(1)}


class MultiClassLoss(nn.Module):
    """Cross-entropy of classes that exclude each other.

    Args:
        class_weights: of a film by its class, L numbers above 0; None for 1.

    Raises:
        ValueError: a weight is not above 0.
    """

    class_weights: Tensor | None

    def __init__(self, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.register_buffer("class_weights", _weights(class_weights), persistent=False)

    def forward(self, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Loss of a batch.

        Args:
            logits: `[B, L]`.
            label: int64 `[B]`, the class's number, -1 unknown.

        Returns:
            `loss`: scalar, the (weighted) mean over films with a known class; 0 where none is known.
        """
        weight = None if self.class_weights is None else self.class_weights.to(logits)
        if bool((label < 0).all()):
            return {"loss": logits.sum() * 0}
        return {"loss": F.cross_entropy(logits, label, weight, ignore_index=-1)}
