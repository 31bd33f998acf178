"""World view pairs: two clean crops of one radiograph and their relative geometry.

Follows arXiv 2504.13820 (sections 3 and 4): both crops have the same size in pixels, the second lies anywhere in the
image, and both share one base jitter of brightness and contrast that the model does not see.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any, cast

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from .geometry import CropBox, relative_geometry
from .seeding import Reseedable
from .view_crops import FULL_SCALE, BaseJitter, crop_views

__all__ = ["RandWorldViewPaird", "sample_base_jitter", "sample_crop_pair"]

_CROP_TRIES = 10  # of torchvision's RandomResizedCrop, which the paper's crops come from
_MIN_SIDE = 2


def sample_base_jitter(
    rng: np.random.RandomState, prob: float, brightness: float, contrast: float
) -> BaseJitter | None:
    """Draws the base jitter of one radiograph.

    Args:
        rng: source of randomness; drawn from in the order gate, brightness, contrast, order.
        prob: probability of a jitter, in [0, 1].
        brightness: the factor is uniform in ``1 -+ brightness``; in [0, 1].
        contrast: the same for contrast.

    Returns:
        The jitter, or None where the gate leaves the image alone.
    """
    if rng.uniform() >= prob:
        return None
    return BaseJitter(
        brightness=rng.uniform(1 - brightness, 1 + brightness),
        contrast=rng.uniform(1 - contrast, 1 + contrast),
        brightness_first=bool(rng.uniform() < 0.5),
    )


def _sample_resized_crop(
    rng: np.random.RandomState, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> CropBox:
    """Random-resized-crop box: at most ten tries, then the largest centred box of a permitted aspect ratio."""
    for _ in range(_CROP_TRIES):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(rng.randint(height - crop_height + 1))
            return CropBox(top, int(rng.randint(width - crop_width + 1)), crop_height, crop_width)
    aspect = min(max(width / height, ratio[0]), ratio[1])
    crop_width = max(1, min(width, round(height * aspect)))
    crop_height = max(1, min(height, round(width / aspect)))
    return CropBox((height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width)


def _sample_shifted(rng: np.random.RandomState, start: int, length: int, extent: int, min_overlap: float | None) -> int:
    """Uniform start of a second interval of the same length within ``extent``, near enough to overlap the first."""
    lowest, highest = 0, extent - length
    if min_overlap is not None:
        reach = math.floor((1 - min_overlap) * length + 1e-9)  # the slack undoes the rounding of 1 - min_overlap
        lowest, highest = max(lowest, start - reach), min(highest, start + reach)
    return int(rng.randint(lowest, highest + 1))


def sample_crop_pair(
    rng: np.random.RandomState,
    height: int,
    width: int,
    scale: tuple[float, float] = (0.3, 1.0),
    ratio: tuple[float, float] = (0.75, 4 / 3),
    min_overlap: float | None = None,
    flip_prob: float = 0.0,
) -> tuple[CropBox, CropBox]:
    """Draws two crops of equal size from an image of ``height x width`` px.

    Args:
        rng: source of randomness; drawn from in the order flip 1, (area, log-aspect) per try, top 1, left 1, top 2,
            left 2, flip 2.
        height: rows of the full image, px.
        width: columns of the full image, px.
        scale: range of the crop's share of the image's area, within (0, 1].
        ratio: range of width over height, drawn log-uniformly.
        min_overlap: least share of the crop's height and of its width that both crops have in common on the
            radiograph, in [0, 1] (so their common area is at least its square); None draws the second crop anywhere,
            disjoint pairs included.
        flip_prob: probability that a view is mirrored, drawn for each view.

    Returns:
        The two boxes, each in its own view's frame (see :class:`cxw_monai.transforms.geometry.CropBox`).
    """
    flip1 = rng.uniform() < flip_prob
    box1 = _sample_resized_crop(rng, height, width, scale, ratio)
    top2 = _sample_shifted(rng, box1.top, box1.height, height, min_overlap)
    left2 = _sample_shifted(rng, box1.left, box1.width, width, min_overlap)
    flip2 = rng.uniform() < flip_prob
    box2 = CropBox(top2, left2, box1.height, box1.width)
    return box1.mirrored(width) if flip1 else box1, box2.mirrored(width) if flip2 else box2


class RandWorldViewPaird(Reseedable, MapTransform):
    """Turns a radiograph into a world view pair.

    Reads ``image``: array or tensor ``[1, H, W]``, uint8, uint16 or floating in [0, 1], any H and W from 2 px (not
    necessarily square). Removes it and adds:

    - ``view1``, ``view2``: float32 ``[1, h, w]`` in [0, 1], the clean crops after the shared base jitter;
    - ``rel_21``, ``rel_12``: float32 ``[4]``, geometry for predicting view 2 from view 1, and view 1 from view 2
      (see :func:`cxw_monai.transforms.geometry.relative_geometry`);
    - ``box1``, ``box2``: int64 ``[5]``, top, left, height, width (px, in the view's own frame) and flipped (0 or 1).

    With ``cut=False`` the same is drawn but the views are left to :func:`cxw_monai.transforms.device_crops.crop_batch`.
    In their place it adds ``film``, the image as it is, ``jitter``, float32 ``[3]`` (brightness, contrast, 1 where
    brightness comes first), and ``view_size``, int64 ``[2]``.

    Flips are off by default: they destroy the laterality of the heart. The released CheXWorld used ``flip_prob=0.5``.
    The base jitter is described at :func:`crop_views`. Outputs are plain tensors (no MetaTensor tracking); lazy
    resampling does not apply.

    Args:
        keys: the one key of the radiograph.
        size: rows and columns of a view, px; one number for a square.
        scale: range of the crop's share of the image's area, within (0, 1] (paper: 0.3 to 1).
        ratio: range of the crop's width over its height (paper: 3/4 to 4/3).
        min_overlap: least common share of the crops per axis, in [0, 1]; None for no bound.
        flip_prob: probability of mirroring a view, drawn for each view.
        jitter_prob: probability of the base jitter.
        jitter_brightness: the brightness factor is uniform in ``1 -+ jitter_brightness``; in [0, 1].
        jitter_contrast: the same for contrast.
        allow_missing_keys: leave a sample without the key as it is, instead of raising KeyError.
        cut: make the views; or only say where they lie.

    Raises:
        ValueError: for a setting out of its range, or an image of another shape, type or range.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        size: int | tuple[int, int] = (224, 224),
        scale: tuple[float, float] = (0.3, 1.0),
        ratio: tuple[float, float] = (0.75, 4 / 3),
        min_overlap: float | None = None,
        flip_prob: float = 0.0,
        jitter_prob: float = 0.8,
        jitter_brightness: float = 0.4,
        jitter_contrast: float = 0.4,
        allow_missing_keys: bool = False,
        cut: bool = True,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise ValueError(f"keys must name the one image of a sample, got {self.keys}.")
        self.size = (size, size) if isinstance(size, int) else cast("tuple[int, int]", tuple(size))
        self.scale, self.ratio = cast("tuple[float, float]", tuple(scale)), cast("tuple[float, float]", tuple(ratio))
        self.min_overlap, self.flip_prob = min_overlap, flip_prob
        self.jitter_prob, self.jitter_brightness, self.jitter_contrast = jitter_prob, jitter_brightness, jitter_contrast
        self.cut = cut
        self._check_settings()

    def _check_settings(self) -> None:
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"size must be one or two positive numbers of pixels, got {self.size}.")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale must be (low, high) with 0 < low <= high <= 1, got {self.scale}.")
        if len(self.ratio) != 2 or not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio must be (low, high) with 0 < low <= high, got {self.ratio}.")
        if self.min_overlap is not None and not 0 <= self.min_overlap <= 1:
            raise ValueError(f"min_overlap must be None or lie in [0, 1], got {self.min_overlap}.")
        for name in ("flip_prob", "jitter_prob", "jitter_brightness", "jitter_contrast"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}.")

    def randomize(self, data: tuple[int, int]) -> None:
        """Draws jitter and crops for an image of ``data = (H, W)`` px."""
        self._jitter = sample_base_jitter(self.R, self.jitter_prob, self.jitter_brightness, self.jitter_contrast)
        self._boxes = sample_crop_pair(self.R, *data, self.scale, self.ratio, self.min_overlap, self.flip_prob)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample = dict(data)
        for key in self.key_iterator(sample):
            image = _checked_image(sample.pop(key), str(key))
            self.randomize(image.shape[1:])
            box1, box2 = self._boxes
            width = image.shape[2]
            if self.cut:
                sample["view1"], sample["view2"] = crop_views(image, self._boxes, self.size, self._jitter)
            else:
                sample |= {"film": image, "jitter": self._jitter_numbers(), "view_size": torch.tensor(self.size)}
            sample["rel_21"] = torch.tensor(relative_geometry(box1, box2, width), dtype=torch.float32)
            sample["rel_12"] = torch.tensor(relative_geometry(box2, box1, width), dtype=torch.float32)
            for name, box in (("box1", box1), ("box2", box2)):
                values = [box.top, box.left, box.height, box.width, int(box.flipped)]
                sample[name] = torch.tensor(values, dtype=torch.int64)
        return sample

    def _jitter_numbers(self) -> Tensor:
        jitter = self._jitter or BaseJitter(1.0, 1.0, True)
        return torch.tensor([jitter.brightness, jitter.contrast, float(jitter.brightness_first)])


def _checked_image(image: Any, key: str) -> np.ndarray:
    """Returns the radiograph as a NumPy array after checking shape, type and range."""
    array = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    if array.ndim != 3 or array.shape[0] != 1:
        raise ValueError(f"'{key}' must have shape [1, H, W], got {list(array.shape)}.")
    if min(array.shape[1:]) < _MIN_SIDE:
        raise ValueError(f"'{key}' must measure at least {_MIN_SIDE} px each way, got {list(array.shape)}.")
    if array.dtype in FULL_SCALE:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"'{key}' must be uint8, uint16 or floating in [0, 1], got {array.dtype}.")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"'{key}' is floating and must lie in [0, 1], got [{low:g}, {high:g}]: scale it first.")
    return array
