"""Masks and labels that would hang, fill the memory or end in a parser's own words."""

from __future__ import annotations

import gzip
import os
import signal
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from cxw_monai.data.cache import estimate_cache
from cxw_monai.data.manifest import read_datalist, read_records
from cxw_monai.data.schema import Record
from cxw_monai.data.validation import validate
from cxw_monai.datasets.common import image_size
from cxw_monai.datasets.masks import stored_mask
from cxw_monai.io import RadiographError, read_radiograph
from cxw_monai.io.formats.pictures import read_mask
from cxw_monai.label.label_files import read_label

MASK = np.zeros((24, 32), np.uint8)
MASK[4:20, 6:30] = 255


class _Waiting(BaseException):
    """No handler of ordinary errors takes it."""


@contextmanager
def _no_waiting(seconds: int = 60) -> Iterator[None]:
    """What would wait for ever fails instead."""

    def give_up(*_: object) -> None:
        raise _Waiting(f"still waiting after {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _png_bomb(rows: int, columns: int) -> bytes:
    """A PNG of 1 bit a pixel, all black, of a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = bytes(1 + -(-columns // 8))
    data = b"".join(packer.compress(row) for _ in range(rows)) + packer.flush()
    head = struct.pack(">IIBBBBB", columns, rows, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _special(folder: Path, kind: str) -> Path:
    path = folder / "a.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to a pipe":
        os.mkfifo(folder / "pipe")
        path.symlink_to(folder / "pipe")
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    return path


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "link to a device", "folder"])
@pytest.mark.parametrize("read", [read_mask, read_radiograph])
def test_only_files_are_opened(tmp_path, kind, read):
    path = _special(tmp_path, kind)
    with _no_waiting(), pytest.raises(RadiographError, match="a.png: not a file, but a folder, a pipe or a device"):
        read(path)


def test_links_to_masks_are_followed(tmp_path):
    Image.fromarray(MASK).save(tmp_path / "real.png")
    (tmp_path / "a.png").symlink_to(tmp_path / "real.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png", (24, 32)), MASK > 0)


@pytest.mark.parametrize("side", [9_500, 20_000, 60_000])  # above our limit, Pillow's warning, Pillow's error
def test_a_mask_that_claims_too_many_pixels_is_one_error_without_a_warning(tmp_path, side):
    path = tmp_path / "a.png"
    path.write_bytes(_png_bomb(1, 8).replace(struct.pack(">II", 8, 1), struct.pack(">II", side, side)))
    content = bytearray(path.read_bytes())
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    with warnings.catch_warnings(), pytest.raises(RadiographError) as caught:
        warnings.simplefilter("error")
        read_mask(path)
    assert str(path) in str(caught.value) and "pixels" in caught.value.reason
    with pytest.raises(ValueError, match=r"record 1 .*: mask 'heart': .* pixels"):
        Image.fromarray(np.zeros((24, 32), np.uint8)).save(tmp_path / "film.png")
        record = Record(image="film.png", masks={"heart": "a.png"}, width=32, height=24)
        validate([record], base_dir=tmp_path, check_files=True)


def test_a_mask_of_another_size_is_refused_before_it_is_decoded(tmp_path):
    content = bytearray(_png_bomb(5_000, 8_000))
    (tmp_path / "a.png").write_bytes(content[:60])  # the pixels aren't even there
    with pytest.raises(RadiographError, match=r"the mask is 5000x8000 px \(rows x columns\), its film 24x32"):
        read_mask(tmp_path / "a.png", (24, 32))


@pytest.mark.parametrize(
    "content",
    [b"", b"\x89PNG\r\n\x1a\n", _png_bomb(24, 32)[:-30], gzip.compress(bytes(400), mtime=0)],
    ids=["empty", "signature", "cut", "gzip"],
)
def test_damaged_masks_are_one_error(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(RadiographError, match="the mask cannot be read"):
        read_mask(tmp_path / "a.png")


@pytest.mark.parametrize("value", [np.nan, 0.5, -1.0, 2.0])
def test_floats_that_are_no_mask_are_one_error(tmp_path, value):
    values = (MASK > 0).astype(np.float32)
    values[0, 0] = value
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(RadiographError, match="the mask holds the values"):
        read_mask(tmp_path / "a.tif")


def _nifti_bomb(shape: tuple[int, ...]) -> bytes:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(shape)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    data = packer.compress(header.binaryblock + bytes(4))
    return data + b"".join(packer.compress(bytes(1 << 20)) for _ in range(3)) + packer.flush()


def _nrrd_bomb(sizes: str) -> bytes:
    head = f"NRRD0004\ntype: uint8\ndimension: {len(sizes.split())}\nsizes: {sizes}\nencoding: gzip\n\n".encode()
    return head + gzip.compress(bytes(3 << 20), 9)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.png", lambda: _png_bomb(20_000, 20_000), "the label has more than 80000000 pixels"),
        ("a.png", lambda: _png_bomb(8_000, 9_000), "the label is 8000x9000 px, its film 24x32"),
        ("a.nii.gz", lambda: _nifti_bomb((20_000, 15_000)), "the label is 15000x20000 px, its film 24x32"),
        ("a.nrrd", lambda: _nrrd_bomb("20000 15000"), "the label is 15000x20000 px, its film 24x32"),
        ("a.seg.nrrd", lambda: _nrrd_bomb("20000 15000"), "20000x15000 is more than the limit"),
        ("a.seg.nrrd", lambda: _nrrd_bomb("32 24"), "unpacks to more than 6144 bytes"),
    ],
)
def test_labels_of_another_size_are_refused_by_their_headers(tmp_path, name, content, reason):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 32), dtype=np.uint8)).save(tmp_path / "film.png")
    film = read_radiograph(tmp_path / "film.png")
    (tmp_path / name).write_bytes(content())
    with pytest.raises(RadiographError, match=reason):
        read_label(tmp_path / name, film, ("heart",), {"heart": 1})


def test_a_label_of_raw_bytes_is_measured_before_it_is_read(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 32), dtype=np.uint8)).save(tmp_path / "film.png")
    with (tmp_path / "a.bin").open("wb") as stream:
        stream.truncate(1 << 40)  # a file of holes
    with pytest.raises(RadiographError, match="the label is 1099511627776 px, its film 24x32"):
        read_label(tmp_path / "a.bin", read_radiograph(tmp_path / "film.png"), ("heart",), {"heart": 1})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_among_the_files_of_a_set_are_not_waited_at(tmp_path):
    for name in ("a.png", "a.dcm", "m.csv", "m.json"):
        os.mkfifo(tmp_path / name)
    with _no_waiting():
        for read in (image_size, lambda path: stored_mask(path, 3, 3)):
            for name in ("a.png", "a.dcm"):
                with pytest.raises(RadiographError, match="not a file, but a folder, a pipe or a device"):
                    read(tmp_path / name)
        for name in ("m.csv", "m.json"):
            with pytest.raises(ValueError, match="not a file, but a folder, a pipe or a device; give a regular file"):
                list(read_records(tmp_path / name))
            with pytest.raises(FileNotFoundError):
                read_datalist(tmp_path / name)
        assert estimate_cache([tmp_path / "a.png"], tmp_path, 40).films == 1
