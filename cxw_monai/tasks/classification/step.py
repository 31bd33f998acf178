"""The step of training a classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from cxw_monai.training.non_finite import NonFiniteSteps
from cxw_monai.training.step import TrainingStep

__all__ = ["ClassificationStep", "LabelLoss", "logits_of"]

LabelLoss = Callable[[Tensor, Tensor], Mapping[str, Tensor]]
"""Takes logits `[B, L]` and the labels of `LabelledFilms.label`; gives `loss` and its terms."""


def logits_of(network: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
    """A classifier's logits `[B, L]` of a batch with `image`, or with `tokens` of a frozen encoder."""
    if "tokens" in inputs:
        return network(inputs["tokens"], encoded=True)
    return network(inputs["image"])


class ClassificationStep(TrainingStep):
    """`TrainingStep` of a classifier; its loss is computed in float32.

    Args:
        loss: of logits and labels.
        schedule, clip_norm, amp, non_finite: see `TrainingStep`.
    """

    def __init__(
        self,
        loss: LabelLoss,
        schedule: Callable[[int], float],
        clip_norm: float | None = 1.0,
        amp: str = "auto",
        non_finite: NonFiniteSteps | None = None,
    ) -> None:
        super().__init__(schedule, clip_norm, amp, non_finite)
        self.loss = loss

    def forward(self, network: nn.Module, inputs: Any) -> Tensor:
        return logits_of(network, inputs)

    def losses(self, output: Tensor, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return self.loss(output.float(), inputs["label"])
