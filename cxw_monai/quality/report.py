"""The findings as a CSV of all films and one HTML page of the flagged ones."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from PIL import Image, ImageDraw

from cxw_monai.io import read_radiograph
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import write_rows
from cxw_monai.io.results.film_names import film_path

from .isolation import Failed, run_isolated
from .records import CHECKS, COLUMNS, FilmRecord

__all__ = ["preview", "write_csv", "write_page"]

_TEMPLATE = Path(__file__).with_name("page.html.j2")
_THUMBNAIL = 120  # px of the longer side
_FRAME = (255, 140, 0)


def write_csv(path: str | PathLike[str], records: Sequence[FilmRecord]) -> None:
    """Write a row per film, with :data:`COLUMNS`."""
    with atomic_file(path, "w", newline="", encoding="utf-8") as stream:
        write_rows(stream, COLUMNS, (record.cells() for record in records))


def preview(film: tuple[str, tuple[int, int, int, int]]) -> str:
    """A small picture as a data URL, the border's inner edge drawn where there is one.

    Args:
        film: its path, and ``(top, left, height, width)`` inside its border.

    Raises:
        RadiographError: the file can't be read.
    """
    path, (top, left, height, width) = film
    grey = read_radiograph(path, min_size=1).array[0]
    scale = min(_THUMBNAIL / max(grey.shape), 1.0)
    size = max(round(grey.shape[1] * scale), 1), max(round(grey.shape[0] * scale), 1)
    picture = Image.fromarray(np.rint(grey * 255).astype(np.uint8)).resize(size, Image.Resampling.BOX)
    if (height, width) != grey.shape:
        picture = picture.convert("RGB")
        edges = (left, top, left + width - 1, top + height - 1)
        ImageDraw.Draw(picture).rectangle([edge * scale for edge in edges], outline=_FRAME)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=75, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def write_page(
    path: str | PathLike[str],
    records: Sequence[FilmRecord],
    root: str | PathLike[str],
    *,
    per_check: int = 60,
    workers: int = 1,
    seconds: float = 60.0,
) -> None:
    """Write a page that needs no network: counts of all films, and flagged films with small pictures.

    Args:
        path: of the HTML file.
        records: from :func:`~cxw_monai.quality.check_radiographs`.
        root: the folder that the records' names are relative to.
        per_check: most films shown for each finding; the CSV has all.
        workers: processes that read the films to show.
        seconds: longest time for one of them; its picture is left out then.

    Raises:
        ValueError: ``per_check`` is negative.
    """
    if per_check < 0:
        raise ValueError(f"per_check must be at least 0, got {per_check}")
    counts = Counter(flag for record in records for flag in record.flags)
    shown = _shown(records, per_check)
    pictured = [record for record in shown if record.height is not None]
    tasks = [
        (film_path(record.image, root), (record.top, record.left, record.height, record.width)) for record in pictured
    ]
    pictures: dict[str, str] = {}
    for index, picture in run_isolated(preview, tasks, max(workers, 1), seconds) if tasks else ():
        pictures[pictured[index].image] = "" if isinstance(picture, Failed) else picture
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        _TEMPLATE.read_text(encoding="utf-8")
    )
    html = page.render(
        total=len(records),
        flagged=sum(bool(record.flags) for record in records),
        checks=[(name, meaning, counts[name]) for name, meaning in CHECKS.items()],
        rows=[_row(record, pictures.get(record.image, "")) for record in shown],
        per_check=per_check,
    )
    with atomic_file(path, "w", encoding="utf-8") as stream:
        stream.write(html)


def _shown(records: Sequence[FilmRecord], per_check: int) -> list[FilmRecord]:
    """Flagged films, so many of each finding that a frequent one doesn't hide a rare one."""
    seen: Counter[str] = Counter()
    shown = []
    for record in records:
        if any(seen[flag] < per_check for flag in record.flags):
            seen.update(record.flags)
            shown.append(record)
    return shown


def _row(record: FilmRecord, picture: str) -> dict[str, Any]:
    """What the template shows of a film."""
    return {
        "image": record.image,
        "picture": picture,
        "flags": record.flags,
        "note": record.reason or record.treatment,
        "size": "" if record.rows is None else f"{record.rows} x {record.columns}",
        "pixels": (record.rows or 0) * (record.columns or 0),
        "scores": [
            "" if value is None else f"{value:+.1f}" for value in (record.inverted, record.rotated, record.mirrored)
        ],
        "unlike": "" if record.unlike is None else f"{record.unlike:.2f}",
        "contrast": "" if record.contrast is None else f"{record.contrast:.2f}",
        "group": record.duplicate_group or "",
        "near_group": record.near_duplicate_group or "",
    }
