"""What defines an encoder's network, read off its tensors: an encoder's file holds no settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cxw_monai.networks import VIT_SIZES, RadiographViT, radiograph_vit
from cxw_monai.networks.positions import table_grid

from .files import CheckpointError
from .task_settings import MOST_PATCHES, checked_image_size

__all__ = ["ENCODER_PREFIXES", "EncoderSettings", "encoder_tensors", "read_off", "with_normalisation"]

ENCODER_PREFIXES = ("target_encoder.", "encoder.")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_STEM = "patch_embed.proj.weight"
_PREFIXES = {"target": (*ENCODER_PREFIXES, ""), "context": ("encoder.", "")}
_OTHER = "give the model.pt or encoder.pt of a pretraining run of this package, or an official checkpoint"


@dataclass(frozen=True)
class EncoderSettings:
    """What defines a `RadiographViT`.

    Attributes:
        size: one of `VIT_SIZES`.
        image_size: (height, width) in px of pretraining, whose positions it knows.
        patch_size: side of a patch in px.
        in_channels: channels of the stem.
    """

    size: str
    image_size: tuple[int, int]
    patch_size: int
    in_channels: int

    def network(self) -> RadiographViT:
        """The network with fresh weights."""
        return radiograph_vit(
            self.size, image_size=self.image_size, patch_size=self.patch_size, in_channels=self.in_channels
        )


def with_normalisation(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Official tensors with the encoders' `image_mean` and `image_std`; those of other files as they are.

    The official code normalises films with ImageNet's statistics before its networks, ours do it themselves.
    """
    stem = state.get(f"encoder.{_STEM}")
    names = [f"{prefix}image_mean" for prefix in ENCODER_PREFIXES]
    if "predictor.mask_token" not in state or stem is None or stem.ndim != 4 or any(name in state for name in names):
        return state
    channels = stem.shape[1]
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ([0.0] * channels, [1.0] * channels)
    added = {f"{prefix}image_mean": torch.tensor(mean) for prefix in ENCODER_PREFIXES}
    return {**state, **added, **{f"{prefix}image_std": torch.tensor(std) for prefix in ENCODER_PREFIXES}}


def encoder_tensors(state: Mapping[str, Tensor], path: Path, weights: str = "target") -> dict[str, Tensor]:
    """Tensors of an encoder under its own names.

    Args:
        state: of a world model, an encoder or a task's network.
        path: for messages.
        weights: `target` (the EMA encoder, which is the one in `encoder.pt`) or `context`, of a world model.

    Raises:
        ValueError: for another `weights`.
        CheckpointError: the file does not hold that encoder, or no size can be read off it.
    """
    if weights not in _PREFIXES:
        raise ValueError(f"encoder_weights must be 'target' or 'context', got {weights!r}.")
    if weights == "context" and not any(name.startswith("target_encoder.") for name in state):
        raise CheckpointError(path, "holds one encoder, not the context encoder beside its target", "give model.pt")
    for prefix in _PREFIXES[weights]:
        if prefix + _STEM in state:
            found = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
            _check_stem(found, path)
            return found
    raise CheckpointError(path, "holds no encoder", _OTHER)


def _check_stem(state: Mapping[str, Tensor], path: Path) -> None:
    """Sizes can be read off stem and positions.

    Raises:
        CheckpointError: they can't.
    """
    stem, table = state[_STEM], state.get("pos_embed")
    if stem.ndim != 4 or stem.shape[2] != stem.shape[3]:
        raise CheckpointError(path, f"a stem of shape {tuple(stem.shape)}, not of square patches", _OTHER)
    if table is None or table.ndim != 3 or table.shape[0] != 1 or table.shape[2] != stem.shape[0]:
        found = "no positions" if table is None else f"positions of shape {tuple(table.shape)}"
        raise CheckpointError(path, f"{found} for an encoder of width {stem.shape[0]}", _OTHER)
    if table.shape[1] > MOST_PATCHES:
        raise CheckpointError(path, f"positions of {table.shape[1]} patches, more than {MOST_PATCHES}", _OTHER)


def read_off(state: Mapping[str, Tensor], path: Path, image_size: tuple[int, int] = (224, 224)) -> EncoderSettings:
    """An encoder's settings.

    Args:
        state: of `encoder_tensors`.
        path: for messages.
        image_size: (height, width) in px to take where positions were learnt, and so don't tell their grid.

    Raises:
        CheckpointError: an encoder of no known size, or learnt positions that are neither of `image_size` nor square.
    """
    _, channels, patch, _ = state[_STEM].shape
    return EncoderSettings(_size(state, path), _reference_size(state, image_size, path), patch, channels)


def _size(state: Mapping[str, Tensor], path: Path) -> str:
    width = state[_STEM].shape[0]
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    for name, size in VIT_SIZES.items():
        if (size["embed_dim"], size["depth"]) == (width, depth):
            return name
    known = f"known sizes: {', '.join(VIT_SIZES)}"
    raise CheckpointError(path, f"an encoder of width {width} and depth {depth}", known)


def _reference_size(state: Mapping[str, Tensor], image_size: tuple[int, int], path: Path) -> tuple[int, int]:
    """Height and width in px of the images that the position table is for."""
    patch, table = state[_STEM].shape[2], state["pos_embed"]
    tokens, side = table.shape[1], round(table.shape[1] ** 0.5)
    given = image_size[0] // patch, image_size[1] // patch
    grid = table_grid(table)
    if grid is None and tokens == given[0] * given[1]:
        grid = given
    if grid is None and tokens == side**2:
        grid = side, side
    if grid is None:
        size = f"{image_size[0]} x {image_size[1]} px"
        reason = f"learnt positions of {tokens} tokens, neither a square nor those of {size}"
        raise CheckpointError(path, reason, "set pretraining's image_size, in a bundle that of configs/inference.json")
    try:
        return checked_image_size((grid[0] * patch, grid[1] * patch), patch)
    except ValueError as error:
        reason = f"positions of {grid[0]} x {grid[1]} patches of {patch} px ({error})"
        raise CheckpointError(path, reason, _OTHER) from error
