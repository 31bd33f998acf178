"""Collapse monitors of embeddings.

A joint-embedding model can lower its loss by making every embedding alike. Three numbers show it: per-dimension
standard deviation, mean pairwise cosine, and effective rank (`cxw_monai.metrics.world.spread`).
"""

from __future__ import annotations

import logging
from typing import Any

from ignite.engine import Engine, Events

__all__ = ["CollapseWarning"]

logger = logging.getLogger(__name__)


class CollapseWarning:
    """Ignite handler that warns once when the target's or prediction's monitors look like a collapse.

    It reads `engine.state.metrics["<name>_std" | "<name>_cosine" | "<name>_rank"]` at the end of each epoch, and
    `target_image_std`, which falls when targets come to depend on their place alone.

    Args:
        names: whose monitors to watch.
        max_cosine: warn above this mean pairwise cosine.
        min_std: warn below this per-dimension standard deviation.
        min_share: warn when std or rank falls under this share of its highest value so far.
        after: no warning in these first epochs: predictions start alike and differ only once the warm-up has
            passed. The highest values count from the first.
    """

    def __init__(
        self,
        names: tuple[str, ...] = ("target", "prediction"),
        max_cosine: float = 0.98,
        min_std: float = 0.02,
        min_share: float = 0.5,
        after: int = 0,
    ) -> None:
        self.names = tuple(names)
        self.max_cosine, self.min_std, self.min_share, self.after = max_cosine, min_std, min_share, after
        self.highest: dict[str, float] = {}
        self.warned: set[str] = set()

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def state_dict(self) -> dict[str, Any]:
        return {"highest": self.highest, "warned": sorted(self.warned)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.highest, self.warned = dict(state["highest"]), set(state["warned"])

    def __call__(self, engine: Engine) -> list[str]:
        """Check the epoch's metrics; returns the warnings that were logged."""
        warnings: list[str] = []
        for key, problem in self._problems(engine.state.metrics):
            if key not in self.warned and engine.state.epoch > self.after:
                self.warned.add(key)
                warnings.append(f"Epoch {engine.state.epoch}: possible collapse, {problem}.")
                logger.warning(warnings[-1])
        return warnings

    def _problems(self, metrics: dict[str, float]) -> list[tuple[str, str]]:
        found = []
        for name in self.names:
            cosine, std = metrics.get(f"{name}_cosine"), metrics.get(f"{name}_std")
            if cosine is not None and cosine > self.max_cosine:
                found.append((f"{name}_cosine", f"mean pairwise cosine of {name}s is {cosine:.3f}"))
            if std is not None and std < self.min_std:
                found.append((f"{name}_std", f"standard deviation of {name}s is {std:.4f}"))
            for key in (f"{name}_std", f"{name}_rank", f"{name}_image_std"):
                if key in metrics:
                    highest = self.highest[key] = max(self.highest.get(key, 0.0), metrics[key])
                    if metrics[key] < self.min_share * highest:
                        found.append((f"{key}_fall", f"{key} fell from {highest:.3g} to {metrics[key]:.3g}"))
        return found
