"""Pictures of a pretraining run: its world view pairs and its curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from cxw_monai.training.curves import Panel, draw_panels, read_metrics
from cxw_monai.transforms import TokenMaskSampler, perturb
from cxw_monai.transforms.device_crops import collate_films, with_views

from .dataset import ViewPairDataset

__all__ = ["draw_curves", "draw_world_views", "spread"]

VIEW_COLOURS = ("tab:orange", "tab:cyan")
PANELS: tuple[Panel, ...] = (
    ("losses", ("loss", "val_loss", "loss_intra", "loss_cross", "loss_local", "loss_global", "loss_domain")),
    ("held-out cross loss and baselines", ("val_loss_cross", "val_mean_token_cross", "val_mean_position_cross",
                                           "val_geometry_withheld_cross", "val_action_withheld_cross")),
    ("standard deviation per dimension", ("target_std", "prediction_std", "val_pooled_std")),
    ("mean pairwise cosine", ("target_cosine", "prediction_cosine", "val_pooled_cosine")),
    ("effective rank", ("target_rank", "prediction_rank", "val_pooled_rank")),
    ("learning rate", ("lr",)),
    ("EMA momentum", ("ema",)),
    ("gradient norm", ("gradient_norm",)),
)  # fmt: skip


def draw_curves(metrics_csv: Path, picture: Path) -> None:
    """Draw a run's `metrics.csv` (one row an epoch) as a PNG."""
    draw_panels(read_metrics(metrics_csv), PANELS, picture, width=14, dpi=100)


def token_map(tokens: Tensor, grid: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """Token indices `[K]` as a mask `[H, W]` of 0 and 1."""
    flat = torch.zeros(grid[0] * grid[1])
    flat[tokens] = 1
    scale = (size[0] // grid[0], size[1] // grid[1])
    return np.kron(flat.view(*grid).numpy(), np.ones(scale))


def describe_action(action: Sequence[float]) -> str:
    """An action in words."""
    brightness, contrast, gamma, blur, noise = (float(v) for v in action)
    text = f"brightness {brightness:.2f}, contrast {contrast:.2f}, gamma {gamma:.2f}"
    return text + (f", blur {blur:.1f} px" if blur else "") + (f", noise {noise:.2f}" if noise else "")


def spread(length: int, count: int, seed: int = 0) -> list[int]:
    """Indices spread over a set: one drawn from each of ``count`` equal parts, in order, each another.

    Args:
        length: size of the set.
        count: how many, at most ``length``.
        seed: of the draw within each part.
    """
    edges = [length * part // count for part in range(count + 1)]
    rng = np.random.default_rng(seed)
    return [int(rng.integers(first, last)) for first, last in zip(edges, edges[1:], strict=False)]


def _with_views(sample: dict[str, Any]) -> dict[str, Any]:
    """A sample whose views have been cut, where that was left to the device."""
    if "film" not in sample:
        return sample
    views = with_views(collate_films([sample]), torch.device("cpu"))
    return {**sample, "view1": views["view1"][0], "view2": views["view2"][0]}


def draw_world_views(
    dataset: ViewPairDataset, masks: TokenMaskSampler, picture: str | Path, count: int = 4, epoch: int = 0
) -> None:
    """Draw what the model is shown of some radiographs.

    A row a radiograph: the whole film with both crops, then for each view the clean crop (what the target encoder
    sees), the perturbed copy with the context's tokens (what the context encoder sees), and the tokens to predict.
    The films are spread over the whole set (:func:`spread`, by the data set's seed), so that each of several sources
    that are listed one after the other has its chance to be seen.

    Args:
        dataset: view pairs.
        masks: mask sampler of the run's settings; give one of its own, since drawing advances it.
        picture: PNG to write.
        count: number of radiographs.
        epoch: epoch whose views are drawn.
    """
    count = min(count, len(dataset))
    drawn = masks.sample(max(count, 2))
    figure = Figure(figsize=(17.5, 2.9 * count), layout="constrained")
    grid_of_axes = figure.subplots(count, 7, squeeze=False)
    films = spread(len(dataset), count, dataset.seed)
    for row, (place, axes) in enumerate(zip(films, grid_of_axes, strict=True)):
        sample = _with_views(dataset[(epoch, place)])
        film = dataset.cache.image(place)[0]
        axes[0].imshow(film, cmap="gray", vmin=0, vmax=np.iinfo(film.dtype).max)
        axes[0].set_title("radiograph and its two crops", fontsize=9)
        for view, colour in zip((1, 2), VIEW_COLOURS, strict=True):
            top, left, height, width, flipped = (int(v) for v in sample[f"box{view}"])
            left = film.shape[1] - left - width if flipped else left
            axes[0].add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=colour, linewidth=2))
            clean, action = sample[f"view{view}"], sample[f"action{view}"]
            noise = torch.randn(clean[None].shape, generator=torch.Generator().manual_seed(row))
            copy = perturb(clean[None], action[None], noise)[0, 0].numpy()
            index = row if view == 1 else int(drawn.permutation[row])
            size = (clean.shape[-2], clean.shape[-1])
            context = token_map(drawn.context[index], masks.grid, size)
            target = token_map(drawn.target[index], masks.grid, size)
            panels = (
                (f"view {view}, clean (target)", clean[0].numpy()),
                (describe_action(action), copy * (0.15 + 0.85 * context)),
                ("tokens to predict", clean[0].numpy() * (0.15 + 0.85 * target)),
            )
            for axis, (title, image) in zip(axes[3 * view - 2 : 3 * view + 1], panels, strict=True):
                axis.imshow(image, cmap="gray", vmin=0, vmax=1)
                axis.set_title(title, fontsize=7 if "brightness" in title else 9, color=colour)
        for axis in axes:
            axis.set_axis_off()
    Path(picture).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=80)
