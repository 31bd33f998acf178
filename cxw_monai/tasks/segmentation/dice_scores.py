"""Dice of films, structure by structure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from monai.metrics import compute_dice

from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import CsvWriter

__all__ = ["DiceScores"]


class DiceScores:
    """Dice of each film and known structure, and their means.

    A film on which prediction and label are both empty has a Dice of 1 (the convention of CheXWorld's evaluation).

    Args:
        structures: names of the S structures.
    """

    def __init__(self, structures: Sequence[str]) -> None:
        self.structures = tuple(structures)
        self.names: list[str] = []
        self.dice: list[np.ndarray] = []

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
            name: what the film is called in the table.
            patient_id: not used here.
            pred, label: bool `[S, H, W]`.
            known: bool `[S]`, which structures were annotated; the others are left out.
            spacing_mm, image: not used here.
        """
        pred_, label_ = (torch.from_numpy(np.ascontiguousarray(masks))[None].float() for masks in (pred, label))
        dice = compute_dice(pred_, label_, include_background=True, ignore_empty=False)[0].numpy()  # [S]
        self.names.append(name)
        self.dice.append(np.where(known, dice, np.nan))

    def summary(self) -> dict[str, float]:
        """`dice_<structure>`: mean over the films where it is known; `dice`: mean of these. Nothing known is left out.

        Raises:
            ValueError: no structure is known on any film.
        """
        table = np.array(self.dice).reshape(-1, len(self.structures))
        means = {
            f"dice_{name}": float(column[~np.isnan(column)].mean())
            for name, column in zip(self.structures, table.T, strict=True)
            if not np.isnan(column).all()
        }
        if not means:
            raise ValueError(f"None of the {len(table)} films has a known mask of {', '.join(self.structures)}.")
        return {"dice": float(np.mean(list(means.values()))), **means}

    def write(self, folder: str | Path) -> None:
        """Write `films.csv` (a row a film, empty where unknown) and `summary.json`."""
        folder = Path(folder)
        with atomic_file(folder / "films.csv", "w", newline="", encoding="utf-8") as stream:
            writer = CsvWriter(stream)
            writer.writerow(["film", *(f"dice_{name}" for name in self.structures)])
            for name, dice in zip(self.names, self.dice, strict=True):
                writer.writerow([name, *("" if np.isnan(value) else f"{value:.5f}" for value in dice)])
        with atomic_file(folder / "summary.json", "w") as stream:
            json.dump({"films": len(self.names), **self.summary()}, stream, indent=1)
