"""Import paths of version 0.1, which work until version 0.3, each with a warning that names the new one."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, ModuleType
from typing import Any

__all__ = ["MOVED", "install", "new_name", "old_names"]

MOVED = {
    "cxw_monai.bundle_files": "cxw_monai.weights.bundles",
    "cxw_monai.checkpoints": "cxw_monai.weights.official",
    "cxw_monai.data.cache_store": "cxw_monai.data.store",
    "cxw_monai.data.cache_writer": "cxw_monai.data.store_writer",
    "cxw_monai.data.cells": "cxw_monai.data.schema",
    "cxw_monai.data.drr": "cxw_monai.rendering",
    "cxw_monai.data.images": "cxw_monai.inference.films",
    "cxw_monai.data.public": "cxw_monai.datasets",
    "cxw_monai.data.public.films": "cxw_monai.datasets.made_files",
    "cxw_monai.data.public.rasterise": "cxw_monai.datasets.masks",
    "cxw_monai.data.segmentation": "cxw_monai.tasks.segmentation.dataset",
    "cxw_monai.data.segmentation_items": "cxw_monai.tasks.segmentation.items",
    "cxw_monai.data.world_views": "cxw_monai.tasks.pretraining.dataset",
    "cxw_monai.encoder_files": "cxw_monai.weights.encoder",
    "cxw_monai.engines": "cxw_monai.training",
    "cxw_monai.engines.best_model": "cxw_monai.training.best_model",
    "cxw_monai.engines.dice_scores": "cxw_monai.tasks.segmentation.dice_scores",
    "cxw_monai.engines.fine_tuning_state": "cxw_monai.training.run_state",
    "cxw_monai.engines.iteration": "cxw_monai.tasks.pretraining.step",
    "cxw_monai.engines.monitors": "cxw_monai.tasks.pretraining.monitors",
    "cxw_monai.engines.schedules": "cxw_monai.training.schedules",
    "cxw_monai.engines.segmentation": "cxw_monai.tasks.segmentation.step",
    "cxw_monai.evaluation": "cxw_monai.inference",
    "cxw_monai.evaluation.descriptors": "cxw_monai.metrics.descriptors",
    "cxw_monai.evaluation.embeddings": "cxw_monai.inference.embeddings",
    "cxw_monai.evaluation.implausible": "cxw_monai.inference.predictor",
    "cxw_monai.evaluation.measurements": "cxw_monai.inference.measurements",
    "cxw_monai.evaluation.pictures": "cxw_monai.tasks.pretraining.pictures",
    "cxw_monai.evaluation.probe_files": "cxw_monai.metrics.probe_files",
    "cxw_monai.evaluation.probes": "cxw_monai.metrics.probes",
    "cxw_monai.evaluation.pseudo_labels": "cxw_monai.inference.pseudo_labels",
    "cxw_monai.evaluation.segment": "cxw_monai.inference.run",
    "cxw_monai.evaluation.segment_inputs": "cxw_monai.inference.settings",
    "cxw_monai.evaluation.segmentation_metrics": "cxw_monai.metrics.segmentation",
    "cxw_monai.evaluation.segmentation_output": "cxw_monai.inference.outputs",
    "cxw_monai.evaluation.segmentation_pictures": "cxw_monai.tasks.segmentation.pictures",
    "cxw_monai.evaluation.segmentation_report": "cxw_monai.tasks.segmentation.report",
    "cxw_monai.evaluation.segmentation_scores": "cxw_monai.tasks.segmentation.scores",
    "cxw_monai.evaluation.world_model": "cxw_monai.tasks.pretraining.evaluation",
    "cxw_monai.geometry": "cxw_monai.transforms.geometry",
    "cxw_monai.io.atomic": "cxw_monai.io.files.atomic",
    "cxw_monai.io.csv_files": "cxw_monai.io.files.csv_files",
    "cxw_monai.io.dicom_attributes": "cxw_monai.io.dicom.attributes",
    "cxw_monai.io.dicom_bits": "cxw_monai.io.dicom.bits",
    "cxw_monai.io.dicom_file": "cxw_monai.io.dicom.file",
    "cxw_monai.io.dicom_luts": "cxw_monai.io.dicom.luts",
    "cxw_monai.io.dicom_pixels": "cxw_monai.io.dicom.pixels",
    "cxw_monai.io.dicom_seg": "cxw_monai.io.results.dicom_seg",
    "cxw_monai.io.dicom_spacing": "cxw_monai.io.dicom.spacing",
    "cxw_monai.io.dicom_stream": "cxw_monai.io.dicom.stream",
    "cxw_monai.io.file_identity": "cxw_monai.io.files.identity",
    "cxw_monai.io.film_classes": "cxw_monai.io.dicom.film_classes",
    "cxw_monai.io.film_names": "cxw_monai.io.results.film_names",
    "cxw_monai.io.film_writers": "cxw_monai.io.monai_writers",
    "cxw_monai.io.grayscale": "cxw_monai.io.dicom.grayscale",
    "cxw_monai.io.image": "cxw_monai.io.radiograph",
    "cxw_monai.io.json_file": "cxw_monai.io.files.json_files",
    "cxw_monai.io.mask_files": "cxw_monai.io.results.mask_files",
    "cxw_monai.io.masks_as_films": "cxw_monai.io.read",
    "cxw_monai.io.nifti": "cxw_monai.io.formats.nifti",
    "cxw_monai.io.nrrd": "cxw_monai.io.formats.nrrd",
    "cxw_monai.io.output_lock": "cxw_monai.io.results.folders",
    "cxw_monai.io.overlay": "cxw_monai.io.results.overlay",
    "cxw_monai.io.own_files": "cxw_monai.io.files.own_files",
    "cxw_monai.io.pictures": "cxw_monai.io.formats.pictures",
    "cxw_monai.io.printable": "cxw_monai.io.files.printable",
    "cxw_monai.io.raster": "cxw_monai.io.formats.raster",
    "cxw_monai.io.reader": "cxw_monai.io.monai_reader",
    "cxw_monai.io.result_folders": "cxw_monai.io.results.folders",
    "cxw_monai.io.shown": "cxw_monai.io.files.printable",
    "cxw_monai.io.slices": "cxw_monai.io.formats.slices",
    "cxw_monai.io.structure_codes": "cxw_monai.io.structures",
    "cxw_monai.io.zip_members": "cxw_monai.io.files.zip_members",
    "cxw_monai.loading": "cxw_monai.inference.api",
    "cxw_monai.networks.film_model": "cxw_monai.networks.whole_film_network",
    "cxw_monai.networks.regularisers": "cxw_monai.losses.regularisers",
    "cxw_monai.pixel_map": "cxw_monai.io.pixel_map",
    "cxw_monai.quality.workers": "cxw_monai.quality.isolation",
    "cxw_monai.segmenter_checkpoints": "cxw_monai.weights.segmenter",
    "cxw_monai.segmenter_settings": "cxw_monai.weights.segmenter_settings",
    "cxw_monai.transforms.rendering": "cxw_monai.transforms.view_crops",
    "cxw_monai.weight_files": "cxw_monai.weights.files",
}
"""Old module or package -> new one. What lies below a package has moved with it unless it has a line of its own."""


def new_name(old: str) -> str | None:
    """Where a module of version 0.1 stands now; None for one that has not moved."""
    parts = old.split(".")
    for end in range(len(parts), 1, -1):
        found = MOVED.get(".".join(parts[:end]))
        if found is not None:
            return ".".join([found, *parts[end:]])
    return None


def _warned(old: str) -> str:
    """The new name of a module, with a warning that states it."""
    new = new_name(old)
    assert new is not None
    warnings.warn(f"{old} is {new} since version 0.2; the old path will be gone in 0.3.", FutureWarning, stacklevel=3)
    return new


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the module of the new name and gives it under the old one too."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        new = new_name(fullname)
        found = None if new is None else importlib.util.find_spec(new)
        if found is None:
            return None
        is_package = found.submodule_search_locations is not None
        return importlib.machinery.ModuleSpec(fullname, self, origin=found.origin, is_package=is_package)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = importlib.import_module(_warned(spec.name))
        spec.loader_state = module.__spec__
        return module

    def get_code(self, fullname: str) -> CodeType | None:
        """For `python -m` of an old path."""
        found = importlib.util.find_spec(_warned(fullname))
        return None if found is None else found.loader.get_code(found.name)  # type: ignore[union-attr]

    def exec_module(self, module: ModuleType) -> None:
        """The module has been executed under its new name, and keeps that."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


def install() -> None:
    """Let old paths be found: first, since a package under its old path would find its modules a second time."""
    if not any(isinstance(one, _Finder) for one in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def old_names(module: str, renamed: Mapping[str, Any]) -> Callable[[str], Any]:
    """A module's `__getattr__` that gives what has another name, or place, since version 0.1, with a warning.

    Args:
        module: its name.
        renamed: old name -> what it is now, or its `module:name` where importing that at once would be circular.
    """

    def find(name: str) -> Any:
        if name not in renamed:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        found = renamed[name]
        if isinstance(found, str):
            place, found_name = found.split(":")
            found = getattr(importlib.import_module(place), found_name)
        new = f"{found.__module__}.{found.__name__}"
        warnings.warn(f"{module}.{name} is {new} since version 0.2; it goes in 0.3.", FutureWarning, stacklevel=2)
        return found

    return find
