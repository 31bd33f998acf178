"""Results as files that annotation tools open on the film, and their files back on its stored pixel grid.

- ``.png``: one map of numbers (:mod:`~cxw_monai.label.label_maps`), the film upright.
- ``.nii.gz``, ``.nii``, ``.nrrd``: the same map, ``[X, Y, 1]``, at the place and spacing at which ITK (3D Slicer,
  ITK-SNAP) puts the film.
- ``.seg.nrrd``: 3D Slicer's segmentation, each structure in a layer of its own, so that nothing is hidden.
- ``.dcm``: DICOM SEG of a DICOM film (:mod:`cxw_monai.io.results.dicom_seg`), nothing hidden either.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import Any

import itk
import nrrd
import numpy as np
from PIL import Image

from cxw_monai.io import Radiograph, RadiographError
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.formats.nrrd import read_nrrd_values
from cxw_monai.io.formats.pictures import open_picture, refuse_unless_file
from cxw_monai.io.pixel_map import PixelMap
from cxw_monai.io.radiograph import UnusableError, errors_of
from cxw_monai.io.results.dicom_seg import SegAlgorithm, write_dicom_seg
from cxw_monai.io.results.dicom_seg_reading import read_dicom_seg
from cxw_monai.io.results.mask_files import itk_header, itk_place, stores_columns_first
from cxw_monai.io.structures import structure_colours

from .label_maps import paint

__all__ = ["RESULT_ENDINGS", "label_ending", "read_label", "write_result"]

RESULT_ENDINGS = (".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".png", ".dcm")
"""What can be written, and read back."""

_MOST_LAYERS = 64  # of a film's size in a label


def label_ending(name: str | PathLike[str]) -> str:
    """The ending of a name as this module knows it, in lower case; empty for any other."""
    lower = os.fspath(name).lower()
    return next((ending for ending in (*RESULT_ENDINGS, ".bin") if lower.endswith(ending)), "")


def write_result(
    path: str | PathLike[str],
    film: Radiograph,
    masks: np.ndarray,
    structures: Sequence[str],
    *,
    algorithm: SegAlgorithm | None = None,
) -> None:
    """Write masks of a film in the format that the path's ending names.

    Masks are bool ``[S, *source_shape]`` on the film's stored grid; a DICOM SEG names the ``algorithm`` as its maker.

    Raises:
        ValueError: an ending that isn't known.
        RadiographError: a DICOM SEG of a film that it can't refer to.
    """
    ending, source = label_ending(path), film.meta["path"]
    if ending == ".png":
        upright = film.meta["pixel_map"].turn(paint(masks, structures))
        with atomic_file(path) as stream:
            Image.fromarray(upright).save(stream, format="PNG")
    elif ending == ".dcm":
        write_dicom_seg(path, source, masks, structures, created=datetime.now(), algorithm=algorithm)
    elif ending == ".seg.nrrd":
        _write_layers(path, source, _exchanged(masks, source), structures)
    elif ending in (".nii.gz", ".nii", ".nrrd"):
        image = itk.image_from_array(_exchanged(paint(masks, structures), source)[None])  # [1, Y, X]
        spacing, origin, direction = itk_place(source)
        image.SetSpacing(spacing)
        image.SetOrigin(origin)
        image.SetDirection(itk.matrix_from_array(direction))
        itk.imwrite(image, os.fspath(path), compression=ending != ".nii")
    else:
        raise ValueError(f"result_extension must be one of {', '.join(RESULT_ENDINGS)}, got {Path(path).suffix!r}")


def _exchanged(values: np.ndarray, source: str) -> np.ndarray:
    """Values ``[..., *source_shape]`` with ITK's axes, ``[..., Y, X]``, or the other way round."""
    return np.ascontiguousarray(np.swapaxes(values, -1, -2) if stores_columns_first(source) else values)


def _write_layers(path: str | PathLike[str], source: str, masks: np.ndarray, structures: Sequence[str]) -> None:
    """3D Slicer's ``.seg.nrrd``, a layer ``[X, Y, 1]`` for each structure."""
    spacing, origin, direction = itk_place(source)
    header: dict[str, Any] = {
        "space": "left-posterior-superior",
        "kinds": ["list", "domain", "domain", "domain"],
        "space directions": np.vstack([np.full(3, np.nan), (direction * spacing).T]),
        "space origin": origin,
    }
    extent = f"0 {masks.shape[2] - 1} 0 {masks.shape[1] - 1} 0 0"
    for number, (name, colour) in enumerate(zip(structures, structure_colours(structures), strict=True)):
        about = {"ID": name, "Name": name, "Layer": number, "LabelValue": 1, "Extent": extent}
        about["Color"] = " ".join(f"{part / 255:.4f}" for part in colour)
        header |= {f"Segment{number}_{key}": str(value) for key, value in about.items()}
    layers = masks.transpose(0, 2, 1)[..., None].astype(np.uint8)  # [S, X, Y, 1]
    with atomic_file(path) as stream:
        nrrd.write(stream, layers, header, index_order="F")


def read_label(
    path: str | PathLike[str], film: Radiograph, structures: Sequence[str], values: Mapping[str, int]
) -> tuple[np.ndarray | None, dict[str, np.ndarray]]:
    """Read what an annotation tool saved for a film.

    Args:
        path: a map (``.png``, ``.nii``, ``.nii.gz``, ``.nrrd``, or ``.bin``: a byte a pixel, row by row, as OHIF sends)
            or layers (``.seg.nrrd``, or ``.dcm``: a DICOM SEG, binary or fractional).
        film: the film.
        structures: names to look for in layers.
        values: number of each structure in a map.

    Returns:
        ``(map, {})`` with the map, integers ``[*source_shape]``; or ``(None, masks)``, bool ``[*source_shape]`` for
        each structure that has a segment with pixels.

    Raises:
        RadiographError: not readable, of another size than the film, or a map with none of the structures in it.
    """
    ending, own_map, source = label_ending(path), film.meta["pixel_map"], film.meta["path"]
    if not ending:
        raise RadiographError(path, "not a label of a known format", "save it as PNG, NIfTI, NRRD, .seg.nrrd or DICOM")
    refuse_unless_file(path, "label")
    pixels = own_map.source_shape[0] * own_map.source_shape[1]
    with errors_of(path, "the label cannot be read ({})", "save it again"):
        if ending == ".dcm":
            return None, _named(read_dicom_seg(path, own_map.source_shape), structures)
        if ending == ".seg.nrrd":
            masks = {name: _exchanged(mask, source) for name, mask in _read_layers(path, structures, pixels).items()}
            for mask in masks.values():
                _check_shape(mask.shape, own_map.source_shape)
            return None, masks
        label_map = _read_map(path, ending, own_map, source)
        _check_shape(label_map.shape, own_map.source_shape)
    if label_map.dtype.kind == "f" and (label_map == np.rint(label_map)).all():
        label_map = label_map.astype(np.int64)
    if label_map.dtype.kind not in "iub" or not np.isin(label_map, list(values.values())).any():
        reason = f"has none of the numbers {dict(values)} in it"
        raise RadiographError(path, reason, "paint these numbers, or send label_info with others")
    return label_map, {}


def _read_map(path: str | PathLike[str], ending: str, own_map: PixelMap, source: str) -> np.ndarray:
    """The map's numbers ``[*source_shape]`` if it is of the film's size."""
    turns = own_map.turns()
    upright = turns.shape
    if ending == ".png":
        with open_picture(path, "label") as image:
            _check_shape(image.size[::-1], upright)
            values = np.asarray(image)
        _check_shape(values.shape, upright)  # another one if it has several channels
        return turns.restore(values)
    if ending == ".bin":
        size = os.path.getsize(path)
        if size != upright[0] * upright[1]:
            raise _other_size((size,), upright)
        return turns.restore(np.fromfile(path, dtype=np.uint8).reshape(upright))
    sizes = _declared_sizes(path)
    if np.prod(sizes) != np.prod(own_map.source_shape):
        raise _other_size(sizes, own_map.source_shape[::-1] if stores_columns_first(source) else upright)
    values = itk.array_from_image(itk.imread(os.fspath(path)))  # [1, Y, X] or [Y, X]
    values = values.reshape(values.shape[-2:]) if values.size == np.prod(values.shape[-2:]) else values
    return _exchanged(values, source)


def _declared_sizes(path: str | PathLike[str]) -> list[int]:
    """Rows, columns and further sizes above 1 of an image, by its header."""
    reader = itk_header(os.fspath(path))
    if reader is None:
        raise UnusableError("the label is of no format that its ending names", "save it again")
    sizes = [int(reader.GetDimensions(axis)) for axis in range(reader.GetNumberOfDimensions())][::-1]
    return [size for size in [*sizes, int(reader.GetNumberOfComponents())] if size > 1]


def _read_layers(path: str | PathLike[str], structures: Sequence[str], pixels: int) -> dict[str, np.ndarray]:
    """bool ``[Y, X]`` of each structure that has a segment of its name with pixels."""
    data, header = read_nrrd_values(path, _MOST_LAYERS * pixels)
    layers = data if data.ndim == 4 else data[None]  # [layers, X, Y, 1]
    masks = {}
    for number in range(len(header)):
        name = header.get(f"Segment{number}_Name")
        if name not in structures:
            continue
        layer = layers[int(header.get(f"Segment{number}_Layer", number))]
        mask = layer == int(header.get(f"Segment{number}_LabelValue", 1))
        if mask.any():
            masks[str(name)] = np.ascontiguousarray(mask.reshape(mask.shape[:2]).T)
    return _named(masks, structures)


def _named(masks: Mapping[str, np.ndarray], structures: Sequence[str]) -> dict[str, np.ndarray]:
    """Those masks that have pixels and a structure's name."""
    found = {name: mask for name, mask in masks.items() if name in structures and mask.any()}
    if not found:
        raise UnusableError(f"no segment named {', '.join(structures)} in it", "name the segments so")
    return found


def _check_shape(shape: Sequence[int], wanted: Sequence[int]) -> None:
    if tuple(shape) != tuple(wanted):
        raise _other_size(shape, wanted)


def _other_size(got: Sequence[int], wanted: Sequence[int]) -> UnusableError:
    got_text, wanted_text = ("x".join(map(str, shape)) for shape in (got, wanted))
    return UnusableError(f"the label is {got_text} px, its film {wanted_text}", "draw it on the film itself")
