"""Films and bad files for the self-test: the film of pydicom's test data in every format, with a made-up patient."""

from __future__ import annotations

import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from cxw_monai.io import read_radiograph

__all__ = ["PATIENT", "make_bad_files", "make_films", "write_dicom"]

PATIENT = {"PatientName": "SECRET^PERSON", "PatientID": "SECRET-4711", "PatientBirthDate": "19010203"}
"""What must be in no log."""

_CLASSES = {"CR": "1.2.840.10008.5.1.4.1.1.1", "DX": "1.2.840.10008.5.1.4.1.1.1.1"}


def base_film() -> np.ndarray:
    """The chest film of ``pydicom-data`` (RG1_UNCR.dcm) at about a quarter of its size, ``[H, W]`` in [0, 1]."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of setuptools
        from pydicom.data import get_testdata_file

        path = get_testdata_file("RG1_UNCR.dcm", download=False)
    film = read_radiograph(path).array[0]
    rows, columns = (size // 4 for size in film.shape)
    return film[: 4 * rows, : 4 * columns].reshape(rows, 4, columns, 4).mean(axis=(1, 3))


def write_dicom(path: Path, film: np.ndarray, kind: str, photometric: str, spacing: float = 0.8) -> str:
    """Write ``[H, W]`` in [0, 1] as an uncompressed 12-bit film of a made-up patient.

    Args:
        path: the file.
        film: bone bright.
        kind: ``CR`` or ``DX``.
        photometric: ``MONOCHROME1`` (stored inverted) or ``MONOCHROME2``.
        spacing: of the detector's pixels, mm.

    Returns:
        The SeriesInstanceUID.
    """
    stored = np.rint(4095 * (1 - film if photometric == "MONOCHROME1" else film)).astype("<u2")
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, _CLASSES[kind]
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    for name, value in PATIENT.items():
        setattr(dataset, name, value)
    dataset.Modality, dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber = kind, "19991231", "235959", ""
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber, dataset.PatientSex = "1", 1, 1, "O"
    dataset.BodyPartExamined, dataset.ViewPosition, dataset.PatientOrientation = "CHEST", "PA", ["L", "F"]
    dataset.Rows, dataset.Columns = film.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, photometric
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.ImagerPixelSpacing = [spacing, spacing]
    if kind == "DX":
        dataset.PresentationIntentType = "FOR PRESENTATION"
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, 0, "US"
    dataset.PresentationLUTShape = "INVERSE" if photometric == "MONOCHROME1" else "IDENTITY"
    dataset.PixelData = stored.tobytes()
    dataset.is_little_endian, dataset.is_implicit_VR = True, False
    pydicom.dcmwrite(path, dataset, write_like_original=False)
    return str(dataset.SeriesInstanceUID)


def make_films(folder: Path) -> dict[str, Path]:
    """Six films, each another crop and contrast: name -> file."""
    folder.mkdir(parents=True, exist_ok=True)
    base, films = base_film(), {}

    def crop(number: int) -> np.ndarray:
        inside = base[5 * number : base.shape[0] - 4 * number, 3 * number : base.shape[1] - 6 * number]
        return inside ** (0.85 + 0.06 * number)

    bytes_of = [np.rint(255 * crop(number)).astype(np.uint8) for number in range(6)]
    for name, ending in (("film_png", ".png"), ("film_jpeg", ".jpg"), ("film_nifti", ".nii.gz")):
        films[name] = folder / f"{name}{ending}"
    Image.fromarray(bytes_of[0]).save(films["film_png"])
    Image.fromarray(bytes_of[1]).save(films["film_jpeg"], quality=95)
    nib.save(nib.Nifti1Image(bytes_of[2].T[:, :, None], np.diag([-0.8, -0.8, 1, 1])), films["film_nifti"])
    for number, (kind, photometric) in enumerate((("CR", "MONOCHROME2"), ("DX", "MONOCHROME1")), start=3):
        name = f"film_{kind.lower()}_{photometric[-1]}"
        films[name] = folder / f"{name}.dcm"
        write_dicom(films[name], crop(number), kind, photometric)
    films["film_16bit"] = folder / "film_16bit.png"
    Image.fromarray(np.rint(65535 * crop(5)).astype(np.uint16)).save(films["film_16bit"])
    return films


def make_bad_files(folder: Path, films: dict[str, Path]) -> dict[str, Path]:
    """Files that are no films: cut off, empty, of another kind, a volume."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {name: films[name].read_bytes() for name in ("film_png", "film_jpeg", "film_cr_2")}
    volume = nib.Nifti1Image(np.arange(32**3, dtype=np.uint8).reshape(32, 32, 32), np.eye(4)).to_bytes()
    contents = {
        "cut_off.png": whole["film_png"][:2000],
        "cut_off.jpg": whole["film_jpeg"][: len(whole["film_jpeg"]) // 2],
        "cut_off.dcm": whole["film_cr_2"][: len(whole["film_cr_2"]) // 2],
        "empty.png": b"",
        "text.png": b"not an image\n" * 100,
        "text.dcm": b"not an image\n" * 100,
        "volume.nii": volume,
    }
    paths = {}
    for name, content in contents.items():
        paths[name] = folder / name
        paths[name].write_bytes(content)
    return paths
