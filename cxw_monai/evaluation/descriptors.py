"""Descriptors of radiographs for frozen probes: embeddings from a file, or the pixels themselves."""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from cxw_monai.io import read_radiograph

__all__ = ["Descriptors", "load_descriptors", "pixel_descriptors"]


@dataclass(frozen=True)
class Descriptors:
    """One vector an image.

    Attributes:
        name: what they are, for the table.
        images: absolute paths.
        values: float32 ``[N, D]``, a row for each of ``images``.
    """

    name: str
    images: list[str]
    values: np.ndarray


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


def load_descriptors(path: str | PathLike[str], tokens: bool = False) -> Descriptors:
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
    arrays = _read_arrays(path, ("image", key))
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
    return Descriptors(name, [images[i] for i in order], values[order])


def pixel_descriptors(images: Sequence[str], side: int) -> Descriptors:
    """The films themselves, averaged down to ``side x side`` pixels: the baseline that an encoder should beat.

    Args:
        images: paths of radiographs.
        side: rows and columns.

    Returns:
        ``[N, side * side]`` grey values in [0, 1].

    Raises:
        ValueError: ``side`` is below 1.
        RadiographError: a file cannot be read.
    """
    if side < 1:
        raise ValueError(f"pixels must be at least 1 per side, got {side}.")
    rows = []
    for image in images:
        film = torch.from_numpy(read_radiograph(image, min_size=1).array)  # [1, H, W]
        rows.append(F.interpolate(film[None], size=(side, side), mode="area").flatten().numpy())
    return Descriptors(f"pixels {side}x{side}", list(images), np.stack(rows))
