"""Classifies films: files in, calibrated probabilities and decisions out.

::

    DIR/classification.csv           a row a film: probability of each class, decision and threshold at each point
    DIR/failures.csv                 films that could not be classified: path, reason, remedy
    DIR/settings.json                the model's hash, its classes, temperatures and operating points
    DIR/<film>/classification.json   on request, what the film's row says
    DIR/<film>/classification.dcm    on request, the same as a DICOM SR, for DICOM films
    DIR/<film>/heatmap_<class>.png   on request, where the classifier looks
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from monai.inferers import Inferer
from torch import nn

from cxw_monai import __version__
from cxw_monai.io import Radiograph, RadiographError
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.identity import FileIdentity
from cxw_monai.io.results.classification_sr import write_classification_sr
from cxw_monai.io.results.dicom_shared import SegAlgorithm
from cxw_monai.io.results.folders import mark_own
from cxw_monai.weights.classifier_settings import ClassifierSettings

from .classify_settings import ClassifySettings
from .film_results import FILE_COLUMNS, FilmResults
from .film_run import FAILURES, SETTINGS, FilmRun, warn_of_doubts
from .heat_maps import HeatMaps, drawn, heat_maps, write_heat_map
from .predictor import Predictor, Transform, doubts_of

__all__ = ["ClassificationWriter", "FilmClassifier", "Probabilitiesd", "decisions_of"]

_TABLE, _JSON, _SR, _HEAT = "classification.csv", "classification.json", "classification.dcm", "heatmap_{}.png"
_logger = logging.getLogger(__name__)


class Probabilitiesd:
    """Logits `[L]` of `pred` to calibrated probabilities, as a dictionary transform.

    Args:
        settings: the classifier's.
    """

    def __init__(self, settings: ClassifierSettings) -> None:
        self._model = settings.probabilities(nn.Identity())

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        return {**data, "pred": self._model.of_logits(data["pred"].cpu())}


def decisions_of(
    probabilities: Mapping[str, float], points: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, bool]]:
    """By class and name of the operating point, whether the probability reaches the point's threshold."""
    return {
        name: {point: probability >= threshold for point, threshold in points.get(name, {}).items()}
        for name, probability in probabilities.items()
    }


class ClassificationWriter(FilmResults):
    """Writes what a classifier says of one film after the other; see `FilmResults`.

    Args:
        output_dir, sources, root, resume: see `FilmResults`.
        model: the classifier's settings.
        formats: what is written beside the table: `json`, `heatmap`, `sr`.
        algorithm: what a SR names as the classifier.
    """

    PATTERNS = (_JSON, _SR, _HEAT.format("*"))

    def __init__(
        self,
        output_dir: str | PathLike[str],
        sources: Sequence[str],
        root: str | PathLike[str],
        resume: bool,
        model: ClassifierSettings,
        formats: Sequence[str],
        algorithm: SegAlgorithm,
    ) -> None:
        self.model, self.formats, self.algorithm = model, set(formats), algorithm
        self.implausible, self.created = 0, datetime.now()
        columns = [f"probability_{name}" for name in model.classes]
        for name in model.classes:
            points = model.operating_points.get(name, {})
            columns += [f"{what}_{name}_{point}" for point in points for what in ("decision", "threshold")]
        columns = [*FILE_COLUMNS, *["sr_note"] * ("sr" in self.formats), "implausible", *columns]
        super().__init__(output_dir, sources, root, _TABLE, columns, (_TABLE, FAILURES, SETTINGS), resume)

    def files(self, row: Mapping[str, str]) -> list[str]:
        heat_maps_ = [_HEAT.format(name) for name in self.model.classes]
        files = [_JSON] * ("json" in self.formats) + heat_maps_ * ("heatmap" in self.formats)
        return files + [_SR] * ("sr" in self.formats and not row.get("sr_note"))

    def write(
        self,
        film: Radiograph,
        identity: FileIdentity,
        probabilities: Mapping[str, float],
        doubts: Sequence[str],
        maps: HeatMaps | None,
    ) -> None:
        """Write one film's results.

        Args:
            film: the whole film.
            identity: of its file when it was read.
            probabilities: by class.
            doubts: what speaks against the film.
            maps: of the classes; None where none are wanted.
        """
        path, points = film.meta["path"], self.model.operating_points
        decisions = decisions_of(probabilities, points)
        self.clear(path)
        cells = self.file_cells(film, identity) | {"implausible": "; ".join(doubts)}
        cells |= {f"probability_{name}": repr(one) for name, one in probabilities.items()}
        for name, at in decisions.items():
            for point, decided in at.items():
                cells[f"decision_{name}_{point}"] = int(decided)
                cells[f"threshold_{name}_{point}"] = repr(float(points[name][point]))
        if self.files({}):
            folder = self.folder(path)
            folder.mkdir(parents=True, exist_ok=True)
            mark_own(folder)
            if "json" in self.formats:
                said = {"image": cells["image"], "probabilities": probabilities, "decisions": decisions}
                with atomic_file(folder / _JSON, "w", encoding="utf-8") as stream:
                    json.dump({**said, "operating_points": points, "implausible": list(doubts)}, stream, indent=1)
            if maps is not None:
                grey = drawn(film.array[0])
                for name, values in zip(self.model.classes, maps.values, strict=True):
                    title = f"{name.replace('_', ' ')}: probability {probabilities[name]:.3f}"
                    file, legend = folder / _HEAT.format(name), (title, maps.quantity, maps.least)
                    write_heat_map(file, grey, values, *legend)
            if "sr" in self.formats:
                cells["sr_note"] = self._write_sr(folder / _SR, path, probabilities, bool(doubts))
        self.implausible += bool(doubts)
        self.append(cells)

    def _write_sr(self, file: Path, path: str, probabilities: Mapping[str, float], doubtful: bool) -> str:
        """Write the SR; why there is none, in words, where it can't be made."""
        how: dict[str, Any] = {"created": self.created, "algorithm": self.algorithm, "doubtful": doubtful}
        try:
            write_classification_sr(file, path, probabilities, self.model.operating_points, **how)
        except RadiographError as error:
            _logger.warning("no DICOM SR of %s", error)
            return error.reason
        return ""


class FilmClassifier(FilmRun):
    """Classifies one film after the other and writes its results; see `FilmRun`.

    Args:
        films, source, output_dir: see `FilmRun`.
        network: takes ``[B, 1, H, W]`` in [0, 1] to logits ``[B, L]``.
        model: the network's settings.
        preprocessing, inferer, postprocessing: see `Predictor`.
        settings: the run's.
        model_hash: of the weights, for the record.
    """

    DOING, DONE = "classifying", "classified"

    def __init__(
        self,
        films: Sequence[str],
        source: str | PathLike[str],
        output_dir: str | PathLike[str],
        *,
        network: nn.Module,
        model: ClassifierSettings,
        preprocessing: Transform,
        inferer: Inferer,
        postprocessing: Transform,
        settings: ClassifySettings,
        model_hash: str = "",
    ) -> None:
        self.settings, self.model, self.model_hash, self.network = settings, model, model_hash, network
        given: dict[str, Any] = {"amp": settings.amp, "inferer": inferer, "postprocessing": postprocessing}
        predictor = Predictor(network, preprocessing, settings.device, model.classes, **given)
        ahead = settings.num_workers, settings.batch_size
        super().__init__(films, source, output_dir, predictor, settings.reader(), *ahead, settings.resume)

    def results(self) -> ClassificationWriter:
        settings = self.settings
        version, title = f"{__version__} {self.model_hash[:16]}".strip(), "Classification by chexworld_classification"
        algorithm = SegAlgorithm("chexworld_classification", version, description=title)
        return ClassificationWriter(
            self.output_dir, self.films, self.root, settings.resume, self.model, settings.formats, algorithm
        )

    def read(self, path: str, results: FilmResults) -> Any:
        """The film, its file's identity, and what speaks against it, which the thread looks at too."""
        found = super().read(path, results)
        if found is None or isinstance(found, RadiographError):
            return found
        try:
            return *found, doubts_of(found[0], self.settings.on_implausible, self.model.anatomy)
        except RadiographError as error:
            return error

    def write(self, results: ClassificationWriter, film: Radiograph, identity: FileIdentity, *more: Any) -> None:
        doubts: list[str] = more[0]
        found = self.predictor.probabilities(film.array)
        warn_of_doubts(film, doubts)
        probabilities = {name: float(one) for name, one in zip(self.model.classes, found, strict=True)}
        maps = None
        if "heatmap" in self.settings.formats:
            image = self.predictor.prepare(film.array)[None].to(self.predictor.device)
            with torch.inference_mode(), self.predictor.precision():
                maps = heat_maps(self.network, image)
        results.write(film, identity, probabilities, doubts, maps)

    def summary(self, results: ClassificationWriter, failed: int) -> dict[str, Any]:
        if results.implausible:
            shown = results.implausible, _TABLE
            _logger.warning("%d films look implausible: see the column 'implausible' of %s", *shown)
        return {"classified": len(self.films) - failed, "implausible": results.implausible}

    def made_with(self) -> dict[str, Any]:
        return {
            "classes": self.model.classes,
            "target": self.model.target,
            "temperatures": self.model.temperatures,
            "operating_points": self.model.operating_points,
            "formats": sorted({*self.settings.formats} - {"csv"}),  # the table is always written
            "on_implausible": self.settings.on_implausible,
            **self.settings.reader(),
            "model_sha256": self.model_hash,
            "package_version": __version__,
        }
