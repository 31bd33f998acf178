"""Ridge regression with patients held out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

__all__ = ["FOLDS", "folds_of", "held_out_predictions"]

FOLDS = 4
PENALTY = 1e-2


def folds_of(patients: np.ndarray, count: int = FOLDS, seed: int = 0) -> Iterator[np.ndarray]:
    """Which films are held out, bool `[N]`, fold by fold; a patient is in one fold only.

    Raises:
        ValueError: there are fewer patients than folds.
    """
    names = np.unique(patients)
    if len(names) < count:
        raise ValueError(f"{count} folds need films of at least {count} patients, got {len(names)}")
    fold = np.random.default_rng(seed).permutation(len(names)) % count
    for number in range(count):
        yield np.isin(patients, names[fold == number])


def held_out_predictions(values: np.ndarray, wanted: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Predictions for films by a ridge regression that is fitted to those of other patients.

    Args:
        values: `[N, m, D]`, m vectors a film; standardised.
        wanted: `[N, m, k]`.
        patients: `[N]`.

    Returns:
        `[N, m, k]`. The penalty is a hundredth of each (standardised) channel's variance.
    """
    values, found = values.astype(np.float64), np.zeros(wanted.shape)
    for held in folds_of(patients):
        known = values[~held].reshape(-1, values.shape[-1])
        model = make_pipeline(StandardScaler(), Ridge(PENALTY * len(known)))
        model.fit(known, wanted[~held].reshape(len(known), -1))
        found[held] = model.predict(values[held].reshape(-1, values.shape[-1])).reshape(wanted[held].shape)
    return found
