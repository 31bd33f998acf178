"""The package's view pairs and a plain Pillow pipeline that does the same work, for the benchmark.

The Pillow pipeline follows the specification's order on 8-bit RGB images, as a user would write it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor

from cxw_monai.transforms import IDENTITY_ACTION, ActionSampler, BaseJitter, RandActiond, RandWorldViewPaird, perturb
from cxw_monai.transforms.geometry import CropBox
from cxw_monai.transforms.views import sample_base_jitter, sample_crop_pair

__all__ = ["PackageViews", "PillowViews"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FILM_MEAN, FILM_STD = 0.5056, 0.252


class PackageViews:
    """View pairs as pretraining makes them: per image in the loader, the perturbation on the batch.

    Args:
        size: side of a view, px.
        seed: of crops, jitter and actions.
        mean, std: normalisation (which the network does in pretraining), so that both sides end with the same thing.
    """

    def __init__(self, size: int = 224, seed: int = 0, mean: float = FILM_MEAN, std: float = FILM_STD) -> None:
        self.views, self.actions = RandWorldViewPaird(size=size), RandActiond()
        self.views.set_random_state(seed)
        self.actions.set_random_state(seed)
        self.mean, self.std, self._out = mean, std, torch.empty(0)

    def __call__(self, films: Sequence[np.ndarray]) -> Tensor:
        """uint8 films ``[1, H, W]`` to float32 ``[4, B, 1, h, w]``: view 1, view 2, and their perturbed copies.

        The memory of the last batch is used again.
        """
        return self.finish(torch.utils.data.default_collate([self.actions(self.views({"image": f})) for f in films]))

    def finish(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The same from the batch of a loader: perturbs and normalises it."""
        clean = [batch["view1"], batch["view2"]]
        perturbed = [perturb(view, batch[f"action{i}"]) for i, view in enumerate(clean, start=1)]
        if self._out.shape != (4, *clean[0].shape):
            self._out = torch.empty((4, *clean[0].shape))
        shift = torch.tensor(-self.mean / self.std)
        for place, views in zip(self._out, clean + perturbed, strict=True):
            torch.add(shift, views, alpha=1 / self.std, out=place)
        return self._out


class PillowViews:
    """The same view pairs in 8-bit RGB, written straightforwardly with Pillow and NumPy.

    The steps of the published recipe: jitter of the whole film, crop, bicubic resize, brightness, contrast, gamma and
    blur of the copies, luma, three channels, normalisation. With the seed of :class:`PackageViews` it draws the same
    crops, jitters and actions; no flips on either side.

    Args:
        size: side of a view, px.
        seed: of crops, jitter and actions.
        mean, std: normalisation per channel.
    """

    def __init__(
        self,
        size: int = 224,
        seed: int = 0,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        self.size, self.views, self.actions = size, np.random.RandomState(seed), np.random.RandomState(seed)
        self.sampler = ActionSampler()
        self.mean = np.asarray(mean, dtype=np.float32)[:, None, None]
        self.std = np.asarray(std, dtype=np.float32)[:, None, None]
        self._out = np.empty(0)

    def __call__(self, films: Sequence[Image.Image]) -> Tensor:
        """RGB films to float32 ``[4, B, 3, h, w]``: view 1, view 2, and their perturbed copies.

        The memory of the last batch is used again.
        """
        shape = (4, len(films), 3, self.size, self.size)
        if self._out.shape != shape:
            self._out = np.empty(shape, dtype=np.float32)
        for number, film in enumerate(films):
            self._out[:, number] = self.views_of(film)
        return torch.from_numpy(self._out)

    def views_of(self, film: Image.Image) -> np.ndarray:
        """The four views of one RGB film: float32 ``[4, 3, h, w]``."""
        jitter = sample_base_jitter(self.views, 0.8, 0.4, 0.4)
        boxes = sample_crop_pair(self.views, film.height, film.width)
        film = film if jitter is None else self._jittered(film, jitter)
        clean = [self._cropped(film, box) for box in boxes]
        perturbed = [self._perturbed(view, self.sampler(self.actions)) for view in clean]
        return np.stack([self._finished(view) for view in clean + perturbed])

    @staticmethod
    def _jittered(film: Image.Image, jitter: BaseJitter) -> Image.Image:
        steps = [(ImageEnhance.Brightness, jitter.brightness), (ImageEnhance.Contrast, jitter.contrast)]
        for enhance, factor in steps if jitter.brightness_first else reversed(steps):
            film = enhance(film).enhance(factor)
        return film

    def _cropped(self, film: Image.Image, box: CropBox) -> Image.Image:
        crop = film.crop((box.left, box.top, box.left + box.width, box.top + box.height))
        return crop.resize((self.size, self.size), Image.Resampling.BICUBIC)

    @staticmethod
    def _perturbed(view: Image.Image, action: np.ndarray) -> Image.Image:
        brightness, contrast, gamma, radius, _ = action.tolist()
        if (brightness, contrast, gamma) != IDENTITY_ACTION[:3]:
            view = ImageEnhance.Contrast(ImageEnhance.Brightness(view).enhance(brightness)).enhance(contrast)
            view = view.point([int(255.999 * (level / 255) ** gamma) for level in range(256)] * 3)
        return view.filter(ImageFilter.GaussianBlur(radius)) if radius > 0 else view

    def _finished(self, view: Image.Image) -> np.ndarray:
        luma = np.asarray(view.convert("L"), dtype=np.float32) / 255
        return (np.repeat(luma[None], 3, axis=0) - self.mean) / self.std  # [3, h, w]
