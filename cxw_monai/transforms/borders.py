"""Burnt-in borders: rows and columns at the rim of a film that hold no picture.

Scanners, shutters and viewers leave black, white or evenly grey bands around a film, on some or all sides. What is
cropped is a *line* (row or column) that is border from end to end; a collimation wedge that isn't parallel to the rim,
and a band with text in it, stay. Lines at the rim are looked at singly and with fixed limits, again and again until
none is border: cropping twice is cropping once.

A dark or an evenly lit part of the film at its rim (air beside the patient that is black all along) counts as border:
no anatomy is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Crop, Cropd
from monai.utils import TraceKeys, convert_to_tensor
from torch import Tensor

from cxw_monai.io.pixel_map import PixelMap

__all__ = ["RemoveBorders", "RemoveBordersd", "find_content_box"]

BLACK = 0.04
"""Darkest band: a black line has (nearly) all its pixels at or below it, as a fraction of the grey range."""
WHITE = 0.97
"""A white line has (nearly) all its pixels at or above it."""
EVEN = 0.012
"""Span of the grey values of an evenly grey line: 3 of 255. The abdomen at the lower rim of a film spans 5 or more."""
STRAY = 0.005
"""Share of a line's pixels that may differ on either end of the range: specks and compression."""
STEP = 0.04
"""Least median step from a white or grey border to the picture, as a fraction of the range."""
LEAST_CONTENT = 0.1
"""Share of the height, and of the width, that must remain; a picture with less is not cropped."""

_BLUR = 2  # lines over which a resized or compressed edge is smeared
PIXEL_MAP = "pixel_map"  # key of a MetaTensor's meta


def find_content_box(image: np.ndarray | Tensor) -> tuple[int, int, int, int]:
    """The part of a film inside its burnt-in borders.

    Args:
        image: ``[H, W]`` or ``[C, H, W]``: floats in [0, 1], or unsigned integers over their whole range.

    Returns:
        ``(top, left, height, width)`` in px. The whole image where there is no border, or nothing but border (an
        empty or constant image), or less than a tenth of a side would remain.

    Raises:
        ValueError: the image has another number of dimensions or no pixels.
        TypeError: the values are neither floating nor unsigned integers.
    """
    values = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    if values.ndim not in (2, 3) or values.size == 0:
        raise ValueError(f"image must be [H, W] or [C, H, W] with pixels in it, got shape {tuple(values.shape)}")
    if values.dtype.kind not in "fu":
        raise TypeError(f"image must be floating in [0, 1] or of unsigned integers, got {values.dtype}")
    scale = float(np.iinfo(values.dtype).max) if values.dtype.kind == "u" else 1.0
    lines = np.moveaxis(values, 0, -1) if values.ndim == 3 else values[..., None]  # [H, W, C]
    top, left, bottom, right = 0, 0, *lines.shape[:2]
    while True:
        content = lines[top:bottom, left:right]
        above, below = _border_lines(content, scale), _border_lines(content[::-1], scale)
        if above == len(content):
            break
        columns = content[above : len(content) - below].swapaxes(0, 1)  # [w, h, C]
        before, after = _border_lines(columns, scale), _border_lines(columns[::-1], scale)
        if before == len(columns):
            break
        if not (above or below or before or after):
            if bottom - top < LEAST_CONTENT * len(lines) or right - left < LEAST_CONTENT * lines.shape[1]:
                break
            return top, left, bottom - top, right - left
        top, bottom, left, right = top + above, bottom - below, left + before, right - after
    return 0, 0, lines.shape[0], lines.shape[1]


def _border_lines(lines: np.ndarray, scale: float) -> int:
    """How many of ``[N, L, C]`` lines are border, counted from the first.

    White and grey lines count only where the picture begins with a step: an overexposed abdomen fades into white.
    """
    black, number = 0, 0
    for line in lines:
        values = line.ravel()
        stray = int(STRAY * values.size)
        low, high = np.partition(values, (stray, values.size - 1 - stray))[[stray, values.size - 1 - stray]] / scale
        if not (high <= BLACK or low >= WHITE or high - low <= EVEN):
            break
        number += 1
        if high <= BLACK and black == number - 1:
            black = number
    if number in (black, len(lines)):
        return number
    inner = lines[min(number + _BLUR, len(lines) - 1)].astype(np.float32)
    step = np.median(np.abs(inner - lines[number - 1])) / scale
    return number if step >= STEP else black


class RemoveBorders(Crop):
    """Crop a film to the part inside its burnt-in borders (:func:`find_content_box`).

    A MetaTensor remembers the crop: :meth:`inverse` pads the result (a mask, a map) with zeros to the film's size, and
    the :class:`~cxw_monai.io.pixel_map.PixelMap` in ``meta["pixel_map"]`` (as JSON, which the reader leaves there)
    takes the crop as a further step (padding, for the inverse).
    """

    requires_current_data = True  # the box depends on the pixels: never lazy

    def __call__(  # type: ignore[override]
        self, img: Tensor, box: tuple[int, int, int, int] | None = None, lazy: bool | None = None
    ) -> Tensor:
        """Crop.

        Args:
            img: ``[C, H, W]``.
            box: ``(top, left, height, width)`` to crop to; that of ``img`` by default.
            lazy: MONAI's; the crop is made at once all the same.

        Returns:
            ``[C, h, w]``, a MetaTensor where MONAI tracks meta data.

        Raises:
            ValueError, TypeError: see :func:`find_content_box`.
        """
        if img.ndim != 3:
            raise ValueError(f"img must be [C, H, W], got shape {tuple(img.shape)}")
        top, left, height, width = find_content_box(img) if box is None else box
        slices = self.compute_slices(roi_start=(top, left), roi_end=(top + height, left + width))
        cropped = super().__call__(convert_to_tensor(img, track_meta=True), slices=slices, lazy=False)
        _map(cropped, lambda pixel_map: pixel_map.crop(top, left, height, width))
        return cropped

    def inverse(self, img: MetaTensor) -> MetaTensor:
        """Pad ``[C, h, w]`` with zeros to the size before the crop."""
        top, bottom, left, right = self.get_most_recent_transform(img)[TraceKeys.EXTRA_INFO]["cropped"][:4]
        padded = super().inverse(img)
        _map(padded, lambda pixel_map: pixel_map.pad(top, bottom, left, right))
        return padded


class RemoveBordersd(Cropd):
    """Dictionary version of :class:`RemoveBorders`.

    Args:
        keys: what to crop, each ``[C, H, W]``.
        source_key: whose border decides, so that masks are cropped with their film; by default each key by its own.
        allow_missing_keys: leave out keys that aren't there.
    """

    requires_current_data = True

    def __init__(self, keys: KeysCollection, source_key: Hashable | None = None, allow_missing_keys: bool = False):
        super().__init__(keys, cropper=RemoveBorders(), allow_missing_keys=allow_missing_keys)
        self.source_key = source_key

    def __call__(self, data: Mapping[Hashable, Tensor], lazy: bool | None = None) -> dict[Hashable, Tensor]:
        """Crop ``data[key]`` of each key.

        Args:
            data: items of MONAI's form.
            lazy: MONAI's; the crop is made at once all the same.

        Raises:
            ValueError: a key's height and width aren't those of ``source_key``.
        """
        d = dict(data)
        source = None if self.source_key is None else d[self.source_key]
        box = None if source is None else find_content_box(source)
        for key in self.key_iterator(d):
            if source is not None and d[key].shape[-2:] != source.shape[-2:]:
                raise ValueError(
                    f"{key!r} of shape {tuple(d[key].shape)} must have the height and width of {self.source_key!r}, "
                    f"shape {tuple(source.shape)}"
                )
            d[key] = self.cropper(d[key], box)  # type: ignore[arg-type]
        return d


def _map(img: Tensor, step: Callable[[PixelMap], PixelMap]) -> None:
    """Add a step to the pixel map of an image that has one."""
    if isinstance(img, MetaTensor) and PIXEL_MAP in img.meta:
        img.meta[PIXEL_MAP] = step(PixelMap.from_json(img.meta[PIXEL_MAP])).to_json()
