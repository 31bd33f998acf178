"""A pixel decoder on frozen latents, fitted in closed form, so that what a world model predicts can be looked at."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cxw_monai.metrics.world.films import WorldFilms, crops, random_boxes
from cxw_monai.metrics.world.ridge import folds_of
from cxw_monai.metrics.world.worlds import EncoderWorld
from cxw_monai.networks.pixel_decoder import PixelDecoder
from cxw_monai.transforms import ActionSampler, perturb
from cxw_monai.weights.files import CheckpointError, load_state
from cxw_monai.weights.tensor_files import read_tensors, write_tensors

__all__ = ["decoded", "decoder_scores", "fitted_decoder", "kept_decoder", "psnr"]

VIEWS, MOST_TOKENS = 8, 100_000  # crops of a film, and tokens of all of them
PENALTY = 1e-3  # of the ridge regression, as a share of a channel's mean variance
SIDES = (0.5, 1.0)  # of a crop, as a share of the film's sides
FOLDS = 5  # one is held out
_MADE = "give another --output_dir, or delete it, and it is made again"

logger = logging.getLogger(__name__)


def psnr(images: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of images `[N, 1, H, W]` in [0, 1], one by one, `[N]`."""
    error = (images - truth).square().mean(dim=(1, 2, 3)).clamp_min(1e-10)
    return -10 * error.log10()


def decoded(decoder: PixelDecoder, tokens: Tensor) -> Tensor:
    """Images `[N, 1, H, W]` in [0, 1] of tokens `[N, n, T]`."""
    with torch.no_grad():
        return decoder(tokens).clamp(0, 1)


def fitted_decoder(world: EncoderWorld, films: WorldFilms, seed: int = 0) -> PixelDecoder:
    """The decoder with the least squared error (ridge regression) on random crops of the films, half of them perturbed.

    Args:
        world: the network, which is not changed.
        films: to learn from.
        seed: of crops and perturbations.
    """
    tokens, images = _views(world, films, seed)
    patch = world.size[0] // world.grid[0]
    wanted = F.unfold(images, patch, stride=patch).transpose(1, 2).flatten(0, 1).double()  # [M * n, p * p]
    known = tokens.flatten(0, 1).double()
    centre, level = known.mean(dim=0), wanted.mean(dim=0)
    gram = (known - centre).T @ (known - centre) / len(known)
    penalty = PENALTY * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    weight = torch.linalg.solve(gram + penalty, (known - centre).T @ (wanted - level) / len(known))  # [T, p * p]
    decoder = PixelDecoder(tokens.shape[2], patch, world.grid)
    decoder.head.weight.data = weight.T.float().contiguous()
    decoder.head.bias.data = (level - centre @ weight).float()
    return decoder.eval()


def _views(world: EncoderWorld, films: WorldFilms, seed: int) -> tuple[Tensor, Tensor]:
    """Targets `[M, n, T]` of crops of the films, and the crops `[M, 1, H, W]`."""
    rng, random, sampler = np.random.default_rng(seed), np.random.RandomState(seed), ActionSampler(jitter_prob=0.5)
    rounds = max(1, min(VIEWS, MOST_TOKENS // (len(films) * world.grid[0] * world.grid[1])))
    images = []
    for _ in range(rounds):
        action = torch.from_numpy(np.stack([sampler(random) for _ in range(len(films))]))
        images.append(perturb(crops(films.pixels, random_boxes(len(films), rng, SIDES), world.size), action))
    return torch.cat([world.targets(part) for part in images]), torch.cat(images)


def decoder_scores(decoder: PixelDecoder, world: EncoderWorld, held: Tensor, known: Tensor) -> dict[str, float]:
    """PSNR in dB on films `held` `[N, 1, H, W]`, of the decoder, of the mean film of `known`, of each patch's mean."""
    patch = decoder.patch_size
    means = F.interpolate(F.avg_pool2d(held, patch), scale_factor=patch, mode="nearest")
    guesses = {
        "decoded": decoded(decoder, world.targets(held)),
        "mean film": known.mean(dim=0, keepdim=True).expand_as(held),
        "mean of each patch": means,
    }
    return {name: round(float(psnr(guess, held).mean()), 2) for name, guess in guesses.items()}


def kept_decoder(
    path: Path, world: EncoderWorld, films: WorldFilms, key: str, seed: int = 0
) -> tuple[PixelDecoder, Mapping[str, Any]]:
    """The decoder in a file, or a new one that is written there; a fifth of the patients is held out for its scores.

    Args:
        path: a safetensors file.
        world, films, seed: see `fitted_decoder`.
        key: of network and films; the file must have been made for the same.

    Returns:
        The decoder, and about it: `psnr` in dB on held-out films, `films`, `held_out`.

    Raises:
        CheckpointError: the file is damaged, or of another network, other films or settings.
    """
    made = {"key": key, "seed": seed}
    if path.is_file():
        state, about = read_tensors(path)
        if {name: about.get(name) for name in made} != made:
            raise CheckpointError(path, "a decoder of another network, other films or settings", _MADE)
        decoder = PixelDecoder(about["channels"], about["patch_size"], tuple(about["grid"]))
        load_state(decoder, state, path, _MADE)
        return decoder.eval(), about
    held = next(folds_of(films.patients, FOLDS))
    known = np.flatnonzero(~held)
    decoder = fitted_decoder(world, _chosen(films, known), seed)
    scores = decoder_scores(decoder, world, films.whole(np.flatnonzero(held).tolist()), films.whole(known.tolist()))
    about = {
        **made,
        **{name: getattr(decoder, name) for name in ("channels", "patch_size", "grid")},
        "films": len(known),
        "held_out": int(held.sum()),
        "psnr": scores,
    }
    write_tensors(path, decoder.state_dict(), about)
    logger.info("Decoder: %s dB.", json.dumps(scores))
    return decoder, json.loads(json.dumps(about))


def _chosen(films: WorldFilms, places: np.ndarray) -> WorldFilms:
    listed = {name: [getattr(films, name)[place] for place in places] for name in ("rows", "shapes", "spacing_mm")}
    return replace(films, patients=films.patients[places], pixels=films.pixels[places], **listed)
