"""Films of a DICOMweb server, and labels stored back to it as DICOM SEG.

A film is a series of one image, known by its SeriesInstanceUID. Images are fetched when they are asked for and kept in
the app's folder: in a folder named by that UID (digits and dots), under names made here. Of the header nothing is
logged, and nothing but that UID is kept beside the image.
"""

from __future__ import annotations

import logging
import re
import tempfile
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import requests
from dicomweb_client import DICOMwebClient
from dicomweb_client.session_utils import create_session_from_user_pass
from fastapi import HTTPException
from monailabel.datastore.local import DataModel, ImageLabelModel

from cxw_monai import __version__
from cxw_monai.io import Radiograph
from cxw_monai.io.dicom.film_classes import FILM_MODALITIES
from cxw_monai.io.results.dicom_seg import SegAlgorithm, write_dicom_seg

from .datastore import FilmDatastore
from .model import LabelModel

__all__ = ["DicomWebFilms"]

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_LIST_SECONDS = 5.0
_SERIES, _STUDY = "0020000E", "0020000D"
_logger = logging.getLogger(__name__)


class DicomWebFilms(FilmDatastore):
    """Series of one film each on a DICOMweb server (QIDO-RS, WADO-RS, STOW-RS).

    Args:
        url: of the service, such as ``http://127.0.0.1:8042/dicom-web``.
        folder: for fetched films and labels.
        model: for labels.
        credentials: user and password, or None.
    """

    def __init__(
        self, url: str, folder: str | Path, model: LabelModel, credentials: tuple[str, str] | None = None
    ) -> None:
        session = create_session_from_user_pass(*credentials) if credentials else None
        self.client = DICOMwebClient(url=url.rstrip("/"), session=session)
        # By default an answer that a server is gone takes half a minute, and others wait for it.
        self.client.set_http_retry_params(max_attempts=3, wait_exponential_multiplier=250)  # after 0.5 s and 1 s
        self._listed: tuple[float, list[str]] = (-_LIST_SECONDS, [])
        super().__init__(str(folder), model, watch=False)

    def name(self) -> str:
        return str(self.client.base_url)

    def list_images(self) -> list[str]:
        """SeriesInstanceUIDs of the films that the server has, or had a moment ago (every request asks for them)."""
        if time.monotonic() - self._listed[0] < _LIST_SECONDS:
            return list(self._listed[1])
        found: dict[str, None] = {}
        for modality in FILM_MODALITIES:
            for series in self._asked(self.client.search_for_series, search_filters={"Modality": modality}):
                uid = str(series[_SERIES]["Value"][0])
                if _UID.fullmatch(uid):
                    found[uid] = None
        self._listed = (time.monotonic(), list(found))
        return list(found)

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        labelled = set(self.get_labeled_images())
        return [uid for uid in self.list_images() if uid not in labelled]

    def get_image_uri(self, image_id: str) -> str:
        """The folder with the series' images; empty where the server has no such series."""
        if not _UID.fullmatch(image_id) or len(image_id) > 64:
            return ""
        folder = Path(self._datastore.image_path()) / image_id
        if not folder.is_dir() and not self._fetch(image_id, folder):
            return ""
        if image_id not in self._datastore.objects:
            self._datastore.objects[image_id] = ImageLabelModel(
                image=DataModel(info={"ts": int(time.time()), "name": image_id}, ext="")
            )
            self._update_datastore_file()
        return str(folder.resolve())

    def _fetch(self, uid: str, folder: Path) -> bool:
        """Fetch a series; whether there is one."""
        series = self._asked(self.client.search_for_series, search_filters={"SeriesInstanceUID": uid})
        study = next((one[_STUDY]["Value"][0] for one in series if one[_SERIES]["Value"] == [uid]), None)
        if study is None:
            return False
        images = self._asked(self.client.retrieve_series, study, uid)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching_") as temporary:
            whole = Path(temporary) / "series"
            whole.mkdir()
            for number, image in enumerate(images, start=1):
                image.save_as(whole / f"{number:04d}.dcm", write_like_original=False)
            whole.rename(folder)
        return True

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Keep a label; a final one goes to the server as a DICOM SEG too.

        Raises:
            HTTPException: as in the folder; 502 where the server doesn't take the SEG.
        """
        self.get_image_uri(image_id)  # so that its image is here
        return super().save_label(image_id, label_filename, label_tag, label_info)

    def _publish(self, film: Radiograph, masks: dict[str, np.ndarray]) -> None:
        algorithm = SegAlgorithm(
            version=f"{__version__} {self.model.version}",
            type="SEMIAUTOMATIC",
            description="Annotation, drawn or corrected by a person",
        )
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "label.dcm"
            stacked = np.stack(list(masks.values()))
            write_dicom_seg(path, film.meta["path"], stacked, list(masks), created=datetime.now(), algorithm=algorithm)
            answer = self._asked(self.client.store_instances, [pydicom.dcmread(path)])
        if answer.get("FailedSOPSequence"):
            raise HTTPException(502, "the DICOMweb server did not take the segmentation")

    def _asked(self, request: Any, *what: Any, **how: Any) -> Any:
        """The server's answer; 502 where there is none, or an error."""
        try:
            answer = request(*what, **how)
            return list(answer) if isinstance(answer, Iterable) and not isinstance(answer, pydicom.Dataset) else answer
        except requests.HTTPError as error:
            status = None if error.response is None else error.response.status_code
            _logger.warning("the DICOMweb server answered %s", status)
            raise HTTPException(502, f"the DICOMweb server answered {status}") from error
        except requests.RequestException as error:
            _logger.warning("the DICOMweb server can't be reached (%s)", type(error).__name__)
            raise HTTPException(502, f"the DICOMweb server can't be reached ({type(error).__name__})") from error

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Always 422: films come from the server."""
        raise HTTPException(422, "send films to the DICOMweb server itself")

    def remove_image(self, image_id: str) -> None:
        """Always 422: films stay on the server."""
        raise HTTPException(422, "films can't be removed from the DICOMweb server here")
