"""One HTML page of a landmark network's evaluation: a table of the points, and the worst films."""

from __future__ import annotations

import io
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ImageDraw

from cxw_monai.io.results.point_overlay import PRED_COLOUR, TRUE_COLOUR, draw_points, upright_picture
from cxw_monai.metrics.landmarks import ALL, SUCCESS_MM, PointSummary
from cxw_monai.tasks.pages import data_url, write_html

if TYPE_CHECKING:
    from .scores import FilmCase

__all__ = ["draw_case", "write_page"]

PICTURE_SIDE = 512
_TEMPLATE = Path(__file__).with_name("landmark_report.html.j2")
_WORST = 5  # points that are listed below a film


def draw_case(case: FilmCase) -> Any:
    """A film with its true and its found landmarks, a line between the two of each known one.

    Returns:
        An RGB picture, 512 px on the longer side.
    """
    picture = upright_picture(case.image, side=PICTURE_SIDE)
    draw, known = ImageDraw.Draw(picture), ~np.isnan(case.errors)
    for ends in np.stack([case.true, case.pred], axis=1)[known] * np.array(picture.size):
        draw.line([tuple(end) for end in ends.tolist()], fill=(255, 255, 255), width=1)
    draw_points(picture, np.where(known[:, None], case.true, np.nan), TRUE_COLOUR, circles=True)
    draw_points(picture, np.where(known[:, None], case.pred, np.nan), PRED_COLOUR)
    return picture


def write_page(
    path: str | PathLike[str],
    rows: Sequence[PointSummary],
    points: Sequence[str],
    films: int,
    cases: Sequence[FilmCase],
) -> None:
    """Write a page that needs no network.

    Args:
        path: of the HTML file.
        rows: summaries of the landmarks, then that over all.
        points: P names.
        films: number of films that were scored.
        cases: films to show, worst first.
    """
    write_html(
        path,
        _TEMPLATE,
        films=films,
        without=[row.point.replace("_", " ") for row in rows if not row.known],
        in_mm=rows[-1].mean_mm is not None,
        successes=[f"{most:g} mm" for most in SUCCESS_MM],
        rows=[_row(row) for row in rows],
        cases=[_case(case, points) for case in cases],
        true_colour="#" + bytes(TRUE_COLOUR).hex(),
        pred_colour="#" + bytes(PRED_COLOUR).hex(),
    )


def _row(row: PointSummary) -> dict[str, Any]:
    return {
        "point": "all" if row.point == ALL else row.point.replace("_", " "),
        "known": row.known,
        "numbers": [_number(one) for one in (row.mean_px, row.mean_mm)],
        "interval": "" if row.low_mm is None else f"{_number(row.low_mm)} to {_number(row.high_mm)}",
        "spread": [_number(one) for one in (row.sd_mm, row.median_mm, row.p95_mm)],
        "success": [""] * len(SUCCESS_MM) if row.success is None else [f"{100 * rate:.1f}" for rate in row.success],
    }


def _case(case: FilmCase, points: Sequence[str]) -> dict[str, Any]:
    stream = io.BytesIO()
    draw_case(case).save(stream, "JPEG", quality=85, subsampling=0, optimize=True)
    order = [int(n) for n in np.argsort(-np.nan_to_num(case.errors, nan=-1.0)) if not np.isnan(case.errors[n])]
    return {
        "name": case.name,
        "mean": _number(float(np.nanmean(case.errors))),
        "unit": case.unit,
        "lines": [
            (points[n].replace("_", " "), _number(float(case.errors[n])), f"{case.confidence[n]:.2f}")
            for n in order[:_WORST]
        ],
        "picture": data_url(stream.getvalue(), "jpeg"),
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
