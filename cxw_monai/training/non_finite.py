"""What happens with a step whose loss or gradient is NaN or infinite: the run stops, or skips it."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from torch import Tensor

__all__ = ["NonFiniteLossError", "NonFiniteSteps"]

logger = logging.getLogger(__name__)


class NonFiniteLossError(RuntimeError):
    """The loss or its gradient is NaN or infinite; the weights are those before the step."""


class NonFiniteSteps:
    """Decides about steps that are not finite, and counts them.

    All processes of a distributed run decide alike without talking: a loss that is not finite is given NaN gradients,
    which averaging spreads to every process, and the gradients' norm is what decides.

    Args:
        on_non_finite: `stop` ends the run with the state before the step saved; `skip` leaves the step out.
        limit: with `skip`, the run stops after so many steps in a row that were not finite.

    Attributes:
        skipped: steps left out in this run, those before a resume included.
        in_a_row: how many the last steps were.

    Raises:
        ValueError: for another policy, or a limit below 1.
    """

    def __init__(self, on_non_finite: str = "stop", limit: int = 10) -> None:
        if on_non_finite not in ("stop", "skip"):
            raise ValueError(f"on_non_finite must be 'stop' or 'skip', got {on_non_finite!r}.")
        if limit < 1:
            raise ValueError(f"The limit of steps in a row that are not finite must be 1 or more, got {limit}.")
        self.on_non_finite, self.limit = on_non_finite, limit
        self.skipped, self.in_a_row = 0, 0
        self._losses: list[Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]

    def backward(self, loss: Tensor, group_size: int) -> None:
        """Add the gradients of one of `group_size` accumulated micro-batches; NaN ones where the loss is not finite."""
        finite = torch.isfinite(loss.detach())
        loss.backward(torch.where(finite, 1 / group_size, math.nan).to(loss.dtype))
        self._losses.append(loss.detach())

    def refuses(self, norm: float, step: int) -> bool:
        """Whether the group of micro-batches that ends here must not be applied.

        Args:
            norm: norm of the group's gradients.
            step: the group's last micro-batch, counted from 1.

        Raises:
            NonFiniteLossError: it must not, and the run stops.
        """
        losses, self._losses = self._losses, []
        if math.isfinite(norm):
            self.in_a_row = 0
            return False
        values = {step - len(losses) + i: loss.item() for i, loss in enumerate(losses, start=1)}
        bad = [f"The loss is {value} at step {number}." for number, value in values.items() if not math.isfinite(value)]
        message = bad[0] if bad else f"The gradient norm is {norm} at step {step}."
        if self.on_non_finite == "stop":
            raise NonFiniteLossError(message)
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        if self.in_a_row >= self.limit:
            raise NonFiniteLossError(f"{message} {self.in_a_row} steps in a row were not finite.")
        logger.warning(
            "%s That step is skipped: %d so far, %d in a row (%d in a row stop the run).",
            *(message, self.skipped, self.in_a_row, self.limit),
        )
        return True
