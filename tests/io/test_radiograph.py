"""The reader on made-up PNG, JPEG and TIFF files, and its errors."""

from __future__ import annotations

import pickle
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cxw_monai.io import RadiographError, read_radiograph
from cxw_monai.io.pixel_map import PixelMap

RAMP8 = np.arange(256, dtype=np.uint8).reshape(16, 16)


def test_error_is_one_line_and_survives_pickling():
    error = RadiographError("a.png", "broken\nin two", "copy it")
    assert str(error) == "a.png: broken in two; copy it"
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.path, copy.reason, copy.remedy, str(copy)) == ("a.png", "broken in two", "copy it", str(error))


def test_8_bit_png_is_scaled_by_255_not_by_its_extremes(tmp_path):
    values = np.clip(RAMP8, 50, 200)
    Image.fromarray(values).save(tmp_path / "a.png")
    radiograph = read_radiograph(tmp_path / "a.png")
    assert radiograph.array.dtype == np.float32
    np.testing.assert_array_equal(radiograph.array, (values / np.float32(255))[None])
    assert radiograph.meta == {
        "path": str(tmp_path / "a.png"),
        "spacing_mm": None,
        "original_shape": (16, 16),
        "bits": 8,
        "photometric": "L",
        "intent": None,
        "view": None,
        "laterality": None,
        "steps": [],
        "pixel_map": PixelMap.identity((16, 16)),
    }


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_ramp_is_exact(tmp_path, name):
    values = (np.arange(65536, dtype=np.uint32)).astype(np.uint16).reshape(256, 256)
    Image.fromarray(values).save(tmp_path / name)
    radiograph = read_radiograph(tmp_path / name)
    np.testing.assert_array_equal(radiograph.array[0], values.astype(np.float32) / np.float32(65535))
    assert radiograph.meta["bits"] == 16


def test_big_endian_16_bit_tiff(tmp_path):
    values = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    (tmp_path / "a.tif").write_bytes(_tiff(values, photometric=1, order=">"))
    np.testing.assert_array_equal(read_radiograph(tmp_path / "a.tif").array[0], values / np.float32(65535))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_zero_tiff_is_inverted(tmp_path, dtype):
    top = np.iinfo(dtype).max
    values = (np.arange(256, dtype=np.uint32) * (top // 255)).astype(dtype).reshape(16, 16)
    (tmp_path / "white.tif").write_bytes(_tiff(values, photometric=0))
    (tmp_path / "black.tif").write_bytes(_tiff(values, photometric=1))
    white, black = (read_radiograph(tmp_path / f"{name}.tif").array for name in ("white", "black"))
    assert black[0, 0, 0] == 0 and white[0, 0, 0] == 1
    np.testing.assert_allclose(white, 1 - black, atol=1e-7)


def _tiff(values: np.ndarray, photometric: int, order: str = "<", orientation: int = 1) -> bytes:
    """A one-strip TIFF written by hand, so that Pillow's writer has no say in it."""
    rows, columns = values.shape
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    tags = [(256, columns), (257, rows), (258, 8 * values.dtype.itemsize), (259, 1), (262, photometric), (273, 8)]
    tags += [(274, orientation), (277, 1), (278, rows), (279, len(data))]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(data))
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags)
    return head + data + struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colour_becomes_itu_601_luma(tmp_path, mode):
    colours = np.zeros((32, 32, 3), dtype=np.uint8)
    colours[:16, :16], colours[:16, 16:], colours[16:, :16] = (200, 0, 0), (0, 200, 0), (0, 0, 200)
    image = Image.fromarray(colours)
    (image.quantize(4) if mode == "P" else image.convert(mode)).save(tmp_path / "a.png")
    radiograph = read_radiograph(tmp_path / "a.png")
    grey = radiograph.array[0] * 255
    # 0.299, 0.587 and 0.114 of 200, rounded
    assert [round(float(grey[at])) for at in [(0, 0), (0, 31), (31, 0), (31, 31)]] == [60, 117, 23, 0]
    assert radiograph.meta["bits"] == 8 and radiograph.meta["steps"] == [f"{mode} to luma"]


def test_jpeg_within_its_quantisation(tmp_path):
    values = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    Image.fromarray(values).save(tmp_path / "a.jpg", quality=98)
    np.testing.assert_allclose(read_radiograph(tmp_path / "a.jpg").array[0], values / 255, atol=4 / 255)


def test_exif_orientation_is_told_but_not_applied_and_tiffs_is_applied(tmp_path):
    values = RAMP8
    exif = Image.Exif()
    exif[274] = 3  # upside down
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    radiograph = read_radiograph(tmp_path / "a.png")
    np.testing.assert_array_equal(radiograph.array[0], values / np.float32(255))
    assert radiograph.meta["steps"] == ["EXIF orientation 3 not applied"]
    (tmp_path / "a.tif").write_bytes(_tiff(values, photometric=1, orientation=3))
    turned = read_radiograph(tmp_path / "a.tif")
    np.testing.assert_array_equal(turned.array[0], values[::-1, ::-1] / np.float32(255))
    assert turned.meta["steps"] == ["TIFF orientation 3 applied"]


def test_the_content_and_not_the_name_tells_the_format(tmp_path):
    Image.fromarray(RAMP8).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.dcm")
    np.testing.assert_array_equal(read_radiograph(tmp_path / "a.dcm").array[0], RAMP8 / np.float32(255))


def test_float_tiff_needs_the_unit_range(tmp_path):
    values = (RAMP8 / 255).astype(np.float32)
    Image.fromarray(values).save(tmp_path / "unit.tif")
    np.testing.assert_array_equal(read_radiograph(tmp_path / "unit.tif").array[0], values)
    Image.fromarray(values * 4).save(tmp_path / "wide.tif")
    with pytest.raises(
        RadiographError, match=r"wide\.tif: float32 values from 0 to 4 without a declared grey range; save"
    ):
        read_radiograph(tmp_path / "wide.tif")
    values[3, 3] = np.nan
    Image.fromarray(values).save(tmp_path / "nan.tif")
    with pytest.raises(RadiographError, match="NaN or infinite"):
        read_radiograph(tmp_path / "nan.tif")


def _cut(source, target):
    target.write_bytes(source.read_bytes()[: source.stat().st_size // 2])


@pytest.mark.parametrize("extension", ["png", "jpg", "tif"])
def test_a_truncated_file_is_an_error(tmp_path, extension):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    whole, half = tmp_path / f"a.{extension}", tmp_path / f"b.{extension}"
    Image.fromarray(noise).save(whole)
    _cut(whole, half)
    read_radiograph(whole)
    with pytest.raises(RadiographError, match="damaged or truncated") as caught:
        read_radiograph(half)
    assert caught.value.path == str(half) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "the file is empty"), (b"not an image at all" * 30, "not an image of a known format")],
)
def test_files_that_are_no_image(tmp_path, content, reason):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(RadiographError, match=reason):
        read_radiograph(tmp_path / "a.png")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(RadiographError, match="no such file"):
        read_radiograph(tmp_path / "nothing.png")
    with pytest.raises(RadiographError, match="not a file"):
        read_radiograph(tmp_path)


def test_constant_small_large_and_multi_frame_images(tmp_path):
    Image.fromarray(np.full((20, 20), 51, np.uint8)).save(tmp_path / "constant.png")
    with pytest.raises(RadiographError, match=r"constant image \(every pixel is 0\.2 of 1\)"):
        read_radiograph(tmp_path / "constant.png")
    Image.fromarray(RAMP8[:, :9]).save(tmp_path / "small.png")
    with pytest.raises(RadiographError, match=r"16x9 pixels \(rows x columns\), smaller than 16"):
        read_radiograph(tmp_path / "small.png")
    assert read_radiograph(tmp_path / "small.png", min_size=9).array.shape == (1, 16, 9)
    Image.fromarray(RAMP8).save(tmp_path / "large.png")
    assert read_radiograph(tmp_path / "large.png", max_pixels=256).array.shape == (1, 16, 16)
    with pytest.raises(RadiographError, match="16x16 is more than the limit of 255 pixels"):
        read_radiograph(tmp_path / "large.png", max_pixels=255)
    frames = [Image.fromarray(RAMP8), Image.fromarray(RAMP8.T)]
    frames[0].save(tmp_path / "two.tif", save_all=True, append_images=frames[1:])
    with pytest.raises(RadiographError, match=r"multi-frame image \(2 frames\)"):
        read_radiograph(tmp_path / "two.tif")


def test_a_decompression_bomb_is_refused_from_its_header(tmp_path):
    # A PNG header that claims 60000x60000 pixels; Pillow's own bomb guard fires first.
    Image.fromarray(RAMP8).save(tmp_path / "bomb.png")
    content = bytearray((tmp_path / "bomb.png").read_bytes())
    content[16:24] = struct.pack(">II", 60000, 60000)
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    (tmp_path / "bomb.png").write_bytes(bytes(content))
    with pytest.raises(RadiographError, match="more than 80000000 pixels"):
        read_radiograph(tmp_path / "bomb.png")
