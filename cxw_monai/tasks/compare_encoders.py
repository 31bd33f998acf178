"""Encoders side by side on a user's films: probes of labels and tests of places, with paired intervals against ours."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from cxw_monai import __version__
from cxw_monai.data.manifest import load_items
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import write_rows
from cxw_monai.metrics.encoders import AnyEncoder, open_encoder
from cxw_monai.metrics.world.correspondence import correspondence_scores
from cxw_monai.metrics.world.encoding import localizability_scores, position_scores, spread_scores
from cxw_monai.metrics.world.films import WorldFilms, read_world_films
from cxw_monai.metrics.world.ridge import FOLDS
from cxw_monai.metrics.world.scores import QUANTILES, WorldScore, resampled_means
from cxw_monai.metrics.world.verdict import check_columns, choose_labels, label_aurocs
from cxw_monai.weights.bundles import find_bundle

from .pages import write_html

__all__ = ["COLUMNS", "compare_encoders", "table_lines"]

DRAWS = 1000
MEAN = "mean of the labels"
CONTROLS = {
    *("place in the crop alone", "16 x 16 pixels", "grey values around the patch", "the same place of the image"),
}
"""Conditions in which the encoder isn't asked; they differ by the grid of its tokens only."""
COLUMNS = (
    *("encoder", "test", "measure", "condition", "value", "low", "high", "difference", "difference_low"),
    *("difference_high", "chance", "better", "films"),
)
_TEMPLATE = Path(__file__).with_name("encoder_comparison.html.j2")
_ABOUT = ("encoder", "preprocessing", "vector", "dimensions", "grid")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Measured:
    """One number of an encoder: `draws` `[1 + DRAWS]`, the first over the films as they are; NaN for none."""

    test: str
    measure: str
    condition: str
    draws: np.ndarray
    chance: float | None
    higher: bool
    films: int

    @property
    def key(self) -> tuple[str, str, str]:
        return self.test, self.measure, self.condition


def compare_encoders(
    encoders: Sequence[str],
    films: str | PathLike[str],
    output: str | PathLike[str],
    ours: str = "ours:chexworld_pretraining",
    labels: Sequence[str] | None = None,
    count: int | None = 500,
    world_count: int = 100,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Measure encoders and write `comparison.csv`, `.md`, `.html` and `.json` of `output`.

    What an encoder gave is kept in `parts` there and not computed again for the same encoder, films, labels and seed
    (but for one of `python:`, whose code may have changed).

    Args:
        encoders: see `cxw_monai.metrics.encoders`.
        films: a folder or a manifest.
        output: folder to make or continue.
        ours: what the others are compared with, in the same form.
        labels: binary columns to probe; None for all there are.
        count: films of the probes, drawn at random; None for all.
        world_count: how many of these the other tests look at.
        seed: of the draw, the crops, the folds and the resamplings.

    Returns:
        The rows of the CSV. Differences are to `ours`, on the same films and the same resampled patients.

    Raises:
        ValueError: an encoder that can't be used, a label that is no column, or films of fewer than four patients.
    """
    source, names = Path(films), list(dict.fromkeys([ours, *encoders]))
    where = {"dataset_dir" if source.is_dir() else "datalist": source}
    items = load_items(**where, section="all")
    check_columns(labels or (), items, str(films))
    opened = [open_encoder(name) for name in names]  # a wrong one is refused before anything is measured
    found, about = {}, []
    for encoder in opened:
        shown = read_world_films(items, encoder.size, count, seed)
        if (patients := len(np.unique(shown.patients))) < FOLDS:
            raise ValueError(f"{films}: the tests need films of at least {FOLDS} patients, got {patients}; add films")
        logger.info("%s: %d films of %d patients", encoder.name, len(shown), patients)
        chosen, left_out = choose_labels(shown, labels)
        found[encoder.name] = _kept(encoder, shown, chosen, world_count, seed, Path(output) / "parts")
        about.append(_about(encoder))
    rows = [row for name in names for row in _rows(name, found[name], found[ours])]
    facts = {"films": len(shown), "patients": patients, "seed": seed, "labels_left_out": left_out}
    facts |= {"world_films": min(world_count, len(shown)), "unreadable": len(shown.unreadable)}
    _write(Path(output), rows, about, facts)
    return rows


def _about(encoder: AnyEncoder) -> dict[str, str]:
    """What was done to the films, in words."""
    one = encoder.grid == (1, 1)
    vector = "its output" if one else "its first token" if encoder.pool == "cls" else "mean of its patch tokens"
    grid = "none" if one else f"{encoder.grid[0]} x {encoder.grid[1]}"
    values = (encoder.name, encoder.preprocessing.stated(), vector, str(encoder.dimensions), grid)
    return dict(zip(_ABOUT, values, strict=True))


def _measure(
    encoder: AnyEncoder, films: WorldFilms, labels: Sequence[str], world_count: int, seed: int
) -> list[_Measured]:
    found = []
    if labels:
        vectors = encoder.vector(films.whole())
        draws = {name: label_aurocs(vectors, films, name, DRAWS, seed) for name in labels}
        if len(draws) > 1:
            draws[MEAN] = np.mean(list(draws.values()), axis=0)
        found = [_Measured("labels", "AUROC", name, one, 0.5, True, len(films)) for name, one in draws.items()]
    few = films.first(world_count)
    tests: list[Callable[..., list[WorldScore]]] = [localizability_scores, spread_scores]
    if encoder.grid != (1, 1):
        tests = [position_scores, *tests, correspondence_scores]
    for test in tests:
        for score in test(encoder, few, seed):
            known = int(np.isfinite(score.values).sum())
            means = resampled_means(score.values, few.patients, DRAWS, seed)
            found.append(
                _Measured(score.test, score.measure, score.condition, means, score.chance, score.higher, known)
            )
    return found


def _kept(
    encoder: AnyEncoder, films: WorldFilms, labels: Sequence[str], world_count: int, seed: int, folder: Path
) -> list[_Measured]:
    """What is there for the same encoder, films and settings, else computed."""
    if encoder.name.startswith("python:"):
        return _measure(encoder, films, labels, world_count, seed)
    plain = (encoder.name, _about(encoder), films.rows, films.shapes, films.spacing_mm, labels, world_count, seed)
    digest = hashlib.sha256(json.dumps([__version__, *plain], default=str).encode())
    digest.update(films.pixels.numpy().tobytes())
    for file in _files(encoder.name):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    part = folder / f"{digest.hexdigest()[:16]}.npz"
    if not part.is_file():
        found = _measure(encoder, films, labels, world_count, seed)
        texts = [json.dumps([*one.key, one.chance, one.higher, one.films]) for one in found]
        part.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(part) as stream:
            np.savez(stream, about=np.array(texts), draws=np.stack([one.draws for one in found]))
    with np.load(part, allow_pickle=False) as kept:
        lines = [json.loads(text) for text in kept["about"].tolist()]
        return [
            _Measured(test, measure, condition, draws, chance, higher, count)
            for (test, measure, condition, chance, higher, count), draws in zip(lines, kept["draws"], strict=True)
        ]


def _files(name: str) -> list[Path]:
    """The files of an encoder that is one, or a folder of them."""
    kind, _, what = name.split(",")[0].partition(":")
    path = find_bundle(what) if kind == "ours" else Path(what)
    return sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path] * path.is_file()


def _rows(name: str, found: Sequence[_Measured], ours: Sequence[_Measured]) -> list[dict[str, Any]]:
    """Rows of the table."""
    known, rows = {one.key: one for one in ours}, []
    for one in found:
        row: dict[str, Any] = {"encoder": name, "test": one.test, "measure": one.measure, "condition": one.condition}
        row |= dict(zip(("value", "low", "high"), _interval(one.draws), strict=True))
        other = known.get(one.key) if found is not ours and one.condition not in CONTROLS else None
        gap = (None, None, None) if other is None else _interval(one.draws - other.draws)
        row |= dict(zip(("difference", "difference_low", "difference_high"), gap, strict=True))
        rows.append(row | {"chance": one.chance, "better": "higher" if one.higher else "lower", "films": one.films})
    return rows


def _interval(draws: np.ndarray) -> tuple[float | None, float | None, float | None]:
    """Value and 95 % interval over resampled patients; none of the latter where all of them give the same."""
    if not np.isfinite(draws[0]):
        return None, None, None
    low, high = (float(end) for end in np.nanquantile(draws[1:], QUANTILES))
    return (float(draws[0]), low, high) if high - low > 1e-9 else (float(draws[0]), None, None)


def table_lines(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A line a measure, a column an encoder, its difference to the first one below its value; the head comes first."""
    names = list(dict.fromkeys(row["encoder"] for row in rows))
    found: dict[tuple[str, ...], dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["test"], row["measure"], row["condition"]), {})[row["encoder"]] = row
    lines = [["test", "measure", "condition", *names, "chance"]]
    for key, each in found.items():
        first = next(iter(each.values()))
        arrow = "" if first["better"] == "higher" else " (lower is better)"
        chance = "" if first["chance"] is None else f"{first['chance']:.3f}"
        lines.append([key[0], key[1] + arrow, key[2], *(_cell(each.get(name)) for name in names), chance])
    return lines


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None or row["value"] is None:
        return ""
    own = f"{row['value']:.3f}" + ("" if row["low"] is None else f" [{row['low']:.3f}, {row['high']:.3f}]")
    if row["difference"] is None:
        return own
    if row["difference_low"] is None:
        return f"{own}; {row['difference']:+.3f}"
    return f"{own}; {row['difference']:+.3f} [{row['difference_low']:+.3f}, {row['difference_high']:+.3f}]"


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(lines[0])
    return "".join("| " + " | ".join(line) + " |\n" for line in (lines[0], rule, *lines[1:]))


def _write(
    folder: Path, rows: Sequence[Mapping[str, Any]], about: Sequence[Mapping[str, str]], facts: Mapping[str, Any]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = table_lines(rows)
    with atomic_file(folder / "comparison.csv", "w", encoding="utf-8", newline="") as stream:
        write_rows(stream, COLUMNS, rows)
    with atomic_file(folder / "comparison.json", "w", encoding="utf-8") as stream:
        stream.write(json.dumps({**facts, "encoders": list(about), "scores": list(rows)}, indent=2) + "\n")
    with atomic_file(folder / "comparison.md", "w", encoding="utf-8") as stream:
        stream.write(_markdown([_ABOUT, *([one[name] for name in _ABOUT] for one in about)]) + "\n" + _markdown(lines))
    write_html(
        folder / "comparison.html", _TEMPLATE, about=about, columns=_ABOUT, facts=facts, head=lines[0], rows=lines[1:]
    )
    logger.info("Wrote %s.", folder / "comparison.html")
