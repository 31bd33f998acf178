"""Films and masks randomly cropped, turned and distorted in one resampling, at a network's size."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from torch import Tensor

from .seeding import between
from .whole_film import pair, unit_float

__all__ = ["RandFilmWarpd", "mirrored_order"]

_CONTROL_POINTS = 5  # a side, of the distortion


def mirrored_order(structures: Sequence[str]) -> list[int]:
    """For each structure the number of the one that it is taken for on a mirrored film.

    Args:
        structures: names; `left` and `right` as a word of a name tell the patient's side.

    Returns:
        A permutation: `lung_left` and `lung_right` change places, `heart` stays.

    Raises:
        ValueError: a structure of one side without its fellow.
    """
    swap = {"left": "right", "right": "left"}
    fellows = ["_".join(swap.get(word, word) for word in name.split("_")) for name in structures]
    alone = [name for name, fellow in zip(structures, fellows, strict=True) if fellow not in structures]
    if alone:
        raise ValueError(
            f"a mirrored film turns {', '.join(alone)} into the other side's, which is not among the structures: add "
            "it, or mirror no film (set flip_prob to 0 in training, augmented to false in inference)."
        )
    return [list(structures).index(fellow) for fellow in fellows]


class RandFilmWarpd(Randomizable, MapTransform):
    """Random resized crop, affine map and smooth distortion of a film and its masks, in one bilinear resampling.

    The crop is stretched to the output's size, so that a crop of the whole film is what `whole_film` shows. What lies
    beyond the film is 0 (paper's fine-tuning: border 0). Where the film is shown at half its size or less, it is first
    averaged over whole pixels, so that the resampling does not alias. A mask's pixel is 1 where its resampled value is
    at least a half.

    Args:
        size: rows and columns of the output in px, or one number for both.
        structures: names of the masks, in order; none where films have no masks.
        crop_prob: probability of a crop; otherwise the whole film.
        crop_scale: range of the crop's share of the film's area, within (0, 1].
        crop_ratio: range of the crop's width over its height, relative to the film's own, log-uniform.
        affine_prob: probability of the affine map.
        rotate: rotation is uniform within plus or minus this many degrees.
        shear: likewise for the shear's angle, of rows against each other.
        zoom: range of the magnification, uniform.
        translate: shift, uniform within plus or minus this share of the crop on either axis.
        distortion_prob: probability of the distortion.
        distortion: largest displacement of a control point of a 5 x 5 grid (bicubic between them), as a share of the
            output's sides.
        flip_prob: probability that the film is mirrored. Off by default, for the heart's side is a finding. Structures
            named left and right then change places, with what is known of them.
        keys: image `[1, h, w]` (uint8, uint16, or floating in [0, 1]), masks `[S, h, w]` of 0 and 1, and bool `[S]`
            which masks are known; they become float32 `[1, H, W]`, float32 `[S, H, W]`, bool `[S]`. The image's key
            alone for films without masks.

    Raises:
        ValueError: for a setting out of its range, other numbers of keys, or flips of a structure without the other
            side's.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        structures: Sequence[str] = (),
        crop_prob: float = 0.5,
        crop_scale: Sequence[float] = (0.4, 1.0),
        crop_ratio: Sequence[float] = (0.75, 4 / 3),
        affine_prob: float = 0.8,
        rotate: float = 10.0,
        shear: float = 5.0,
        zoom: Sequence[float] = (0.9, 1.1),
        translate: float = 0.05,
        distortion_prob: float = 0.2,
        distortion: float = 0.03,
        flip_prob: float = 0.0,
        keys: KeysCollection = ("image", "label", "known"),
    ) -> None:
        MapTransform.__init__(self, keys)
        if len(self.keys) not in (1, 3):
            raise ValueError(f"keys must be those of image, masks and known, or of the image alone, got {self.keys}.")
        self.size = pair(size)
        self.crop_prob, self.crop_scale, self.crop_ratio = crop_prob, tuple(crop_scale), tuple(crop_ratio)
        self.affine_prob, self.rotate, self.shear = affine_prob, rotate, shear
        self.zoom, self.translate = tuple(zoom), translate
        self.distortion_prob, self.distortion, self.flip_prob = distortion_prob, distortion, flip_prob
        for name in ("crop_prob", "affine_prob", "distortion_prob", "flip_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}.")
        for name, top in (("crop_scale", 1.0), ("crop_ratio", math.inf), ("zoom", math.inf)):
            bounds = getattr(self, name)
            if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] <= top:
                raise ValueError(f"{name} must be (low, high) with 0 < low <= high <= {top}, got {bounds}.")
        if not (0 <= self.rotate <= 180 and 0 <= self.shear < 90 and self.translate >= 0 and self.distortion >= 0):
            raise ValueError(
                f"rotate must lie in [0, 180], shear in [0, 90), translate and distortion be 0 or more, got {rotate}, "
                f"{shear}, {translate} and {distortion}."
            )
        height, width = (_bicubic_basis(length) for length in self.size)
        self._bases = height, width
        self.order = mirrored_order(structures) if flip_prob > 0 else list(range(len(structures)))

    def randomize(self, data: tuple[int, int]) -> None:
        """Draws the map for a film of `data` = (h, w) px; always takes the same number of random numbers."""
        u = self.R.random_sample(13)
        points = self.R.random_sample((1, 2, _CONTROL_POINTS, _CONTROL_POINTS))
        self._flipped = bool(u[0] < self.flip_prob)
        self._theta = self._drawn_theta(u[1:12], *data)
        if self._flipped:
            self._theta[:, 0] *= -1
        self._points = None
        if u[12] < self.distortion_prob:  # in normalised coordinates, 2 a side
            self._points = torch.from_numpy(((2 * points - 1) * 2 * self.distortion).astype(np.float32))

    def _drawn_theta(self, u: np.ndarray, height: int, width: int) -> np.ndarray:
        """Normalised output (x, y, 1) to normalised film coordinates: `[2, 3]`."""
        box, corner = np.array([width, height], float), np.zeros(2)  # x, y
        if u[0] < self.crop_prob:
            area = between(self.crop_scale, u[1])
            aspect = math.exp(between([math.log(bound) for bound in self.crop_ratio], u[2]))
            box *= np.minimum([math.sqrt(area * aspect), math.sqrt(area / aspect)], 1)
            corner = u[3:5] * ((width, height) - box)
        linear, shift = np.eye(2), np.zeros(2)
        if u[5] < self.affine_prob:
            angle, slope = np.radians([self.rotate, self.shear]) * (2 * u[6:8] - 1)
            turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
            linear = turn @ np.array([[1.0, math.tan(slope)], [0.0, 1.0]]) / between(self.zoom, u[8])
            shift = self.translate * (2 * u[9:11] - 1)
        half_film = np.array([width, height]) / 2
        centre = corner + box / 2 + box * shift
        # The affine map acts on pixels of the film, so that a rotation stays one whatever the aspect ratio.
        return np.column_stack([linear * (box / 2) / half_film[:, None], centre / half_film - 1])

    def _grid(self) -> Tensor:
        """Where in the film each output pixel is sampled: `[1, H, W, 2]`, normalised (x, y)."""
        size = [1, 1, *self.size]
        theta = torch.from_numpy(self._theta.astype(np.float32))[None]
        if self._points is None:
            return F.affine_grid(theta, size, align_corners=False)
        shifts = self._bases[0] @ self._points @ self._bases[1].T  # [1, 2, H, W]
        places = F.affine_grid(torch.eye(2, 3)[None], size, align_corners=False) + shifts.permute(0, 2, 3, 1)
        return places @ theta[0, :, :2].T + theta[0, :, 2]

    def _steps(self, height: int, width: int) -> tuple[int, int]:
        """Whole film pixels per output pixel, rows and columns, at least 1."""
        scale = np.linalg.norm(self._theta[:, :2], axis=0)  # along the output's x and y
        per_column, per_row = scale * (width / self.size[1], height / self.size[0])
        return max(int(per_row), 1), max(int(per_column), 1)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample = dict(data)
        image_key, *mask_keys = self.keys
        layers = unit_float(sample[image_key])
        if mask_keys:
            layers = torch.cat([layers, torch.from_numpy(np.asarray(sample[mask_keys[0]])).to(layers)])
        height, width = layers.shape[1:]
        self.randomize((height, width))
        layers = layers[None]  # [1, 1 + S, h, w]
        steps = self._steps(height, width)
        if max(steps) > 1:
            layers = F.avg_pool2d(layers, steps)
        warped = F.grid_sample(layers, self._grid(), mode="bilinear", padding_mode="zeros", align_corners=False)[0]
        sample[image_key] = warped[:1].clamp_(0, 1)
        if mask_keys:
            label_key, known_key = mask_keys
            masks, known = warped[1:].ge_(0.5), torch.as_tensor(sample[known_key])
            if self._flipped:
                masks, known = masks[self.order], known[self.order]
            sample |= {label_key: masks, known_key: known}
        return sample


def _bicubic_basis(length: int) -> Tensor:
    """Bicubic weights of the control points along an axis: `[length, 5]`."""
    points = torch.eye(_CONTROL_POINTS)[None, None]
    return F.interpolate(points, (length, _CONTROL_POINTS), mode="bicubic", align_corners=True)[0, 0]
