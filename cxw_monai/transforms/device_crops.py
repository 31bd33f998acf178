"""World view pairs cut on the training device: whole films of a batch go there once, as they are cached.

The numbers are those of :func:`cxw_monai.transforms.view_crops.crop_views` up to rounding: 8-bit films are rounded to
whole grey levels after each pass of the resize, as in the loader, so that few pixels differ, by a level or two.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from .transfer import sent

__all__ = ["collate_films", "crop_batch", "with_views"]

FULL_SCALE = {torch.uint8: 255.0, torch.uint16: 65535.0}
FILM_KEYS = ("film", "film_size", "box1", "box2", "jitter")


def collate_films(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`default_collate` that takes whole films of different sizes too.

    Args:
        samples: as :class:`cxw_monai.transforms.RandWorldViewPaird` gives them; those with `cut=False` hold `film`, an
            array `[1, H, W]`. 8-bit films beside 16-bit ones become 16-bit.

    Returns:
        The batch; where there are films, `film` `[B, 1, H, W]` with zeros below and to the right of the smaller ones,
        and `film_size`, int64 `[B, 2]`.
    """
    if "film" not in samples[0]:
        return default_collate(list(samples))
    films = [np.asarray(sample["film"]) for sample in samples]
    sizes = np.array([film.shape[1:] for film in films])
    dtype = np.result_type(*films)
    padded = np.zeros((len(films), 1, *sizes.max(axis=0)), dtype=dtype)
    for place, film in zip(padded, films, strict=True):
        scale = 257 if film.dtype == np.uint8 != dtype else 1  # 255 becomes 65535
        np.multiply(film, scale, out=place[:, : film.shape[1], : film.shape[2]], dtype=dtype)
    rest = default_collate([{name: value for name, value in sample.items() if name != "film"} for sample in samples])
    return {**rest, "film": torch.from_numpy(padded), "film_size": torch.from_numpy(sizes)}


def with_views(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """A batch of whole films with their views in place of the films; another one as it is.

    Args:
        batch: from :func:`collate_films`, on the CPU.
        device: where the views are cut.
    """
    if "film" not in batch:
        return dict(batch)
    height, width = batch["view_size"][0].tolist()
    films = {name: sent(batch[name], device) for name in FILM_KEYS}
    views = crop_batch(**films, size=(height, width))
    others = {name: value for name, value in batch.items() if name not in ("film", "film_size", "jitter", "view_size")}
    return {**others, "view1": views[0], "view2": views[1]}


def crop_batch(
    film: Tensor, film_size: Tensor, box1: Tensor, box2: Tensor, jitter: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Cuts two crops out of each film, resizes them (bicubic, antialiased) and jitters them, all on the films' device.

    Each pass of the resize is one product with a matrix per film, so that crops of all sizes are cut together and
    nothing waits for their places.

    Args:
        film: `[B, 1, H, W]` uint8, uint16, or floating in [0, 1].
        film_size: int64 `[B, 2]`, rows and columns of each film; what lies beyond must be 0.
        box1, box2: int64 `[B, 5]`: top, left, height, width (px, in the view's own frame) and flipped.
        jitter: float32 `[B, 3]`: brightness factor, contrast factor, and 1 where brightness comes first, else 0.
        size: rows and columns of a view, px.

    Returns:
        Two views, float32 `[B, 1, h, w]` in [0, 1].
    """
    full, whole = FULL_SCALE.get(film.dtype, 1.0), film.dtype == torch.uint8
    pixels = film[:, 0].to(torch.float32)  # [B, H, W]
    brightness, contrast, first = jitter[:, :, None, None].unbind(1)  # [B, 1, 1] each
    before, after = torch.where(first > 0.5, brightness, 1.0), torch.where(first > 0.5, 1.0, brightness)
    top = full / before.clamp(min=1.0)
    area = film_size.prod(dim=1)[:, None, None]
    mean = (torch.minimum(pixels, top).sum(dim=(1, 2), keepdim=True, dtype=torch.float64) / area).float()
    gain, shift = contrast * before / full, (1 - contrast) * mean * before / full
    views = []
    for box in (box1, box2):
        resized = torch.minimum(_resize(pixels, film_size, box, size, whole), top).clamp_(min=0)
        views.append(((shift + gain * resized).clamp_(0, 1) * after).clamp_(max=1)[:, None])
    return views[0], views[1]


def _resize(pixels: Tensor, film_size: Tensor, box: Tensor, size: tuple[int, int], whole: bool) -> Tensor:
    """Crops of `[B, H, W]`, resized to `[B, h, w]`; `whole` rounds to grey levels after each pass."""
    top, left, height, width, flipped = box.unbind(1)
    mirrored = flipped > 0
    left = torch.where(mirrored, film_size[:, 1] - left - width, left)
    rows = _shares(top, height, size[0], pixels.shape[1])  # [B, h, H]
    columns = _shares(left, width, size[1], pixels.shape[2])  # [B, w, W]
    columns = torch.where(mirrored[:, None, None], columns.flip(1), columns)
    with _all_digits():
        tall = rows @ pixels
        tall = tall.round_().clamp_(0, 255) if whole else tall
        out = tall @ columns.transpose(1, 2)
    return out.round_().clamp_(0, 255) if whole else out


def _shares(start: Tensor, length: Tensor, out_length: int, extent: int) -> Tensor:
    """Share of each pixel of an axis in each pixel of the resized crop, `[B, out_length, extent]`.

    The kernel is Keys' cubic with a = -0.5, widened by the factor by which the crop shrinks, as PIL and PyTorch
    (`interpolate` with `antialias`) take it; what lies outside the crop has no share.
    """
    device = start.device
    scale = (length / out_length)[:, None, None]  # [B, 1, 1]
    centre = scale * (torch.arange(out_length, device=device) + 0.5)[:, None]  # [B, out_length, 1], in the crop
    place = (torch.arange(extent, device=device) - start[:, None])[:, None]  # [B, 1, extent]
    x = ((place + 0.5 - centre) / scale.clamp(min=1.0)).abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    shares = torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
    shares = torch.where((place >= 0) & (place < length[:, None, None]), shares, 0.0)
    return shares / shares.sum(dim=2, keepdim=True)


@contextlib.contextmanager
def _all_digits() -> Iterator[None]:
    """float32 products with all their digits, whatever is allowed for those of the network."""
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed
