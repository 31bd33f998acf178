"""The films of a fine-tuning task: those of a manifest by split or subset, and the cached ones by number."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from os import PathLike
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from cxw_monai.data.cache import RadiographCache
from cxw_monai.data.splits import Splits, split_items
from cxw_monai.io.results.film_names import film_name

__all__ = ["SUBSETS", "ManifestFilms", "log_splits", "splits_of", "subset_of", "warn_of_anatomy"]

SUBSETS = ("train", "validation", "test", "all")

_logger = logging.getLogger(__name__)

Item = dict[str, Any]
Read = Callable[[str | PathLike[str]], list[Item]]
"""Gives the films of a manifest that a task can use."""


def splits_of(
    read: Read,
    datalist: str | PathLike[str],
    splits: str = "patient",
    val_fraction: float = 0.1,
    test_fraction: float = 0.0,
    test_datalist: str | PathLike[str] | None = None,
    seed: int = 0,
) -> Splits:
    """Films for training, validation and test, each patient on one side.

    Args:
        read: see the type.
        datalist: the manifest.
        splits: `patient` draws validation and test patients; `column` follows the manifest's column `split`
            (`training`, `validation`, `test`) and draws validation patients where it has none.
        val_fraction: share of the patients that are drawn for validation.
        test_fraction: share of all patients that are drawn for the test; 0 for none.
        test_datalist: a manifest of its own for the test, in the place of the first one's.
        seed: another seed, another draw.

    Raises:
        ValueError: a setting out of its range, films without a split, a patient on two sides, no film to train on, or
            a film that is in both manifests.
    """
    parts = split_items(read(datalist), splits, val_fraction, test_fraction, seed, str(datalist))
    if test_datalist:
        test = read(test_datalist)
        used = {item["image"] for item in (*parts.train, *parts.validation)}
        again = [item["image"] for item in test if item["image"] in used]
        if again:
            raise ValueError(f"{test_datalist}: {len(again)} of its films are also in {datalist}, such as {again[0]}.")
        parts = parts._replace(test=test)
    return parts


def log_splits(parts: Splits) -> None:
    """Log how many films each part has."""
    _logger.info("Films: %s.", ", ".join(f"{len(part)} {name}" for name, part in parts._asdict().items()))


def warn_of_anatomy(anatomy: str, items: Sequence[Item]) -> None:
    """Warn where films are of another anatomy, by the manifest's column `anatomy`, than the settings say."""
    others = sorted({str(item["anatomy"]) for item in items if item.get("anatomy") not in (None, "")} - {anatomy})
    if others:
        _logger.warning(
            "The films' anatomy is %s by the manifest, and %s by the settings: set anatomy to what they show, for "
            "inference checks films for being frontal chests where it is chest.",
            ", ".join(others),
            anatomy,
        )


def subset_of(
    subset: str, datalist: str | PathLike[str], split: Callable[[], Splits], everything: Callable[[], list[Item]]
) -> list[Item]:
    """The films of one subset for an evaluation.

    Args:
        subset: `train`, `validation` or `test`, or `all` films of the manifest.
        datalist: the manifest, for messages.
        split, everything: give the parts, and all films.

    Raises:
        ValueError: an unknown or empty subset.
    """
    if subset not in SUBSETS:
        raise ValueError(f"subset must be one of {', '.join(SUBSETS)}, got {subset!r}.")
    if subset == "all":
        return everything()
    items: list[Item] = getattr(split(), subset)
    if not items:
        raise ValueError(
            f"{datalist}: its {subset} subset is empty; set test_fraction, test_datalist or splits, or 'all'."
        )
    return items


class ManifestFilms:
    """Cached radiographs with what the manifest says of them.

    Args:
        cache: the radiographs; None for no films.
    """

    def __init__(self, cache: RadiographCache | None) -> None:
        self.cache = cache

    @property
    def items(self) -> Sequence[Item]:
        """The manifest's fields of each film."""
        return [] if self.cache is None else self.cache.items

    def __len__(self) -> int:
        return len(self.items)

    def image(self, index: int) -> np.ndarray:
        """uint8 or uint16 `[1, h, w]`, bone bright; a read-only view.

        Raises:
            CacheError: the film is not what its checksum says.
            IndexError: there are no films.
        """
        return self._stored.image(index)

    @property
    def _stored(self) -> RadiographCache:
        if self.cache is None:
            raise IndexError("there are no films")
        return self.cache

    def name(self, index: int) -> str:
        """The manifest's `id` of a film, or its file's name; its path where another film has the same."""
        name = self._short_name(index)
        return film_name(self.items[index]["image"]) if name in self._shared_names else name

    def _short_name(self, index: int) -> str:
        item = self.items[index]
        return str(item.get("id") or PurePosixPath(film_name(item["image"])).stem)

    @cached_property
    def _shared_names(self) -> set[str]:
        return {name for name, films in Counter(map(self._short_name, range(len(self)))).items() if films > 1}

    def patient(self, index: int) -> str | None:
        """The manifest's `patient_id` of a film."""
        patient = self.items[index].get("patient_id")
        return None if patient in (None, "") else str(patient)
