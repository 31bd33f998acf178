"""NIfTI slices: orientation, range, spacing, errors."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from cxw_monai.io import RadiographError, read_radiograph

FILM = np.arange(20 * 30, dtype=np.float32).reshape(20, 30) / 600  # [H, W]: rows downwards, patient's right at left


def _save(path, array, affine, **header):
    image = nib.Nifti1Image(array, affine)
    for name, value in header.items():
        image.header[name] = value
    nib.save(image, path)
    return path


@pytest.mark.parametrize(
    ("name", "array", "affine"),
    [
        # x towards left, y towards posterior: the film's own axes (what ITK writes for a plain image)
        ("lp", FILM.T, np.diag([-1.0, -1, 1, 1])),
        # x towards right, y towards anterior: both axes flipped
        ("ra", FILM.T[::-1, ::-1], np.diag([1.0, 1, 1, 1])),
        # a coronal slice [X, 1, Z] of an RAS volume: z upwards
        ("coronal", FILM.T[::-1, ::-1][:, None, :], np.diag([1.0, 1, 1, 1])),
        # the same with the storage order [Z, X, 1]
        ("zx", FILM[::-1, ::-1][:, :, None], np.array([[0, 1.0, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])),
        # no declared orientation: transposed only
        ("none", FILM.T, None),
    ],
)
@pytest.mark.parametrize("extension", ["nii", "nii.gz"])
def test_every_storage_order_gives_the_same_film(tmp_path, name, array, affine, extension):
    radiograph = read_radiograph(_save(tmp_path / f"{name}.{extension}", array, affine))
    np.testing.assert_array_equal(radiograph.array, FILM[None])
    assert radiograph.array.dtype == np.float32 and radiograph.meta["original_shape"] == (20, 30)
    pixel_map = radiograph.meta["pixel_map"]  # a result on the film goes back to the stored array
    np.testing.assert_array_equal(pixel_map.restore(radiograph.array[0]), array.squeeze())


def test_what_the_caller_asks_for(tmp_path):
    grey = np.arange(400, dtype=np.int16).reshape(20, 20) - 100
    path = _save(tmp_path / "a.nii", grey, None)
    windowed = read_radiograph(path, window=(100, 200))  # 0 to 200
    np.testing.assert_allclose(windowed.array[0], np.clip(grey.T / 200, 0, 1), atol=1e-6)
    assert windowed.meta["steps"] == ["no declared orientation: transposed", "window as asked: center 100, width 200"]
    percentiles = read_radiograph(path, percentiles=(0, 100))
    np.testing.assert_allclose(percentiles.array[0], (grey.T + 100) / 399, atol=1e-6)
    assert percentiles.meta["steps"][1] == "percentiles 0 and 100 of the image: -100 to 299"


def test_spacing_is_row_then_column_and_never_invented(tmp_path):
    unknown = _save(tmp_path / "unknown.nii", FILM.T, None)
    assert read_radiograph(unknown).meta["spacing_mm"] is None
    image = nib.Nifti1Image(FILM.T[:, None, :], np.diag([-0.2, 9, -0.3, 1]))  # 0.2 mm per column, 0.3 mm per row
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "mm.nii")
    radiograph = read_radiograph(tmp_path / "mm.nii")
    np.testing.assert_array_equal(radiograph.array[0], FILM)
    assert radiograph.meta["spacing_mm"] == pytest.approx((0.3, 0.2))


def test_ranges(tmp_path):
    grey = np.arange(400).reshape(20, 20)
    eight = _save(tmp_path / "u8.nii", (grey % 200).astype(np.uint8), None)
    np.testing.assert_allclose(read_radiograph(eight).array[0], (grey % 200).T / 255, atol=1e-7)
    sixteen = _save(tmp_path / "u16.nii", (100 * grey).astype(np.uint16), None)
    np.testing.assert_allclose(read_radiograph(sixteen).array[0], 100 * grey.T / 65535, atol=1e-7)
    signed = _save(tmp_path / "cal.nii", grey.astype(np.int16), None, cal_min=100, cal_max=300)
    np.testing.assert_allclose(read_radiograph(signed).array[0], np.clip((grey.T - 100) / 200, 0, 1), atol=1e-7)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_values_without_a_declared_range_are_refused(tmp_path, dtype):
    path = _save(tmp_path / "a.nii", np.arange(400).reshape(20, 20).astype(dtype), None)
    with pytest.raises(
        RadiographError, match="values from 0 to 399 without a declared grey range; set cal_min and cal_max"
    ):
        read_radiograph(path)


@pytest.mark.parametrize("shape", [(20, 20, 20), (20, 20, 1, 3), (20, 1, 1)])
def test_only_one_slice_is_taken(tmp_path, shape):
    path = _save(tmp_path / "a.nii", np.zeros(shape, np.uint8), np.eye(4))
    with pytest.raises(RadiographError, match="is not a single 2-D slice; save one slice per file"):
        read_radiograph(path)


def test_nan_and_truncation(tmp_path):
    film = FILM.copy()
    film[2, 2] = np.inf
    with pytest.raises(RadiographError, match="NaN or infinite"):
        read_radiograph(_save(tmp_path / "inf.nii", film, None))
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    for name in ("a.nii", "a.nii.gz"):
        content = _save(tmp_path / name, noise, None).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(RadiographError, match="truncated"):
            read_radiograph(tmp_path / name)
