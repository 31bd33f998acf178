"""All that is needed to look at what a network sees and expects, made once and kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cxw_monai.data.manifest import load_items
from cxw_monai.metrics.world.films import WorldFilms, crops, read_world_films
from cxw_monai.metrics.world.surprise import Usual, film_scores, prediction_errors, surprise_maps, usual_of
from cxw_monai.metrics.world.worlds import EncoderWorld
from cxw_monai.networks.pixel_decoder import PixelDecoder
from cxw_monai.transforms import perturb
from cxw_monai.weights.files import CheckpointError
from cxw_monai.weights.kinds import read_weights
from cxw_monai.weights.tensor_files import read_tensors, write_tensors

from .decoding import decoded, kept_decoder, psnr
from .settings import SeeingSettings
from .world import content_key, world_of

__all__ = ["Expectation", "Sight", "block_of", "open_sight", "square"]

FEWEST = 10  # patients: of fewer films nothing is usual
BLOCK = 3  # a hidden block has a third of the film's sides

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Expectation:
    """What a network expects, made visible. Images are `[1, H, W]` in [0, 1].

    Attributes:
        given: what it was shown.
        truth: what is there.
        decoded_truth: the same as its decoded targets: as much as can be seen of latents.
        decoded_prediction: what it predicted, decoded.
    """

    given: Tensor
    truth: Tensor
    decoded_truth: Tensor
    decoded_prediction: Tensor

    @property
    def psnr(self) -> tuple[float, float]:
        """PSNR in dB of decoded truth and decoded prediction."""
        both = torch.stack([self.decoded_truth, self.decoded_prediction])
        first, second = psnr(both, self.truth.expand_as(both)).tolist()
        return first, second


@dataclass(frozen=True)
class Sight:
    """A network with films, a decoder of its latents, and what is usual of those films.

    Attributes:
        world: the network.
        films: to look at, and to compare with.
        decoder: of its targets.
        about_decoder: see `kept_decoder`.
        usual: of the films' prediction errors; of their tokens where the network predicts no hidden ones.
        seed: of maskings.
        embeddings: mean tokens of the films, standardised and of length 1, `[N, D]`.
        scale: mean and standard deviation of the mean tokens.
    """

    world: EncoderWorld
    films: WorldFilms
    decoder: PixelDecoder
    about_decoder: Mapping[str, object]
    usual: Usual
    seed: int
    embeddings: Tensor
    scale: tuple[Tensor, Tensor]

    @property
    def most(self) -> float:
        """What is very surprising, the end of a colour scale."""
        return 4.0 if "local" in self.world.predicts else 1.5

    def surprise(self, images: Tensor) -> Tensor:
        """How surprising each place of images `[N, 1, H, W]` is, in standard deviations, `[N, rows, columns]`."""
        values = surprise_values(self.world, images, self.seed)
        return surprise_maps(values, self.usual).unflatten(1, self.world.grid)

    def surprise_scores(self, maps: Tensor) -> Tensor:
        """One number a film, of maps `[N, rows, columns]`."""
        return film_scores(maps.flatten(1))

    def embedded(self, images: Tensor) -> Tensor:
        """Standardised mean tokens of images, of length 1, `[N, D]`."""
        mean, spread = self.scale
        return F.normalize((self.world.tokens(images).mean(dim=1) - mean) / spread, dim=1)

    def nearest(self, images: Tensor, count: int = 5) -> tuple[Tensor, Tensor]:
        """Places of the nearest films of each image and their cosines, `[N, count]` each."""
        likeness = self.embedded(images) @ self.embeddings.T
        found = likeness.topk(min(count, likeness.shape[1]), dim=1)
        return found.indices, found.values

    def decoded(self, tokens: Tensor) -> Tensor:
        """Images `[N, 1, H, W]` of targets or predicted ones `[N, n, T]`."""
        return decoded(self.decoder, tokens)

    def hidden_block(self, image: Tensor, block: Tensor) -> Expectation:
        """What is expected in hidden tokens of an image.

        Args:
            image: `[1, H, W]`.
            block: int64 `[K]`, the hidden tokens.
        """
        count = self.world.grid[0] * self.world.grid[1]
        hidden = torch.zeros(count, dtype=torch.bool).index_fill_(0, block, True)
        seen = torch.arange(count)[~hidden]
        targets = self.world.targets(image[None])
        predicted = targets.clone()
        predicted[:, block] = self.world.predict(image[None], visible=seen[None], wanted=block[None])
        patches = hidden.view(1, 1, *self.world.grid).float()
        cover = F.interpolate(patches, self.world.size, mode="nearest")[0]
        both = self.decoded(torch.cat([targets, predicted]))
        return Expectation(image * (1 - cover) + 0.5 * cover, image, both[0], both[1])

    def other_crop(self, film: Tensor, given: np.ndarray, wanted: np.ndarray) -> Expectation:
        """What is expected of another crop of a film, where only the first is seen.

        Args:
            film: uint8 `[1, H, W]` as `WorldFilms` has it.
            given, wanted: `[4]` top, left, height, width as shares of the film, of the same size.
        """
        views = crops(film[None].expand(2, -1, -1, -1), np.stack([given, wanted]), self.world.size)
        rel = torch.tensor([[
            (wanted[0] - given[0]) / given[2], (wanted[1] - given[1]) / given[3], 0.0,
            (1 - wanted[1] - given[1]) / given[3],
        ]]).float()  # fmt: skip
        both = self.decoded(torch.cat([self.world.targets(views[1:]), self.world.predict(views[:1], rel=rel)]))
        return Expectation(views[0], views[1], both[0], both[1])

    def other_exposure(self, image: Tensor, action: Tensor) -> Expectation:
        """What is expected of a film as it was, where its perturbed copy is seen and the perturbation is told.

        Args:
            image: `[1, H, W]`.
            action: `[5]`, see `perturb`.
        """
        seen = perturb(image[None], action[None])
        both = self.decoded(torch.cat([self.world.targets(image[None]), self.world.predict(seen, action[None])]))
        return Expectation(seen[0], image, both[0], both[1])


def surprise_values(world: EncoderWorld, images: Tensor, seed: int) -> Tensor:
    """What surprise compares: errors of hidden tokens `[N, n]`; targets `[N, n, T]` where none are predicted."""
    return prediction_errors(world, images, seed) if "local" in world.predicts else world.targets(images)


def block_of(grid: tuple[int, int], row: float, column: float) -> Tensor:
    """Tokens int64 `[K]` of a block of a third of the sides, whose corner's place goes from 0 (first) to 1 (last)."""
    height, width = (max(1, side // BLOCK) for side in grid)
    top, left = round(row * (grid[0] - height)), round(column * (grid[1] - width))
    index = torch.arange(grid[0] * grid[1]).view(grid)
    return index[top : top + height, left : left + width].flatten()


def square(row: float, column: float, side: float) -> np.ndarray:
    """A crop `[4]` with these sides (as shares of the film); its corner's place is given from 0 (first) to 1 (last)."""
    return np.array([row * (1 - side), column * (1 - side), side, side])


def open_sight(settings: SeeingSettings) -> Sight:
    """Read network and films, and make or read the decoder and what is usual (`seeing/` of `output_dir`).

    Raises:
        ValueError: there are films of fewer than ten patients.
        CheckpointError: see `world_of`; or the folder holds what was made for another network or other films.
    """
    weights = read_weights(settings.ckpt)
    world = world_of(settings, weights)
    items = load_items(settings.dataset_dir, settings.datalist, section="all")
    films = read_world_films(items, world.size, settings.world_films, settings.seed, settings.reader())
    if (patients := len(np.unique(films.patients))) < FEWEST:
        raise ValueError(f"films of at least {FEWEST} patients are needed, got {patients}; add films")
    folder, key = Path(settings.output_dir) / "seeing", content_key(settings, weights, films)
    decoder, about = kept_decoder(folder / "decoder.safetensors", world, films, key, settings.seed)
    usual = _kept(folder / "usual.safetensors", key, lambda: usual_of(_values(world, films, settings.seed)))
    tokens = world.tokens(films.whole()).mean(dim=1)
    scale = tokens.mean(dim=0), tokens.std(dim=0) + 1e-6
    embeddings = F.normalize((tokens - scale[0]) / scale[1], dim=1)
    return Sight(world, films, decoder, about, usual, settings.seed, embeddings, scale)


def _values(world: EncoderWorld, films: WorldFilms, seed: int) -> Tensor:
    return surprise_values(world, films.whole(), seed)


def _kept(path: Path, key: str, make: Callable[[], Usual]) -> Usual:
    if path.is_file():
        tensors, about = read_tensors(path)
        if about.get("key") != key or {"mean", "spread", "scores"} - tensors.keys():
            raise CheckpointError(path, "of another network or other films", "give another --output_dir, or delete it")
        return Usual(**{name: tensors[name] for name in ("mean", "spread", "scores")})
    usual = make()
    write_tensors(path, {name: getattr(usual, name) for name in ("mean", "spread", "scores")}, {"key": key})
    return usual
