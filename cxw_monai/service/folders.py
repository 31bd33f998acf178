"""A folder of films answered at once: what the MONAI Deploy application runs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from cxw_monai.data.manifest import find_images
from cxw_monai.io import RadiographError
from cxw_monai.io.results.film_names import film_name, result_folders

from .answers import Answerer, Refused

__all__ = ["answer_folder"]


def answer_folder(answerer: Answerer, source: Path, output: Path) -> list[dict[str, Any]]:
    """Write the results of every film of a folder.

    Args:
        answerer: the models.
        source: searched by :func:`~cxw_monai.data.manifest.find_images`.
        output: gets a folder a film.

    Returns:
        Of each film its name below the source, its `state` (``done``, ``refused`` or ``failed``), `reasons`, and
        `results`, files relative to the output.

    Raises:
        ValueError: there is no film.
    """
    films = [item["image"] for item in find_images(source)]
    if not films:
        raise ValueError(f"{source}: no film in it; check the input")
    folders = result_folders(films, source, ("answers.json",))
    states = []
    for film in films:
        folder = output / folders[film]
        state: dict[str, Any] = {"film": film_name(film, source), "reasons": [], "results": []}
        try:
            answer = answerer.answer(Path(film), folder)
        except (RadiographError, Refused) as error:
            refused = isinstance(error, Refused)
            reasons = list(error.reasons) if isinstance(error, Refused) else [f"{error.reason}; {error.remedy}"]
            state |= {"state": "refused" if refused else "failed", "reasons": reasons}
            shutil.rmtree(folder, ignore_errors=True)
        else:
            results = [os.path.relpath(folder / name, output) for name in answer.results]
            state |= {"state": "done", "reasons": list(answer.reasons), "results": results}
        states.append(state)
    return states
