"""A chest phantom of ellipsoids: a small labelled CT whose organs lie at known places, for tests and dry runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from cxw_monai.rendering.source import CTSource

__all__ = ["PHANTOM_ORGANS", "PHANTOM_SHAPE", "PHANTOM_VOXEL_MM", "PhantomOrgan", "write_phantom"]

PHANTOM_SHAPE, PHANTOM_VOXEL_MM = (80, 56, 72), 4.0
_BODY_AXES_MM, _BODY_HU = (145.0, 98.0), 20


@dataclass(frozen=True)
class PhantomOrgan:
    """An ellipsoid.

    Attributes:
        name: label name in TotalSegmentator's style.
        hu: Hounsfield units.
        centre_mm: towards the patient's right, front and head from the middle of the volume.
        axes_mm: semi-axes in the same order.
    """

    name: str
    hu: int
    centre_mm: tuple[float, float, float]
    axes_mm: tuple[float, float, float]


PHANTOM_ORGANS: tuple[PhantomOrgan, ...] = (
    PhantomOrgan("lung_upper_lobe_right", -850, (65, 0, 0), (45, 65, 110)),
    PhantomOrgan("lung_upper_lobe_left", -850, (-65, 0, 0), (45, 65, 110)),
    PhantomOrgan("liver", 60, (55, 5, -95), (55, 55, 35)),
    PhantomOrgan("heart", 40, (-30, 25, -30), (38, 35, 40)),
    PhantomOrgan("aorta", 40, (-18, -35, 0), (11, 11, 90)),
    PhantomOrgan("trachea", -950, (0, -10, 90), (9, 9, 50)),
    PhantomOrgan("vertebrae_T6", 500, (0, -60, 0), (18, 18, 140)),
    PhantomOrgan("sternum", 400, (0, 78, 10), (16, 8, 60)),
    PhantomOrgan("clavicula_right", 600, (55, 55, 112), (45, 8, 8)),
    PhantomOrgan("clavicula_left", 600, (-55, 55, 112), (45, 8, 8)),
    PhantomOrgan("scapula_right", 500, (95, -60, 70), (25, 8, 40)),
    PhantomOrgan("scapula_left", 500, (-95, -60, 70), (25, 8, 40)),
    PhantomOrgan("rib_right_5", 600, (118, 0, 20), (7, 50, 8)),
    PhantomOrgan("rib_left_5", 600, (-118, 0, 20), (7, 50, 8)),
)
"""The phantom's organs; a later one replaces an earlier one where they overlap."""


def write_phantom(folder: str | Path, orientation: str = "RAS") -> CTSource:
    """Writes the phantom as NIfTI files with its structures CSV.

    The body is an elliptic cylinder of 290 x 196 mm and 20 HU along the whole volume of 320 x 224 x 288 mm.

    Args:
        folder: where to write ``ct.nii.gz``, ``labels.nii.gz`` and ``structures.csv``; made where missing.
        orientation: direction in which each stored axis grows, such as ``"RAS"`` or ``"LPS"``; the patient is the same.

    Returns:
        The three files; label values are 1, 2, ... in the order of :data:`PHANTOM_ORGANS`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    affine = np.diag([PHANTOM_VOXEL_MM] * 3 + [1.0])
    affine[:3, 3] = [-(n - 1) / 2 * PHANTOM_VOXEL_MM for n in PHANTOM_SHAPE]
    places = np.moveaxis(np.indices(PHANTOM_SHAPE), 0, -1) * PHANTOM_VOXEL_MM + affine[:3, 3]  # [X, Y, Z, 3]
    body = ((places[..., :2] / _BODY_AXES_MM) ** 2).sum(axis=-1) < 1
    hu = np.where(body, _BODY_HU, -1000).astype(np.int16)
    labels = np.zeros(PHANTOM_SHAPE, dtype=np.uint8)
    for value, organ in enumerate(PHANTOM_ORGANS, start=1):
        inside = (((places - organ.centre_mm) / organ.axes_mm) ** 2).sum(axis=-1) < 1
        hu[inside], labels[inside] = organ.hu, value
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(orientation))
    source = CTSource(folder / "ct.nii.gz", folder / "labels.nii.gz", folder / "structures.csv")
    for path, array in ((source.ct, hu), (source.labels, labels)):
        nib.save(nib.Nifti1Image(array, affine).as_reoriented(turn), path)
    lines = ["structure,id", *(f"{organ.name},{value}" for value, organ in enumerate(PHANTOM_ORGANS, start=1))]
    source.structures.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return source
