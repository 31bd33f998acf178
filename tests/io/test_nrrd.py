"""NRRD slices: orientation, range, spacing, errors."""

from __future__ import annotations

import numpy as np
import pytest

from cxw_monai.io import RadiographError, read_radiograph

nrrd = pytest.importorskip("nrrd")

FILM = (np.arange(20 * 30) % 251).astype(np.uint8).reshape(20, 30)  # [H, W]: rows downwards, patient's right at left
NAN = [np.nan] * 3


def _save(path, array, encoding="raw", **header):
    nrrd.write(
        str(path), array, {"encoding": encoding, **{key.replace("_", " "): value for key, value in header.items()}}
    )
    return path


@pytest.mark.parametrize(
    ("array", "header"),
    [
        (FILM.T, {}),  # no declared orientation
        (FILM.T[:, :, None], {"space": "left-posterior-superior", "space_directions": np.eye(3)}),
        (FILM.T, {"space": "left-posterior-superior", "space_directions": np.eye(3)[:2]}),
        # x towards right, y towards anterior
        (FILM.T[::-1, ::-1, None], {"space": "right-anterior-superior", "space_directions": np.eye(3)}),
        (FILM.T[::-1, ::-1, None], {"space": "LPS", "space_directions": -np.eye(3)}),
        # a coronal slice [X, 1, Z], x towards left, z upwards
        (FILM.T[:, None, ::-1], {"space": "LAS", "space_directions": np.eye(3)}),
        # stored [Z, X], z downwards
        (FILM, {"space": "LPS", "space_directions": np.array([[0, 0, -1.0], [1, 0, 0]])}),
        (FILM[:, :, None], {"space": "LPS", "space_directions": np.array([[0, 0, -1.0], [1, 0, 0], NAN])}),
        # a plane of its own without anatomy, as written for 2-D images
        (FILM.T, {"space_dimension": 2, "space_directions": np.array([[0.2, 0], [0, 0.3]])}),
    ],
)
@pytest.mark.parametrize("encoding", ["raw", "gzip", "ascii"])
def test_every_storage_order_gives_the_same_film(tmp_path, array, header, encoding):
    radiograph = read_radiograph(_save(tmp_path / "a.nrrd", np.asfortranarray(array), encoding, **header))
    np.testing.assert_array_equal(radiograph.array[0], FILM / np.float32(255))
    assert radiograph.array.dtype == np.float32 and radiograph.meta["original_shape"] == (20, 30)
    pixel_map = radiograph.meta["pixel_map"]
    np.testing.assert_array_equal(pixel_map.restore(FILM), array.squeeze())


@pytest.mark.parametrize(
    ("header", "spacing"),
    [
        ({}, None),
        ({"spacings": [1.0, 1.0]}, None),  # the default of many writers
        ({"spacings": [0.2, 0.3]}, (0.3, 0.2)),  # columns, then rows
        ({"spacings": [1.0, 1.0], "units": ["mm", "mm"]}, (1.0, 1.0)),
        ({"spacings": [0.02, 0.03], "units": ["cm", "cm"]}, (0.3, 0.2)),
        ({"spacings": [0.2, np.nan]}, None),
        ({"spacings": [0.2, 0.3], "units": ["mm", "s"]}, None),
        ({"space": "LPS", "space_directions": np.array([[0.2, 0, 0], [0, 0, -0.3]])}, (0.3, 0.2)),
        ({"space": "LPS", "space_directions": np.array([[0.16, 0, 0.12], [0, 0.3, 0]])}, (0.3, 0.2)),  # oblique
        ({"space": "LPS", "space_directions": np.array([[1.0, 0, 0], [0, 1, 0]])}, None),
    ],
)
def test_spacing_is_never_invented(tmp_path, header, spacing):
    found = read_radiograph(_save(tmp_path / "a.nrrd", np.asfortranarray(FILM.T), **header)).meta["spacing_mm"]
    assert found == (pytest.approx(spacing) if spacing else None)


def test_ranges(tmp_path):
    sixteen = _save(tmp_path / "u16.nrrd", FILM.T.astype(">u2") * 200)
    np.testing.assert_allclose(read_radiograph(sixteen).array[0], FILM * 200.0 / 65535, atol=1e-7)
    unit = _save(tmp_path / "f.nrrd", (FILM.T / 250).astype(np.float64))
    np.testing.assert_allclose(read_radiograph(unit).array[0], FILM / 250, atol=1e-7)
    signed = _save(tmp_path / "i16.nrrd", FILM.T.astype(np.int16))
    with pytest.raises(
        RadiographError, match="int16 values from 0 to 250 without a declared grey range; save it as uint8"
    ):
        read_radiograph(signed)
    np.testing.assert_allclose(
        read_radiograph(signed, window=(100, 100)).array[0], np.clip((FILM - 50.0) / 100, 0, 1), atol=1e-6
    )
    infinite = np.full((20, 20), np.inf, np.float32)
    with pytest.raises(RadiographError, match="NaN or infinite"):
        read_radiograph(_save(tmp_path / "inf.nrrd", infinite))


@pytest.mark.parametrize(
    ("array", "header", "reason"),
    [
        (np.zeros((20, 20, 20), np.uint8), {}, "is not a single 2-D slice"),
        (np.zeros((20, 20, 1, 3), np.uint8), {}, "is not a single 2-D slice"),
        (np.zeros((3, 20, 20), np.uint8), {"kinds": ["RGB-color", "domain", "domain"]}, "colour or vector samples"),
    ],
)
def test_only_one_grey_slice_is_taken(tmp_path, array, header, reason):
    with pytest.raises(RadiographError, match=reason):
        read_radiograph(_save(tmp_path / "a.nrrd", array, **header))


def test_huge_headers_are_refused_before_the_data(tmp_path):
    path = _save(tmp_path / "a.nrrd", FILM)
    path.write_bytes(path.read_bytes().replace(b"sizes: 20 30", b"sizes: 20000 30000"))
    with pytest.raises(RadiographError, match="20000x30000 is more than the limit of 80000000 pixels"):
        read_radiograph(path)


@pytest.mark.parametrize("field", ["data file", "datafile"])
@pytest.mark.parametrize("target", ["a.raw", "/etc/hostname", "LIST\na.raw", "%03d.raw 1 2 1"])
def test_detached_headers_are_refused(tmp_path, field, target):
    (tmp_path / "a.raw").write_bytes(FILM.tobytes())
    header = f"NRRD0004\ntype: uint8\ndimension: 2\nsizes: 20 30\nencoding: raw\n{field}: {target}\n\n"
    (tmp_path / "a.nhdr").write_text(header)
    with pytest.raises(RadiographError, match="NRRD header without its data|cannot be decoded"):
        read_radiograph(tmp_path / "a.nhdr")


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii"])
@pytest.mark.parametrize("keep", [0.3, 0.6, 0.99])
def test_truncation(tmp_path, encoding, keep):
    noise = np.random.default_rng(0).integers(100, 256, (64, 64), dtype=np.uint8)
    path = _save(tmp_path / "a.nrrd", noise, encoding)
    read_radiograph(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(RadiographError, match="damaged or truncated"):
        read_radiograph(path)


def test_without_pynrrd_the_package_is_named(tmp_path, monkeypatch):
    path = _save(tmp_path / "a.nrrd", FILM)
    monkeypatch.setitem(__import__("sys").modules, "nrrd", None)
    with pytest.raises(RadiographError, match="pip install pynrrd"):
        read_radiograph(path)
