"""The public data sets this package prepares: every module here that has a ``DATASET``."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from cxw_monai.data.schema import Record

__all__ = ["Option", "PublicDataset", "datasets"]


@dataclass(frozen=True)
class Option:
    """A setting of one data set, and its flag on the command line (``frontal_only``: ``--frontal-only``).

    Attributes:
        name: the keyword of the data set's ``prepare``.
        default: gives the type too; of a bool, it is False and the flag takes no value.
        help: one line.
        choices: the values allowed; empty for any.
    """

    name: str
    default: Any
    help: str
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True)
class PublicDataset:
    """How to prepare one data set.

    Attributes:
        name: on the command line.
        title: its published name.
        url: where it is published; errors about missing files point to it.
        terms: of use, in a line.
        split: where the split comes from, in a line.
        makes: labels, masks, ... of the records, in a line.
        prepare: ``prepare(job, **options)`` gives the records: ``image`` absolute, masks that :func:`write_masks`
            made relative to the output folder, ``split`` set. What is dropped is noted (:meth:`Job.note`).
        options: settings beside those that all data sets have.
    """

    name: str
    title: str
    url: str
    terms: str
    split: str
    makes: str
    prepare: Callable[..., Iterable[Record]]
    options: tuple[Option, ...] = ()


def datasets() -> dict[str, PublicDataset]:
    """The data sets by name, in alphabetical order."""
    package = import_module(__package__)
    modules = [import_module(f"{__package__}.{module.name}") for module in pkgutil.iter_modules(package.__path__)]
    found = {module.DATASET.name: module.DATASET for module in modules if hasattr(module, "DATASET")}
    return dict(sorted(found.items()))
