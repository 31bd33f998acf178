"""Descriptors of radiographs for frozen probes: embeddings from a file, an encoder's tokens, or the pixels."""

from __future__ import annotations

import copy
import os
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxw_monai.inference.predictor import Predictor
from cxw_monai.io import read_radiograph
from cxw_monai.networks.layers import init_weights
from cxw_monai.networks.positions import sincos_table
from cxw_monai.weights.encoder import load_encoder

__all__ = [
    "Descriptors",
    "encoder_descriptors",
    "load_descriptors",
    "pixel_descriptors",
    "pixel_tokens",
    "shrunk",
    "with_random_weights",
]

Network = TypeVar("Network", bound=nn.Module)

TOKEN_PX = 16
POSITION_CHANNELS = 64

_PIXEL_FILM = 160  # px of the square film that pixel tokens are made of


@dataclass(frozen=True)
class Descriptors:
    """One vector an image.

    Attributes:
        name: what they are, for the table.
        images: absolute paths.
        values: float32 ``[N, D]``, a row for each of ``images``.
        tokens: float ``[N, n * n, C]``, a vector for each place of a square grid; None where there are none.
    """

    name: str
    images: list[str]
    values: np.ndarray
    tokens: np.ndarray | None = None


def _read_arrays(path: str | PathLike[str], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays of an npz; see :func:`load_descriptors` for what it raises."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; give the embeddings.npz that an inference wrote")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: not an npz file; give the embeddings.npz that an inference wrote")
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in names if name in file.files}
            held = file.files
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{path}: not a readable npz ({error}); write it again") from error
    absent = [name for name in names if name not in found]
    if absent:
        remedy = "run the inference with patch embeddings" if absent == ["patches"] else "not an embeddings file"
        raise ValueError(f"{path}: no array {absent[0]!r} among {held}; {remedy}")
    return found


def load_descriptors(path: str | PathLike[str], tokens: bool = False, patches: bool = False) -> Descriptors:
    """Read embeddings that ``EmbeddingWriter`` wrote.

    Args:
        path: the ``.npz`` with ``embeddings`` ``[N, D]``, ``image`` (``N`` paths) and, on request of the inference,
            ``patches`` ``[N, D, rows, columns]``.
        tokens: describe an image by mean and standard deviation of its patch tokens per channel, ``[N, 2 D]``. What is
            only in some places of the film raises the deviation but drowns in the mean.

    Returns:
        The descriptors, in the order of the image paths.

    Raises:
        ValueError: the file is not such an npz, or values are not finite; the message names it.
        FileNotFoundError: there is no such file.
    """
    key = "patches" if tokens else "embeddings"
    arrays = _read_arrays(path, ("image", key, "patches") if patches else ("image", key))
    images, values = [os.path.abspath(name) for name in arrays["image"].tolist()], arrays[key]
    if values.ndim != (4 if tokens else 2) or len(values) != len(images):
        raise ValueError(f"{path}: {key} have shape {list(values.shape)}, which does not fit {len(images)} images")
    if len(set(images)) != len(images):
        raise ValueError(f"{path}: image {Counter(images).most_common(1)[0][0]} is there more than once")
    values = values.astype(np.float32)
    if tokens:
        flat = values.reshape(*values.shape[:2], -1)  # [N, D, tokens]
        values = np.concatenate([flat.mean(axis=2), flat.std(axis=2)], axis=1)  # [N, 2 D]
    if not np.isfinite(values).all():
        bad = images[int(np.argmin(np.isfinite(values).all(axis=1)))]
        raise ValueError(f"{path}: the {key} of {bad} hold NaN or infinity")
    order = sorted(range(len(images)), key=images.__getitem__)
    name = f"{path} tokens" if tokens else str(path)
    grid = _grid_tokens(arrays["patches"][order], path) if patches else None
    return Descriptors(name, [images[i] for i in order], values[order], grid)


def _grid_tokens(patches: np.ndarray, path: str | PathLike[str]) -> np.ndarray:
    """Patch embeddings ``[N, D, n, n]`` as tokens ``[N, n * n, D]``."""
    if patches.ndim != 4 or patches.shape[2] != patches.shape[3]:
        shape = list(patches.shape)
        raise ValueError(
            f"{path}: patches have shape {shape}; these readings need [N, D, n, n], a square grid of places"
        )
    if not np.isfinite(patches).all():
        raise ValueError(f"{path}: the patches hold NaN or infinity")
    return patches.reshape(*patches.shape[:2], -1).transpose(0, 2, 1).astype(np.float32)


def pixel_tokens(films: Tensor) -> Tensor:
    """Tokens of square films `[N, 1, S, S]` of 16 x 16 px: 4 x 4 grey values, the film at 16 x 16, and the place."""
    grid = films.shape[-1] // TOKEN_PX
    cells = F.interpolate(films, size=(4 * grid, 4 * grid), mode="area")  # [N, 1, 4 g, 4 g]
    own = F.pixel_unshuffle(cells, 4).flatten(2).transpose(1, 2)  # [N, g * g, 16]
    film = F.interpolate(films, size=(16, 16), mode="area").flatten(1)
    place = sincos_table((grid, grid), POSITION_CHANNELS).expand(len(films), -1, -1)
    return torch.cat([own, film.unsqueeze(1).expand(-1, own.shape[1], -1), place], dim=-1)


def encoder_descriptors(
    path: str | PathLike[str], images: Sequence[str], random_seed: int | None = None
) -> Descriptors:
    """Tokens of an encoder on films stretched to its size, and their mean, which is the film's embedding.

    Args:
        path: an encoder's file, see :func:`~cxw_monai.weights.encoder.load_encoder`.
        images: paths of radiographs.
        random_seed: take the same network with random weights of this seed instead of the file's.

    Raises:
        CheckpointError: the file can't be used.
        RadiographError: a film can't be read.
    """
    encoder = load_encoder(Path(path)).encoder
    if random_seed is not None:
        encoder = with_random_weights(encoder, random_seed)
    size = (encoder.grid[0] * encoder.patch_size, encoder.grid[1] * encoder.patch_size)
    predictor = Predictor(encoder, size, source=path)
    tokens = torch.stack([predictor.output(read_radiograph(image, min_size=1).array) for image in images])  # [N, n, D]
    name = str(path) if random_seed is None else f"random weights, seed {random_seed}"
    return Descriptors(name, list(images), tokens.mean(dim=1).numpy(), tokens.numpy())


def with_random_weights(network: Network, seed: int) -> Network:
    """A copy of a network with the weights of a new one."""
    network = copy.deepcopy(network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return network.apply(_fresh)


def _fresh(module: nn.Module) -> None:
    """Give a layer the weights of a new network."""
    init_weights(module)
    if isinstance(module, nn.LayerNorm):
        module.reset_parameters()


def shrunk(film: np.ndarray, side: int) -> Tensor:
    """A film ``[1, H, W]`` averaged down to ``[1, side, side]``, whatever its shape."""
    return F.interpolate(torch.from_numpy(film)[None], size=(side, side), mode="area")[0]


def pixel_descriptors(images: Sequence[str], side: int) -> Descriptors:
    """The films themselves, averaged down to ``side x side`` pixels: the baseline that an encoder should beat.

    Args:
        images: paths of radiographs.
        side: rows and columns.

    Returns:
        ``[N, side * side]`` grey values in [0, 1]; tokens of 16 x 16 px of the film stretched to 160 x 160, each with
        its own 4 x 4 averages, the whole film at 16 x 16, and its place.

    Raises:
        ValueError: ``side`` is below 1.
        RadiographError: a file cannot be read.
    """
    if side < 1:
        raise ValueError(f"pixels must be at least 1 per side, got {side}.")
    rows, films = [], []
    for image in images:
        film = read_radiograph(image, min_size=1).array
        rows.append(shrunk(film, side).flatten().numpy())
        films.append(shrunk(film, _PIXEL_FILM))
    tokens = pixel_tokens(torch.stack(films)).numpy()
    return Descriptors(f"pixels {side}x{side}", list(images), np.stack(rows), tokens)
