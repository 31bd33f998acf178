"""Encoders in files: where they are, and the network that a file's tensors tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from cxw_monai.networks import VIT_SIZES, RadiographEmbedder, radiograph_vit
from cxw_monai.networks.positions import table_grid

from .bundles import named_bundle
from .files import CheckpointError, build, read_weights, state_dict_of
from .segmenter_settings import MOST_PATCHES, checked_image_size

__all__ = [
    "chosen_encoder",
    "embedder_of",
    "encoder_file",
    "encoder_size",
    "encoder_state",
    "load_embedder",
    "reference_size",
]

_PREFIXES = {"target": ("target_encoder.", "encoder.", ""), "context": ("encoder.", "")}
_OTHER = "give the model.pt or encoder.pt of a pretraining run of this package, or import the weights first"


def encoder_file(path: str | Path) -> Path:
    """The weights' file: `path` itself, or `encoder.pt`, `model.pt`, `models/model.pt` of a run's or bundle's folder.

    Raises:
        CheckpointError: a folder with none of them.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    for name in ("model.pt", "models/model.pt", "encoder.pt"):
        if (path / name).is_file():
            return path / name
    raise CheckpointError(path, "a folder without model.pt, models/model.pt or encoder.pt", "name the file")


def chosen_encoder(encoder_ckpt: str | Path | None) -> Path | None:
    """The file of an encoder; None for fresh weights, which a command line asks for by `none`.

    A bundle's folder that isn't there is looked for by its name: a bundle that was fetched alone finds its neighbour.

    Raises:
        CheckpointError: there is no such file.
    """
    if encoder_ckpt is None or encoder_ckpt == "none":
        return None
    path = Path(encoder_ckpt)
    if not path.exists():
        found = None if path.suffix else named_bundle(path.name)
        if found is None:
            remedy = "fetch that bundle, give encoder_ckpt a file, or 'none' for a fresh encoder"
            raise CheckpointError(path, "no such file", remedy)
        path = found
    return encoder_file(path)


def encoder_state(path: str | Path, weights: str = "target") -> dict[str, Tensor]:
    """Tensors of an encoder under its own names, from a pretraining run's file or folder.

    Args:
        path: `model.pt` or `encoder.pt` of a pretraining run or a published bundle, or the folder of either.
        weights: `target` (the EMA encoder, which is the one in `encoder.pt`) or `context`, of a `model.pt`.

    Raises:
        ValueError: for another `weights`.
        CheckpointError: the file cannot be read or does not hold that encoder.
    """
    if weights not in _PREFIXES:
        raise ValueError(f"encoder_weights must be 'target' or 'context', got {weights!r}.")
    path = encoder_file(path)
    return _state_of(read_weights(path), path, weights)


def _state_of(content: Mapping[str, Any], path: Path, weights: str = "target") -> dict[str, Tensor]:
    state = state_dict_of(content, path)
    if weights == "context" and not any(name.startswith("target_encoder.") for name in state):
        raise CheckpointError(path, "holds one encoder, not the context encoder beside its target", "give model.pt")
    for prefix in _PREFIXES[weights]:
        if f"{prefix}patch_embed.proj.weight" in state:
            found = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
            _check_stem(found, path)
            return found
    raise CheckpointError(path, "holds no encoder", _OTHER)


def _check_stem(state: Mapping[str, Tensor], path: Path) -> None:
    """Sizes can be read off stem and positions.

    Raises:
        CheckpointError: they can't.
    """
    stem, table = state["patch_embed.proj.weight"], state.get("pos_embed")
    if stem.ndim != 4 or stem.shape[2] != stem.shape[3]:
        raise CheckpointError(path, f"a stem of shape {tuple(stem.shape)}, not of square patches", _OTHER)
    if table is None or table.ndim != 3 or table.shape[0] != 1 or table.shape[2] != stem.shape[0]:
        found = "no positions" if table is None else f"positions of shape {tuple(table.shape)}"
        raise CheckpointError(path, f"{found} for an encoder of width {stem.shape[0]}", _OTHER)
    if table.shape[1] > MOST_PATCHES:
        raise CheckpointError(path, f"positions of {table.shape[1]} patches, more than {MOST_PATCHES}", _OTHER)


def encoder_size(state: Mapping[str, Tensor], path: Path) -> str:
    """Name in `VIT_SIZES` of the encoder that the tensors are of.

    Raises:
        CheckpointError: none of them.
    """
    width = state["patch_embed.proj.weight"].shape[0]
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    for name, size in VIT_SIZES.items():
        if (size["embed_dim"], size["depth"]) == (width, depth):
            return name
    raise CheckpointError(
        path, f"an encoder of width {width} and depth {depth}", f"known sizes: {', '.join(VIT_SIZES)}"
    )


def reference_size(state: Mapping[str, Tensor], image_size: tuple[int, int], path: Path) -> tuple[int, int]:
    """Height and width in px of the images that the position table is for.

    Args:
        state: of `encoder_state`, of a known size.
        image_size: (height, width) in px to take where the table was learnt, and so doesn't tell its grid.
        path: for messages.

    Raises:
        CheckpointError: a learnt table that is neither of that size nor square.
    """
    patch, table = state["patch_embed.proj.weight"].shape[2], state["pos_embed"]
    tokens, side = table.shape[1], round(table.shape[1] ** 0.5)
    grid = table_grid(table)
    if grid is None and tokens == (image_size[0] // patch) * (image_size[1] // patch):
        grid = image_size[0] // patch, image_size[1] // patch
    if grid is None and tokens == side**2:
        grid = side, side
    if grid is None:
        reason = (
            f"learnt positions of {tokens} tokens, neither a square nor those of {image_size[0]} x {image_size[1]} px"
        )
        raise CheckpointError(path, reason, "set pretraining's image_size, in a bundle that of configs/inference.json")
    try:
        return checked_image_size((grid[0] * patch, grid[1] * patch), patch)
    except ValueError as error:
        raise CheckpointError(
            path, f"positions of {grid[0]} x {grid[1]} patches of {patch} px ({error})", _OTHER
        ) from error


def load_embedder(path: str | Path, image_size: int | Sequence[int] = 224) -> RadiographEmbedder:
    """The target encoder of a pretraining run, with all sizes read off its tensors.

    Args:
        path: `model.pt`, `encoder.pt` or their safetensors of a pretraining run or an imported checkpoint, or the
            folder of either.
        image_size: px of pretraining, one number or (height, width), for tables of learnt positions, which don't tell
            it.

    Returns:
        The network in evaluation mode on the CPU; `encoder.grid` times `encoder.patch_size` is pretraining's size.

    Raises:
        CheckpointError: the file cannot be read, or holds no encoder of a known size.
        ValueError: `image_size` is none.
    """
    path = encoder_file(path)
    return embedder_of(read_weights(path), path, image_size)


def embedder_of(content: Mapping[str, Any], path: Path, image_size: int | Sequence[int] = 224) -> RadiographEmbedder:
    """As `load_embedder`, from what `read_weights` gave for `path`."""
    state = _state_of(content, path)
    _, channels, patch, _ = state["patch_embed.proj.weight"].shape
    make = partial(
        radiograph_vit,
        encoder_size(state, path),
        image_size=reference_size(state, checked_image_size(image_size), path),
        patch_size=patch,
        in_channels=channels,
    )
    return RadiographEmbedder(build(make, state, path)).eval()
