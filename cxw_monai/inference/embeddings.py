"""Embeddings of a folder of radiographs, written to `.npz` and CSV."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, cast

import numpy as np
from ignite.engine import Engine, Events

from cxw_monai.io import RadiographError
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import CsvWriter
from cxw_monai.io.results.film_names import film_name

from .films import FilmDataset

__all__ = ["EmbeddingWriter"]

logger = logging.getLogger(__name__)


class EmbeddingWriter:
    """Ignite handler that gathers an evaluator's predictions and writes them when the run is complete.

    `embeddings.npz` holds `embeddings` float32 `[N, D]`, `image` (paths), and `patches` float16 `[N, D, rows, columns]`
    when the network gives patch embeddings (their mean is then the embedding). `embeddings.csv` has a row an image: its
    path (as :func:`~cxw_monai.io.results.film_names.film_name` writes it), its other fields in the datalist, and the
    embedding's numbers `e0 ... `.

    Films that can't be read stop the run, or are left out and listed in `skipped_inference.csv` (`path,reason`).

    Args:
        folder: where the files go.
        films: what is run; a batch's `index` refers to its `items`.
        on_error: `raise` stops at the first film that can't be read, `skip` leaves such films out.

    Raises:
        ValueError: another `on_error`; in the run: embeddings that are no numbers, or no film that can be read.
        RadiographError: in the run: a film can't be read.
    """

    def __init__(self, folder: str | Path, films: FilmDataset, on_error: str = "raise") -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
        self.folder, self.films, self.on_error = Path(folder), films, on_error
        self.pooled: dict[int, np.ndarray] = {}
        self.patches: dict[int, np.ndarray] = {}
        self.skipped: dict[int, RadiographError] = {}

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.ITERATION_STARTED, self._skip)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._gather)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _started(self, engine: Engine) -> None:
        self.pooled.clear()
        self.patches.clear()
        self.skipped.clear()

    def _skip(self, engine: Engine) -> None:
        batch: Any = engine.state.batch
        for index, reason, remedy in zip(batch["index"].tolist(), batch["reason"], batch["remedy"], strict=True):
            if not reason:
                continue
            error = RadiographError(self.films.items[index]["image"], reason, remedy)
            if self.on_error == "raise":
                raise error
            logger.warning("skipped %s", error)
            self.skipped[index] = error

    def _gather(self, engine: Engine) -> None:
        output, batch = cast("Any", engine.state.output), cast("Any", engine.state.batch)
        predictions = output["pred"].detach().float()  # [B, D] or [B, D, rows, columns]
        if not predictions.isfinite().all():
            raise ValueError("the network's embeddings hold NaN or infinite values; check the file of --ckpt")
        indices = batch["index"].tolist()
        pooled = predictions if predictions.ndim == 2 else predictions.mean(dim=(2, 3))
        self.pooled.update(zip(indices, pooled.cpu().numpy(), strict=True))
        if predictions.ndim == 4:
            self.patches.update(zip(indices, predictions.half().cpu().numpy(), strict=True))

    def _write(self, engine: Engine) -> None:
        order = sorted(self.pooled.keys() - self.skipped.keys())
        if self.on_error == "skip":
            self._write_skipped()
        if not order:
            first = next(iter(self.skipped.values()))
            raise ValueError(f"none of the {len(self.skipped)} films can be used; the first: {first}")
        pooled = np.stack([self.pooled[i] for i in order])  # [N, D]
        items = [self.films.items[i] for i in order]
        arrays: dict[str, Any] = {"embeddings": pooled, "image": np.array([str(item["image"]) for item in items])}
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

    def _write_skipped(self) -> None:
        with atomic_file(self.folder / "skipped_inference.csv", "w", newline="", encoding="utf-8") as file:
            writer = CsvWriter(file)
            writer.writerow(["path", "reason"])
            writer.writerows([film_name(error.path), error.reason] for _, error in sorted(self.skipped.items()))
