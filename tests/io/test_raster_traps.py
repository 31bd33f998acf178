"""PNG, JPEG and TIFF files as they are met in practice: odd modes, odd names, half pictures."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cxw_monai.io import RadiographError, read_radiograph

RAMP8 = np.arange(256, dtype=np.uint8).reshape(16, 16)
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)


@pytest.mark.parametrize("subsampling", [0, 1, 2])  # 4:4:4, 4:2:2, 4:2:0
def test_a_grey_film_in_a_colour_jpeg_is_its_luminance(tmp_path, subsampling):
    Image.fromarray(NOISE).save(tmp_path / "grey.jpg", quality=90)
    Image.fromarray(NOISE).convert("RGB").save(tmp_path / "colour.jpg", quality=90, subsampling=subsampling)
    colour = read_radiograph(tmp_path / "colour.jpg")
    np.testing.assert_array_equal(colour.array, read_radiograph(tmp_path / "grey.jpg").array)
    assert colour.meta["steps"] == ["RGB to luma"]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_png_of_few_bits(tmp_path, bits):
    levels = RAMP8 >> (8 - bits)
    path = tmp_path / "a.png"
    if bits == 1:
        Image.fromarray(levels.astype(bool)).save(path)
    else:  # Pillow writes no grey of 2 or 4 bits
        packed = sum(levels[:, k :: 8 // bits].astype(np.uint16) << (8 - bits * (k + 1)) for k in range(8 // bits))
        path.write_bytes(_png(packed.astype(np.uint8), width=16, depth=bits, colour_type=0))
    if bits == 1:
        with pytest.raises(RadiographError, match="only black and white in it: a mask, not a film"):
            read_radiograph(path)
        return
    np.testing.assert_allclose(read_radiograph(path).array[0], levels / (2**bits - 1), atol=1e-7)


def _png(rows: np.ndarray, width: int, depth: int, colour_type: int) -> bytes:
    """A PNG written by hand of packed ``rows`` ``[H, bytes]``."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_16_bit_colour_png_is_told_to_lose_its_lower_byte(tmp_path):
    grey = RAMP8.astype(">u2") * 257
    rows = np.repeat(grey[:, :, None], 3, axis=2).reshape(16, -1).view(np.uint8)
    (tmp_path / "a.png").write_bytes(_png(rows, width=16, depth=16, colour_type=2))
    radiograph = read_radiograph(tmp_path / "a.png")
    np.testing.assert_allclose(radiograph.array[0], RAMP8 / 255, atol=1e-7)
    assert radiograph.meta["steps"] == ["16-bit colour reduced to 8 bits", "RGB to luma"]


@pytest.mark.parametrize("mode", ["P", "LA", "RGBA", "CMYK"])
def test_grey_in_other_modes_is_exact(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    grey = Image.fromarray(RAMP8)
    (grey.convert("RGB").convert("CMYK") if mode == "CMYK" else grey.convert(mode)).save(path)
    np.testing.assert_allclose(read_radiograph(path).array[0], RAMP8 / 255, atol=1e-7)


def test_a_window_or_percentiles_asked_for(tmp_path):
    values = RAMP8.astype(np.uint16) * 10
    Image.fromarray(values).save(tmp_path / "a.png")
    radiograph = read_radiograph(tmp_path / "a.png", window=(1000, 500))  # 750 to 1250
    np.testing.assert_allclose(radiograph.array[0], np.clip((values - 750.0) / 500, 0, 1), atol=1e-6)
    assert radiograph.meta["steps"] == ["window as asked: center 1000, width 500"]
    radiograph = read_radiograph(tmp_path / "a.png", percentiles=(20, 80))  # 510 to 2040
    np.testing.assert_allclose(radiograph.array[0], np.clip((values - 510.0) / 1530, 0, 1), atol=1e-6)
    assert radiograph.meta["steps"] == ["percentiles 20 and 80 of the image: 510 to 2040"]


@pytest.mark.parametrize("name", ["Röntgen Thorax (1).png", "胸部.jpg", "снимок.tif", "C:\\films\\a.png"])
@pytest.mark.parametrize("as_text", [False, True])
def test_names(tmp_path, name, as_text):
    path = tmp_path / name
    suffix = {"png": "PNG", "jpg": "JPEG", "tif": "TIFF"}[name.rsplit(".", 1)[1]]
    Image.fromarray(RAMP8).save(path, suffix)
    radiograph = read_radiograph(str(path) if as_text else path)
    assert radiograph.meta["path"] == str(path)
    path.write_bytes(b"")
    with pytest.raises(RadiographError) as caught:
        read_radiograph(path)
    assert caught.value.path == str(path)


def _tiff(orientation: int = 1, compression: int = 1, keep: float = 1.0) -> bytes:
    """A one-strip TIFF of NOISE[:, :48], its directory first, its strip cut off."""
    values = NOISE[:, :48]
    data = values.tobytes() if compression == 1 else zlib.compress(values.tobytes())
    tags = [(256, 48), (257, 64), (258, 8), (259, compression), (262, 1), (273, 0), (274, orientation), (277, 1)]
    tags += [(278, 64), (279, len(data))]
    at = 8 + 2 + 12 * len(tags) + 4
    tags = [(tag, at if tag == 273 else value) for tag, value in tags]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", 0) + data[: int(len(data) * keep)]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_tiff_is_mapped_back_to_its_stored_grid(tmp_path, orientation):
    (tmp_path / "a.tif").write_bytes(_tiff(orientation))
    radiograph = read_radiograph(tmp_path / "a.tif")
    stored = radiograph.meta["pixel_map"].restore(radiograph.array[0])
    np.testing.assert_array_equal(stored, NOISE[:, :48] / np.float32(255))
    turned = {1: 0, 2: 0, 3: 0, 4: 0}.get(orientation, 1)
    assert radiograph.array.shape[1:] == ((48, 64) if turned else (64, 48)) == radiograph.meta["original_shape"]


def _whole(kind: str) -> bytes:
    stream = io.BytesIO()
    if kind in ("tiff", "deflate"):
        return _tiff(compression=1 if kind == "tiff" else 8)
    Image.fromarray(NOISE).save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize("keep", [0.5, 0.9, 0.995])
@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff", "deflate"])
@pytest.mark.parametrize("lenient", [False, True])
def test_half_pictures_are_errors_whatever_pillow_is_told(tmp_path, monkeypatch, kind, keep, lenient):
    from PIL import ImageFile

    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    content = _whole(kind)
    (tmp_path / "whole").write_bytes(content)
    read_radiograph(tmp_path / "whole")
    (tmp_path / "cut").write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(RadiographError, match="damaged or truncated"):
        read_radiograph(tmp_path / "cut")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is lenient  # left as it was found


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize(("factor", "top"), [(1, 255), (2, 511), (16, 4095), (32, 65535), (257, 65535)])
def test_films_of_fewer_bits_in_samples_of_16_are_not_black(tmp_path, name, factor, top):
    values = RAMP8.astype(np.uint16) * factor  # up to 255, 510, 4080: of 8, 9 and 12 bits
    Image.fromarray(values).save(tmp_path / name)
    film = read_radiograph(tmp_path / name)
    np.testing.assert_allclose(film.array[0], values / top, atol=1e-6)
    assert film.meta["steps"] == (
        [] if top == 65535 else [f"range 0 to {top}: values leave the upper bits of 16 unused"]
    )


def test_labels_in_samples_of_16_bits_are_no_film(tmp_path):
    Image.fromarray((RAMP8 % 32).astype(np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(RadiographError, match="a map of labels"):
        read_radiograph(tmp_path / "a.png")
