"""Embeddings of a folder of radiographs, written to `.npz` and CSV."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from ignite.engine import Engine, Events

from cxw_monai.data.cache import RadiographCache
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import CsvWriter
from cxw_monai.io.results.film_names import film_name

__all__ = ["EmbeddingWriter"]

logger = logging.getLogger(__name__)


class EmbeddingWriter:
    """Ignite handler that gathers an evaluator's predictions and writes them when the run is complete.

    `embeddings.npz` holds `embeddings` float32 `[N, D]`, `image` (paths), and `patches` float16 `[N, D, rows, columns]`
    when the network gives patch embeddings (their mean is then the embedding). `embeddings.csv` has a row an image: its
    path (as :func:`~cxw_monai.io.results.film_names.film_name` writes it), its other fields in the datalist, and the
    embedding's numbers `e0 ... `.

    Args:
        folder: where the files go.
        cache: the radiographs that are run; a batch's `index` refers to it.
    """

    def __init__(self, folder: str | Path, cache: RadiographCache) -> None:
        self.folder, self.cache = Path(folder), cache
        self.pooled: dict[int, np.ndarray] = {}
        self.patches: dict[int, np.ndarray] = {}

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._gather)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _started(self, engine: Engine) -> None:
        self.pooled.clear()
        self.patches.clear()

    def _gather(self, engine: Engine) -> None:
        predictions = engine.state.output["pred"].detach().float()  # [B, D] or [B, D, rows, columns]
        if not predictions.isfinite().all():
            raise ValueError("the network's embeddings hold NaN or infinite values; check the file of --ckpt")
        indices = engine.state.batch["index"].tolist()
        pooled = predictions if predictions.ndim == 2 else predictions.mean(dim=(2, 3))
        self.pooled.update(zip(indices, pooled.cpu().numpy(), strict=True))
        if predictions.ndim == 4:
            self.patches.update(zip(indices, predictions.half().cpu().numpy(), strict=True))

    def _write(self, engine: Engine) -> None:
        order = sorted(self.pooled)
        pooled = np.stack([self.pooled[i] for i in order])  # [N, D]
        items = [self.cache.items[i] for i in order]
        arrays = {"embeddings": pooled, "image": np.array([str(item["image"]) for item in items])}
        if self.patches:
            arrays["patches"] = np.stack([self.patches[i] for i in order])  # [N, D, rows, columns]
        with atomic_file(self.folder / "embeddings.npz") as file:
            np.savez(file, **arrays)
        fields = list(dict.fromkeys(name for item in items for name in item if name != "image"))
        with atomic_file(self.folder / "embeddings.csv", "w", newline="", encoding="utf-8") as file:
            writer = CsvWriter(file)
            writer.writerow(["image", *fields, *(f"e{i}" for i in range(pooled.shape[1]))])
            for item, embedding in zip(items, pooled, strict=True):
                name = film_name(item["image"])
                writer.writerow([name, *(item.get(field) for field in fields), *(f"{v:.6g}" for v in embedding)])
        logger.info("Wrote embeddings %s of %d images to %s.", pooled.shape[1:], len(items), self.folder)
