"""The reader as MONAI takes it: an image reader for ``LoadImage``, and a dictionary transform.

MONAI's ``LoadImage`` catches whatever a reader's ``read`` raises and tries the next reader that is installed, which may
give the same film transposed or inverted. What ``get_data`` raises it lets through. So ``read`` opens nothing here.

``meta`` of the MetaTensor holds only what ``list_data_collate`` can put into a batch: numbers, texts and arrays, always
under the same keys, no None.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from os import PathLike
from typing import Any, Union

import numpy as np
from monai.config import KeysCollection
from monai.data import ImageReader, MetaTensor, is_supported_format
from monai.transforms import MapTransform
from monai.utils import ensure_tuple
from monai.utils.enums import MetaKeys

from .monai_writers import register_film_writers
from .radiograph import MAX_PIXELS, Radiograph, RadiographError
from .read import read_radiograph
from .scaling import GreyOptions

__all__ = ["LoadRadiographd", "RadiographReader", "monai_meta"]

register_film_writers()

_Path = Union[str, PathLike[Any]]
_SUFFIXES = ["dcm", "dicom", "png", "jpg", "jpeg", "tif", "tiff", "nii", "nii.gz", "nrrd"]


def monai_meta(radiograph: Radiograph) -> dict[str, Any]:
    """Meta data of a radiograph in a form that MONAI's readers, transforms and collation take.

    Returns:
        - ``filename_or_obj`` (str), ``spatial_shape`` (``[2]`` rows, columns), ``original_channel_dim`` (0).
        - ``affine``, ``original_affine``: float64 ``[4, 4]`` from (row, column) to RAS+ mm, as the masks that the
          package writes have it: rows run to posterior, which is down, columns to the patient's left, from the origin.
          Where the spacing is unknown a pixel is 1 wide, which says nothing.
        - ``spacing_known`` (bool) and ``spacing_mm`` (``[2]`` row, column; NaN where unknown): ask these.
        - ``bits`` (int), ``original_shape`` (``[2]``), ``photometric``, ``intent``, ``view``, ``laterality`` (str,
          empty where unknown).
        - ``steps`` (str): the steps, joined by ``"; "``.
        - ``pixel_map`` (str): :meth:`PixelMap.to_json <cxw_monai.io.pixel_map.PixelMap.to_json>`.
    """
    meta = radiograph.meta
    spacing = meta["spacing_mm"]
    shape = np.array(radiograph.array.shape[1:])
    found: dict[str, Any] = {
        "filename_or_obj": meta["path"],
        str(MetaKeys.SPATIAL_SHAPE): shape,
        str(MetaKeys.ORIGINAL_CHANNEL_DIM): 0,
        "spacing_known": spacing is not None,
        "spacing_mm": np.array((np.nan, np.nan) if spacing is None else spacing, dtype=np.float64),
        "original_shape": np.array(meta["original_shape"]),
        "bits": meta["bits"],
        **{name: meta[name] or "" for name in ("photometric", "intent", "view", "laterality")},
        "steps": "; ".join(meta["steps"]),
        "pixel_map": meta["pixel_map"].to_json(),
    }
    row, column = spacing or (1.0, 1.0)
    for key in (MetaKeys.AFFINE, MetaKeys.ORIGINAL_AFFINE):
        found[str(key)] = np.array([[0, -column, 0, 0], [-row, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=np.float64)
    return found


class RadiographReader(ImageReader):
    """:func:`~cxw_monai.io.read_radiograph` as a reader for MONAI's ``LoadImage`` and ``LoadImaged``.

    Use it as ``LoadImaged(keys, reader=RadiographReader(...))``. The array is ``[1, H, W]``, rows first (MONAI's own
    readers of PNG and JPEG transpose), with or without ``ensure_channel_first``; the affine says which axis runs
    down, and :mod:`cxw_monai.io.monai_writers` lets ``SaveImage`` write it upright.

    Args:
        voi: see :func:`~cxw_monai.io.read_radiograph`, as for the following.
        voi_item: which VOI LUT or window.
        window: ``(center, width)`` to apply.
        percentiles: ``(low, high)`` percentiles to become 0 and 1.
        min_size: the least number of pixels on the shorter side.
        max_pixels: the most pixels that are decoded.

    Raises:
        ValueError: an argument is wrong.
    """

    def __init__(
        self,
        voi: str = "auto",
        voi_item: int | str = 0,
        window: tuple[float, float] | None = None,
        percentiles: tuple[float, float] | None = None,
        min_size: int = 16,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        super().__init__()
        GreyOptions(voi, voi_item, window, percentiles)  # wrong arguments show now
        self.options: dict[str, Any] = {"voi": voi, "voi_item": voi_item, "window": window, "percentiles": percentiles}
        self.options |= {"min_size": min_size, "max_pixels": max_pixels}

    def verify_suffix(self, filename: Sequence[_Path] | _Path) -> bool:
        """Whether the name may be a radiograph's; the content decides later."""
        return is_supported_format(filename, _SUFFIXES)

    def read(self, data: Sequence[_Path] | _Path, **kwargs: Any) -> tuple[_Path, ...]:
        """The file names, unopened: MONAI hides what is raised here."""
        return ensure_tuple(data)

    def get_data(self, img: Sequence[_Path]) -> tuple[np.ndarray, dict[str, Any]]:
        """Read the file whose name :meth:`read` gave.

        Returns:
            ``(float32 [1, H, W] in [0, 1], meta)``, see :func:`monai_meta`.

        Raises:
            RadiographError: several files, or one that can't be read.
        """
        if len(img) != 1:
            raise RadiographError(img[0] if img else "", f"{len(img)} files for one radiograph", "give one file")
        radiograph = read_radiograph(img[0], **self.options)
        return radiograph.array, monai_meta(radiograph)


class LoadRadiographd(MapTransform):
    """Load radiographs as MetaTensors ``[1, H, W]``, float32 in [0, 1], bone bright; plain tensors without tracking.

    The same as ``LoadImaged`` with :class:`RadiographReader`, without MONAI's other readers.

    Args:
        keys: keys that hold paths; the images take their places.
        *args: as for :class:`RadiographReader`.
        allow_missing_keys: leave out keys that aren't there.
        **kwargs: as for :class:`RadiographReader`.

    Raises:
        ValueError: an argument is wrong.
    """

    def __init__(self, keys: KeysCollection, *args: Any, allow_missing_keys: bool = False, **kwargs: Any) -> None:
        super().__init__(keys, allow_missing_keys)
        self.reader = RadiographReader(*args, **kwargs)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load each key.

        Raises:
            RadiographError: a file can't be read.
        """
        d = dict(data)
        for key in self.key_iterator(d):
            array, meta = self.reader.get_data(self.reader.read(d[key]))
            d[key] = MetaTensor.ensure_torch_and_prune_meta(array, meta)
        return d
