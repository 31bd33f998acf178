"""Pictures that Pillow opens without surprises: masks and maps of labels.

Opening a pipe would block, a header can claim more pixels than there is memory, a damaged file raises whatever
its parser stumbled on: here all of that is one error that names the file.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike

import numpy as np
from PIL import Image

from cxw_monai.io.radiograph import MAX_PIXELS, RadiographError, refuse_huge

__all__ = ["open_picture", "read_mask", "refuse_unless_file"]

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "PPM")
_AGAIN = "copy it again from its source"


def refuse_unless_file(path: str | PathLike[str], what: str = "file", remedy: str = "check the path") -> None:
    """Refuse what isn't there, and what is no regular file: folders, pipes, devices. Opening a pipe may never return.

    Args:
        path: the file, or a link to it.
        what: what it should be, in the error.
        remedy: what to do where it isn't there.

    Raises:
        RadiographError: it is missing, or no file.
    """
    if not os.path.exists(path):
        raise RadiographError(path, f"no such {what}", remedy)
    if not os.path.isfile(path):
        raise RadiographError(path, "not a file, but a folder, a pipe or a device", "give a regular file")


@contextmanager
def open_picture(
    path: str | PathLike[str], what: str, remedy: str = "check the path", max_pixels: int = MAX_PIXELS
) -> Iterator[Image.Image]:
    """An image file with its header read; decode it within the context.

    Args:
        path: a file that Pillow reads.
        what: what it is, in errors.
        remedy: what to do where it isn't there.
        max_pixels: the most pixels that its header may declare.

    Raises:
        RadiographError: missing, no regular file, too large, damaged or no picture.
    """
    refuse_unless_file(path, what, remedy)
    try:
        with warnings.catch_warnings(), open(path, "rb") as stream:
            warnings.simplefilter("ignore")  # of odd metadata, and above Pillow's own size limit; max_pixels decides
            with Image.open(stream, formats=_FORMATS) as image:
                refuse_huge(path, image.size[::-1], max_pixels)
                yield image
    except RadiographError:
        raise
    except Image.DecompressionBombError as error:
        raise RadiographError(path, f"the {what} has more than {max_pixels} pixels", _AGAIN) from error
    except Exception as error:  # Pillow's parsers raise whatever the damage provokes (OSError, SyntaxError, ...)
        raise RadiographError(path, f"the {what} cannot be read ({type(error).__name__})", _AGAIN) from error


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
