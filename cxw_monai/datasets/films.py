"""Films that have to be stored anew: of a format that isn't read, or stored with bone dark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin
from tqdm import tqdm

from cxw_monai.data.schema import Record
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.identity import file_identity
from cxw_monai.io.radiograph import RadiographError

from .common import Job

__all__ = ["NewFilm", "store_films"]

_SOURCE = "cxw_monai_source"  # PNG text field


@dataclass(frozen=True)
class NewFilm:
    """A film to store.

    Attributes:
        record: whose ``image`` is the published file; it becomes the new one.
        name: of the new file in ``images/``.
        make: gives the grey values, uint8 or uint16 ``[H, W]``, bone bright.
        recipe: text that changes when ``make`` does something else.
    """

    record: Record
    name: str
    make: Callable[[], np.ndarray]
    recipe: str


def store_films(job: Job, films: Sequence[NewFilm]) -> None:
    """Stores the films as ``images/<name>`` (PNG) in the output folder and points their records there.

    Those that are there, made of the same file in the same way, are kept. Films that can't be read are left out
    (:meth:`Job.kept` drops them).
    """

    def attempt(film: NewFilm) -> Path | RadiographError:
        try:
            return _store(job.out, film)
        except RadiographError as error:
            return error

    with ThreadPoolExecutor(job.workers) as pool:
        bar = tqdm(total=len(films), desc="films", disable=not job.progress, leave=False)
        for film, path in zip(films, pool.map(attempt, films), strict=True):
            if isinstance(path, RadiographError):
                job.leave_out(path)
            else:
                film.record.image = str(path)
            bar.update()


def _store(out: Path, film: NewFilm) -> Path:
    path = out / "images" / film.name
    made_of = f"{film.recipe} {file_identity(film.record.image).sha256}"
    if not (path.is_file() and _made_of(path) == made_of):
        text = PngImagePlugin.PngInfo()
        text.add_text(_SOURCE, made_of)
        pixels = film.make()
        with atomic_file(path) as stream:
            Image.fromarray(pixels).save(stream, format="PNG", pnginfo=text, compress_level=3)
    return path


def _made_of(path: Path) -> str | None:
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return image.info.get(_SOURCE)
    except Exception:  # a decoder may raise anything: it is made anew
        return None
