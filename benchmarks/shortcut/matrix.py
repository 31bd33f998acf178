"""The masking matrix: AUROC of a classifier on each variant of the films, and what is left without the region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cxw_monai.metrics.classification import Score, label_table
from cxw_monai.metrics.probes import bootstrap_weights, grouped_auroc

from .masking import FILLS, VARIANTS

__all__ = ["SUSPECT", "LabelMatrix", "label_matrices"]

SUSPECT = 0.5
"""A classifier is suspect if more than this share of what it is better than chance by is left without the region."""


@dataclass(frozen=True)
class LabelMatrix:
    """One label's matrix.

    Attributes:
        label: its name.
        films, positives: with a region and a known label.
        auroc: by variant and fill; `full` with each fill.
        left: by variant (`no_region`, `no_box`) and fill, (AUROC - .5) / (AUROC of the whole film - .5), of the same
            resampled patients; empty where the whole film's AUROC is not above .5 with its interval.
    """

    label: str
    films: int
    positives: int
    auroc: Mapping[tuple[str, str], Score]
    left: Mapping[tuple[str, str], Score]

    def least_left(self, variant: str) -> float:
        """The smallest share that is left of a variant, since a fill may itself be a cue; 0 for less than chance."""
        return max(0.0, min(self.left[variant, fill].value for fill in FILLS))

    @property
    def verdict(self) -> str:
        """One sentence. Without the region, its outline is still to be seen; without its box, it isn't."""
        if not self.left:
            return "no better than chance on whole films: nothing to test"
        region, box = (self.least_left(variant) for variant in ("no_region", "no_box"))
        found = f"{region:.0%} is left without the region, {box:.0%} without its box"
        if region <= SUSPECT:
            return found
        return f"{found}: {'suspect, it reads something else' if box > SUSPECT else 'it may read the outline'}"


def label_matrices(
    probability: Mapping[tuple[str, str], np.ndarray],
    label: np.ndarray,
    names: Sequence[str],
    patients: Sequence[str],
    draws: int = 1000,
    seed: int = 0,
) -> list[LabelMatrix]:
    """Matrices of all labels that some films have and some haven't.

    Args:
        probability: `[N, L]` by variant and fill.
        label: `[N, L]` of 0, 1 and NaN for unknown.
        names: L.
        patients: N ids, resampled with all of their films.
        draws, seed: of the bootstrap.

    Raises:
        ValueError: labels of another shape or value, or a variant and fill that is missing.
    """
    table, ids = label_table(label, len(names)), np.array([str(patient) for patient in patients])
    cells = [(name, fill) for name in VARIANTS for fill in FILLS]
    if missing := [cell for cell in cells if cell not in probability]:
        raise ValueError(f"no probabilities of {missing[0]}.")
    found = []
    for one, name in enumerate(names):
        known = ~np.isnan(table[:, one])
        positive = table[known, one] == 1
        if positive.all() or not positive.any():
            continue
        weights = bootstrap_weights(ids[known], draws, seed)
        together = np.zeros(len(positive), int)
        drawn = {cell: grouped_auroc(probability[cell][known, one], positive, together, weights) for cell in cells}
        auroc = {cell: Score.of(values) for cell, values in drawn.items()}
        whole = auroc["full", FILLS[0]]
        left = {}
        if min(whole.value, whole.value if whole.low is None else whole.low) > 0.5:
            above = drawn["full", FILLS[0]] - 0.5
            above = np.where(above > 0, above, np.nan)
            for variant in ("no_region", "no_box"):
                for fill in FILLS:
                    left[variant, fill] = Score.of((drawn[variant, fill] - 0.5) / above)
        found.append(LabelMatrix(name, len(positive), int(positive.sum()), auroc, left))
    return found
