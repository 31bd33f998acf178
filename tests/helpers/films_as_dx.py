"""A real film's picture as a DX of a study of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from PIL import Image

from tests.helpers.dicom_files import write_dicom

__all__ = ["film_as_dx"]


def film_as_dx(folder: Path, picture: Path, number: int, side: int = 500, **attributes: object) -> Path:
    """Of `side - 1` rows and `side` columns; its UIDs are 1.2.3.`number` (study), 1.2.4 (series) and 1.2.5 (film)."""
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("L").resize((side, side - 1)))
    uids = {"StudyInstanceUID": f"1.2.3.{number}", "SeriesInstanceUID": f"1.2.4.{number}"}
    about = {"Modality": "DX", "SeriesDescription": "Chest", "SeriesNumber": 1, "ImagerPixelSpacing": [0.7, 0.7]}
    names = {"SOPInstanceUID": f"1.2.5.{number}", "PatientID": "7", "StudyDate": "19010101", "InstanceNumber": 1}
    film = write_dicom(folder / f"{number}.dcm", pixels, **{**uids, **about, **names, **attributes})
    dataset = pydicom.dcmread(film)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(film)
    return film
