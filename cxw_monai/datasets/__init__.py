"""Public radiograph data sets: from the published folders to a manifest. See ``scripts/prepare_dataset.py``."""

from .prepare import format_counts, prepare_dataset
from .registry import datasets

__all__ = ["datasets", "format_counts", "prepare_dataset"]
