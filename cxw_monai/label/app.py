"""The app that MONAI Label serves. Its ``main.py`` only imports this."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.activelearning.random import Random

from cxw_monai import __version__

from .datastore import FilmDatastore
from .dicomweb import DicomWebFilms
from .model import LabelClassifier, LabelModel
from .tasks import ClassificationInfer, EmbeddingInfer, SegmentationInfer, Uncertainty, discarded_on_error
from .training import SegmentationTraining

__all__ = ["CxwLabelApp"]

SEGMENTATION, EMBEDDING = "chexworld_segmentation", "chexworld_embedding"
_UPLOAD = re.compile(r"tmp[a-z0-9_]{8}(\.[^/\\]*)?")


class CxwLabelApp(MONAILabelApp):
    """Segmentation, embedding and classification of single films.

    Args:
        app_dir: its folder, with ``model/chexworld_segmentation.pt``.
        studies: a folder of films, or the address of a DICOMweb server.
        conf: `bundle`, the segmentation bundle's folder; `device`; `classifiers`, files by name, as JSON.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        logging.getLogger("monailabel").setLevel(logging.WARNING)  # its lines quote requests, file names and headers
        self.bundle = Path(conf["bundle"])
        model_file = Path(app_dir) / "model" / f"{SEGMENTATION}.pt"
        device = conf.get("device", "cpu")
        self.label_model = LabelModel(model_file, device)
        files: dict[str, str] = json.loads(conf.get("classifiers", "{}"))
        self.classifiers = {name: LabelClassifier(file, device) for name, file in files.items()}
        super().__init__(
            app_dir,
            studies,
            dict(conf),
            name=f"cxw_monai {__version__}",
            description="Segmentation, embedding and classification of frontal chest films. Research use only.",
            version=__version__,
        )

    def init_infers(self) -> dict[str, InferTask]:
        classification = {name: ClassificationInfer(model) for name, model in self.classifiers.items()}
        own = {SEGMENTATION: SegmentationInfer(self.label_model), EMBEDDING: EmbeddingInfer(self.label_model)}
        return own | classification

    def init_trainers(self) -> dict[str, TrainTask]:
        return {SEGMENTATION: SegmentationTraining(self.label_model, self.bundle, Path(self.app_dir) / "runs")}

    def init_strategies(self) -> dict[str, Strategy]:
        return {"random": Random(), "uncertainty": Uncertainty(self.label_model)}

    def init_datastore(self) -> Datastore:
        if self.studies.startswith(("http://", "https://")):
            name = hashlib.sha256(self.studies.rstrip("/").encode()).hexdigest()[:16]
            user, password = settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
            credentials = (user, password) if user and password else None
            return DicomWebFilms(self.studies, Path(self.app_dir) / "dicomweb" / name, self.label_model, credentials)
        watch = os.environ.get("MONAI_LABEL_DATASTORE_AUTO_RELOAD", "true").lower() == "true"
        return FilmDatastore(self.studies, self.label_model, watch)

    def infer(self, request: Mapping[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Run an infer task on a film of the datastore, or on one that came with the request.

        Raises:
            HTTPException: 404 for a model or a film that isn't there, or what the task raises.
        """
        task = self._infers.get(request.get("model", ""))
        if task is None:
            raise HTTPException(404, f"no such model; there are {', '.join(self._infers)}")
        datastore = datastore or self.datastore()
        image, uploaded = request.get("image"), _is_upload(request.get("image"))
        uri = image if uploaded else datastore.get_image_uri(image) if isinstance(image, str) else ""
        if not uri or not os.path.exists(uri):
            raise HTTPException(404, "no such image")
        named = "the film" if uploaded else image
        with discarded_on_error(uri if uploaded else None):
            file, about = task({**deepcopy(dict(request)), "image": uri, "image_name": named})
        label = file
        if file and request.get("save_label") is True and not uploaded:
            tag = request.get("label_tag", DefaultLabelTag.ORIGINAL.value)
            label = datastore.save_label(image, file, tag, {"model": request["model"], "params": about})
        return {"label": label, "tag": DefaultLabelTag.ORIGINAL, "file": file, "params": about}

    def batch_infer(self, request: Mapping[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Run an infer task on many films, one after the other; MONAI Label's own needs a GPU."""
        return super().batch_infer({"multi_gpu": False, "max_workers": 1, **request}, datastore)

    def infer_wsi(self, request: Mapping[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Always 404: whole-slide images are not for radiographs."""
        raise HTTPException(404, "no whole-slide models here")

    def next_sample(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The next film to annotate.

        Raises:
            HTTPException: 404 for an unknown strategy.
        """
        if request.get("strategy") not in self._strategies:
            raise HTTPException(404, f"no such strategy; there are {', '.join(self._strategies)}")
        return super().next_sample(request)


def _is_upload(image: Any) -> bool:
    """Whether an image is a file that came with this request: MONAI Label puts those into the temporary folder."""
    if not isinstance(image, str):
        return False
    folder, name = os.path.split(image)
    return folder == tempfile.gettempdir() and bool(_UPLOAD.fullmatch(name)) and os.path.isfile(image)
