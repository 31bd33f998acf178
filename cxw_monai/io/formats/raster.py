"""PNG, JPEG and TIFF through Pillow.

What is and isn't honoured, all of it recorded in ``meta["steps"]``:

- Samples are scaled by their depth: 8 bits by 255, 16 bits by 65535, a TIFF's 12 bits by 4095; films of 8 to 12 bits in
  samples of 16 by what their values need (:func:`~cxw_monai.io.scaling.used_range`).
- RGB, RGBA, palette and CMYK become ITU-R 601-2 luma at 8 bits; transparency is dropped.
- EXIF orientation (JPEG, PNG) is *not* applied, so that masks and boxes drawn on the stored grid keep their place.
  A TIFF's orientation tag belongs to its pixel layout and is applied by Pillow; ``meta["pixel_map"]`` holds it.
- A TIFF's WhiteIsZero is inverted. Resolution tags (dpi) describe paper, not the detector: spacing is unknown.
- Truncated files are errors, also where another part of the program has set Pillow to accept them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from os import PathLike
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin

from cxw_monai.io.pixel_map import PixelMap
from cxw_monai.io.radiograph import RESAMPLE, Radiograph, UnusableError, describe, errors_of
from cxw_monai.io.scaling import GreyOptions, full_range, scale_as_asked

from .pictures import opened_image

__all__ = ["is_raster_header", "read_raster"]

_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_ORIENTATION = int(ExifTags.Base.Orientation)
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS, _TIFF_PHOTOMETRIC = 256, 257, 258, 262
_LUMA_MODES = ("RGB", "RGBA", "RGBX", "P", "PA", "LA", "La", "RGBa", "CMYK", "YCbCr")
_TURNS = {2: (1,), 3: (0, 1), 4: (0,), 5: (None,), 6: (0, None), 7: (0, 1, None), 8: (None, 0)}  # axes; None transposes
_RANGE_REMEDY = "save it as 8 or 16 bits or scaled to [0, 1], or read it with window=(center, width)"
_AGAIN = "copy or export it again"
_BLOCK = 1 << 20
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # colour type -> samples of a pixel
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def is_raster_header(head: bytes) -> bool:
    """Whether a file's first bytes are those of a PNG, JPEG or TIFF."""
    return head.startswith(_MAGIC)


def read_raster(path: str | PathLike[str], *, options: GreyOptions, max_pixels: int) -> Radiograph:
    """Read a PNG, JPEG or TIFF of one frame, as :func:`~cxw_monai.io.read.read_radiograph` describes.

    Raises:
        RadiographError: truncated, damaged, several frames, too large, or samples without a declared range.
    """
    with errors_of(path, "cannot be decoded, damaged or truncated", _AGAIN):
        bomb = UnusableError(f"more than {max_pixels} pixels", RESAMPLE)
        with opened_image(path, ("PNG", "JPEG", "TIFF"), max_pixels, bomb) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1:
                raise UnusableError(f"multi-frame image ({frames} frames)", "export each frame to a file of its own")
            mode, bits, white_is_zero = image.mode, _bits(image), _white_is_zero(image)
            steps, pixel_map = _colour_notes(image), PixelMap.identity(image.size[::-1])
            if isinstance(image, TiffImagePlugin.TiffImageFile):
                pixel_map = _turn(image, steps)
            image.load()
            if image.format != "TIFF":
                _note_orientation(image, steps)
            if image.format == "PNG" and _has_black_end(image):
                _refuse_short_png(path)
            values = _grey(image)  # [H, W]
        scaled = scale_as_asked(values, options)
        if scaled is None:  # Pillow widens 1, 2 and 4 bits to the full 8
            array, step = full_range(values, max(bits, 8), _RANGE_REMEDY)
        else:
            array, step = scaled
        steps += [step] if step else []
    if white_is_zero:
        array = 1 - array
        steps.append("WhiteIsZero inverted")
    return Radiograph(array[None], describe(pixel_map, bits=bits, photometric=mode, steps=steps))  # [1, H, W]


def _has_black_end(image: Image.Image) -> bool:
    """Whether one of the last two rows holds nothing: Pillow leaves missing rows so, every other one if interlaced."""
    rows = np.asarray(image)[-2:]
    return not rows.reshape(len(rows), -1).any(axis=1).all()


def _refuse_short_png(path: str | PathLike[str]) -> None:
    """Refuse a decoded PNG whose pixel data end before its last row, where Pillow leaves the rest black.

    Source: PNG specification, third edition, 7 to 9.
    """
    with open(path, "rb") as stream:
        stream.seek(8)
        chunks = _png_chunks(stream)
        width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", next(chunks)[1])
        bits, expected = depth * _PNG_CHANNELS[colour], 0
        for left, top, right_by, down_by in _ADAM7 if interlaced else ((0, 0, 1, 1),):
            columns, rows = -(-(width - left) // right_by), -(-(height - top) // down_by)
            if columns > 0 and rows > 0:
                expected += rows * (1 + -(-columns * bits // 8))  # each row behind its filter's byte
        unpacker, found = zlib.decompressobj(), 0
        for name, data in chunks:
            if found >= expected:
                return
            while name == b"IDAT" and data and found < expected:
                found += len(unpacker.decompress(data, _BLOCK))
                data = unpacker.unconsumed_tail
    if found < expected:
        raise UnusableError(f"truncated: {found} of {expected} bytes of pixels", _AGAIN)


def _png_chunks(stream: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    while len(head := stream.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        yield name, stream.read(length)
        stream.seek(4, 1)  # its checksum, which Pillow has looked at


def _bits(image: Image.Image) -> int:
    """Bits of a grey sample as it will be decoded."""
    if image.mode in _LUMA_MODES:
        return 8
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return int(image.tag_v2.get(_TIFF_BITS, (1,))[0])
    return {"1": 1, "L": 8}.get(image.mode, 16)


def _white_is_zero(image: Image.Image) -> bool:
    """Whether a TIFF's 16-bit samples still have to be inverted (Pillow inverts the lower depths only)."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or not image.mode.startswith("I;16"):
        return False
    return bool(image.tag_v2.get(_TIFF_PHOTOMETRIC) == 0)


def _colour_notes(image: Image.Image) -> list[str]:
    """What decoding does to colour; has to be taken before the pixels are loaded."""
    if image.mode not in _LUMA_MODES:
        return []
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    reduced = any("16" in str(tile[3]) for tile in tiles)
    return ["16-bit colour reduced to 8 bits"] * reduced + [f"{image.mode} to luma"]


def _note_orientation(image: Image.Image, steps: list[str]) -> None:
    """Note an EXIF orientation; a PNG's may stand behind the pixels, so load them before."""
    orientation = image.getexif().get(_ORIENTATION, 1)
    if orientation != 1:
        steps.insert(0, f"EXIF orientation {orientation} not applied")


def _turn(image: TiffImagePlugin.TiffImageFile, steps: list[str]) -> PixelMap:
    """From a TIFF's stored grid to the turned one that Pillow will give; TIFF 6.0, tag 274."""
    pixel_map = PixelMap((image.tag_v2[_TIFF_HEIGHT], image.tag_v2[_TIFF_WIDTH]))
    orientation = image.getexif().get(_ORIENTATION, 1)
    if orientation not in _TURNS:
        return pixel_map
    steps.insert(0, f"TIFF orientation {orientation} applied")
    for axis in _TURNS[orientation]:
        pixel_map = pixel_map.transpose() if axis is None else pixel_map.flip(axis)
    return pixel_map


def _grey(image: Image.Image) -> np.ndarray:
    """Grey values ``[H, W]``: uint8, uint16, int32 or float32."""
    if image.mode in _LUMA_MODES or image.mode == "1":
        return np.asarray(image.convert("L"))
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        return values.astype(np.uint16, copy=False)  # native byte order
    if image.mode == "I" and image.format == "PNG":  # older Pillow, for 16 bits
        return values.astype(np.uint16)
    return values
