"""How many images make an optimiser step, and which learning rate goes with them."""

from __future__ import annotations

import logging
from dataclasses import dataclass

__all__ = ["BatchPlan"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchPlan:
    """The one place that global batch, accumulation and learning rate follow from.

    Attributes:
        batch_size: images of a process and micro-batch: what fits into its memory.
        world_size: processes.
        accumulation_steps: micro-batches of a process that make one optimiser step.
        global_batch_size: images of an optimiser step, over all processes; where it is given, it decides how many
            micro-batches are accumulated, so that a run may move to other machines.
        base_lr: learning rate as the settings state it.
        lr_batch_size: images a step that `base_lr` was found for; the rate is scaled in proportion to the images (arXiv
            1706.02677). None takes `base_lr` as it is.

    Raises:
        ValueError: a number is not positive, or `global_batch_size` cannot be reached.
    """

    batch_size: int
    world_size: int = 1
    accumulation_steps: int = 1
    global_batch_size: int | None = None
    base_lr: float = 1e-3
    lr_batch_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "world_size", "accumulation_steps", "global_batch_size", "lr_batch_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        if self.global_batch_size is not None:
            together = self.batch_size * self.world_size
            if self.accumulation_steps != 1:
                raise ValueError("Give global_batch_size or accumulation_steps, not both: the one decides the other.")
            if self.global_batch_size % together:
                raise ValueError(
                    f"global_batch_size {self.global_batch_size} is not a multiple of the {together} images that "
                    f"{self.world_size} processes with batch_size {self.batch_size} take at a time: change one of them."
                )
            object.__setattr__(self, "accumulation_steps", self.global_batch_size // together)
        logger.info(
            "%d images a step (%d a process x %d processes x %d accumulated), learning rate %g.",
            *(self.images, self.batch_size, self.world_size, self.accumulation_steps, self.lr),
        )

    def check_films(self, films: int, called: str = "films") -> None:
        """Hold the plan against the data.

        Args:
            films: how many there are for training.
            called: what the message calls them.

        Raises:
            ValueError: an epoch of so many films has no step.
        """
        if films < self.batch_size * self.world_size:
            raise ValueError(
                f"There are fewer training {called} than batch_size times the number of processes: {films} {called}, "
                f"batch_size {self.batch_size}, {self.world_size} processes. Lower batch_size."
            )

    @property
    def images(self) -> int:
        """Images of an optimiser step."""
        return self.batch_size * self.world_size * self.accumulation_steps

    @property
    def lr(self) -> float:
        """Peak learning rate of the run."""
        return self.base_lr if self.lr_batch_size is None else self.base_lr * self.images / self.lr_batch_size
