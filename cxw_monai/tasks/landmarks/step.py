"""The step of training a landmark network."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from cxw_monai.training.non_finite import NonFiniteSteps
from cxw_monai.training.step import TrainingStep

__all__ = ["LandmarkStep", "PointLoss"]

PointLoss = Callable[[Tensor, Tensor, Tensor], Mapping[str, Tensor]]
"""Takes logits `[B, P, h, w]`, points `[B, P, 2]` and known `[B, P]`; gives `loss` and its terms."""


class LandmarkStep(TrainingStep):
    """`TrainingStep` of a landmark network; its loss is computed in float32.

    Args:
        loss: of logits, points and known.
        schedule, clip_norm, amp, non_finite: see `TrainingStep`.
    """

    def __init__(
        self,
        loss: PointLoss,
        schedule: Callable[[int], float],
        clip_norm: float | None = 1.0,
        amp: str = "auto",
        non_finite: NonFiniteSteps | None = None,
    ) -> None:
        super().__init__(schedule, clip_norm, amp, non_finite)
        self.loss = loss

    def losses(self, output: Tensor, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return self.loss(output.float(), inputs["points"], inputs["known"])
