"""Locates the landmarks of films: files in, points on the films' own pixels out.

::

    DIR/landmarks.csv           a row a film: each landmark, its confidence, and measurements
    DIR/landmarks.json          what each column is
    DIR/failures.csv            films that could not be done: path, reason, remedy
    DIR/settings.json           the model's hash, and what the points were made with
    DIR/<film>/landmarks.json   on request, what the film's row says
    DIR/<film>/landmarks.dcm    on request, of DICOM films: the same as a DICOM structured report
    DIR/<film>/overlay.png      on request, the film with its landmarks

A landmark is ``[x, y]`` (column, row) in px of the stored film, as in a manifest: the first pixel's centre is 0, 0.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.inferers import Inferer
from torch import nn

from cxw_monai import __version__
from cxw_monai.data.schema import LANDMARK
from cxw_monai.io import Radiograph, RadiographError
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.identity import FileIdentity
from cxw_monai.io.results.dicom_shared import SegAlgorithm
from cxw_monai.io.results.folders import mark_own
from cxw_monai.io.results.landmark_sr import write_landmark_sr
from cxw_monai.io.results.point_overlay import write_point_overlay
from cxw_monai.weights.landmarker_settings import LandmarkerSettings

from .chest_geometry import describe_geometry, measure_geometry
from .film_results import FILE_COLUMNS, FilmResults
from .film_run import FAILURES, SETTINGS, FilmRun, warn_of_doubts
from .locate_settings import LocateSettings
from .predictor import Predictor, Transform, doubts_of

__all__ = ["FilmLocator", "Landmark", "LandmarkWriter", "Pointsd", "landmarks_of"]

_TABLE, _COLUMNS, _JSON, _SR, _OVERLAY = (
    "landmarks.csv",
    "landmarks.json",
    "landmarks.json",
    "landmarks.dcm",
    "overlay.png",
)
_logger = logging.getLogger(__name__)


class Landmark(NamedTuple):
    """A landmark of a film.

    Attributes:
        x, y: column and row in px of the stored film; the centre of the first pixel is 0, 0.
        confidence: share of the heat map that lies around the point, in [0, 1].
    """

    x: float
    y: float
    confidence: float


class Pointsd:
    """Heat maps `[P, h, w]` of `pred` to points `[P, 3]` (`HeatMapPoints`), as a dictionary transform.

    Args:
        settings: the landmark network's.
    """

    def __init__(self, settings: LandmarkerSettings) -> None:
        self._reading = settings.reading()

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        return {**data, "pred": self._reading(data["pred"][None].cpu())[0]}


def landmarks_of(film: Radiograph, found: np.ndarray, points: Sequence[str]) -> dict[str, Landmark]:
    """Landmarks by name, on the pixels that the film's file stores.

    Args:
        film: as `read_radiograph` gives it.
        found: `[P, 3]`, see `HeatMapPoints`.
        points: P names.
    """
    pixel_map = film.meta["pixel_map"]
    stored = pixel_map.to_source(found[:, 1::-1].astype(np.float64) * np.array(pixel_map.shape)) - 0.5  # rows, columns
    return {
        name: Landmark(float(column), float(row), float(confidence))
        for name, (row, column), confidence in zip(points, stored, found[:, 2], strict=True)
    }


class LandmarkWriter(FilmResults):
    """Writes the landmarks of one film after the other; see `FilmResults`.

    Args:
        output_dir, sources, root, resume: see `FilmResults`.
        points: P names.
        formats: what is written beside the table: `json`, `overlay`, `sr`.
        min_confidence: a landmark with less is left out of `landmark_<name>`, of measurements, overlay and SR; its
            confidence is told.
        algorithm: what a SR names as the model.
    """

    PATTERNS = (_JSON, _SR, _OVERLAY)

    def __init__(
        self,
        output_dir: str | PathLike[str],
        sources: Sequence[str],
        root: str | PathLike[str],
        resume: bool,
        points: Sequence[str],
        formats: Sequence[str],
        min_confidence: float,
        algorithm: SegAlgorithm,
    ) -> None:
        self.points, self.formats, self.min_confidence = tuple(points), set(formats), min_confidence
        self.algorithm, self.created = algorithm, datetime.now()
        self.implausible = 0
        self.measured = describe_geometry((), self.points)
        note = {"sr_note": "why there is no DICOM SR; empty where there is one"}
        self.about = {
            **FILE_COLUMNS,
            **(note if "sr" in self.formats else {}),
            "implausible": "what speaks against the film; empty where nothing was found or looked for",
            "row_spacing_mm": "distance of the rows' centres in mm; empty where it isn't known",
            "column_spacing_mm": "distance of the columns' centres in mm; empty where it isn't known",
            **{
                f"{LANDMARK}{name}": "[x, y] in px of the stored film, the first pixel's centre is 0, 0; empty where "
                f"the confidence is below {min_confidence:g}"
                for name in self.points
            },
            **{f"confidence_{name}": "share of the heat map around the point, 0 to 1" for name in self.points},
            **self.measured,
        }
        reserved = (_TABLE, _COLUMNS, FAILURES, SETTINGS)
        super().__init__(output_dir, sources, root, _TABLE, list(self.about), reserved, resume)
        with atomic_file(self.output_dir / _COLUMNS, "w", encoding="utf-8") as stream:
            json.dump(self.about, stream, indent=2)

    def files(self, row: Mapping[str, str]) -> list[str]:
        files = [_JSON] * ("json" in self.formats) + [_OVERLAY] * ("overlay" in self.formats)
        return files + [_SR] * ("sr" in self.formats and not row.get("sr_note"))

    def write(
        self, film: Radiograph, identity: FileIdentity, found: np.ndarray, landmarks: Mapping[str, Landmark],
        doubts: Sequence[str],
    ) -> None:  # fmt: skip
        """Write one film's results.

        Args:
            film: the whole film.
            identity: of its file when it was read.
            found: `[P, 3]`, see `HeatMapPoints`.
            landmarks: of `landmarks_of`.
            doubts: what speaks against the film.
        """
        path, spacing = film.meta["path"], film.meta["spacing_mm"]
        self.clear(path)
        kept = {name: one for name, one in landmarks.items() if one.confidence >= self.min_confidence}
        cells = self.file_cells(film, identity) | {"implausible": "; ".join(doubts)}
        cells |= {"row_spacing_mm": spacing[0] if spacing else None}
        cells |= {"column_spacing_mm": spacing[1] if spacing else None}
        for name, one in landmarks.items():
            cells[f"{LANDMARK}{name}"] = json.dumps([round(one.x, 2), round(one.y, 2)]) if name in kept else None
            cells[f"confidence_{name}"] = one.confidence
        measured = self._measured(film, found, kept)
        cells |= measured
        if self.files({}):
            folder = self.folder(path)
            folder.mkdir(parents=True, exist_ok=True)
            mark_own(folder)
            if "json" in self.formats:
                said = {name: one._asdict() | {"on_film": name in kept} for name, one in landmarks.items()}
                about = {"image": cells["image"], "spacing_mm": spacing, "implausible": list(doubts)}
                with atomic_file(folder / _JSON, "w", encoding="utf-8") as stream:
                    json.dump({**about, "landmarks": said, "measurements": measured}, stream, indent=1)
            if "overlay" in self.formats:
                shown = np.where([[name in kept] for name in self.points], found[:, :2], np.nan)
                labels = [name.replace("_", " ") for name in self.points]
                write_point_overlay(folder / _OVERLAY, film.array[0], shown, labels, spacing_mm=spacing)
            if "sr" in self.formats:
                cells["sr_note"] = self._write_sr(folder / _SR, path, kept, bool(doubts))
        self.implausible += bool(doubts)
        self.append(cells)

    def _write_sr(self, file: Path, path: str, landmarks: Mapping[str, Landmark], doubtful: bool) -> str:
        """Write the SR; why there is none, in words, where it can't be made."""
        if not landmarks:
            return "no landmark on the film"
        how: dict[str, Any] = {"created": self.created, "algorithm": self.algorithm, "doubtful": doubtful}
        try:
            write_landmark_sr(file, path, landmarks, **how)
        except RadiographError as error:
            _logger.warning("no DICOM SR of %s", error)
            return error.reason
        return ""

    def _measured(self, film: Radiograph, found: np.ndarray, kept: Collection[str]) -> dict[str, float | None]:
        """Measurements by the landmarks that are on the film; None where one of them isn't."""
        height, width = film.array.shape[1:]
        upright = found[:, :2].astype(np.float64) * np.array([width, height]) - 0.5
        points = {name: (x, y) for name, (x, y) in zip(self.points, upright.tolist(), strict=True) if name in kept}
        return dict.fromkeys(self.measured) | measure_geometry({}, points, film.meta["spacing_mm"])


class FilmLocator(FilmRun):
    """Locates the landmarks of one film after the other and writes them; see `FilmRun`.

    Args:
        films, source, output_dir: see `FilmRun`.
        network: takes ``[B, 1, H, W]`` in [0, 1] to heat maps ``[B, P, H, W]``.
        model: the network's settings.
        preprocessing, inferer, postprocessing: see `Predictor`.
        settings: the run's.
        model_hash: of the weights, for the record.
    """

    DOING, DONE = "locating", "located"

    def __init__(
        self,
        films: Sequence[str],
        source: str | PathLike[str],
        output_dir: str | PathLike[str],
        *,
        network: nn.Module,
        model: LandmarkerSettings,
        preprocessing: Transform,
        inferer: Inferer,
        postprocessing: Transform,
        settings: LocateSettings,
        model_hash: str = "",
    ) -> None:
        self.settings, self.model, self.model_hash = settings, model, model_hash
        given: dict[str, Any] = {"amp": settings.amp, "inferer": inferer, "postprocessing": postprocessing}
        predictor = Predictor(network, preprocessing, settings.device, model.points, **given)
        ahead = settings.num_workers, settings.batch_size
        super().__init__(films, source, output_dir, predictor, settings.reader(), *ahead, settings.resume)

    def results(self) -> LandmarkWriter:
        chosen = self.settings
        version, title = f"{__version__} {self.model_hash[:16]}".strip(), "Landmarks by chexworld_landmarks"
        return LandmarkWriter(
            self.output_dir,
            self.films,
            self.root,
            chosen.resume,
            self.model.points,
            chosen.formats,
            chosen.min_confidence,
            SegAlgorithm("chexworld_landmarks", version, description=title),
        )

    def write(self, results: LandmarkWriter, film: Radiograph, identity: FileIdentity, *more: Any) -> None:
        doubts = more[0] if more else doubts_of(film, self.settings.on_implausible, self.model.anatomy)
        found = self.predictor.probabilities(film.array)  # [P, 3]
        warn_of_doubts(film, doubts)
        results.write(film, identity, found, landmarks_of(film, found, self.model.points), doubts)

    def summary(self, results: LandmarkWriter, failed: int) -> dict[str, Any]:
        return {"located": len(self.films) - failed, "implausible": results.implausible}

    def made_with(self) -> dict[str, Any]:
        return {
            "points": self.model.points,
            "heat_px": self.model.heat_px,
            "min_confidence": self.settings.min_confidence,
            "formats": sorted({*self.settings.formats} - {"csv"}),  # the table is always written
            "on_implausible": self.settings.on_implausible,
            **self.settings.reader(),
            "model_sha256": self.model_hash,
            "package_version": __version__,
        }
