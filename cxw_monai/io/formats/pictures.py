"""Pictures that Pillow opens without surprises: films, masks and maps of labels.

Opening a pipe would block, a header can claim more pixels than there is memory, a damaged file raises whatever
its parser stumbled on: here all of that is one error that names the file.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike

import numpy as np
from PIL import Image, ImageFile

from cxw_monai.io.radiograph import MAX_PIXELS, RadiographError, UnusableError, errors_of, refuse_huge

__all__ = ["open_picture", "opened_image", "read_mask", "refuse_unless_file"]

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "PPM")
_lenient = threading.Lock()


def refuse_unless_file(path: str | PathLike[str], what: str = "file", remedy: str = "check the path") -> None:
    """Refuse what isn't there, and what is no regular file: folders, pipes, devices. Opening a pipe may never return.

    ``what`` it should be, and the ``remedy`` where it isn't there, go into the error.

    Raises:
        RadiographError: it is missing, or no file.
    """
    if not os.path.exists(path):
        raise RadiographError(path, f"no such {what}", remedy)
    if not os.path.isfile(path):
        raise RadiographError(path, "not a file, but a folder, a pipe or a device", "give a regular file")


@contextmanager
def open_picture(path: str | PathLike[str], what: str, remedy: str = "check the path") -> Iterator[Image.Image]:
    """An image file with its header read; decode it within the context.

    ``what`` it is, and the ``remedy`` where it isn't there, go into errors.

    Raises:
        RadiographError: missing, no regular file, too large, damaged or no picture.
    """
    refuse_unless_file(path, what, remedy)
    with errors_of(path, f"the {what} cannot be read ({{}})"):
        bomb = UnusableError(f"the {what} has more than {MAX_PIXELS} pixels")
        with opened_image(path, _FORMATS, MAX_PIXELS, bomb) as image:
            yield image


@contextmanager
def opened_image(
    path: str | PathLike[str], formats: tuple[str, ...], max_pixels: int, bomb: UnusableError
) -> Iterator[Image.Image]:
    """An image of which Pillow gives all or raises an error.

    It is read as a stream: by its name, Pillow maps an uncompressed TIFF into memory, and scrambles a turned one. The
    error ``bomb`` is raised where the size is above Pillow's own limit.
    """
    with warnings.catch_warnings(), _no_half_pictures(), open(path, "rb") as stream:
        warnings.simplefilter("ignore")  # of odd metadata, and above Pillow's own size limit; max_pixels decides
        try:
            with Image.open(stream, formats=formats) as image:
                refuse_huge(image.size[::-1], max_pixels)
                yield image
        except Image.DecompressionBombError as error:
            raise bomb from error


@contextmanager
def _no_half_pictures() -> Iterator[None]:
    """Truncation is an error, whatever another part of the program has set ``ImageFile.LOAD_TRUNCATED_IMAGES`` to."""
    if not ImageFile.LOAD_TRUNCATED_IMAGES:
        yield
        return
    with _lenient:  # one thread at a time, so that the setting is found and left as it was
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = True


def read_mask(path: str | PathLike[str], shape: tuple[int, int] | None = None) -> np.ndarray:
    """Read a mask: one channel, 0 outside and 255 (or 1) inside.

    Args:
        path: a PNG, or another image that Pillow reads.
        shape: rows and columns that it must have; another size is refused before anything is decoded.

    Returns:
        bool `[H, W]`.

    Raises:
        RadiographError: it is missing, no regular file or damaged, too large or of another size, of several channels,
            or holds other values.
    """
    with open_picture(path, "mask", "check the manifest's mask column") as image:
        if shape is not None and image.size[::-1] != tuple(shape):
            got, wanted = (f"{rows}x{columns}" for rows, columns in (image.size[::-1], shape))
            reason = f"the mask is {got} px (rows x columns), its film {wanted}"
            raise RadiographError(path, reason, "make the mask on the film's own pixels")
        values = np.asarray(image)
    if values.ndim != 2:
        raise RadiographError(path, f"the mask has {values.shape[-1]} channels", "save it with one")
    top = values.max()
    if top not in (0, 1, 255) or ((values != 0) & (values != top)).any():
        found = ", ".join(str(value) for value in np.unique(values)[:5])
        raise RadiographError(path, f"the mask holds the values {found}, ...", "write 0 outside and 255 inside, as PNG")
    return values != 0
