"""Damaged files of every format: the package's own error or a valid radiograph, nothing else."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from cxw_monai.io import RadiographError, read_radiograph

_spec = importlib.util.spec_from_file_location("dicom_files", Path(__file__).with_name("dicom_files.py"))
_files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_files)

RAMP = (np.arange(900, dtype=np.uint16) * 4).reshape(30, 30)
TRIALS = 150


def _write(path: Path) -> Path:
    if path.suffix == ".dcm":
        lut = _files.lut_sequence(list(range(4096)), 0, 16)
        return _files.write_dicom(path, RAMP, bits=12, ModalityLUTSequence=lut, WindowCenter=99, WindowWidth=300)
    if path.name.endswith((".nii", ".nii.gz")):
        nib.save(nib.Nifti1Image(RAMP, np.eye(4)), path)
    else:
        Image.fromarray(RAMP if path.suffix == ".png" else (RAMP // 16).astype(np.uint8)).save(path)
    return path


def _damage(content: bytes, rng: random.Random) -> bytes:
    """Cut off, or up to ten bytes of the first 1,200 replaced."""
    if rng.random() < 0.3:
        return content[: rng.randrange(len(content))]
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 3, 10])):
        damaged[rng.randrange(min(len(damaged), 1200))] = rng.randrange(256)
    return bytes(damaged)


@pytest.mark.parametrize("name", ["a.dcm", "a.png", "a.jpg", "a.tif", "a.nii", "a.nii.gz"])
def test_damage_is_an_error_or_harmless(tmp_path, name):
    path, rng = _write(tmp_path / name), random.Random(name)
    whole, refused = path.read_bytes(), 0
    for _ in range(TRIALS):
        path.write_bytes(_damage(whole, rng))
        try:
            array = read_radiograph(path).array
        except RadiographError as error:
            assert error.path == str(path) and "\n" not in str(error)
            refused += 1
        else:
            assert array.ndim == 3 and 0 <= array.min() < array.max() <= 1
    assert refused > TRIALS // 5  # the cut files at least
