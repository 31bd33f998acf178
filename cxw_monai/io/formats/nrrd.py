"""Single 2-D NRRD slices through pynrrd; orientation and range: :mod:`cxw_monai.io.formats.slices`.

An orientation is declared where ``space`` names the patient's axes (left-posterior-superior and its like) and
``space directions`` are given; a plane of two directions in an unnamed space lies as ITK has it, towards left and
posterior. Spacing is the length of the space directions, else ``spacings``.

Detached headers are refused: they name other files, anywhere.
"""

from __future__ import annotations

import bz2
import math
import warnings
import zlib
from os import PathLike
from typing import IO, Any

import numpy as np

from cxw_monai.io.radiograph import Radiograph, UnusableError, describe, errors_of, refuse_huge
from cxw_monai.io.scaling import GreyOptions

from .slices import film_axes, known_spacing, refuse_unless_slice, unit_range

__all__ = ["is_nrrd_header", "read_nrrd", "read_nrrd_values"]

_MAGIC = b"NRRD000"
_BLOCK = 1 << 20
_SPACES = {  # to RAS
    **dict.fromkeys(("right-anterior-superior", "ras"), (1, 1, 1)),
    **dict.fromkeys(("left-anterior-superior", "las"), (-1, 1, 1)),
    **dict.fromkeys(("left-posterior-superior", "lps"), (-1, -1, 1)),
}


def is_nrrd_header(head: bytes) -> bool:
    """Whether a file's first bytes are those of a NRRD."""
    return head.startswith(_MAGIC)


def read_nrrd(path: str | PathLike[str], *, options: GreyOptions, max_pixels: int) -> Radiograph:
    """Read a NRRD file of one slice, as :func:`~cxw_monai.io.read.read_radiograph` describes.

    Raises:
        RadiographError: pynrrd is not installed, the header is detached, the file truncated, a volume or a colour
            image, too large, or without a declared range.
    """
    with errors_of(path, "NRRD needs a reader that isn't installed", "pip install pynrrd"):
        import nrrd
    damage = "cannot be decoded, damaged or truncated"
    with errors_of(path, damage, "copy or export it again"), warnings.catch_warnings(), open(path, "rb") as stream:
        warnings.simplefilter("ignore")  # they quote the header
        header = nrrd.read_header(stream)
        _refuse_unusable(header, max_pixels)
        _refuse_bomb(header, stream)
        return _to_radiograph(nrrd.read_data(header, stream, None, index_order="F"), header, options)


def read_nrrd_values(path: str | PathLike[str], most: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Read a NRRD of at most ``most`` values: the array as it is stored, its first axis first, and the header.

    Raises:
        UnusableError: the header is detached, or more values are declared or packed.
        Exception: whatever pynrrd raises of a damaged file.
    """
    import nrrd

    with open(path, "rb") as stream:
        header = nrrd.read_header(stream)
        _refuse_detached(header)
        refuse_huge(header["sizes"], most)
        _refuse_bomb(header, stream)
        return nrrd.read_data(header, stream, None, index_order="F"), header


def _refuse_detached(header: dict[str, Any]) -> None:
    """Refuse a header whose data aren't right behind it, in this very file."""
    if "data file" in header or "datafile" in header:
        raise UnusableError("a NRRD header without its data", "save header and data as one .nrrd file")
    if any(header.get(name) for name in ("line skip", "lineskip", "byte skip", "byteskip")):
        raise UnusableError("a NRRD whose data don't follow its header", "save it without line or byte skip")


def _refuse_unusable(header: dict[str, Any], max_pixels: int) -> None:
    """Refuse, from the header alone, what isn't one grey slice in this very file."""
    _refuse_detached(header)
    kinds = [str(kind).lower() for kind in header.get("kinds", ())]
    if any("color" in kind or "vector" in kind for kind in kinds):
        raise UnusableError("colour or vector samples aren't grey", "save a grey image")
    if "block" in str(header.get("type")):
        raise UnusableError("samples of type block aren't grey", "save a grey image")
    # all of pynrrd's other types are real numbers
    refuse_unless_slice([int(size) for size in header["sizes"]], np.dtype(np.float32), max_pixels)


def _refuse_bomb(header: dict[str, Any], stream: IO[bytes]) -> None:
    """Refuse packed data that are larger than the header says: pynrrd unpacks all there is. Keeps nothing."""
    unpacker: Any
    if header.get("encoding") in ("gz", "gzip"):
        unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    elif header.get("encoding") in ("bz2", "bzip2"):
        unpacker = bz2.BZ2Decompressor()
    else:
        return
    start, size, most = stream.tell(), 0, 8 * math.prod(int(size) for size in header["sizes"])  # no sample is wider
    while not unpacker.eof:
        held = getattr(unpacker, "unconsumed_tail", b"")  # zlib's; bz2 holds it itself
        wants = getattr(unpacker, "needs_input", not held)
        packed = stream.read(_BLOCK) if wants else held
        if wants and not packed:
            break
        size += len(unpacker.decompress(packed, _BLOCK))
        if size > most:
            raise UnusableError(f"unpacks to more than {most} bytes", "copy or export it again")
    stream.seek(start)


def _to_radiograph(values: np.ndarray, header: dict[str, Any], options: GreyOptions) -> Radiograph:
    """Turn and scale one slice ``[X, Y]``."""
    directions = _directions(header, values.ndim)
    pixel_map, (rows, columns), step = film_axes(values.shape, _affine(header, directions, values.shape))
    film = pixel_map.turn(values.reshape(pixel_map.source_shape))
    array, range_step = unit_range(film, options)
    spacing, unit = _spacing(header, directions, values.ndim)
    meta = describe(
        pixel_map,
        bits=8 * values.dtype.itemsize,
        photometric=str(values.dtype.newbyteorder("=")),
        steps=[step, range_step],
        spacing=known_spacing(spacing[rows], spacing[columns], unit),
    )
    return Radiograph(np.ascontiguousarray(array)[None], meta)  # [1, H, W]


def _directions(header: dict[str, Any], axes: int) -> np.ndarray | None:
    """``[axes, space]`` directions of the array's axes in space, NaN for one that has none; None where not given."""
    rows = header.get("space directions")
    if rows is None or len(rows) != axes:
        return None
    width = max((len(row) for row in rows if row is not None), default=0)
    return np.array([np.full(width, np.nan) if row is None else row for row in rows], dtype=np.float64)


def _affine(header: dict[str, Any], directions: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray | None:
    """``[4, 4]`` to RAS, or None where no orientation in the patient is declared."""
    if "space" not in header and directions is not None and directions.shape == (2, 2):  # as ITK writes a plane
        directions = np.pad(directions, ((0, 0), (0, 1)))
        signs: tuple[int, ...] | None = _SPACES["lps"]
    else:
        signs = _SPACES.get(str(header.get("space", "")).lower())
    if signs is None or directions is None or directions.shape[1] != 3:
        return None
    affine = np.eye(4)
    given = [axis for axis in range(len(shape)) if np.isfinite(directions[axis]).all()]
    if any(axis not in given for axis in range(len(shape)) if shape[axis] > 1):
        return None
    known = {axis: directions[axis] * signs for axis in given if axis < 3}
    if len(known) == 2:  # the slice's normal, which decides nothing, so that the matrix can be inverted
        first, second = known.values()
        known[3 - sum(known)] = np.cross(first, second) / np.linalg.norm(first)
    affine[:3, :3] = np.stack([known[axis] for axis in range(3)], axis=1)
    return affine


def _spacing(header: dict[str, Any], directions: np.ndarray | None, axes: int) -> tuple[list[float], str | None]:
    """Spacing of each axis (NaN where it has none) and its unit, as stored."""
    if directions is not None:
        return list(np.linalg.norm(directions, axis=1)), _unit(header.get("space units"))
    spacings = header.get("spacings")
    if spacings is None or len(spacings) != axes:
        return [float("nan")] * axes, None
    return [float(value) for value in spacings], _unit(header.get("units"))


def _unit(units: Any) -> str | None:
    """The one unit of all axes, or None where none is declared; a name that isn't known for a mixture."""
    names = {str(unit).strip() for unit in units if str(unit).strip()} if units is not None else set()
    return " ".join(sorted(names)) or None
