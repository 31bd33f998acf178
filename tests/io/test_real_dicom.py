"""The reader on real DICOM files, against the facts of their manifest."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from cxw_monai.io import read_radiograph

NAMES = [
    "RG1_J2KI",
    "RG1_J2KR",
    "CR-MONO1-10-chest",
    "rsna_cr_chest_jpeg",
    "rsna_cr_chest_jpeg_FAKE_MONO1",
    "dx_canine_thorax",
    "CR-ModalitySequenceLUT",
    "GH133_mg_voilut",
    "KarstenHilbertRF",
    "smpte_mlut_18",
    "smpte_vlut_04",
]
MODALITY_LUTS = ["CR-ModalitySequenceLUT", "KarstenHilbertRF", "smpte_mlut_18"]  # these change the statistics
CODECS = {
    "CR-ModalitySequenceLUT": "libjpeg",
    "GH133_mg_voilut": "libjpeg",
    "RG1_J2KI": "openjpeg",
    "RG1_J2KR": "openjpeg",
}


@pytest.fixture(scope="module")
def facts(shared_data):
    with (shared_data / "dicom" / "manifest.csv").open(newline="") as stream:
        return {row["id"]: row for row in csv.DictReader(stream)}


def _read(shared_data, name, **options):
    if name in CODECS:
        pytest.importorskip(CODECS[name])
    return read_radiograph(shared_data / "dicom" / "images" / f"{name}.dcm", **options)


@pytest.mark.parametrize("name", NAMES)
def test_shape_range_and_meta(shared_data, facts, name):
    radiograph, fact = _read(shared_data, name), facts[name]
    array, meta = radiograph.array, radiograph.meta
    assert array.shape == (1, int(fact["rows"]), int(fact["columns"])) and array.dtype == np.float32
    assert 0 <= array.min() < array.max() <= 1
    assert (meta["bits"], meta["photometric"]) == (int(fact["bits_stored"]), fact["photometric"])
    assert ("inverted" in meta["steps"]) == (fact["photometric"] == "MONOCHROME1")
    assert ("Modality LUT" in meta["steps"]) == (fact["has_modality_lut"] == "1")
    assert any(step.startswith("VOI LUT") for step in meta["steps"]) == (fact["has_voi_lut"] == "1")
    assert (meta["view"] or "") == fact["view"]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in MODALITY_LUTS])
def test_full_range_is_the_raw_statistics_over_the_stored_range(shared_data, facts, name):
    fact = facts[name]
    array = _read(shared_data, name, voi="none").array.astype(np.float64)
    low, high, mean = (
        float(fact[key]) / (2 ** int(fact["bits_stored"]) - 1) for key in ("raw_min", "raw_max", "raw_mean")
    )
    if fact["photometric"] == "MONOCHROME1":
        low, high, mean = 1 - high, 1 - low, 1 - mean
    np.testing.assert_allclose([array.min(), array.max(), array.mean()], [low, high, mean], atol=1e-6)


def test_the_relabelled_twin_is_the_complement(shared_data):
    film, twin = (_read(shared_data, name).array for name in ("rsna_cr_chest_jpeg", "rsna_cr_chest_jpeg_FAKE_MONO1"))
    np.testing.assert_allclose(twin, 1 - film, atol=6e-8)


def test_spacing_zero_is_unknown(shared_data):
    assert _read(shared_data, "RG1_J2KR").meta["spacing_mm"] is None
    assert _read(shared_data, "rsna_cr_chest_jpeg").meta["spacing_mm"] == (0.168, 0.168)


def test_signed_modality_lut_ramp(shared_data):
    # Stored -2048..2047 over a Modality LUT of 4096 entries whose first is for -2048: the whole range is used
    array = _read(shared_data, "smpte_mlut_18").array
    assert (array.min(), array.max()) == (0, 1)
