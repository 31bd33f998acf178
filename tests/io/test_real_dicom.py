"""The reader on real DICOM files: each against the facts of its manifest row and its pixels worked out by hand."""

from __future__ import annotations

import csv
import functools
import hashlib
import json

import numpy as np
import pydicom
import pytest
from pydicom.uid import UID, ImplicitVRLittleEndian

from cxw_monai.io import read_radiograph

CODECS = {
    "CR-ModalitySequenceLUT": "libjpeg",
    "GH133_mg_voilut": "libjpeg",
    "RG1_J2KI": "openjpeg",
    "RG1_J2KR": "openjpeg",
}


def _window(values, center, width):
    return np.clip((values - (center - 0.5)) / (width - 1.0) + 0.5, 0, 1)


def _table(item, dtype="<u2"):
    data = item.LUTData
    return np.frombuffer(data, dtype) if isinstance(data, bytes) else np.asarray(data)


# Each row by hand from the decoded pixels `v` and, for its LUTs, the dataset `d`; see the manifest for the tags
BY_HAND = {
    "RG1_J2KI": lambda v, d: 1 - _window(v, 15000, 30000),
    "RG1_J2KR": lambda v, d: 1 - _window(v, 15000, 30000),
    "CR-MONO1-10-chest": lambda v, d: 1 - _window(v, 550, 1024),
    "rsna_cr_chest_jpeg": lambda v, d: v / 255,
    "rsna_cr_chest_jpeg_FAKE_MONO1": lambda v, d: 1 - v / 255,
    "dx_canine_thorax": lambda v, d: 1 - _window(v, 128, 256),
    # 1024 entries 0, 1, 2, ... of 16 bits: 0 to 1023 can be reached
    "CR-ModalitySequenceLUT": lambda v, d: 1 - _table(d.ModalityLUTSequence[0])[v.astype(int)] / 1023,
    # the first VOI LUT: 3447 entries of 12 bits from 625 on; codes 0 to 30 are padding
    "GH133_mg_voilut": lambda v, d: np.where(
        v <= 30, 0, _table(d.VOILUTSequence[0])[np.clip(v.astype(int) - 625, 0, 3446)] / 4095
    ),
    "KarstenHilbertRF": lambda v, d: _window(_table(d.ModalityLUTSequence[0])[v.astype(int)], 128, 256),
    "smpte_mlut_18": lambda v, d: _table(d.ModalityLUTSequence[0])[v.astype(int) + 2048] / 65535,
    "smpte_vlut_04": lambda v, d: _table(d.VOILUTSequence[0])[v.astype(int)] / 65535,
}
SPACING = {
    "rsna_cr_chest_jpeg": (0.168, 0.168),
    "rsna_cr_chest_jpeg_FAKE_MONO1": (0.168, 0.168),
    "dx_canine_thorax": (1.2, 1.201199999999),
    "CR-ModalitySequenceLUT": (0.15, 0.15),
    "GH133_mg_voilut": (0.09409090909091, 0.09409090909091),  # ImagerPixelSpacing over a magnification of 1
}
# (row, column) of a dark and of a bright place, in fractions of the film, known by looking at it
DARK_AND_BRIGHT = {
    "RG1_J2KI": ("right lung", (0.30, 0.22), "spine", (0.60, 0.50)),
    "RG1_J2KR": ("right lung", (0.30, 0.22), "spine", (0.60, 0.50)),
    "CR-MONO1-10-chest": ("air beside the patient", (0.985, 0.985), "spine", (0.60, 0.46)),
    "rsna_cr_chest_jpeg": ("right lung", (0.35, 0.25), "liver", (0.90, 0.40)),
    "rsna_cr_chest_jpeg_FAKE_MONO1": ("liver", (0.90, 0.40), "right lung", (0.35, 0.25)),  # falsely inverted
    "dx_canine_thorax": ("air", (0.93, 0.90), "spine", (0.30, 0.50)),
    "CR-ModalitySequenceLUT": ("frame around the film", (0.05, 0.50), "shadow of the spine", (0.40, 0.53)),
    "GH133_mg_voilut": ("air, padding", (0.50, 0.10), "breast", (0.50, 0.80)),
    "KarstenHilbertRF": ("collimator", (0.02, 0.02), "air over the shoulder", (0.10, 0.30)),  # bone dark, as declared
    "smpte_mlut_18": ("the 0 % patch", (0.68, 0.25), "the 100 % patch", (0.68, 0.75)),
    "smpte_vlut_04": ("the 0 % patch", (0.68, 0.25), "the 100 % patch", (0.68, 0.75)),
}
NAMES = list(BY_HAND)


@pytest.fixture(scope="module")
def facts(shared_data):
    with (shared_data / "dicom" / "manifest.csv").open(newline="") as stream:
        return {row["id"]: row for row in csv.DictReader(stream)}


def _path(shared_data, name):
    if name in CODECS:
        pytest.importorskip(CODECS[name])
    return shared_data / "dicom" / "images" / f"{name}.dcm"


@functools.cache  # decoding takes a second for the large ones
def _read(path):
    return read_radiograph(path)


@functools.cache
def _by_pydicom(path):
    """The data set and its pixels, by pydicom alone."""
    dataset = pydicom.dcmread(path, force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    if dataset.file_meta.TransferSyntaxUID == UID("1.2.840.10008.1.2.4.50") and hasattr(dataset, "pixel_array_options"):
        dataset.pixel_array_options(decoding_plugin="pillow")
    return dataset, dataset.pixel_array


def test_every_row_is_tested(facts):
    assert set(facts) == set(BY_HAND) == set(DARK_AND_BRIGHT)


@pytest.mark.parametrize("name", NAMES)
def test_every_pixel_by_hand(shared_data, facts, name):
    path, fact = _path(shared_data, name), facts[name]
    dataset, codes = _by_pydicom(path)
    assert str(codes.dtype) == fact["raw_dtype"]
    if codes.dtype.kind == "i":  # pydicom 2 leaves the sign of 12 bits in 16 to the caller
        codes = (codes << (16 - int(fact["bits_stored"]))) >> (16 - int(fact["bits_stored"]))
    assert hashlib.sha1(codes.tobytes()).hexdigest() == fact["raw_sha1"]  # of the rows' bytes, little endian
    radiograph = _read(path)
    assert radiograph.array.shape == (1, int(fact["rows"]), int(fact["columns"]))
    assert radiograph.array.dtype == np.float32 and radiograph.array.flags.c_contiguous
    np.testing.assert_allclose(radiograph.array[0], BY_HAND[name](codes.astype(np.float64), dataset), atol=2e-7)
    assert 0 <= radiograph.array.min() < radiograph.array.max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_meta(shared_data, facts, name):
    meta, fact = _read(_path(shared_data, name)).meta, facts[name]
    assert (meta["bits"], meta["photometric"]) == (int(fact["bits_stored"]), fact["photometric"])
    assert meta["spacing_mm"] == SPACING.get(name)
    assert ("inverted" in meta["steps"]) == (fact["photometric"] == "MONOCHROME1")
    left_out = "Modality LUT left out: XA and RF are shown without it" in meta["steps"]
    assert ("Modality LUT" in meta["steps"] or left_out) == (fact["has_modality_lut"] == "1")
    assert left_out == (name == "KarstenHilbertRF")
    assert ("VOI LUT 1 of 3" in meta["steps"]) == (name == "GH133_mg_voilut")
    assert ("padding 0 to 30 set to black" in meta["steps"]) == (name == "GH133_mg_voilut")
    assert ("bone is dark: values rise with the X-ray intensity" in meta["steps"]) == (name == "KarstenHilbertRF")
    assert (meta["view"] or "") == fact["view"]
    text = json.dumps({**meta, "pixel_map": meta["pixel_map"].to_dict()})
    assert fact["patient_id"] not in text.replace(str(shared_data), "").replace(f"{name}.dcm", "")


@pytest.mark.parametrize("name", NAMES)
def test_polarity(shared_data, name):
    film = _read(_path(shared_data, name)).array[0]
    _, dark, _, bright = DARK_AND_BRIGHT[name]
    half = max(2, len(film) // 200)
    low, high = (
        np.median(film[int(row * film.shape[0]) - half :, int(column * film.shape[1]) - half :][: 2 * half, : 2 * half])
        for row, column in (dark, bright)
    )
    assert high > low + 0.25
    if name.startswith(("smpte", "GH133", "KarstenHilbert", "CR-Modality")):
        assert low == 0  # patch, padding, collimator and frame are the blackest there is


@pytest.mark.parametrize("name", ["RG1_J2KR", "rsna_cr_chest_jpeg", "CR-MONO1-10-chest", "KarstenHilbertRF"])
def test_full_range_is_the_raw_statistics_over_the_stored_range(shared_data, facts, name):
    fact = facts[name]
    array = read_radiograph(_path(shared_data, name), voi="none").array.astype(np.float64)
    low, high, mean = (
        float(fact[key]) / (2 ** int(fact["bits_stored"]) - 1) for key in ("raw_min", "raw_max", "raw_mean")
    )
    if fact["photometric"] == "MONOCHROME1":
        low, high, mean = 1 - high, 1 - low, 1 - mean
    np.testing.assert_allclose([array.min(), array.max(), array.mean()], [low, high, mean], atol=1e-6)


def test_the_mammogram_has_three_of_each(shared_data):
    path = _path(shared_data, "GH133_mg_voilut")
    dataset, codes = _by_pydicom(path)
    harder = _table(dataset.VOILUTSequence[1])[np.clip(codes.astype(int) - 1023, 0, 3015)] / 4095
    radiograph = read_radiograph(path, voi_item="HARDER")
    np.testing.assert_allclose(radiograph.array[0], np.where(codes <= 30, 0, harder), atol=2e-7)
    softer = 1 / (1 + np.exp(-4 * (codes - 2569.0) / 1050))  # its windows are sigmoid
    radiograph = read_radiograph(path, voi="window", voi_item="softer")
    np.testing.assert_allclose(radiograph.array[0], np.where(codes <= 30, 0, softer), atol=2e-7)
    assert radiograph.meta["steps"][0] == "window 3 of 3: center 2569, width 1050, SIGMOID"


def test_the_relabelled_twin_is_the_exact_complement(shared_data):
    film, twin = (
        _read(_path(shared_data, name)).array for name in ("rsna_cr_chest_jpeg", "rsna_cr_chest_jpeg_FAKE_MONO1")
    )
    np.testing.assert_array_equal(twin, 1 - film)
    np.testing.assert_array_equal(film + twin, np.ones_like(film))


def test_lossless_jpeg_2000_is_its_uncompressed_original_bit_for_bit(shared_data):
    pytest.importorskip("data_store", reason="needs the pydicom-data package")
    import importlib.resources

    original = importlib.resources.files("data_store").joinpath("data", "RG1_UNCR.dcm")
    compressed = _read(_path(shared_data, "RG1_J2KR"))
    uncompressed = read_radiograph(str(original))
    assert compressed.array.tobytes() == uncompressed.array.tobytes()
    assert compressed.meta["steps"] == uncompressed.meta["steps"]
