"""Classifies films: files in, calibrated probabilities and decisions out.

::

    DIR/classification.csv           a row a film: probability of each class, decision and threshold at each point
    DIR/failures.csv                 films that could not be classified: path, reason, remedy
    DIR/settings.json                the model's hash, its classes, temperatures and operating points
    DIR/<film>/classification.json   on request, what the film's row says
    DIR/<film>/heatmap_<class>.png   on request, where the classifier looks
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from monai.inferers import Inferer
from torch import nn
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from cxw_monai import __version__
from cxw_monai.io import Radiograph, RadiographError
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import CsvWriter
from cxw_monai.io.files.identity import FileIdentity
from cxw_monai.io.results.film_names import film_name, result_folders
from cxw_monai.io.results.folders import mark, output_lock
from cxw_monai.training.precision import supported_amp
from cxw_monai.weights.classifier_settings import ClassifierSettings

from .classify_settings import ClassifySettings
from .heat_maps import heat_maps, write_heat_map
from .predictor import Predictor, Transform
from .reading import read_ahead, read_whole

__all__ = ["FilmClassifier", "Probabilitiesd", "decisions_of"]

_TABLE, _FAILURES, _SETTINGS = "classification.csv", "failures.csv", "settings.json"
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


class FilmClassifier:
    """Classifies one film after the other and writes its results.

    A film that can't be read is logged in one line and listed in ``failures.csv``; the others are classified.

    Args:
        films: absolute paths.
        source: what the user gave as input; films are named by their path below it (below its folder, for a file).
        output_dir: is made.
        network: takes ``[B, 1, H, W]`` in [0, 1] to logits ``[B, L]``.
        model: the network's settings.
        preprocessing, inferer, postprocessing: see `Predictor`.
        settings: the run's.
        model_hash: of the weights, for the record.
    """

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
        self.films, self.output_dir = list(films), Path(output_dir)
        self.root = os.path.abspath(source) if os.path.isdir(source) else os.path.dirname(os.path.abspath(source))
        self.settings, self.model, self.model_hash = settings, model, model_hash
        self.network = network
        self.predictor = Predictor(
            network,
            preprocessing,
            settings.device,
            model.classes,
            amp=settings.amp,
            inferer=inferer,
            postprocessing=postprocessing,
        )
        reserved = (_TABLE, _FAILURES, _SETTINGS)
        self._folders = result_folders(self.films, self.root, reserved)

    def run(self) -> dict[str, Any]:
        """Classify all films.

        Returns:
            Numbers of films: ``classified``, ``failed`` and ``total``.

        Raises:
            ValueError: the folder can't be written, or another run is writing there (OutputBusyError).
        """
        try:
            with output_lock(self.output_dir):
                return self._run()
        except OSError as error:
            where, reason = error.filename or self.output_dir, error.strerror or type(error).__name__
            raise ValueError(f"{where}: {reason}; correct that or give another --output") from None

    def _run(self) -> dict[str, Any]:
        self._record()
        points = [(name, point) for name in self.model.classes for point in self.model.operating_points.get(name, {})]
        columns = [f"probability_{name}" for name in self.model.classes]
        columns += [f"{what}_{name}_{point}" for name, point in points for what in ("decision", "threshold")]
        options, failed = self.settings.reader(), 0
        with (
            atomic_file(self.output_dir / _TABLE, "w", newline="", encoding="utf-8") as table,
            (self.output_dir / _FAILURES).open("w", newline="", encoding="utf-8", buffering=1) as lines,
            logging_redirect_tqdm(),
            tqdm(total=len(self.films), desc="classifying", unit="film") as bar,
        ):
            rows, failures = CsvWriter(table), CsvWriter(lines)
            rows.writerow(["image", "file_sha256", *columns])
            failures.writerow(("path", "reason", "remedy"))
            read = partial(read_whole, options=options)
            for film in read_ahead(self.films, read, self.settings.num_workers, self.settings.batch_size):
                if isinstance(film, RadiographError):
                    failed += 1
                    failures.writerow((film_name(film.path, self.root), film.reason, film.remedy))
                    _logger.warning("not classified: %s", film)
                elif film is not None:
                    rows.writerow(self._row(*film))
                bar.update()
        return {"classified": len(self.films) - failed, "failed": failed, "total": len(self.films)}

    def _row(self, film: Radiograph, identity: FileIdentity) -> list[Any]:
        """A film's row in the table; writes what else is asked for."""
        found = self.predictor.probabilities(film.array)
        probabilities = {name: float(one) for name, one in zip(self.model.classes, found, strict=True)}
        points = self.model.operating_points
        decisions = decisions_of(probabilities, points)
        path = os.path.abspath(film.meta["path"])
        self._write_beside(path, film, probabilities, decisions)
        row: list[Any] = [film_name(path, self.root), identity.sha256]
        row += [f"{one:.6f}" for one in probabilities.values()]
        for name, at in decisions.items():
            for point, decided in at.items():
                row += [int(decided), f"{points[name][point]:.6f}"]
        return row

    def _write_beside(
        self,
        path: str,
        film: Radiograph,
        probabilities: Mapping[str, float],
        decisions: Mapping[str, Mapping[str, bool]],
    ) -> None:
        """The files of one film's folder."""
        if not {"json", "heatmap"} & set(self.settings.formats):
            return
        folder = self.output_dir / self._folders[path]
        folder.mkdir(parents=True, exist_ok=True)
        mark(folder)
        if "json" in self.settings.formats:
            content = {"image": film_name(path, self.root), "probabilities": probabilities, "decisions": decisions}
            with atomic_file(folder / "classification.json", "w", encoding="utf-8") as stream:
                json.dump(content, stream, indent=1)
        if "heatmap" in self.settings.formats:
            image = self.predictor.prepare(film.array)[None].to(self.predictor.device)
            with torch.inference_mode(), self.predictor.precision():
                maps = heat_maps(self.network, image)
            for name, values in zip(self.model.classes, maps, strict=True):
                write_heat_map(folder / f"heatmap_{name}.png", film.array[0], values)

    def _record(self) -> None:
        """Write what the results are made with."""
        made = {
            "classes": self.model.classes,
            "target": self.model.target,
            "temperatures": self.model.temperatures,
            "operating_points": self.model.operating_points,
            "amp": supported_amp(self.predictor.device, self.settings.amp),
            **self.settings.reader(),
            "model_sha256": self.model_hash,
            "package_version": __version__,
        }
        with atomic_file(self.output_dir / _SETTINGS, "w", encoding="utf-8") as stream:
            json.dump(made, stream, indent=2)
