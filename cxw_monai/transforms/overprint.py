"""What is printed on a film or lies on the patient: side markers, letters, arrows, lines and tubes, shutters."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from PIL import Image, ImageDraw, ImageFont

from .whole_film import unit_float

__all__ = ["RandOverprintd", "RandShutterd"]

LETTERS = ("L", "R", "PA", "AP", "ERECT", "PORTABLE", "SUPINE", "15:40", "1")
CURVE_POINTS = 24


class RandOverprintd(RandomizableTransform, MapTransform):
    """Letters, arrows, and thin bright curves such as catheters, tubes and leads make. Masks stay as they are.

    Args:
        keys: image `[1, H, W]` (uint8, uint16, or floating in [0, 1]); becomes float32.
        texts, arrows, curves: ranges of how many there are, least and largest.
        prob: how often.

    Raises:
        ValueError: for a range that is negative or descending.
    """

    def __init__(
        self,
        keys: KeysCollection = ("image",),
        texts: Sequence[int] = (0, 3),
        arrows: Sequence[int] = (0, 1),
        curves: Sequence[int] = (0, 4),
        prob: float = 0.5,
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.ranges = {"texts": texts, "arrows": arrows, "curves": curves}
        for name, (least, largest) in self.ranges.items():
            if not 0 <= least <= largest:
                raise ValueError(f"{name} must be a range of 0 or more, got {[least, largest]}.")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample = dict(data)
        self.randomize(None)
        for key in self.key_iterator(sample):
            image = unit_float(sample[key])
            sample[key] = image.lerp_(*self._layer(*image.shape[1:])) if self._do_transform else image
        return sample

    def _layer(self, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Grey values and opacity `[1, H, W]` of what is printed."""
        ink, opacity = Image.new("L", (width, height)), Image.new("L", (width, height))
        draws = ImageDraw.Draw(ink), ImageDraw.Draw(opacity)
        for draw in draws:
            draw.fontmode = "1"  # smooth edges would be dark, half of the ink at half of the opacity
        for shape in ("texts", "arrows", "curves"):
            least, largest = self.ranges[shape]
            for _ in range(self.R.randint(least, largest + 1)):
                grey = int(self.R.randint(0, 60) if self.R.random() < 0.1 else self.R.randint(170, 256))
                strength = int(self.R.randint(90, 200) if shape == "curves" else self.R.randint(180, 256))
                geometry = getattr(self, f"_{shape[:-1]}")(height, width)
                for draw, fill in zip(draws, (grey, strength), strict=True):
                    geometry(draw, fill)
        layers = (torch.from_numpy(np.array(layer, dtype=np.float32))[None] / 255 for layer in (ink, opacity))
        return next(layers), next(layers)

    def _text(self, height: int, width: int) -> Any:
        text = LETTERS[self.R.randint(len(LETTERS))]
        place = float(self.R.uniform(0, 0.9) * width), float(self.R.uniform(0, 0.9) * height)
        font = ImageFont.load_default(float(self.R.uniform(0.03, 0.11)) * height)
        return lambda draw, fill: draw.text(place, text, fill=fill, font=font)

    def _arrow(self, height: int, width: int) -> Any:
        tip = self.R.uniform(0.1, 0.9, 2) * (width, height)
        angle, length = self.R.uniform(0, 2 * np.pi), self.R.uniform(0.04, 0.1) * height
        along = np.array([np.cos(angle), np.sin(angle)])
        across = np.array([-along[1], along[0]])
        head = [tip, tip - length * (0.5 * along + 0.3 * across), tip - length * (0.5 * along - 0.3 * across)]
        corners = [tuple(map(float, point)) for point in head]
        shaft = [*map(float, tip), *map(float, tip - length * along)]
        thick = max(1, round(0.15 * length))

        def draw_arrow(draw: ImageDraw.ImageDraw, fill: int) -> None:
            draw.polygon(corners, fill=fill)
            draw.line(shaft, fill=fill, width=thick)

        return draw_arrow

    def _curve(self, height: int, width: int) -> Any:
        """A quadratic Bezier curve from anywhere to anywhere."""
        first, middle, last = self.R.uniform(-0.1, 1.1, (3, 2)) * (width, height)
        t = np.linspace(0, 1, CURVE_POINTS)[:, None]
        points = (1 - t) ** 2 * first + 2 * t * (1 - t) * middle + t**2 * last
        thick = int(self.R.randint(1, max(2, height // 80) + 1))
        line = [tuple(map(float, point)) for point in points]
        return lambda draw, fill: draw.line(line, fill=fill, width=thick, joint="curve")


class RandShutterd(RandomizableTransform, MapTransform):
    """Black or white beyond the sides of a collimated field, whose edges may be slanted. Masks stay as they are.

    Args:
        keys: image `[1, H, W]` (uint8, uint16, or floating in [0, 1]); becomes float32.
        depth: how far a side reaches in, a share of the film, least and largest.
        slant: most difference of its two ends, as a share of the film.
        prob: how often there is one; each side is then covered with probability a half.

    Raises:
        ValueError: for a depth that is no range in [0, 0.5).
    """

    def __init__(
        self,
        keys: KeysCollection = ("image",),
        depth: Sequence[float] = (0.0, 0.12),
        slant: float = 0.03,
        prob: float = 0.3,
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        if not 0 <= depth[0] <= depth[1] < 0.5:
            raise ValueError(f"depth must be a range in [0, 0.5), got {list(depth)}.")
        self.depth, self.slant = depth, slant

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample = dict(data)
        self.randomize(None)
        for key in self.key_iterator(sample):
            image = unit_float(sample[key])
            if self._do_transform:
                grey = float(self.R.choice([0.0, 0.0, 0.0, 0.02, 1.0]))
                for side in range(4):
                    covered, depth, tilt = (
                        self.R.random() < 0.5,
                        self.R.uniform(self.depth[0], self.depth[1]),
                        self.R.uniform(-1, 1),
                    )
                    if covered:
                        turned = torch.rot90(image, side, (1, 2))
                        rows, columns = turned.shape[1:]
                        edge = rows * (depth + self.slant * tilt * (torch.linspace(0, 1, columns) - 0.5))
                        turned[:, torch.arange(rows)[:, None] < edge] = grey
                        image = torch.rot90(turned, -side, (1, 2))
            sample[key] = image.contiguous()
        return sample
