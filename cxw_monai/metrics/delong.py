"""DeLong's test: whether two classifiers differ in AUROC on the same films.

DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988; for several films of a patient, Obuchowski, Biometrics 53, 1997.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata

__all__ = ["Comparison", "auroc_covariance", "compare_aurocs"]


@dataclass(frozen=True)
class Comparison:
    """Two AUROCs on the same films.

    Attributes:
        first, second: AUROCs.
        difference: first less second.
        low, high: 95 % interval of the difference, normal approximation.
        p: two-sided, of no difference; 1 where both rank every pair alike.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float


def auroc_covariance(
    scores: np.ndarray, positive: np.ndarray, patients: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """AUROCs of several classifiers and their covariance.

    Args:
        scores: `[M, N]`, of M classifiers on the same N films.
        positive: bool `[N]`.
        patients: N ids, whose films aren't independent; None takes each film as one patient's.

    Returns:
        AUROCs `[M]` and covariance `[M, M]`.

    Raises:
        ValueError: lengths that don't match, or fewer than two patients with or without positive films.
    """
    scores, positive = np.atleast_2d(np.asarray(scores, dtype=np.float64)), np.asarray(positive, dtype=bool)
    groups = np.arange(len(positive)) if patients is None else np.unique(np.array(patients), return_inverse=True)[1]
    if not scores.shape[1] == len(positive) == len(groups):
        raise ValueError(f"scores, positive and patients differ: {scores.shape}, {len(positive)}, {len(groups)}.")
    counts = [len(np.unique(groups[chosen])) for chosen in (positive, ~positive)]
    if min(counts) < 2:
        raise ValueError(f"two patients with and without positive films are needed, got {counts[0]} and {counts[1]}.")
    upper, lower = scores[:, positive], scores[:, ~positive]
    ranks = rankdata(np.concatenate([upper, lower], axis=1), axis=1)
    above = (ranks[:, : upper.shape[1]] - rankdata(upper, axis=1)) / lower.shape[1]  # share of negatives below, [M, P]
    below = 1 - (ranks[:, upper.shape[1] :] - rankdata(lower, axis=1)) / upper.shape[1]  # of positives above, [M, Q]
    auroc = above.mean(axis=1)
    sums = []  # of each patient's films, [M, patients]: how far they are from what the AUROC says
    for values, chosen in ((above, positive), (below, ~positive)):
        far = (values - auroc[:, None]) / chosen.sum()
        sums.append(np.stack([np.bincount(groups[chosen], row, minlength=groups.max() + 1) for row in far]))
    both = len(np.unique(groups))
    cross = sums[0] @ sums[1].T * both / (both - 1)
    within = [part @ part.T * count / (count - 1) for part, count in zip(sums, counts, strict=True)]
    return auroc, within[0] + within[1] + cross + cross.T


def compare_aurocs(
    first: np.ndarray, second: np.ndarray, positive: np.ndarray, patients: Sequence[str] | None = None
) -> Comparison:
    """DeLong's test of two classifiers.

    Args:
        first, second: scores `[N]` of the same films.
        positive, patients: see :func:`auroc_covariance`.

    Raises:
        ValueError: see :func:`auroc_covariance`.
    """
    auroc, covariance = auroc_covariance(np.stack([first, second]), positive, patients)
    difference = float(auroc[0] - auroc[1])
    spread = float(np.sqrt(max(0.0, covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])))
    reach = float(norm.ppf(0.975)) * spread
    p = float(2 * norm.sf(abs(difference) / spread)) if spread > 0 else float(difference == 0)
    return Comparison(float(auroc[0]), float(auroc[1]), difference, difference - reach, difference + reach, p)
