"""Reading radiographs beside pydicom, Pillow and NumPy that do the same steps by hand.

The two sides of a case give equal arrays (up to one float32 rounding), are timed in turns in one process, and their
ratio is taken pair by pair, so that a machine's changing load meets both. Times are the process's own processor time:
the files lie in the system's cache, and a busy machine does not change it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median as median_of
from statistics import quantiles

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, RLELossless, generate_uid

from cxw_monai.io import read_radiograph

from .figures import seconds
from .made_films import synthetic_film

__all__ = ["ReadingCase", "ReadingRow", "measure_reading", "reading_cases"]

_CENTER, _WIDTH = 2000.0, 3000.0
_TURN = 0.02  # seconds of reading a turn, at least


@dataclass(frozen=True)
class ReadingCase:
    """One file and the same steps by hand.

    Attributes:
        name: format and size.
        path: the file.
        by_hand: path -> float32 ``[H, W]`` in [0, 1].
    """

    name: str
    path: Path
    by_hand: Callable[[Path], np.ndarray]


@dataclass(frozen=True)
class ReadingRow:
    """How long the package takes for a case, over the time by hand; below 1 it is faster.

    Attributes:
        name: the case.
        median: of the ratios of paired repeats.
        quartiles: the lower and the upper.
        milliseconds: the package's own median, of processor time.
    """

    name: str
    median: float
    quartiles: tuple[float, float]
    milliseconds: float


def reading_cases(folder: Path, sizes: Sequence[int] = (512, 1024, 2048)) -> list[ReadingCase]:
    """Write one film a size and format.

    Args:
        folder: where the files go.
        sizes: heights in px; films are square.
    """
    cases = []
    for size in sizes:
        film = synthetic_film(size, 0)[0]  # uint8 [H, W]
        noise = np.random.default_rng(size).integers(0, 16, film.shape, dtype=np.uint16)
        deep = film.astype(np.uint16) * 16 + noise  # 12 bits
        writers: list[tuple[str, Callable[[Path], None], Callable[[Path], np.ndarray]]] = [
            ("8-bit.png", Image.fromarray(film).save, _image_by_hand),
            ("16-bit.png", Image.fromarray(deep * 16).save, _image_by_hand),
            ("grey.jpg", Image.fromarray(film).save, _image_by_hand),
            ("colour.jpg", Image.fromarray(film).convert("RGB").save, _colour_by_hand),
            ("window.dcm", lambda path, pixels=deep: _write_dicom(path, pixels), _dicom_by_hand),
            ("rle.dcm", lambda path, pixels=deep: _write_dicom(path, pixels, RLELossless), _dicom_by_hand),
        ]
        for name, write, by_hand in writers:
            path = folder / f"{size}-{name}"
            write(path)
            cases.append(ReadingCase(f"{name} {size}", path, by_hand))
    return cases


def measure_reading(
    folder: Path, sizes: Sequence[int] = (512, 1024, 2048), repeats: int = 21
) -> tuple[list[ReadingRow], list[ReadingRow]]:
    """Time the package beside the same steps by hand, and beside Pillow's bare decoding.

    Args:
        folder: where the films go; the caller removes it.
        sizes: heights in px.
        repeats: pairs a case, at least 2.

    Returns:
        ``(rows, bare)``: every case beside the same steps by hand; PNG and JPEG also beside ``np.asarray(image)``,
        which gives integers and leaves the scaling to the caller.

    Raises:
        ValueError: fewer than 2 repeats.
    """
    if repeats < 2:
        raise ValueError(f"repeats must be at least 2, got {repeats}")
    cases = reading_cases(folder, sizes)
    rows = [_row(case.name, case.path, case.by_hand, repeats) for case in cases]
    pictures = [case for case in cases if case.path.suffix != ".dcm"]
    bare = [_row(f"{case.name}, bare", case.path, _bare, repeats) for case in pictures]
    return rows, bare


def _row(name: str, path: Path, by_hand: Callable[[Path], np.ndarray], repeats: int) -> ReadingRow:
    """Pairs in turns, each side first in every other one; a small file is read several times a turn."""
    sides: tuple[Callable[[Path], object], ...] = (read_radiograph, by_hand)
    for side in sides:
        side(path)
    reads = max(1, round(_TURN / _cpu_seconds(read_radiograph, path, 1)))
    times: list[list[float]] = [[], []]
    for repeat in range(repeats):
        for at in (0, 1) if repeat % 2 else (1, 0):
            times[at].append(_cpu_seconds(sides[at], path, reads))
    ratios = [ours / theirs for ours, theirs in zip(*times, strict=True)]
    lower, median, upper = quantiles(ratios, n=4, method="inclusive")
    return ReadingRow(name, median, (lower, upper), 1e3 * median_of(times[0]))


def _cpu_seconds(read: Callable[[Path], object], path: Path, reads: int) -> float:
    """Processor seconds of one read."""
    return max(seconds(lambda: [read(path) for _ in range(reads)], time.process_time), 1e-9) / reads


def _image_by_hand(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        values = np.asarray(image)
    return values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)


def _colour_by_hand(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("L")).astype(np.float32) / np.float32(255)


def _bare(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def _dicom_by_hand(path: Path) -> np.ndarray:
    """A window and an inversion in float32 and in place."""
    dataset = pydicom.dcmread(path)
    values = dataset.pixel_array.astype(np.float32)
    values -= np.float32(float(dataset.WindowCenter) - 0.5)
    values /= np.float32(float(dataset.WindowWidth) - 1)
    values += np.float32(0.5)
    np.clip(values, 0, 1, out=values)
    return np.subtract(1, values, out=values)


def _write_dicom(path: Path, pixels: np.ndarray, syntax: str | None = None) -> None:
    """A MONOCHROME1 DX of 12 bits with one window."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128, is_implicit_VR=False, is_little_endian=True)
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel, ds.PixelRepresentation = 1, 0
    ds.PhotometricInterpretation = "MONOCHROME1"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.WindowCenter, ds.WindowWidth = _CENTER, _WIDTH
    ds.PixelData = pixels.astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"
    if syntax is not None:
        ds.compress(syntax)
    ds.save_as(path)
