"""PNG, JPEG and TIFF through Pillow.

What is and isn't honoured, none of it silently (``meta["steps"]`` tells):

- Samples are scaled by their depth: 8 bits by 255, 16 bits by 65535, a TIFF's 12 bits by 4095.
- RGB, RGBA, palette and CMYK become ITU-R 601-2 luma at 8 bits; transparency is dropped.
- EXIF orientation (JPEG, PNG) is *not* applied, so that masks and boxes drawn on the stored grid keep their place.
  A TIFF's orientation tag belongs to its pixel layout and is applied by Pillow.
- A TIFF's WhiteIsZero is inverted. Resolution tags (dpi) describe paper, not the detector: spacing is unknown.
"""

from __future__ import annotations

import warnings
from os import PathLike

import numpy as np
from PIL import ExifTags, Image

from cxw_monai.io.image import Radiograph, RadiographError

__all__ = ["is_raster_header", "read_raster"]

_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_ORIENTATION = int(ExifTags.Base.Orientation)
_TIFF_BITS, _TIFF_PHOTOMETRIC = 258, 262
_LUMA_MODES = ("RGB", "RGBA", "RGBX", "P", "PA", "LA", "La", "RGBa", "CMYK", "YCbCr")
_AGAIN = "copy or export it again"


def is_raster_header(head: bytes) -> bool:
    """Whether a file's first bytes are those of a PNG, JPEG or TIFF."""
    return head.startswith(_MAGIC)


def read_raster(path: str | PathLike[str], *, max_pixels: int) -> Radiograph:
    """Read a PNG, JPEG or TIFF of one frame; see the module for what is honoured.

    Args:
        path: the file.
        max_pixels: the most pixels that are decoded.

    Returns:
        The radiograph, float32 ``[1, H, W]`` in [0, 1].

    Raises:
        RadiographError: truncated, damaged, several frames, too large, or samples without a declared range.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, and above Pillow's own size limit; max_pixels decides
            with Image.open(path, formats=("PNG", "JPEG", "TIFF")) as image:
                _refuse_unusable(image, path, max_pixels)
                mode, bits = image.mode, _bits(image)
                white_is_zero = _white_is_zero(image)
                steps = _notes(image)
                values = _grey(image, path)  # [H, W]
    except RadiographError:
        raise
    except Image.DecompressionBombError as error:
        raise RadiographError(path, f"more than {max_pixels} pixels", "resample it, or raise max_pixels") from error
    except Exception as error:  # Pillow's parsers raise whatever the damage provokes (OSError, SyntaxError, ...)
        reason = f"cannot be decoded, damaged or truncated ({type(error).__name__})"
        raise RadiographError(path, reason, _AGAIN) from error
    array = _unit_range(values, bits, path)
    if white_is_zero:
        array = 1 - array
        steps.append("WhiteIsZero inverted")
    meta = {
        "path": str(path),
        "spacing_mm": None,
        "original_shape": values.shape,
        "bits": bits,
        "photometric": mode,
        "steps": steps,
        "view": None,
        "laterality": None,
    }
    return Radiograph(array[None], meta)  # [1, H, W]


def _refuse_unusable(image: Image.Image, path: str | PathLike[str], max_pixels: int) -> None:
    """Refuse, from the header alone, what must not be decoded."""
    width, height = image.size
    if width * height > max_pixels:
        reason = f"{height}x{width} is more than the limit of {max_pixels} pixels"
        raise RadiographError(path, reason, "resample it, or raise max_pixels")
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise RadiographError(path, f"multi-frame image ({frames} frames)", "export each frame to a file of its own")


def _bits(image: Image.Image) -> int:
    """Bits of a grey sample as it will be decoded."""
    if image.mode in _LUMA_MODES:
        return 8
    if image.format == "TIFF":
        return int(image.tag_v2.get(_TIFF_BITS, (1,))[0])
    return {"1": 1, "L": 8}.get(image.mode, 16)


def _white_is_zero(image: Image.Image) -> bool:
    """Whether a TIFF's 16-bit samples still have to be inverted (Pillow inverts the lower depths only)."""
    return image.format == "TIFF" and image.mode.startswith("I;16") and image.tag_v2.get(_TIFF_PHOTOMETRIC) == 0


def _notes(image: Image.Image) -> list[str]:
    """What decoding does to the samples; has to be taken before they are loaded."""
    notes: list[str] = []
    orientation = image.getexif().get(_ORIENTATION, 1)
    if orientation != 1:
        applied = "TIFF orientation {} applied" if image.format == "TIFF" else "EXIF orientation {} not applied"
        notes.append(applied.format(orientation))
    if image.mode in _LUMA_MODES:
        if any("16" in str(tile[3]) for tile in image.tile):
            notes.append("16-bit colour reduced to 8 bits")
        notes.append(f"{image.mode} to luma")
    return notes


def _grey(image: Image.Image, path: str | PathLike[str]) -> np.ndarray:
    """Grey values ``[H, W]``: uint8, uint16 or float32."""
    if image.mode in _LUMA_MODES or image.mode == "1":
        return np.asarray(image.convert("L"))
    if image.mode == "L":
        return np.asarray(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):  # older Pillow: "I" for 16 bits
        return np.asarray(image).astype(np.uint16)
    if image.mode == "F":
        return np.asarray(image)
    raise RadiographError(path, f"samples of mode {image.mode} declare no grey range", "save it as 8 or 16 bits")


def _unit_range(values: np.ndarray, bits: int, path: str | PathLike[str]) -> np.ndarray:
    """float32 in [0, 1] by the depth of the samples."""
    if values.dtype.kind == "u":
        full = np.float32((1 << max(bits, 8)) - 1)  # Pillow widens 1, 2 and 4 bits to the full 8
        return np.divide(values, full, dtype=np.float32)
    if values.min() < 0 or values.max() > 1:
        raise RadiographError(path, "float samples outside [0, 1]", "save it as 8 or 16 bits, or scale it to [0, 1]")
    return values.astype(np.float32)
