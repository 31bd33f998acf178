"""Where the pixels of an array lie on the pixel grid that the file stores.

Readers and transforms that crop, pad, resize, flip or transpose a film add a step here; a result made on the array is
brought back to the stored grid by undoing the steps in reverse. All but a resize are undone exactly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

__all__ = ["PixelMap"]

_ARGUMENTS = {"crop": 4, "pad": 4, "resize": 2, "flip": 1, "transpose": 0}
_INTERPOLATIONS = ("nearest", "linear")


@dataclass(frozen=True)
class PixelMap:
    """The way from a stored pixel grid to an array, one step after the other.

    Args:
        source_shape: ``(H, W)`` of the stored grid, px.
        steps: ``(name, *integers)`` each, as the methods below record them.

    Raises:
        ValueError: for an unknown step, or one that doesn't fit the shape that it meets.
    """

    source_shape: tuple[int, int]
    steps: tuple[tuple[Any, ...], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "source_shape", tuple(int(size) for size in self.source_shape))
        object.__setattr__(self, "steps", tuple((str(name), *map(int, rest)) for name, *rest in self.steps))
        _ = self._shapes  # refuses steps that don't fit

    @cached_property
    def _shapes(self) -> list[tuple[int, int]]:
        """The shape before the first step and after each one."""
        shapes = [self.source_shape]
        if len(self.source_shape) != 2 or min(self.source_shape) < 1:
            raise ValueError(f"source_shape must be two sizes of at least 1 px, got {self.source_shape}")
        for name, *numbers in self.steps:
            height, width = shapes[-1]
            if len(numbers) != _ARGUMENTS.get(name, -1):
                raise ValueError(f"step must be one of {_ARGUMENTS} with so many integers, got {(name, *numbers)}")
            if name == "crop":
                top, left, rows, columns = numbers
                fits = min(top, left) >= 0 and 1 <= rows <= height - top and 1 <= columns <= width - left
                shape = (rows, columns)
            elif name == "pad":
                top, bottom, left, right = numbers
                fits, shape = min(numbers) >= 0, (height + top + bottom, width + left + right)
            elif name == "resize":
                fits, shape = min(numbers) >= 1, (numbers[0], numbers[1])
            elif name == "flip":
                fits, shape = numbers[0] in (0, 1), (height, width)
            else:
                fits, shape = True, (width, height)
            if not fits:
                raise ValueError(f"step {(name, *numbers)} does not fit an array of {height}x{width} (rows x columns)")
            shapes.append(shape)
        return shapes

    @classmethod
    def identity(cls, shape: tuple[int, ...]) -> PixelMap:
        """The map of an array that is the stored grid; the last two sizes of ``shape`` count."""
        return cls((shape[-2], shape[-1]))

    @property
    def shape(self) -> tuple[int, int]:
        """``(h, w)`` of the array, px."""
        return self._shapes[-1]

    def _add(self, *step: Any) -> PixelMap:
        return replace(self, steps=(*self.steps, step))

    def crop(self, top: int, left: int, height: int, width: int) -> PixelMap:
        """Keep ``height`` rows from ``top`` and ``width`` columns from ``left``."""
        return self._add("crop", top, left, height, width)

    def pad(self, top: int, bottom: int, left: int, right: int) -> PixelMap:
        """Add so many rows and columns on each side."""
        return self._add("pad", top, bottom, left, right)

    def resize(self, height: int, width: int) -> PixelMap:
        """Resample to another size; edges stay on edges (``align_corners=False``)."""
        return self if (height, width) == self.shape else self._add("resize", height, width)

    def flip(self, axis: int) -> PixelMap:
        """Reverse the rows (0) or the columns (1)."""
        return self._add("flip", axis)

    def transpose(self) -> PixelMap:
        """Exchange rows and columns."""
        return self._add("transpose")

    def restore(self, values: np.ndarray, interpolation: str = "nearest", fill: float = 0) -> np.ndarray:
        """Bring values on the array back to the stored grid.

        Args:
            values: ``[..., h, w]`` of this map's ``shape``, any real type or bool.
            interpolation: for undoing a resize: ``"nearest"`` keeps the values there are; ``"linear"`` (antialiased
                where it makes things smaller) is for probabilities, and gives float32.
            fill: value of stored pixels that the array does not cover.

        Returns:
            ``[..., H, W]`` of ``source_shape``; the dtype of ``values``, float32 where a resize was undone linearly.

        Raises:
            ValueError: the values have another shape, or the interpolation is unknown.
        """
        values = np.asarray(values)
        if values.shape[-2:] != self.shape:
            raise ValueError(f"values of shape {values.shape} don't end with this map's {self.shape}")
        if interpolation not in _INTERPOLATIONS:
            raise ValueError(f"interpolation must be one of {_INTERPOLATIONS}, got {interpolation!r}")
        for (name, *numbers), before in zip(reversed(self.steps), reversed(self._shapes[:-1]), strict=True):
            values = _undo(name, numbers, values, before, interpolation, fill)
        return np.ascontiguousarray(values)

    def turns(self) -> PixelMap:
        """The map's flips and transpositions alone."""
        return PixelMap(self.source_shape, tuple(step for step in self.steps if step[0] in ("transpose", "flip")))

    def turn(self, values: np.ndarray) -> np.ndarray:
        """Values ``[..., *source_shape]`` turned as the array is, neither cropped, padded nor resized."""
        for name, *numbers in self.turns().steps:
            values = np.swapaxes(values, -1, -2) if name == "transpose" else np.flip(values, numbers[0] - 2)
        return np.ascontiguousarray(values)

    def to_source(self, points: np.ndarray) -> np.ndarray:
        """Where points of the array lie on the stored grid.

        Args:
            points: ``[..., 2]`` (row, column) in continuous px: the first pixel covers 0 to 1, its centre is 0.5.

        Returns:
            float64 ``[..., 2]`` (row, column) on the stored grid.
        """
        scale, shift, swapped = self._affine()
        points = np.asarray(points, dtype=np.float64)
        points = points[..., ::-1] if swapped else points
        return (points - shift) / scale

    def from_source(self, points: np.ndarray) -> np.ndarray:
        """Where points of the stored grid lie on the array; the inverse of :meth:`to_source`."""
        scale, shift, swapped = self._affine()
        points = np.asarray(points, dtype=np.float64) * scale + shift
        return points[..., ::-1] if swapped else points

    def _affine(self) -> tuple[np.ndarray, np.ndarray, bool]:
        """``scale, shift, swapped``: array point = (stored point * scale + shift), exchanged where swapped.

        Scale and shift are in the order of the stored axes.
        """
        scale, shift, order = np.ones(2), np.zeros(2), [0, 1]  # order: array axis -> stored axis
        for (name, *numbers), shape in zip(self.steps, self._shapes[:-1], strict=True):
            if name == "transpose":
                order.reverse()
            elif name == "flip":
                axis = order[numbers[0]]
                scale[axis], shift[axis] = -scale[axis], shape[numbers[0]] - shift[axis]
            elif name == "resize":
                for at in (0, 1):
                    factor = numbers[at] / shape[at]
                    scale[order[at]] *= factor
                    shift[order[at]] *= factor
            else:
                first = (-numbers[0], -numbers[1]) if name == "crop" else (numbers[0], numbers[2])
                for at in (0, 1):
                    shift[order[at]] += first[at]
        return scale, shift, order == [1, 0]

    def to_dict(self) -> dict[str, Any]:
        """A form that JSON keeps."""
        return {"source_shape": list(self.source_shape), "steps": [list(step) for step in self.steps]}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> PixelMap:
        """The map that :meth:`to_dict` was made from."""
        return cls(tuple(state["source_shape"]), tuple(tuple(step) for step in state["steps"]))

    def to_json(self) -> str:
        """One string, for meta data that are put into batches (a MetaTensor's)."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> PixelMap:
        """The map that :meth:`to_json` was made from."""
        return cls.from_dict(json.loads(text))


def _undo(
    name: str, numbers: list[int], values: np.ndarray, before: tuple[int, int], interpolation: str, fill: float
) -> np.ndarray:
    """Values ``[..., h, w]`` after a step as they were before it, ``[..., *before]``."""
    if name == "crop":
        top, left, height, width = numbers
        whole = np.full((*values.shape[:-2], *before), fill, dtype=values.dtype)
        whole[..., top : top + height, left : left + width] = values
        return whole
    if name == "pad":
        top, _, left, _ = numbers
        return values[..., top : top + before[0], left : left + before[1]]
    if name == "flip":
        return np.flip(values, axis=values.ndim - 2 + numbers[0])
    if name == "transpose":
        return np.swapaxes(values, -1, -2)
    if interpolation == "linear":
        planes = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).reshape(1, -1, *values.shape[-2:])
        resized = F.interpolate(planes, before, mode="bilinear", antialias=True)
        return resized.numpy().reshape(*values.shape[:-2], *before)
    rows, columns = (
        np.minimum((np.arange(size) + 0.5) * now / size, now - 1).astype(np.int64)
        for size, now in zip(before, values.shape[-2:], strict=True)
    )
    return values[..., rows[:, None], columns]
