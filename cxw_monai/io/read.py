"""Reads a radiograph of any supported format into the package's one convention.

The format is that of the file's content, not of its name. A reader that fails never falls through to another one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from os import PathLike
from typing import Any

import numpy as np

from cxw_monai.io.dicom.file import is_dicom_header
from cxw_monai.io.dicom.film import read_dicom
from cxw_monai.io.formats.nifti import HEAD_BYTES, is_nifti_header, read_nifti, unzipped_head
from cxw_monai.io.formats.nrrd import is_nrrd_header, read_nrrd
from cxw_monai.io.formats.pictures import refuse_unless_file
from cxw_monai.io.formats.raster import is_raster_header, read_raster

from .radiograph import AGAIN, MAX_PIXELS, Radiograph, RadiographError, errors_of
from .scaling import GreyOptions

__all__ = ["read_radiograph", "reader_options"]

_FORMATS = "give a DICOM, PNG, JPEG, TIFF, 2-D NIfTI or 2-D NRRD file"

_LABELS = 32  # an image whose stored values are all below is a map of labels; so dark a film would show nothing
_MASK_LEVELS = 4  # no film has so few grey levels
_MASK_SIDE = 64  # rows and columns from which on so few levels are conclusive
_FEW_LEVELS = 16  # grey levels of an image that may be a map of labels in colours
_MASK_SHARE = 0.95  # of the pixels, black and white ones, of an image that may be a mask with soft edges
_SAMPLE = 64  # rows and columns that are looked at first, and decide for nearly every film
_MASK_REMEDY = "leave masks out, or give them as masks in a manifest; of a film give the original, or a wider window"

_logger = logging.getLogger(__name__)


def read_radiograph(
    path: str | PathLike[str],
    *,
    voi: str = "auto",
    voi_item: int | str = 0,
    window: tuple[float, float] | None = None,
    percentiles: tuple[float, float] | None = None,
    min_size: int = 16,
    max_pixels: int = MAX_PIXELS,
) -> Radiograph:
    """Read one radiograph.

    Grey values are scaled by the range that the file declares, never by the image's own extremes (unless
    ``percentiles`` asks for it):

    - DICOM: Modality LUT, VOI LUT or window, inversion of MONOCHROME1, declared output range, padding to black
      (:mod:`cxw_monai.io.dicom.film`).
    - PNG, JPEG, TIFF: the depth of the samples; colour becomes luma (:mod:`cxw_monai.io.formats.raster`).
    - NIfTI, NRRD: ``cal_min``/``cal_max``, the unsigned integer type, or floats in [0, 1]
      (:mod:`cxw_monai.io.formats.slices`).

    Formats other than DICOM (and TIFF's WhiteIsZero) don't declare a polarity: they are taken to be bone bright.

    Args:
        path: the file.
        voi: a DICOM's own grey scale. ``"auto"`` applies its VOI LUT, else its window, where it has one; ``"lut"`` or
            ``"window"`` insists on one of them; ``"none"`` keeps the full declared range. No other format has one.
        voi_item: which of several VOI LUTs or windows: its place from 0, or its explanation.
        window: ``(center, width)`` to apply, whatever the file has, in modality values (DICOM) or stored ones.
        percentiles: ``(low, high)`` percentiles of the image's own values to become 0 and 1; recorded in the steps.
        min_size: the least number of pixels on the shorter side.
        max_pixels: the most pixels that are decoded; larger images are refused from their header.

    Returns:
        The radiograph: float32 ``[1, H, W]`` in [0, 1] and its ``meta``.

    Raises:
        RadiographError: the file is missing, empty, truncated, no image, has several frames or is a volume, is a
            colour DICOM, needs a decoder that isn't installed, holds NaN or infinity, is constant, too small or too
            large, a mask or a map of labels (black and white alone, no value of 32 or more at its own depth,
            or four grey levels at most in 64 x 64 pixels or more), a DICOM object
            of another kind (:mod:`cxw_monai.io.dicom.film_classes`), or lacks the VOI LUT or window that is asked for.
        ValueError: an argument is wrong.
    """
    options = GreyOptions(voi, voi_item, window, percentiles)
    head = _read_head(path)
    if is_dicom_header(head):
        read = read_dicom
    elif is_raster_header(head):
        read = read_raster
    elif is_nrrd_header(head):
        read = read_nrrd
    else:
        with errors_of(path, "the gzip stream is truncated or damaged", "copy it again"):
            head = unzipped_head(path)
        if not is_nifti_header(head):
            raise RadiographError(path, "not an image of a known format", _FORMATS)
        read = read_nifti
    radiograph = read(path, options=options, max_pixels=max_pixels)
    radiograph.meta = {"path": str(path), **radiograph.meta}
    _check(radiograph, min_size, options)
    _refuse_mask(radiograph)
    return radiograph


def reader_options(
    voi: str = "auto",
    voi_item: int | str = 0,
    window: Sequence[float] | None = None,
    percentiles: Sequence[float] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> dict[str, Any]:
    """How to read the films of a data set: those arguments of :func:`read_radiograph` that aren't its defaults.

    Raises:
        ValueError: an argument is wrong.
    """
    asked = GreyOptions(voi, voi_item, window, percentiles)  # type: ignore[arg-type]  # lists become tuples there
    if isinstance(max_pixels, bool) or not isinstance(max_pixels, int) or max_pixels < 1:
        raise ValueError(f"max_pixels must be a whole number of at least 1, got {max_pixels!r}")
    given = {**asdict(asked), "max_pixels": max_pixels}
    default = {**asdict(GreyOptions()), "max_pixels": MAX_PIXELS}
    return {name: value for name, value in given.items() if value != default[name]}


def _read_head(path: str | PathLike[str]) -> bytes:
    refuse_unless_file(path)
    try:
        with open(path, "rb") as stream:
            head = stream.read(HEAD_BYTES)  # more than DICOM's 132 and any raster magic
    except OSError as error:
        raise RadiographError(path, f"cannot be opened ({error.strerror})", "check its permissions") from error
    if not head:
        raise RadiographError(path, "the file is empty", AGAIN)
    return head


def _check(radiograph: Radiograph, min_size: int, options: GreyOptions) -> None:
    """Refuse arrays that no model can learn from. They are finite: the formats refuse others."""
    array, path = radiograph.array, radiograph.meta["path"]
    height, width = array.shape[1:]  # [1, H, W]
    if min(height, width) < min_size:
        reason = f"{height}x{width} pixels (rows x columns), smaller than {min_size}"
        raise RadiographError(path, reason, "leave it out (in Python, read_radiograph takes a smaller min_size)")
    some = array[:, :: max(1, height // _SAMPLE), :: max(1, width // _SAMPLE)]  # nearly always enough
    if np.ptp(some) == 0 and np.ptp(array) == 0:
        remedy = "leave it out" if options.window is None else "give another window, or leave it out"
        raise RadiographError(path, f"constant image (every pixel is {array.flat[0]:.4g} of 1)", remedy)


def _refuse_mask(radiograph: Radiograph) -> None:
    """Refuse a mask or a map of labels; a warning names what may be one. Colour counts as the grey that it becomes."""
    array, path, bits = radiograph.array, radiograph.meta["path"], max(8, radiograph.meta["bits"])
    height, width = array.shape[1:]  # [1, H, W]
    some = array[:, :: max(1, height // _SAMPLE), :: max(1, width // _SAMPLE)]
    if len(np.unique(some)) > _LABELS and _share_of_extremes(some) < _MASK_SHARE:
        return
    levels, highest = len(np.unique(array)), round(float(array.max()) * (2**bits - 1))
    if levels == 2 and array.min() == 0 and array.max() == 1:
        raise RadiographError(path, "only black and white in it: a mask, not a film", _MASK_REMEDY)
    if highest < _LABELS:
        raise RadiographError(path, f"no value above {highest} of {2**bits - 1} in it: a map of labels", _MASK_REMEDY)
    if levels <= _MASK_LEVELS and min(height, width) >= _MASK_SIDE:
        raise RadiographError(
            path, f"only {levels} grey levels in it: a mask or a map of labels, not a film", _MASK_REMEDY
        )
    if levels <= _FEW_LEVELS:
        _logger.warning("%s: only %d grey levels in it; if it is a map of labels, leave it out", path, levels)
    elif _share_of_extremes(array) >= _MASK_SHARE:
        _logger.warning("%s: nearly all of it is black or white; if it is a mask, leave it out", path)


def _share_of_extremes(values: np.ndarray) -> float:
    """Share of the values that are the least or the greatest."""
    return float(np.mean((values == values.min()) | (values == values.max())))
