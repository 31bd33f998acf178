"""Pictures of what a network sees and expects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from cxw_monai.metrics.world.correspondence import match_points

from .sight import Expectation, Sight, block_of, square

__all__ = [
    "correspondence_figure",
    "expectation_figures",
    "heat_map",
    "neighbour_figure",
    "principal_colours",
    "principal_figure",
    "surprise_figure",
]

SIDE = 1.9  # inches of a film
CROP = 0.55
PLACES = ((0.3, 0.3), (0.3, 0.7), (0.5, 0.5), (0.7, 0.3), (0.7, 0.7), (0.12, 0.5))  # points of a film: row, column
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00", "#cc79a7")
ACTIONS = ((0.7, 1.0, 1.0, 0.0, 0.0), (1.0, 0.6, 1.0, 0.0, 0.0), (1.0, 1.0, 1.8, 0.0, 0.0), (1.3, 1.2, 0.7, 0.0, 0.0))


def _grid(rows: int, columns: int, titles: Sequence[str] = ()) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(SIDE * columns, SIDE * rows + 0.25), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, title in zip(axes[0], titles, strict=False):
        axis.set_title(title, fontsize=9)
    return figure, axes


def _show(axis: object, image: Tensor | np.ndarray, note: str = "") -> None:
    pixels = np.asarray(image)
    axis.imshow(pixels[0] if pixels.ndim == 3 and pixels.shape[0] == 1 else pixels, cmap="gray", vmin=0, vmax=1)  # type: ignore[attr-defined]
    if note:
        axis.text(0.02, 0.02, note, transform=axis.transAxes, fontsize=7, color="white",  # type: ignore[attr-defined]
                  bbox={"facecolor": "black", "alpha": 0.6, "pad": 1.5, "linewidth": 0})  # fmt: skip


def _expected(rows: Sequence[Expectation], given: str, truth: str) -> Figure:
    figure, axes = _grid(len(rows), 4, (given, truth, "the same, decoded", "predicted, decoded"))
    for one, line in zip(rows, axes, strict=True):
        best, reached = one.psnr
        for axis, image, note in zip(
            line,
            (one.given, one.truth, one.decoded_truth, one.decoded_prediction),
            ("", "", f"{best:.1f} dB", f"{reached:.1f} dB"),
            strict=True,
        ):
            _show(axis, image, note)
    return figure


def expectation_figures(sight: Sight, count: int = 4) -> dict[str, Figure]:
    """Hidden blocks, neighbouring crops and other exposures of the first films, of what the network predicts."""
    films, found = sight.films.first(count), {}
    whole, rng = films.whole(), np.random.default_rng(sight.seed)
    if "local" in sight.world.predicts:
        blocks = [sight.hidden_block(image, block_of(sight.world.grid, *rng.uniform(size=2))) for image in whole]
        found["local"] = _expected(blocks, "seen", "film")
    if "global" in sight.world.predicts:
        places = rng.uniform(size=(len(films), 2))
        steps = np.array([(0.5, 0.0), (0.0, 0.5), (-0.5, 0.0), (0.0, -0.5)])
        pairs = []
        for n, (film, place) in enumerate(zip(films.pixels, places, strict=True)):
            step = steps[n % len(steps)]
            other = place + np.where((place + step < 0) | (place + step > 1), -step, step)
            pairs.append(sight.other_crop(film, square(place[0], place[1], CROP), square(other[0], other[1], CROP)))
        found["global"] = _expected(pairs, "crop that is seen", "other crop")
    if "domain" in sight.world.predicts:
        actions = torch.tensor(ACTIONS)
        exposures = [sight.other_exposure(image, actions[n % len(actions)]) for n, image in enumerate(whole)]
        found["domain"] = _expected(exposures, "seen: another exposure", "film as it was")
    return found


def principal_colours(tokens: Tensor, grid: tuple[int, int], known: Tensor | None = None) -> np.ndarray:
    """The first three principal components of tokens as red, green and blue.

    Args:
        tokens: `[N, n, D]`.
        grid: rows and columns.
        known: `[M, n, D]`, to take components and range from; None for `tokens` themselves.

    Returns:
        `[N, rows, columns, 3]` in [0, 1].
    """
    basis = (tokens if known is None else known).flatten(0, 1).double()
    mean = basis.mean(dim=0)
    _, _, axes = torch.linalg.svd((basis - mean).T @ (basis - mean))
    axes = axes[:3] * torch.where(axes[:3].sum(dim=1, keepdim=True) < 0, -1.0, 1.0)  # a sign that is always the same
    low, high = torch.quantile((basis - mean) @ axes.T, torch.tensor([0.02, 0.98], dtype=torch.double), dim=0)
    values = (tokens.double() - mean) @ axes.T
    return ((values - low) / (high - low).clamp_min(1e-9)).clamp(0, 1).unflatten(1, grid).float().numpy()


def principal_figure(sight: Sight, count: int = 6) -> Figure:
    """Films, and the first three principal components of their tokens as colours."""
    whole = sight.films.first(count).whole()
    known = sight.world.tokens(sight.films.first(64).whole())
    figure, axes = _grid(2, len(whole))
    for place, (image, colours) in enumerate(
        zip(whole, principal_colours(known[: len(whole)], sight.world.grid, known), strict=True)
    ):
        _show(axes[0, place], image, f"film {place + 1}")
        axes[1, place].imshow(colours, interpolation="bilinear")
    return figure


def correspondence_figure(sight: Sight, count: int = 3) -> Figure:
    """Points of the first film, their nearest places in others, and how near each place is to the first point."""
    whole, grid = sight.films.first(count + 1).whole(), sight.world.grid
    tokens, points = sight.world.tokens(whole), torch.tensor(PLACES)[None]
    height, width = sight.world.size
    figure, axes = _grid(2, len(whole), ("points", *["nearest places"] * (len(whole) - 1)))
    here = int(PLACES[0][0] * grid[0]) * grid[1] + int(PLACES[0][1] * grid[1])
    for place, image in enumerate(whole):
        found = points if place == 0 else match_points(tokens[:1], points, tokens[place : place + 1], grid)
        _show(axes[0, place], image)
        for (row, column), colour in zip(found[0].tolist(), COLOURS, strict=True):
            axes[0, place].plot(column * width, row * height, "o", color=colour, markersize=6, markeredgecolor="black")
        likeness = F.cosine_similarity(tokens[0, here], tokens[place], dim=1).view(1, 1, *grid)
        _show(axes[1, place], image)
        large = F.interpolate(likeness, sight.world.size, mode="bilinear")[0, 0]
        axes[1, place].imshow(large.numpy(), cmap="magma", alpha=0.55, vmin=0, vmax=1)
    return figure


def neighbour_figure(sight: Sight, count: int = 4, nearest: int = 5) -> Figure:
    """Films, and the nearest films of other patients by their mean tokens."""
    films = sight.films
    whole = films.first(count).whole()
    likeness = sight.embeddings[: len(whole)] @ sight.embeddings.T
    same = torch.from_numpy(films.patients[: len(whole), None] == films.patients[None])
    nearest = min(nearest, int((~same).sum(dim=1).min()))
    found = likeness.masked_fill(same, -2).topk(nearest, dim=1)
    figure, axes = _grid(len(whole), nearest + 1, ("film", *(f"nearest {n + 1}" for n in range(nearest))))
    for row, image in enumerate(whole):
        _show(axes[row, 0], image, f"film {row + 1}")
        for column, (place, value) in enumerate(
            zip(found.indices[row].tolist(), found.values[row].tolist(), strict=True), start=1
        ):
            _show(axes[row, column], films.whole([place])[0], f"film {place + 1}: {value:.2f}")
    return figure


def heat_map(maps: Tensor, size: tuple[int, int], most: float) -> Tensor:
    """Maps `[N, rows, columns]` at the images' size, from 0 (usual) to 1 (`most` or more), `[N, H, W]`."""
    large = F.interpolate(maps[:, None], size, mode="bilinear")[:, 0]
    return (large / most).clamp(0, 1)


def surprise_figure(sight: Sight, places: Sequence[int]) -> Figure:
    """Films by their place, and below each its surprise."""
    whole = sight.films.whole(list(places))
    maps = sight.surprise(whole)
    scores = sight.surprise_scores(maps).tolist()
    figure, axes = _grid(2, len(places))
    for column, (place, image, heat) in enumerate(
        zip(places, whole, heat_map(maps, sight.world.size, sight.most), strict=True)
    ):
        _show(axes[0, column], image, f"film {place + 1}: {scores[column]:+.2f}")
        _show(axes[1, column], image)
        axes[1, column].imshow(heat.numpy(), cmap="inferno", alpha=0.6, vmin=0, vmax=1)
    return figure
