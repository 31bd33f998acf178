"""Dice of films and structures: what validation needs, and what the full scores of a test share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_dice

from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import CsvWriter
from cxw_monai.metrics.segmentation import nan_mean

__all__ = ["DiceScores"]


class DiceScores:
    """Dice of each film and known structure, and their means.

    A film on which prediction and label are both empty has a Dice of 1 (the convention of CheXWorld's evaluation).

    Args:
        structures: names of the S structures.
    """

    columns: tuple[str, ...] = ("dice",)
    """Metrics in `films.csv`, one column a structure."""

    def __init__(self, structures: Sequence[str]) -> None:
        self.structures = tuple(structures)
        self.names: list[str] = []
        self.patients: list[str | None] = []
        self.metrics: list[dict[str, np.ndarray]] = []

    def measure(
        self, pred: np.ndarray, label: np.ndarray, known: np.ndarray, spacing_mm: tuple[float, float] | None
    ) -> dict[str, np.ndarray]:
        """Metrics `[S]` of a film by name, `dice` among them; NaN where unknown. See `add`."""
        batch = [torch.from_numpy(np.ascontiguousarray(masks))[None].float() for masks in (pred, label)]
        dice = compute_dice(batch[0], batch[1], ignore_empty=False)[0].double().numpy()  # [S]
        return {"dice": np.where(known, dice, np.nan)}

    def add(
        self,
        name: str,
        patient_id: str | None,
        pred: np.ndarray,
        label: np.ndarray,
        known: np.ndarray,
        spacing_mm: tuple[float, float] | None = None,
        image: np.ndarray | None = None,
    ) -> None:
        """Add a film.

        Args:
            name: what the film is called in tables and page.
            patient_id: films of one patient are resampled together; written nowhere. None for a patient of its own.
            pred, label: bool `[S, H, W]`.
            known: bool `[S]`, which structures were annotated; the others are left out.
            spacing_mm: row and column spacing, None where it is not known.
            image: uint8 or uint16 `[H, W]`, bone bright, for a page; None leaves the film out of it.

        Raises:
            ValueError: arrays of other shapes.
        """
        metrics = self.measure(pred, label, known, spacing_mm)
        if len(known) != len(self.structures):
            raise ValueError(f"{name}: {len(known)} masks for the structures {', '.join(self.structures)}.")
        self.names.append(name)
        self.patients.append(patient_id)
        self.metrics.append(metrics)
        if image is not None and known.any():
            self.show(name, image, pred, label, spacing_mm)

    def show(
        self, name: str, image: np.ndarray, pred: np.ndarray, label: np.ndarray, spacing_mm: tuple[float, float] | None
    ) -> None:
        """Keep the film that was added last for a page; here there is none."""

    def values(self) -> dict[str, np.ndarray]:
        """`[N, S]` by the names that `measure` gives.

        Raises:
            ValueError: no films.
        """
        if not self.metrics:
            raise ValueError("no film was scored; check the list of films.")
        return {name: np.stack([metrics[name] for metrics in self.metrics]) for name in self.metrics[0]}

    def summary(self) -> dict[str, float]:
        """`dice_<structure>`: mean over the films where it is known; `dice`: mean of these. Nothing known is left out.

        Raises:
            ValueError: no structure is known on any film.
        """
        means = nan_mean(self.values()["dice"], axis=0)  # [S]
        if np.isnan(means).all():
            raise ValueError(f"None of the {len(self.names)} films has a known mask of {', '.join(self.structures)}.")
        known = {f"dice_{s}": float(mean) for s, mean in zip(self.structures, means, strict=True) if mean == mean}
        return {"dice": float(nan_mean(means, axis=0)), **known}

    def write(self, folder: str | Path) -> None:
        """Write `films.csv` (a row a film, `<metric>_<structure>`, empty where unknown) and `summary.json`.

        Raises:
            ValueError: no structure is known on any film.
        """
        self.write_tables(Path(folder), {})

    def write_tables(self, folder: Path, details: Mapping[str, Any]) -> None:
        """As `write`, with more `details` in `summary.json`."""
        summary = self.summary()
        columns = [f"{name}_{structure}" for name in self.columns for structure in self.structures]
        values = self.values()
        rows = np.concatenate([values[name] for name in self.columns], axis=1)  # [N, columns * S]
        with atomic_file(folder / "films.csv", "w", newline="", encoding="utf-8") as stream:
            writer = CsvWriter(stream)
            writer.writerow(["film", *columns])
            for name, row in zip(self.names, rows, strict=True):
                writer.writerow([name, *("" if np.isnan(value) else f"{value:.5f}" for value in row)])
        with atomic_file(folder / "summary.json", "w", encoding="utf-8") as stream:
            json.dump({"films": len(self.names), **summary, **details}, stream, indent=1, allow_nan=False)
