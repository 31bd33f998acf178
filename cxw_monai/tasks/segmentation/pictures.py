"""Pictures of a segmentation run: what the network is shown, and its curves."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cxw_monai.training.curves import Panel, draw_panels, read_metrics

from .dataset import SegmentationDataset

__all__ = ["draw_curves", "draw_training_samples"]

EPOCHS = 4
PANELS: tuple[Panel, ...] = (
    ("loss", ("loss", "val_loss")),
    ("terms", ("loss_dice", "loss_bce", "val_loss_dice", "val_loss_bce")),
    ("validation Dice", ("val_dice",)),
    ("learning rate", ("lr",)),
    ("gradient norm", ("gradient_norm",)),
    ("films per second", ("images_per_second",)),
)


def colours(count: int) -> list[tuple[float, float, float]]:
    """As many colours as structures."""
    table = colormaps["tab10" if count <= 10 else "gist_rainbow"]
    return [table(i if count <= 10 else i / count)[:3] for i in range(count)]


def outline(axes: Axes, image: np.ndarray, masks: np.ndarray, known: Iterable[bool]) -> None:
    """A film `[H, W]` with the outlines of its known masks `[S, H, W]`."""
    axes.imshow(image, cmap="gray", vmin=0, vmax=1)
    for mask, colour, shown in zip(masks, colours(len(masks)), known, strict=True):
        if shown and mask.any() and not mask.all():
            axes.contour(mask, [0.5], colors=[colour], linewidths=0.8)
    axes.axis("off")


def draw_training_samples(dataset: SegmentationDataset, picture: str | Path, count: int = 4) -> None:
    """Draw what the network is shown in training: some films as they are, and as the first epochs show them.

    Args:
        dataset: training samples.
        picture: PNG to write.
        count: number of films.
    """
    count, films = min(count, len(dataset)), dataset.films
    figure = Figure(figsize=(2.6 * (EPOCHS + 1), 2.7 * count + 0.4), layout="constrained")
    for row, axes in enumerate(figure.subplots(count, EPOCHS + 1, squeeze=False)):
        index = row * len(dataset) // count
        pixels, known = films.image(index)[0], films.known(index)
        outline(axes[0], pixels / np.iinfo(pixels.dtype).max, films.label(index), known)
        axes[0].set_title(f"film {index}", fontsize=8)
        for epoch in range(EPOCHS):
            sample = dataset[(epoch, index)]
            image, label, seen = (np.asarray(sample[name]) for name in ("image", "label", "known"))
            outline(axes[epoch + 1], image[0], label, seen)
            axes[epoch + 1].set_title(f"epoch {epoch + 1}", fontsize=8)
    lines = [Line2D([], [], color=colour) for colour in colours(len(films.structures))]
    figure.legend(lines, films.structures, loc="outside lower center", ncols=min(len(lines), 6), fontsize=8)
    picture = Path(picture)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=90)


def draw_curves(metrics_csv: Path, picture: Path) -> None:
    """Draw a run's `metrics.csv` (one row an epoch) as a PNG."""
    rows = read_metrics(metrics_csv)
    single = sorted(name for name in rows[-1] if name.startswith("val_dice_"))
    draw_panels(rows, [*PANELS[:3], ("validation Dice of each structure", single), *PANELS[3:]], picture)
