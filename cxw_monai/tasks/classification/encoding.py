"""Films that a frozen encoder sees once: their tokens, kept beside the cached films."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from cxw_monai.data.store_writer import cache_lock
from cxw_monai.networks import RadiographClassifier
from cxw_monai.training.precision import autocast, supported_amp
from cxw_monai.training.processes import is_main_process
from cxw_monai.transforms.whole_film import whole_film

from .dataset import LabelledFilms

__all__ = ["encoded_films"]

logger = logging.getLogger(__name__)

BATCH = 16


def encoded_films(
    films: LabelledFilms,
    network: RadiographClassifier,
    size: tuple[int, int],
    device: str | torch.device = "cpu",
    amp: str = "auto",
) -> np.ndarray:
    """The tokens that a classifier's head reads of each film, computed once, or what was computed before.

    They are kept in the folder of the cached films: a film of 224 px takes 75 kB a layer with a ViT-Tiny/16.

    Args:
        films: the films.
        network: the classifier, whose encoder doesn't change.
        size: height and width in px that the films are stretched to.
        device, amp: where and in which precision the encoder computes.

    Returns:
        float16 `[N, K, T, D]`, a read-only map of the file.
    """
    if films.cache is None:
        return np.empty((0, len(network.layers), 0, network.encoder.embed_dim), np.float16)
    device = torch.device(device)
    precision = supported_amp(device, amp)
    folder = films.cache.folder / f"tokens-{_key(network, size, precision)}"
    file = folder / "tokens.npy"
    with cache_lock(folder):
        if not file.exists():
            logger.info("%s: encoding %d films.", folder, len(films))
            _write(file, films, network, size, device, amp)
        return np.load(file, mmap_mode="r", allow_pickle=False)


def _key(network: RadiographClassifier, size: tuple[int, int], precision: str) -> str:
    """Hash of all that the tokens of a film depend on."""
    digest = hashlib.sha256(json.dumps([1, list(size), network.layers, precision]).encode())
    for name, value in sorted(network.encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:20]


def _write(
    file: Path,
    films: LabelledFilms,
    network: RadiographClassifier,
    size: tuple[int, int],
    device: torch.device,
    amp: str,
) -> None:
    part = file.with_suffix(".part")
    mode = network.training
    network.eval()
    store: np.ndarray | None = None
    starts = range(0, len(films), BATCH)
    for start in tqdm(starts, desc="encoding", disable=not is_main_process()):
        batch = range(start, min(start + BATCH, len(films)))
        images = torch.stack([whole_film(films.image(n), size) for n in batch])
        with torch.inference_mode(), autocast(device, amp):
            tokens = network.tokens(images.to(device)).float().cpu().numpy().astype(np.float16)
        if store is None:
            shape = (len(films), *tokens.shape[1:])
            store = np.lib.format.open_memmap(part, mode="w+", dtype=np.float16, shape=shape)
        store[start : start + len(tokens)] = tokens
    assert isinstance(store, np.memmap)
    store.flush()
    os.replace(part, file)
    network.train(mode)
