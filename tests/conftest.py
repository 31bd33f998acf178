"""Fixtures shared by all tests. None of them touches a global random generator."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

PROJECT = Path(__file__).resolve().parents[1]
SIZES = [(96, 80), (80, 96), (88, 88), (100, 72)]  # (rows, columns), taken in turn


def _shared(name: str, variable: str) -> Path:
    folder = Path(os.environ.get(variable, PROJECT.parent / "shared" / name))
    if not folder.is_dir():
        pytest.skip(f"shared test data not found at {folder} (set {variable})")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real radiographs: ``../shared/data`` or ``CXW_SHARED_DATA``."""
    return _shared("data", "CXW_SHARED_DATA")


@pytest.fixture(scope="session")
def shared_golden() -> Path:
    """Folder of reference outputs: ``../shared/golden`` or ``CXW_SHARED_GOLDEN``."""
    return _shared("golden", "CXW_SHARED_GOLDEN")


@pytest.fixture
def radiograph_folder(tmp_path: Path) -> Path:
    """A folder of twelve distinct 8-bit grey PNGs of smooth random blobs, about 96x80 pixels."""
    folder = tmp_path / "radiographs"
    folder.mkdir()
    for number in range(12):
        noise = np.random.default_rng([2024, number]).standard_normal(SIZES[number % len(SIZES)])
        blobs = gaussian_filter(noise, sigma=6)
        grey = (blobs - blobs.min()) / (blobs.max() - blobs.min())
        Image.fromarray(np.rint(255 * grey).astype(np.uint8)).save(folder / f"film_{number:02d}.png")
    return folder
