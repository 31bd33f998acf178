"""Pictures of a classification run: what the network is shown, and its curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cxw_monai.training.curves import Panel, draw_panels, read_metrics

from .dataset import ClassificationDataset, EncodedDataset, LabelledFilms

__all__ = ["draw_curves", "draw_training_samples"]

EPOCHS = 4
PANELS: tuple[Panel, ...] = (
    ("loss", ("loss", "val_loss")),
    ("validation AUROC, mean", ("val_auroc",)),
    ("validation accuracy", ("val_accuracy",)),
    ("learning rate", ("lr",)),
    ("gradient norm", ("gradient_norm",)),
    ("films per second", ("images_per_second",)),
)


def _labels(films: LabelledFilms, index: int) -> str:
    """Names of a film's classes, those that are unknown with a question mark."""
    pairs: Sequence[tuple[str, float]] = list(zip(films.classes, films.items[index]["labels"], strict=True))
    names = [name if value == 1 else f"{name}?" for name, value in pairs if value != 0]
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "") or "none"


def draw_training_samples(dataset: ClassificationDataset | EncodedDataset, picture: str | Path, count: int = 4) -> None:
    """Draw what the network is shown in training: some films as they are, and as the first epochs show them.

    Films that were encoded before are drawn as they are alone.

    Args:
        dataset: training samples.
        picture: PNG to write.
        count: number of films.
    """
    films = dataset.films
    count, epochs = min(count, len(films)), EPOCHS if isinstance(dataset, ClassificationDataset) else 0
    figure = Figure(figsize=(2.6 * (epochs + 1), 2.7 * count), layout="constrained")
    for row, axes in enumerate(figure.subplots(count, epochs + 1, squeeze=False)):
        index = row * len(films) // count
        pixels = films.image(index)[0]
        shown = [pixels / np.iinfo(pixels.dtype).max]
        shown += [np.asarray(dataset[(epoch, index)]["image"])[0] for epoch in range(epochs)]
        titles = [f"film {index}: {_labels(films, index)}", *(f"epoch {epoch + 1}" for epoch in range(epochs))]
        for axis, image, title in zip(axes, shown, titles, strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=1)
            axis.set_title(title, fontsize=8)
            axis.axis("off")
    picture = Path(picture)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=90)


def draw_curves(metrics_csv: Path, picture: Path) -> None:
    """Draw a run's `metrics.csv` (one row an epoch) as a PNG."""
    rows = read_metrics(metrics_csv)
    single = sorted(name for name in rows[-1] if name.startswith("val_auroc_"))
    draw_panels(rows, [*PANELS[:2], ("validation AUROC of each class", single), *PANELS[2:]], picture)
