"""Speed of the world view pipeline beside the same work in Pillow: both draw alike, ratios are paired repeat by repeat.

:func:`measure_views` counts the processor time of the bare pipelines; :func:`measure_view_loading` the wall time of
whole data loaders, with worker processes, from decoded films or from their files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from monai.transforms import Compose
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from cxw_monai.data.cache import build_cache
from cxw_monai.io.read import read_radiograph
from cxw_monai.tasks.pretraining.dataset import ViewPairDataset
from cxw_monai.transforms import RandActiond, RandWorldViewPaird

from .figures import Measurement, seconds
from .made_films import synthetic_film
from .view_pipelines import PackageViews, PillowViews

__all__ = ["measure_view_loading", "measure_views"]


def _paired(name: str, work: int, repeats: int, times: Sequence[Callable[[], float]]) -> list[Measurement]:
    """Rates of the package and of Pillow, which take turns, and their ratios."""
    rates = [[work / one() for one in times] for _ in range(repeats)]
    package, pillow = (list(side) for side in zip(*rates, strict=True))
    ratios = [a / b for a, b in rates]
    return [
        Measurement(f"{name}, package", "pairs/s", package),
        Measurement(f"{name}, Pillow RGB", "pairs/s", pillow),
        Measurement(f"{name}, package over Pillow", "x", ratios),
    ]


def measure_views(
    repeats: int, source: int = 512, size: int = 224, films: int = 16, batches: int = 4
) -> list[Measurement]:
    """View pairs a second of one core from decoded films, against the Pillow pipeline on the same draws.

    Args:
        repeats: paired repeats; each times both sides, one after the other.
        source: side of a film, px.
        size: side of a view, px.
        films: films in memory, which is also the batch.
        batches: batches a repeat.
    """
    grey = [synthetic_film(source, number) for number in range(films)]
    colour = [Image.fromarray(film[0]).convert("RGB") for film in grey]
    ours, theirs = PackageViews(size), PillowViews(size)
    ours(grey), theirs(colour)
    sides = [
        partial(seconds, lambda: [ours(grey) for _ in range(batches)], time.process_time),
        partial(seconds, lambda: [theirs(colour) for _ in range(batches)], time.process_time),
    ]
    return _paired(f"views {source}->{size}", films * batches, repeats, sides)


class _FilmFiles:
    """In place of a cache: decodes a film whenever it is asked for, and stores nothing."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> np.ndarray:
        """uint8 ``[1, H, W]``, as a cache gives it."""
        return np.rint(read_radiograph(self.paths[index]).array * np.float32(255)).astype(np.uint8)


class _PillowPairs(Dataset):
    """Pillow's pairs of films in memory, or of their files: float32 ``[4, 3, h, w]``."""

    def __init__(self, films: Sequence[Image.Image | Path], size: int) -> None:
        self.films, self.views = films, PillowViews(size)

    def __len__(self) -> int:
        return len(self.films)

    def __getitem__(self, index: int) -> np.ndarray:
        film = self.films[index]
        if isinstance(film, Path):
            with Image.open(film) as opened:
                film = opened.convert("RGB")
        return self.views.views_of(film)


def measure_view_loading(
    repeats: int,
    source: int = 512,
    size: int = 224,
    workers: int = 1,
    decode: bool = False,
    films: int = 16,
    batch: int = 8,
    rounds: int = 4,
) -> list[Measurement]:
    """View pairs a second that arrive from a data loader, perturbed and normalised, by wall time.

    The package's pairs are perturbed in the main process, as pretraining does it, Pillow's in the workers.

    Args:
        repeats: paired repeats; each runs both loaders, one after the other, whose workers live on.
        source: side of a film, px.
        size: side of a view, px.
        workers: loader processes; 0 for none.
        decode: from 8-bit PNG files, decoded for every pair; else the package reads its cache, and Pillow decoded
            films in memory.
        films: different films.
        batch: pairs a batch.
        rounds: how often a repeat goes through the films.
    """
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.png" for number in range(films)]
        for number, path in enumerate(paths):
            Image.fromarray(synthetic_film(source, number)[0]).save(path)
        items = [{"image": str(path)} for path in paths]
        store = _FilmFiles(paths) if decode else build_cache(items, folder, size=source, progress=False)
        images = paths if decode else [Image.open(path).convert("RGB") for path in paths]
        transform = Compose([RandWorldViewPaird(size=size), RandActiond()])
        finish = PackageViews(size).finish
        settings = {"batch_size": batch, "num_workers": workers, "persistent_workers": workers > 0}
        keys = [(turn, index) for turn in range(rounds) for index in range(films)]
        ours = DataLoader(ViewPairDataset(store, transform), sampler=keys, **settings)
        theirs = DataLoader(_PillowPairs(images, size), sampler=[index for _, index in keys], **settings)
        loads = [lambda: [finish(pairs) for pairs in ours], lambda: [pairs.shape for pairs in theirs]]
        for load in loads:  # starts the workers
            load()
        origin = "files" if decode else "cache"
        name = f"views {source}->{size} from {origin}, {workers} worker{'s' * (workers != 1)}"
        return _paired(name, len(keys), repeats, [partial(seconds, load) for load in loads])
