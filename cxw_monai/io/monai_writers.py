"""MONAI's writers for films that :class:`~cxw_monai.io.RadiographReader` read, so that files show them upright.

A film is ``[C, H, W]``, rows first, and its affine says so. MONAI's writers follow the affine where the format keeps
it (NIfTI, NRRD). PNG, JPEG, TIFF and DICOM keep none, and there they take the first axis for the columns, as MONAI's
own readers of these formats give it: the file would be transposed. Importing this module puts writers before MONAI's
own that turn films as their affine says; other images are written as ever. ``SaveImage`` and ``SaveImaged`` find them
by the file's ending; ``writer="PILWriter"`` and its like go past them.

MONAI 1.6 also takes a channel that was there when the film was loaded for a spatial axis once a single channel is
squeezed away, and fails then unless ``resample`` is on; that is mended here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import ITKWriter, MetaTensor, NibabelWriter, PILWriter
from monai.data import image_writer as registry
from monai.data.utils import to_affine_nd
from monai.utils.enums import MetaKeys

__all__ = ["FilmITKWriter", "FilmNibabelWriter", "FilmPictureWriter", "register_film_writers"]

_COLUMNS_THEN_ROWS = nib.orientations.axcodes2ornt("LP", labels=(("L", "R"), ("P", "A")))


def _is_film(meta: Mapping[Any, Any] | None) -> bool:
    return meta is not None and "pixel_map" in meta and MetaKeys.AFFINE in meta


def _turned(values: Any, affine: Any) -> tuple[np.ndarray, np.ndarray]:
    """Values ``[rows, columns, ...]`` as ``[columns, rows, ...]``, columns to the left and rows to posterior.

    Args:
        values: the first two axes in any order and direction.
        affine: theirs, ``[3, 3]`` or ``[4, 4]``.

    Returns:
        The values and their affine ``[3, 3]``.
    """
    flat = to_affine_nd(2, np.asarray(affine, dtype=np.float64))
    turn = nib.orientations.ornt_transform(nib.orientations.io_orientation(flat), _COLUMNS_THEN_ROWS)
    values = np.asarray(values)
    return nib.orientations.apply_orientation(values, turn), flat @ nib.orientations.inv_ornt_aff(
        turn, values.shape[:2]
    )


def _without_channel(values: Any) -> Any:
    """The same, as if the file had no channel of its own."""
    if not isinstance(values, MetaTensor) or not _is_film(values.meta):
        return values
    values = values.clone()
    values.meta[MetaKeys.ORIGINAL_CHANNEL_DIM] = float("nan")
    return values


class FilmPictureWriter(PILWriter):
    """PNG, JPEG, TIFF: films upright."""

    def set_metadata(self, meta_dict: Mapping[Any, Any] | None = None, resample: bool = True, **options: Any) -> None:
        """As MONAI's, then the film is turned."""
        super().set_metadata(meta_dict, resample, **options)
        if meta_dict is not None and _is_film(meta_dict):
            self.data_obj, _ = _turned(self.data_obj, meta_dict[MetaKeys.AFFINE])


class FilmNibabelWriter(NibabelWriter):
    """NIfTI, whose affine is the film's."""

    def set_data_array(self, data_array: Any, channel_dim: int | None = 0, *args: Any, **kwargs: Any) -> None:
        """As MONAI's."""
        super().set_data_array(_without_channel(data_array), channel_dim, *args, **kwargs)


class FilmITKWriter(ITKWriter):
    """DICOM, NRRD and all else that ITK writes: films of one channel upright."""

    def set_data_array(self, data_array: Any, channel_dim: int | None = 0, *args: Any, **kwargs: Any) -> None:
        """As MONAI's."""
        super().set_data_array(_without_channel(data_array), channel_dim, *args, **kwargs)

    def set_metadata(self, meta_dict: Mapping[Any, Any] | None = None, resample: bool = True, **options: Any) -> None:
        """As MONAI's, then the film is turned."""
        super().set_metadata(meta_dict, resample, **options)
        if _is_film(meta_dict) and self.data_obj.ndim == 2:
            self.data_obj, self.affine = _turned(self.data_obj, self.affine)


def register_film_writers() -> None:
    """Put the writers before MONAI's own, once."""
    if not registry.SUPPORTED_WRITERS:
        registry.init()
    pictures = dict.fromkeys(("png", "jpg", "jpeg", "bmp", "tif", "tiff"), (FilmPictureWriter,))
    volumes = dict.fromkeys(("nii", "nii.gz"), (FilmNibabelWriter,))
    others = dict.fromkeys(("nrrd", "dcm", registry.EXT_WILDCARD), (FilmITKWriter,))
    for ending, writers in {**pictures, **volumes, **others}.items():
        there = registry.SUPPORTED_WRITERS.get(ending, registry.SUPPORTED_WRITERS[registry.EXT_WILDCARD])
        if not set(writers) & set(there):
            registry.SUPPORTED_WRITERS[ending] = writers + tuple(there)
