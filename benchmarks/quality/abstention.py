"""How often inference says that a film's masks may be wrong: on chests, on chests put in wrongly, on other pictures.

    python -m benchmarks.quality.abstention --model model.pt --output abstention.csv --made-up 150 \
        --source wingspan=wingspan/manifest.csv:validation --source shenzhen=shenzhen/manifest.csv --turned 40

Each film goes through inference as a user's would, and three things can speak against its masks: the picture
(`cxw_monai.quality.film_model`), the masks' shapes (`cxw_monai.quality.plausibility`), and the network's own
probabilities (`cxw_monai.quality.expected_dice`). A row a film is written at once; a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

import cxw_monai
from benchmarks.command import ended
from cxw_monai.cli import name_and_value
from cxw_monai.data.manifest import read_datalist
from cxw_monai.inference.api import SegmentationModel
from cxw_monai.inference.film_model import read_film
from cxw_monai.io import read_radiograph
from cxw_monai.quality.expected_dice import doubted
from cxw_monai.quality.plausibility import plausibility
from cxw_monai.rendering.anatomy import build_anatomy
from cxw_monai.rendering.source import read_labelled_ct, wheel_source

from .other_films import KINDS_RENDERED, drawn, rendered
from .trial import DEFECTS

__all__ = ["SIGNS", "format_table", "signs_of_film"]

SIGNS = ("by_film", "by_masks", "by_doubt")
TURNED = ("inverted", "turned 90", "turned 180", "turned 270", "upside down (flipped)", "mirrored")
Case = tuple[str, str, Callable[[], np.ndarray]]
"""Row of the table, name of the film, and what gives the film `[H, W]`."""


def signs_of_film(model: SegmentationModel, film: np.ndarray) -> dict[str, bool]:
    """Which of `SIGNS` speak against a segmenter's masks.

    Args:
        model: the segmenter.
        film: `[H, W]` in [0, 1], bone bright.
    """
    masks, doubts, expected = model.predictor.segment(read_film(np.ascontiguousarray(film)))
    shapes = plausibility(dict(zip(model.structures, masks, strict=True)))
    own = doubted(dict(zip(model.structures, expected.tolist(), strict=True)))
    signs = bool(set(doubts) - set(shapes) - set(own)), bool(shapes), bool(own)
    return dict(zip(SIGNS, signs, strict=True))


def format_table(rows: Sequence[dict[str, str]]) -> str:
    """A Markdown table of the share of films with each sign, and with any."""
    lines = [
        "| films | n | by the film | by the masks | by its doubt | by any |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for kind in dict.fromkeys(row["films"] for row in rows):
        own = np.array([[row[sign] == "True" for sign in SIGNS] for row in rows if row["films"] == kind])
        shares = [*own.mean(axis=0), own.any(axis=1).mean()]
        lines.append(f"| {kind} | {len(own)} | {' | '.join(f'{100 * share:.1f} %' for share in shares)} |")
    return "\n".join(lines)


def _chests(name: str, place: str, turned: int, most: int) -> Iterator[Case]:
    manifest, _, split = place.partition(":")
    items = [item for item in read_datalist(manifest, section="all") if not split or item.get("split") == split]
    chosen = items[:: -(-len(items) // most)]
    every = -(-len(chosen) // turned) if turned else 0
    for number, item in enumerate(chosen):

        def film(path: str = item["image"]) -> np.ndarray:
            return read_radiograph(path, min_size=1).array[0]

        yield name, Path(item["image"]).name, film
        for how in TURNED if every and number % every == 0 else ():
            yield how, f"{name} {Path(item['image']).name}", lambda film=film, how=how: DEFECTS[how][1](film())  # type: ignore[misc]


def _made_up(count: int) -> Iterator[Case]:
    density = build_anatomy(read_labelled_ct(wheel_source()), voxel_mm=3.0).density
    for seed in range(count):
        kind = KINDS_RENDERED[seed % len(KINDS_RENDERED)]
        yield "drawn limbs, skulls, teeth, pages, noise", str(seed), lambda s=seed: drawn(np.random.default_rng(s))  # type: ignore[misc]
        yield (
            "rendered: from the side, from above, parts",
            f"{kind} {seed}",
            lambda s=seed, k=kind: rendered(density, np.random.default_rng(s), k),  # type: ignore[misc]
        )


def _measure(a: argparse.Namespace) -> None:
    model = cxw_monai.load(a.model)
    if not isinstance(model, SegmentationModel):
        raise ValueError(f"{a.model} is no segmenter.")
    rows: list[dict[str, str]] = []
    if a.output.exists():
        with a.output.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    done = {(row["films"], row["name"]) for row in rows}
    with a.output.open("a", newline="", encoding="utf-8", buffering=1) as stream:
        writer = csv.DictWriter(stream, ["films", "name", *SIGNS])
        if not rows:
            writer.writeheader()
        cases = [case for name, place in a.source for case in _chests(name, place, a.turned, a.most)]
        for films, name, film in [*cases, *(_made_up(a.made_up) if a.made_up else ())]:
            if (films, name) in done:
                continue
            row = {"films": films, "name": name, **{k: str(v) for k, v in signs_of_film(model, film()).items()}}
            writer.writerow(row)
            rows.append(row)
    print(format_table(rows))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a segmenter: its file, or a bundle's folder or name")
    parser.add_argument("--output", type=Path, required=True, help="CSV to make or to go on with")
    parser.add_argument(
        "--source", type=name_and_value, action="append", default=[], metavar="NAME=MANIFEST[:SPLIT]", help="chests"
    )
    parser.add_argument("--most", type=int, default=1000, help="films of a source, evenly taken (default 1000)")
    parser.add_argument("--turned", type=int, default=40, help="films of a source that are turned too (default 40)")
    parser.add_argument("--made-up", type=int, default=0, help="drawn, and as many rendered, films (default none)")
    arguments = parser.parse_args(argv)
    return ended(lambda: _measure(arguments))


if __name__ == "__main__":
    sys.exit(main())
