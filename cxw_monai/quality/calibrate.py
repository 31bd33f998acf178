"""Fits the model of frontal chests and measures every check on patients that the fit hasn't seen.

    python -m cxw_monai.quality.calibrate --films manifest.csv --output cxw_monai/quality/film_model.npz

The manifest lists frontal chest films (columns ``image`` and ``patient_id``). Half of the patients, chosen by a hash,
fit the weights, the components and, by cross-validation among them, the thresholds; the other half gives the table
that is printed. With ``--measure`` nothing is fitted and the table is made with the package's model.

The model in the package comes from 750 films of NIH ChestX-ray14 (Wang et al., CVPR 2017; NIH Clinical Center). It
holds derived statistics at 16x16 cells, no film.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch.nn import functional as F

from cxw_monai.data.manifest import read_datalist, split_by_patient
from cxw_monai.io import read_radiograph
from cxw_monai.transforms.borders import find_content_box

from .film_model import FilmModel, default_model, features, turned
from .trial import format_table, measure_checks

__all__ = ["contents", "fit_model", "halves"]

COPIES = 6
"""Jittered copies of each film that the weights are fitted on."""
PENALTY = 3e-3
"""Of the squared weights, on top of the mean negative log likelihood."""
COMPONENTS = 24
FALSE_ALARMS = {"inverted": 0.01, "rotated": 0.01, "mirrored": 0.02, "unlike": 0.01}
"""Share of untouched films, in cross-validation, that each threshold lets through. The side is hard to tell: more."""
_FOLDS = 10


def halves(items: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Items to fit with and items to measure with, no patient in both."""
    return split_by_patient(items, 0.5, seed=0)


def contents(items: Sequence[dict[str, Any]]) -> list[np.ndarray]:
    """The films without borders, ``[H, W]`` each."""
    films = []
    for item in items:
        film = read_radiograph(item["image"]).array[0]
        top, left, height, width = find_content_box(film)
        films.append(np.ascontiguousarray(film[top : top + height, left : left + width]))
    return films


def fit_model(films: Sequence[np.ndarray], patients: Sequence[str], seed: int = 0) -> FilmModel:
    """Fit weights, components and thresholds.

    Args:
        films: ``[H, W]`` each, upright frontal chests without borders.
        patients: whose each one is.
        seed: of the jitter.

    Returns:
        The model; its thresholds let through :data:`FALSE_ALARMS` of the films in a cross-validation over patients, and
        are at least 0 for log odds.
    """
    plain = np.stack([features(film) for film in films])  # [N, 2, 16, 16]
    jittered = _jitter(films, np.random.default_rng(seed))  # [COPIES, N, 2, 16, 16]
    fold = np.unique(patients, return_inverse=True)[1] % _FOLDS
    held_out = []
    for number in range(_FOLDS):
        model = _fit(plain[fold != number], jittered[:, fold != number])
        held_out += [model.scores(values) for values in plain[fold == number]]
    thresholds = {}
    for name, share in FALSE_ALARMS.items():
        limit = float(np.quantile([getattr(scores, name) for scores in held_out], 1 - share))
        thresholds[name] = round(limit if name == "unlike" else max(limit, 0.0), 4)
    model = _fit(plain, jittered)
    return FilmModel(model.weights, model.mean, model.components, thresholds)


def _fit(plain: np.ndarray, jittered: np.ndarray) -> FilmModel:
    """Weights of a conditional logit over the 16 ways, and principal components."""
    every = np.concatenate([plain[None], jittered]).reshape(-1, *plain.shape[1:])
    ways = torch.from_numpy(turned(every)).flatten(2)  # [16, N, 512]
    weights = torch.zeros(ways.shape[2], requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = PENALTY * weights.square().sum() - torch.log_softmax(ways @ weights, dim=0)[0].mean()
        value.backward()
        return value

    optimiser.step(loss)
    pca = PCA(COMPONENTS, svd_solver="full").fit(every.reshape(len(every), -1))
    return FilmModel(
        weights.detach().numpy().reshape(plain.shape[1:]),
        pca.mean_.reshape(plain.shape[1:]).astype(np.float32),
        pca.components_.reshape(-1, *plain.shape[1:]).astype(np.float32),
        {},
    )


def _jitter(films: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Features of copies turned a little (5 degrees), cropped (to 85 %), stretched (10 %) and brightened (gamma)."""
    copies = []
    for _ in range(COPIES):
        for film in films:
            small = F.interpolate(torch.from_numpy(film)[None, None], (256, 256), mode="area")
            angle, scale = rng.normal(0, np.deg2rad(5)), 1 - rng.uniform(0, 0.15)
            stretch, (right, down) = rng.uniform(0.9, 1.1), rng.uniform(-1, 1, 2) * (1 - scale)
            c, s = scale * np.cos(angle), scale * np.sin(angle)
            matrix = torch.tensor([[[c * stretch, -s, right], [s, c / stretch, down]]], dtype=torch.float32)
            grid = F.affine_grid(matrix, small.shape, align_corners=False)
            moved = F.grid_sample(small, grid, padding_mode="border", align_corners=False)
            copies.append(features(moved[0, 0].clamp(0, 1).pow(float(np.exp(rng.normal(0, 0.3)))).numpy()))
    return np.stack(copies).reshape(COPIES, len(films), *copies[0].shape)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=Path, required=True, help="manifest of frontal chests with image, patient_id")
    parser.add_argument("--output", type=Path, default=Path("film_model.npz"), help="where the model goes")
    parser.add_argument("--measure", action="store_true", help="fit nothing, measure the package's model")
    parser.add_argument("--others", type=Path, nargs="*", default=[], help="manifests of films that aren't such chests")
    parser.add_argument("--elsewhere", type=Path, nargs="*", default=[], help="manifests of chests of other sources")
    arguments = parser.parse_args(argv)
    try:
        fitting, measuring = halves(read_datalist(arguments.films))
        others = {path.parent.name: contents(read_datalist(path)) for path in arguments.others}
        elsewhere = {path.parent.name: contents(read_datalist(path)) for path in arguments.elsewhere}
        if arguments.measure:
            model = default_model()
        else:
            model = fit_model(contents(fitting), [str(item["patient_id"]) for item in fitting])
            model.save(arguments.output)
            model = FilmModel.load(arguments.output)
        print(f"{len(fitting)} films to fit, {len(measuring)} to measure; thresholds {model.thresholds}")
        print(format_table(measure_checks(contents(measuring), model, others, elsewhere)))
    except (OSError, KeyError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
