"""Fits the model of frontal chests (:mod:`~cxw_monai.quality.film_model`): augmentation, network, training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cxw_monai.quality.film_model import SIDE, FilmModel, thumbnail, way

__all__ = ["FALSE_ALARMS", "fit_network", "thresholds_of"]

CHANNELS = (16, 32, 48, 64)
CHESTS, OTHERS = 48, 28  # films of a step
WAYS = 6  # of the 16 that are computed in a step
RATE, DECAY = 4e-3, 1e-2
FALSE_ALARMS = {"inverted": 0.003, "rotated": 0.003, "mirrored": 0.005, "unlike": 0.005}
"""Share of untouched films, of patients that the weights aren't fitted on, that each threshold lets through."""


class _Network(nn.Module):
    """`[B, 1, 48, 48]` to log odds `[B]`."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [(1, CHANNELS[0], 5), *((a, b, 3) for a, b in zip(CHANNELS, CHANNELS[1:], strict=False))]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, k, stride=2, padding=k // 2) for a, b, k in sizes)
        self.cells = SIDE // 2 ** len(CHANNELS)
        self.last = nn.Linear(CHANNELS[-1] * self.cells**2, 1)
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(x).relu()
        return self.last(F.dropout(x.flatten(1), 0.2, self.training))[:, 0]

    def film_model(self) -> FilmModel:
        layers = [(conv.weight.detach().numpy(), conv.bias.detach().numpy()) for conv in self.convs]
        weights = self.last.weight.detach().numpy().reshape(-1, self.cells, self.cells)
        return FilmModel(layers, weights, self.last.bias.item(), {})


def save_model(model: FilmModel, path: str | PathLike[str]) -> None:
    """Write an npz of half-precision numbers, which `FilmModel.load` reads."""
    arrays: dict[str, Any] = {f"weights{i}": weights.astype(np.float16) for i, (weights, _) in enumerate(model.layers)}
    arrays |= {f"bias{i}": bias.astype(np.float16) for i, (_, bias) in enumerate(model.layers)}
    np.savez_compressed(
        path,
        **arrays,
        weights=model.weights.astype(np.float16),
        bias=np.float16(model.bias),
        names=np.array(list(model.thresholds)),
        limits=np.array(list(model.thresholds.values())),
    )


def fit_network(
    chests: Mapping[str, np.ndarray],
    shares: Mapping[str, float],
    others: Callable[[np.random.Generator, np.ndarray], np.ndarray],
    steps: int,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> FilmModel:
    """Fit the weights by a softmax over the 16 ways and "none of them".

    Args:
        chests: uint8 ``[N, 128, 128]`` by source: upright frontal chests without borders.
        shares: how much of each step is of a source.
        others: gives a film ``[128, 128]`` that is no frontal chest; its arguments are a generator and a chest film.
        steps: of AdamW, each on 48 chests and 28 other films in 6 of the 16 ways.
        seed: of everything.
        progress: called with a line every 50 steps.

    Returns:
        The model, without thresholds.
    """
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _Network()
        optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
        names = list(shares)
        chances = np.array([shares[name] for name in names]) / sum(shares.values())
        losses = []
        for step in range(1, steps + 1):
            sources = [chests[names[place]] for place in rng.choice(len(names), CHESTS, p=chances)]
            right = np.stack([films[rng.integers(len(films))] for films in sources]) / np.float32(255)
            wrong = np.stack([others(rng, right[rng.integers(CHESTS)]) for _ in range(OTHERS)])
            films = torch.from_numpy(np.concatenate([right, wrong]).astype(np.float32))[:, None]
            loss = _loss(network, _standard(_augmented(films, generator)), rng)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            if progress is not None and step % 50 == 0:
                progress(f"step {step} of {steps}, loss {np.mean(losses[-50:]):.3f}")
    return network.eval().film_model()


def _loss(network: nn.Module, films: Tensor, rng: np.random.Generator) -> Tensor:
    """Cross entropy over the 16 ways and none, the sums over ways estimated from a few of them."""
    count = len(films)
    wrong_ways = [0, *(1 + rng.permutation(15)[: WAYS - 1])]
    right = torch.stack([_treated(films[:CHESTS], index) for index in wrong_ways])  # [6, 48, 1, n, n]
    other = torch.stack([_treated(films[CHESTS:], index) for index in rng.permutation(16)[:WAYS]])
    logits = network(torch.cat([right.flatten(0, 1), other.flatten(0, 1)]))
    chest = logits[: WAYS * CHESTS].view(WAYS, CHESTS).T  # [48, 6]
    none = logits[WAYS * CHESTS :].view(WAYS, count - CHESTS).T
    ways = torch.cat([chest[:, :1], chest[:, 1:] + np.log(15 / (WAYS - 1)), torch.zeros(CHESTS, 1)], dim=1)
    wanted = torch.zeros(CHESTS, dtype=torch.long)
    losses = F.cross_entropy(ways, wanted, reduction="sum")
    return (losses + F.softplus(none.logsumexp(dim=1) + np.log(16 / WAYS)).sum()) / count


def _treated(films: Tensor, index: int) -> Tensor:
    invert, mirror, quarters = way(int(index))
    films = -films if invert else films
    return torch.rot90(films.flip(3) if mirror else films, quarters, (2, 3))


def _standard(films: Tensor) -> Tensor:
    small = F.interpolate(films, (SIDE, SIDE), mode="area")
    return (small - small.mean((2, 3), keepdim=True)) / (small.std((2, 3), keepdim=True) + 1e-3)


def _augmented(films: Tensor, generator: torch.Generator) -> Tensor:
    """Films ``[B, 1, 128, 128]`` turned a little, cropped, stretched, with other greys, bands, tags and noise."""
    count = len(films)

    def uniform(number: int, low: float, high: float) -> Tensor:
        return torch.empty(number).uniform_(low, high, generator=generator)

    def normal(deviation: float) -> Tensor:
        return torch.empty(count).normal_(0, deviation, generator=generator)

    angle, scale = normal(float(np.deg2rad(4))), 1 - uniform(count, 0, 0.22) + uniform(count, 0, 0.05)
    stretch, right, down = uniform(count, 0.9, 1.1), uniform(count, -1, 1), uniform(count, -1, 1)
    c, s, room = scale * angle.cos(), scale * angle.sin(), (1 - scale).abs()
    rows = torch.stack([c * stretch, -s, right * room], 1), torch.stack([s, c / stretch, down * room], 1)
    grid = F.affine_grid(torch.stack(rows, 1), films.shape, align_corners=False)
    films = F.grid_sample(films, grid, padding_mode="border", align_corners=False)
    films = films.clamp(0, 1) ** normal(0.35).exp()[:, None, None, None]
    for i in torch.nonzero(uniform(count, 0, 1) < 0.25)[:, 0]:  # a band along one side
        side, width = int(torch.randint(4, (1,), generator=generator)), int(uniform(1, 4, 18))
        level = float(uniform(1, 0, 1)) if uniform(1, 0, 1) < 0.4 else float(uniform(1, 0, 1) < 0.4)
        turned = torch.rot90(films[i], side, (1, 2))
        turned[:, :width] = level
        films[i] = torch.rot90(turned, -side, (1, 2))
    for i in torch.nonzero(uniform(count, 0, 1) < 0.25)[:, 0]:  # a display that saturates
        ends = torch.tensor([float(uniform(1, 0, 0.15)), 1 - float(uniform(1, 0, 0.15))])
        low, high = torch.quantile(films[i], ends)
        films[i] = ((films[i] - low) / (high - low + 1e-3)).clamp(0, 1)
    films = films + torch.randn(films.shape, generator=generator) * uniform(count, 0, 0.05)[:, None, None, None]
    for i in torch.nonzero(uniform(count, 0, 1) < 0.3)[:, 0]:  # a tag
        row, column = (int(value) for value in uniform(2, 0, 115))
        films[i, :, row : row + 6, column : column + 8] = float(uniform(1, 0, 1) < 0.8)
    return films


def thresholds_of(model: FilmModel, held_out: Sequence[np.ndarray]) -> dict[str, float]:
    """Thresholds that let :data:`FALSE_ALARMS` of untouched films through; at least 0 but for ``unlike``.

    Args:
        model: without thresholds.
        held_out: uint8 ``[N, 128, 128]`` by source, of patients that the weights weren't fitted on. Each source's own
            quantile is taken, and the largest of them.
    """
    scores = [[model.scores(thumbnail(film / np.float32(255))) for film in films] for films in held_out]
    found = {}
    for name, share in FALSE_ALARMS.items():
        limits = [np.quantile([getattr(score, name) for score in one], 1 - share) for one in scores]
        limit = float(max(limits))
        found[name] = round(limit if name == "unlike" else max(limit, 0.0), 2)
    return found
