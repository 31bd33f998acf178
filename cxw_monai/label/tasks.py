"""What the server runs on a film: masks, an embedding, classes, and the choice of the next film to annotate."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.interfaces.tasks.strategy import Strategy

from cxw_monai import __version__
from cxw_monai.inference.classify import decisions_of
from cxw_monai.inference.settings import SegmentSettings
from cxw_monai.io import RadiographError
from cxw_monai.io.results.dicom_seg import SegAlgorithm
from cxw_monai.io.structures import describe_structure, structure_colours
from cxw_monai.weights.encoder import CheckpointError

from .label_files import RESULT_ENDINGS, write_result
from .label_maps import hidden_pixels
from .model import LabelClassifier, LabelModel, read_film

__all__ = [
    "ClassificationInfer",
    "EmbeddingInfer",
    "SegmentationInfer",
    "Uncertainty",
    "client_errors",
    "discarded_on_error",
]

_logger = logging.getLogger(__name__)


@contextmanager
def client_errors(name: str) -> Iterator[None]:
    """Give errors about files and settings to the client, by its own ``name`` of the file, without the server's path.

    Raises:
        HTTPException: 422 for a file that can't be used or a wrong setting, 503 for a model that can't.
    """
    try:
        yield
    except RadiographError as error:
        raise HTTPException(422, f"{name}: {error.reason}; {error.remedy}") from error
    except CheckpointError as error:
        raise HTTPException(503, f"the model can't be used: {error.reason}; {error.remedy}") from error
    except ValueError as error:
        raise HTTPException(422, str(error)) from error


@contextmanager
def discarded_on_error(path: str | None) -> Iterator[None]:
    """Delete a file that a client sent where its request fails: MONAI Label deletes it only after an answer."""
    try:
        yield
    except BaseException:
        if path is not None and os.path.exists(path):
            os.unlink(path)
        raise


class SegmentationInfer(InferTask):
    """Masks of one film, on its own pixel grid.

    A client's `params`, all optional: `result_extension` (one of `RESULT_ENDINGS`; the film's own ending where that is
    one of them, else ``.nii.gz``), `structures` (only these, so that nothing else hides them), `threshold`,
    `keep_largest`, `on_implausible` (``flag`` says in the answer's ``implausible`` what speaks against the masks,
    ``skip`` refuses them, ``keep`` doesn't look).
    """

    def __init__(self, model: LabelModel) -> None:
        labels = {name: number for number, name in enumerate(model.structures, start=1)}
        super().__init__(InferType.SEGMENTATION, labels, 2, "Organs of a frontal chest film")
        self.model = model

    def info(self) -> dict[str, Any]:
        names = self.model.structures
        labels = [
            {"name": name, "idx": number, "color": list(colour), "definition": describe_structure(name).definition}
            for number, (name, colour) in enumerate(zip(names, structure_colours(names), strict=True), start=1)
        ]
        return super().info() | {"label_info": labels, "result_extensions": list(RESULT_ENDINGS)}

    def is_valid(self) -> bool:
        return self.model.path.is_file()

    def get_path(self, validate: bool = True) -> str:
        return str(self.model.path)

    def __call__(self, request: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Segment.

        Returns:
            The result's file, which the server deletes when it is sent, and the answer's parameters.

        Raises:
            HTTPException: the film or a setting can't be used.
        """
        started = time.perf_counter()
        with client_errors(str(request.get("image_name") or "the film")):
            chosen = SegmentSettings(
                request.get("threshold", 0.5),
                request.get("keep_largest", "auto"),
                on_implausible=request.get("on_implausible", "flag"),
            )
            film = read_film(request["image"])
            names = _chosen(request.get("structures"), self.model.structures)
            ending = _ending(request.get("result_extension"), film.meta["path"])
            masks, doubts, _ = self.model.segment(film, chosen)
            if doubts:
                _logger.warning("implausible masks: %s", "; ".join(doubts))
            masks = masks[[self.model.structures.index(name) for name in names]]
            about = {
                "label_names": {name: number for number, name in enumerate(names, start=1)},
                "pixels": dict(zip(names, (int(mask.sum()) for mask in masks), strict=True)),
                "hidden_pixels": dict(zip(names, hidden_pixels(masks, names), strict=True)),
                "shape": list(masks.shape[1:]),
                "implausible": doubts,
                "model": self.model.version,
                "latencies": {},
            }
            handle, path = tempfile.mkstemp(suffix=ending)
            os.close(handle)
            with discarded_on_error(path):
                algorithm = SegAlgorithm(version=f"{__version__} {self.model.version}")
                write_result(path, film, masks, names, algorithm=algorithm.doubted() if doubts else algorithm)
        about["latencies"] = {"total": round(time.perf_counter() - started, 3)}
        return path, about


def _chosen(wanted: Any, known: tuple[str, ...]) -> list[str]:
    """The wanted structures in the model's order."""
    if not wanted:
        return list(known)
    if isinstance(wanted, str) or set(wanted) - set(known):
        raise ValueError(f"structures must be a list of some of {', '.join(known)}, got {wanted!r}")
    return [name for name in known if name in wanted]


def _ending(wanted: Any, film: str) -> str:
    if wanted:
        ending = "." + str(wanted).lower().lstrip(".")
        if ending not in RESULT_ENDINGS:
            raise ValueError(f"result_extension must be one of {', '.join(RESULT_ENDINGS)}, got {wanted!r}")
        return ending
    maps = (".nii.gz", ".nii", ".nrrd", ".png")
    return next((ending for ending in maps if film.lower().endswith(ending)), ".nii.gz")


class EmbeddingInfer(InferTask):
    """One vector of a film: the mean token of the segmentation model's encoder, as JSON."""

    def __init__(self, model: LabelModel) -> None:
        super().__init__(InferType.OTHERS, [], 2, "Embedding of a film (mean token of the encoder)")
        self.model = model

    def is_valid(self) -> bool:
        return self.model.path.is_file()

    def __call__(self, request: Mapping[str, Any]) -> tuple[None, dict[str, Any]]:
        """Embed.

        Raises:
            HTTPException: the film can't be used.
        """
        with client_errors(str(request.get("image_name") or "the film")):
            vector = self.model.embedding(read_film(request["image"]))
        return None, {"embedding": [float(f"{value:.7g}") for value in vector], "model": self.model.version}


class ClassificationInfer(InferTask):
    """Probabilities of one film and decisions at the classifier's operating points, as JSON.

    A client's `params`: `on_implausible` (``flag`` says in the answer's ``implausible`` what speaks against the film as
    an upright frontal chest film, ``skip`` refuses it, ``keep`` doesn't look).
    """

    def __init__(self, model: LabelClassifier) -> None:
        super().__init__(InferType.CLASSIFICATION, [], 2, "Classes of a film, with decisions at operating points")
        self.model = model

    def info(self) -> dict[str, Any]:
        settings = self.model.content.settings
        points = {name: dict(one) for name, one in settings.operating_points.items()}
        told = {"classes": list(settings.classes), "target": settings.target, "operating_points": points}
        return super().info() | told

    def is_valid(self) -> bool:
        return self.model.path.is_file()

    def __call__(self, request: Mapping[str, Any]) -> tuple[None, dict[str, Any]]:
        """Classify.

        Returns:
            No file, and the answer's parameters.

        Raises:
            HTTPException: the film or a setting can't be used.
        """
        started = time.perf_counter()
        with client_errors(str(request.get("image_name") or "the film")):
            film = read_film(request["image"])
            found, doubts = self.model.classify(film, request.get("on_implausible", "flag"))
            points = self.model.content.settings.operating_points
            decisions, version = decisions_of(found, points), self.model.version
        if doubts:
            _logger.warning("implausible film: %s", "; ".join(doubts))
        about = {"probabilities": {name: float(f"{one:.6f}") for name, one in found.items()}, "decisions": decisions}
        latencies = {"total": round(time.perf_counter() - started, 3)}
        return None, {**about, "implausible": doubts, "model": version, "latencies": latencies}


class Uncertainty(Strategy):
    """The film without a saved label of which the model is least sure (`LabelModel.uncertainty`).

    Films are scored once for each state of the model, at most `limit` new ones a request (a client's param, 200), so
    that an answer doesn't take forever; the choice is among the scored ones. Films that can't be read are passed over.
    """

    def __init__(self, model: LabelModel) -> None:
        super().__init__("The film of which the model is least sure")
        self.model = model
        self._scores: dict[str, float] = {}
        self._stamp: tuple[int, int] | None = None

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """The choice: `id` and `weight`, its uncertainty; None where no film is left."""
        if self._stamp != self.model.stamp:
            self._scores, self._stamp = {}, self.model.stamp
        left = sorted(datastore.get_unlabeled_images())
        for image in [one for one in left if one not in self._scores][: int(request.get("limit", 200))]:
            try:
                film = read_film(datastore.get_image_uri(image))
                with client_errors(image):
                    self._scores[image] = self.model.uncertainty(film)
            except RadiographError as error:
                _logger.warning("a film is passed over: %s", error.reason)
                self._scores[image] = -1.0
        scored = [image for image in left if self._scores.get(image, -1.0) >= 0]
        if not scored:
            return None
        best = max(scored, key=lambda image: self._scores[image])
        return {"id": best, "weight": min(self._scores[best], 1e9)}
