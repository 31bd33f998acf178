"""Domain perturbations: what the domain task of the world model learns to undo (arXiv 2504.13820, section 3, eq. 8).

An *action* is five numbers: brightness factor, contrast factor, gamma, blur radius (px), noise standard deviation
(share of the full scale). :func:`perturb` applies it as a pure function of a batch, on any device; the dictionary
transforms wrap the same function.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import ensure_tuple
from torch import Tensor

from .seeding import Reseedable, between
from .transfer import sent

__all__ = ["IDENTITY_ACTION", "ActionSampler", "Perturbd", "RandActiond", "perturb"]

IDENTITY_ACTION = (1.0, 1.0, 1.0, 0.0, 0.0)
"""The action that changes nothing: (brightness, contrast, gamma, blur radius, noise)."""

_NAMES = ("brightness", "contrast", "gamma", "blur", "noise")
_BLUR_PASSES = 3


def _box_weights(radius: np.ndarray) -> np.ndarray:
    """Taps of the extended box filter whose threefold use has the standard deviation ``radius``.

    Source: Gwosdek et al., Theoretical foundations of Gaussian convolution by extended box filtering, SSVM 2011,
    equations 7, 11 and 14.

    Args:
        radius: ``[n]`` float64, px, > 0.

    Returns:
        ``[n, R + 1]`` float64: centre tap, then the taps at distance 1 to R (on both sides).
    """
    variance = radius**2 / _BLUR_PASSES
    whole = np.floor((np.sqrt(12 * variance + 1) - 1) / 2)  # full taps on either side
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    distance = np.arange(int(whole.max()) + 2)
    share = np.where(distance <= whole[:, None], 1.0, 0.0)
    share[distance == whole[:, None] + 1] = part  # one a row
    return share / (2 * (whole + part) + 1)[:, None]


def _blur_weights(radius: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Three box filters in one: which neighbours make up each place of an axis, the borders replicated by each filter.

    Only places within reach of a border feel it. So the filter of a short axis, which has one place that feels
    neither border, gives the weights of all places of a longer one.

    Args:
        radius: ``[n]`` float64, px, > 0.
        length: of the axis, px.

    Returns:
        ``first``: int64 ``[length]``, the first neighbour of each place, and ``weights``: float64 ``[n, length, K]`` of
        the ``K`` neighbours from there on.
    """
    taps = _box_weights(radius)  # [n, R + 1]
    reach = taps.shape[1] - 1
    short = min(length, 2 * _BLUR_PASSES * reach + 1)
    places = np.arange(short)
    once = np.zeros((len(taps), short, short))
    for offset in range(-reach, reach + 1):
        once[:, places, np.clip(places + offset, 0, short - 1)] += taps[:, abs(offset), None]
    places = np.arange(length)
    first = np.clip(places - _BLUR_PASSES * reach, 0, length - short)
    return first, np.linalg.matrix_power(once, _BLUR_PASSES)[:, places - first]


def _filter_rows(image: Tensor, first: np.ndarray, weights: np.ndarray) -> Tensor:
    """Replaces each row of ``[n, C, H, W]`` by a weighted sum of the rows from ``first`` ``[H]`` on.

    Args:
        image: ``[n, C, H, W]``.
        first: whole ``[H]``.
        weights: ``[n, H, K]``.
    """
    count, channels, height, width = image.shape
    neighbours = first[:, None] + np.arange(weights.shape[2])  # [H, K]
    rows = height * np.arange(count * channels)[:, None, None] + neighbours  # [n C, H, K]
    shares = np.repeat(weights, channels, axis=0)
    indices = sent(torch.from_numpy(rows.reshape(-1, rows.shape[2])), image.device)
    per_row = sent(torch.from_numpy(shares.reshape(-1, rows.shape[2])).to(image.dtype), image.device)
    table = image.reshape(-1, width)
    return F.embedding_bag(indices, table, mode="sum", per_sample_weights=per_row).view(image.shape)


def _blur(image: Tensor, radius: np.ndarray) -> Tensor:
    """Blurs the samples of ``[B, C, H, W]`` whose radius ``[B]`` is above zero."""
    chosen = np.flatnonzero(radius)
    if len(chosen) == 0:
        return image
    index = sent(torch.from_numpy(chosen), image.device)
    height, width = image.shape[2:]
    down = _blur_weights(radius[chosen], height)
    across = down if width == height else _blur_weights(radius[chosen], width)
    part = _filter_rows(image[index], *down).transpose(2, 3)
    part = _filter_rows(part, *across).transpose(2, 3)
    return image.index_copy_(0, index, part.clamp_(0, 1))


def _checked_action(image: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
    """Returns the action as float64 on the CPU after checking shapes and ranges."""
    if image.ndim != 4 or not image.is_floating_point():
        raise ValueError(f"image must be floating [B, C, H, W], got {image.dtype} of shape {tuple(image.shape)}.")
    if tuple(action.shape) != (image.shape[0], len(_NAMES)):
        raise ValueError(f"action must have shape [B, 5] = {[image.shape[0], 5]}, got {list(action.shape)}.")
    values = action.detach().to("cpu", torch.float64)
    valid = torch.isfinite(values) & (values >= 0)
    valid[:, 2] &= values[:, 2] > 0
    if not bool(valid.all()):
        row, column = (~valid).nonzero()[0].tolist()
        least = "above 0" if column == 2 else "at least 0"
        name, value = _NAMES[column], float(values[row, column])
        raise ValueError(f"action: {name} must be finite and {least}, got {value:g} in sample {row}.")
    if noise is None and bool((values[:, 4] > 0).any()):
        raise ValueError(f"noise must be a unit normal field of shape {list(image.shape)} as an action asks for noise.")
    if noise is not None and noise.shape != image.shape:
        raise ValueError(f"noise must have the shape of image, {list(image.shape)}, got {list(noise.shape)}.")
    return values


def perturb(image: Tensor, action: Tensor, noise: Tensor | None = None) -> Tensor:
    """Applies one action to each image, in the fixed order brightness, contrast, gamma, blur, noise.

    1. brightness: multiply, clip to [0, 1];
    2. contrast: scale the distance from the image's mean, clip;
    3. gamma: ``v ** gamma``;
    4. blur: what PIL calls ``GaussianBlur(radius)``: three extended box filters per axis, borders replicated;
    5. noise: add ``sigma`` times the unit normal field, clip.

    The official code rounds to 8 bit after every stage; this function never rounds, so it agrees with it to within a
    few grey levels. The identity action returns the same values to the last bit. Half precision is computed in
    float32. Each sample depends on itself only.

    Args:
        image: floating ``[B, C, H, W]`` in [0, 1] (values outside are clipped), any device.
        action: ``[B, 5]``, brightness >= 0, contrast >= 0, gamma > 0, blur radius >= 0 (px), noise >= 0 (share of the
            full scale). One on the CPU spares the transfer that the check of its range needs.
        noise: unit normal field of the shape of ``image``; needed if any noise is above 0.

    Returns:
        A new tensor of the shape, dtype and device of ``image``, in [0, 1].

    Raises:
        ValueError: for a wrong shape, an action out of range, or missing noise.
    """
    values = _checked_action(image, action, noise)
    source = image.float() if image.dtype in (torch.float16, torch.bfloat16) else image
    if image.device.type == "cpu":  # one by one: a sample stays in the processor's cache
        out = torch.empty(image.shape, dtype=source.dtype)
        for place, sample, numbers in zip(out, source, values[:, :3].tolist(), strict=True):
            _adjust_sample(place, sample, *numbers)
    else:
        numbers = sent(values.to(source.dtype), source.device)
        out = _adjust_batch(source, *numbers[:, :3, None, None, None].unbind(1))  # each [B, 1, 1, 1]
    out = _blur(out, values[:, 3].numpy())
    if noise is not None and bool((values[:, 4] > 0).any()):
        deviation = sent(values[:, 4, None, None, None].to(out.dtype), out.device)
        out = (out + noise.to(out) * deviation).clamp_(0, 1)
    return out.to(image.dtype)


def _adjust_batch(image: Tensor, brightness: Tensor, contrast: Tensor, gamma: Tensor) -> Tensor:
    """Brightness, contrast and gamma, each ``[B, 1, 1, 1]``, of ``[B, C, H, W]``."""
    out = (image * brightness).clamp_(0, 1)
    out = out.lerp(out.mean(dim=(1, 2, 3), keepdim=True), 1 - contrast).clamp_(0, 1)
    return torch.where(gamma == 1, out, out.pow(gamma))


def _adjust_sample(out: Tensor, image: Tensor, brightness: float, contrast: float, gamma: float) -> None:
    """The same for one sample ``[C, H, W]`` on the CPU, written to ``out``.

    The power goes through logarithms, which takes half the time of ``pow``. They are ten times slower near the smallest
    numbers, so that a value passes for ``least`` there: its power is below 1e-10 for any exponent above 0.3.
    """
    torch.mul(image, brightness, out=out).clamp_(0, 1)
    if contrast != 1:
        out.lerp_(out.mean(), 1 - contrast).clamp_(0, 1)
    if gamma != 1:
        least = 2.0 ** (-120 / max(gamma, 1.0))
        out.clamp_(min=least).log2_().mul_(gamma).exp2_()


@dataclass(frozen=True)
class ActionSampler:
    """Draws actions; the defaults are the released recipe of CheXWorld.

    Args:
        brightness: range of the factor, uniform, >= 0.
        contrast: range of the factor, uniform, >= 0.
        gamma: range of the exponent, log-uniform, > 0.
        blur: range of the blur radius, px of the view, uniform, >= 0.
        noise: range of the noise's standard deviation, share of the full scale, uniform, >= 0.
        jitter_prob: probability that brightness, contrast and gamma are drawn (all three together).
        blur_prob: probability of a blur.
        noise_prob: probability of noise.

    Raises:
        ValueError: for a range that is empty or leaves its domain, or a probability outside [0, 1].
    """

    brightness: tuple[float, float] = (0.6, 1.4)
    contrast: tuple[float, float] = (0.6, 1.4)
    gamma: tuple[float, float] = (0.5, 2.0)
    blur: tuple[float, float] = (0.1, 2.0)
    noise: tuple[float, float] = (0.05, 0.2)
    jitter_prob: float = 0.8
    blur_prob: float = 0.2
    noise_prob: float = 0.0

    def __post_init__(self) -> None:
        for name in _NAMES:
            bounds = getattr(self, name)
            least = "0 <" if name == "gamma" else "0 <="
            positive = len(bounds) == 2 and (bounds[0] > 0 if name == "gamma" else bounds[0] >= 0)
            if not positive or not bounds[0] <= bounds[1] < math.inf:
                raise ValueError(f"{name} must be (low, high) with {least} low <= high, got {bounds}.")
        for name in ("jitter_prob", "blur_prob", "noise_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}.")

    def __call__(self, rng: np.random.RandomState) -> np.ndarray:
        """Draws one action.

        Args:
            rng: source of randomness; always advanced by eight uniform numbers, whatever is drawn.

        Returns:
            float32 ``[5]``: brightness, contrast, gamma, blur radius, noise.
        """
        u = rng.random_sample(8)
        action = np.array(IDENTITY_ACTION, dtype=np.float32)
        if u[0] < self.jitter_prob:
            action[0] = between(self.brightness, u[1])
            action[1] = between(self.contrast, u[2])
            action[2] = math.exp(between((math.log(self.gamma[0]), math.log(self.gamma[1])), u[3]))
        if u[4] < self.blur_prob:
            action[3] = between(self.blur, u[5])
        if u[6] < self.noise_prob:
            action[4] = between(self.noise, u[7])
        return action


class RandActiond(Reseedable, MapTransform):
    """Writes a random action, float32 ``[5]``, to each of its keys (one independent draw per key).

    Args:
        keys: keys to write.
        sampler: distribution of the actions; None for the released recipe.
    """

    def __init__(self, keys: KeysCollection = ("action1", "action2"), sampler: ActionSampler | None = None) -> None:
        MapTransform.__init__(self, keys)
        self.sampler = ActionSampler() if sampler is None else sampler

    def randomize(self, data: Any = None) -> None:
        """Draws the actions of one sample, in the order of the keys."""
        self._actions = [self.sampler(self.R) for _ in self.keys]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        self.randomize()
        return {**data, **{key: torch.from_numpy(action) for key, action in zip(self.keys, self._actions, strict=True)}}


class Perturbd(Reseedable, MapTransform):
    """Writes the perturbed copy of each view (see :func:`perturb`).

    Random only where an action asks for noise: then its unit normal field comes from ``self.R``.

    Args:
        keys: views, floating ``[C, H, W]`` in [0, 1].
        action_keys: actions, ``[5]``, one for each of ``keys``.
        output_keys: where the perturbed views go, one for each of ``keys``.
        allow_missing_keys: skip a view that a sample lacks, instead of raising KeyError.

    Raises:
        ValueError: if the numbers of keys differ, or for what :func:`perturb` refuses.
    """

    def __init__(
        self,
        keys: KeysCollection = ("view1", "view2"),
        action_keys: KeysCollection = ("action1", "action2"),
        output_keys: KeysCollection = ("perturbed1", "perturbed2"),
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.action_keys, self.output_keys = ensure_tuple(action_keys), ensure_tuple(output_keys)
        for name in ("action_keys", "output_keys"):
            if len(getattr(self, name)) != len(self.keys):
                raise ValueError(f"{name} must have one key for each of {self.keys}, got {getattr(self, name)}.")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample = dict(data)
        for key, action_key, output_key in self.key_iterator(sample, self.action_keys, self.output_keys):
            image = torch.as_tensor(sample[key])[None]  # [1, C, H, W]
            action = torch.as_tensor(sample[action_key])[None]  # [1, 5]
            noise = None
            if action.ndim == 2 and action.shape[1] == len(_NAMES) and float(action[0, 4]) > 0:
                noise = torch.from_numpy(self.R.standard_normal(tuple(image.shape)).astype(np.float32))
            sample[output_key] = perturb(image, action, noise)[0]
        return sample
