"""Fits the model of frontal chests (:mod:`~cxw_monai.quality.film_model`): augmentation, network, training."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor, nn
from torch.nn import functional as F

from cxw_monai.quality.film_model import SIDE, FilmModel, thumbnail, way

from .other_films import SIDE as SIDE_OF_FILMS

__all__ = ["FALSE_ALARMS", "fit_network", "thresholds_of"]

MIRRORED = 4  # the index of that way
CHANNELS = (16, 32, 48, 64)
CHESTS, OTHERS = 32, 20  # films of a step
WAYS, OTHER_WAYS = 5, 4  # of the 16 that are computed in a step
RATE, DECAY = 2e-3, 1e-2  # of AdamW; the rate rises for a tenth of the steps
TILT = 6.5, 16  # standard deviation and limit of what still is upright, degrees
FILM = 64  # px of the films in a step
SAVED_EVERY, REPORTED_EVERY = 100, 50  # steps
FALSE_ALARMS = {"inverted": 0.002, "rotated": 0.002, "mirrored": 0.003, "unlike": 0.004}
"""Share of untouched films, of patients that the weights aren't fitted on, that each threshold lets through."""
SMALL_SOURCE = 300
"""Below so many films a quantile is that of a normal distribution too, where it is higher."""


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

    def take(self, model: FilmModel) -> None:
        """Take over a model's weights."""
        for conv, (weights, bias) in zip(self.convs, model.layers, strict=True):
            conv.load_state_dict({"weight": torch.from_numpy(weights), "bias": torch.from_numpy(bias)})
        last = torch.from_numpy(model.weights).reshape(1, -1)
        self.last.load_state_dict({"weight": last, "bias": torch.tensor([model.bias])})

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
    others: Mapping[str, np.ndarray],
    other_shares: Mapping[str, float],
    steps: int,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
    checkpoint: Path | None = None,
    start: FilmModel | None = None,
) -> FilmModel:
    """Fit the weights by a softmax over the 16 ways and "none of them".

    Args:
        chests: uint8 ``[N, 128, 128]`` by source: upright frontal chests without borders.
        shares: how much of each step's chests is of a source.
        others: uint8 ``[N, 128, 128]`` by kind: films that are no upright frontal chests in any of the 16 ways.
        other_shares: how much of each step's other films is of a kind.
        steps: of AdamW, each on 32 chests and 20 other films in 5 and 4 of the 16 ways.
        seed: of everything.
        progress: called with a line every 50 steps.
        checkpoint: a file that is written every 100 steps; if it is there, the fit continues from it.
        start: a model whose weights are fitted further; None starts with random ones.

    Returns:
        The model, without thresholds.
    """
    films = {name: _halved(stack) for name, stack in {**chests, **others}.items()}
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _Network()
        if start is not None:
            network.take(start)
        optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
        done, losses = 0, []
        if checkpoint is not None and checkpoint.exists():
            state = torch.load(checkpoint, weights_only=True)
            network.load_state_dict(state["network"])
            optimizer.load_state_dict(state["optimizer"])
            schedule.load_state_dict(state["schedule"])
            generator.set_state(state["generator"])
            torch.set_rng_state(state["dropout"])
            rng.bit_generator.state = json.loads(state["numpy"])
            done = state["step"]
        for step in range(done + 1, steps + 1):
            batch = np.concatenate([_drawn(films, shares, CHESTS, rng), _drawn(films, other_shares, OTHERS, rng)])
            images = torch.from_numpy(batch.astype(np.float32) / 255)[:, None]
            loss = _loss(network, _standard(_augmented(images, generator)), rng)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            if progress is not None and step % REPORTED_EVERY == 0:
                progress(f"step {step} of {steps}, loss {np.mean(losses[-REPORTED_EVERY:]):.3f}")
            if checkpoint is not None and step % SAVED_EVERY == 0:
                state = {
                    "network": network.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(),
                    "generator": generator.get_state(),
                    "dropout": torch.get_rng_state(),
                    "numpy": json.dumps(rng.bit_generator.state),
                    "step": step,
                }
                torch.save(state, checkpoint.with_suffix(".new"))
                checkpoint.with_suffix(".new").replace(checkpoint)
    return network.eval().film_model()


def _halved(films: np.ndarray) -> np.ndarray:
    """uint8 ``[N, 128, 128]`` averaged to ``[N, 64, 64]``."""
    step = SIDE_OF_FILMS // FILM
    cells = films.reshape(len(films), FILM, step, FILM, step)
    return np.rint(cells.mean((2, 4))).astype(np.uint8)


def _drawn(
    films: Mapping[str, np.ndarray], shares: Mapping[str, float], count: int, rng: np.random.Generator
) -> np.ndarray:
    """Films ``[count, 64, 64]`` of groups by their shares."""
    names = list(shares)
    chances = np.array([shares[name] for name in names]) / sum(shares.values())
    groups = [films[names[place]] for place in rng.choice(len(names), count, p=chances)]
    return np.stack([group[rng.integers(len(group))] for group in groups])


def _loss(network: nn.Module, films: Tensor, rng: np.random.Generator) -> Tensor:
    """Cross entropy over the 16 ways and none, the sums over ways estimated from a few of them.

    The mirrored way is always one of them: it is the hardest to tell.
    """
    rest = rng.permutation([way for way in range(1, 16) if way != MIRRORED])[: WAYS - 2]
    right = [_treated(films[:CHESTS], index) for index in (0, MIRRORED, *rest)]
    other = [_treated(films[CHESTS:], index) for index in rng.permutation(16)[:OTHER_WAYS]]
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(torch.cat(right + other)).float()
    chest = logits[: WAYS * CHESTS].view(WAYS, CHESTS).T  # [32, 5]
    none = logits[WAYS * CHESTS :].view(OTHER_WAYS, OTHERS).T
    ways = torch.cat([chest[:, :2], chest[:, 2:] + np.log(14 / (WAYS - 2)), torch.zeros(CHESTS, 1)], dim=1)
    losses = F.cross_entropy(ways, torch.zeros(CHESTS, dtype=torch.long), reduction="sum")
    return (losses + F.softplus(none.logsumexp(dim=1) + np.log(16 / OTHER_WAYS)).sum()) / len(films)


def _treated(films: Tensor, index: int) -> Tensor:
    invert, mirror, quarters = way(int(index))
    films = -films if invert else films
    return torch.rot90(films.flip(3) if mirror else films, quarters, (2, 3))


def _standard(films: Tensor) -> Tensor:
    return (films - films.mean((2, 3), keepdim=True)) / (films.std((2, 3), keepdim=True) + 1e-3)


def _augmented(films: Tensor, generator: torch.Generator) -> Tensor:
    """Films ``[B, 1, 64, 64]`` to ``[B, 1, 48, 48]``: tilted, cropped, stretched; other greys, bands, tags, noise."""
    count = len(films)

    def uniform(number: int, low: float, high: float) -> Tensor:
        return torch.empty(number).uniform_(low, high, generator=generator)

    def normal(deviation: float) -> Tensor:
        return torch.empty(count).normal_(0, deviation, generator=generator)

    def chosen(chance: float) -> list[int]:
        return torch.nonzero(uniform(count, 0, 1) < chance)[:, 0].tolist()

    angle = torch.deg2rad(normal(TILT[0]).clamp(-TILT[1], TILT[1]))
    scale = 1 - uniform(count, 0, 0.22) + uniform(count, 0, 0.05)
    stretch, right, down = uniform(count, 0.9, 1.1), uniform(count, -1, 1), uniform(count, -1, 1)
    c, s, room = scale * angle.cos(), scale * angle.sin(), (1 - scale).abs()
    rows = torch.stack([c * stretch, -s, right * room], 1), torch.stack([s, c / stretch, down * room], 1)
    grid = F.affine_grid(torch.stack(rows, 1), [count, 1, SIDE, SIDE], align_corners=False)
    padding = "border" if uniform(1, 0, 1) < 0.5 else "zeros"
    films = F.grid_sample(films, grid, padding_mode=padding, align_corners=False)
    films = films.clamp(0, 1) ** normal(0.35).exp()[:, None, None, None]
    low = uniform(count, -0.3, 0.15).clamp(0)[:, None, None, None]  # a display that saturates
    high = 1 - uniform(count, -0.3, 0.2).clamp(0)[:, None, None, None]
    films = ((films - low) / (high - low)).clamp(0, 1)
    for i in chosen(0.2):  # a band along one side
        side, width = (int(torch.randint(*ends, (1,), generator=generator)) for ends in ((0, 4), (1, 7)))
        level = float(uniform(1, 0, 1)) if uniform(1, 0, 1) < 0.4 else float(uniform(1, 0, 1) < 0.4)
        turned = torch.rot90(films[i], side, (1, 2))
        turned[:, :width] = level
        films[i] = torch.rot90(turned, -side, (1, 2))
    for i in chosen(0.3):  # a tag
        row, column = torch.randint(44, (2,), generator=generator).tolist()
        films[i, :, row : row + 3, column : column + 4] = float(uniform(1, 0, 1) < 0.8)
    return films + torch.randn(films.shape, generator=generator) * uniform(count, 0, 0.02)[:, None, None, None]


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
        limits = []
        for one in scores:
            values = np.array([getattr(score, name) for score in one])
            limits.append(float(np.quantile(values, 1 - share, method="lower")))  # one odd film sets no limit
            if name == "mirrored" and len(values) < SMALL_SOURCE:  # a score with one hump
                limits.append(float(values.mean() + norm.ppf(1 - share) * values.std()))
        found[name] = round(max(limits) if name == "unlike" else max(*limits, 0.0), 2)
    return found
