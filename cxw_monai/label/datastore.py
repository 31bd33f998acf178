"""Films and labels of the server: a folder, with names confined to it and labels checked before they are kept.

Beside what MONAI Label keeps, a saved (final) label becomes ``labels/masks/<film>/<structure>.png``, which is what a
training reads.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import HTTPException
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import DefaultLabelTag

from cxw_monai.io import Radiograph
from cxw_monai.io.results.folders import mark
from cxw_monai.io.results.mask_files import write_png_masks

from .label_files import label_ending, read_label
from .label_maps import annotated_masks, structure_values
from .model import LabelModel, read_film
from .tasks import client_errors, discarded_on_error

__all__ = ["FILM_ENDINGS", "FilmDatastore"]

FILM_ENDINGS = (".dcm", ".dicom", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".nii", ".nii.gz", ".nrrd")
_ENDINGS = (".seg.nrrd", ".bin", *FILM_ENDINGS)  # labels' and films', before those that they end with
_NAME = re.compile(r"[^/\\\x00-\x1f.][^/\\\x00-\x1f]{0,199}")
_TAG = re.compile(r"[A-Za-z0-9_-]{1,40}")


def checked_name(name: Any, kind: str, pattern: re.Pattern[str] = _NAME) -> str:
    """A name that a client sent, if it is one and no path.

    Raises:
        HTTPException: 422, it isn't.
    """
    if not isinstance(name, str) or not pattern.fullmatch(name):
        raise HTTPException(422, f"not a usable {kind}; give a name without '/', '\\' or a leading dot")
    return name


class FilmDatastore(LocalDatastore):
    """A folder of films.

    Films lie in the folder itself, not below it, with one of `FILM_ENDINGS`. Two films of one name and different
    endings would be one: the second isn't taken.

    Args:
        folder: the films.
        model: what films' labels are shown from, and its structures.
        watch: see files that are put into the folder while the server runs.
    """

    def __init__(self, folder: str, model: LabelModel, watch: bool = True) -> None:
        endings = [*_ENDINGS, *(ending.upper() for ending in FILM_ENDINGS)]
        self.model, self.mask_folder = model, Path(folder) / "labels" / "masks"
        super().__init__(folder, extensions=[f"*{ending}" for ending in endings], auto_reload=watch)
        mark(Path(folder) / "labels")

    def _to_id(self, file: str) -> tuple[str, str]:
        """Name and ending; the base class cuts the ending out wherever it stands."""
        ending = next((one for one in _ENDINGS if file.lower().endswith(one)), "")
        cut = len(file) - len(ending)
        return file[:cut], file[cut:]

    def _list_files(self, path: str, patterns: Sequence[str]) -> dict[str, str]:
        """Usable files of a folder; among the films, the first of each name."""
        found = sorted(name for name in super()._list_files(path, patterns) if _NAME.fullmatch(name))
        if os.path.realpath(path) != os.path.realpath(self._datastore.image_path()):
            return {name: name for name in found}
        films: dict[str, str] = {}
        for name in (one for one in found if self._to_id(one)[1].lower() in FILM_ENDINGS):
            films.setdefault(self._to_id(name)[0], name)
        return {name: name for name in films.values()}

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Take a film that a client sent.

        Raises:
            HTTPException: 422 for a name or a film that can't be used, 409 for a name that is there.
        """
        with discarded_on_error(image_filename):
            name = checked_name(image_id, "image name")
            if name in self._datastore.objects:
                raise HTTPException(409, f"{name} is there already; delete it first, or choose another name")
            if not self._to_id(image_filename)[1]:
                raise HTTPException(422, f"{name}: of no known ending; give one of {', '.join(FILM_ENDINGS)}")
            with client_errors(name):
                read_film(image_filename)
        return super().add_image(name, image_filename, image_info)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Keep a label; a final one is first read against its film.

        Raises:
            HTTPException: 404 for an unknown film, 422 for a label that can't be used.
        """
        with discarded_on_error(label_filename):
            checked_name(label_tag, "label tag", _TAG)
            if not (uri := self.get_image_uri(image_id)):
                raise HTTPException(404, "no such image")
            if not label_ending(label_filename):
                raise HTTPException(422, "a label of no known ending; save it as PNG, NIfTI, NRRD, .seg.nrrd or DICOM")
            if label_tag == DefaultLabelTag.FINAL:
                with client_errors(image_id):
                    film = read_film(uri)
                    masks = self._decode(film, label_filename, label_info or {})
                    self._publish(film, masks)
                    self._write_masks(image_id, film, masks)
        return super().save_label(image_id, label_filename, label_tag, label_info)

    def _decode(self, film: Radiograph, label: str, info: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Masks of a label's file, bool ``[*source_shape]`` by structure; ``label_info`` has the numbers of a map."""
        structures = self.model.structures
        values = structure_values(structures, info.get("label_info"))
        label_map, masks = read_label(label, film, structures, values)
        if label_map is None:
            return masks
        return annotated_masks(label_map, values, self.model.masks(film), structures)

    def _write_masks(self, image_id: str, film: Radiograph, masks: Mapping[str, np.ndarray]) -> None:
        folder = self.mask_folder / image_id
        shutil.rmtree(folder, ignore_errors=True)
        upright = [film.meta["pixel_map"].turn(mask) for mask in masks.values()]
        write_png_masks(folder, np.stack(upright), list(masks))

    def mask_files(self, image_id: str) -> dict[str, str]:
        """A film's masks that people's labels stand for: file by structure."""
        return {file.stem: str(file) for file in sorted((self.mask_folder / image_id).glob("*.png"))}

    def _publish(self, film: Radiograph, masks: dict[str, np.ndarray]) -> None:
        """What is done with a final label beside keeping it."""

    def remove_label(self, label_id: str, label_tag: str) -> None:
        super().remove_label(label_id, label_tag)
        if label_tag == DefaultLabelTag.FINAL and label_id in self._datastore.objects:
            shutil.rmtree(self.mask_folder / label_id, ignore_errors=True)
