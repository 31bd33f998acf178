"""One page on a checkpoint: what it knows, whether it helps, and what it sees, in numbers and pictures."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import write_rows
from cxw_monai.tasks.pages import data_url, figure_url, write_html
from cxw_monai.training.curves import draw_panels, read_metrics
from cxw_monai.weights.kinds import read_weights

from .pictures import PANELS
from .settings import SeeingSettings
from .sight import Sight, open_sight
from .sight_pictures import (
    correspondence_figure,
    expectation_figures,
    neighbour_figure,
    principal_figure,
    surprise_figure,
)
from .verdict import judge
from .world import content_key, measure_world, table_lines

__all__ = ["write_report"]

WORST = 6
_TEMPLATE = Path(__file__).with_name("report.html.j2")

logger = logging.getLogger(__name__)


def write_report(settings: SeeingSettings) -> Path:
    """Write `report.html` of `output_dir`, which loads nothing, and `films.csv` with the films it numbers.

    Decoder, usual surprise, tests and verdict are kept in the folder, and a second run takes them from there.

    Returns:
        The page.

    Raises:
        ValueError, CheckpointError: see `open_sight`.
    """
    folder = Path(settings.output_dir)
    sight = open_sight(settings)
    rows = measure_world(settings)
    weights = read_weights(settings.ckpt)
    key = content_key(settings, weights, sight.films)
    verdict = _kept(folder / "seeing" / "verdict.json", key, lambda: judge(sight.world, sight.films, settings))
    scores = sight.surprise_scores(sight.surprise(sight.films.whole())).numpy()
    order = np.argsort(-scores)
    page = folder / "report.html"
    _write_films(folder / "films.csv", sight, scores)
    lines = table_lines(rows)
    write_html(
        page,
        _TEMPLATE,
        title=Path(settings.ckpt).name,
        about=_about(settings, sight),
        verdict=verdict,
        curves=_curves(weights.path.parent),
        head=lines[0],
        rows=lines[1:],
        decoder=sight.about_decoder,
        predicts=sight.world.predicts,
        most=sight.most,
        expected={name: figure_url(one, "jpeg", 90) for name, one in expectation_figures(sight).items()},
        principal=figure_url(principal_figure(sight), "jpeg", 90),
        correspondence=figure_url(correspondence_figure(sight), "jpeg", 90),
        neighbours=figure_url(neighbour_figure(sight), "jpeg", 90),
        typical=figure_url(surprise_figure(sight, _around(order, len(order) // 2)), "jpeg", 90),
        worst=figure_url(surprise_figure(sight, order[:WORST].tolist()), "jpeg", 90),
    )
    logger.info("Wrote %s.", page)
    return page


def _around(order: np.ndarray, middle: int) -> list[int]:
    first = max(0, min(middle - WORST // 2, len(order) - WORST))
    return order[first : first + WORST].tolist()


def _about(settings: SeeingSettings, sight: Sight) -> dict[str, Any]:
    encoder = sight.world.encoder
    return {
        "films": len(sight.films),
        "patients": len(np.unique(sight.films.patients)),
        "unreadable": len(sight.films.unreadable),
        "seed": settings.seed,
        "size": sight.world.size,
        "grid": sight.world.grid,
        "channels": encoder.embed_dim,
        "parameters": round(sum(p.numel() for p in encoder.parameters()) / 1e6, 1),
    }


def _kept(path: Path, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a file holds for this key, else what is made and written there."""
    if path.is_file():
        held = json.loads(path.read_text(encoding="utf-8"))
        if held.get("key") == key:
            return held["content"]
    content = make()
    with atomic_file(path, "w", encoding="utf-8") as stream:
        stream.write(json.dumps({"key": key, "content": content}, indent=2) + "\n")
    return content


def _curves(run: Path) -> str | None:
    """The curves of the run whose folder this is; None where it is none's."""
    if not (run / "metrics.csv").is_file():
        return None
    with tempfile.TemporaryDirectory() as place:
        picture = Path(place) / "curves.png"
        draw_panels(read_metrics(run / "metrics.csv"), PANELS, picture, width=14, dpi=75)
        return data_url(picture.read_bytes(), "png")


def _write_films(path: Path, sight: Sight, scores: np.ndarray) -> None:
    """Which file each number on the page is; the page itself names no file, which may tell a patient."""
    rows = [
        {"film": n, "image": str(row["image"]), "surprise": f"{score:.4f}"}
        for n, (row, score) in enumerate(zip(sight.films.rows, scores, strict=True), start=1)
    ]
    with atomic_file(path, "w", newline="", encoding="utf-8") as stream:
        write_rows(stream, list(rows[0]), rows)
