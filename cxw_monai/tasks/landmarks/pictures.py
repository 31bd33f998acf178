"""Pictures of a landmark run: what the network is shown, and its curves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxw_monai.io.results.point_overlay import PRED_COLOUR
from cxw_monai.training.curves import Panel, draw_panels, read_metrics

from .dataset import LandmarkDataset

__all__ = ["draw_curves", "draw_training_samples"]

EPOCHS = 4
PANELS: tuple[Panel, ...] = (
    ("loss", ("loss", "val_loss")),
    ("terms", ("loss_heat", "loss_distance", "val_loss_heat", "val_loss_distance")),
    ("validation error, mm", ("val_mean_radial_error_mm",)),
    ("validation error, px", ("val_mean_radial_error_px",)),
    ("validation, within 2 and 4 mm", ("val_success_2mm", "val_success_4mm")),
    ("learning rate", ("lr",)),
    ("gradient norm", ("gradient_norm",)),
    ("films per second", ("images_per_second",)),
)


def _draw(axes: Axes, image: np.ndarray, points: np.ndarray, known: np.ndarray, title: str) -> None:
    """A film `[h, w]` with its known points `[P, 2]`, row and column in continuous px."""
    axes.imshow(image, cmap="gray", vmin=0, vmax=1)
    colour = [one / 255 for one in PRED_COLOUR]
    for number in np.flatnonzero(known):
        row, column = points[number] - 0.5  # imshow's pixel centres are whole numbers
        axes.plot(column, row, "+", color=colour, markersize=6)
        axes.annotate(str(number + 1), (column, row), (2, 2), textcoords="offset points", color=colour, fontsize=6)
    axes.set_title(title, fontsize=8)
    axes.axis("off")


def draw_training_samples(dataset: LandmarkDataset, picture: str | Path, count: int = 4) -> None:
    """Draw what the network is shown in training: some films as they are, and as the first epochs show them.

    Args:
        dataset: training samples.
        picture: PNG to write.
        count: number of films.
    """
    count, films = min(count, len(dataset)), dataset.films
    figure = Figure(figsize=(2.6 * (EPOCHS + 1), 2.7 * count + 0.5), layout="constrained")
    for row, axes in enumerate(figure.subplots(count, EPOCHS + 1, squeeze=False)):
        index = row * len(dataset) // count
        pixels = films.image(index)[0]
        whole = pixels / np.iinfo(pixels.dtype).max
        _draw(axes[0], whole, films.label(index), films.known(index), f"film {index}")
        for epoch in range(EPOCHS):
            sample = {name: np.asarray(value) for name, value in dataset[(epoch, index)].items()}
            _draw(axes[epoch + 1], sample["image"][0], sample["points"], sample["known"], f"epoch {epoch + 1}")
    names = [f"{number} {name}" for number, name in enumerate(films.points, start=1)]
    lines = [", ".join(names[start : start + 6]) for start in range(0, len(names), 6)]
    figure.supxlabel("\n".join(lines), fontsize=7)
    picture = Path(picture)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=90)


def draw_curves(metrics_csv: Path, picture: Path) -> None:
    """Draw a run's `metrics.csv` (one row an epoch) as a PNG."""
    rows = read_metrics(metrics_csv)
    draw_panels(rows, [panel for panel in PANELS if any(name in row for row in rows for name in panel[1])], picture)
